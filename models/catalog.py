"""The catalog: which models this server knows, what each can do, and which one a name means.

Cards are data (`catalog.toml`, then every `*.toml` of the user's models directory merged over it). Nothing
here imports an engine; whether one could run is told from its package being findable and its weights being
on disk.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from models.errors import UnknownModel, WeightsMissing

Task: TypeAlias = Literal["speech", "transcription", "diarization", "image", "video"]

AUTO = "auto"
"""The name that means: the best model of the task that can run on this machine."""

BUILT_IN = Path(__file__).with_name("catalog.toml")
INSTALLED_IN = Path(__file__).parents[1]
"""The directory that holds our packages."""


class CatalogError(ValueError):
    """A card file is wrong; the message names the file and the card."""


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model: who made it, what it can do, and how this machine may run it.

    `engine` is a module of `models.engines`, or the dotted path of any importable module with `load(card)`.
    `weights` is a model hub id or a local directory, empty when the engine carries its own; an embedded card's is
    relative to where this server is installed. `files` are patterns of those files of the hub that are pulled (none:
    those the engine usually reads). `requires` are
    the Python packages the engine imports and `extra` the install extra that brings them. An empty `voices`
    means the engine tells its voices once loaded. `openai_voices` maps OpenAI's voice names to this model's.

    Speech: a text that is spoken in pieces comes in pieces of at most `max_input_chars`. Numbers, dates and
    abbreviations are written out beforehand, unless the engine `normalizes` by itself. `voice_languages` maps the
    beginnings of voice ids to the languages they speak, for requests that name none; the first of `languages` is that
    of all others. It `takes_instructions` on how to speak, or they are ignored; so are `extra_params` not named here.

    Images: a size is one of `sizes` where there are any, else both sides are multiples of `size_multiple` and their
    product is from `min_pixels` to `max_pixels` (0: no bound). `default_size` and `default_steps` are what a request
    that names none gets; so is `default_guidance`. `generates` tells that it needs no image to start from; `edits` that
    it takes images, at most `max_input_images`; `inpaints` that it takes a mask; `max_loras` how many adapters it takes
    at once. A model without `negative_prompts` ignores them. `models.image_rules` applies all this.

    Videos: sizes, steps, guidance and adapters as of images. A clip has `min_frames` to `max_frames` frames, and their
    number is a multiple of `frame_multiple` and `frame_remainder` more (4k + 1: 4 and 1); it has `default_frames` at
    `default_fps` if nobody says. `frame_images` are the places where a frame may be given: "first", "last", "any"; at
    most `max_frame_images` of them. `max_reference_images` pictures may be referred to. `generates` tells that no image
    is needed. `models.video_rules` applies this.

    Running: `replicas` workers at most (never more than CPU cores when `cpu_bound`), `concurrency` requests
    at once in each, `queue` more may wait. `memory_mb` is one worker's share of the memory budget. After
    `idle_ttl` seconds without a request the workers stop (0: never); a request that has not stopped
    `cancel_grace` seconds after it was asked to costs its worker the life. `created` is the model's release
    in Unix seconds.
    """

    id: str
    task: Task
    engine: str
    name: str
    description: str = ""
    organization: str = ""
    link: str = ""
    license: str = ""
    created: int = 0
    aliases: tuple[str, ...] = ()
    deprecated: dict[str, str] = {}

    embedded: bool = False
    weights: str = ""
    files: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    extra: str = ""
    options: dict[str, Any] = {}

    languages: tuple[str, ...] = ()
    sample_rate: int = 16_000
    voices: tuple[str, ...] = ()
    default_voice: str = ""
    openai_voices: dict[str, str] = {}
    voice_languages: dict[str, str] = {}
    normalizes: bool = False
    takes_instructions: bool = False
    extra_params: tuple[str, ...] = ()
    word_timestamps: bool = False
    live: bool = False
    translates: bool = False
    max_input_chars: int = 4096
    price_per_million_characters: float | None = None
    price_per_audio_minute: float | None = None

    sizes: tuple[tuple[int, int], ...] = ()
    default_size: tuple[int, int] = (1024, 1024)
    size_multiple: int = 8
    min_pixels: int = 0
    max_pixels: int = 0
    max_n: int = 4
    default_steps: int = 20
    max_steps: int = 50
    default_guidance: float = 0.0
    negative_prompts: bool = False
    generates: bool = True
    edits: bool = False
    inpaints: bool = False
    max_input_images: int = 1
    max_loras: int = 0
    price_per_image: float | None = None

    frame_multiple: int = 1
    frame_remainder: int = 0
    min_frames: int = 1
    max_frames: int = 0
    default_frames: int = 0
    default_fps: int = 0
    frame_images: tuple[Literal["first", "last", "any"], ...] = ()
    max_frame_images: int = 2
    max_reference_images: int = 0
    price_per_video_second: float | None = None

    memory_mb: int = 0
    cpu_bound: bool = False
    replicas: int = 1
    concurrency: int = 1
    queue: int = 32
    idle_ttl: float = 600.0
    cancel_grace: float = 2.0

    def __post_init__(self) -> None:
        if min(self.replicas, self.concurrency) < 1 or min(self.queue, self.idle_ttl, self.cancel_grace) < 0:
            raise ValueError("replicas and concurrency must be at least 1; queue, idle_ttl and cancel_grace at least 0")
        if self.task == "video":
            self._check_frames()

    def _check_frames(self) -> None:
        """Raises: ValueError for rules that its own default breaks."""
        if self.default_fps < 1 or not 1 <= self.min_frames <= self.default_frames <= self.max_frames:
            raise ValueError("a video model has default_fps, and default_frames from min_frames to max_frames")
        if (self.default_frames - self.frame_remainder) % self.frame_multiple:
            raise ValueError("default_frames must keep the rule of frame_multiple and frame_remainder")

    def language_of(self, voice: str) -> str:
        """The language a voice of this model speaks, as far as the card tells; empty when it does not."""
        beginnings = [beginning for beginning in self.voice_languages if voice.startswith(beginning)]
        return self.voice_languages[max(beginnings, key=len)] if beginnings else next(iter(self.languages), "")

    @property
    def engine_module(self) -> str:
        """The importable module that has `load(card)`."""
        return self.engine if "." in self.engine else f"models.engines.{self.engine}"


class Resolution(NamedTuple):
    """The card a name means, and what to tell a caller who used a name that is going away."""

    card: Card
    deprecation: str | None = None


class Catalog:
    """Every card, and the names that lead to them."""

    def __init__(self, cards: Iterable[Card], *, installed: Callable[[Card], bool] | None = None) -> None:
        """`installed` tells whether a card's weights are on this machine.

        Raises CatalogError for a name used twice.
        """
        self.cards = tuple(cards)
        self._installed = installed or weights_present
        self._named: dict[str, Resolution] = {}
        self._missing: dict[str, str | None] = {}
        for card in self.cards:
            for name in (card.id, *card.aliases):
                self._name(name, Resolution(card))
            for name, message in card.deprecated.items():
                self._name(name, Resolution(card, message))
        self.refresh()

    @classmethod
    def load(cls, models_dir: Path | None = None, installed: Callable[[Card], bool] | None = None) -> Catalog:
        """Read the built-in cards and merge the `*.toml` files of `models_dir` over them, in order of name.

        A card with a known id changes only the fields it names; a new id is a new card, preferred over the
        built-in ones. Raises CatalogError.
        """
        tables = _read(BUILT_IN)
        for path in sorted(models_dir.glob("*.toml")) if models_dir else ():
            own = _read(path)
            fresh = {id: table for id, table in own.items() if id not in tables}
            tables = fresh | {id: table | own.get(id, {}) for id, table in tables.items()}
        return cls((_card(id, table) for id, table in tables.items()), installed=installed)

    def find(self, name: str, task: Task) -> Resolution:
        """The card called `name` (id, alias or deprecated name; case does not matter), ready to be leased.

        Raises UnknownModel, with near names, when there is none for this task; WeightsMissing when it cannot
        run here.
        """
        if name in ("", AUTO):
            return Resolution(self.auto(task))
        found = self._named.get(name.casefold())
        if found is None:
            raise UnknownModel(f"There is no {task} model {name!r}.{self._suggestion(name, task)}", field="model")
        if found.card.task != task:
            raise UnknownModel(
                f"{name!r} is a {found.card.task} model, not a {task} model.{self._suggestion(name, task)}",
                field="model",
            )
        if missing := self.missing(found.card):
            raise WeightsMissing(missing, field="model")
        return found

    def describe(self, name: str) -> Card:
        """The card called `name`, of whatever task, whether it can run here or not. Raises UnknownModel."""
        found = self._named.get(name.casefold())
        if found is None:
            tasks: tuple[Task, ...] = ("speech", "transcription")
            hint = next((near for task in tasks if "mean" in (near := self._suggestion(name, task))), "")
            raise UnknownModel(f"There is no model {name!r}.{hint}", field="model")
        return found.card

    def auto(self, task: Task) -> Card:
        """The first card of the task whose engine is installed and whose weights are here.

        Raises UnknownModel.
        """
        for card in self.cards:
            if card.task == task and self.missing(card) is None:
                return card
        raise UnknownModel(f"No {task} model can run on this machine.", field="model")

    def refresh(self) -> None:
        """Look again at what is on this machine. Reads the disk: call it from a thread once the server runs."""
        self._missing = {card.id: self._look_for(card) for card in self.cards}

    def missing(self, card: Card) -> str | None:
        """Why this card cannot run here, as of the last look, and how to change that; None when it can."""
        return self._missing[card.id]

    def _look_for(self, card: Card) -> str | None:
        absent = [package for package in card.requires if not _importable(package)]
        if absent:
            extra = f"'sonoreel[{card.extra}]'" if card.extra else " ".join(absent)
            return f"Model {card.id!r} needs {', '.join(absent)}. Install it with: pip install {extra}"
        if not _importable(card.engine_module):
            return f"Model {card.id!r} needs the engine module {card.engine_module}, which is not installed."
        if not self._installed(card):
            if card.embedded:
                return f"Model {card.id!r} is missing from this server: pip install --force-reinstall sonoreel"
            return f"Model {card.id!r} has no weights on this machine. Get them: sonoreel models pull {card.id}"
        return None

    def _name(self, name: str, resolution: Resolution) -> None:
        taken = self._named.setdefault(name.casefold(), resolution)
        if taken is not resolution or name == AUTO:
            raise CatalogError(f"card {resolution.card.id!r}: the name {name!r} is taken by {taken.card.id!r}")

    def _suggestion(self, name: str, task: Task) -> str:
        names = {key: found.card.id for key, found in self._named.items() if found.card.task == task}
        near = difflib.get_close_matches(name.casefold(), names, n=3, cutoff=0.5)
        if near:
            return f" Did you mean {', '.join(dict.fromkeys(names[key] for key in near))}?"
        return f" Known: {', '.join(dict.fromkeys(names.values()))}." if names else ""


def weights_present(card: Card) -> bool:
    """Whether a card's weights are in the directory it names, or in this machine's cache of the model hub."""
    if not card.weights:
        return True
    if os.path.isabs(card.weights):
        return Path(card.weights).exists()
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    repository = hub / f"models--{card.weights.replace('/', '--')}"
    # A download that was broken off leaves small files whole and a large one incomplete.
    return any(repository.glob("snapshots/*/*")) and not any(repository.glob("blobs/*.incomplete"))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The card tables of one file by id, in the file's order."""
    try:
        document = msgspec.toml.decode(path.read_bytes(), type=dict[str, list[dict[str, Any]]])
        return {table["id"]: table for table in document.get("card", [])}
    except msgspec.DecodeError as error:
        raise CatalogError(f"{path}: {error}") from error
    except KeyError as error:
        raise CatalogError(f"{path}: a [[card]] without id") from error


def _card(id: str, table: dict[str, Any]) -> Card:
    try:
        card = msgspec.convert(table, Card)
    except msgspec.ValidationError as error:
        raise CatalogError(f"card {id!r}: {error}") from error
    if card.cpu_bound:
        card = msgspec.structs.replace(card, replicas=min(card.replicas, _cpu_cores()))
    if card.embedded and card.weights:
        card = msgspec.structs.replace(card, weights=str(INSTALLED_IN / card.weights))
    return card


def _cpu_cores() -> int:
    """Cores this process may use: an affinity mask (containers, taskset) counts, where the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package of a dotted path is absent
        return False
