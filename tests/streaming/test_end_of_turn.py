"""Whether a sentence is whole: by its words, by its melody, and by a model where there is one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from streaming.end_of_turn import HeuristicJudge, of_text
from streaming.endpointing import Pause
from streaming.prosody import Cadence, cadence
from streaming.smart_turn import SAMPLES, SmartTurn, features
from tests.models.engines.sentences import say

SAMPLE_RATE = 16_000
NOTHING = np.zeros(SAMPLE_RATE, np.float32)


def glide(start: float, end: float, seconds: float = 1.5, level: float = 0.3) -> np.ndarray:
    """A voice at so many hertz that moves to others in its last third, with a pause behind it."""
    count = round(seconds * SAMPLE_RATE)
    pitch = np.concatenate([np.full(2 * count // 3, start), np.linspace(start, end, count - 2 * count // 3)])
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = sum(np.sin(order * phase) / order for order in range(1, 8))
    return np.concatenate([level * voice / 3, np.zeros(3200)]).astype(np.float32)


# ---------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("i would like the", ""),
        ("I would like the.", "en"),
        ("so we went to", "en"),
        ("um", ""),
        ("and then, um", "en"),
        ("first the milk,", "en"),
        ("I was thinking…", "en"),
        ("my number is five five five", "en"),
        ("because", "en-US"),
        ("ich möchte gerne ein", "de"),
        ("je voudrais un", "fr"),
        ("quiero una", "es"),
    ],
)
def test_more_is_to_come(text: str, language: str) -> None:
    assert HeuristicJudge().probability(Pause(NOTHING, text, language)) < 0.5


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("i would like a cup of coffee", ""),
        ("What time is it?", "en"),
        ("no", "en"),
        ("yes, please", "en"),
        ("yes she does", "en"),
        ("what", "en"),
        ("my number is five five five two three six one four nine zero", "en"),
        ("Ich hätte gerne einen Kaffee.", "de"),
        ("nein", "de"),
        ("お願いします。", "ja"),
    ],
)
def test_that_was_all(text: str, language: str) -> None:
    assert HeuristicJudge().probability(Pause(NOTHING, text, language)) > 0.5


def test_words_that_cannot_end_weigh_more_than_the_mark_behind_them() -> None:
    assert of_text("we should ask the.", "en") < of_text("we should ask the neighbours", "en")
    assert of_text("", "en") == of_text("...", "en") == 0.0


# ---------------------------------------------------------------------- melody


def test_a_voice_that_falls_is_done_and_one_that_stays_up_is_not() -> None:
    judge = HeuristicJudge()
    fallen, level = (judge.probability(Pause(glide(150, end), "")) for end in (95.0, 150.0))
    assert fallen > 0.8
    assert level < 0.5


def test_a_cadence_is_measured_in_semitones() -> None:
    found = cadence(glide(200, 100))
    assert found is not None
    assert found.pitch == pytest.approx(-11, abs=1.5)
    assert found.slope < -10
    assert abs(found.level) < 3


@pytest.mark.parametrize("level", [0.01, 0.9])
def test_loudness_does_not_matter(level: float) -> None:
    quiet, usual = cadence(glide(180, 120, level=level)), cadence(glide(180, 120))
    assert isinstance(quiet, Cadence)
    assert isinstance(usual, Cadence)
    assert quiet.pitch == pytest.approx(usual.pitch, abs=0.3)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), NOTHING, NOTHING[:100], np.random.default_rng(0).normal(0, 0.1, 16_000).astype("f4")],
    ids=["none", "silence", "too short", "noise"],
)
def test_without_a_voice_there_is_no_cadence(samples: np.ndarray) -> None:
    assert cadence(samples) is None
    assert 0.0 < HeuristicJudge().probability(Pause(samples, "")) < 1.0


@pytest.mark.parametrize("voice", ["en-us", "en-us+f3", "en-gb"])
def test_a_sentence_that_is_cut_short_is_told_from_a_whole_one(voice: str) -> None:
    whole = say(voice, 5, 1)
    end = int(np.flatnonzero(np.abs(whole) > 0.005)[-1])
    pause = np.zeros(3200, np.float32)
    judge = HeuristicJudge()
    done = judge.probability(
        Pause(np.concatenate([whole[:end], pause]), "my brother lives in a small house near the river")
    )
    cut = judge.probability(Pause(np.concatenate([whole[: end // 2], pause]), "my brother lives in a"))
    assert cut < 0.2
    assert done > 0.5


# ---------------------------------------------------------------------- a model


def test_the_features_are_whispers() -> None:
    whisper = pytest.importorskip("faster_whisper.feature_extractor")
    samples = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE).astype(np.float32)
    padded = np.concatenate([np.zeros(SAMPLES - len(samples), np.float32), samples])
    scaled = (padded - padded.mean()) / np.sqrt(padded.var() + 1e-7)
    reference = whisper.FeatureExtractor(chunk_length=8)(scaled.astype(np.float32), padding=0)[:, :800]
    found = features(samples)
    assert found.shape == (80, 800)
    assert np.abs(found[:, : reference.shape[1]] - reference).max() < 1e-3


def test_only_the_last_eight_seconds_are_heard() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 12 * SAMPLE_RATE).astype(np.float32)
    assert np.array_equal(features(samples), features(samples[-SAMPLES:]))


def test_a_model_of_the_right_shape_judges(tmp_path: Path) -> None:
    """The model here says sigmoid(mean of the features)."""
    path = tmp_path / "turn.onnx"
    path.write_bytes(_model((1, 80, 800)))
    judge = SmartTurn(path)
    samples = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert judge.probability(Pause(samples, "")) == pytest.approx(1 / (1 + np.exp(-features(samples).mean())), abs=1e-5)
    assert not judge.reads


def test_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(_model((1, 80, 3000)))
    with pytest.raises(ValueError, match=r"not smart-turn v3"):
        SmartTurn(path)
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="cannot|can be loaded"):
        SmartTurn(path)


def _model(shape: Sequence[int]) -> bytes:
    """An ONNX file, field by field (onnx.proto): ReduceMean over everything, then Sigmoid."""
    mean = _message((1, "input_features"), (2, "mean"), (4, "ReduceMean"))
    sigmoid = _message((1, "mean"), (2, "probability"), (4, "Sigmoid"))
    graph = _message(
        (1, mean),
        (1, sigmoid),
        (2, "turn"),
        (11, _value("input_features", shape)),
        (12, _value("probability", (1, 1, 1))),
    )
    return _message((1, 8), (7, graph), (8, _message((2, 17))))


def _value(name: str, shape: Sequence[int]) -> bytes:
    dimensions = _message(*((1, _message((1, size))) for size in shape))
    return _message((1, name), (2, _message((1, _message((1, 1), (2, dimensions))))))


def _message(*fields: tuple[int, int | str | bytes]) -> bytes:
    encoded = b""
    for number, value in fields:
        if isinstance(value, int):
            encoded += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += _varint(number << 3 | 2) + _varint(len(data)) + data
    return encoded


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
