"""How large a piece of speech may be: as large as its listener can wait for, and no larger.

While a piece is made the listener plays what is in hand. An engine that makes a second of speech in 0.6 s can be given
a piece of five seconds when three are in hand; the piece after that may be larger. How fast an engine is and how fast
a voice speaks is learnt from the pieces before.
"""

from __future__ import annotations

MARGIN_SECONDS = 0.25
"""Of the audio in hand, what is left when the next piece is due."""
SHORT_WORK = 0.15
"""Seconds of work that are always allowed: a fast engine need not be given crumbs because a listener is dry."""
LONGEST_PIECE, SHORTEST_LIMIT = 12.0, 4.0
"""Seconds of speech in one piece at most: in any case, and for an engine so slow that it is bounded by its work."""
LONGEST_WORK = 2.0
"""Seconds of work on one piece, which are lost when the listener barges in."""
LONGEST_DELAY = 1.0
"""Seconds of waiting for a place at the engine that are reckoned with; loading a model takes longer, but only once."""
SECONDS_PER_CHARACTER = 0.065
WORK_PER_SECOND = 0.5
"""What is assumed of a voice and an engine that nobody has heard yet."""
SPARE = 1.5
"""Times the work that a piece is expected to take that it is begun before it is needed: some take longer."""
_NEWEST = 0.3
_LEAST_WORK, _LEAST_SECONDS = 1e-3, 5e-3


class Pace:
    """What was learnt about one model."""

    def __init__(self) -> None:
        self._seconds_per_character = SECONDS_PER_CHARACTER
        self._work_per_second = WORK_PER_SECOND
        self._last_work = WORK_PER_SECOND
        self._delay = 0.0
        self._pieces = 0

    def learn(self, characters: int, seconds: float, work: float, *, speed: float = 1.0) -> None:
        """A piece was made: so many seconds of speech in so many seconds of work."""
        if characters < 1 or seconds <= 0:
            return
        newest = _NEWEST if self._pieces else 1.0
        self._pieces += 1
        self._last_work = max(work / seconds, _LEAST_WORK)
        self._work_per_second += newest * (self._last_work - self._work_per_second)
        self._seconds_per_character += newest * (seconds * speed / characters - self._seconds_per_character)

    def waited(self, seconds: float) -> None:
        """So long it took from when a piece was wanted until work on it began."""
        self._delay += _NEWEST * (min(seconds, LONGEST_DELAY) - self._delay)

    @property
    def work_per_second(self) -> float:
        """Seconds of work for a second of speech: the mean, or what the last piece took if that was more."""
        return max(self._work_per_second, self._last_work)

    def work(self, characters: int, speed: float = 1.0) -> float:
        """Seconds from when so many characters are wanted until they are made, and a margin."""
        spoken = characters * self._seconds_per_character / speed
        return spoken * self.work_per_second + MARGIN_SECONDS + self._delay

    @property
    def longest(self) -> float:
        """Seconds of speech that a piece may have at most."""
        return min(LONGEST_PIECE, max(SHORTEST_LIMIT, LONGEST_WORK / self.work_per_second))

    def most(self, speed: float = 1.0) -> int:
        """Characters that a piece may have at most."""
        return self._characters(self.longest, speed)

    def fitting(self, in_hand: float, speed: float = 1.0) -> int:
        """Characters that can be made while the listener plays what is in hand."""
        work = max(in_hand - MARGIN_SECONDS - self._delay, SHORT_WORK)
        return self._characters(work / self.work_per_second, speed)

    def resume(self) -> float:
        """Seconds in hand at which the longest piece has to be begun."""
        return SPARE * self.longest * self.work_per_second + MARGIN_SECONDS + self._delay

    def _characters(self, seconds: float, speed: float) -> int:
        return int(seconds * speed / max(self._seconds_per_character, _LEAST_SECONDS))
