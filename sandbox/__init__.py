"""The externals of the broker, offline: StackOne, an identity provider, a page server, and `broker-demo`."""
