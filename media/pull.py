"""Weights from the model hub, into this machine's cache of it, where the engines look for them.

The one place that talks to the hub: servers and workers never do.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from models.catalog import Card

ANSWER_SECONDS = 5.0
"""How long the hub may take to say what it has, before it counts as out of reach."""
LOOK_SECONDS = 0.2
"""Between two looks at how much has come."""
FILES: dict[str, tuple[str, ...]] = {
    "whisper": ("model.bin", "config.json", "tokenizer.json", "vocabulary.*", "preprocessor_config.json"),
    "voxtral": ("*.json", "model*.safetensors"),  # not the copy of the weights in its maker's own layout
}
"""Engine -> the files of a repository that it reads, as patterns; of others all are pulled."""
OTHER_FRAMEWORKS = ("*.h5", "*.msgpack", "*.ot")
"""Copies of the weights for TensorFlow, Flax and Rust."""


class PullFailed(Exception):
    """The weights did not come; the message says why and what to do, in one line."""


class Weights(NamedTuple):
    """What to get: a hub id, patterns of its files (none: all of them), and the install extra that needs them."""

    repository: str
    files: tuple[str, ...] = ()
    extra: str = ""


class Pulled(NamedTuple):
    """Where weights lie, and whether any of them came just now."""

    folder: Path
    fresh: bool


def weights_of(card: Card) -> Weights | None:
    """What a card needs from the hub; None when that is nothing.

    Raises: PullFailed when the card names a directory that is not there.
    """
    if not card.weights:
        return None
    if os.path.isabs(card.weights):
        if not Path(card.weights).exists():
            raise PullFailed(f"the card {card.id!r} names the directory {card.weights}, which is not there")
        return None
    return Weights(card.weights, card.files or FILES.get(card.engine, ()), card.extra)


def pull(weights: Weights, on_progress: Callable[[int, int], None] = lambda done, total: None) -> Pulled:
    """Get what is not here yet. Blocks; an interrupted pull is taken up again by the next.

    `on_progress` is told, from a thread, how many bytes of how many are here. Out of reach of the hub, what is here
    completely counts as pulled. Raises: PullFailed.
    """
    if find_spec("huggingface_hub") is None:
        package = f"'sonoreel[{weights.extra}]'" if weights.extra else "huggingface_hub"
        raise PullFailed(f"pulling weights needs the package huggingface_hub. Install it with: pip install {package}")
    hub = _hub()
    here = _complete(hub, weights)
    try:
        # The download itself would wait for a first answer for as long as the network lets it.
        info = hub.HfApi().model_info(weights.repository, files_metadata=True, timeout=ANSWER_SECONDS)
        with _watched(hub, weights, info, on_progress):
            folder = Path(_download(hub, weights))
    except Exception as error:  # whatever HTTP library the hub's client uses raises its own
        if here is not None and not isinstance(error, hub.errors.RepositoryNotFoundError):
            return Pulled(here, fresh=False)
        raise PullFailed(_reason(hub, weights.repository, error)) from error
    if not any(folder.glob("*")):
        raise PullFailed(f"{weights.repository} has none of the files {', '.join(weights.files)}")
    for left_over in folder.parents[1].glob("blobs/*.incomplete"):  # of a version that is not wanted any more
        left_over.unlink(missing_ok=True)
    return Pulled(folder, fresh=folder != here)


def _hub() -> Any:
    """The hub's client, without its own bars and warnings. What it reads from the environment, it reads here."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if token := os.environ.get("SONOREEL_HF_TOKEN"):
        os.environ["HF_TOKEN"] = token
    importlib.import_module("huggingface_hub.utils.logging").set_verbosity_error()
    return importlib.import_module("huggingface_hub")


@contextmanager
def _watched(hub: Any, weights: Weights, info: Any, on_progress: Callable[[int, int], None]) -> Iterator[None]:
    """Tell how much has come, by what lies on the disk: the client's own bars differ from version to version."""
    paths = set(hub.utils.filter_repo_objects([file.rfilename for file in info.siblings], **_patterns(weights)))
    wanted = {
        (file.lfs.sha256 if file.lfs else file.blob_id): file.size or 0
        for file in info.siblings
        if file.rfilename in paths
    }
    total = sum(wanted.values())
    blobs = Path(hub.constants.HF_HUB_CACHE, f"models--{weights.repository.replace('/', '--')}", "blobs")
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_SECONDS):
            on_progress(min(total, _bytes_here(blobs, wanted)), total)

    thread = threading.Thread(target=watch)
    on_progress(min(total, _bytes_here(blobs, wanted)), total)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    on_progress(total, total)


def _bytes_here(blobs: Path, wanted: dict[str, int]) -> int:
    """A file that still comes is called like a complete one, with more behind a dot."""
    size = 0
    for name in os.listdir(blobs) if blobs.is_dir() else ():
        if name.partition(".")[0] in wanted:
            try:
                size += (blobs / name).stat().st_size
            except FileNotFoundError:  # it has just been completed
                size += wanted[name.partition(".")[0]]
    return size


def _complete(hub: Any, weights: Weights) -> Path | None:
    """The folder of the newest version that this machine knows, when all of it is here."""
    try:
        folder = Path(_download(hub, weights, local_files_only=True))
    except (OSError, ValueError):
        return None
    unfinished = folder.parents[1].glob("blobs/*.incomplete")
    return None if any(unfinished) or not any(folder.glob("*")) else folder


def _download(hub: Any, weights: Weights, **how: Any) -> str:
    folder: str = hub.snapshot_download(weights.repository, **_patterns(weights), **how)
    return folder


def _patterns(weights: Weights) -> dict[str, list[str]]:
    if weights.files:
        return {"allow_patterns": list(weights.files)}
    return {"ignore_patterns": list(OTHER_FRAMEWORKS)}


def _reason(hub: Any, repository: str, error: Exception) -> str:
    endpoint = hub.constants.ENDPOINT
    if isinstance(error, hub.errors.GatedRepoError):
        return f"{repository} wants its terms accepted first, on {endpoint}/{repository}; then set HF_TOKEN"
    if isinstance(error, hub.errors.RepositoryNotFoundError):
        return f"there is no model {repository} on {endpoint}, or none that you may see: set HF_TOKEN if it is private"
    if isinstance(error, hub.errors.HFValidationError):
        return f"{repository!r} is no id of the model hub: {error}"
    if isinstance(error, hub.errors.OfflineModeIsEnabled) or hub.constants.HF_HUB_OFFLINE:
        return f"{repository} is not on this machine, and HF_HUB_OFFLINE forbids getting it"
    if isinstance(error, hub.errors.HfHubHTTPError) and error.response is not None:
        return f"{endpoint} answered {error.response.status_code} for {repository}: try again later"
    first_line = (str(error) or type(error).__name__).splitlines()[0]
    return f"{repository} could not be pulled from {endpoint}: {first_line}"
