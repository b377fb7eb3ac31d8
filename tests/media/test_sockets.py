"""A live socket and every way its session can end, against a scripted ASGI server."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from media.errors import ApiError
from media.services import Services
from media.settings import Settings
from media.sockets import STALLED, UNSENT_EVENTS, Frames, LiveSocket, live_session, text_of
from models.catalog import Catalog


class Peer:
    """The other side of one connection. It reads while `reads` is set; `sent` is what it was sent."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.sent: list[Message] = []
        self.reads = anyio.Event()
        self.reads.set()
        self.gone = False
        self.taken = 0
        self._queue: deque[Message] = deque([{"type": "websocket.connect"}])
        self._arrived = anyio.Event()

    def say(self, *messages: str) -> None:
        self._queue.extend({"type": "websocket.receive", "text": text} for text in messages)
        self._arrived.set()

    def leave(self, code: int = 1000) -> None:
        self._queue.append({"type": "websocket.disconnect", "code": code})
        self._arrived.set()

    @property
    def close_code(self) -> int | None:
        return next((message["code"] for message in self.sent if message["type"] == "websocket.close"), None)

    @property
    def frames(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    async def receive(self) -> Message:
        while not self._queue:
            self._arrived = anyio.Event()
            await self._arrived.wait()
        self.taken += 1
        return self._queue.popleft()

    async def send(self, message: Message) -> None:
        if self.gone:
            raise OSError
        if message["type"] == "websocket.send":
            await self.reads.wait()
        self.sent.append(message)

    async def serve(self, session: Callable[[LiveSocket], Awaitable[None]]) -> None:
        websocket = WebSocket({"type": "websocket", "headers": []}, self.receive, self.send)
        async with live_session(websocket, self.services, "test") as socket:
            await socket.accept()
            await session(socket)


class Echo:
    """A session that answers every message with itself, `times` over."""

    def __init__(self, times: int = 1) -> None:
        self.answers: deque[str] = deque()
        self.drained = False
        self._times = times
        self._changed = anyio.Event()

    async def __call__(self, socket: LiveSocket) -> None:
        await socket.converse(self.receive, self.next_frames, self.drain, lambda: len(self.answers))

    async def receive(self, message: str | bytes) -> None:
        self.answers.extend([text_of(message)] * self._times)
        self._changed.set()

    def drain(self) -> None:
        self.drained = True
        self._changed.set()

    async def next_frames(self) -> Frames | None:
        while not self.answers:
            if self.drained:
                return None
            self._changed = anyio.Event()
            await self._changed.wait()
        return [{"echo": self.answers.popleft()}]


@pytest.fixture
def services() -> Services:
    return Services(Settings(stall_seconds=0.05, max_live_sessions=2), Catalog([]))


def stalled_clients(services: Services) -> float | None:
    return services.metrics.registry.get_sample_value("sonoreel_stalled_clients_total")


def live_sessions(services: Services) -> float | None:
    return services.metrics.registry.get_sample_value("sonoreel_live_sessions", {"kind": "test"})


async def test_a_client_that_leaves_ends_its_session(services: Services) -> None:
    peer = Peer(services)
    peer.say("one", "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.serve, Echo())
        await anyio.wait_all_tasks_blocked()
        assert live_sessions(services) == services.live_sessions == 1
        peer.leave()
    assert peer.frames == [{"echo": "one"}, {"echo": "two"}]
    assert live_sessions(services) == services.live_sessions == 0


async def test_a_client_that_does_not_read_is_closed_and_counted(services: Services) -> None:
    peer = Peer(services)
    peer.reads = anyio.Event()
    peer.say("one")
    with anyio.fail_after(5):
        await peer.serve(Echo())
    assert peer.close_code == STALLED
    assert stalled_clients(services) == 1
    assert services.live_sessions == 0


async def test_a_client_that_answers_no_ping_is_counted_too(services: Services) -> None:
    peer = Peer(services)
    peer.leave(STALLED)
    await peer.serve(Echo())
    assert stalled_clients(services) == 1


async def test_a_client_that_does_not_read_its_answers_is_not_listened_to() -> None:
    patient = Services(Settings(stall_seconds=60.0), Catalog([]))
    peer, echo = Peer(patient), Echo(times=10)
    peer.reads = anyio.Event()
    peer.say(*(str(number) for number in range(1000)))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.serve, echo)
        await anyio.wait_all_tasks_blocked()
        assert UNSENT_EVENTS < len(echo.answers) <= UNSENT_EVENTS + 10
        assert peer.taken < 30
        peer.reads.set()  # it reads: everything is answered, in order
        while len(peer.frames) < 10_000:
            await anyio.wait_all_tasks_blocked()
        peer.leave()
    assert [frame["echo"] for frame in peer.frames[::10]] == [str(number) for number in range(1000)]


async def test_a_drain_sends_what_is_left_and_goes(services: Services) -> None:
    peer, echo = Peer(services), Echo()
    peer.say("one", "two")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.serve, echo)
        tasks.start_soon(services.drain.finish, 10.0)
    assert peer.frames == [{"echo": "one"}, {"echo": "two"}]
    assert peer.close_code == 1001


async def test_at_the_deadline_a_session_is_told_to_come_back(services: Services) -> None:
    async def endless(socket: LiveSocket) -> None:
        async def ignore(message: str | bytes) -> None:
            pass

        async def next_frames() -> Frames | None:
            await anyio.sleep_forever()
            return None

        await socket.converse(ignore, next_frames, lambda: None, lambda: 0)

    peer = Peer(services)
    clean: list[bool] = []

    async def drain() -> None:
        clean.append(await services.drain.finish(0.01))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.serve, endless)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(drain)
    assert peer.close_code == 1012
    assert clean == [False]


async def test_a_mistake_of_ours_closes_with_1011(services: Services) -> None:
    peer = Peer(services)

    async def broken(socket: LiveSocket) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await peer.serve(broken)
    assert peer.close_code == 1011
    assert services.live_sessions == 0


@pytest.mark.parametrize("reads", [True, False])
async def test_the_last_word_is_not_owed_to_the_deaf(services: Services, reads: bool) -> None:
    async def ends(socket: LiveSocket) -> None:
        await socket.end({"error": "x"}, 1008)

    peer = Peer(services)
    if not reads:
        peer.reads = anyio.Event()
    await peer.serve(ends)
    assert peer.close_code == 1008
    assert peer.frames == ([{"error": "x"}] if reads else [])


async def test_a_client_gone_before_its_first_frame_is_no_error(services: Services) -> None:
    async def greets(socket: LiveSocket) -> None:
        peer.gone = True
        await socket.send({"type": "session.created"})

    peer = Peer(services)
    await peer.serve(greets)
    assert services.live_sessions == 0


async def test_more_sessions_than_allowed_are_refused_before_they_are_accepted(services: Services) -> None:
    peers = [Peer(services) for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for peer in peers[:2]:
            tasks.start_soon(peer.serve, Echo())
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(ApiError) as refused:
            await peers[2].serve(Echo())
        assert (refused.value.status, refused.value.code) == (503, "server_overloaded")
        assert refused.value.retry_after is not None
        assert peers[2].sent == []
        for peer in peers[:2]:
            peer.leave()
    late = Peer(services)  # now there is room
    late.leave()
    await late.serve(Echo())


def test_binary_frames_are_refused_with_the_way_out() -> None:
    assert text_of("x") == "x"
    with pytest.raises(ApiError, match="JSON text frames"):
        text_of(b"x")
