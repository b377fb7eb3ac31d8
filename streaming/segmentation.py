"""Long audio becomes spans of speech for a recogniser that hears 30 seconds at a time.

Silero's probabilities say where speech is. Stretches of it are packed into spans of at most 30 s; what is cut away in
between, or through, is chosen by the quietest windows. Every sample of a span knows the sample of the recording it
was, so no time is ever estimated. Memory holds one span and one block, however long the audio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from streaming.audio import AudioChunk, Samples
from streaming.voice_activity import (
    SAMPLE_RATE,
    SileroVoiceActivity,
    SpeechStarted,
    TurnDetection,
    TurnDetector,
    VoiceActivityState,
)

WORD_REACH = 0.1
"""Seconds by which a word may reach out of the speech it belongs to."""


@dataclass(frozen=True, slots=True)
class Cutting:
    """How speech is cut into spans, in seconds. `max_span` is what the recogniser hears at once.

    A pause of `min_pause` ends a stretch of speech; each keeps `padding` of silence on both sides. Pauses up to
    `max_join` stay whole inside a span, longer ones are cut out of it. A span never reaches over more than `max_reach`
    of the recording, so that sparse speech is not held back for long.
    """

    threshold: float = 0.5
    min_speech: float = 0.12
    min_pause: float = 0.16
    padding: float = 0.3
    max_span: float = 30.0
    max_join: float = 1.0
    max_reach: float = 120.0

    @property
    def detection(self) -> TurnDetection:
        return TurnDetection(
            threshold=self.threshold,
            prefix_padding=self.padding,
            silence_duration=self.min_pause,
            min_speech=self.min_speech,
            max_speech=self.max_span,
            trailing_padding=min(self.padding, self.min_pause),
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive samples `start`..`end` of the recording, which begin at sample `offset` of the span."""

    start: int
    end: int
    offset: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """Which part of the recording a span holds. `voiced` are the samples of the recording that are speech."""

    pieces: tuple[Piece, ...]
    voiced: tuple[tuple[int, int], ...]

    @property
    def start(self) -> int:
        """First sample."""
        return self.pieces[0].start

    @property
    def end(self) -> int:
        """The sample after the last one."""
        return self.pieces[-1].end

    @property
    def length(self) -> int:
        """Samples in the span."""
        return sum(piece.end - piece.start for piece in self.pieces)

    def place(self, start: float, end: float) -> tuple[float, float]:
        """Seconds of the span -> seconds of the recording. A time at a joint belongs to the side it faces."""
        first = self._piece(start)
        last = self._piece(end, before=True)
        begin = self._within(first, start)
        return begin, max(begin, self._within(last, end))

    def place_word(self, start: float, end: float) -> tuple[float, float]:
        """As `place`, for what cannot reach over a cut or a pause: it stays where most of it is."""
        piece = self._piece((start + end) / 2)
        begin, stop = self._within(piece, start), self._within(piece, end)
        shared = [
            (min(stop, v_end / SAMPLE_RATE) - max(begin, v_start / SAMPLE_RATE), v_start, v_end)
            for v_start, v_end in self.voiced
        ]
        most, v_start, v_end = max(shared, default=(0.0, 0, 0))
        if most > 0:
            begin = max(begin, v_start / SAMPLE_RATE - WORD_REACH)
            stop = min(stop, v_end / SAMPLE_RATE + WORD_REACH)
        return begin, max(begin, stop)

    def _piece(self, seconds: float, *, before: bool = False) -> Piece:
        sample = seconds * SAMPLE_RATE
        found = self.pieces[0]
        for piece in self.pieces[1:]:
            if sample < piece.offset or (before and sample == piece.offset):
                break
            found = piece
        return found

    @staticmethod
    def _within(piece: Piece, seconds: float) -> float:
        sample = piece.start + seconds * SAMPLE_RATE - piece.offset
        return min(max(sample, piece.start), piece.end) / SAMPLE_RATE


@dataclass(frozen=True, slots=True, eq=False)
class SpeechSpan:
    """At most `Cutting.max_span` of 16 kHz mono audio in which somebody speaks."""

    samples: Samples
    timeline: Timeline


@dataclass(slots=True)
class _OpenSpan:
    parts: list[Samples] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    voiced: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0

    @property
    def start(self) -> int:
        return self.pieces[0].start

    @property
    def end(self) -> int:
        return self.pieces[-1].end

    def add(self, start: int, samples: Samples) -> None:
        end = start + len(samples)
        if self.pieces and self.pieces[-1].end == start:
            last = self.pieces[-1]
            self.pieces[-1] = Piece(last.start, end, last.offset)
        else:
            self.pieces.append(Piece(start, end, self.length))
        self.parts.append(samples)
        self.length += len(samples)

    def close(self) -> SpeechSpan:
        return SpeechSpan(np.concatenate(self.parts), Timeline(tuple(self.pieces), tuple(self.voiced)))


class SpeechSegmenter:
    """Spans from one stream of 16 kHz mono samples and the speech probabilities of its windows."""

    def __init__(self, cutting: Cutting | None = None) -> None:
        self._cutting = cutting or Cutting()
        self._detector = TurnDetector(self._cutting.detection)
        self._kept: Samples = np.zeros(0, np.float32)
        self._kept_from = 0
        self._turn: SpeechStarted | None = None
        self._open: _OpenSpan | None = None

    @property
    def open_from(self) -> int:
        """No span to come begins before this sample."""
        return self._open.start if self._open else self._detector.keep_from

    @property
    def held(self) -> int:
        """Samples in memory."""
        return len(self._kept) + (self._open.length if self._open else 0)

    def push(self, samples: Samples, probabilities: Iterable[float]) -> list[SpeechSpan]:
        """Take the next samples, and the probabilities of the windows that they completed."""
        self._kept = np.concatenate((self._kept, samples)) if len(self._kept) else samples
        spans = [span for probability in probabilities for span in self._hear(float(probability))]
        if self._open and self._detector.keep_from - self.open_from > self._samples(self._cutting.max_reach):
            spans += self._close(self._detector.keep_from)
        self._trim()
        return spans

    def finish(self) -> list[SpeechSpan]:
        """The stream is over."""
        spans = [span for event in self._detector.finish() for span in self._end_turn(event.at_sample, False)]
        return spans + self._close(self._kept_from + len(self._kept))

    def _hear(self, probability: float) -> Iterator[SpeechSpan]:
        for event in self._detector.push(probability):
            if isinstance(event, SpeechStarted):
                self._turn = event
            else:
                yield from self._end_turn(event.at_sample, event.forced)

    def _end_turn(self, end: int, forced: bool) -> list[SpeechSpan]:
        turn, self._turn = self._turn, None
        if turn is None:
            return []
        # The last window of a stream is filled up with silence, and the clock of turns counts whole windows.
        end = min(end, self._kept_from + len(self._kept))
        trailing = 0 if forced else self._samples(self._cutting.detection.trailing_padding)
        voiced = (turn.speech_sample, max(turn.speech_sample, end - trailing))
        start, spans = turn.at_sample, []
        if self._open:
            last = self._open.end
            # Padding may have brought the span nearer, after what is in between was let go of.
            whole = self._kept_from <= last and start - last <= self._samples(self._cutting.max_join)
            begin = last if whole else start
            if self._open.length + end - begin <= self._samples(self._cutting.max_span):
                start = begin
            elif self._open.length + end - start > self._samples(self._cutting.max_span):
                spans = self._close(start)
            self._pad(start, reserved=end - start)
        self._open = self._open or _OpenSpan()
        self._open.add(start, self._kept[start - self._kept_from : end - self._kept_from].copy())
        self._open.voiced.append(voiced)
        return spans

    def _close(self, before: int) -> list[SpeechSpan]:
        self._pad(before)
        span, self._open = self._open, None
        return [span.close()] if span else []

    def _pad(self, before: int, reserved: int = 0) -> None:
        """Give the open span's last speech its full padding of silence, as far as there is any before that sample.

        A pause that has just ended a turn is shorter than the padding. Room for `reserved` samples is left.
        """
        if not self._open:
            return
        room = self._samples(self._cutting.max_span) - self._open.length - reserved
        wanted = self._open.voiced[-1][1] + self._samples(self._cutting.padding)
        last = self._open.end
        end = min(wanted, before, last + room, self._kept_from + len(self._kept))
        if self._kept_from <= last < end:
            self._open.add(last, self._kept[last - self._kept_from : end - self._kept_from].copy())

    def _trim(self) -> None:
        """Let go of audio that no span can need: a short pause after the open span may still become part of it."""
        needed = self._detector.keep_from
        if self._open and needed - self._open.end <= self._samples(self._cutting.max_join):
            needed = self._open.end
        else:
            self._pad(needed)
        if needed > self._kept_from:
            self._kept = self._kept[needed - self._kept_from :].copy()
            self._kept_from = needed

    @staticmethod
    def _samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE)


class RecordingSegmenter:
    """Spans of every channel of a recording, told apart by the channel's index. One run of the model hears them all."""

    def __init__(self, voice_activity: SileroVoiceActivity, cutting: Cutting | None = None) -> None:
        self._voice_activity = voice_activity
        self._cutting = cutting
        self._streams: list[VoiceActivityState] = []
        self._segmenters: list[SpeechSegmenter] = []
        self.position = 0
        """Samples heard."""

    @property
    def open_from(self) -> int:
        """No span to come, of whatever channel, begins before this sample."""
        return min((segmenter.open_from for segmenter in self._segmenters), default=0)

    @property
    def held(self) -> int:
        """Samples in memory."""
        return sum(segmenter.held for segmenter in self._segmenters)

    def push(self, block: Sequence[AudioChunk]) -> list[tuple[int, SpeechSpan]]:
        """Take the next block of every channel; there are as many channels as in the first one."""
        while len(self._streams) < len(block):
            self._streams.append(VoiceActivityState())
            self._segmenters.append(SpeechSegmenter(self._cutting))
        self.position = block[0].end
        return self._hear([chunk.samples for chunk in block], last=False)

    def finish(self) -> list[tuple[int, SpeechSpan]]:
        """The recording is over."""
        nothing = np.zeros(0, np.float32)
        spans = self._hear([nothing for _ in self._streams], last=True)
        return spans + [(channel, span) for channel, each in enumerate(self._segmenters) for span in each.finish()]

    def _hear(self, blocks: list[Samples], *, last: bool) -> list[tuple[int, SpeechSpan]]:
        heard = self._voice_activity.over_many(self._streams, blocks, last=last)
        return [
            (channel, span)
            for channel, (samples, probabilities) in enumerate(zip(blocks, heard, strict=True))
            for span in self._segmenters[channel].push(samples, probabilities.tolist())
        ]


def speech_spans(
    blocks: Iterable[AudioChunk], voice_activity: SileroVoiceActivity, cutting: Cutting | None = None
) -> Iterator[SpeechSpan]:
    """Spans of speech in a mono recording, in order and without overlap."""
    segmenter = RecordingSegmenter(voice_activity, cutting)
    for block in blocks:
        yield from (span for _, span in segmenter.push((block,)))
    yield from (span for _, span in segmenter.finish())
