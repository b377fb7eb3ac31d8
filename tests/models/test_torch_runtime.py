"""What torch's engines are started with; torch itself is met in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from models.catalog import Card
from models.errors import WeightsMissing
from models.torch_runtime import QUIET, quiet_environment, weights_directory

ROOT = Path(__file__).parents[2]


def card_of(weights: str) -> Card:
    fields = {"id": "some-model", "task": "diarization", "engine": "x", "name": "x", "weights": weights}
    return msgspec.convert(fields, Card)


def test_importing_it_loads_no_library() -> None:
    program = "import sys, models.torch_runtime; print('torch' in sys.modules, 'huggingface_hub' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_nothing_is_reported_or_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*QUIET, "HF_TOKEN"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SONOREEL_HF_TOKEN", "hf_secret")
    quiet_environment()
    assert {name: os.environ[name] for name in QUIET} == QUIET
    assert os.environ["PYANNOTE_METRICS_ENABLED"] == "0"
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_TOKEN"] == "hf_secret"


def test_a_local_directory_must_hold_what_the_engine_needs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert weights_directory(card_of(str(tmp_path)), "config.yaml") == tmp_path
    with pytest.raises(WeightsMissing, match=r"plda\.npz"):
        weights_directory(card_of(str(tmp_path)), "config.yaml", "plda.npz")


@pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="huggingface_hub is not installed")
def test_a_hub_id_is_looked_for_in_the_cache_alone(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/models--some--model/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.yaml").touch()
    (tmp_path / "hub/models--some--model/refs").mkdir()
    (tmp_path / "hub/models--some--model/refs/main").write_text("abc")
    program = (
        "import sys; from tests.models.test_torch_runtime import card_of; from models.torch_runtime import *\n"
        "print(weights_directory(card_of('some/model'), 'config.yaml').name)\n"
        "try: weights_directory(card_of('some/other'))\n"
        "except WeightsMissing as error: print(error.message)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"HF_HUB_CACHE": str(tmp_path / "hub"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    found, missing = run.stdout.splitlines()
    assert found == "abc"
    assert missing.endswith("sonoreel models pull some-model")


@pytest.mark.skipif(not importlib.util.find_spec("torchaudio"), reason="torchaudio is not installed")
def test_torchaudio_can_be_imported_and_the_threads_are_those_asked_for() -> None:
    program = (
        "from models.torch_runtime import import_torch, pick_device, pick_dtype\n"
        "torch = import_torch(1)\n"
        "import torchaudio\n"
        "print(torch.get_num_threads(), pick_device('cpu'), pick_dtype('cpu'), pick_dtype('cpu', 'float32'))"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "cpu", "torch.bfloat16", "torch.float32"]
