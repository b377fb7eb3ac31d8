"""A real worker process at the other end of a socket, spoken to in frames."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.catalog import Card
from models.errors import OutOfMemory
from models.interfaces import (
    EngineRequest,
    HypothesisUpdate,
    ListenRequest,
    SegmentResult,
    SpeechChunk,
    SpeechRequest,
    TranscriptionRequest,
)
from models.messages import (
    RUN_AHEAD,
    Cancel,
    Credit,
    Done,
    Failed,
    Feed,
    FeedEnd,
    FrameReader,
    FromWorker,
    Item,
    Load,
    LoadFailed,
    Progress,
    Ready,
    Run,
    Taken,
    ToWorker,
    decode_from_worker,
    encode_frame,
)
from models.worker import Running, as_engine_error

ROOT = Path(__file__).parents[2]


class Line:
    """The server's end of the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._messages = self._read()

    def send(self, *messages: ToWorker) -> None:
        for message in messages:
            self.socket.sendall(encode_frame(message))

    def receive(self) -> FromWorker:
        return next(self._messages)

    def until_end(self, id: int) -> list[FromWorker]:
        """What comes for one run up to its end, without progress."""
        seen: list[FromWorker] = []
        while not seen or not isinstance(seen[-1], Done | Failed):
            message = self.receive()
            if not isinstance(message, Progress) and getattr(message, "id", None) == id:
                seen.append(message)
        return seen

    def _read(self) -> Iterator[FromWorker]:
        frames = FrameReader()
        while data := self.socket.recv(1 << 16):
            yield from map(decode_from_worker, frames.feed(data))


@contextmanager
def worker(**options: Any) -> Iterator[tuple[Line, subprocess.Popen[bytes]]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    command = [sys.executable, "-m", "models.worker", "--fd", str(theirs.fileno())]
    with ours, subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        theirs.close()
        line = Line(ours)
        line.send(Load(Card(id="fake", task="speech", engine="tests.fakes", name="Fake", options=options)))
        yield line, process
        ours.close()
        assert process.wait(5) is not None


@pytest.fixture(scope="module")
def line() -> Iterator[Line]:
    with worker() as (line, _):
        assert isinstance(line.receive(), Ready)
        yield line


@pytest.fixture
def run(line: Line, request: pytest.FixtureRequest) -> Callable[[EngineRequest], int]:
    """Starts a request under an id of its own."""

    def start(what: EngineRequest) -> int:
        start.last += 1  # type: ignore[attr-defined]
        id = abs(hash((request.node.name, start.last))) % 2**31  # type: ignore[attr-defined]
        line.send(Run(id, what))
        return id

    start.last = 0  # type: ignore[attr-defined]
    return start


def say(text: str) -> SpeechRequest:
    return SpeechRequest(text, "one")


def numbers(messages: list[FromWorker]) -> list[float]:
    values = [message.value for message in messages if isinstance(message, Item)]
    return [float(value.samples[0]) for value in values if isinstance(value, SpeechChunk)]


def test_ready_tells_the_voices_and_eof_ends_the_process() -> None:
    with worker() as (line, process):
        ready = line.receive()
        assert isinstance(ready, Ready)
        assert [voice.id for voice in ready.voices] == ["one", "two"]
        assert ready.load_seconds >= 0
        line.socket.close()
        assert process.wait(5) == 0


@pytest.mark.parametrize(
    ("load", "kind", "secret"), [("raise", "EngineFailed", "secret"), ("memory", "OutOfMemory", "CUDA")]
)
def test_a_load_failure_is_told_without_details(load: str, kind: str, secret: str) -> None:
    with worker(load=load) as (line, process):
        answer = line.receive()
        assert isinstance(answer, LoadFailed)
        assert answer.kind == kind
        assert secret not in answer.message
        assert process.wait(5) == 1


def test_loading_ends_when_the_server_goes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    with worker(load=str(tmp_path / "gate")) as (line, process):
        line.socket.close()
        assert process.wait(5) == 0


def test_results_come_in_order_and_then_done(line: Line, run: Callable[[EngineRequest], int]) -> None:
    id = run(say("say 3"))
    messages = line.until_end(id)
    assert numbers(messages) == [0, 1, 2]
    assert messages[-1] == Done(id)


def test_two_requests_run_at_once(line: Line, run: Callable[[EngineRequest], int], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gate")
    held = run(say(f"wait {tmp_path / 'gate'}"))
    assert isinstance(line.receive(), Item)
    quick = run(say("say 1"))
    assert line.until_end(quick)[-1] == Done(quick)
    (tmp_path / "gate").open("wb").close()
    assert line.until_end(held)[-1] == Done(held)


@pytest.mark.parametrize(
    ("text", "kind", "message", "field"),
    [
        ("raise", "EngineFailed", "The engine failed.", None),
        ("wrong", "EngineFailed", "The engine failed.", None),
        ("cuda", "OutOfMemory", "The model ran out of memory.", None),
        ("memory", "OutOfMemory", "The model ran out of memory.", None),
        ("invalid", "InvalidInput", "no such voice", "voice"),
    ],
)
def test_what_the_engine_raises_becomes_one_of_our_errors(
    line: Line, run: Callable[[EngineRequest], int], text: str, kind: str, message: str, field: str | None
) -> None:
    id = run(say(text))
    assert line.until_end(id)[-1] == Failed(id, kind, message, field)


def test_a_request_of_another_task_fails_alone(line: Line, run: Callable[[EngineRequest], int]) -> None:
    id = run(TranscriptionRequest(path="recording.wav"))
    assert line.until_end(id) == [Failed(id, "EngineFailed", "The engine failed.", None)]


def test_cancel_closes_the_generator_and_is_confirmed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with worker(trace=str(trace)) as (line, _):
        line.receive()
        line.send(Run(1, say("step")))
        assert isinstance(line.receive(), Item)
        line.send(Cancel(1), Cancel(99))
        assert line.until_end(1)[-1] == Failed(1, "Cancelled", "The request was cancelled.", None)
        assert trace.read_text() == "closed"


def test_credits_bound_how_much_is_made(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with worker(trace=str(trace)) as (line, _):
        line.receive()
        line.send(Run(1, say("say 1000")))
        items = 0
        while items < RUN_AHEAD:
            items += isinstance(line.receive(), Item)
        line.send(Credit(1, 3))
        while items < RUN_AHEAD + 3:
            items += isinstance(line.receive(), Item)
        line.send(Cancel(1))
        assert numbers(line.until_end(1)) == []
        assert trace.read_text() == "*" * (RUN_AHEAD + 3)


def test_fed_audio_is_acknowledged_as_it_is_taken(line: Line, run: Callable[[EngineRequest], int]) -> None:
    id = run(ListenRequest(prompt="echo"))
    line.send(*(Feed(id, np.zeros(n, np.float32)) for n in (100, 20)), FeedEnd(id))
    messages = line.until_end(id)
    assert [message for message in messages if isinstance(message, Taken)] == [Taken(id, 1)] * 2
    values = [message.value for message in messages if isinstance(message, Item)]
    assert [value.hypothesis.text for value in values if isinstance(value, HypothesisUpdate)] == ["100", "20"]
    assert isinstance(values[-1], SegmentResult)
    assert values[-1].segment.text == "120"


def test_cancel_ends_a_run_that_waits_for_audio(line: Line, run: Callable[[EngineRequest], int]) -> None:
    id = run(ListenRequest(prompt="echo"))
    line.send(Cancel(id))
    assert isinstance(line.until_end(id)[-1], Failed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_for_the_whole_group_are_the_servers_business(number: signal.Signals) -> None:
    with worker() as (line, process):
        line.receive()
        process.send_signal(number)
        line.send(Run(1, say("say 1")))
        assert line.until_end(1)[-1] == Done(1)


def test_garbage_ends_the_process() -> None:
    with worker() as (line, process):
        line.receive()
        line.socket.sendall(b"\0\0\0\3abc")
        assert process.wait(5) == 0


def test_progress_is_thinned() -> None:
    now = [0.0]
    sent: list[FromWorker] = []
    running = Running(Run(1, say("")), sent.append, clock=lambda: now[0])
    for step in range(100):
        now[0] = step * 0.03
        running._on_step(step, None)
    assert sent[:2] == [Progress(1, 0, None), Progress(1, 4, None)]
    assert len(sent) == 25


def test_out_of_memory_is_known_by_name() -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    assert isinstance(as_engine_error(OutOfMemoryError(), "other"), OutOfMemory)
    assert as_engine_error(SystemExit(), "other").message == "other"
