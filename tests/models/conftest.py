from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fake_clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO that scripted engines wait at until it is opened for writing and closed."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path
