"""Policy: who may open which connect session. Pure rules, the file they are read from, and their routes."""
