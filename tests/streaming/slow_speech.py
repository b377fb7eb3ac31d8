"""A listener whose text is still being written, and an engine that takes its time, in virtual seconds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from streaming.speech_events import Append, AudioDelta, Commit, ItemDone, Speak, SpeechSettings
from streaming.speech_output import OutputFormat
from streaming.synthesis import SynthesisSession

RATE = 8_000
SECONDS_PER_CHARACTER = 0.065
REPLY = (
    "Well, let me think about that for a moment. The short answer is that it depends on the weather, which nobody can "
    "predict more than a few days ahead with any certainty. If it rains, stay at home! Otherwise you could walk along "
    "the old harbour wall, past the lighthouse and the fish market, until you reach the little bridge at the far end "
    "of the town, where the river meets the sea. It is about three kilometres. Take water with you. And mind the "
    "gulls: they are bold, they are hungry, and they have learned what a paper bag means. "
)


@dataclass
class Heard:
    """What became of one reply: each time the listener had nothing to hear, and what each piece was."""

    first_audio: float = 0.0
    gaps: list[float] = field(default_factory=list)
    pieces: list[Speak] = field(default_factory=list)


@dataclass(order=True)
class _Chunk:
    at: float
    ticket: int
    seconds: float
    last: bool


class Reply:
    """A text at `tokens_per_second`, spoken in `work[i]` seconds of work for a second of speech in piece i, in turn.

    An engine that does not `stream` hands a piece over at its end, as most neural voices do.
    """

    def __init__(
        self,
        text: str,
        work: Sequence[float],
        *,
        tokens_per_second: float = 20.0,
        stream: bool = False,
        pauses: int = 0,
    ) -> None:
        self._tokens = re.findall(r"\s*\S{1,5}", text)
        self._work = work
        self._tokens_per_second = tokens_per_second
        self._stream = stream
        settings = SpeechSettings(model="m", output=OutputFormat(sample_rate=RATE))
        self._session = SynthesisSession(settings)
        self._chunks: list[_Chunk] = []
        self._heard = Heard()
        self._plays_until = 0.0
        self._done = False

    def play(self) -> Heard:
        """From the first token to the end."""
        now, written = 0.0, 0
        while True:
            while (event := self._session.next_event(now)) is not None:
                self._hear(event, now)
            if self._done:
                break
            self._take_commands(now)
            moments = [chunk.at for chunk in self._chunks[:1]]
            if written <= len(self._tokens):
                moments.append(written / self._tokens_per_second)
            if (deadline := self._session.deadline(now)) is not None:
                moments.append(max(deadline, now + 1e-4))
            now = max(now, min(moments))
            if written <= len(self._tokens) and written / self._tokens_per_second <= now:
                more = Append("c", self._tokens[written]) if written < len(self._tokens) else Commit("c")
                self._session.receive(more, now)
                written += 1
            self._hand_over(now)
            self._take_commands(now)
        return self._heard

    def _take_commands(self, now: float) -> None:
        for command in self._session.commands():
            assert isinstance(command, Speak)
            work = self._work[len(self._heard.pieces) % len(self._work)]
            self._heard.pieces.append(command)
            seconds = len(command.text) * SECONDS_PER_CHARACTER
            parts = max(1, int(seconds / 0.1)) if self._stream else 1
            self._chunks += [
                _Chunk(now + seconds * work * (part + 1) / parts, command.ticket, seconds / parts, part == parts - 1)
                for part in range(parts)
            ]
            self._chunks.sort()

    def _hand_over(self, now: float) -> None:
        while self._chunks and self._chunks[0].at <= now:
            chunk = self._chunks.pop(0)
            samples = np.full(round(chunk.seconds * RATE), 0.1, np.float32)
            self._session.audio(chunk.ticket, samples, RATE, (), now)
            if chunk.last:
                self._session.finished(chunk.ticket, now)

    def _hear(self, event: object, now: float) -> None:
        if isinstance(event, AudioDelta):
            if not self._plays_until:
                self._heard.first_audio = self._plays_until = now
            if now > self._plays_until:
                self._heard.gaps.append(now - self._plays_until)
            self._plays_until = max(self._plays_until, now) + event.seconds
        self._done = self._done or isinstance(event, ItemDone)
