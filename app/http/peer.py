"""What the scope of a request holds beside the framework's own names."""

from typing import Final

PEER: Final = "broker.peer"
"""The address that the request came from directly: what it forwards takes its place in the scope later."""

VERIFIED: Final = "broker.verified"
"""There once its credential was found good."""
