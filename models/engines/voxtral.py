"""Voxtral through transformers: Whisper's encoder in front of a language model, in its transcription mode.

Speech is cut out of the recording as for every recogniser and goes through the model in windows of at most 30 s, to
which its encoder pads whatever it hears. The model writes text without times: a segment is a window, and its times are
those of the speech in it. It takes no prompt, tells no words apart and does not translate in this mode.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from models.catalog import Card
from models.errors import InvalidInput
from models.interfaces import MediaInfo, OnStep, Samples, SegmentResult, TranscriptionRequest
from models.languages import known_language
from models.passage_transcription import PassageTranscription
from models.speech_reader import Passage
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings
from streaming.segmentation import Cutting
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity

torch = import_torch()
with without_warnings():
    transformers: Any = importlib.import_module("transformers")  # typed in parts only

WHOLE_WINDOW, SHORT_WINDOW = 30.0, 15.0
"""Longest segments in seconds; the shorter where the caller wants to know when things were said."""
CPU_BATCH, DEVICE_BATCH = 1, 8
SPARE_TOKENS = 32
LANGUAGE = re.compile(r"^\s*lang:([a-z]{2})")
"""How the model begins when it was not told the language."""


class VoxtralOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. Zeros and "auto" are chosen here; `dtype` is the name of a torch type.

    A window is given no more tokens than anybody could say in its time.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    batch_size: int = 0
    tokens_per_second: float = 25.0


class VoxtralTranscriber:
    """Implements Transcriber; one request at a time, several of its windows at once where there is a GPU."""

    def __init__(self, directory: Path, card: Card, options: VoxtralOptions) -> None:
        self._id = card.id
        self._languages = card.languages
        self._device = pick_device(options.device)
        self._dtype = pick_dtype(self._device, options.dtype)
        self.batch_size = options.batch_size or (CPU_BATCH if self._device == "cpu" else DEVICE_BATCH)
        self._tokens_per_second = options.tokens_per_second
        self.voice_activity = SileroVoiceActivity()
        self._processor = transformers.VoxtralProcessor.from_pretrained(directory, local_files_only=True)
        self._model = transformers.VoxtralForConditionalGeneration.from_pretrained(
            directory,
            local_files_only=True,
            dtype=self._dtype,
            device_map=None if self._device == "cpu" else self._device,
        )
        self._model.eval()

    def transcribe(
        self, request: TranscriptionRequest, on_step: OnStep
    ) -> Generator[MediaInfo | SegmentResult, None, None]:
        """See `Transcriber`; the facts come when the language is known, and again if the duration was not as announced.

        Raises: InvalidInput (language, task, file); Cancelled from `on_step`.
        """
        if request.task == "translate":
            raise InvalidInput("This model cannot translate.", field="model")
        language = known_language(request.language, self._languages)

        def write(passages: Sequence[Passage[Samples]], check: Callable[[], None]) -> list[list[Segment]]:
            windows = [passage.prepared for passage in passages]
            written = self.write(windows, language, request.temperature, check)
            return [
                _segments(passage, found or language, text, channels=request.split_channels)
                for passage, (found, text) in zip(passages, written, strict=True)
            ]

        yield from PassageTranscription(
            request,
            on_step,
            write,
            language=language,
            batch_size=self.batch_size,
            voice_activity=self.voice_activity,
            cutting=Cutting(max_span=SHORT_WINDOW if request.segment_timestamps else WHOLE_WINDOW),
        ).results()

    def write(
        self, windows: Sequence[Samples], language: str, temperature: float, check: Callable[[], None]
    ) -> list[tuple[str, str]]:
        """The (language, text) of windows of at most 30 s; an empty `language` is the model's to find.

        `check` is called after every token and may raise.
        """

        def wanted(tokens: Any, scores: Any, **_: Any) -> Any:
            check()
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

        with without_warnings(), torch.inference_mode():
            inputs = self._processor.apply_transcription_request(
                audio=list(windows),
                model_id=self._id,
                language=language or None,
                sampling_rate=SAMPLE_RATE,
                format=["WAV"] * len(windows),
            ).to(self._device, dtype=self._dtype)
            longest = max(len(window) for window in windows) / SAMPLE_RATE
            sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
            written = self._model.generate(
                **inputs,
                **sampling,
                max_new_tokens=SPARE_TOKENS + math.ceil(self._tokens_per_second * longest),
                stopping_criteria=[wanted],
            )
        asked = inputs["input_ids"].shape[1]
        return [self._read(tokens, language) for tokens in written[:, asked:].tolist()]

    def _read(self, tokens: list[int], language: str) -> tuple[str, str]:
        # transformers' own decoding would drop the language that the model names.
        text = self._processor.tokenizer.tokenizer.decode(tokens)
        found = LANGUAGE.match(text)
        if found and not language:
            language = found[1]
        return language, LANGUAGE.sub("", text).strip()


def _segments(passage: Passage[Samples], language: str, text: str, *, channels: bool) -> list[Segment]:
    """Its times are those of the speech in the passage."""
    voiced = passage.timeline.voiced
    start, end = voiced[0][0] / SAMPLE_RATE, voiced[-1][1] / SAMPLE_RATE
    channel = passage.channel if channels else None
    return [Segment(text, start, end, language=language, channel=channel)] if text else []


def load(card: Card) -> VoxtralTranscriber:
    """Load the model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, VoxtralOptions)
    directory = weights_directory(card, "config.json", "preprocessor_config.json", "tekken.json")
    import_torch(options.threads)
    with without_warnings():
        return VoxtralTranscriber(directory, card, options)
