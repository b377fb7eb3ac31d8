"""What many readings of one quantity come down to."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

RESAMPLES = 2_000


class Summary(msgspec.Struct, frozen=True):
    """Order statistics of `n` readings."""

    n: int
    min: float
    median: float
    p95: float
    p99: float
    max: float


class Ratio(msgspec.Struct, frozen=True):
    """The median of paired ratios, and the 95 % confidence interval of that median."""

    median: float
    low: float
    high: float
    pairs: int


def summarize(readings: Sequence[float]) -> Summary:
    """Raises: ValueError when there are no readings."""
    if not len(readings):
        raise ValueError("there is nothing to summarize")
    low, median, p95, p99, high = np.percentile(readings, (0, 50, 95, 99, 100))
    return Summary(len(readings), float(low), float(median), float(p95), float(p99), float(high))


def paired_ratio(ours: Sequence[float], reference: Sequence[float], *, seed: int = 0) -> Ratio:
    """Compare readings taken in turns within one run, so that a slow moment of the machine slows both sides.

    The interval is the percentile bootstrap over the pairs (Efron 1979); `seed` makes it repeatable.
    Raises: ValueError when the sides differ in length, are empty, or a reference is not positive.
    """
    if len(ours) != len(reference) or not len(ours):
        raise ValueError("every reading needs its counterpart")
    if min(reference) <= 0:
        raise ValueError("a ratio needs a positive reference")
    ratios = np.asarray(ours, np.float64) / np.asarray(reference, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[draws], axis=1), (2.5, 97.5))
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))
