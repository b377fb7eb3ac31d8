"""What every engine on PyTorch needs done first, in the one order that works. Importing this imports none of it.

An engine calls `import_torch` before it imports anything that is built on torch; the rest follows from that.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from models.catalog import Card
from models.errors import EngineFailed, WeightsMissing

QUIET = {
    "PYANNOTE_METRICS_ENABLED": "0",  # on by default: it reports every file's length to its maker
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_OFFLINE": "1",  # a worker never waits for a network; `sonoreel models pull` fetches weights
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Environment of a worker. The libraries read it when they are imported, and never again."""


def quiet_environment() -> None:
    """No telemetry, no downloads, no progress bars. SONOREEL_HF_TOKEN, where set, becomes the hub's token."""
    os.environ.update(QUIET)
    if token := os.environ.get("SONOREEL_HF_TOKEN"):
        os.environ["HF_TOKEN"] = token


def import_torch(threads: int = 0) -> Any:
    """The torch module, with the environment quiet and torchaudio importable. `threads` 0 leaves torch's choice."""
    quiet_environment()
    import torch

    if torch.version.cuda is None:
        _stand_in_for_torchaudio_extension()
    if threads:
        torch.set_num_threads(threads)
    return torch


def _stand_in_for_torchaudio_extension() -> None:
    """torchaudio's wheels are linked against CUDA: without it they fail on import, and take transformers with them.

    What is used of torchaudio (resampling, filter banks) is Python on top of torch and does not miss the extension.
    """
    if "torchaudio" in sys.modules or "torchaudio._extension" in sys.modules:
        return
    extension, loading = ModuleType("torchaudio._extension"), ModuleType("torchaudio._extension.utils")
    extension.__path__ = []
    extension.__dict__.update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        fail_if_no_align=lambda function: function,
        utils=loading,
    )
    loading.__dict__.update(_check_cuda_version=lambda: None, _load_lib=lambda library: False)
    sys.modules |= {extension.__name__: extension, loading.__name__: loading}


@contextmanager
def without_warnings() -> Iterator[None]:
    """For imports and calls that warn of what is neither news nor ours to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def pick_device(wanted: str = "auto") -> str:
    """`wanted`, or the first CUDA device if there is one, else the CPU. Raises: EngineFailed when it is not there."""
    torch = import_torch()
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise EngineFailed(f"This machine has no device {wanted!r}.")
    return wanted


def pick_dtype(device: str, wanted: str = "auto") -> Any:
    """`wanted` by name, or bfloat16, which CUDA devices before Ampere lack: float16 there."""
    torch = import_torch()
    if wanted == "auto":
        old = device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = "float16" if old else "bfloat16"
    return getattr(torch, wanted)


def weights_directory(card: Card, *files: str) -> Path:
    """The directory of a card's weights: a local one, or the hub's as it lies in this machine's cache.

    Raises: WeightsMissing when it, or one of `files` in it, is not there.
    """
    quiet_environment()
    directory = Path(card.weights) if os.path.isabs(card.weights) else _cached(card, files)
    for name in files:
        if not (directory / name).is_file():
            raise WeightsMissing(f"The weights of {card.id!r} have no {name}: pull them again.", field="model")
    return directory


def _cached(card: Card, files: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    # Only what an engine reads is pulled: the hub's client takes the rest for missing unless it is told.
    wanted = [*card.files, *files] or None
    try:
        return Path(snapshot_download(card.weights, local_files_only=True, allow_patterns=wanted))
    except OSError as error:  # the hub's "not in the cache" is one
        message = f"Model {card.id!r} has no weights on this machine. Get them: sonoreel models pull {card.id}"
        raise WeightsMissing(message, field="model") from error
