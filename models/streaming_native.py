"""Recognisers that were made for streams: they hear every chunk of audio once, and take no word back.

Hypotheses cost nothing beyond the final text, and the final is there a few chunks after the turn. Chunks of all
requests of a worker wait in one lane, by urgency; a recording's passages are streams like turns, of less urgency.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from models.chunked_stream import ChunkedStream
from models.errors import InvalidInput
from models.interfaces import (
    HypothesisUpdate,
    ListenRequest,
    LiveAudio,
    MediaInfo,
    OnStep,
    Samples,
    SegmentResult,
    TranscriptionRequest,
)
from models.languages import known_language
from models.passage_transcription import PassageTranscription
from models.scheduling import BatchLane, Urgency, awaited
from models.speech_reader import Passage
from streaming.segmentation import Cutting
from streaming.transcript import Hypothesis, Segment, Word
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

LONGEST_PASSAGE = 30.0
PAUSE = 1.0
"""Seconds without a word that part two segments of a recording."""


@dataclass(slots=True)
class _Pace:
    """How far a turn is behind its audio: what chunks took beyond what they last."""

    behind: float = 0.0

    def took(self, seconds: float, lasting: float) -> float:
        self.behind = max(0.0, self.behind + seconds - lasting)
        return self.behind


class StreamingRecogniser:
    """Implements Transcriber and LiveTranscriber; any number of requests at once, each from a thread of its own."""

    def __init__(
        self,
        languages: Sequence[str],
        turn: Callable[[], ChunkedStream],
        passage: Callable[[], ChunkedStream],
        name: str,
    ) -> None:
        """`turn` and `passage` begin streams of live speech and of recordings; `name` is for the lane's thread."""
        self._languages = tuple(languages)
        self._turn = turn
        self._passage = passage
        self.voice_activity = SileroVoiceActivity()
        self.lane = BatchLane[ChunkedStream, bool](
            lambda streams: [stream.hear() for stream in streams], max_batch=1, name=name
        )

    def transcribe(
        self, request: TranscriptionRequest, on_step: OnStep
    ) -> Generator[MediaInfo | SegmentResult, None, None]:
        """See `Transcriber`. Raises: InvalidInput (language, task, file); Cancelled from `on_step`."""
        if request.task == "translate":
            raise InvalidInput("This model cannot translate.", field="model")
        language = self._language(request.language)

        def write(passages: Sequence[Passage[Samples]], check: Callable[[], None]) -> list[list[Segment]]:
            return [self._segments(passage, request, language, check) for passage in passages]

        yield from PassageTranscription(
            request,
            on_step,
            write,
            language=language,
            batch_size=1,
            voice_activity=self.voice_activity,
            cutting=Cutting(max_span=LONGEST_PASSAGE),
        ).results()

    def listen(
        self, request: ListenRequest, audio: LiveAudio, on_step: OnStep
    ) -> Generator[HypothesisUpdate | SegmentResult, None, None]:
        """See `LiveTranscriber`. Raises: InvalidInput (language); Cancelled from `on_step`."""
        language = self._language(request.language)
        stream, pace, heard = self._turn(), _Pace(), 0
        urgency = Urgency.FIRST_PARTIAL

        def check() -> None:
            on_step(heard / SAMPLE_RATE, None)

        for block in audio:
            heard += len(block)
            stream.append(block)
            check()
            while stream.ready:
                lasting, began = stream.seconds, time.monotonic()
                wrote = self._hear(stream, urgency, check)
                lag = pace.took(time.monotonic() - began, lasting)
                if wrote:
                    urgency = Urgency.PARTIAL
                    yield HypothesisUpdate(Hypothesis(stream.words()), lag)
        while not stream.over:
            self._hear(stream, Urgency.FINAL, check)
        duration = heard / SAMPLE_RATE
        words = tuple(_within(word, duration) for word in stream.words())
        yield SegmentResult(Segment(_text(words), 0.0, duration, words, language))

    def close(self) -> None:
        """Stop the lane's thread."""
        self.lane.close()

    # ------------------------------------------------------------------ inside

    def _hear(self, stream: ChunkedStream, urgency: Urgency, check: Callable[[], None]) -> bool:
        """Have the next chunk of a stream heard, when its turn has come. Whether there are new words."""
        future = self.lane.submit(stream, deadline=time.monotonic() + urgency)
        return awaited(future, check)

    def _segments(
        self, passage: Passage[Samples], request: TranscriptionRequest, language: str, check: Callable[[], None]
    ) -> list[Segment]:
        stream = self._passage()
        stream.append(passage.prepared)
        while not stream.over:
            check()
            self._hear(stream, Urgency.UPLOAD, check)
        words = [
            Word(word.text, *passage.timeline.place_word(word.start, word.end), word.probability)
            for word in stream.words()
        ]
        channel = passage.channel if request.split_channels else None
        breaks = [at for at in range(1, len(words)) if words[at].start - words[at - 1].end >= PAUSE]
        parts = [tuple(words[start:end]) for start, end in itertools.pairwise([0, *breaks, len(words)])]
        return [
            Segment(
                _text(part),
                part[0].start,
                part[-1].end,
                part if request.word_timestamps else (),
                language,
                channel=channel,
            )
            for part in parts
            if part
        ]

    def _language(self, asked: str) -> str:
        """The language asked for, that of a model of one, or none."""
        code = known_language(asked, self._languages)
        return code or (self._languages[0] if len(self._languages) == 1 else "")


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _within(word: Word, duration: float) -> Word:
    return Word(word.text, min(word.start, duration), min(word.end, duration), word.probability)
