"""A wide Whisper writes what the small one writes that it was made of."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed"
)


def test_it_writes_what_the_small_one_does(tmp_path: Path) -> None:
    from faster_whisper import WhisperModel

    from tests.models.engines.test_whisper_words import COMMANDS, one_after_another, say
    from tests.models.wide_whisper import BASE, SOURCE, build_wide_whisper

    samples = one_after_another([say(text) for text in COMMANDS[:2]], 0.4).samples
    heard = []
    for path in (SOURCE, build_wide_whisper(tmp_path / "base", BASE)):
        model = WhisperModel(str(path), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True)
        segments, _ = model.transcribe(samples, beam_size=1, temperature=0.0, word_timestamps=True)
        heard.append([(word.word, word.start, word.end) for each in segments for word in each.words or ()])
    small, wide = heard
    assert [word for word, _, _ in wide] == [word for word, _, _ in small]
    assert " ".join(word.strip() for word, _, _ in wide) == " ".join(COMMANDS[:2])
    np.testing.assert_allclose([times for _, *times in wide], [times for _, *times in small], atol=0.05)
