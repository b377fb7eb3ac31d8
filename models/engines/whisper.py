"""Whisper through faster-whisper and CTranslate2: any converted model, on a CPU or a CUDA device.

All requests of a worker, recordings and live turns, share one lane of batches. A batch is encoded once; languages are
detected, text is decoded and words are aligned on that. What has to be decoded again keeps its encoding on a CPU, where
encoding is most of the work.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Generator, Mapping, Sequence
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
    AlignedWord,
    Decoded,
    Thresholds,
    without_loop,
)
from models.whisper_glances import Glances
from models.whisper_jobs import Features, Glance, Glimpse, Job, Outcome
from models.whisper_live import WhisperTurn
from models.whisper_transcription import WhisperTranscription
from streaming.segmentation import Cutting, SpeechSpan
from streaming.voice_activity import SileroVoiceActivity

TOKENS_PER_SECOND = 40
SPARE_TOKENS = 32
"""A window is given no more tokens than anybody could say in its time: most loops end there."""
MOST_THREADS = 16
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
    that does badly on that (`sonoreel models calibrate`) wants "full". With `short_finals` that holds for the final
    text of a turn, too, which is then sooner there, and no longer sure to be that of a file.
    """

    device: str = "auto"
    device_index: int = 0
    compute_type: str = "auto"
    threads: int = 0
    workers: int = 1
    batch_size: int = 0
    beam_size: int = 5
    best_of: int = 5
    temperatures: tuple[float, ...] = TEMPERATURES
    compression_ratio_threshold: float = 2.4
    log_prob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    cut_loops: bool = True
    encoder_context: Literal["auto", "full"] = "auto"
    short_finals: bool = False


class Placement(msgspec.Struct, frozen=True):
    """Where and how a model runs."""

    device: str
    compute_type: str
    threads: int
    workers: int
    batch_size: int


def placement(options: WhisperOptions | None = None) -> Placement:
    """What a model would run on here: a CUDA device if there is one, else all cores; int8 on a CPU, float16 on CUDA."""
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
    threads = options.threads or max(1, min(cores // options.workers, MOST_THREADS))
    batch_size = options.batch_size or (CUDA_BATCH if device == "cuda" else CPU_BATCH)
    return Placement(device, compute_type, threads, options.workers, batch_size)


class WhisperTranscriber:
    """Implements Transcriber and LiveTranscriber; any number of requests at once, each from a thread of its own."""

    def __init__(self, path: Path, options: WhisperOptions, concurrency: int = 1) -> None:
        self.placement = placement(options)
        self._options = options
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
        self.short_finals = options.short_finals and self.short_glances
        self.cadence = Cadence()
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
        self._suppressed = list(get_suppressed_tokens(plain, [-1]) or ())
        self._glances = Glances(self._model, self.tokenizer, self._suppressed, _join_marks, cut_loops=options.cut_loops)
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
        """Log-Mel spectrogram, shape (n_mels, 3000); the rest of the window is as silent as the scale goes."""
        return self.short_features(span, self.window)

    def short_features(self, span: SpeechSpan, seconds: float) -> Features:
        """The same for a window of so many seconds."""
        extractor = self._model.feature_extractor
        frames = round(seconds * FRAMES_PER_SECOND)
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
        code = asked.strip().lower().replace("_", "-").partition("-")[0]
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
            return self._transcribe(cast("Sequence[Job]", items))
        except RuntimeError as error:
            if "out of memory" in str(error).lower():
                raise OutOfMemory("The model ran out of memory.") from error
            raise

    def _transcribe(self, jobs: Sequence[Job]) -> list[Outcome]:
        encoded = self._encode(jobs)
        languages = self._languages(jobs, encoded)
        decoded = self._decode(jobs, languages, encoded) if jobs[0].tokens is None else [None] * len(jobs)
        words = self._align(jobs, languages, decoded, encoded)
        outcomes = []
        for index, (job, language, text, spoken) in enumerate(zip(jobs, languages, decoded, words, strict=True)):
            final = spoken is not None or (text is not None and self.thresholds.accepts(text) and not job.words)
            outcomes.append(Outcome(language, text, spoken, None if final else self._kept(index, job, encoded)))
        return outcomes

    def _encode(self, jobs: Sequence[Job]) -> Any:
        if jobs[0].encoded is not None:
            return ctranslate2.StorageView.from_array(
                np.stack([job.encoded for job in jobs if job.encoded is not None])
            )
        return self._model.encode(np.stack([job.features for job in jobs]))

    def _kept(self, index: int, job: Job, encoded: Any) -> Any:
        """One row of the encoder's output for later, where it can be had cheaply."""
        if self.placement.device != "cpu" or job.encoded is not None:
            return None
        return np.asarray(encoded)[index].copy()

    def _languages(self, jobs: Sequence[Job], encoded: Any) -> list[str]:
        if all(job.language for job in jobs):
            return [job.language for job in jobs]
        detected = self._model.model.detect_language(encoded)
        return [job.language or rows[0][0].strip("<|>") for job, rows in zip(jobs, detected, strict=True)]

    def _decode(self, jobs: Sequence[Job], languages: Sequence[str], encoded: Any) -> list[Decoded | None]:
        prompts = []
        for job, language in zip(jobs, languages, strict=True):
            tokenizer = self.tokenizer(language, job.task)
            plain = () if job.timestamps else (tokenizer.no_timestamps,)
            prompts.append([*job.prompt, *tokenizer.sot_sequence, *plain])
        longest = max(job.seconds for job in jobs)
        room = SPARE_TOKENS + math.ceil(TOKENS_PER_SECOND * longest)
        temperature = jobs[0].temperature
        search = (
            {"beam_size": 1, "num_hypotheses": self._options.best_of, "sampling_topk": 0}
            | {"sampling_temperature": temperature}
            if temperature
            else {"beam_size": self._options.beam_size}
        )
        results = self._model.model.generate(
            encoded,
            prompts,
            max_length=min(self._model.max_length, len(prompts[0]) + room),
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=self._suppressed,
            **search,
        )
        return [self._decoded(result, temperature) for result in results]

    def _decoded(self, result: Any, temperature: float) -> Decoded:
        tokens = result.sequences_ids[0]
        # Scores are means over the tokens; the end of the text counts as one more.
        avg_logprob = result.scores[0] * len(tokens) / (len(tokens) + 1)
        looped = False
        if self._options.cut_loops:
            end_of_text = self.tokenizer("en", "transcribe").eot
            tokens, looped = without_loop(tokens, lambda token: token < end_of_text)
        return Decoded(tuple(tokens), self.text(tokens), temperature, avg_logprob, result.no_speech_prob, looped)

    def _align(
        self, jobs: Sequence[Job], languages: Sequence[str], decoded: Sequence[Decoded | None], encoded: Any
    ) -> list[tuple[AlignedWord, ...] | None]:
        """Words of the jobs that want them and have their final text, if one start sequence serves the whole batch."""
        texts: list[list[int] | None] = []
        for job, text in zip(jobs, decoded, strict=True):
            tokens = job.tokens
            if tokens is None and text is not None and job.words and self.thresholds.accepts(text):
                tokens = text.tokens
            end_of_text = self.tokenizer("en", "transcribe").eot
            texts.append(None if tokens is None else [token for token in tokens if token < end_of_text])
        starts = {(language, job.task) for job, language in zip(jobs, languages, strict=True)}
        if len(starts) > 1 or all(text is None for text in texts):
            return [None] * len(jobs)
        tokenizer = self.tokenizer(*starts.pop())
        frames = [max(round(job.seconds * FRAMES_PER_SECOND), 2) for job in jobs]
        timings = self._model.find_alignment(tokenizer, [text or [] for text in texts], encoded, frames)
        for timing in timings:
            _join_marks(timing)
        return [
            None if text is None else tuple(_word(each) for each in timing if each["word"])
            for text, timing in zip(texts, timings, strict=True)
        ]


def _join_marks(timing: list[dict[str, Any]]) -> None:
    merge_punctuations(timing, PREPENDED, APPENDED)


def _word(timing: Mapping[str, Any]) -> AlignedWord:
    start, end = float(timing["start"]), float(timing["end"])
    return AlignedWord(timing["word"], tuple(timing["tokens"]), start, end, float(timing["probability"]))


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
