"""What the tokens of a Whisper model mean, when its text is not to be trusted, and which words were said when.

Pure functions of tokens, scores and times; the thresholds are those of OpenAI's reference implementation.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streaming.segmentation import Timeline
from streaming.transcript import Segment, SegmentScores, Word
from streaming.voice_activity import SAMPLE_RATE

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SECONDS_PER_TIMESTAMP = 0.02
LATE = 0.3
"""Seconds after the last speech of a span in which a word may still begin."""
LOOP_REPEATS = 3
LOOP_TOKENS = 12
"""Text that ends in at least three repetitions of the same, of at least so many tokens in all, is a decoder's loop."""
LONGEST_LOOP = 40
FRAMES_PER_SECOND = 100
PAUSE = 1.0
"""Seconds between two words that end a segment."""
SHORTEST = 0.02
"""Seconds that a segment with words takes at least."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder wrote for one span, and what it thinks of it."""

    tokens: tuple[int, ...]
    text: str
    temperature: float
    avg_logprob: float
    no_speech_prob: float
    looped: bool = False
    """It ran into a loop; `tokens` and `text` are without the repetitions."""

    @property
    def compression_ratio(self) -> float:
        """How well the text compresses: above 2.4 it repeats itself."""
        data = self.text.encode()
        return len(data) / len(zlib.compress(data)) if data else 0.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where text stops being trusted. An infinity switches its gate off."""

    compression_ratio: float = 2.4
    log_prob: float = -1.0
    no_speech: float = 0.6
    loops: bool = True

    def silent(self, decoded: Decoded) -> bool:
        """The model itself thinks that nobody spoke."""
        return decoded.no_speech_prob > self.no_speech and decoded.avg_logprob < self.log_prob

    def accepts(self, decoded: Decoded) -> bool:
        """Whether this is final: good text, or silence, which no other temperature would turn into speech."""
        bad = decoded.compression_ratio > self.compression_ratio or decoded.avg_logprob < self.log_prob
        return self.silent(decoded) or not (bad or (self.loops and decoded.looped))

    def best(self, attempts: Sequence[Decoded]) -> Decoded:
        """The least bad of attempts that were all rejected."""
        sober = [each for each in attempts if each.compression_ratio <= self.compression_ratio and not each.looped]
        return max(sober or attempts, key=lambda each: each.avg_logprob)


def without_loop(tokens: Sequence[int], is_text: Callable[[int], bool]) -> tuple[tuple[int, ...], bool]:
    """The tokens with a loop at their end said once, and whether there was one.

    Timestamps between the repetitions do not hide a loop.
    """
    text = [token for token in tokens if is_text(token)]
    for size in range(1, min(LONGEST_LOOP, len(text) // LOOP_REPEATS) + 1):
        repeats = 1
        while text[-size:] == text[-size * (repeats + 1) : len(text) - size * repeats]:
            repeats += 1
        if repeats >= LOOP_REPEATS and repeats * size >= LOOP_TOKENS:
            keep = len(text) - size * (repeats - 1)
            return _first_text(tokens, keep, is_text), True
    return tuple(tokens), False


def _first_text(tokens: Sequence[int], count: int, is_text: Callable[[int], bool]) -> tuple[int, ...]:
    """The tokens up to the `count`th one of text, with the timestamp that closes it if there is one."""
    kept: list[int] = []
    for token in tokens:
        if is_text(token):
            if not count:
                break
            count -= 1
        kept.append(token)
        if not count and not is_text(token):
            break
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Text tokens between two timestamps, in seconds of the span; `end` is None for one that was not closed."""

    tokens: tuple[int, ...]
    start: float
    end: float | None


def stretches(tokens: Iterable[int], timestamp_begin: int, duration: float) -> list[Stretch]:
    """Cut the tokens at their timestamps. Times never go back and stay within `duration`."""
    found: list[Stretch] = []
    text: list[int] = []
    start = 0.0
    for token in tokens:
        if token < timestamp_begin:
            text.append(token)
            continue
        time = min(max((token - timestamp_begin) * SECONDS_PER_TIMESTAMP, start), duration)
        if text:
            found.append(Stretch(tuple(text), start, time))
            text = []
        start = time
    if text:
        found.append(Stretch(tuple(text), start, None))
    return found


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word as the decoder's attention places it, in seconds of the span; the text with the spaces around it."""

    text: str
    tokens: tuple[int, ...]
    start: float
    end: float
    probability: float


def aligned_word(timing: Mapping[str, Any]) -> AlignedWord:
    """A word as faster-whisper tells it."""
    start, end = float(timing["start"]), float(timing["end"])
    return AlignedWord(timing["word"], tuple(timing["tokens"]), start, end, float(timing["probability"]))


def segments(
    decoded: Decoded,
    parts: Sequence[Stretch],
    texts: Sequence[str],
    timeline: Timeline,
    *,
    language: str,
    channel: int | None = None,
    words: Sequence[AlignedWord] | None = None,
) -> list[Segment]:
    """The settled segments of one span on the recording's clock, in order and without overlap.

    `texts` are those of `parts`; `words`, if aligned, go on through all of them, and a long pause between two words
    ends a segment. What begins more than `LATE` after the span's last speech was not said and is left out, and so is
    text without words that takes no time.
    """
    scores = SegmentScores(
        temperature=decoded.temperature,
        avg_logprob=decoded.avg_logprob,
        compression_ratio=decoded.compression_ratio,
        no_speech_prob=decoded.no_speech_prob,
        seek=timeline.start * FRAMES_PER_SECOND // SAMPLE_RATE,
    )
    speech_end = timeline.voiced[-1][1] / SAMPLE_RATE
    waiting = _placed(words or (), timeline)
    found: list[Segment] = []
    before, last = timeline.start / SAMPLE_RATE, timeline.end / SAMPLE_RATE
    for part, text in zip(parts, texts, strict=True):
        if words:
            taken, waiting = _take(waiting, len(part.tokens))
            runs = [_Run.of(run) for run in _runs([each for each in taken if each.word.start <= speech_end + LATE])]
        else:
            runs = [_Run(text, part.tokens, *_bounds(part, timeline, alone=len(parts) == 1))]
        for run in runs:
            start, end = _interval(run, before, last)
            if end <= start or start > speech_end + LATE or not run.text.strip():
                continue
            before = end
            inside = tuple(
                replace(word, start=min(max(word.start, start), end), end=min(max(word.end, start), end))
                for word in run.words
            )
            own = replace(scores, tokens=run.tokens)
            found.append(Segment(run.text.strip(), start, end, inside, language, own, channel))
    return found


def _interval(run: _Run, before: float, last: float) -> tuple[float, float]:
    """Where a segment is, between the previous one and the span's end; words take some time at least."""
    start = min(max(run.start, before), last)
    end = min(max(run.end, start), last)
    if run.words and end - start < SHORTEST:
        end = min(start + SHORTEST, last)
        start = max(end - SHORTEST, before)
    return start, end


@dataclass(frozen=True, slots=True)
class _Run:
    """Text of one segment to be."""

    text: str
    tokens: tuple[int, ...]
    start: float
    end: float
    words: tuple[Word, ...] = ()

    @classmethod
    def of(cls, placed: Sequence[_Placed]) -> _Run:
        words = tuple(each.word for each in placed)
        tokens = tuple(token for each in placed for token in each.tokens)
        return cls("".join(each.text for each in placed), tokens, words[0].start, words[-1].end, words)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A word on the recording's clock; `text` has the spaces around it that the word has not."""

    text: str
    tokens: tuple[int, ...]
    word: Word


def _placed(words: Iterable[AlignedWord], timeline: Timeline) -> list[_Placed]:
    placed: list[_Placed] = []
    before = 0.0
    for each in words:
        start, end = timeline.place_word(each.start, each.end)
        start = max(start, before)
        before = max(start, end)
        word = Word(each.text.strip(), start, before, min(max(each.probability, 0.0), 1.0))
        placed.append(_Placed(each.text, each.tokens, word))
    return placed


def _take(waiting: list[_Placed], tokens: int) -> tuple[list[_Placed], list[_Placed]]:
    """The words that make up the next `tokens` tokens, and the rest."""
    count = 0
    while count < len(waiting) and tokens > 0:
        tokens -= len(waiting[count].tokens)
        count += 1
    return [each for each in waiting[:count] if each.word.text], waiting[count:]


def _runs(placed: Sequence[_Placed]) -> Iterator[list[_Placed]]:
    """Words without a long pause between them."""
    run: list[_Placed] = []
    for each in placed:
        if run and each.word.start - run[-1].word.end > PAUSE:
            yield run
            run = []
        run.append(each)
    if run:
        yield run


def _bounds(part: Stretch, timeline: Timeline, *, alone: bool) -> tuple[float, float]:
    """Where the stretch is in the recording. Without timestamps of its own it reaches over the span's speech."""
    if part.end is not None:
        return timeline.place(part.start, part.end)
    first, last = timeline.voiced[0][0] / SAMPLE_RATE, timeline.voiced[-1][1] / SAMPLE_RATE
    start, _ = timeline.place(part.start, timeline.length / SAMPLE_RATE)
    return (first if alone and not part.start else start), max(start, last)
