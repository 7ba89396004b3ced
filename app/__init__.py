"""The Connect Broker: hands out StackOne connect-session tokens and knows whose linked account is whose."""

__version__ = "0.2.0"
