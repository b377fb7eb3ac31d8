"""Voxtral Realtime through transformers: words of thirteen languages while they are spoken, some tokens late.

It hears 80 ms at a time, finds the language by itself, takes no prompt and does not translate.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import msgspec

from models.catalog import Card
from models.streaming_native import StreamingRecogniser
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings
from models.voxtral_stream import RealtimeModel, RealtimeStream

import_torch()
with without_warnings():
    transformers: Any = importlib.import_module("transformers")  # typed in parts only


class VoxtralRealtimeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card; "auto" is chosen here, `dtype` is the name of a torch type."""

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0


def load(card: Card) -> StreamingRecogniser:
    """Load the model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; msgspec.ValidationError for options that do not exist.
    """
    options = msgspec.convert(card.options, VoxtralRealtimeOptions)
    directory = weights_directory(card, "config.json", "preprocessor_config.json", "tekken.json")
    import_torch(options.threads)
    device = pick_device(options.device)
    with without_warnings():
        processor = transformers.VoxtralRealtimeProcessor.from_pretrained(directory, local_files_only=True)
        model = transformers.VoxtralRealtimeForConditionalGeneration.from_pretrained(
            directory, local_files_only=True, dtype=pick_dtype(device, options.dtype)
        )
    stream = partial(RealtimeStream, RealtimeModel(model.to(device).eval(), processor))
    return StreamingRecogniser(card.languages, stream, stream, "voxtral-realtime")
