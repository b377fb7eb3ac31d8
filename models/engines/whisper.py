"""Whisper through faster-whisper and CTranslate2: any converted model, on a CPU or a CUDA device.

All requests of a worker share one lane of batches: the windows of recordings and of finals (`models.whisper_windows`),
and the looks at live turns (`models.whisper_glances`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import ctranslate2
import msgspec
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_suppressed_tokens, merge_punctuations

from models.catalog import Card
from models.errors import InvalidInput, OutOfMemory
from models.interfaces import (
    HypothesisUpdate,
    ListenRequest,
    LiveAudio,
    MediaInfo,
    OnStep,
    SegmentResult,
    TranscriptionRequest,
)
from models.scheduling import BatchLane, Cadence
from models.torch_runtime import weights_directory
from models.whisper_decoding import (
    FRAMES_PER_SECOND,
    TEMPERATURES,
    Thresholds,
)
from models.whisper_glances import Glances
from models.whisper_jobs import Features, Glance, Glimpse, Job, Outcome, short_window
from models.whisper_live import WhisperTurn
from models.whisper_transcription import WhisperTranscription
from models.whisper_windows import Search, Windows
from streaming.languages import primary_language
from streaming.segmentation import Cutting, SpeechSpan
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

MOST_THREADS, MOST_WORKERS, CORES_PER_WORKER = 16, 8, 4
CPU_BATCH, CUDA_BATCH = 4, 16
CUDA_GATHER = 0.01
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
LANGUAGE_NAMES = {
    "iw": "he",
    "in": "id",
    "fil": "tl",
    "nb": "no",
    "jv": "jw",
    "cmn": "zh",
    "eng": "en",
    "english": "en",
}
"""Other codes for languages that Whisper calls by its own."""


class WhisperOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. Zeros and "auto" are chosen by `placement`; infinite thresholds are switched off.

    With `encoder_context` "auto" the encoder hears no more of a live turn than there is, and a little silence; a model
    that does badly on that (`sonoreel models calibrate`) wants "full". With `short_windows` that holds for final texts,
    too, of turns as of recordings: short ones are several times as soon there.
    """

    device: str = "auto"
    device_index: int = 0
    compute_type: str = "auto"
    threads: int = 0
    workers: int = 0
    batch_size: int = 0
    beam_size: int = 5
    best_of: int = 5
    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio_threshold: float = 2.4
    log_prob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    cut_loops: bool = True
    encoder_context: Literal["auto", "full"] = "auto"
    short_windows: bool = False


class Placement(msgspec.Struct, frozen=True):
    """Where and how a model runs."""

    device: str
    compute_type: str
    threads: int
    workers: int
    batch_size: int


def placement(options: WhisperOptions | None = None) -> Placement:
    """What a model would run on here: a CUDA device if there is one, else all cores; int8 on a CPU, float16 on CUDA.

    Cores share themselves out among workers, which run a batch each with the same weights in memory: two cores that
    work on one batch wait for each other at every token, and a final would wait for somebody's upload.
    """
    options = options or WhisperOptions()
    device = options.device
    if device == "auto":
        device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    compute_type = options.compute_type
    if compute_type == "auto":
        supported = ctranslate2.get_supported_compute_types(device, options.device_index)
        wanted = ("float16", "int8_float16", "float32") if device == "cuda" else ("int8", "float32")
        compute_type = next((each for each in wanted if each in supported), "default")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    alone = device == "cuda" or options.threads
    workers = options.workers or (1 if alone else min(cores, max(2, cores // CORES_PER_WORKER), MOST_WORKERS))
    threads = options.threads or max(1, min(cores // workers, MOST_THREADS))
    batch_size = options.batch_size or (CUDA_BATCH if device == "cuda" else CPU_BATCH)
    return Placement(device, compute_type, threads, workers, batch_size)


class WhisperTranscriber:
    """Implements Transcriber and LiveTranscriber; any number of requests at once, each from a thread of its own."""

    def __init__(self, path: Path, options: WhisperOptions, concurrency: int = 1) -> None:
        self.placement = placement(options)
        self._model = WhisperModel(
            str(path),
            device=self.placement.device,
            device_index=options.device_index,
            compute_type=self.placement.compute_type,
            cpu_threads=self.placement.threads,
            num_workers=self.placement.workers,
            local_files_only=True,
        )
        self.multilingual = bool(self._model.model.is_multilingual)
        self.voice_activity = SileroVoiceActivity()
        self.window = float(self._model.feature_extractor.chunk_length)
        self.mel_filters = self._model.feature_extractor.mel_filters
        self.short_glances = options.encoder_context == "auto"
        self._short_windows = options.short_windows and self.short_glances
        self.cadence = Cadence(self.placement.workers)
        self.cutting = Cutting(max_span=self.window)
        self.thresholds = Thresholds(
            options.compression_ratio_threshold,
            options.log_prob_threshold,
            options.no_speech_threshold,
            options.cut_loops,
        )
        self.temperatures = options.temperatures
        self.ahead = 2 * self.placement.batch_size + 1
        self.tokenizer = lru_cache(maxsize=None)(self._new_tokenizer)
        plain = self.tokenizer("en", "transcribe")
        self.timestamp_begin: int = plain.timestamp_begin
        suppressed = list(get_suppressed_tokens(plain, [-1]) or ())
        search = Search(options.beam_size, options.best_of, options.cut_loops)
        # On a CPU, where encoding is most of the work, what has to be decoded again is not encoded again.
        stored = ctranslate2.StorageView.from_array if self.placement.device == "cpu" else None
        parts = (self._model, self.tokenizer, suppressed, _join_marks)
        self._glances = Glances(*parts, cut_loops=options.cut_loops)
        self._windows = Windows(*parts, search, lambda: self.thresholds, stored)
        self.lane = BatchLane[Job | Glance, Outcome | Glimpse](
            self._run,
            max_batch=self.placement.batch_size,
            capacity=self.ahead * max(concurrency, 1),
            threads=self.placement.workers,
            gather=CUDA_GATHER if self.placement.device == "cuda" else 0.0,
            most=self._most,
            name="whisper",
        )

    def transcribe(
        self, request: TranscriptionRequest, on_step: OnStep
    ) -> Generator[MediaInfo | SegmentResult, None, None]:
        """See `Transcriber`; the facts come when the language is known, and again if the duration was not as announced.

        Raises: InvalidInput (language, task, file); Cancelled from `on_step`.
        """
        language = self._language(request.language)
        if request.task == "translate" and not self.multilingual:
            raise InvalidInput("This model cannot translate: it understands English only.", field="model")
        prompt = self._prompt(request.prompt)
        yield from WhisperTranscription(self, request, on_step, language=language, prompt=prompt).results()

    def listen(
        self, request: ListenRequest, audio: LiveAudio, on_step: OnStep
    ) -> Generator[HypothesisUpdate | SegmentResult, None, None]:
        """See `LiveTranscriber`; the text of the segment is that of a file with the turn's audio.

        Raises: InvalidInput (language); Cancelled from `on_step`.
        """
        language, prompt = self._language(request.language), self._prompt(request.prompt)
        yield from WhisperTurn(self, request, on_step, language=language, prompt=prompt).results(audio)

    def close(self) -> None:
        """Stop the lane's threads."""
        self.lane.close()

    # ------------------------------------------------------------------ what a transcription asks for

    def features(self, span: SpeechSpan) -> Features:
        """Log-Mel spectrogram, shape (n_mels, frames); the rest of the window is as silent as the scale goes."""
        extractor = self._model.feature_extractor
        seconds = len(span.samples) / SAMPLE_RATE
        window = short_window(seconds, self.window) if self._short_windows else self.window
        frames = round(window * FRAMES_PER_SECOND)
        mel = extractor(span.samples)[..., :frames]
        # Whisper was trained on audio padded with zeros: 8 decades below the loudest, on a scale of 4 decades a unit.
        padded = np.full((mel.shape[0], frames), mel.max() - 2.0, np.float32)
        padded[:, : mel.shape[1]] = mel
        return padded

    def submit(self, job: Job, deadline: float) -> Future[Outcome]:
        """Queue a job for a batch."""
        return cast("Future[Outcome]", self.lane.submit(job, key=job.key, deadline=deadline))

    def glance(self, glance: Glance, deadline: float) -> Future[Glimpse]:
        """Queue a look at a live turn."""
        return cast("Future[Glimpse]", self.lane.submit(glance, key=glance.key, deadline=deadline))

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens; special ones are left out."""
        return str(self.tokenizer("en", "transcribe").decode(list(tokens)))

    def _language(self, asked: str) -> str:
        """Whisper's own code for a language; empty for one that is to be detected."""
        code = primary_language(asked)
        code = LANGUAGE_NAMES.get(code, code)
        if not self.multilingual and code in ("", "en"):
            return "en"
        if not code:
            return ""
        if not self.multilingual:
            raise InvalidInput(f"This model understands English only, not {asked!r}.", field="language")
        if not code.isalpha() or self._model.hf_tokenizer.token_to_id(f"<|{code}|>") is None or len(code) > 3:
            raise InvalidInput(
                f"This model does not know the language {asked!r}: use an ISO 639-1 code.", field="language"
            )
        return code

    def _prompt(self, text: str) -> tuple[int, ...]:
        """Tokens of text that is taken for what was said before, the last of them if there are too many."""
        if not text.strip():
            return ()
        tokenizer = self.tokenizer("en", "transcribe")
        return (tokenizer.sot_prev, *tokenizer.encode(" " + text.strip())[-(self._model.max_length // 2 - 1) :])

    def _new_tokenizer(self, language: str, task: str) -> Tokenizer:
        return Tokenizer(self._model.hf_tokenizer, self.multilingual, task=task, language=language)

    # ------------------------------------------------------------------ a batch, in the lane's thread

    def _most(self, item: Job | Glance) -> int:
        """While people speak, recordings take the model for a moment at a time: a final waits for no more."""
        size = self.placement.batch_size
        return max(size // CPU_BATCH, 1) if self.cadence.turns and isinstance(item, Job) else size

    def _run(self, items: Sequence[Job | Glance]) -> Sequence[Outcome | Glimpse]:
        """Items of one key -> what became of them."""
        try:
            if isinstance(items[0], Glance):
                return self._glances.run(cast("Sequence[Glance]", items))
            return self._windows.run(cast("Sequence[Job]", items))
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise OutOfMemory("The model ran out of memory.") from error
            raise


def _join_marks(timing: list[dict[str, Any]]) -> None:
    merge_punctuations(timing, PREPENDED, APPENDED)


def load(card: Card) -> WhisperTranscriber:
    """Load the converted model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, WhisperOptions)
    # Without a tokenizer.json, faster-whisper would ask the hub for one.
    path = weights_directory(card, "model.bin", "tokenizer.json")
    return WhisperTranscriber(path, options, card.concurrency)


if __name__ == "__main__":  # for `doctor`, which must not import CTranslate2 into its own process
    sys.stdout.write(json.dumps(msgspec.to_builtins(placement())) + "\n")
