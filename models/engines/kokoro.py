"""Kokoro-82M: a small model with some fifty voices, which speaks up to 510 phonemes in one pass.

The model of the `kokoro` package is loaded from a directory with `config.json`, one `*.pth` file and `voices/*.pt`.
A voice is a table of styles, one for each number of phonemes; a mix is their weighted mean. A pass makes all its audio
at its end and its length cannot be told before, so passes of all requests wait in one lane, those whose listeners have
the least left to hear first, and a pass that nobody waits for any more stops between two layers.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from models.catalog import Card
from models.errors import Cancelled, EngineFailed, InvalidInput, WeightsMissing
from models.interfaces import OnStep, Samples, SpeechChunk, SpeechRequest, Voice
from models.kokoro_phonemes import Phonemizers
from models.kokoro_text import Piece, passes, timings
from models.kokoro_voices import LANGUAGES, Part, describe, is_voice, parse_mix
from models.scheduling import BatchLane, awaited
from models.torch_runtime import import_torch, pick_device, weights_directory, without_warnings

torch = import_torch()
with without_warnings():
    KModel: Any = importlib.import_module("kokoro").KModel

SAMPLE_RATE = 24_000
SPEEDS = (0.25, 4.0)
CHUNK = SAMPLE_RATE // 4
"""Samples in one chunk."""
WARMING_UP = "hˈɛlˌO wˈɜɹld."


class KokoroOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card. `threads` 0 leaves torch's choice; `most_phonemes` is what a pass has at most."""

    device: str = "auto"
    threads: int = 0
    most_phonemes: int = 510

    def __post_init__(self) -> None:
        if not 1 <= self.most_phonemes <= 510:
            raise ValueError("most_phonemes must be between 1 and 510")


class Spoken(NamedTuple):
    """What a pass made: samples at 24 kHz, and for how many frames each token of it was held."""

    samples: Samples
    frames: list[int]


@dataclass(frozen=True, slots=True)
class Pass:
    """Phonemes to speak in a style (shape (1, 256)); `abandoned` once nobody wants to hear them."""

    phonemes: str
    style: Any
    speed: float
    abandoned: threading.Event = field(default_factory=threading.Event)


class KokoroSynthesizer:
    """Implements SpeechSynthesizer. Any thread may call it; one pass is made at a time."""

    def __init__(self, directory: Path, card: Card, options: KokoroOptions) -> None:
        self._card = card
        self._most = options.most_phonemes
        self._device = pick_device(options.device)
        self._model = _load_model(directory).to(self._device).eval()
        self._symbols = frozenset(self._model.vocab)
        self._stop_between_layers()
        self._files = {path.stem: path for path in sorted((directory / "voices").glob("*.pt")) if is_voice(path.stem)}
        if card.default_voice not in self._files:
            raise WeightsMissing(
                f"Model {card.id!r} has no voice {card.default_voice!r}: pull it again.", field="model"
            )
        self._styles: dict[str, Any] = {}
        self._phonemizers = Phonemizers()
        self._running: Pass | None = None
        self.lane = BatchLane[Pass, Spoken](self._run, max_batch=1, capacity=4096, name="kokoro")
        self._warm_up()

    def voices(self) -> list[Voice]:
        """Every voice there is a file of; mixes of them are voices too."""
        return [describe(name) for name in self._files]

    def synthesize(self, request: SpeechRequest, on_step: OnStep) -> Generator[SpeechChunk, None, None]:
        """Yield chunks of at most 250 ms; nothing at all for blank text. `on_step` counts characters.

        Raises: InvalidInput (text, voice, language, speed) at once; EngineFailed; Cancelled from `on_step`.
        """
        limit = self._card.max_input_chars
        if len(request.text) > limit:
            raise InvalidInput(f"The text has {len(request.text)} characters; {limit} is the most.", field="text")
        if not SPEEDS[0] <= request.speed <= SPEEDS[1]:
            raise InvalidInput(f"speed must be between {SPEEDS[0]} and {SPEEDS[1]}.", field="speed")
        mix = parse_mix(request.voice or self._card.default_voice, self._files)
        pieces = self._phonemizers.pieces(request.text, _language(mix, request.language))
        rows = list(passes(pieces, self._symbols, self._most))
        return self._speak(rows, self._mixed(mix), request.speed, on_step, len(request.text))

    def _speak(
        self, rows: Sequence[list[Piece]], styles: Any, speed: float, on_step: OnStep, length: int
    ) -> Generator[SpeechChunk, None, None]:
        due = time.monotonic()
        said, done = 0.0, 0
        for row in rows:
            phonemes = "".join(piece.phonemes for piece in row)
            spoken = self._wait(Pass(phonemes, styles[len(phonemes) - 1], speed), due + said, on_step, done, length)
            words = timings(row, spoken.frames, said)
            for start in range(0, len(spoken.samples), CHUNK):
                samples = spoken.samples[start : start + CHUNK]
                heard = said + (start + len(samples)) / SAMPLE_RATE
                last = start + CHUNK >= len(spoken.samples)
                ended = [word for word in words if last or word.end <= heard]
                words = words[len(ended) :]
                done = max(done, ended[-1].end_char) if ended else done
                on_step(done, length)
                yield SpeechChunk(samples, SAMPLE_RATE, tuple(ended))
            said += len(spoken.samples) / SAMPLE_RATE
        on_step(length, length)

    def _wait(self, item: Pass, deadline: float, on_step: OnStep, done: int, length: int) -> Spoken:
        """What the pass makes. Raises: Cancelled from `on_step`; EngineFailed."""
        on_step(done, length)
        future: Future[Spoken] = self.lane.submit(item, deadline=deadline)
        try:
            return awaited(future, lambda: on_step(done, length))
        finally:
            item.abandoned.set()

    def _run(self, items: Sequence[Pass]) -> list[Spoken]:
        (item,) = items
        self._running = item
        # The excitation is part noise: with one seed the same words sound the same again.
        torch.manual_seed(0)
        try:
            with torch.inference_mode():
                output = self._model(item.phonemes, item.style, speed=item.speed, return_output=True)
        finally:
            self._running = None
        samples = output.audio.float().numpy()
        if not np.isfinite(samples).all():
            raise EngineFailed("The model made noise that is no sound; its weights may be damaged.")
        return [Spoken(np.clip(samples, -1.0, 1.0), output.pred_dur.tolist())]

    def _stop_between_layers(self) -> None:
        """A pass of half a minute of audio takes seconds on a CPU: too long for others to wait for nothing."""

        def check(module: object, inputs: object) -> None:
            if self._running is not None and self._running.abandoned.is_set():
                raise Cancelled("Nobody waits for this pass any more.")

        for module in self._model.modules():
            if isinstance(module, torch.nn.Conv1d | torch.nn.ConvTranspose1d | torch.nn.LSTM):
                module.register_forward_pre_hook(check)

    def _mixed(self, mix: Sequence[Part]) -> Any:
        """The styles of a mix, shape (510, 1, 256)."""
        mixed = sum(part.share * self._style(part.name) for part in mix)
        return mixed if len(mix) > 1 else self._style(mix[0].name)

    def _style(self, name: str) -> Any:
        if name not in self._styles:
            self._styles[name] = torch.load(self._files[name], map_location="cpu", weights_only=True).float()
        return self._styles[name]

    def _warm_up(self) -> None:
        """The first pass of a process is slow, and so is the first text of a language."""
        mix = parse_mix(self._card.default_voice, self._files)
        self._phonemizers.pieces("Hello, world.", _language(mix, ""))
        symbols = "".join(symbol for symbol in WARMING_UP if symbol in self._symbols)
        self.lane.submit(Pass(symbols, self._mixed(mix)[len(symbols) - 1], 1.0)).result()


def _language(mix: Sequence[Part], asked: str) -> str:
    """The tag of the language to speak: the first voice's, unless another is asked for."""
    own = LANGUAGES[mix[0].name[0]][1]
    tag = asked.strip().lower().replace("_", "-")
    return own[0] if not tag or any(tag == each.lower() for each in own) else asked


def _load_model(directory: Path) -> Any:
    """The model of a directory. Raises: WeightsMissing, EngineFailed."""
    weights = sorted(directory.glob("*.pth"))
    if len(weights) != 1:
        raise WeightsMissing(f"{directory} has {len(weights)} files *.pth; one is what a model has.", field="model")
    try:
        with without_warnings():
            return KModel(repo_id=directory.name, config=str(directory / "config.json"), model=str(weights[0]))
    except (KeyError, TypeError, RuntimeError, AssertionError) as error:
        raise EngineFailed(f"{weights[0].name} and config.json are no Kokoro model: {error}") from error


def load(card: Card) -> KokoroSynthesizer:
    """Load the model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; EngineFailed; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, KokoroOptions)
    directory = weights_directory(card, "config.json")
    import_torch(options.threads)
    return KokoroSynthesizer(directory, card, options)
