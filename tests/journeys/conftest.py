"""One server for all journeys that leave it as they found it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from tests.journeys.server_process import ServerProcess, running_server
from tests.models.tiny_whisper import tiny_whisper

TINY = """
[[card]]
id = "{id}"
task = "transcription"
engine = "whisper"
name = "Tiny Whisper"
weights = "{weights}"
translates = true
word_timestamps = true
concurrency = 8
cpu_bound = true
options = {{ {options} }}
"""
TRUSTING = "log_prob_threshold = -inf, compression_ratio_threshold = inf, cut_loops = false, beam_size = 1, threads = 1"
"""Random weights write nothing that should be trusted; with these, their first attempt is taken."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A ready server on the embedded engines, shared by the whole run."""
    with running_server(tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="session")
def whisper_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the tiny Whisper, as it is, without batches, and with thresholds that its text never reaches."""
    if not all(map(importlib.util.find_spec, ("faster_whisper", "torch", "transformers"))):
        pytest.skip("faster-whisper, and torch and transformers to make a model, are not installed")
    weights = tiny_whisper(tmp_path_factory.getbasetemp())
    folder = tmp_path_factory.mktemp("whisper-server")
    options = {
        "random": TRUSTING,
        "random-unbatched": f"{TRUSTING}, batch_size = 1",
        "random-strict": "beam_size = 1, threads = 1",
    }
    cards = folder / "cards"
    cards.mkdir()
    (cards / "tiny.toml").write_text(
        "".join(TINY.format(id=id, weights=weights, options=each) for id, each in options.items())
    )
    warm = {"SONOREEL_WARM": "espeak-ng,random", "SONOREEL_MODELS_DIR": str(cards)}
    with running_server(folder / "data", **warm) as server:
        yield server
