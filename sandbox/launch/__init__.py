"""The parts of `broker-demo`: ports, secrets, neighbours, the broker as a child process, and what is printed."""
