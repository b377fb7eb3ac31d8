"""Computes: engines, the catalog, worker processes and the pool that leases them. No HTTP, no SQL."""
