"""The embedded diarizer on synthetic dialogues, on real recordings where they are there, and at the edges."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from models.catalog import Catalog
from models.engines import voiceprint
from models.engines.voiceprint import SAMPLE_RATE, WINDOW, VoiceprintDiarizer, mel_power, windows_of
from models.errors import Cancelled, InvalidInput
from models.interfaces import DiarizationRequest, DiarizationResult, KnownSpeaker, Samples
from models.spool import SpoolWriter
from streaming.audio import PcmEncoding, encode_pcm
from streaming.transcript import SpeakerTurn
from tests.journeys.recordings import read
from tests.models.engines.conformance import Steps, noise, write_wav
from tests.models.engines.sentences import SENTENCES, say

Turns: TypeAlias = tuple[SpeakerTurn, ...]
Write: TypeAlias = Callable[[Samples], str]

COLLAR = 0.25
"""Seconds on each side of a reference boundary that are not scored; overlap is."""
BLOCK_SECONDS = 10
AUDIBLE = 0.005
CLEAR = [
    ("en-us", "en-us+f3", "en-us+klatt"),
    ("en-us+klatt6", "en-us+f5", "en-us+m3"),
    ("en-gb", "en-us+klatt6", "en-us+f3", "en-us+klatt"),
]
ALIKE = ("en-us+klatt6", "en-us+m7", "en-us+f2")
"""The first two are at a cosine of 0.88."""
TWINS = ("en-gb", "en-gb+m7")
"""At 0.9, where two voices are taken for one unless the count is given."""


@pytest.fixture(scope="module")
def engine() -> VoiceprintDiarizer:
    return voiceprint.load(Catalog.load().describe("voiceprint"))


@pytest.fixture
def spool(tmp_path: Path) -> Write:
    def write(samples: Samples) -> str:
        path = tmp_path / "audio.pcm"
        path.write_bytes(encode_pcm(samples, PcmEncoding.S16LE))
        return str(path)

    return write


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def spoken(voice: str, sentence: int) -> Samples:
    """One sentence, without the silence around it."""
    samples = say(voice, sentence, 1)
    audible = np.flatnonzero(np.abs(samples) > AUDIBLE)
    return samples[audible[0] : audible[-1] + 1]


def conversation(utterances: Sequence[tuple[str, Samples]], seed: int) -> tuple[Samples, Turns]:
    """(speaker, samples) after each other with pauses between them, and who speaks when."""
    generator = np.random.default_rng(seed)
    parts, turns, at = [silence(0.5)], [], 0.5
    for speaker, samples in utterances:
        turns.append(SpeakerTurn(speaker, at, at + len(samples) / SAMPLE_RATE))
        parts += [samples, silence(generator.uniform(0.2, 0.8))]
        at += sum(map(len, parts[-2:])) / SAMPLE_RATE
    return np.concatenate(parts), tuple(turns)


def dialogue(voices: Sequence[str], seed: int, turns: int = 12) -> tuple[Samples, Turns]:
    """Each of the voices in turn, then whoever; one or two sentences at a time."""
    generator = np.random.default_rng(seed)
    said: list[tuple[str, Samples]] = []
    for turn in range(turns):
        others = [voice for voice in voices if not said or voice != said[-1][0]]
        voice = voices[turn] if turn < len(voices) else str(generator.choice(others))
        sentences = generator.choice(len(SENTENCES), int(generator.integers(1, 3)), replace=False)
        said += [(voice, spoken(voice, int(sentence))) for sentence in sentences]
    return conversation(said, seed)


def diarize(engine: VoiceprintDiarizer, path: str, steps: Any = None, **fields: Any) -> Turns:
    """The turns, which never overlap and are in order."""
    (result,) = engine.diarize(DiarizationRequest(pcm_path=path, **fields), steps or Steps())
    assert isinstance(result, DiarizationResult)
    assert result.turns == result.exclusive
    assert all(turn.start < turn.end for turn in result.turns)
    assert all(one.end <= other.start for one, other in pairwise(result.turns))
    return result.turns


def error_rate(reference: Turns, found: Turns, seconds: float) -> float:
    """Diarization error rate."""
    pytest.importorskip("pyannote.metrics")
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate

    def annotation(turns: Turns) -> Any:
        made = Annotation()
        for index, turn in enumerate(turns):
            made[Segment(turn.start, turn.end), index] = turn.speaker
        return made

    # Its collar is the width of what is left out, on both sides together.
    measure = DiarizationErrorRate(collar=2 * COLLAR, skip_overlap=False)
    rate = measure(annotation(reference), annotation(found), uem=Timeline([Segment(0, seconds)]))
    return float(rate)


def names(turns: Turns) -> set[str]:
    return {turn.speaker for turn in turns}


# ---------------------------------------------------------------------- who speaks when


@pytest.mark.parametrize(("voices", "seed"), [*((voices, 1) for voices in [*CLEAR, ALIKE]), (CLEAR[0], 2)])
def test_synthetic_voices_have_their_turns(
    engine: VoiceprintDiarizer, spool: Write, voices: tuple[str, ...], seed: int
) -> None:
    samples, reference = dialogue(voices, seed)
    found = diarize(engine, spool(samples))
    assert len(names(found)) == len(voices)
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= 0.05


def test_voices_that_are_nearly_one_are_told_apart_when_their_number_is_known(
    engine: VoiceprintDiarizer, spool: Write
) -> None:
    samples, reference = dialogue(TWINS, 1)
    found = diarize(engine, spool(samples), num_speakers=2)
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= 0.05


def test_a_loud_voice_and_a_quiet_one_have_their_turns(engine: VoiceprintDiarizer, spool: Write) -> None:
    samples, reference = dialogue(CLEAR[0], 3)
    for turn in reference:
        if turn.speaker == CLEAR[0][1]:
            samples[round(turn.start * SAMPLE_RATE) : round(turn.end * SAMPLE_RATE)] *= 0.1
    found = diarize(engine, spool(samples))
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= 0.05


@pytest.mark.parametrize(("counts", "limit"), [({"num_speakers": 2}, 0.12), ({}, 0.18)], ids=["told", "found"])
def test_a_telephone_conversation(
    engine: VoiceprintDiarizer, spool: Write, shared_audio: Path, counts: dict[str, int], limit: float
) -> None:
    samples = read(shared_audio / "two-speakers.wav")
    fields = [line.split() for line in (shared_audio / "two-speakers.rttm").read_text().splitlines()]
    reference = tuple(SpeakerTurn(field[7], float(field[3]), float(field[3]) + float(field[4])) for field in fields)
    found = diarize(engine, spool(samples), **counts)
    assert len(names(found)) == 2
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= limit


def test_real_voices_that_take_turns(engine: VoiceprintDiarizer, spool: Write, shared_audio: Path) -> None:
    speech = {name: _speech(engine, shared_audio / name) for name in ("jfk.flac", "librivox-0870.wav")}
    said = [
        (name, part) for pair in zip(*speech.values(), strict=False) for name, part in zip(speech, pair, strict=True)
    ]
    samples, reference = conversation(said * 3, 4)
    found = diarize(engine, spool(samples))
    assert len(names(found)) == 2
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= 0.05


def _speech(engine: VoiceprintDiarizer, path: Path) -> list[Samples]:
    """A recording of one voice in parts of some two seconds."""
    speech = np.concatenate([samples for _, samples in engine._speech(iter([read(path)]))])
    return np.array_split(speech, round(len(speech) / SAMPLE_RATE / 2))


# ---------------------------------------------------------------------- one voice


@pytest.mark.parametrize("voice", ["en-us", "en-us+f3"])
def test_a_monologue_has_one_speaker(engine: VoiceprintDiarizer, spool: Write, voice: str) -> None:
    samples, reference = conversation([(voice, spoken(voice, index % len(SENTENCES))) for index in range(15)], 5)
    found = diarize(engine, spool(samples))
    assert names(found) == {"SPEAKER_00"}
    assert error_rate(reference, found, len(samples) / SAMPLE_RATE) <= 0.05


@pytest.mark.parametrize("name", ["jfk.flac", "librivox-0870.wav", "librivox-0930.wav", "go-forward.wav"])
def test_a_recording_of_one_voice_has_one_speaker(
    engine: VoiceprintDiarizer, spool: Write, shared_audio: Path, name: str
) -> None:
    samples = read(shared_audio / name)
    assert names(diarize(engine, spool(samples))) == {"SPEAKER_00"}


def test_minutes_of_one_voice_have_one_speaker_however_loud_it_is(
    engine: VoiceprintDiarizer, spool: Write, shared_audio: Path
) -> None:
    generator = np.random.default_rng(6)
    once = read(shared_audio / "jfk.flac")
    parts = []
    for _ in range(4):
        level = 10 ** (generator.uniform(-20, 0) / 20)
        parts += [once * np.float32(level), silence(generator.uniform(0.2, 3))]
    assert names(diarize(engine, spool(np.concatenate(parts)))) == {"SPEAKER_00"}


def test_what_the_encoder_hears_has_no_level() -> None:
    samples = say("en-us", 0, 1)
    for loud, quiet in zip(windows_of(samples)[1], windows_of(samples * 0.05)[1], strict=True):
        np.testing.assert_allclose(loud, quiet, rtol=1e-3)


# ---------------------------------------------------------------------- nobody, and next to nobody


@pytest.mark.parametrize(
    "samples",
    [
        silence(0),
        silence(0.001),
        silence(12),
        noise(12, 0.05),
        (0.3 * np.sin(2 * np.pi * 440 * np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32),
    ],
    ids=["empty", "a moment", "silence", "noise", "tone"],
)
@pytest.mark.parametrize("count", [0, 3])
def test_nobody_speaks(engine: VoiceprintDiarizer, spool: Write, samples: Samples, count: int) -> None:
    assert diarize(engine, spool(samples), num_speakers=count) == ()


@pytest.mark.parametrize("seconds", [0.4, 0.8])
def test_what_is_shorter_than_a_window_has_its_speaker(
    engine: VoiceprintDiarizer, spool: Write, seconds: float
) -> None:
    assert seconds < WINDOW / 100
    word = spoken("en-us+klatt6", 4)[: round(seconds * SAMPLE_RATE)]
    (turn,) = diarize(engine, spool(np.concatenate((silence(1), word, silence(1)))))
    assert turn.speaker == "SPEAKER_00"
    assert 0.8 < turn.start < turn.end < 1.3 + seconds


@pytest.mark.parametrize("length", [0, 1, 159, 160, 161, 1700, 3300, 16_001, 30 * SAMPLE_RATE])
def test_windows_share_a_stretch_of_speech_evenly(length: int) -> None:
    samples = noise(length / SAMPLE_RATE, 0.1)
    assert mel_power(samples).shape == (1 + length // 160, 40)
    if length < 160:
        return
    begins, windows = windows_of(samples)
    assert len(begins) == len(windows)
    assert begins[0] == 0
    assert (np.diff(np.append(begins, length)) < 2 * 3200).all()
    assert {len(window) for window in windows} <= set(range(1, 10)) | set(range(10, WINDOW + 1, 10))


# ---------------------------------------------------------------------- how many, and who


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({"num_speakers": 1}, 1),
        ({"num_speakers": 2}, 2),
        ({"num_speakers": 5}, 5),
        ({"max_speakers": 2}, 2),
        ({"min_speakers": 4}, 4),
        ({"min_speakers": 2, "max_speakers": 9}, 3),
    ],
)
def test_counts_are_kept_to(
    engine: VoiceprintDiarizer, spool: Write, three: Samples, counts: dict[str, int], found: int
) -> None:
    assert names(diarize(engine, spool(three), **counts)) == {f"SPEAKER_{index:02d}" for index in range(found)}


@pytest.fixture(scope="module")
def three() -> Samples:
    return dialogue(CLEAR[0], 7, turns=6)[0]


def test_more_speakers_than_there_is_speech_for_are_not_found(engine: VoiceprintDiarizer, spool: Write) -> None:
    assert 1 <= len(names(diarize(engine, spool(say("en-us", 0, 1)), num_speakers=40))) <= 12


@pytest.mark.parametrize(
    ("counts", "field"),
    [
        ({"num_speakers": -1}, "num_speakers"),
        ({"min_speakers": -1}, "min_speakers"),
        ({"max_speakers": -1}, "max_speakers"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers"),
        ({"num_speakers": 4, "max_speakers": 2}, "num_speakers"),
        ({"num_speakers": 1, "min_speakers": 2}, "num_speakers"),
    ],
)
def test_impossible_counts_are_refused(
    engine: VoiceprintDiarizer, spool: Write, counts: dict[str, int], field: str
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        diarize(engine, spool(silence(1)), **counts)
    assert refusal.value.field == field


def test_known_voices_have_their_names_and_a_stranger_stays_one(
    engine: VoiceprintDiarizer, spool: Write, tmp_path: Path, three: Samples
) -> None:
    known = tuple(
        KnownSpeaker(name, str(write_wav(tmp_path / f"{name}.wav", say(voice, 5, 2))))
        for name, voice in (("Ann", "en-us+f3"), ("Bob", "en-us"), ("Zoe", "en-us+m5"))
    )
    plain = diarize(engine, spool(three))
    named = diarize(engine, spool(three), known_speakers=known)
    assert names(named) == {"Ann", "Bob", "SPEAKER_00"}
    assert [(turn.start, turn.end) for turn in named] == [(turn.start, turn.end) for turn in plain]
    renamed = {"SPEAKER_00": "Bob", "SPEAKER_01": "Ann", "SPEAKER_02": "SPEAKER_00"}
    assert [turn.speaker for turn in named] == [renamed[turn.speaker] for turn in plain]


@pytest.mark.parametrize("clip", [silence(3), noise(3, 0.01), None], ids=["silence", "noise", "not audio"])
def test_a_reference_without_speech_is_refused(
    engine: VoiceprintDiarizer, spool: Write, tmp_path: Path, clip: Samples | None
) -> None:
    path = tmp_path / "clip.wav"
    path.write_text("no sound") if clip is None else write_wav(path, clip)
    with pytest.raises(InvalidInput, match="'Ann'") as refusal:
        diarize(engine, spool(silence(1)), known_speakers=(KnownSpeaker("Ann", str(path)),))
    assert refusal.value.field == "known_speaker_references"


# ---------------------------------------------------------------------- while it works


def test_progress_never_goes_back_and_ends_at_the_end(engine: VoiceprintDiarizer, spool: Write, three: Samples) -> None:
    steps = Steps()
    diarize(engine, spool(three), steps)
    steps.assert_monotonic()
    assert steps.calls[-1][0] == pytest.approx(len(three) / SAMPLE_RATE)
    assert max(after - before for (before, _), (after, _) in pairwise(steps.calls)) <= BLOCK_SECONDS


@pytest.mark.parametrize("cancel_at", [1, 2, 4, 6])
def test_it_stops_at_any_step(engine: VoiceprintDiarizer, spool: Write, three: Samples, cancel_at: int) -> None:
    steps = Steps(cancel_at)
    with pytest.raises(Cancelled):
        diarize(engine, spool(three), steps)
    assert len(steps.calls) == cancel_at


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[SpoolWriter]:
    with SpoolWriter(tmp_path / "growing.pcm") as writer:
        yield writer


def test_a_recording_that_still_arrives_is_heard_as_if_it_had_been_there(
    engine: VoiceprintDiarizer, spool: Write, three: Samples, growing: SpoolWriter
) -> None:
    data = encode_pcm(three, PcmEncoding.S16LE)
    pieces = iter([data[at : at + 99_999] for at in range(0, len(data), 99_999)])
    written = [0]

    def arrive(done: float, total: float | None) -> None:
        """Whenever the engine looks around, some more is there; then it ends."""
        assert done <= written[0] / 2 / SAMPLE_RATE
        assert total is None or done == pytest.approx(total) or written[0] == len(data)
        if piece := next(pieces, None):
            growing.write(piece)
            written[0] += len(piece)
        else:
            growing.finish()

    found = diarize(engine, str(growing.path), arrive)
    assert found == diarize(engine, spool(three))
    assert written[0] == len(data)


def test_an_upload_that_breaks_off_is_told(engine: VoiceprintDiarizer, growing: SpoolWriter) -> None:
    growing.write(bytes(1000))
    steps = Steps()

    def abandon(done: float, total: float | None) -> None:
        steps(done, total)
        if len(steps.calls) == 2:  # the first is before the file is opened
            growing.abandon()

    with pytest.raises(InvalidInput) as refusal:
        diarize(engine, str(growing.path), abandon)
    assert refusal.value.field == "file"


def test_requests_beside_each_other_do_not_hear_each_other(
    engine: VoiceprintDiarizer, tmp_path: Path, three: Samples
) -> None:
    recordings = [three[len(three) // 2 :], three[::2].copy()]
    paths = [tmp_path / f"{index}.pcm" for index in range(len(recordings))]
    for path, samples in zip(paths, recordings, strict=True):
        path.write_bytes(encode_pcm(samples, PcmEncoding.S16LE))
    alone = [diarize(engine, str(path)) for path in paths]
    together: dict[int, Turns] = {}

    def work(index: int) -> None:
        together[index] = diarize(engine, str(paths[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(paths))] == alone


@pytest.mark.skipif(
    not Path("/proc/self/status").exists() or not importlib.util.find_spec("espeakng_loader"), reason="needs Linux"
)
def test_a_long_recording_takes_little_memory() -> None:
    """A stand-in of a minute and a half, in a process of its own; an hour is in the bench."""
    command = [sys.executable, "-m", "tests.bench.diarization", "1.5"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    peak = float(run.stdout.split()[1])
    assert 50 < peak < 400
