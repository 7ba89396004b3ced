"""`python -m sandbox` is `broker-demo`."""

from sandbox.demo import main

main()
