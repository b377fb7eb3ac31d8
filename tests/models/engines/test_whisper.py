from __future__ import annotations

import importlib.util
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from models.catalog import Card, Catalog
from models.engines import espeak
from models.errors import Cancelled, InvalidInput, WeightsMissing
from models.interfaces import MediaInfo, Samples, SegmentResult, SpeechRequest, TranscriptionRequest
from models.spool import SpoolWriter
from streaming.audio import PcmEncoding, Resampler, decode_pcm
from streaming.transcript import Segment
from tests.models.engines.conformance import SAMPLE_RATE, Steps, TranscriptionConformance, speak, write_wav
from tests.models.engines.sentences import SENTENCES
from tests.models.tiny_whisper import tiny_whisper

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("faster_whisper", "torch", "transformers"))),
    reason="faster-whisper, and torch and transformers to make a model, are not installed",
)

TRUSTING = {
    "log_prob_threshold": -math.inf,
    "compression_ratio_threshold": math.inf,
    "cut_loops": False,
    "beam_size": 1,
    "workers": 1,
}
"""Random weights write nothing that should be trusted; with these, their first attempt is taken."""


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Several sentences, some 16 s: two of them do not fit in one span."""
    synthesizer = espeak.load(Catalog.load().find("espeak-ng", "speech").card)
    audio, _ = speak(synthesizer, SpeechRequest(" ".join(SENTENCES[:7]), "en-us+klatt6"))
    resampler = Resampler(22_050, SAMPLE_RATE)
    return np.concatenate((resampler.process(audio), resampler.finish()))


def card_of(weights: Path, **options: Any) -> Card:
    fields = {"id": "tiny", "task": "transcription", "engine": "whisper", "name": "tiny", "concurrency": 4}
    return msgspec.convert(fields | {"weights": str(weights), "options": TRUSTING | options}, Card)


@pytest.fixture(scope="module")
def card(weights: Path) -> Card:
    return card_of(weights)


Load = Callable[..., Any]


@pytest.fixture(scope="module")
def load_engine(weights: Path) -> Iterator[Load]:
    """Load with options; what was loaded is closed in the end."""
    from models.engines import whisper

    loaded: list[Any] = []

    def load(**options: Any) -> Any:
        loaded.append(whisper.load(card_of(weights, **options)))
        return loaded[-1]

    yield load
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def engine(load_engine: Load) -> Any:
    return load_engine()


class TestConformance(TranscriptionConformance):
    pass


def transcribe(engine: Any, path: Path, on_step: Any = None, **fields: Any) -> tuple[MediaInfo, list[Segment]]:
    facts, *results = engine.transcribe(TranscriptionRequest(path=str(path), **fields), on_step or Steps())
    assert isinstance(facts, MediaInfo)
    return facts, [result.segment for result in results if isinstance(result, SegmentResult)]


def short(speech: Samples) -> Samples:
    """The first sentence or so: 3 s."""
    return speech[: 3 * SAMPLE_RATE]


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


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


def jobs_of(engine: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every job that is submitted from now on."""
    seen: list[Any] = []
    submit = engine.lane.submit

    def noting(job: Any, **terms: Any) -> Any:
        seen.append(job)
        return submit(job, **terms)

    monkeypatch.setattr(engine.lane, "submit", noting)
    return seen


def test_language_is_detected_once_on_the_first_speech(
    engine: Any, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(engine, monkeypatch)
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
    jobs = jobs_of(engine, monkeypatch)
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
    jobs = jobs_of(engine, monkeypatch)
    _, segments = transcribe(engine, write_wav(tmp_path / "a.wav", short(speech)), language="en", temperature=0.7)
    assert [job.temperature for job in jobs] == [0.7]
    assert {segment.scores.temperature for segment in segments if segment.scores} == {0.7}


def test_what_the_model_itself_takes_for_silence_is_dropped(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(log_prob_threshold=0.0, no_speech_threshold=-1.0)
    jobs = jobs_of(engine, monkeypatch)
    path = write_wav(tmp_path / "a.wav", np.concatenate((speech, silence(1), speech)))
    facts, segments = transcribe(engine, path)
    assert segments == []
    assert facts.language == ""  # silence speaks no language
    assert [(job.temperature, job.language) for job in jobs] == [(0.0, ""), (0.0, "")]


def music(seconds: float) -> Samples:
    """Chords of plucked strings, four a second."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = np.zeros(len(times))
    for beat in range(int(seconds * 4)):
        since = times - beat / 4
        envelope = np.where(since >= 0, np.exp(-4 * np.maximum(since, 0)), 0)
        for semitone in ((0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 4, 7))[beat // 4 % 4]:
            sound += envelope * np.sin(2 * np.pi * 220 * 2 ** (semitone / 12) * times)
    made: Samples = (0.2 * sound / np.abs(sound).max()).astype(np.float32)
    return made


def test_music_holds_no_words(engine: Any, tmp_path: Path) -> None:
    facts, segments = transcribe(engine, write_wav(tmp_path / "music.wav", music(20)))
    assert facts.duration == pytest.approx(20)
    assert segments == []


class Held:
    """An engine whose first batch waits, so that what is submitted meanwhile meets in the next ones."""

    def __init__(self, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.gate, self.submitted = threading.Event(), threading.Event(), threading.Semaphore(0)
        self._encode, self._submit = engine._model.encode, engine.lane.submit
        monkeypatch.setattr(engine._model, "encode", self.encode)
        monkeypatch.setattr(engine.lane, "submit", self.submit)

    def encode(self, features: Any) -> Any:
        self.entered.set()
        assert self.gate.wait(10)
        return self._encode(features)

    def submit(self, job: Any, **terms: Any) -> Any:
        future = self._submit(job, **terms)
        self.submitted.release()
        return future

    def release_after(self, jobs: int) -> None:
        assert all(self.submitted.acquire(timeout=10) for _ in range(jobs))
        self.gate.set()


def test_requests_share_batches(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(batch_size=4)
    path = write_wav(tmp_path / "a.wav", short(speech))
    _, alone = transcribe(engine, path, language="en")
    before, held = engine.lane.batches, Held(engine, monkeypatch)
    results: list[list[Segment]] = []
    requests = [
        threading.Thread(target=lambda: results.append(transcribe(engine, path, language="en")[1])) for _ in range(5)
    ]
    requests[0].start()
    assert held.entered.wait(10)
    for request in requests[1:]:
        request.start()
    held.release_after(5)
    for request in requests:
        request.join(10)
    assert engine.lane.batches - before == 2
    assert [[segment.text for segment in each] for each in results] == [[segment.text for segment in alone]] * 5


@pytest.mark.parametrize(("batch_size", "batches"), [(1, 3), (4, 2)])
def test_spans_of_one_recording_share_batches_and_stay_in_order(
    load_engine: Load,
    speech: Samples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    batches: int,
) -> None:
    engine = load_engine(batch_size=batch_size)
    held = Held(engine, monkeypatch)
    path = write_wav(tmp_path / "a.wav", np.concatenate([speech, silence(0.4)] * 4))
    results: list[list[Segment]] = []
    request = {"language": "en", "segment_timestamps": False}
    thread = threading.Thread(target=lambda: results.append(transcribe(engine, path, **request)[1]))
    thread.start()
    held.release_after(3)
    thread.join(10)
    (segments,) = results
    assert (engine.lane.batches, engine.lane.items) == (batches, 3)
    assert len(segments) == 3
    assert all(one.end <= other.start for one, other in itertools.pairwise(segments))
    assert segments[-1].end == pytest.approx(4 * (len(speech) / SAMPLE_RATE + 0.4), abs=1)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offsets=st.lists(st.integers(1_500, 20_000), min_size=1, max_size=2))
def test_speech_in_long_silence_is_found_where_it_is(
    engine: Any, speech: Samples, tmp_path: Path, offsets: list[int]
) -> None:
    clip = short(speech)
    gaps = [silence(milliseconds / 1000) for milliseconds in offsets]
    audio = np.concatenate([part for gap in gaps for part in (gap, clip)] + [silence(1)])
    facts, segments = transcribe(engine, write_wav(tmp_path / "a.wav", audio), language="en", word_timestamps=True)
    assert facts.duration == pytest.approx(len(audio) / SAMPLE_RATE)
    onset = 0.0
    regions = []
    for gap in gaps:
        onset += len(gap) / SAMPLE_RATE
        regions.append((onset - 0.45, onset + len(clip) / SAMPLE_RATE + 0.45))
        onset += len(clip) / SAMPLE_RATE
    times = [time for segment in segments for word in segment.words for time in (word.start, word.end)]
    assert times
    assert times == sorted(times)
    assert all(any(start <= time <= end for start, end in regions) for time in times)
    assert all(0 <= one.start < one.end <= facts.duration for one in segments)
    assert all(one.end <= other.start for one, other in itertools.pairwise(segments))


def test_every_channel_by_itself(engine: Any, speech: Samples, tmp_path: Path) -> None:
    import wave

    clip = short(speech)
    left, right = (
        np.concatenate((clip, silence(6), clip, silence(6))),
        np.concatenate((silence(6), clip, silence(6), clip)),
    )
    with wave.open(str(tmp_path / "call.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.stack((left, right), axis=1) * 32767).astype("<i2").tobytes())
    _, segments = transcribe(engine, tmp_path / "call.wav", language="en", split_channels=True, word_timestamps=True)
    starts = [segment.start for segment in segments]
    assert starts == sorted(starts)
    assert {segment.channel for segment in segments} == {0, 1}
    turns = {0: [(0, 3), (9, 12)], 1: [(6, 9), (15, 18)]}
    for segment in segments:
        spoken = turns[segment.channel if segment.channel is not None else -1]
        assert any(start - 0.45 <= segment.start <= segment.end <= end + 0.45 for start, end in spoken)


def test_the_decoded_audio_is_copied_for_a_diarizer(engine: Any, speech: Samples, tmp_path: Path) -> None:
    path, copy = write_wav(tmp_path / "a.wav", speech), tmp_path / "copy.pcm"
    transcribe(engine, path, pcm_path=str(copy))
    assert not copy.with_name("copy.pcm.growing").exists()
    heard = decode_pcm(copy.read_bytes(), PcmEncoding.S16LE)
    assert len(heard) == len(speech)
    assert np.abs(heard - speech).max() < 2e-4


def test_a_copy_of_what_cannot_be_read_is_taken_away(engine: Any, tmp_path: Path) -> None:
    path, copy = tmp_path / "a.wav", tmp_path / "copy.pcm"
    path.write_bytes(b"nonsense")
    with pytest.raises(InvalidInput):
        transcribe(engine, path, pcm_path=str(copy))
    assert [each.name for each in tmp_path.iterdir()] == ["a.wav"]


def upload(tmp_path: Path, speech: Samples) -> tuple[SpoolWriter, bytes]:
    """A spool with nothing in it, and the recording of 5 spans that is to go there."""
    gap = silence(0.4)
    whole = write_wav(tmp_path / "whole.wav", np.concatenate([speech, gap] * 6)).read_bytes()
    return SpoolWriter(tmp_path / "spool"), whole


def test_first_segments_come_while_the_upload_is_still_arriving(engine: Any, speech: Samples, tmp_path: Path) -> None:
    spool, whole = upload(tmp_path, speech)
    spool.write(whole[: len(whole) // 2])
    results = engine.transcribe(TranscriptionRequest(path=str(spool.path), language="en"), Steps())
    first = [next(results), next(results)]
    assert isinstance(first[0], MediaInfo)
    assert isinstance(first[1], SegmentResult)
    assert spool.path.with_name("spool.growing").exists()
    spool.write(whole[len(whole) // 2 :])
    spool.finish()
    *rest, facts = results
    assert rest[-1].segment.end > len(whole) / 2 / SAMPLE_RATE * 0.7
    assert isinstance(facts, MediaInfo)  # only now is the duration known
    assert facts.duration == pytest.approx((len(whole) - 44) / 2 / SAMPLE_RATE)


def test_an_upload_that_is_given_up_is_an_error(engine: Any, speech: Samples, tmp_path: Path) -> None:
    spool, whole = upload(tmp_path, speech)
    spool.write(whole[: len(whole) // 2])
    copy = tmp_path / "copy.pcm"
    request = TranscriptionRequest(path=str(spool.path), language="en", pcm_path=str(copy))
    results = engine.transcribe(request, Steps())
    assert isinstance(next(results), MediaInfo)
    spool.abandon()
    with pytest.raises(InvalidInput, match="upload ended") as refusal:
        list(results)
    assert refusal.value.field == "file"
    assert not copy.exists()


def test_cancelling_while_an_upload_stands_still(engine: Any, speech: Samples, tmp_path: Path) -> None:
    spool, whole = upload(tmp_path, speech)
    spool.write(whole[:2000])
    with pytest.raises(Cancelled):
        transcribe(engine, spool.path, Steps(cancel_at=3))
    spool.abandon()


def test_cancelling_takes_waiting_work_out(
    load_engine: Load, speech: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(batch_size=1)
    gap = silence(0.4)
    path = write_wav(tmp_path / "a.wav", np.concatenate([speech, gap] * 6))
    jobs = jobs_of(engine, monkeypatch)
    results = engine.transcribe(TranscriptionRequest(path=str(path), language="en"), Steps())
    next(results)
    next(results)
    results.close()
    assert engine.lane.waiting == 0
    assert engine.lane.items <= len(jobs)
    assert not any(thread.name == "speech-reader" for thread in threading.enumerate())


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
