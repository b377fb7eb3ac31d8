"""What is remembered about workers that died: when to start the next one, and which requests to blame.

Both classes are plain state; the time is passed in.
"""

from __future__ import annotations

import hashlib

import msgspec

from models.interfaces import EngineRequest, ListenRequest, VoicesRequest
from models.video_interfaces import VideoRequest

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
STEADY_AFTER = 30.0
"""A worker that lived this many seconds did not fail quickly: the count of failures in a row starts again."""

DEATHS_TO_POISON = 2
BLAME_LASTS = 600.0


class Backoff:
    """How long to wait before the next start: 0, 0.5, 1, 2 ... 30 s after as many quick failures in a row."""

    def __init__(self) -> None:
        self.failures = 0
        self._not_before = float("-inf")

    def failed(self, now: float, lived: float = 0.0) -> None:
        """A worker failed to load, or died `lived` seconds after it had loaded."""
        self.failures = 1 if lived >= STEADY_AFTER else self.failures + 1
        wait = min(FIRST_DELAY * 2 ** (self.failures - 2), LONGEST_DELAY) if self.failures > 1 else 0.0
        self._not_before = now + wait

    def delay(self, now: float) -> float:
        """Seconds from now until the next start may happen."""
        return max(0.0, self._not_before - now)


class Blame:
    """Counts how often a request was in a worker when it died. Requests are known by a hash."""

    def __init__(self) -> None:
        self._deaths: dict[bytes, tuple[int, float]] = {}

    def __bool__(self) -> bool:
        """Whether anybody is under suspicion; spares everybody else the hashing."""
        return bool(self._deaths)

    def died(self, fingerprint: bytes | None, now: float) -> None:
        """A worker died with this request in it."""
        self._deaths = {key: entry for key, entry in self._deaths.items() if now - entry[1] < BLAME_LASTS}
        if fingerprint is not None:
            self._deaths[fingerprint] = (self._deaths.get(fingerprint, (0, now))[0] + 1, now)

    def succeeded(self, fingerprint: bytes | None) -> None:
        """The request came through: whatever killed those workers, it was not this."""
        if fingerprint is not None:
            self._deaths.pop(fingerprint, None)

    def is_poison(self, fingerprint: bytes | None, now: float) -> bool:
        """Whether the request has been in enough deaths lately not to be tried again."""
        if fingerprint is None or fingerprint not in self._deaths:
            return False
        count, last = self._deaths[fingerprint]
        return count >= DEATHS_TO_POISON and now - last < BLAME_LASTS


def fingerprint(model: str, request: EngineRequest) -> bytes | None:
    """Tells equal requests to one model apart from others; None for live audio, of which no two are equal."""
    if isinstance(request, ListenRequest | VoicesRequest):
        return None
    if isinstance(request, VideoRequest):  # each attempt has a directory of its own
        request = msgspec.structs.replace(request, directory="", audio_path="")
    return hashlib.blake2b(msgspec.msgpack.encode((model, request)), digest_size=16).digest()
