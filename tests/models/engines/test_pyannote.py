"""pyannote's engine in a worker process, on a small pipeline that knows speech from silence and three voices apart."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from models.catalog import Card, Catalog
from models.errors import InvalidInput
from models.interfaces import DiarizationRequest, DiarizationResult, KnownSpeaker, Samples
from models.pool import Pool
from models.spool import SpoolWriter
from streaming.audio import PcmEncoding, encode_pcm
from tests.models.engines.conformance import noise, write_wav
from tests.models.engines.sentences import say
from tests.models.scripted import fails, until
from tests.models.tiny_pyannote import SAMPLE_RATE, VOICES, card_of, silence

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("pyannote", "torch"))), reason="pyannote.audio is not installed"
)

STRIP = 18.0
"""Seconds: what is longer comes in strips."""
FIRST, SECOND, STRANGER = VOICES


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    weights = tmp_path_factory.mktemp("pyannote") / "pipeline"
    return card_of(weights, threads=1, strip_hours=STRIP / 3600, link_similarity=0.3, known_similarity=0.5)


@pytest.fixture(scope="module")
async def pool(card: Card) -> AsyncIterator[Pool]:
    async with Pool(Catalog([card], installed=lambda card: True)) as pool:
        await pool.warm(card)
        yield pool


@pytest.fixture(scope="module")
def first() -> Samples:
    """Some 5 s."""
    return say(FIRST, 4)


@pytest.fixture(scope="module")
def dialogue(first: Samples) -> Samples:
    """First voice from 1 s on, second voice 1 s after that."""
    return np.concatenate((silence(1), first, silence(1), say(SECOND, 0), silence(1)))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[KnownSpeaker, ...]:
    """Ann is the second voice, Zoe is somebody else."""
    folder = tmp_path_factory.mktemp("clips")
    return tuple(
        KnownSpeaker(name, str(write_wav(folder / f"{name}.wav", say(voice, 7))))
        for name, voice in (("Ann", SECOND), ("Zoe", STRANGER))
    )


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[SpoolWriter]:
    with SpoolWriter(tmp_path / "growing.pcm") as writer:
        yield writer


@pytest.fixture
def spool(tmp_path: Path) -> Any:
    def write(samples: Samples) -> str:
        path = tmp_path / "audio.pcm"
        path.write_bytes(encode_pcm(samples, PcmEncoding.S16LE))
        return str(path)

    return write


async def diarize(pool: Pool, card: Card, **fields: Any) -> DiarizationResult:
    async with pool.lease(card) as lease, lease.run(DiarizationRequest(**fields)) as run:
        (result,) = [item async for item in run]
    assert isinstance(result, DiarizationResult)
    return result


def who(result: DiarizationResult) -> list[str]:
    """Speakers in order, each as often as the floor went to them."""
    speakers = [turn.speaker for turn in result.exclusive]
    return [speaker for before, speaker in pairwise(["", *speakers]) if speaker != before]


async def test_two_speakers_have_their_turns(
    pool: Pool, card: Card, first: Samples, dialogue: Samples, spool: Any
) -> None:
    result = await diarize(pool, card, pcm_path=spool(dialogue), num_speakers=2)
    assert who(result) == ["SPEAKER_00", "SPEAKER_01"]
    change = next(turn.start for turn in result.exclusive if turn.speaker == "SPEAKER_01")
    assert change == pytest.approx(2 + len(first) / SAMPLE_RATE, abs=0.5)
    assert all(one.end <= other.start + 1e-6 for one, other in pairwise(result.exclusive))
    assert [turn.start for turn in result.turns] == sorted(turn.start for turn in result.turns)
    assert all(0 <= turn.start < turn.end <= len(dialogue) / SAMPLE_RATE for turn in result.turns)


@pytest.mark.parametrize("count", [1, 2])
async def test_as_many_speakers_as_asked_for(pool: Pool, card: Card, dialogue: Samples, spool: Any, count: int) -> None:
    path = spool(dialogue)
    for counts in ({"num_speakers": count}, {"min_speakers": count, "max_speakers": count}):
        result = await diarize(pool, card, pcm_path=path, **counts)
        assert {turn.speaker for turn in result.turns} == {f"SPEAKER_{index:02d}" for index in range(count)}


async def test_more_speakers_than_there_is_speech_for_are_not_found(
    pool: Pool, card: Card, first: Samples, spool: Any
) -> None:
    result = await diarize(pool, card, pcm_path=spool(first[: 2 * SAMPLE_RATE]), num_speakers=20)
    assert 1 <= len({turn.speaker for turn in result.turns}) < 20


async def test_known_voices_have_their_names_and_a_stranger_has_none(
    pool: Pool, card: Card, dialogue: Samples, spool: Any, clips: tuple[KnownSpeaker, ...]
) -> None:
    result = await diarize(pool, card, pcm_path=spool(dialogue), num_speakers=2, known_speakers=clips)
    assert who(result) == ["SPEAKER_00", "Ann"]


async def test_a_long_recording_comes_in_strips_and_keeps_its_speakers(
    pool: Pool, card: Card, dialogue: Samples, spool: Any
) -> None:
    twice = np.concatenate((dialogue, dialogue))
    assert len(twice) > STRIP * SAMPLE_RATE
    result = await diarize(pool, card, pcm_path=spool(twice), max_speakers=2)
    assert {turn.speaker for turn in result.turns} <= {"SPEAKER_00", "SPEAKER_01"}
    assert result.turns[-1].end > 1.9 * len(dialogue) / SAMPLE_RATE
    assert all(one.end <= other.start + 1e-6 for one, other in pairwise(result.exclusive))


@pytest.mark.parametrize("samples", [silence(0), silence(0.01), silence(5)], ids=len)
async def test_nobody_speaks_in_silence(pool: Pool, card: Card, spool: Any, samples: Samples) -> None:
    assert await diarize(pool, card, pcm_path=spool(samples)) == DiarizationResult((), ())


async def test_it_waits_for_a_recording_that_still_arrives(
    pool: Pool, card: Card, first: Samples, growing: SpoolWriter
) -> None:
    async with pool.lease(card) as lease, lease.run(DiarizationRequest(pcm_path=str(growing.path))) as run:
        await until(lambda: run.progress is not None)
        assert run.progress is not None
        assert run.progress.total is None
        await anyio.to_thread.run_sync(growing.write, encode_pcm(first, PcmEncoding.S16LE))
        await anyio.to_thread.run_sync(growing.finish)
        (result,) = [item async for item in run]
    assert isinstance(result, DiarizationResult)
    assert result.turns[-1].end > len(first) / SAMPLE_RATE - 1


async def test_an_upload_that_breaks_off_is_told(pool: Pool, card: Card, growing: SpoolWriter) -> None:
    async with pool.lease(card) as lease, lease.run(DiarizationRequest(pcm_path=str(growing.path))) as run:
        await until(lambda: run.progress is not None)
        await anyio.to_thread.run_sync(growing.abandon)
        with pytest.raises(InvalidInput) as refusal:
            await run.__anext__()
    assert refusal.value.field == "file"


async def test_cancelled_in_the_middle_the_worker_goes_on(
    pool: Pool, card: Card, dialogue: Samples, spool: Any
) -> None:
    (worker,) = pool.worker_pids(card)
    path = spool(np.tile(dialogue, 6))
    async with pool.lease(card) as lease:
        async with lease.run(DiarizationRequest(pcm_path=path)) as run:
            await until(lambda: run.progress is not None and run.progress.done > 0)
        with anyio.fail_after(5):
            await run.finished.wait()
    assert run.progress is not None
    assert run.progress.done < 6 * len(dialogue) / SAMPLE_RATE
    assert who(await diarize(pool, card, pcm_path=spool(dialogue), num_speakers=2)) == ["SPEAKER_00", "SPEAKER_01"]
    assert pool.worker_pids(card) == [worker]


@pytest.mark.parametrize(
    ("counts", "field"),
    [
        ({"num_speakers": -1}, "num_speakers"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers"),
        ({"max_speakers": -2}, "max_speakers"),
    ],
)
async def test_impossible_counts_are_refused(pool: Pool, card: Card, spool: Any, counts: Any, field: str) -> None:
    error = await fails(pool, card, DiarizationRequest(pcm_path=spool(silence(1)), **counts))
    assert isinstance(error, InvalidInput)
    assert error.field == field


@pytest.mark.parametrize("clip", [silence(3), noise(3, 0.01), None], ids=["silence", "noise", "not audio"])
async def test_a_reference_without_speech_is_refused(
    pool: Pool, card: Card, spool: Any, tmp_path: Path, clip: Samples | None
) -> None:
    path = tmp_path / "clip.wav"
    path.write_text("no sound") if clip is None else write_wav(path, clip)
    request = DiarizationRequest(pcm_path=spool(silence(1)), known_speakers=(KnownSpeaker("Ann", str(path)),))
    error = await fails(pool, card, request)
    assert isinstance(error, InvalidInput)
    assert error.field == "known_speaker_references"
    assert "'Ann'" in error.message


@pytest.mark.skipif(not os.environ.get("SONOREEL_TIMINGS"), reason="half a minute; set SONOREEL_TIMINGS to have it")
def test_a_real_sized_embedding_model_is_run_once_for_each_window(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.models.tiny_pyannote", str(tmp_path / "real")]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    ours, theirs = json.loads(run.stdout.splitlines()[-1])
    assert ours < 0.6 * theirs, f"{ours:.2f} x real time, pyannote itself {theirs:.2f}"
