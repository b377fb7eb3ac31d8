"""Weights from the model hub, into this machine's cache of it, where the engines look for them.

The one place that talks to the hub: servers and workers never do.
"""

from __future__ import annotations

import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from models.catalog import Card

ANSWER_SECONDS = 5.0
"""How long the hub may take to say what it has, before it counts as out of reach."""
FILES: dict[str, tuple[str, ...]] = {
    "whisper": ("model.bin", "config.json", "tokenizer.json", "vocabulary.*", "preprocessor_config.json"),
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


def pull(weights: Weights) -> Pulled:
    """Get what is not here yet, with bars on standard error where that is a terminal. Blocks; may be taken up again.

    Out of reach of the hub, what is here completely counts as pulled. Raises: PullFailed.
    """
    if find_spec("huggingface_hub") is None:
        package = f"'sonoreel[{weights.extra}]'" if weights.extra else "huggingface_hub"
        raise PullFailed(f"pulling weights needs the package huggingface_hub. Install it with: pip install {package}")
    if token := os.environ.get("SONOREEL_HF_TOKEN"):
        os.environ["HF_TOKEN"] = token  # read when the package is imported
    hub: Any = importlib.import_module("huggingface_hub")
    importlib.import_module("huggingface_hub.utils.logging").set_verbosity_error()
    here = _complete(hub, weights)
    try:
        # The download itself would wait for an answer for as long as the network lets it.
        hub.HfApi().model_info(weights.repository, timeout=ANSWER_SECONDS)
        folder = Path(_download(hub, weights))
    except Exception as error:  # whatever HTTP library the hub's client uses raises its own
        if here is not None and not isinstance(error, hub.errors.RepositoryNotFoundError):
            return Pulled(here, fresh=False)
        raise PullFailed(_reason(hub, weights.repository, error)) from error
    if not any(folder.glob("*")):
        raise PullFailed(f"{weights.repository} has none of the files {', '.join(weights.files)}")
    return Pulled(folder, fresh=folder != here)


def _complete(hub: Any, weights: Weights) -> Path | None:
    """The folder of the newest version that this machine knows, when all of it is here."""
    try:
        folder = Path(_download(hub, weights, local_files_only=True))
    except (OSError, ValueError):
        return None
    unfinished = folder.parents[1].glob("blobs/*.incomplete")
    return None if any(unfinished) or not any(folder.glob("*")) else folder


def _download(hub: Any, weights: Weights, **how: Any) -> str:
    folder: str = hub.snapshot_download(
        weights.repository,
        allow_patterns=list(weights.files) or None,
        ignore_patterns=None if weights.files else list(OTHER_FRAMEWORKS),
        **how,
    )
    return folder


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
