"""SubRip and WebVTT from segments, in cues that fit a screen.

With word times a cue holds at most two lines of 42 characters and seven seconds, breaks at the end of a sentence or
where the speaker changes, and bridges no silence longer than a second and a half (the limits of common subtitling
guidelines, e.g. Netflix's timed text style guide). Without word times a segment is one cue, wrapped.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streaming.transcript import Segment, Word

LINE_LENGTH = 42
LINES = 2
CUE_SECONDS = 7.0
LONGEST_GAP = 1.5
SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")


@dataclass(frozen=True, slots=True)
class Cue:
    """What is on the screen from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str
    speaker: str | None = None


def cues(segments: Iterable[Segment]) -> Iterator[Cue]:
    """Cut segments into cues, in order and never overlapping the next one's start."""
    for segment in segments:
        if segment.words:
            yield from _word_cues(segment.words)
        elif segment.text.strip():
            yield Cue(segment.start, max(segment.end, segment.start), _wrapped(segment.text))


def srt(segments: Iterable[Segment]) -> Iterator[str]:
    """SubRip, one cue a string; a speaker is written before the text."""
    for number, cue in enumerate(cues(segments), 1):
        speaker = f"{cue.speaker}: " if cue.speaker else ""
        yield f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{speaker}{cue.text}\n\n"


def vtt(segments: Iterable[Segment]) -> Iterator[str]:
    """WebVTT, header first, then one cue a string; a speaker is a voice span."""
    yield "WEBVTT\n\n"
    for cue in cues(segments):
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        voice = f"<v {cue.speaker}>" if cue.speaker else ""
        yield f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{voice}{text}\n\n"


def _word_cues(words: tuple[Word, ...]) -> Iterator[Cue]:
    pending: list[Word] = []
    for word in words:
        if pending and _breaks(pending, word):
            yield _cue(pending)
            pending = []
        pending.append(word)
    if pending:
        yield _cue(pending)


def _breaks(pending: list[Word], word: Word) -> bool:
    length = sum(len(each.text.strip()) + 1 for each in pending) + len(word.text.strip())
    full = length > LINE_LENGTH * LINES or len(textwrap.wrap(_joined([*pending, word]), LINE_LENGTH)) > LINES
    ended = pending[-1].text.rstrip().endswith(SENTENCE_ENDS)
    apart = word.start - pending[-1].end > LONGEST_GAP
    return full or ended or apart or word.end - pending[0].start > CUE_SECONDS or word.speaker != pending[0].speaker


def _cue(words: list[Word]) -> Cue:
    return Cue(words[0].start, max(words[-1].end, words[0].start), _wrapped(_joined(words)), words[0].speaker)


def _joined(words: list[Word]) -> str:
    return " ".join(word.text.strip() for word in words)


def _wrapped(text: str) -> str:
    # An arrow ends a cue's timing line and an empty line its text: neither may come out of a transcript.
    return "\n".join(textwrap.wrap(" ".join(text.replace("-->", "->").split()), LINE_LENGTH))


def _clock(seconds: float, separator: str) -> str:
    milliseconds = max(0, round(seconds * 1000))
    minutes, milliseconds = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{milliseconds // 1000:02}{separator}{milliseconds % 1000:03}"
