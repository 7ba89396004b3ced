"""Database access: the engine, visible transactions, counters, leases, claims of due rows, the schema's version."""
