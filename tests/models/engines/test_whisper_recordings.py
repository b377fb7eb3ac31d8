"""Recordings on their way through a Whisper model: batches, channels, silence, music and uploads that still grow."""

import importlib.util
import itertools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from models.errors import Cancelled, InvalidInput
from models.interfaces import MediaInfo, Samples, SegmentResult, TranscriptionRequest
from models.spool import SpoolWriter
from streaming.audio import PcmEncoding, decode_pcm
from streaming.transcript import Segment
from tests.models.engines.conformance import SAMPLE_RATE, Steps, write_wav
from tests.models.engines.whisper_engines import (
    Load,
    engine,
    items_of,
    load_engine,
    short,
    silence,
    speech,
    transcribe,
    weights,
)

__all__ = ["engine", "load_engine", "speech", "weights"]

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("faster_whisper", "torch", "transformers"))),
    reason="faster-whisper, and torch and transformers to make a model, are not installed",
)


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
    jobs = items_of(engine, monkeypatch)
    results = engine.transcribe(TranscriptionRequest(path=str(path), language="en"), Steps())
    next(results)
    next(results)
    results.close()
    assert engine.lane.waiting == 0
    assert engine.lane.items <= len(jobs)
    assert not any(thread.name == "speech-reader" for thread in threading.enumerate())
