"""What is linked: the store of accounts, the one way it changes, and the log of its changes."""
