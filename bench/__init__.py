"""Benchmarks: what a request costs beside what it costs others; python -m bench --help."""
