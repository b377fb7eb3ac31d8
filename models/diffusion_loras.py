"""LoRAs of a pipeline: loaded when they are first asked for, switched between requests, the longest unused dropped.

Only safetensors files are read: other formats may run code. Adapters sit in the modules that all pipelines of a model
share, so whichever pipeline runs has them.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

from models.errors import InvalidInput
from models.lora_weights import LoraWeights

USUAL_NAME = "pytorch_lora_weights.safetensors"
LONGEST_HEADER = 100 * 2**20


class Adapters:
    """Keeps at most `most` adapters loaded, never fewer than a request uses."""

    def __init__(self, pipe: Any, most: int) -> None:
        self._pipe = pipe
        self._most = most
        self._loaded: OrderedDict[Hashable, str] = OrderedDict()
        self._numbers = itertools.count()
        self._on = False

    @property
    def loaded(self) -> int:
        """How many adapters are in memory."""
        return len(self._loaded)

    def select(self, loras: Sequence[LoraWeights]) -> Hashable:
        """Make these, and no others, part of the model. Returns what names them, scales included.

        Raises: InvalidInput when one is not on this machine, is no LoRA or is one of another model.
        """
        keys = [_key(file) for file in map(find_lora, loras)]
        for key in keys:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            else:
                self._load(key)
        self._drop(most=max(self._most, len(keys)))
        if keys and not self._on:
            self._pipe.enable_lora()
        if keys:
            names = [self._loaded[key] for key in keys]
            self._pipe.set_adapters(names, [lora.scale for lora in loras])
        elif self._on:
            self._pipe.disable_lora()
        self._on = bool(keys)
        return tuple((key, lora.scale) for key, lora in zip(keys, loras, strict=True))

    def _load(self, key: tuple[str, int]) -> None:
        file = Path(key[0])
        name = f"lora{next(self._numbers)}"
        # Wan 2.2 has two networks, one after the other in a clip's steps: what changes one changes both.
        places: list[dict[str, Any]] = [{}]
        if getattr(self._pipe, "transformer_2", None) is not None:
            places.append({"load_into_transformer_2": True})
        try:
            for place in places:
                self._pipe.load_lora_weights(
                    str(file.parent),
                    weight_name=file.name,
                    adapter_name=name,
                    local_files_only=True,
                    use_safetensors=True,
                    **place,
                )
        except (ValueError, KeyError, RuntimeError, IndexError, AttributeError) as error:
            if type(error).__name__ == "OutOfMemoryError":
                raise
            self._pipe.delete_adapters(name)  # whatever fitted
            raise InvalidInput("The LoRA does not fit this model.", field="loras") from error
        if not any(name in names for names in self._pipe.get_list_adapters().values()):
            raise InvalidInput("The LoRA has no weights for this model.", field="loras")
        self._loaded[key] = name
        self._on = True  # what is loaded is in use at once

    def _drop(self, most: int) -> None:
        while len(self._loaded) > most:
            _, name = self._loaded.popitem(last=False)
            self._pipe.delete_adapters(name)


def find_lora(lora: LoraWeights) -> Path:
    """The file of a LoRA: itself, the one in a directory, or the one of a hub id in this machine's cache.

    Raises: InvalidInput.
    """
    place = Path(lora.path) if os.path.isabs(lora.path) else _cached(lora.path)
    if place.is_dir():
        files = sorted(place.glob("*.safetensors"))
        usual = [file for file in files if file.name == USUAL_NAME]
        if len(usual or files) != 1:
            raise InvalidInput("That LoRA has no file, or several and none with the usual name.", field="loras")
        place = (usual or files)[0]
    if not _is_safetensors(place):
        raise InvalidInput("That LoRA is not on this machine, or no safetensors file.", field="loras")
    return place


def _cached(id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(id, local_files_only=True, allow_patterns=["*.safetensors"]))
    except (HFValidationError, OSError) as error:
        message = f"There is no LoRA {id!r} on this machine. Get it: sonoreel models pull {id}"
        raise InvalidInput(message, field="loras") from error


def _key(file: Path) -> tuple[str, int]:
    """A file's path, and its time, for it may be replaced."""
    return str(file), file.stat().st_mtime_ns


def _is_safetensors(file: Path) -> bool:
    """Whether a file begins as one: with the length of a JSON object, and that."""
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError:
        return False
    return len(head) == 9 and struct.unpack("<Q", head[:8])[0] <= LONGEST_HEADER and head[8:] == b"{"
