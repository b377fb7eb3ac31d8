"""Live sessions and their leases: what is held back, what is given up, and whose mistake it was."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import anyio
import msgspec
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from media.live import BACKLOG_SECONDS, UTTERANCES_AT_ONCE, LiveListening
from media.live_speech import LiveSpeech, engine_voice
from media.metrics import Metrics
from media.voice_activity import VoiceActivityLane
from models.catalog import Card
from models.errors import EngineError, EngineFailed
from models.interfaces import EngineRequest, EngineResult, Samples, SegmentResult, SpeechChunk
from models.pool import Pool
from streaming import listening_events, speech_events
from streaming.listening_events import ListeningSettings
from streaming.recognition import RecognitionSession
from streaming.speech_contexts import HELD_BYTES_LIMIT
from streaming.speech_events import Append, AudioDelta, Cancel, Commit, ItemDone, ItemFailed, SpeechSettings
from streaming.transcript import Segment
from streaming.voice_activity import SAMPLE_RATE, SileroVoiceActivity, VoiceActivityState

VOICE = msgspec.convert(
    {"id": "voice", "task": "speech", "engine": "x", "name": "x", "openai_voices": {"alloy": "one"}}, Card
)
EARS = msgspec.convert({"id": "ears", "task": "transcription", "engine": "x", "name": "x"}, Card)
SPEECH = np.full(SAMPLE_RATE // 2, 0.5, np.float32)
PAUSE = np.zeros(SAMPLE_RATE, np.float32)


class Engine:
    """Stands in for the pool: `answer` says what an engine makes of a request. Counts what is held and taken."""

    def __init__(self, answer: Callable[[ScriptedRun], AsyncIterator[EngineResult]]) -> None:
        self.answer = answer
        self.leases = 0
        self.most_leases = 0
        self.taken = 0

    @asynccontextmanager
    async def lease(
        self, card: Card, *, priority: int = 0, begun: bool = False, request: EngineRequest | None = None
    ) -> AsyncIterator[Engine]:
        self.leases += 1
        self.most_leases = max(self.most_leases, self.leases)
        try:
            await checkpoint()
            yield self
        finally:
            self.leases -= 1

    @asynccontextmanager
    async def run(self, request: EngineRequest) -> AsyncIterator[ScriptedRun]:
        yield ScriptedRun(self, request)


class ScriptedRun:
    """One request in progress."""

    def __init__(self, engine: Engine, request: EngineRequest) -> None:
        self.request = request
        self.heard = 0
        self.fed_up = anyio.Event()
        self._engine = engine

    async def __aiter__(self) -> AsyncIterator[EngineResult]:
        async for result in self._engine.answer(self):
            self._engine.taken += 1
            yield result

    async def feed(self, samples: Samples, *, pausing: bool = False) -> None:
        self.heard += len(samples)
        await checkpoint()

    async def finish_feeding(self) -> None:
        self.fed_up.set()


async def sings(run: ScriptedRun) -> AsyncIterator[EngineResult]:
    """A second of sound at a time, for an hour."""
    for _ in range(3600):
        await checkpoint()
        yield SpeechChunk(np.zeros(24_000, np.float32), 24_000)


async def says_a_second(run: ScriptedRun) -> AsyncIterator[EngineResult]:
    await checkpoint()
    yield SpeechChunk(np.zeros(24_000, np.float32), 24_000)


async def breaks(run: ScriptedRun) -> AsyncIterator[EngineResult]:
    await checkpoint()
    yield SpeechChunk(np.zeros(24_000, np.float32), 24_000)
    raise EngineFailed("it broke")


async def counts(run: ScriptedRun) -> AsyncIterator[EngineResult]:
    """Hears a turn to its end, and says how many samples it had."""
    await run.fed_up.wait()
    yield SegmentResult(Segment(str(run.heard), 0.0, run.heard / SAMPLE_RATE))


async def never_answers(run: ScriptedRun) -> AsyncIterator[EngineResult]:
    await anyio.sleep_forever()
    yield SegmentResult(Segment("", 0.0, 0.0))


class Loudness:
    """Speech is what is loud. `gate` holds the verdict back."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.asked = threading.Event()
        self.gate.set()

    def probabilities(self, streams: Sequence[VoiceActivityState], windows: Sequence[Samples]) -> list[float]:
        self.asked.set()
        assert self.gate.wait(10)
        return [float(np.abs(window).max() > 0.1) for window in windows]


def speaker(engine: Engine, **settings: Any) -> LiveSpeech:
    wanted = SpeechSettings(model="voice", **settings)
    return LiveSpeech(wanted, cast(Pool, engine), lambda _: VOICE, Metrics(), lambda: 0.0)


@asynccontextmanager
async def lane_of(model: Loudness) -> AsyncIterator[VoiceActivityLane]:
    lane = VoiceActivityLane(cast(SileroVoiceActivity, model))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lane.run)
        yield lane
        tasks.cancel_scope.cancel()


def listener(engine: Engine, lane: VoiceActivityLane, **settings: Any) -> LiveListening:
    session = RecognitionSession(ListeningSettings(**settings))
    return LiveListening(session, cast(Pool, engine), EARS, lane, Metrics(), lambda: 0.0)


def pcm(parts: Iterable[Samples]) -> bytes:
    return b"".join((part * 32767).astype("<i2").tobytes() for part in parts)


async def finals(live: LiveListening) -> list[listening_events.ServerEvent]:
    """Drain, and keep what turns became."""
    live.drain()
    events: list[listening_events.ServerEvent] = []
    while (event := await live.next_event()) is not None:
        if isinstance(event, listening_events.Completed | listening_events.TurnFailed):
            events.append(event)
    return events


# ---------------------------------------------------------------------- speaking


async def test_speech_is_spoken_and_its_lease_given_back() -> None:
    engine = Engine(says_a_second)
    async with speaker(engine) as live:
        live.receive(Append("a", "Hello there."))
        live.receive(Commit("a"))
        live.drain()
        events: list[speech_events.ServerEvent] = []
        while (event := await live.next_event()) is not None:
            events.append(event)
    assert sum(event.seconds for event in events if isinstance(event, AudioDelta)) == pytest.approx(1.0)
    assert isinstance(events[-1], ItemDone)
    assert engine.leases == 0


async def test_nobody_takes_more_audio_than_a_listener_may_have_waiting() -> None:
    engine = Engine(sings)
    async with speaker(engine, paced=False) as live:
        live.receive(Append("a", "La."))
        live.receive(Commit("a"))
        await anyio.wait_all_tasks_blocked()
        second = 2 * 24_000
        assert engine.taken * second <= HELD_BYTES_LIMIT + 2 * second
        held = engine.taken
        for _ in range(40):
            await live.next_event()
        await anyio.wait_all_tasks_blocked()
        assert engine.taken > held  # there was room again
        assert engine.leases == 1
    assert engine.leases == 0


async def test_cancelling_a_context_gives_its_lease_back_at_once() -> None:
    engine = Engine(sings)
    async with speaker(engine) as live:
        live.receive(Append("a", "La."))
        live.receive(Commit("a"))
        await anyio.wait_all_tasks_blocked()
        assert engine.leases == 1
        live.receive(Cancel("a"))
        await anyio.wait_all_tasks_blocked()
        assert engine.leases == 0


async def test_a_failed_engine_is_an_event_and_not_the_end() -> None:
    engine = Engine(breaks)
    async with speaker(engine) as live:
        live.receive(Append("a", "Hello."))
        live.receive(Commit("a"))
        events = [await live.next_event() for _ in range(8)]
        failed = next(event for event in events if isinstance(event, ItemFailed))
        assert isinstance(failed.error, EngineError)
        assert isinstance(events[-1], ItemDone)
        engine.answer = says_a_second
        live.receive(Append("a", "Again."))
        live.receive(Commit("a"))
        while not isinstance(event := await live.next_event(), AudioDelta):
            assert event is not None
    assert engine.leases == 0


def test_openai_names_mean_this_models_voices() -> None:
    assert engine_voice(VOICE, "Alloy") == "one"
    assert engine_voice(VOICE, "two") == "two"
    assert engine_voice(msgspec.structs.replace(VOICE, default_voice="three"), "") == "three"


# ---------------------------------------------------------------------- listening


async def test_every_turn_of_a_flood_is_heard_by_few_recognisers() -> None:
    engine = Engine(counts)
    async with lane_of(Loudness()) as lane, listener(engine, lane) as live:
        with anyio.fail_after(20):
            await live.append(pcm([SPEECH, PAUSE] * 100))
            events = await finals(live)
    assert len(events) == 100
    assert all(isinstance(event, listening_events.Completed) and int(event.text) >= len(SPEECH) for event in events)
    assert engine.most_leases <= UTTERANCES_AT_ONCE
    assert engine.leases == 0


async def test_a_flood_waits_outside_while_nobody_listens() -> None:
    engine = Engine(never_answers)
    async with lane_of(Loudness()) as lane, listener(engine, lane) as live, anyio.create_task_group() as tasks:
        tasks.start_soon(live.append, pcm([SPEECH, PAUSE] * 400))
        with anyio.fail_after(20):
            while live.session.received <= BACKLOG_SECONDS:
                await checkpoint()
            for _ in range(1000):
                await checkpoint()
        assert live.session.received < 2 * BACKLOG_SECONDS
        tasks.cancel_scope.cancel()


async def test_leaving_while_ones_windows_are_judged_harms_nobody() -> None:
    """The verdict on a turn's beginning comes when its session has gone."""
    model, engine = Loudness(), Engine(counts)
    async with lane_of(model) as lane:
        model.gate.clear()
        async with listener(engine, lane) as gone:
            await gone.append(pcm([SPEECH, PAUSE]))
            assert await anyio.to_thread.run_sync(model.asked.wait, 10)
        model.gate.set()
        async with listener(engine, lane) as live:
            with anyio.fail_after(10):
                await live.append(pcm([SPEECH, PAUSE]))
                assert len(await finals(live)) == 1
    assert engine.most_leases == 1


class Broken(RecognitionSession):
    """A session with a mistake in it."""

    def heard(self, probabilities: Sequence[float]) -> None:
        raise ZeroDivisionError


async def test_a_mistake_in_one_session_ends_that_session_alone() -> None:
    engine = Engine(counts)
    async with lane_of(Loudness()) as lane:
        broken = LiveListening(Broken(ListeningSettings()), cast(Pool, engine), EARS, lane, Metrics(), lambda: 0.0)

        async def use() -> None:
            async with broken:
                await broken.append(pcm([SPEECH]))
                await anyio.sleep_forever()

        with pytest.raises(ExceptionGroup) as raised:
            await use()
        assert raised.group_contains(ZeroDivisionError)
        async with listener(engine, lane) as live:
            with anyio.fail_after(10):
                await live.append(pcm([SPEECH, PAUSE]))
                assert len(await finals(live)) == 1


async def test_a_dead_recogniser_fails_its_turn_and_the_next_one_is_heard() -> None:
    async def dies(run: ScriptedRun) -> AsyncIterator[EngineResult]:
        await checkpoint()
        raise EngineFailed("it died")
        yield

    engine = Engine(dies)
    async with lane_of(Loudness()) as lane, listener(engine, lane) as live:
        with anyio.fail_after(10):
            await live.append(pcm([SPEECH, PAUSE]))
            while not isinstance(event := await live.next_event(), listening_events.TurnFailed):
                assert event is not None
            assert isinstance(event.error, EngineFailed)
            engine.answer = counts
            await live.append(pcm([SPEECH, PAUSE]))
            assert isinstance((await finals(live))[-1], listening_events.Completed)
    assert engine.leases == 0


async def test_draining_commits_the_open_turn_and_hears_nothing_more() -> None:
    engine = Engine(counts)
    async with lane_of(Loudness()) as lane, AsyncExitStack() as stack:
        live = await stack.enter_async_context(listener(engine, lane, sample_rate=24_000))
        with anyio.fail_after(10):
            await live.append(pcm([SPEECH]))
            live.drain()
            await live.append(pcm([SPEECH, PAUSE]))  # the microphone does not know yet
            events = await finals(live)
    assert [type(event) for event in events] == [listening_events.Completed]
    assert live.session.received < 0.4  # half a second at 16 kHz is a third at 24 kHz
