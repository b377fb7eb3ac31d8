"""Words and turns put together: who said which word.

Words are assigned by exclusive turns, which never overlap; the regular turns only tell where somebody else was speaking
too. Everything runs in one pass over both lists, which must be in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from streaming.transcript import SpeakerTurn, Word

REACH = 0.5
"""Seconds between a word and the nearest turn within which the turn's speaker said it."""
OVERLAP_SHARE = 0.5
FLIP_WORDS = 2
FLIP_SECONDS = 0.6
REAL_TURN_SECONDS = 0.8
"""A run of at most two words and 0.6 s goes back to its sentence's speaker, unless its turn is at least this long."""
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class Utterance:
    """Consecutive words of one speaker."""

    speaker: str
    start: float
    end: float
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text.strip() for word in self.words)


def assign_speakers(
    words: Sequence[Word], turns: Sequence[SpeakerTurn], exclusive: Sequence[SpeakerTurn]
) -> tuple[Word, ...]:
    """The same words with their speakers; `turns` may overlap, `exclusive` may not. Without turns nothing changes."""
    if not exclusive:
        return tuple(words)
    owners = _owners(words, exclusive)
    _smooth(words, owners, exclusive)
    named = [replace(word, speaker=exclusive[owner].speaker) for word, owner in zip(words, owners, strict=True)]
    return tuple(_flag_overlaps(named, turns))


def utterances(words: Sequence[Word]) -> Iterator[Utterance]:
    """Runs of words of one speaker; words without a speaker are left out."""
    run: list[Word] = []
    for word in words:
        if run and word.speaker != run[0].speaker:
            yield from _utterance(run)
            run = []
        run.append(word)
    yield from _utterance(run)


def _utterance(run: list[Word]) -> Iterator[Utterance]:
    if run and run[0].speaker is not None:
        yield Utterance(run[0].speaker, run[0].start, max(word.end for word in run), tuple(run))


def _owners(words: Sequence[Word], exclusive: Sequence[SpeakerTurn]) -> list[int]:
    """For each word the index of its turn: most overlap, else the nearest within reach, else the previous word's."""
    owners: list[int] = []
    first = 0
    for word in words:
        while first + 1 < len(exclusive) and exclusive[first].end <= word.start - REACH:
            first += 1
        best, most = first, -float("inf")
        for index in range(first, len(exclusive)):
            turn = exclusive[index]
            # Negative values are distances, so that the nearest turn wins where none overlaps.
            shared = min(word.end, turn.end) - max(word.start, turn.start)
            if shared > most:
                best, most = index, shared
            if turn.start > word.end + REACH:
                break
        owners.append(best if most >= -REACH or not owners else owners[-1])
    return owners


def _smooth(words: Sequence[Word], owners: list[int], exclusive: Sequence[SpeakerTurn]) -> None:
    """Give short runs inside a sentence back to the speaker who says most of it."""
    start = 0
    for index, word in enumerate(words):
        if word.text.rstrip().endswith(SENTENCE_ENDS) or index == len(words) - 1:
            _smooth_sentence(words, owners, exclusive, range(start, index + 1))
            start = index + 1


def _smooth_sentence(
    words: Sequence[Word], owners: list[int], exclusive: Sequence[SpeakerTurn], sentence: range
) -> None:
    seconds: dict[str, float] = {}
    for index in sentence:
        speaker = exclusive[owners[index]].speaker
        seconds[speaker] = seconds.get(speaker, 0.0) + words[index].end - words[index].start
    if len(seconds) < 2:
        return
    majority = max(seconds, key=lambda speaker: seconds[speaker])
    start = sentence.start
    while start < sentence.stop:
        speaker = exclusive[owners[start]].speaker
        stop = start + 1
        while stop < sentence.stop and exclusive[owners[stop]].speaker == speaker:
            stop += 1
        turn = exclusive[owners[start]]
        short = stop - start <= FLIP_WORDS and words[stop - 1].end - words[start].start < FLIP_SECONDS
        if short and speaker != majority and turn.end - turn.start < REAL_TURN_SECONDS:
            neighbour = _nearest_of(majority, start, owners, exclusive, sentence)
            owners[start:stop] = [neighbour] * (stop - start)
        start = stop


def _nearest_of(
    speaker: str, position: int, owners: list[int], exclusive: Sequence[SpeakerTurn], sentence: range
) -> int:
    inside = (index for index in sentence if exclusive[owners[index]].speaker == speaker)
    return owners[min(inside, key=lambda index: abs(index - position))]


def _flag_overlaps(words: Sequence[Word], turns: Sequence[SpeakerTurn]) -> Iterator[Word]:
    """Mark words of which somebody else covers at least half."""
    active: list[SpeakerTurn] = []
    upcoming = 0
    for word in words:
        while upcoming < len(turns) and turns[upcoming].start < word.end:
            active.append(turns[upcoming])
            upcoming += 1
        active = [turn for turn in active if turn.end > word.start]
        needed = OVERLAP_SHARE * (word.end - word.start)
        covered: dict[str, float] = {}
        for turn in active:
            shared = min(word.end, turn.end) - max(word.start, turn.start)
            if turn.speaker != word.speaker and shared > 0:
                covered[turn.speaker] = covered.get(turn.speaker, 0.0) + shared
        yield replace(word, overlapped=True) if covered and max(covered.values()) >= needed else word
