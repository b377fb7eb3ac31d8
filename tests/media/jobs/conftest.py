"""Databases that tests can move through time."""

from tests.media.ledgers import connect, database, timeline, travel

__all__ = ["connect", "database", "timeline", "travel"]
