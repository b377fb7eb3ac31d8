"""Nemotron's streaming recognisers through transformers: a cache-aware FastConformer in front of a transducer.

The model hears chunks of 80 ms to 1.1 s. It takes no prompt and does not translate.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import msgspec

from models.cache_aware_stream import CacheAwareModel, CacheAwareStream
from models.catalog import Card
from models.errors import EngineFailed
from models.streaming_native import StreamingRecogniser
from models.torch_runtime import import_torch, pick_device, pick_dtype, weights_directory, without_warnings

import_torch()
with without_warnings():
    transformers: Any = importlib.import_module("transformers")  # typed in parts only


class NemotronOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`options` of a card; "auto" is chosen here, `dtype` is the name of a torch type.

    `lookahead` is how many frames of 80 ms the model looks ahead in live turns, which is how late its words are;
    `recording_lookahead` that in recordings, where more is better. -1 is the most that it was trained to.
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    lookahead: int = 1
    recording_lookahead: int = -1


def load(card: Card) -> StreamingRecogniser:
    """Load the model in the directory, or of the hub id, that the card names; never from the network.

    Raises: WeightsMissing; EngineFailed for a lookahead that the model was not trained to; msgspec.ValidationError for
    options that do not exist.
    """
    options = msgspec.convert(card.options, NemotronOptions)
    directory = weights_directory(card, "config.json", "processor_config.json")
    import_torch(options.threads)
    device = pick_device(options.device)
    with without_warnings():
        processor = transformers.AutoProcessor.from_pretrained(directory, local_files_only=True)
        model = transformers.NemotronAsrStreamingForRNNT.from_pretrained(
            directory, local_files_only=True, dtype=pick_dtype(device, options.dtype)
        )
    known = CacheAwareModel(model.to(device).eval(), processor)
    turn, passage = (_lookahead(known, each) for each in (options.lookahead, options.recording_lookahead))
    return StreamingRecogniser(
        card.languages, partial(CacheAwareStream, known, turn), partial(CacheAwareStream, known, passage), "nemotron"
    )


def _lookahead(model: CacheAwareModel, wanted: int) -> int:
    if wanted == -1:
        return max(model.lookaheads)
    if wanted not in model.lookaheads:
        raise EngineFailed(f"The model was trained to look {sorted(model.lookaheads)} frames ahead, not {wanted}.")
    return wanted
