"""Databases that tests can move through time, and what runners work with."""

from tests.media.jobs.shop import workshop
from tests.media.ledgers import connect, database, timeline, travel

__all__ = ["connect", "database", "timeline", "travel", "workshop"]
