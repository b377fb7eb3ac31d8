"""Orpheus-3B: a language model that writes speech, with laughs and sighs where the text has tags such as <laugh>.

Its tokens come from another server or from the model in this process; here the codec (SNAC) turns them into sound, four
frames of 85 ms at a time, of which the first two can be heard as soon as there are 28 tokens. The model has no speed
and no word times: other speeds are the same speech, squeezed or stretched.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

from models.catalog import Card
from models.errors import EngineFailed, InvalidInput, WeightsMissing
from models.interfaces import OnStep, Samples, SpeechChunk, SpeechRequest, Voice
from models.languages import known_language
from models.orpheus_local import LocalTokens
from models.orpheus_tokens import FRAME_SAMPLES, PLACES, PROMPT, VOICES, Window, frames, levels, prompts, windows
from models.orpheus_upstream import Sampling, UpstreamTokens
from models.scheduling import BatchLane, awaited
from models.tempo import Tempo
from models.torch_runtime import import_torch, pick_device, weights_directory, without_warnings

torch = import_torch()
with without_warnings():
    SNAC: Any = importlib.import_module("snac").SNAC

SAMPLE_RATE = 24_000
SPEEDS = (0.25, 4.0)
CODEC = "hubertsiuzdak/snac_24khz"
CODEC_STRIDES = [4, 2, 1]
CPU_FRAMES = 8
DEVICE_BATCH = 32
"""Windows of several requests that a GPU decodes at once; a CPU gains nothing by that."""


class OrpheusOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card.

    `backend` "transformers" runs the model of `weights` here; "openai" asks the server at `base_url`, where it is
    called `model` (the card's id if empty), with the key in the environment variable `api_key_env`, and gives up when
    nothing comes for `timeout` seconds. `body` is added to every request. `codec` is a hub id or a directory; where
    `weights` is a directory with another called `codec` in it, that.

    A text is spoken in parts of at most `part_characters`; of each, the model may write `tokens_per_character` and
    `spare_tokens`, so that one that does not find its end is stopped. `most_frames` of the codec are decoded at once
    when enough has been heard: 0 is 8 on a CPU, which could not keep up otherwise, and 1 on a GPU.
    """

    backend: Literal["transformers", "openai"] = "transformers"
    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    timeout: float = 30.0
    body: dict[str, Any] = {}
    codec: str = CODEC
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    prompt: str = PROMPT
    temperature: float = 0.6
    top_p: float = 0.8
    repetition_penalty: float = 1.1
    seed: int = 0
    part_characters: int = 250
    tokens_per_character: float = 12.0
    spare_tokens: int = 336
    most_frames: int = 0

    def __post_init__(self) -> None:
        if self.backend == "openai" and not self.base_url:
            raise ValueError("the backend 'openai' needs a base_url")
        if min(self.part_characters, self.spare_tokens) < 1:
            raise ValueError("part_characters and spare_tokens must be at least 1")
        if min(self.tokens_per_character, self.temperature, self.most_frames) < 0:
            raise ValueError("tokens_per_character, temperature and most_frames must not be below 0")


class Tokens(Protocol):
    """Where the tokens come from."""

    def tokens(self, prompt: str, sampling: Sampling, most: int, check: Callable[[], None]) -> Iterator[int]:
        """The numbers of the tokens that answer a prompt, as they come."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class OrpheusSynthesizer:
    """Implements SpeechSynthesizer. Any thread may call it."""

    def __init__(self, card: Card, options: OrpheusOptions, codec: Path, tokens: Tokens) -> None:
        self._card = card
        self._options = options
        self._voices = card.voices or VOICES
        self._default = card.default_voice or self._voices[0]
        self._sampling = Sampling(
            temperature=options.temperature,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
        )
        self._tokens = tokens
        self._device = pick_device(options.device)
        self._most_frames = options.most_frames or (CPU_FRAMES if self._device == "cpu" else 1)
        self._codec = _load_codec(codec).to(self._device).eval()
        self.lane = BatchLane[Window, Samples](
            self._decode, max_batch=1 if self._device == "cpu" else DEVICE_BATCH, capacity=4096, name="snac"
        )
        self.lane.submit(Window([(0,) * PLACES] * 4, 0, 1)).result()  # the first one of a process is slow

    def voices(self) -> list[Voice]:
        """The card's voices, or those of the English model."""
        return [Voice(name, name.title(), self._card.languages) for name in self._voices]

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Generator[SpeechChunk, None, None]:
        """Yield chunks of at most a second; nothing at all for blank text. `on_step` counts characters.

        Raises: InvalidInput (text, voice, language, speed, extra_params) at once; EngineFailed, AtCapacity and
        WeightsMissing of another server; Cancelled from `on_step`.
        """
        limit = self._card.max_input_chars
        if len(request.text) > limit:
            raise InvalidInput(f"The text has {len(request.text)} characters; {limit} is the most.", field="text")
        if not SPEEDS[0] <= request.speed <= SPEEDS[1]:
            raise InvalidInput(f"speed must be between {SPEEDS[0]} and {SPEEDS[1]}.", field="speed")
        voice = (request.voice or self._default).strip().lower()
        if voice not in self._voices:
            known = ", ".join(self._voices)
            raise InvalidInput(f"This model has no voice {request.voice!r}: use one of {known}.", field="voice")
        if self._card.languages:
            known_language(request.language, self._card.languages)
        return self._speak(request.text, voice, request.speed, self._sampling.changed(request.extra_params), on_step)

    def _speak(
        self, text: str, voice: str, speed: float, sampling: Sampling, on_step: OnStep
    ) -> Generator[SpeechChunk, None, None]:
        tempo = Tempo(speed, SAMPLE_RATE)
        done = 0
        due = time.monotonic()

        def check() -> None:
            on_step(done, len(text))

        check()
        for prompt, end in prompts(text, voice, self._options.prompt, self._options.part_characters):
            most = math.ceil(self._options.spare_tokens + self._options.tokens_per_character * (end - done))
            for samples in self._part(self._written(prompt, sampling, most, check), due, speed, check):
                due += len(samples) / SAMPLE_RATE / speed
                yield from _chunks(tempo.push(samples), check)
            done = end
        yield from _chunks(tempo.finish(), check)
        on_step(len(text), len(text))

    def _part(
        self, written: Generator[int, None, None], due: float, speed: float, check: Callable[[], None]
    ) -> Generator[Samples, None, None]:
        """The sound of one prompt's tokens, `due` on the monotonic clock.

        Raises: EngineFailed when there is none, and what the backend raises.
        """
        silent = True
        with contextlib.closing(written) as tokens:
            for window in windows(frames(tokens), self._most_frames):
                silent = False
                samples = self._decoded(window, due, check)
                due += len(samples) / SAMPLE_RATE / speed
                yield samples
        if silent:
            raise EngineFailed("The model wrote no sound: it may be another model than the card says.")

    def _written(
        self, prompt: str, sampling: Sampling, most: int, check: Callable[[], None]
    ) -> Generator[int, None, None]:
        yield from self._tokens.tokens(prompt, sampling, most, check)

    def _decoded(self, window: Window, deadline: float, check: Callable[[], None]) -> Samples:
        future = self.lane.submit(window, key=len(window.frames), deadline=deadline)
        return awaited(future, check)

    def _decode(self, batch: Sequence[Window]) -> list[Samples]:
        rows = [levels(window.frames) for window in batch]
        codes = [torch.tensor([row[level] for row in rows], device=self._device) for level in range(len(rows[0]))]
        torch.manual_seed(0)  # the codec adds noise
        with torch.inference_mode():
            audio = self._codec.decode(codes).float().cpu().numpy()[:, 0]
        if not np.isfinite(audio).all():
            raise EngineFailed("The codec made noise that is no sound; its weights may be damaged.")
        return [
            np.clip(samples[window.first * FRAME_SAMPLES : window.last * FRAME_SAMPLES], -1.0, 1.0)
            for samples, window in zip(audio, batch, strict=True)
        ]


def _chunks(blocks: Iterator[Samples], check: Callable[[], None]) -> Iterator[SpeechChunk]:
    for samples in blocks:
        check()
        if len(samples):
            yield SpeechChunk(samples, SAMPLE_RATE)


def _load_codec(directory: Path) -> Any:
    """The codec of a directory. Raises: WeightsMissing, EngineFailed."""
    for name in ("config.json", "pytorch_model.bin"):
        if not (directory / name).is_file():
            raise WeightsMissing(f"The codec in {directory} has no {name}: pull it again.", field="model")
    try:
        with without_warnings():
            codec = SNAC.from_config(str(directory / "config.json"))
            codec.load_state_dict(torch.load(directory / "pytorch_model.bin", map_location="cpu", weights_only=True))
    except (KeyError, TypeError, RuntimeError) as error:
        raise EngineFailed(f"{directory} holds no SNAC codec: {error}") from error
    if codec.sampling_rate != SAMPLE_RATE or codec.vq_strides != CODEC_STRIDES:
        raise EngineFailed(f"The codec in {directory} is not the one that Orpheus was trained with.")
    return codec


def _codec_directory(card: Card, options: OrpheusOptions) -> Path:
    """Where the codec lies. Raises: WeightsMissing."""
    for directory in (Path(options.codec), Path(card.weights, "codec")):
        if directory.is_absolute() and directory.is_dir():
            return directory
    files = ("config.json", "pytorch_model.bin")
    return weights_directory(
        msgspec.structs.replace(card, id=options.codec, weights=options.codec, files=files), *files
    )


def load(card: Card) -> OrpheusSynthesizer:
    """Load the codec, and the model if it runs here, from a directory or the hub's cache; never from the network.

    Raises: WeightsMissing; EngineFailed; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, OrpheusOptions)
    import_torch(options.threads)
    codec = _codec_directory(card, options)
    tokens: Tokens
    if options.backend == "openai":
        tokens = UpstreamTokens(
            card, options.base_url, options.model, options.api_key_env, options.timeout, options.body
        )
    else:
        tokens = LocalTokens(weights_directory(card, "config.json"), options.device, options.dtype)
    return OrpheusSynthesizer(card, options, codec, tokens)
