"""Adapters of image and video models."""

from __future__ import annotations

import msgspec


class LoraWeights(msgspec.Struct, frozen=True):
    """An adapter: a file or directory on this machine, or a hub id whose files are in its cache; and how strong."""

    path: str
    scale: float = 1.0
