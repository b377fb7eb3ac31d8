"""What breaks stays small: workers that die, requests that kill, clients that vanish, stall or flood."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.journeys.faults import (
    Gauges,
    MemoryWatch,
    descriptors,
    eventually,
    go_deaf,
    hear_again,
    is_alive,
    kill_workers,
    threads,
    vanish,
    write_cards,
)
from tests.journeys.recordings import speak
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Socket, encoded, of_kind, open_socket

SPEECH, REALTIME = "/v1/audio/speech/websocket", "/v1/realtime"
APPEND_TEXT, COMMIT_TEXT, CANCEL = "input_text_buffer.append", "input_text_buffer.commit", "context.cancel"
APPEND_AUDIO, COMMIT_AUDIO = "input_audio_buffer.append", "input_audio_buffer.commit"
AUDIO, DONE = "conversation.item.audio_output.delta", "conversation.item.audio_output.done"
TTS_FAILED = "conversation.item.tts.failed"
TRANSCRIPTION = "conversation.item.input_audio_transcription"
TOGETHER = {"model": "pocketsphinx", "input_audio_format": "pcm_s16le_16000", "turn_detection": "none"}
OPENAI = {"intent": "transcription", "model": "pocketsphinx"}
MANUAL_16K = {
    "type": "transcription",
    "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16_000}, "turn_detection": None}},
}
STALL_SECONDS = 2.0
MB = 1024 * 1024
SENTENCE = "Nobody is going to listen to this sentence to its very end. "

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with scripted engines beside the embedded ones, whose patience is short."""
    folder = tmp_path_factory.mktemp("faults")
    cards = write_cards(folder / "cards", ["dies-on-socket", "dies-on-rest", "poisoned", "patient"])
    settings = {"SONOREEL_WARM": "espeak-ng,pocketsphinx", "SONOREEL_STALL_SECONDS": str(STALL_SECONDS)}
    with running_server(folder / "data", SONOREEL_MODELS_DIR=cards, **settings) as server:
        yield server
        assert not [line for line in server.log if "Traceback" in line]


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


@pytest.fixture
async def gauges(server: ServerProcess, client: httpx.AsyncClient) -> AsyncIterator[Gauges]:
    """The server's numbers; a test leaves nothing running behind."""
    gauges = Gauges(server, client)
    await eventually(gauges.at_rest)
    yield gauges
    await eventually(gauges.at_rest)


@pytest.fixture(scope="module")
def speech(server: ServerProcess) -> bytes:
    """A sentence, 16-bit PCM at 16 kHz."""
    return speak(server, "Go forward ten meters.", model="espeak-ng")


@contextlib.asynccontextmanager
async def session(server: ServerProcess, path: str, query: dict[str, Any]) -> AsyncIterator[Socket]:
    async with open_socket(server, path, query) as socket:
        assert (await socket.receive())["type"] == "session.created"
        yield socket


async def say(socket: Socket, text: str, context: str = "default") -> None:
    await socket.send(APPEND_TEXT, text=text, context_id=context)
    await socket.send(COMMIT_TEXT, context_id=context)


async def hear(socket: Socket, audio: bytes) -> None:
    for start in range(0, len(audio), 3200):
        await socket.send(APPEND_AUDIO, audio=encoded(audio[start : start + 3200]))


# ---------------------------------------------------------------------- workers that die


async def test_a_dead_worker_fails_its_items_and_the_socket_goes_on(server: ServerProcess, gauges: Gauges) -> None:
    async with session(server, SPEECH, {"model": "dies-on-socket", "sample_rate": 16_000}) as socket:
        await say(socket, "step", "bystander")
        await socket.until(AUDIO, context_id="bystander")
        await say(socket, "kill", "culprit")
        while len(of_kind(socket.frames, TTS_FAILED)) < 2:
            await socket.receive()
        failed = {frame["context_id"]: frame["error"] for frame in of_kind(socket.frames, TTS_FAILED)}
        assert set(failed) == {"bystander", "culprit"}
        for error in failed.values():
            assert (error["type"], error["code"]) == ("server_error", "engine_failed")
        await say(socket, "say 3", "culprit")
        item = (await socket.until(AUDIO))[-1]["item_id"]
        await socket.until(DONE, item_id=item)


@pytest.mark.parametrize("dialect", ["together", "openai"])
async def test_a_dead_worker_fails_the_turn_and_the_socket_goes_on(
    server: ServerProcess, gauges: Gauges, speech: bytes, dialect: str
) -> None:
    async with session(server, REALTIME, TOGETHER if dialect == "together" else OPENAI) as socket:
        if dialect == "openai":
            await socket.send("session.update", session=MANUAL_16K)
            await socket.until("session.updated")
        await hear(socket, speech)

        async def is_listening() -> bool:
            return await gauges.running("pocketsphinx") == 1

        await eventually(is_listening)
        kill_workers(server)

        async def has_failed() -> bool:
            return await gauges.running("pocketsphinx") == 0

        await eventually(has_failed)
        await socket.send(COMMIT_AUDIO)
        failed = (await socket.until(f"{TRANSCRIPTION}.failed"))[-1]
        assert (failed["error"]["type"], failed["error"]["code"]) == ("server_error", "engine_failed")
        if dialect == "together":
            assert failed["event_type"] == "completed"
        assert failed["item_id"] == of_kind(socket.frames, "input_audio_buffer.committed")[-1]["item_id"]

        await hear(socket, speech)
        await socket.send(COMMIT_AUDIO)
        completed = (await socket.until(f"{TRANSCRIPTION}.completed"))[-1]
        assert completed["transcript"]
        assert completed["item_id"] != failed["item_id"]


async def test_a_dead_worker_is_a_status_before_the_first_byte(
    server: ServerProcess, gauges: Gauges, client: httpx.AsyncClient
) -> None:
    # The codec holds the engine's one sample back, so not a byte has left when the worker dies.
    body = {"model": "dies-on-rest", "input": "kill before", "response_format": "mp3"}
    response = await client.post(f"{server.url}/v1/audio/speech", json=body)
    assert response.status_code == 500
    assert response.headers["x-should-retry"] == "true"
    assert response.json()["error"]["code"] == "engine_failed"
    response = await client.post(f"{server.url}/v1/audio/speech", json=body | {"input": "say 9"})
    assert response.status_code == 200


async def test_a_dead_worker_breaks_the_answer_off_visibly(
    server: ServerProcess, gauges: Gauges, client: httpx.AsyncClient
) -> None:
    pcm = {"model": "dies-on-rest", "response_format": "pcm", "sample_rate": 16_000}
    received: list[bytes] = []
    async with client.stream("POST", f"{server.url}/v1/audio/speech", json=pcm | {"input": "kill bytes"}) as answer:
        assert answer.status_code == 200
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend([chunk async for chunk in answer.aiter_raw()])

    events = pcm | {"input": "kill events", "stream": True}
    response = await client.post(f"{server.url}/v1/audio/speech", json=events)
    assert response.status_code == 200
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert "[DONE]" not in lines
    assert json.loads(lines[0])["type"] == AUDIO
    assert json.loads(lines[-1])["error"]["code"] == "engine_failed"


async def test_a_request_that_kills_is_not_tried_a_third_time(
    server: ServerProcess, gauges: Gauges, client: httpx.AsyncClient
) -> None:
    body = {"model": "poisoned", "input": "kill again", "response_format": "mp3"}
    answers = [await client.post(f"{server.url}/v1/audio/speech", json=body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [500, 500]
    workers = len(server.worker_pids())
    third = await client.post(f"{server.url}/v1/audio/speech", json=body)
    assert third.status_code == 422
    assert third.headers["x-should-retry"] == "false"
    assert third.json()["error"]["code"] == "poisoned_request"
    assert len(server.worker_pids()) == workers  # nobody started one for it
    async with session(server, SPEECH, {"model": "poisoned"}) as socket:
        await say(socket, "kill again")
        assert (await socket.until(TTS_FAILED))[-1]["error"]["code"] == "poisoned_request"
        await say(socket, "say 3")
        await socket.until(DONE)


async def test_a_full_engine_says_when_to_come_back(tmp_path: Any, client: httpx.AsyncClient) -> None:
    cards = write_cards(tmp_path / "cards", ["single"], concurrency=1, queue=0)
    with running_server(tmp_path / "data", SONOREEL_MODELS_DIR=cards, SONOREEL_WARM="single",
                        SONOREEL_MAX_LIVE_SESSIONS="2") as server:  # fmt: skip
        async with session(server, SPEECH, {"sample_rate": 16_000}) as holder, session(server, SPEECH, {}) as late:
            await say(holder, "step")
            await holder.until(AUDIO)
            refused = await client.post(f"{server.url}/v1/audio/speech", json={"model": "single", "input": "say 1"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-should-retry"] == "true"
            await say(late, "say 1")
            error = (await late.until(TTS_FAILED))[-1]["error"]
            assert (error["type"], error["code"]) == ("service_unavailable_error", "server_overloaded")

            handshake = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                         "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
            for path in (SPEECH, REALTIME):
                third = await client.get(f"{server.url}{path}?intent=transcription", headers=handshake)
                assert third.status_code == 503
                assert int(third.headers["retry-after"]) >= 1
                assert third.json()["error"]["code"] == "server_overloaded"

            await holder.send(CANCEL, context_id="default")
            await holder.until("context.cancelled")
            gauges = Gauges(server, client)

            async def is_free() -> bool:
                return await gauges.running("single") == 0

            await eventually(is_free)
            await say(late, "say 1")
            await late.until(DONE)
        assert not [line for line in server.log if "ERROR" in line or "Traceback" in line]


# ---------------------------------------------------------------------- clients that vanish


async def test_clients_that_crash_leave_nothing_behind(server: ServerProcess, gauges: Gauges, speech: bytes) -> None:
    async def speaker() -> None:
        async with open_socket(server, SPEECH, {"model": "patient", "sample_rate": 16_000}) as socket:
            await say(socket, "step")
            await socket.until(AUDIO)
            vanish(socket.connection)

    async def listener() -> None:
        async with open_socket(server, REALTIME, TOGETHER | {"model": "ears"}) as socket:
            await hear(socket, speech)
            await socket.until(f"{TRANSCRIPTION}.delta")
            vanish(socket.connection)

    async def crash(rounds: int) -> None:
        for _ in range(rounds):
            async with anyio.create_task_group() as clients:
                for _ in range(5):
                    clients.start_soon(speaker)
                    clients.start_soon(listener)
            await eventually(gauges.at_rest)

    await crash(1)
    pids = [server.process.pid, *server.worker_pids()]
    before = {pid: (descriptors(pid), threads(pid)) for pid in pids}
    await crash(5)

    async def is_clean() -> bool:  # a thread of a thread pool or two may come late
        return all(descriptors(pid) <= files and threads(pid) <= tasks + 2 for pid, (files, tasks) in before.items())

    await eventually(is_clean)
    assert server.worker_pids() == pids[1:]
    assert all(is_alive(pid) for pid in pids)


async def test_a_client_behind_a_dead_network_is_let_go(server: ServerProcess, gauges: Gauges, speech: bytes) -> None:
    """It neither closes nor answers: not the pings, that is, for nothing else is sent to it."""
    async with (
        open_socket(server, SPEECH, {"model": "patient", "sample_rate": 16_000}) as speaker,
        open_socket(server, REALTIME, TOGETHER) as listener,
    ):
        await say(speaker, "step")
        await speaker.until(AUDIO)
        await hear(listener, speech)
        assert await gauges.sessions() == 2
        for socket in (speaker, listener):
            go_deaf(socket.connection)
        await eventually(gauges.at_rest)
        for socket in (speaker, listener):
            vanish(socket.connection)


# ---------------------------------------------------------------------- clients that stall


@pytest.mark.parametrize("pacing", ["none", "realtime"])
async def test_a_stalled_listener_costs_little_and_is_closed(
    server: ServerProcess, gauges: Gauges, pacing: str
) -> None:
    memory = MemoryWatch(server)
    stalled_before = await gauges.read("sonoreel_stalled_clients_total")
    query = {"model": "espeak-ng", "pacing": pacing, "sample_rate": 48_000, "alignment": "word"}
    async with open_socket(server, SPEECH, query) as stalled, session(server, SPEECH, {"model": "espeak-ng"}) as other:
        for number in range(6):
            await say(stalled, (SENTENCE * 4000)[:180_000], f"context-{number}")
        await stalled.until(AUDIO)
        go_deaf(stalled.connection)

        async def is_closed() -> bool:
            memory.look()
            return await gauges.sessions() == 1 and await gauges.running() == 0

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(eventually, is_closed)
            for _ in range(3):  # nobody else notices
                with anyio.fail_after(3):
                    await say(other, "One two three.")
                    await other.until(DONE)
        assert memory.growth <= 24 * MB, f"{memory.growth / MB:.1f} MB"
        assert await gauges.read("sonoreel_stalled_clients_total") == stalled_before + 1
        hear_again(stalled.connection)
        _, code = await stalled.until_closed()  # it reads again, and learns why
        assert code == 1013


async def test_an_answer_that_nobody_reads_ends(
    server: ServerProcess, gauges: Gauges, client: httpx.AsyncClient
) -> None:
    body = {"model": "espeak-ng", "input": SENTENCE * 300, "response_format": "pcm", "sample_rate": 48_000}
    memory = MemoryWatch(server)
    async with client.stream("POST", f"{server.url}/v1/audio/speech", json=body) as answer:
        assert answer.status_code == 200
        assert await gauges.running("espeak-ng") == 1

        async def is_over() -> bool:
            memory.look()
            return await gauges.running("espeak-ng") == 0

        await eventually(is_over)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in answer.aiter_raw():
                pass
    assert memory.growth <= 24 * MB, f"{memory.growth / MB:.1f} MB"


async def test_an_unread_stream_of_refusals_is_not_kept(server: ServerProcess, gauges: Gauges) -> None:
    memory = MemoryWatch(server)
    async with session(server, SPEECH, {"model": "espeak-ng"}) as flood, anyio.create_task_group() as tasks:
        sent = 0

        async def send() -> None:
            nonlocal sent
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await flood.connection.send("{" + "x" * 500)
                    sent += 1

        go_deaf(flood.connection)
        tasks.start_soon(send)

        async def is_let_go() -> bool:
            memory.look()
            return await gauges.sessions() == 0

        await eventually(is_let_go)  # and the connection of one that goes on sending is cut, which ends `send`
    assert memory.growth <= 16 * MB, f"{memory.growth / MB:.1f} MB after {sent} frames"


# ---------------------------------------------------------------------- clients that flood


async def test_frames_of_a_megabyte_are_refused_and_forgotten(server: ServerProcess, gauges: Gauges) -> None:
    async with session(server, SPEECH, {"model": "espeak-ng"}) as socket:
        memory = MemoryWatch(server)
        for _ in range(20):
            await socket.send(APPEND_TEXT, text="many words " * 95_000)
            error = (await socket.until(TTS_FAILED))[-1]["error"]
            assert error["code"] == "text_buffer_full"
            memory.look()
        assert memory.growth <= 24 * MB, f"{memory.growth / MB:.1f} MB"
        await say(socket, "Still here.")
        await socket.until(DONE)


async def test_ten_minutes_of_audio_at_once_are_heard_in_order_and_in_bounds(
    server: ServerProcess, gauges: Gauges, speech: bytes
) -> None:
    memory = MemoryWatch(server)
    seconds = 600.0
    audio = (speech + bytes(32_000)) * (1 + int(seconds * 32_000 / (len(speech) + 32_000)))
    audio = audio[: int(seconds) * 32_000]
    heard_before = await gauges.read("sonoreel_audio_seconds_total", model="ears", direction="in")
    query = {"model": "ears", "input_audio_format": "pcm_s16le_16000"}
    async with session(server, REALTIME, query) as socket, anyio.create_task_group() as tasks:

        async def flood() -> None:
            for start in range(0, len(audio), 320_000):
                await socket.send(APPEND_AUDIO, audio=encoded(audio[start : start + 320_000]))
                memory.look()
            await socket.send(COMMIT_AUDIO)

        tasks.start_soon(flood)
        turns = audio.count(speech)

        async def is_heard() -> bool:
            heard = await gauges.read("sonoreel_audio_seconds_total", model="ears", direction="in")
            return heard - heard_before >= seconds

        while len(of_kind(socket.frames, f"{TRANSCRIPTION}.completed")) < turns:
            await socket.receive()
        await eventually(is_heard)
        finals = of_kind(socket.frames, f"{TRANSCRIPTION}.completed")
        assert not of_kind(socket.frames, f"{TRANSCRIPTION}.failed")
        assert [frame["start"] for frame in finals] == sorted(frame["start"] for frame in finals)
        # Every turn reached the recogniser whole: the scripted one writes how many samples it was given.
        for frame in finals[:turns]:
            assert int(frame["transcript"]) >= len(speech) // 2 * 0.7
    assert memory.growth <= 32 * MB, f"{memory.growth / MB:.1f} MB"
