"""The web framework's room: server, protocol limits, middleware, problem documents, callers, health."""
