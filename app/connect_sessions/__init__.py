"""Minting connect sessions, and the ledger of those that were minted."""
