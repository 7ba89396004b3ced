"""User tokens of the broker's own: for users whom a backend has signed in without a JWT."""
