"""Invitations: links that a user has to sign in for before they open a connect session."""
