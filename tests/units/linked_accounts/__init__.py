"""What an observation means, decided without a database."""
