"""What a Whisper model is asked: languages, prompts, timestamps, temperatures; its weights are random."""

import importlib.util
import itertools
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.catalog import Card
from models.errors import InvalidInput, WeightsMissing
from models.interfaces import Samples
from tests.models.engines.conformance import SAMPLE_RATE, TranscriptionConformance, write_wav
from tests.models.engines.whisper_engines import (
    Load,
    card,
    card_of,
    engine,
    items_of,
    load_engine,
    short,
    silence,
    speech,
    transcribe,
    weights,
)

__all__ = ["card", "engine", "load_engine", "speech", "weights"]

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("faster_whisper", "torch", "transformers"))),
    reason="faster-whisper, and torch and transformers to make a model, are not installed",
)


class TestConformance(TranscriptionConformance):
    pass


def test_segments_have_scores_language_and_tokens(engine: Any, speech: Samples, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.concatenate((silence(4), short(speech))))
    facts, segments = transcribe(engine, path)
    assert facts.language == segments[0].language != ""
    scores = segments[0].scores
    assert scores is not None
    assert scores.tokens
    assert scores.temperature == 0.0
    assert scores.avg_logprob < 0 < scores.compression_ratio
    assert 0 <= scores.no_speech_prob <= 1
    assert 3.5 < scores.seek / 100 <= segments[0].start


def test_words_are_those_of_the_text_inside_their_segments(engine: Any, speech: Samples, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", speech)
    (plain,) = transcribe(engine, path, segment_timestamps=False)[1]
    _, aligned = transcribe(engine, path, segment_timestamps=False, word_timestamps=True)
    said = [word for segment in aligned for word in segment.words]
    # A word may be left out, as nobody can have said it after the last speech; none is made up.
    assert len(said) > 10
    assert [word.text for word in said] == plain.text.split()[: len(said)]
    assert all(0 < word.probability < 1 for word in said if word.probability is not None)
    assert all(one.end <= other.start for one, other in itertools.pairwise(said))
    for segment in aligned:
        assert segment.start <= segment.words[0].start <= segment.words[-1].end <= segment.end


def test_without_segment_timestamps_a_span_is_one_segment(engine: Any, speech: Samples, tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.concatenate((silence(2), speech, silence(2))))
    _, segments = transcribe(engine, path, segment_timestamps=False)
    assert len(segments) == 1
    assert segments[0].start == pytest.approx(2.0, abs=0.2)
    assert segments[0].end == pytest.approx(2 + len(speech) / SAMPLE_RATE, abs=0.5)


def test_language_is_detected_once_on_the_first_speech(
    engine: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = items_of(engine, monkeypatch)
    path = write_wav(tmp_path / "a.wav", np.concatenate((speech, silence(1), speech)))
    facts, segments = transcribe(engine, path)
    assert [job.language for job in jobs] == ["", facts.language]
    assert {segment.language for segment in segments} == {facts.language}


@pytest.mark.parametrize(("asked", "used"), [("de", "de"), ("en-US", "en"), (" FR ", "fr"), ("iw", "he")])
def test_a_language_can_be_forced(engine: Any, speech: Samples, tmp_path: Path, asked: str, used: str) -> None:
    path = write_wav(tmp_path / "a.wav", short(speech))
    facts, segments = transcribe(engine, path, language=asked)
    assert facts.language == used
    assert segments[0].language == used


@pytest.mark.parametrize("language", ["klingon", "<|en|>", "startoftranscript", "translate", "1"])
def test_what_is_no_language_is_refused(engine: Any, tmp_path: Path, language: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        transcribe(engine, tmp_path / "none", language=language)
    assert refusal.value.field == "language"


def prompts_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[list[int]]]:
    """The prompts of every batch that is decoded from now on."""
    seen: list[list[list[int]]] = []
    model = engine._model.model

    class Noting:
        def generate(self, encoded: Any, prompts: list[list[int]], **terms: Any) -> Any:
            seen.append(prompts)
            return model.generate(encoded, prompts, **terms)

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    monkeypatch.setattr(engine._model, "model", Noting())
    return seen


def test_task_language_and_timestamps_are_tokens_of_the_prompt(
    engine: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", short(speech))
    token = engine._model.hf_tokenizer.token_to_id
    prompts = prompts_of(engine, monkeypatch)
    transcribe(engine, path, language="fr", task="translate", segment_timestamps=False)
    transcribe(engine, path, language="de")
    assert [row for batch in prompts for row in batch] == [
        [token(f"<|{name}|>") for name in ("startoftranscript", "fr", "translate", "notimestamps")],
        [token(f"<|{name}|>") for name in ("startoftranscript", "de", "transcribe")],
    ]


def test_a_prompt_goes_before_and_the_end_of_a_long_one_counts(
    engine: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", short(speech))
    prompts = prompts_of(engine, monkeypatch)
    for prompt in ("Kitchen light.", "coffee " * 1000 + "tomorrow"):
        _, segments = transcribe(engine, path, language="en", prompt=prompt)
        assert segments
    tokenizer = engine._model.hf_tokenizer
    (short_one,), (long_one,) = prompts
    assert short_one[0] == long_one[0] == tokenizer.token_to_id("<|startofprev|>")
    assert tokenizer.decode(short_one[1:-3]) == " Kitchen light."
    assert tokenizer.decode(long_one[1:-3]).endswith("coffee tomorrow")
    assert len(long_one) - 3 == 448 // 2


def test_untrusted_text_walks_up_the_temperatures_and_keeps_its_encoding(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(log_prob_threshold=0.0, temperatures=(0.0, 0.4, 0.8), best_of=2)
    jobs = items_of(engine, monkeypatch)
    path = write_wav(tmp_path / "a.wav", short(speech))
    _, segments = transcribe(engine, path, language="en", word_timestamps=True)
    assert [job.temperature for job in jobs] == [0.0, 0.4, 0.8, 0.8]
    assert [job.encoded is not None for job in jobs] == [False, True, True, True]
    assert jobs[-1].tokens is not None  # the best of the three is aligned in the end, and only that one
    assert segments
    assert segments[0].words


def test_a_temperature_that_was_asked_for_is_the_only_one(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(log_prob_threshold=0.0, best_of=2)
    jobs = items_of(engine, monkeypatch)
    _, segments = transcribe(engine, write_wav(tmp_path / "a.wav", short(speech)), language="en", temperature=0.7)
    assert [job.temperature for job in jobs] == [0.7]
    assert {segment.scores.temperature for segment in segments if segment.scores} == {0.7}


def test_what_the_model_itself_takes_for_silence_is_dropped(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(log_prob_threshold=0.0, no_speech_threshold=-1.0)
    jobs = items_of(engine, monkeypatch)
    path = write_wav(tmp_path / "a.wav", np.concatenate((speech, silence(1), speech)))
    facts, segments = transcribe(engine, path)
    assert segments == []
    assert facts.language == ""  # silence speaks no language
    assert [(job.temperature, job.language) for job in jobs] == [(0.0, ""), (0.0, "")]


def test_weights_that_are_not_here_name_the_pull_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models.engines import whisper

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    card = Card(id="far", task="transcription", engine="whisper", name="far", weights="nobody/nothing")
    with pytest.raises(WeightsMissing, match="sonoreel models pull far"):
        whisper.load(card)
    with pytest.raises(WeightsMissing, match=r"model\.bin"):
        whisper.load(msgspec.structs.replace(card, weights=str(tmp_path)))


def test_placement_takes_every_core_and_int8_on_a_cpu() -> None:
    from models.engines import whisper

    found = whisper.placement(whisper.WhisperOptions(device="cpu"))
    assert (found.device, found.compute_type) == ("cpu", "int8")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert 1 <= found.threads <= 16
    assert min(cores, 2) <= found.workers <= 8
    assert cores // 2 < found.threads * found.workers <= cores or found.threads == 16
    assert found.batch_size == 4
    chosen = whisper.placement(whisper.WhisperOptions(device="cpu", threads=3, compute_type="float32", batch_size=7))
    assert (chosen.threads, chosen.compute_type, chosen.batch_size) == (3, "float32", 7)
    assert chosen.workers == 1
    assert whisper.placement(whisper.WhisperOptions(device="cpu", workers=3)).workers == 3


def test_options_that_do_not_exist_are_refused(weights: Path) -> None:
    from models.engines import whisper

    with pytest.raises(msgspec.ValidationError, match="beams"):
        whisper.load(card_of(weights, beams=3))
