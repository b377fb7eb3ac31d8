"""Long texts by the embedded voice: its own audio and its own word times, in pieces that cannot be told from one."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.engines import espeak
from models.interfaces import Samples, SpeechChunk, SpeechRequest, WordTiming
from streaming.audio import PcmEncoding
from streaming.joins import AUDIBLE, CLAUSE_PAUSE, COMMA_PAUSE, SENTENCE_PAUSE
from streaming.speech_events import Append, AudioDelta, Commit, ItemDone, Speak, SpeechSettings, WordTimestamps
from streaming.speech_output import OutputFormat, TimedWord
from streaming.synthesis import SynthesisSession

TEXT = (
    "Once upon a time, there was a clock. It stood in the hall, and nobody wound it: why should they? It ran by "
    "itself. The children, who had been told not to touch it, touched it every day when they thought that nobody was "
    "looking at them, and so did the old man who had made it many years before any of them was born. Then it stopped."
)


@pytest.fixture(scope="module")
def card() -> Card:
    return Catalog.load().find("espeak-ng", "speech").card


@dataclass
class Spoken:
    """An item, and what the engine said of each of its pieces."""

    samples: Samples = field(default_factory=lambda: np.zeros(0, np.float32))
    words: list[TimedWord] = field(default_factory=list)
    pieces: list[tuple[Speak, Samples, list[WordTiming]]] = field(default_factory=list)


def spoken(card: Card, text: str, *, slowness: float = 0.0) -> Spoken:
    """`slowness` is the seconds of work for a second of speech that the session is made to believe in."""
    engine = espeak.load(card)
    rate = card.sample_rate
    output = OutputFormat(encoding=PcmEncoding.F32LE, sample_rate=rate)
    session = SynthesisSession(SpeechSettings(model=card.id, output=output, word_timestamps=True))
    session.receive(Append("c", text), 0.0)
    session.receive(Commit("c"), 0.0)
    item = Spoken()
    now, data, done = 0.0, b"", False
    while not done:
        for command in session.commands():
            assert isinstance(command, Speak)
            request = SpeechRequest(command.text, card.default_voice)
            chunks: list[SpeechChunk] = list(engine.synthesize(request, lambda done, total: None))
            for chunk in chunks:
                now += slowness * len(chunk.samples) / rate
                session.audio(command.ticket, chunk.samples, rate, chunk.words, now)
            session.finished(command.ticket, now)
            own = np.concatenate([chunk.samples for chunk in chunks])
            item.pieces.append((command, own, [word for chunk in chunks for word in chunk.words]))
        while (event := session.next_event(now)) is not None:
            if isinstance(event, AudioDelta):
                data += event.audio
            elif isinstance(event, WordTimestamps):
                item.words += event.words
            done = isinstance(event, ItemDone)
        if (deadline := session.deadline(now)) is not None:
            now = max(now + 1e-4, deadline)
    item.samples = np.frombuffer(data, np.float32)
    return item


@pytest.mark.parametrize(("slowness", "fewest", "most"), [(0.0, 3, 6), (0.6, 6, 20)])
def test_a_word_sounds_when_it_is_said_to(card: Card, slowness: float, fewest: int, most: int) -> None:
    """The engine's own samples of every word are where the item's clock says that the word is."""
    item = spoken(card, TEXT, slowness=slowness)
    assert fewest <= len(item.pieces) <= most
    own = [(samples, word) for _, samples, words in item.pieces for word in words]
    earliest = -round(0.03 * card.sample_rate)  # silence that was cut from the beginning of a piece
    assert [word.text for word in item.words] == [
        piece.text[word.start_char : word.end_char] for piece, _, words in item.pieces for word in words
    ]
    for told, (samples, word) in zip(item.words, own, strict=True):
        first, last = round(word.start * card.sample_rate), round(word.end * card.sample_rate)
        middle = samples[first + (last - first) // 4 : last - (last - first) // 4]
        at = round(told.start * card.sample_rate) + (last - first) // 4
        shifts = range(earliest, 2) if word.start == 0.0 else range(-1, 2)
        off = [np.abs(item.samples[at + shift :][: len(middle)] - middle).max() for shift in shifts if at + shift >= 0]
        assert min(off) < 1e-4, told
        assert told.end == pytest.approx(told.start + word.end - word.start, abs=0.03)
    assert all(before.end <= after.start + 1e-6 for before, after in pairwise(item.words))


def test_joins_do_not_click(card: Card) -> None:
    """No step between two samples at a join is larger than those within pieces (all but one in a thousand)."""
    item = spoken(card, TEXT * 2, slowness=0.6)
    inside = np.concatenate([np.abs(np.diff(samples)) for _, samples, _ in item.pieces])
    limit = np.percentile(inside, 99.9)
    count = 0
    at = 0
    for _, _, words in item.pieces[:-1]:
        at += len(words)
        last, following = item.words[at - 1], item.words[at]
        around = item.samples[int(last.end * card.sample_rate) - 50 : int(following.start * card.sample_rate) + 50]
        assert np.abs(np.diff(around)).max() <= limit
        count += 1
    assert count >= 12


def test_pauses_are_those_of_the_punctuation_and_not_doubled(card: Card) -> None:
    item = spoken(card, TEXT, slowness=0.6)
    wanted = {".": SENTENCE_PAUSE, "?": SENTENCE_PAUSE, ",": COMMA_PAUSE, ":": CLAUSE_PAUSE}
    at = 0
    for piece, _, words in item.pieces[:-1]:
        at += len(words)
        begin, end = item.words[at - 1].end, item.words[at].start
        middle = round((begin + end) / 2 * card.sample_rate)
        loud = np.flatnonzero(np.abs(item.samples) > AUDIBLE)
        silence = (loud[np.searchsorted(loud, middle)] - loud[np.searchsorted(loud, middle) - 1]) / card.sample_rate
        assert silence == pytest.approx(wanted.get(piece.text[-1], 0.0), abs=0.02), piece.text
