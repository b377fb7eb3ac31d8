from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models.engines.image_conformance import noise_image
from tests.models.engines.video_engines import card_of, engine_of
from tests.models.tiny_video import build_video


@pytest.fixture(scope="session")
def video_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a video family's pipeline, made when it is first asked for."""
    base = tmp_path_factory.mktemp("video")
    return functools.cache(lambda family: build_video(family, base / family))


@pytest.fixture(scope="session")
def video_engine(video_weights: Callable[[str], Path]) -> Callable[[str], Any]:
    """The engine of a video family, for tests that leave it as it was."""
    return functools.cache(lambda family: engine_of(card_of(video_weights(family))))


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """Two files of 64 x 64 pixels of noise."""
    return [noise_image(tmp_path / f"{seed}.png", (64, 64), seed) for seed in range(2)]
