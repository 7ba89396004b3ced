"""Routes about an owner: its name, and its erasure with a receipt."""
