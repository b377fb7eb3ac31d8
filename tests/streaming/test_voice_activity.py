from __future__ import annotations

import dataclasses
import math
import wave
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soxr
from hypothesis import given, strategies as st

from streaming.voice_activity import (
    SAMPLE_RATE,
    WINDOW,
    SileroVoiceActivity,
    SpeechStarted,
    SpeechStopped,
    TurnDetection,
    TurnDetector,
    TurnEvent,
    VoiceActivityState,
    find_turns,
)

Samples = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def silero() -> SileroVoiceActivity:
    return SileroVoiceActivity()


def read_wav(path: Path) -> Samples:
    with wave.open(str(path)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        mono = pcm.reshape(-1, file.getnchannels()).mean(axis=1)
        return np.asarray(soxr.resample(mono, file.getframerate(), SAMPLE_RATE), np.float32)


def seconds(turns: Iterable[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(start / SAMPLE_RATE, end / SAMPLE_RATE) for start, end in turns]


def samples(windows: float) -> int:
    return round(windows * WINDOW)


# ------------------------------------------------------------------ the model


def test_silence_around_speech_is_found(silero: SileroVoiceActivity, shared_audio: Path) -> None:
    speech = read_wav(shared_audio / "go-forward.wav")
    silence = np.zeros(SAMPLE_RATE * 2, np.float32)
    turns = seconds(find_turns(silero.over(np.concatenate((silence, speech, silence, speech, silence)))))
    assert len(turns) == 2
    length = len(speech) / SAMPLE_RATE
    for (start, end), offset in zip(turns, (2.0, 4.0 + length), strict=True):
        # The recording is "go forward ten meters" between about 0.5 s and 2.3 s.
        assert start == pytest.approx(offset + 0.2, abs=0.3)
        assert end == pytest.approx(offset + 2.5, abs=0.3)


def test_a_conversation_is_covered(silero: SileroVoiceActivity, shared_audio: Path) -> None:
    speech = np.zeros(30 * 100, bool)
    for line in (shared_audio / "two-speakers.rttm").read_text().splitlines():
        start, length = (float(field) for field in line.split()[3:5])
        speech[round(start * 100) : round((start + length) * 100)] = True
    found = np.zeros_like(speech)
    detection = TurnDetection(threshold=0.3, silence_duration=0.3)
    for start, end in seconds(find_turns(silero.over(read_wav(shared_audio / "two-speakers.wav")), detection)):
        found[round(start * 100) : round(end * 100)] = True
    assert found[speech].mean() > 0.97
    # Before the first word there are six seconds in which nobody speaks.
    assert not found[:600].any()


def test_many_streams_in_one_run_equal_each_alone(silero: SileroVoiceActivity, shared_audio: Path) -> None:
    recording = read_wav(shared_audio / "librivox-0930.wav")
    blocks = [recording[offset : offset + 16 * WINDOW] for offset in range(0, 24_000, 6_000)]
    alone = [silero.over(block) for block in blocks]
    streams = [VoiceActivityState() for _ in blocks]
    together = silero.over_many(streams, blocks)
    assert max(float(one.max()) for one in alone) > 0.9
    for one, many in zip(alone, together, strict=True):
        np.testing.assert_allclose(many, one, atol=1e-5)


def test_streams_with_blocks_of_different_length_share_runs(silero: SileroVoiceActivity) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 10 * WINDOW).astype(np.float32)
    streams = [VoiceActivityState() for _ in range(3)]
    found = silero.over_many(streams, [noise, noise[: 3 * WINDOW], noise[:100]])
    assert [len(one) for one in found] == [10, 3, 0]
    np.testing.assert_allclose(found[0], silero.over(noise), atol=1e-5)
    np.testing.assert_allclose(found[1], silero.over(noise[: 3 * WINDOW]), atol=1e-5)


@given(cuts=st.lists(st.integers(0, 20 * WINDOW), max_size=6))
def test_state_carried_over_any_blocks_equals_one_block(cuts: list[int]) -> None:
    silero = SHARED_MODEL
    spoken = VOICE_LIKE
    stream = VoiceActivityState()
    edges = [0, *sorted(cuts), len(spoken)]
    blocks = [spoken[start:end] for start, end in zip(edges, edges[1:], strict=False)]
    found = [silero.over(block, stream) for block in blocks[:-1]] + [silero.over(blocks[-1], stream, last=True)]
    np.testing.assert_allclose(np.concatenate(found), WHOLE, atol=1e-5)


def test_the_last_part_of_a_window_counts_when_the_stream_ends(silero: SileroVoiceActivity) -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, 2 * WINDOW + 1).astype(np.float32)
    assert len(silero.over(noise)) == 3
    stream = VoiceActivityState()
    assert len(silero.over(noise, stream)) == 2
    assert len(silero.over(noise[:0], stream, last=True)) == 1


def test_a_stream_keeps_no_hold_on_the_callers_buffer(silero: SileroVoiceActivity) -> None:
    buffer = np.random.default_rng(3).normal(0, 0.1, WINDOW + 100).astype(np.float32)
    kept, copied = VoiceActivityState(), VoiceActivityState()
    silero.over_many([kept, copied], [buffer, buffer.copy()])
    buffer[:] = 0.5
    rest = np.zeros(WINDOW, np.float32)
    one, other = silero.over_many([kept, copied], [rest, rest])
    np.testing.assert_array_equal(one, other)


NOISE = np.random.default_rng(1)
CLOCK = np.arange(SAMPLE_RATE * 4) / SAMPLE_RATE


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(np.zeros(CLOCK.shape), id="silence"),
        pytest.param(NOISE.normal(0, 0.001, CLOCK.shape), id="quiet hiss"),
        pytest.param(NOISE.normal(0, 0.5, CLOCK.shape).clip(-1, 1), id="loud noise"),
        pytest.param(0.5 * np.sin(2 * np.pi * 150 * CLOCK), id="150 Hz"),
        pytest.param(0.5 * np.sin(2 * np.pi * 440 * CLOCK), id="440 Hz"),
        pytest.param(0.5 * np.sin(2 * np.pi * 1000 * CLOCK), id="1 kHz"),
        pytest.param(np.sin(2 * np.pi * 50 * CLOCK).round() * 0.3, id="mains hum"),
        pytest.param((np.arange(len(CLOCK)) % 4000 == 0) * 1.0, id="clicks"),
    ],
)
def test_what_is_not_speech_is_no_turn(silero: SileroVoiceActivity, sound: npt.NDArray[np.float64]) -> None:
    detection = TurnDetection(threshold=0.3, min_speech=0.0)
    assert list(find_turns(silero.over(sound.astype(np.float32)), detection)) == []


def test_wrong_windows_are_refused(silero: SileroVoiceActivity) -> None:
    stream, window = VoiceActivityState(), np.zeros(WINDOW, np.float32)
    assert silero.probabilities([], []) == []
    with pytest.raises(ValueError, match="one window of 512"):
        silero.probabilities([stream], [window[:-1]])
    with pytest.raises(ValueError, match="one window of 512"):
        silero.probabilities([stream], [])
    with pytest.raises(ValueError, match="only once"):
        silero.probabilities([stream, stream], [window, window])
    with pytest.raises(ValueError, match="only once"):
        silero.over_many([stream, stream], [window, window])
    assert not stream.state.any()


# ------------------------------------------------------------------ turns


def run(detector: TurnDetector, *runs: tuple[float, float]) -> list[TurnEvent]:
    """Push runs of (probability, number of windows)."""
    return [event for p, count in runs for _ in range(int(count)) for event in detector.push(p)]


WINDOWS_PER_SECOND = SAMPLE_RATE / WINDOW
PLAIN = TurnDetection(prefix_padding=0.0, trailing_padding=0.0, silence_duration=0.32, min_speech=0.0)


def test_a_turn_has_padding_on_both_sides() -> None:
    detector = TurnDetector()
    events = run(detector, (0.0, 40), (0.9, 40), (0.0, 40))
    assert events == [
        SpeechStarted(samples(40) - 4800, samples(40)),
        SpeechStopped(samples(80) + 4000, forced=False),
    ]
    assert not detector.in_speech


def test_events_come_as_soon_as_they_are_known() -> None:
    detector = TurnDetector(dataclasses.replace(PLAIN, min_speech=0.25))
    assert run(detector, (0.0, 10), (0.9, 7)) == []
    assert not detector.in_speech
    assert run(detector, (0.9, 1)) == [SpeechStarted(samples(10), samples(10))]
    assert detector.in_speech
    assert run(detector, (0.0, 9)) == []
    assert detector.trailing_silence == pytest.approx(0.288)
    assert run(detector, (0.0, 1)) == [SpeechStopped(samples(18))]
    assert detector.trailing_silence == 0.0


def test_three_of_four_windows_are_speech() -> None:
    assert run(TurnDetector(PLAIN), *[(0.9, 2), (0.0, 2)] * 5) == []
    assert run(TurnDetector(PLAIN), (0.0, 2), (0.9, 2), (0.0, 1), (0.9, 1)) == [SpeechStarted(samples(2), samples(2))]


def test_short_noises_are_no_turn() -> None:
    detector = TurnDetector()
    assert run(detector, *[(0.0, 30), (0.99, 7)] * 5, (0.0, 30)) == []
    # Two short words with less than `silence_duration` between them are one turn.
    assert len(run(detector, (0.99, 5), (0.0, 5), (0.99, 5), (0.0, 30))) == 2


def test_the_padding_does_not_reach_before_the_stream_or_into_the_turn_before() -> None:
    detector = TurnDetector(TurnDetection(prefix_padding=1.0, trailing_padding=0.25, silence_duration=0.5))
    events = run(detector, (0.9, 20), (0.0, 16), (0.9, 20))
    assert [event.at_sample for event in events] == [0, samples(20) + 4000, samples(20) + 4000]


def test_the_padding_does_not_reach_beyond_what_was_heard() -> None:
    detector = TurnDetector(TurnDetection(silence_duration=0.1, trailing_padding=2.0))
    events = run(detector, (0.9, 20), (0.0, 10))
    assert events[-1] == SpeechStopped(samples(24))


def test_hysteresis() -> None:
    detector = TurnDetector(PLAIN)
    assert run(detector, (0.49, 50)) == []  # never reaches the threshold
    assert len(run(detector, (0.5, 4))) == 1
    assert run(detector, (0.36, 100)) == []  # speech until it is below 0.35
    assert run(detector, (0.34, 5), (0.36, 50)) == []  # neither silence nor speech: nothing changes
    assert run(detector, (0.34, 1)) == [SpeechStopped(samples(154))]


def test_speech_within_the_silence_goes_on() -> None:
    detector = TurnDetector(PLAIN)
    assert len(run(detector, (0.9, 20), *[(0.0, 9), (0.9, 1)] * 5)) == 1
    assert detector.in_speech


def test_a_long_turn_is_cut_at_the_quietest_window() -> None:
    detection = dataclasses.replace(PLAIN, max_speech=100 * WINDOW / SAMPLE_RATE)
    detector = TurnDetector(detection)
    # The pause at window 20 is deeper, but too early: only the last 30 % are looked at.
    events = run(detector, (0.9, 20), (0.0, 3), (0.9, 57), (0.6, 1), (0.9, 40))
    assert events == [
        SpeechStarted(0, 0),
        SpeechStopped(samples(80.5), forced=True),
        SpeechStarted(samples(80.5), samples(80.5)),
    ]
    assert detector.in_speech
    assert detector.finish() == [SpeechStopped(samples(121))]


def test_an_even_turn_is_cut_at_its_limit() -> None:
    detection = dataclasses.replace(PLAIN, max_speech=1.0)
    turns = list(find_turns([0.9] * 200, detection))
    assert all(0.9 < (end - start) / SAMPLE_RATE <= 1.0 for start, end in turns[:-1])
    assert turns[0][0] == 0
    assert turns[-1][1] == samples(200)
    assert [end for _, end in turns[:-1]] == [start for start, _ in turns[1:]]


def test_a_turn_cut_in_its_last_silence_does_not_go_on() -> None:
    detection = dataclasses.replace(PLAIN, max_speech=50 * WINDOW / SAMPLE_RATE, silence_duration=2.0)
    detector = TurnDetector(detection)
    events = run(detector, (0.9, 40), (0.1, 30))
    assert events == [SpeechStarted(0, 0), SpeechStopped(samples(49.5), forced=True)]
    assert run(detector, (0.1, 30), (0.9, 5)) == [SpeechStarted(samples(100), samples(100))]


def test_the_silence_of_a_cut_turn_still_ends_it() -> None:
    detection = dataclasses.replace(PLAIN, max_speech=50 * WINDOW / SAMPLE_RATE)
    events = run(TurnDetector(detection), (0.9, 40), (0.05, 1), (0.9, 4), (0.1, 20))
    assert events == [
        SpeechStarted(0, 0),
        SpeechStopped(samples(40.5), forced=True),
        SpeechStarted(samples(40.5), samples(40.5)),
        SpeechStopped(samples(45)),
    ]


def test_a_turn_without_limit() -> None:
    detector = TurnDetector(dataclasses.replace(PLAIN, max_speech=math.inf))
    assert len(run(detector, (0.9, 3000))) == 1
    assert detector.finish() == [SpeechStopped(samples(3000))]


def test_a_manual_commit_ends_the_turn_and_speech_goes_on_as_another() -> None:
    detector = TurnDetector()
    run(detector, (0.9, 20))
    assert detector.force_stop() == [SpeechStopped(samples(20), forced=True)]
    assert not detector.in_speech
    assert detector.force_stop() == []
    assert run(detector, (0.9, 20)) == [SpeechStarted(samples(20), samples(20))]


def test_a_manual_commit_takes_speech_too_short_to_have_been_reported() -> None:
    detector = TurnDetector(TurnDetection(min_speech=1.0))
    assert run(detector, (0.0, 20), (0.9, 10)) == []
    assert detector.force_stop() == [
        SpeechStarted(samples(20) - 4800, samples(20)),
        SpeechStopped(samples(30), forced=True),
    ]


def test_reset_forgets_the_turn_but_not_the_time() -> None:
    detector = TurnDetector()
    run(detector, (0.9, 20))
    detector.reset()
    assert not detector.in_speech
    assert detector.finish() == []
    assert run(detector, (0.9, 20)) == [SpeechStarted(samples(20), samples(20))]
    assert detector.now == samples(40)


def test_settings_change_within_a_turn() -> None:
    detector = TurnDetector(TurnDetection(silence_duration=10.0))
    assert len(run(detector, (0.9, 20), (0.0, 100))) == 1
    detector.settings = TurnDetection(silence_duration=0.5)
    assert run(detector, (0.0, 1)) == [SpeechStopped(samples(20) + 4000)]
    detector.settings = TurnDetection(threshold=0.95)
    assert run(detector, (0.9, 100)) == []
    detector.settings = TurnDetection(threshold=0.3, min_speech=0.0)
    assert len(run(detector, (0.31, 4))) == 1


def test_the_recordings_end_ends_a_turn() -> None:
    probabilities = [0.0] * 10 + [0.9] * 10
    assert list(find_turns(probabilities, PLAIN, total_samples=samples(19) + 7)) == [(samples(10), samples(19) + 7)]
    assert list(find_turns([*probabilities, 0.0, 0.0], PLAIN)) == [(samples(10), samples(20))]
    assert list(find_turns([], PLAIN)) == []


def test_audio_before_keep_from_is_not_needed() -> None:
    detector = TurnDetector()
    run(detector, (0.0, 100))
    assert detector.keep_from == samples(97) - 4800
    (started,) = run(detector, (0.9, 8))
    assert started.at_sample == samples(100) - 4800 == detector.keep_from
    run(detector, (0.9, 100), (0.0, 16))
    assert detector.keep_from > started.at_sample


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 1.01),
        ("threshold", math.nan),
        ("prefix_padding", -0.1),
        ("silence_duration", math.inf),
        ("min_speech", math.nan),
        ("trailing_padding", -1.0),
        ("max_speech", 0.0),
        ("max_speech", math.nan),
    ],
)
def test_senseless_settings_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        TurnDetection(**{name: value})


settings = st.builds(
    TurnDetection,
    threshold=st.floats(0.0, 1.0),
    prefix_padding=st.floats(0.0, 1.0),
    silence_duration=st.floats(0.0, 1.0),
    min_speech=st.floats(0.0, 0.5),
    max_speech=st.floats(0.1, 3.0) | st.just(math.inf),
    trailing_padding=st.floats(0.0, 1.0),
)
probabilities = st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0]) | st.floats(0.0, 1.0)
runs_of_speech = st.tuples(probabilities, st.integers(1, 40)).map(lambda run: [run[0]] * run[1])
commands = st.sampled_from(["force_stop", "reset"])


@given(steps=st.lists(runs_of_speech | settings | commands, max_size=25))
def test_turns_alternate_and_never_overlap(steps: list[list[float] | TurnDetection | str]) -> None:
    detector = TurnDetector()
    open_turn: SpeechStarted | None = None
    last_end = 0
    kept_from = 0

    def check(events: Sequence[TurnEvent]) -> None:
        nonlocal open_turn, last_end
        for event in events:
            assert 0 <= event.at_sample <= detector.now
            if isinstance(event, SpeechStarted):
                assert open_turn is None
                assert max(last_end, kept_from) <= event.at_sample <= event.speech_sample
                open_turn = event
            else:
                assert open_turn is not None
                assert event.at_sample > open_turn.at_sample
                open_turn, last_end = None, event.at_sample
        assert detector.in_speech == (open_turn is not None)

    for step in steps:
        if isinstance(step, TurnDetection):
            detector.settings = step
        elif step == "force_stop":
            kept_from = detector.keep_from
            check(detector.force_stop())
        elif step == "reset":
            detector.reset()
            open_turn, last_end = None, detector.now
        else:
            for probability in step:
                kept_from = detector.keep_from
                check(detector.push(float(probability)))
    check(detector.finish())
    assert open_turn is None


@given(
    st.lists(runs_of_speech, max_size=20).map(lambda runs: [p for run in runs for p in run]),
    settings.filter(lambda detection: detection.max_speech > 2.0 + detection.prefix_padding),
)
def test_turns_are_no_longer_than_allowed(heard: list[float], detection: TurnDetection) -> None:
    for start, end in find_turns(heard, detection):
        assert end - start <= detection.max_speech * SAMPLE_RATE


SHARED_MODEL = SileroVoiceActivity()
# A buzz with a voice's formants: enough to move the model's state and its output.
_pulse = (np.arange(20 * WINDOW + 77) % 130 < 4).astype(np.float32)
_formant = np.sin(2 * np.pi * 700 * np.arange(200) / SAMPLE_RATE) * np.exp(-np.arange(200) / 40)
VOICE_LIKE: Samples = np.convolve(_pulse, _formant)[: len(_pulse)].astype(np.float32) * 0.3
WHOLE = SHARED_MODEL.over(VOICE_LIKE)
