"""What the scope of a request holds beside the framework's own names."""

from typing import Final

PEER: Final = "broker.peer"
"""The address that the request came from directly: what it forwards takes its place in the scope later."""

VERIFIED: Final = "broker.verified"
"""There once its credential was found good."""

CALLER: Final = "broker.caller"
"""Who sent it, once that is known and its request counted: the framework asks again where it judges the body."""
