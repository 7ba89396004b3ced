"""Benchmarks: how a sweep grows, and what a request costs beside the least that could be done."""
