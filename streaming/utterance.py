"""What is being heard: items as a client sees them, made of the utterances that recognisers hear."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from streaming.agreement import LocalAgreement
from streaming.transcript import Hypothesis, Segment
from streaming.voice_activity import SAMPLE_RATE


@dataclass(slots=True)
class Utterance:
    """One run of a recogniser. `start`, `end` and `fed_until` are samples on the session's clock."""

    ticket: int
    start: int
    item: Item
    agreement: LocalAgreement = field(default_factory=LocalAgreement)
    hypothesis: Hypothesis = Hypothesis(())
    fed_until: int = 0
    end: int | None = None
    segment: Segment | None = None
    told: str = ""  # settled text that has left
    told_words: int = 0
    told_all: bool = False

    @property
    def text(self) -> str:
        """What is believed so far. A newer hypothesis cannot take back words that are settled; the final may."""
        if self.segment is not None:
            return self.segment.text
        words = (*self.agreement.settled, *self.agreement.unsettled(self.hypothesis.words))
        return " ".join(word.text for word in words)

    @property
    def heard_until(self) -> int:
        """How far into the session's audio its text can reach."""
        return self.fed_until if self.end is None else self.end


@dataclass(slots=True)
class Item:
    """What a client sees as one: a turn, or everything between two commits by hand."""

    id: str
    start: int
    announced: bool  # by SpeechStarted, so SpeechStopped has to follow
    end: int = 0
    utterances: list[Utterance] = field(default_factory=list)
    committed: bool = False
    settled: str = ""
    shown: str = ""
    error: Exception | None = None

    @property
    def text(self) -> str:
        """What is believed so far."""
        return " ".join(text for utterance in self.utterances if (text := utterance.text))

    @property
    def concluded(self) -> bool:
        """Whether nothing is left to wait for."""
        return self.committed and (self.error is not None or all(u.segment for u in self.utterances))


def newly_settled(item: Item) -> str:
    """What became certain of an item since the last call, to be appended to what came back before.

    Words of an utterance wait until the utterances before it have their segments, so that all of it reads in order.
    """
    before = len(item.settled)
    for utterance in item.utterances:
        if utterance.told_all:
            continue
        words = utterance.agreement.settled[utterance.told_words :]
        utterance.told_words += len(words)
        _tell(item, utterance, " ".join(word.text for word in words))
        if (segment := utterance.segment) is None:
            break
        utterance.told_all = True
        if segment.text.startswith(utterance.told):
            _tell(item, utterance, segment.text[len(utterance.told) :], gap="")
        else:
            offset = utterance.start / SAMPLE_RATE
            own = [replace(word, start=word.start - offset, end=word.end - offset) for word in segment.words]
            _tell(item, utterance, " ".join(word.text for word in utterance.agreement.unsettled(own)))
    return item.settled[before:]


def _tell(item: Item, utterance: Utterance, text: str, gap: str = " ") -> None:
    if text:
        joined = (gap if utterance.told else "") + text
        item.settled += joined if utterance.told or not item.settled else f" {joined}"
        utterance.told += joined


def within(segment: Segment, utterance: Utterance) -> Segment:
    """Put a segment on the session's clock, without the words that were heard after the utterance's end.

    A turn that is cut at its maximum length ends in the past: the recogniser has already heard the beginning of
    what comes next, and those words belong to the next turn.
    """
    offset = utterance.start / SAMPLE_RATE
    end = utterance.end if utterance.end is not None else utterance.fed_until
    words = tuple(
        replace(word, start=word.start + offset, end=min(word.end + offset, end / SAMPLE_RATE))
        for word in segment.words
        if word.start + offset < end / SAMPLE_RATE
    )
    dropped = len(words) < len(segment.words)
    text = " ".join(word.text for word in words) if dropped else segment.text
    return replace(segment, text=text, words=words, start=segment.start + offset, end=segment.end + offset)
