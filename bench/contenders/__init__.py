"""What the broker is measured against."""
