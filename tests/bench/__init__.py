"""Latency and throughput of a running server, as a table and as JSON: `python -m tests.bench`."""
