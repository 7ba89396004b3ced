"""The address that a request came from directly: what it forwards takes its place in the scope later."""

from typing import Final

PEER: Final = "broker.peer"
"""Where the scope holds it."""
