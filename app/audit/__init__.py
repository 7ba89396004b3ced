"""What somebody did, or was refused, of which no other row tells."""
