"""What is told of changes, and how deliveries are tried again."""
