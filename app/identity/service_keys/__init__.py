"""Service keys: made, rotated and revoked; recognised when one is presented."""
