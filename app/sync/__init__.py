"""Keeping the store equal to StackOne: hints come in, due accounts are read again."""
