"""What short windows do to a Whisper: the verdict by fixed numbers, and the command with a model that has no choice."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jiwer
import msgspec
import numpy as np
import pytest
from hypothesis import given, strategies as st
from typer.testing import CliRunner, Result

from media import calibration, cli
from media.calibration import Clip, Heard, judge
from models.catalog import Card, Catalog
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity
from tests.journeys.uploading import wav
from tests.models.engines.test_whisper_words import COMMANDS, VOICES, say, silence

NOTHING = np.zeros(0, np.float32)
SAID = tuple(f"one two three four {number} five six seven eight nine" for number in range(10))
CLIPS = [Clip((NOTHING,), text) for text in SAID]


def with_errors(count: int) -> tuple[str, ...]:
    """The texts with so many words replaced."""
    words = " | ".join(SAID).split()
    wrong = [index for index, word in enumerate(words) if word != "|"][:count]
    return tuple(" ".join("x" if index in wrong else word for index, word in enumerate(words)).split(" | "))


@pytest.mark.parametrize(
    ("full", "auto", "context", "short_windows"),
    [
        (0, 0, "auto", True),
        (0, 1, "auto", True),
        (20, 22, "auto", True),
        (20, 27, "auto", False),
        (20, 40, "full", False),
    ],
)
def test_the_verdict_follows_the_word_error_rates(full: int, auto: int, context: str, short_windows: bool) -> None:
    verdict = judge(CLIPS, Heard(with_errors(full), 4.0), Heard(with_errors(auto), 1.0))
    assert (verdict.words, verdict.full, verdict.auto) == (100, full / 100, auto / 100)
    assert verdict.speedup == 4.0
    assert verdict.options == {"encoder_context": context, "short_windows": short_windows}


def test_without_known_texts_short_windows_are_held_against_whole_ones() -> None:
    clips = [Clip((NOTHING,)) for _ in SAID]
    verdict = judge(clips, Heard(with_errors(3), 1.0), Heard(SAID, 1.0))
    assert (verdict.full, verdict.auto) == (0.0, 0.03)


def test_speech_that_the_model_does_not_understand_tells_nothing() -> None:
    verdict = judge(CLIPS, Heard(("",) * 10, 1.0), Heard(SAID, 1.0))
    assert not verdict.understood
    assert any("nothing can be told" in line for line in calibration.described(verdict))


words = st.lists(st.sampled_from("ab"), min_size=1, max_size=8)


@given(said=words, heard=words)
def test_errors_are_counted_as_jiwer_does(said: list[str], heard: list[str]) -> None:
    counted = jiwer.process_words(" ".join(said), " ".join(heard))
    expected = counted.substitutions + counted.deletions + counted.insertions
    verdict = judge([Clip((NOTHING,), " ".join(said))], Heard((" ".join(heard),), 1.0), Heard(("",), 1.0))
    assert verdict.full * len(said) == pytest.approx(expected)


def test_case_and_marks_are_no_errors() -> None:
    verdict = judge([Clip((NOTHING,), "Don't stop, please!")], Heard(("dont stop please",), 1.0), Heard(("",), 1.0))
    assert verdict.full == 0.0


def test_a_recording_is_cut_into_turns_and_has_its_text_beside_it(tmp_path: Path) -> None:
    parts = [say(text).samples for text in COMMANDS[:2]]
    path = tmp_path / "two.wav"
    path.write_bytes(wav(np.concatenate((parts[0], silence(1.5), parts[1], silence(1.0)))))
    clip = calibration.recorded(path, SileroVoiceActivity())
    assert [len(turn) / SAMPLE_RATE for turn in clip.turns] == pytest.approx(
        [len(each) / SAMPLE_RATE for each in parts], abs=0.7
    )
    assert clip.text == ""
    path.with_suffix(".txt").write_text("two commands")
    assert calibration.recorded(path, SileroVoiceActivity()).text == "two commands"


def test_what_is_saved_changes_the_card_and_no_other(tmp_path: Path) -> None:
    built_in = Catalog.load().describe("openai/whisper-tiny")
    mine = '[[card]]\nid = "mine"\ntask = "transcription"\nengine = "whisper"\nname = "Mine"\n'
    (tmp_path / "mine.toml").write_text(mine + "options = { temperatures = [0.0, 0.5], log_prob_threshold = -inf }\n")
    own = Catalog.load(tmp_path).describe("mine")
    calibration.save(tmp_path, built_in, {"encoder_context": "full", "short_windows": False})
    path = calibration.save(tmp_path, own, {"encoder_context": "auto", "short_windows": True})
    calibration.save(tmp_path, built_in, {"encoder_context": "auto", "short_windows": False})
    assert path.parent == tmp_path
    catalog = Catalog.load(tmp_path)
    changed: Card = catalog.describe("mine")
    assert changed.options == own.options | {"encoder_context": "auto", "short_windows": True}
    assert msgspec.structs.replace(changed, options=own.options) == own
    assert catalog.describe("openai/whisper-tiny").options["encoder_context"] == "auto"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["models", "calibrate", *arguments])


@pytest.mark.skipif(not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed")
def test_the_command_measures_recordings_and_writes_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, text in enumerate(COMMANDS[:3]):
        path = tmp_path / f"{number}.wav"
        path.write_bytes(wav(np.concatenate((silence(0.5), say(text, VOICES[number]).samples, silence(0.5)))))
        path.with_suffix(".txt").write_text(text)
    cards = tmp_path / "cards"
    cards.mkdir()
    monkeypatch.setenv("SONOREEL_MODELS_DIR", str(cards))
    result = run("whisper-words", *(str(tmp_path / f"{number}.wav") for number in range(3)), "--save")
    assert result.exit_code == 0, result.output
    assert "word error rate in whole windows 0.000, in short ones 0.000" in result.output
    assert Catalog.load(cards).describe("whisper-words").options == {"encoder_context": "auto", "short_windows": True}


@pytest.mark.skipif(not importlib.util.find_spec("faster_whisper"), reason="faster-whisper is not installed")
def test_the_command_says_when_nothing_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONOREEL_MODELS_DIR", str(tmp_path))
    result = run("whisper-words", "--save")  # it knows few of the words of the embedded sentences
    assert result.exit_code == 1
    assert "does not understand this speech" in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("pocketsphinx",), "no Whisper model"), (("whisper-words", "--save"), "SONOREEL_MODELS_DIR")],
)
def test_what_cannot_be_calibrated_or_saved_is_refused(
    arguments: tuple[str, ...], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SONOREEL_MODELS_DIR", raising=False)
    result = run(*arguments)
    assert result.exit_code == 2
    assert complaint in result.output
