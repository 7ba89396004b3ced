"""The parts of `broker-demo`: ports, secrets, externals, the broker as a child process, and what is printed."""
