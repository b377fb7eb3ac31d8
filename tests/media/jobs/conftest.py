"""Databases that tests can move through time, and what runners work with."""

from tests.media.jobs.shop import workshop
from tests.media.ledgers import connect, database, postgres_server, timeline, travel

__all__ = ["connect", "database", "postgres_server", "timeline", "travel", "workshop"]
