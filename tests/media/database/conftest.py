"""Databases that tests can move through time."""

from tests.media.ledgers import connect, database, postgres_server, timeline, travel

__all__ = ["connect", "database", "postgres_server", "timeline", "travel"]
