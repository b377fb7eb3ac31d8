"""Nemotron's streaming recognisers through transformers: a cache-aware FastConformer in front of a transducer.

The model hears chunks of 80 ms to 1.1 s, each of them once, whatever the turn's length: hypotheses cost nothing beyond
the final text, and the final is there a chunk after the turn. Chunks of all requests wait in one lane, by urgency;
a recording's passages are heard in the longest chunks. It takes no prompt and does not translate.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from models.cache_aware_stream import CacheAwareModel, CacheAwareStream
from models.catalog import Card
from models.errors import EngineFailed, InvalidInput
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
from models.passage_transcription import PassageTranscription
from models.scheduling import BatchLane, Urgency
from models.speech_reader import Passage
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings
from streaming.segmentation import Cutting
from streaming.transcript import Hypothesis, Segment, Word
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

torch = import_torch()
with without_warnings():
    transformers: Any = importlib.import_module("transformers")  # typed in parts only

LONGEST_PASSAGE = 30.0
PAUSE = 1.0
"""Seconds without a word that part two segments."""
POLL = 0.05
"""Seconds within which a cancelled request notices."""


class NemotronOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card; "auto" is chosen here, `dtype` is the name of a torch type.

    `lookahead` is how many frames of 80 ms the model looks ahead in live turns, which is how late its words are;
    `recording_lookahead` that in recordings, where more is better. -1 is the most that it was trained to.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    lookahead: int = 1
    recording_lookahead: int = -1


@dataclass(slots=True)
class _Pace:
    """How far a turn is behind its audio: what chunks took beyond what they last."""

    behind: float = 0.0

    def took(self, seconds: float, lasting: float) -> float:
        self.behind = max(0.0, self.behind + seconds - lasting)
        return self.behind


class NemotronTranscriber:
    """Implements Transcriber and LiveTranscriber; any number of requests at once, each from a thread of its own."""

    def __init__(self, directory: Path, card: Card, options: NemotronOptions) -> None:
        """Raises: EngineFailed for a lookahead that the model was not trained to."""
        self._languages = card.languages
        device = pick_device(options.device)
        processor = transformers.AutoProcessor.from_pretrained(directory, local_files_only=True)
        model = transformers.NemotronAsrStreamingForRNNT.from_pretrained(
            directory, local_files_only=True, dtype=pick_dtype(device, options.dtype)
        )
        self._model = CacheAwareModel(model.to(device).eval(), processor)
        self._lookahead = self._known(options.lookahead)
        self._recording_lookahead = self._known(options.recording_lookahead)
        self.voice_activity = SileroVoiceActivity()
        self.lane = BatchLane[CacheAwareStream, bool](
            lambda streams: [stream.hear() for stream in streams], max_batch=1, name="nemotron"
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
        stream, pace, heard = CacheAwareStream(self._model, self._lookahead), _Pace(), 0
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

    def _hear(self, stream: CacheAwareStream, urgency: Urgency, check: Callable[[], None]) -> bool:
        """Have the next chunk of a stream heard, when its turn has come. Whether there are new tokens."""
        future = self.lane.submit(stream, deadline=time.monotonic() + urgency)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    return future.result(timeout=POLL)
                check()
        finally:
            future.cancel()

    def _segments(
        self, passage: Passage[Samples], request: TranscriptionRequest, language: str, check: Callable[[], None]
    ) -> list[Segment]:
        stream = CacheAwareStream(self._model, self._recording_lookahead)
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

    def _known(self, lookahead: int) -> int:
        known = self._model.lookaheads
        if lookahead == -1:
            return max(known)
        if lookahead not in known:
            raise EngineFailed(f"The model was trained to look {sorted(known)} frames ahead, not {lookahead}.")
        return lookahead

    def _language(self, asked: str) -> str:
        code = asked.strip().lower().replace("_", "-").partition("-")[0]
        if code and code not in self._languages:
            known = ", ".join(self._languages)
            raise InvalidInput(
                f"This model does not know the language {asked!r}: use one of {known}.", field="language"
            )
        return code or (self._languages[0] if len(self._languages) == 1 else "")


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.text for word in words)


def _within(word: Word, duration: float) -> Word:
    return Word(word.text, min(word.start, duration), min(word.end, duration), word.probability)


def load(card: Card) -> NemotronTranscriber:
    """Load the model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; EngineFailed; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, NemotronOptions)
    directory = weights_directory(card, "config.json", "processor_config.json")
    import_torch(options.threads)
    with without_warnings():
        return NemotronTranscriber(directory, card, options)
