"""Telling your own services: each change of the feed as a signed webhook, in order, until it is taken or given up."""
