"""What may be believed of a turn that is still being spoken: its words so far, and where the next look begins.

A look at the turn is a short window that ends now. What two looks agree on is settled (`LocalAgreement`, as in the
session that shows the words), and settled words are what the next look has to begin with: they never change again, and
the model decodes little besides what is new. Settled words at the window's beginning scroll out of it; they become what
was said before it.

Times are seconds of the turn; windows begin at frames of 10 ms.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from models.whisper_decoding import FRAMES_PER_SECOND, LATE, AlignedWord
from models.whisper_jobs import Glimpse
from streaming.agreement import LocalAgreement
from streaming.transcript import Word

EDGE = 0.4
"""Seconds before the end of a window in which a word may still become another, and a full stop is a guess."""
LONGEST_CONTEXT = 32
"""Tokens of what was said before the window that a look is told."""


SOFT, KEEP, HARD, OPEN = 5.0, 1.5, 12.0, 2.0
SOFT_SHARE, KEEP_SHARE, HARD_SHARE, OPEN_SHARE = 0.6, 0.2, 0.8, 0.3
"""Of what the model hears at most, where that is little."""


@dataclass(frozen=True, slots=True)
class Trimming:
    """When the window is shortened, in seconds.

    Beyond `soft`, settled words leave it, but for those of the last `keep`. Beyond `hard` words that nobody has agreed
    on yet are taken as they are, but for those of the last `open`; if there are none, the window begins anew.
    """

    soft: float = SOFT
    keep: float = KEEP
    hard: float = HARD
    open: float = OPEN

    @classmethod
    def within(cls, window: float) -> Trimming:
        """For a model that hears `window` seconds at most."""
        return cls(
            soft=min(SOFT, SOFT_SHARE * window),
            keep=min(KEEP, KEEP_SHARE * window),
            hard=min(HARD, HARD_SHARE * window),
            open=min(OPEN, OPEN_SHARE * window),
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A word of the turn and the tokens it is made of."""

    word: Word
    tokens: tuple[int, ...]


class PartialText:
    """The words of one turn so far. `prompt` are the tokens of what was said before it."""

    def __init__(self, trimming: Trimming, prompt: Sequence[int] = ()) -> None:
        self._trimming = trimming
        self._prompt = tuple(prompt)
        self._gone: list[_Placed] = []  # words that have scrolled out of the window
        self._frozen: list[_Placed] = []  # words of the window that do not change any more
        self._newest: list[_Placed] = []  # what follows them
        self._agreement = LocalAgreement()
        self._shown = ""
        self.start = 0
        """The frame at which the window begins."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens with which the text of the window begins."""
        return tuple(token for each in self._frozen for token in each.tokens)

    @property
    def context(self) -> tuple[int, ...]:
        """Tokens of what was said before the window."""
        gone = [token for each in self._gone for token in each.tokens]
        return (*self._prompt, *gone)[-LONGEST_CONTEXT:]

    @property
    def settled_until(self) -> float:
        """Where the words end that do not change any more."""
        last = (self._frozen or self._gone)[-1:]
        return max(self.start / FRAMES_PER_SECOND, last[0].word.end) if last else self.start / FRAMES_PER_SECOND

    def take(self, glimpse: Glimpse, end: float, spoken_until: float) -> tuple[Word, ...] | None:
        """The words of the turn after a look at its first `end` seconds, which is to be trusted.

        The last speech ended at `spoken_until`: what begins later was not said. None when there is nothing new in it.
        """
        self._newest = self._placed(glimpse, end, spoken_until)
        words = tuple(each.word for each in (*self._gone, *self._frozen, *self._newest))
        settled = len(self._agreement.push(words))
        text = " ".join(word.text for word in words)
        news = bool(settled) or text != self._shown
        self._shown = text
        already = len(self._gone) + len(self._frozen)
        self._freeze(len(self._agreement.settled) - already)
        return words if news and words else None

    def trim(self, end: float) -> None:
        """Shorten the window, if it is long, after a look at the first `end` seconds or without one."""
        window = end - self.start / FRAMES_PER_SECOND
        if window > self._trimming.soft:
            self._scroll()
        if end - self.start / FRAMES_PER_SECOND <= self._trimming.hard:
            return
        sure = sum(each.word.end <= end - self._trimming.open for each in self._newest)
        self._freeze(sure)
        self._scroll()
        if end - self.start / FRAMES_PER_SECOND > self._trimming.hard:
            self._gone += self._frozen
            self._frozen, self._newest = [], []
            self.start = max(self.start, round((end - self._trimming.keep) * FRAMES_PER_SECOND))

    # ------------------------------------------------------------------ inside

    def _placed(self, glimpse: Glimpse, end: float, spoken_until: float) -> list[_Placed]:
        """The new words of a look, on the turn's clock, in order and without what cannot be known yet."""
        offset = self.start / FRAMES_PER_SECOND
        words = list(glimpse.words[:-1] if glimpse.cut_off else glimpse.words)
        before = self.settled_until
        placed: list[_Placed] = []
        for index, each in enumerate(words):
            start = max(offset + each.start, before)
            before = stop = min(max(offset + each.end, start), max(end, start))
            if start > spoken_until + LATE:
                break
            edge = stop > end - EDGE
            text = _without_end_mark(each) if edge and index == len(words) - 1 else each.text.strip()
            probability = None if edge else min(max(each.probability, 0.0), 1.0)
            if text:
                placed.append(_Placed(Word(text, start, stop, probability), each.tokens))
        return placed

    def _freeze(self, count: int) -> None:
        self._frozen += self._newest[: max(count, 0)]
        self._newest = self._newest[max(count, 0) :]

    def _scroll(self) -> None:
        """Let frozen words leave the window, best at the end of a clause, and move its beginning behind them."""
        if not self._frozen:
            return
        latest = self._frozen[-1].word.end - self._trimming.keep
        leaving = sum(each.word.end <= latest for each in self._frozen)
        clauses = [index for index in range(1, leaving + 1) if _ends_clause(self._frozen[index - 1].word.text)]
        count = clauses[-1] if clauses and 2 * clauses[-1] >= leaving else leaving
        if not count:
            return
        end, after = self._frozen[count - 1].word.end, self._frozen[count].word.start
        self._gone += self._frozen[:count]
        self._frozen = self._frozen[count:]
        self.start = max(self.start, round((end + after) / 2 * FRAMES_PER_SECOND))


def _without_end_mark(word: AlignedWord) -> str:
    text = word.text.strip()
    while text and unicodedata.category(text[-1]).startswith("P"):
        text = text[:-1]
    return text


def _ends_clause(text: str) -> bool:
    return unicodedata.category(text[-1:] or " ") == "Po"
