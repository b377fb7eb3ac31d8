"""Speech and its leases: who is served first, what an engine is asked, and what a book costs."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import msgspec
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from media.live_speech import FIRST_ADVANTAGE, LiveSpeech, engine_request, lane_priority, spoken, voice_traits
from media.metrics import Metrics
from models.admission import Admission
from models.catalog import Card
from models.errors import AtCapacity, UnknownModel
from models.interfaces import EngineRequest, SpeechChunk, SpeechRequest
from models.pool import Pool
from streaming.speech_events import Append, AudioDelta, Commit, ItemDone, ItemFailed, Speak, SpeechSettings
from streaming.spoken_text import VoiceTraits

VOICE = msgspec.convert({"id": "voice", "task": "speech", "engine": "x", "name": "x", "normalizes": True}, Card)
SETTINGS = SpeechSettings(model="voice", paced=False)
SECOND = SpeechChunk(np.full(24_000, 0.1, np.float32), 24_000)


class OnePlace:
    """Stands in for a pool whose engine takes one piece at a time, and makes a second of each when told to."""

    def __init__(self, *, free: bool = False, queue: int = 64) -> None:
        self.begun: list[str] = []
        self._admission = Admission("voice", 1, queue, lambda: 0.0)
        self._turns = anyio.Semaphore(0)
        self._free = free

    async def work_on(self) -> None:
        """The engine finishes the piece it has."""
        self._turns.release()
        await anyio.wait_all_tasks_blocked()

    @asynccontextmanager
    async def lease(self, card: Card, *, priority: int, begun: bool, request: EngineRequest) -> AsyncIterator[OnePlace]:
        slot = await self._admission.acquire(priority, begun=begun)
        try:
            yield self
        finally:
            self._admission.release(slot)

    @asynccontextmanager
    async def run(self, request: SpeechRequest) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        self.begun.append(request.text)
        yield self._results()

    async def _results(self) -> AsyncIterator[SpeechChunk]:
        if self._free:
            await checkpoint()
        else:
            await self._turns.acquire()
        yield SECOND


def live(pool: OnePlace, settings: SpeechSettings = SETTINGS, *, remembers: bool = True) -> LiveSpeech:
    return LiveSpeech(settings, cast(Pool, pool), lambda _: VOICE, Metrics(), lambda: 0.0, remembers=remembers)


async def test_a_beginning_waits_for_nothing_but_the_piece_in_work() -> None:
    """Others have more to say, all of them asked first."""
    pool = OnePlace()
    async with live(pool) as busy, live(pool) as newcomer:
        for name in ("Anna", "Bert", "Carl"):
            busy.receive(Append(name, f"Here begins {name}. {name} goes on. "))
            busy.receive(Commit(name))
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            await pool.work_on()
        assert pool.begun[3:] == [" Anna goes on."]  # in work; the others wait
        newcomer.receive(Append("n", "May I? "))
        newcomer.receive(Commit("n"))
        await anyio.wait_all_tasks_blocked()
        await pool.work_on()
        assert pool.begun[4:] == ["May I?"]
        await pool.work_on()
        await pool.work_on()
        await pool.work_on()
        assert set(pool.begun[5:]) == {" Bert goes on.", " Carl goes on."}


async def test_a_crowd_at_the_door_does_not_break_off_what_is_being_said() -> None:
    pool = OnePlace(queue=2)
    async with live(pool) as busy, live(pool) as crowd:
        busy.receive(Append("a", "Here is Anna. Anna goes on. "))
        busy.receive(Commit("a"))
        await anyio.wait_all_tasks_blocked()
        for number in range(4):
            crowd.receive(Append(str(number), "Let us in. "))
            crowd.receive(Commit(str(number)))
        await anyio.wait_all_tasks_blocked()
        for _ in range(4):
            await pool.work_on()
        assert pool.begun == ["Here is Anna.", "Let us in.", "Let us in.", " Anna goes on."]
        failed = [event for _ in range(10) if isinstance(event := crowd.session.next_event(0.0), ItemFailed)]
        assert [type(event.error) for event in failed] == [AtCapacity, AtCapacity]


def test_who_runs_dry_first_is_served_first() -> None:
    def piece(in_hand: float, *, first: bool = False) -> Speak:
        return Speak(1, "text", SETTINGS, in_hand, first)

    beginning, dry, supplied = piece(0.0, first=True), piece(0.0), piece(4.0)
    assert lane_priority(beginning, 0.0) > lane_priority(dry, 0.0) > lane_priority(supplied, 0.0)
    assert lane_priority(dry, 0.0) > lane_priority(beginning, FIRST_ADVANTAGE + 0.1), "who waits long enough is served"
    assert lane_priority(supplied, 0.0) == lane_priority(piece(1.0), 3.0)


def test_an_engine_is_asked_what_it_takes_and_nothing_else() -> None:
    wanted = SpeechSettings(voice="v", language="en", speed=1.5, instructions="softly", extra_params={"a": 1, "b": 2})
    assert engine_request(VOICE, "Hi.", wanted) == SpeechRequest("Hi.", "v", "en", 1.5)
    able = msgspec.structs.replace(VOICE, takes_instructions=True, extra_params=("b",))
    assert engine_request(able, "Hi.", wanted) == SpeechRequest("Hi.", "v", "en", 1.5, "softly", {"b": 2})


def test_a_voice_has_the_language_it_is_asked_for_or_its_own() -> None:
    card = msgspec.structs.replace(
        VOICE,
        normalizes=False,
        languages=("en",),
        voice_languages={"f": "fr"},
        default_voice="f_one",
        max_input_chars=9,
    )
    assert voice_traits(lambda _: card, SETTINGS) == VoiceTraits(9, False, "fr")
    assert voice_traits(lambda _: card, SETTINGS.changed({"voice": "a_two"})) == VoiceTraits(9, False, "en")
    assert voice_traits(lambda _: card, SETTINGS.changed({"language": "de"})) == VoiceTraits(9, False, "de")

    def absent(name: str) -> Card:
        raise UnknownModel("no such model")

    assert voice_traits(absent, SETTINGS) == VoiceTraits()


SENTENCE = "It was a bright cold day in spring, and every clock of the town struck at once. "


async def peak_of(characters: int) -> tuple[int, int]:
    """The most memory in use while a text is spoken, in bytes beyond the text itself, and how much was spoken."""
    pool = OnePlace(free=True)
    text = SENTENCE * (characters // len(SENTENCE))
    seconds = 0.0
    tracemalloc.start()
    try:
        async with live(pool, remembers=False) as speaking:
            async for event in spoken(speaking, text):
                if isinstance(event, AudioDelta):
                    seconds += event.seconds
        return tracemalloc.get_traced_memory()[1], sum(len(piece) for piece in pool.begun)
    finally:
        tracemalloc.stop()


async def test_a_book_is_spoken_in_the_memory_of_a_page() -> None:
    page, said = await peak_of(20_000)
    assert said == 20_000 // len(SENTENCE) * len(SENTENCE) - 1
    book, said = await peak_of(400_000)
    assert said == 400_000 // len(SENTENCE) * len(SENTENCE) - 1
    # The stand-in notes every piece it was asked for.
    assert book - page < 1_500_000


@pytest.mark.parametrize("text", ["", " ", "\n\n \t"])
async def test_a_blank_text_is_over_at_once(text: str) -> None:
    pool = OnePlace(free=True)
    async with live(pool, remembers=False) as speaking:
        with anyio.fail_after(30):
            assert [event async for event in spoken(speaking, text)] == []
    assert pool.begun == []


@pytest.mark.parametrize("text", ["  \n One. ", "One.\n\n\n" + " " * 20_000 + "Two.", "word" * 30_000])
async def test_a_text_is_spoken_whole_however_it_is_written(text: str) -> None:
    pool = OnePlace(free=True)
    async with live(pool, remembers=False) as speaking:
        with anyio.fail_after(30):
            events = [event async for event in spoken(speaking, text)]
    assert "".join("".join(pool.begun).split()) == "".join(text.split())
    assert events
    assert not any(isinstance(event, ItemDone) for event in events)
