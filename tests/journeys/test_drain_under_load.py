"""The server leaves in order: whatever was said to it is answered, whatever it was saying is said, and it takes its
workers with it.
"""

from __future__ import annotations

import contextlib
import signal
import socket as sockets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import anyio
import httpx
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.journeys.faults import eventually, is_alive, write_cards
from tests.journeys.recordings import speak
from tests.journeys.server_process import ServerProcess, running_server
from tests.journeys.sockets import Socket, decoded, encoded, of_kind, open_socket

SPEECH, REALTIME = "/v1/audio/speech/websocket", "/v1/realtime"
APPEND_AUDIO, COMMIT_AUDIO = "input_audio_buffer.append", "input_audio_buffer.commit"
AUDIO, DONE = "conversation.item.audio_output.delta", "conversation.item.audio_output.done"
COMPLETED = "conversation.item.input_audio_transcription.completed"
COMMITTED = "input_audio_buffer.committed"
TOGETHER = {"model": "auto", "input_audio_format": "pcm_s16le_16000"}
OPENAI = {"intent": "transcription"}
MANUAL = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
SENTENCE = "This is said to its end, although the server has been told to leave. "
DRAIN_SECONDS = 25.0

pytestmark = pytest.mark.journey


@contextlib.contextmanager
def leaving_server(folder: Path, **settings: str) -> Iterator[ServerProcess]:
    """A server of which, after a clean exit, no worker is left."""
    with running_server(folder / "data", **settings) as server:
        workers = server.worker_pids()
        assert workers
        yield server
        assert server.process.wait(DRAIN_SECONDS + 5) == 0, "".join(server.log)
        assert not [pid for pid in workers if is_alive(pid)]
        assert not [line for line in server.log if " ERROR " in line or "Traceback" in line]


@contextlib.asynccontextmanager
async def listening(server: ServerProcess, number: int, speech: bytes) -> AsyncIterator[Socket]:
    """A session with a committed turn, and every second one with an open turn after it."""
    together = number % 2 == 0
    async with open_socket(server, REALTIME, TOGETHER | {"turn_detection": "none"} if together else OPENAI) as socket:
        assert (await socket.receive())["type"] == "session.created"
        audio = speech
        if not together:
            audio = np.repeat(np.frombuffer(speech, "<i2"), 3)[::2].tobytes()  # 16 kHz to 24 kHz, roughly
            await socket.send("session.update", session=MANUAL)
        await hear(socket, audio)
        await socket.send(COMMIT_AUDIO)
        if number % 4 < 2:
            await hear(socket, audio)
        await socket.until(COMMITTED)
        yield socket


async def hear(socket: Socket, audio: bytes) -> None:
    for start in range(0, len(audio), 6400):
        await socket.send(APPEND_AUDIO, audio=encoded(audio[start : start + 6400]))


async def test_every_turn_of_twenty_sockets_gets_its_final(tmp_path: Path) -> None:
    with leaving_server(tmp_path) as server:
        speech = speak(server, "Go forward.")
        async with contextlib.AsyncExitStack() as stack, httpx.AsyncClient(base_url=server.url) as client:
            listeners = [await stack.enter_async_context(listening(server, number, speech)) for number in range(20)]
            await client.get("/healthz")
            server.process.send_signal(signal.SIGTERM)
            began = monotonic()

            async def is_draining() -> bool:
                return (await client.get("/readyz")).status_code == 503

            await eventually(is_draining)
            assert (await client.get("/readyz")).json()["status"] == "draining"
            refused = await client.post("/v1/audio/speech", json={"input": "Too late."})
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert refused.json()["error"]["code"] == "server_draining"
            for path in (SPEECH, REALTIME):
                with pytest.raises(InvalidStatus) as handshake:
                    await stack.enter_async_context(open_socket(server, path, TOGETHER))
                assert handshake.value.response.status_code == 503
                assert handshake.value.response.headers["retry-after"]
            server.process.send_signal(signal.SIGTERM)  # an impatient supervisor changes nothing

            codes: dict[int, int] = {}

            async def finish(number: int) -> None:
                if number % 4 == 0:  # its microphone is still open
                    await hear(listeners[number], speech[:64_000])
                _, codes[number] = await listeners[number].until_closed()

            async with anyio.create_task_group() as tasks:
                for number in range(len(listeners)):
                    tasks.start_soon(finish, number)
            seconds = monotonic() - began
        for number, socket in enumerate(listeners):
            finals = of_kind(socket.frames, COMPLETED)
            assert len(finals) == (2 if number % 4 < 2 else 1), number
            assert [final["item_id"] for final in finals] == [
                frame["item_id"] for frame in of_kind(socket.frames, COMMITTED)
            ]
            assert all(final["transcript"] for final in finals)
        assert codes == dict.fromkeys(range(20), 1001)
        assert seconds < DRAIN_SECONDS


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_speech_is_said_to_its_end(tmp_path: Path, stop: signal.Signals) -> None:
    with leaving_server(tmp_path, SONOREEL_WARM="espeak-ng") as server:
        text = SENTENCE * 10
        whole = len(speak(server, text, sample_rate=24_000)) / 2 / 24_000
        async with contextlib.AsyncExitStack() as stack:
            speakers = [await stack.enter_async_context(open_socket(server, SPEECH)) for _ in range(4)]
            for socket in speakers:
                await socket.send("input_text_buffer.append", text=text)
                await socket.send("input_text_buffer.commit")
                await socket.send("input_text_buffer.append", text="And this was not committed yet")
            for socket in speakers:
                await socket.until(AUDIO)
            server.process.send_signal(stop)
            began = monotonic()
            for socket in speakers:
                _, code = await socket.until_closed()
                assert code == 1001
                assert len(of_kind(socket.frames, DONE)) == 2
                said = len(decoded(of_kind(socket.frames, AUDIO))) / 2 / 24_000
                assert said > whole + 1.0
            # Paced, it would have taken as long as it takes to listen to.
            assert monotonic() - began < whole / 3


@pytest.mark.parametrize("verb", ["step", "stubborn"])
async def test_what_cannot_finish_is_told_to_come_back(tmp_path: Path, verb: str) -> None:
    cards = write_cards(tmp_path / "cards", ["endless"])
    settings = {"SONOREEL_WARM": "endless", "SONOREEL_DRAIN_SECONDS": "1"}
    with leaving_server(tmp_path, SONOREEL_MODELS_DIR=cards, **settings) as server:
        async with open_socket(server, SPEECH, {"sample_rate": 16_000}) as socket:
            await socket.send("input_text_buffer.append", text=verb)
            await socket.send("input_text_buffer.commit")
            await socket.until(AUDIO)
            async with httpx.AsyncClient(base_url=server.url, timeout=30) as client, anyio.create_task_group() as tasks:
                body = {"input": verb, "response_format": "pcm", "sample_rate": 16_000}

                async def read_answer() -> None:
                    with contextlib.suppress(httpx.RemoteProtocolError, httpx.ReadError):
                        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
                            started.set()
                            await answer.aread()

                started = anyio.Event()
                tasks.start_soon(read_answer)
                await started.wait()
                server.process.send_signal(signal.SIGTERM)
                began = monotonic()
                _, code = await socket.until_closed()
                assert code == 1012
                assert 1 <= monotonic() - began < 5
        assert server.process.wait(8) == 0


async def test_workers_do_not_outlive_a_killed_server(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        workers = server.worker_pids()
        assert len(workers) >= 2
        server.process.kill()

        async def are_gone() -> bool:
            return not any(is_alive(pid) for pid in workers)

        await eventually(are_gone, 5)


def test_a_taken_port_is_said_and_fails(tmp_path: Path) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess(tmp_path, {"SONOREEL_PORT": str(port), "SONOREEL_WARM": ""})
        assert server.process.wait(20) not in (0, None)
        assert server.terminate() != 0
    log = "".join(server.log)
    assert f"port {port}" in log
    assert "SONOREEL_PORT" in log
    assert "Traceback" not in log
