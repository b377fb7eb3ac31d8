"""A text spoken by the embedded voice through a speech session, with what the engine said of each piece."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from models.catalog import Card
from models.engines import espeak
from models.interfaces import Samples, SpeechChunk, SpeechRequest, WordTiming
from streaming.audio import PcmEncoding
from streaming.speech_events import Append, AudioDelta, Commit, ItemDone, Speak, SpeechSettings, WordTimestamps
from streaming.speech_output import OutputFormat, TimedWord
from streaming.synthesis import SynthesisSession

TEXT = (
    "Once upon a time, there was a clock. It stood in the hall, and nobody wound it: why should they? It ran by "
    "itself. The children, who had been told not to touch it, touched it every day when they thought that nobody was "
    "looking at them, and so did the old man who had made it many years before any of them was born. Then it stopped."
)


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


def steps_at_joins(item: Spoken, sample_rate: int) -> tuple[list[float], float]:
    """The largest step between two samples at each join, and what all but one in a thousand inside pieces are below."""
    inside = np.concatenate([np.abs(np.diff(samples)) for _, samples, _ in item.pieces])
    largest: list[float] = []
    at = 0
    for _, _, words in item.pieces[:-1]:
        at += len(words)
        first, last = item.words[at - 1].end, item.words[at].start
        around = item.samples[int(first * sample_rate) - 50 : int(last * sample_rate) + 50]
        largest.append(float(np.abs(np.diff(around)).max()))
    return largest, float(np.percentile(inside, 99.9))
