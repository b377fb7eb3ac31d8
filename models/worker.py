"""A worker process: one loaded engine, and the server that started it at the other end of a socket.

Started by the pool as `python -m models.worker --fd N`, N being an inherited stream socket. It lives exactly
as long as that socket: when the server closes it or dies, the worker exits at once. One thread reads the
socket, one thread runs each request; what an engine raises becomes one of models.errors, with the details in
this process's log only.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeAlias, cast

from models.catalog import Card
from models.errors import AtCapacity, Cancelled, EngineError, EngineFailed, OutOfMemory
from models.filming import film
from models.interfaces import (
    DiarizationRequest,
    Diarizer,
    EngineResult,
    ImageGenerator,
    ImageRequest,
    ListenRequest,
    LiveTranscriber,
    Samples,
    SpeechRequest,
    SpeechSynthesizer,
    Transcriber,
    TranscriptionRequest,
    VoiceEncoder,
    VoicesRequest,
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
    decode_to_worker,
    encode_frame,
)
from models.video_interfaces import VideoGenerator, VideoRequest

logger = logging.getLogger("sonoreel.worker")

PROGRESS_INTERVAL = 0.1
"""Seconds between two progress messages of one run; engines may call `on_step` far more often."""

MAX_THREADS = 1024

Send: TypeAlias = Callable[[FromWorker], None]


class Running:
    """One request while its thread works on it.

    The reader thread calls the upper half, the engine the lower.
    """

    def __init__(self, run: Run, send: Send, clock: Callable[[], float] = time.monotonic) -> None:
        self.id = run.id
        self._request = run.request
        self._send = send
        self._clock = clock
        self._changed = threading.Condition()
        self._credits = RUN_AHEAD
        self._cancelled = False
        self._fed: deque[Feed] = deque()
        self._feed_ended = False
        self._next_progress = float("-inf")

    def receive(self, message: Feed | FeedEnd | Credit | Cancel) -> None:
        """Take in what the server says about this run. Never blocks."""
        with self._changed:
            match message:
                case Feed():
                    self._fed.append(message)
                case FeedEnd():
                    self._feed_ended = True
                case Credit(n=n):
                    self._credits += n
                case Cancel():
                    self._cancelled = True
            self._changed.notify_all()

    def execute(self, engine: object) -> None:
        """Run the request to its end and tell the server how it ended, whatever the engine does."""
        try:
            self._send_results(self._begin(engine))
        except BaseException as error:  # noqa: BLE001 - the server waits for an answer, even to SystemExit
            failure = as_engine_error(error, "The engine failed.")
            kind = type(failure).__name__
            again = failure.retry_after if isinstance(failure, AtCapacity) else None
            self._send(Failed(self.id, kind, failure.message, failure.field, failure.code, again))
        else:
            self._send(Done(self.id))

    def _begin(self, engine: object) -> Iterator[EngineResult]:
        match self._request:
            case SpeechRequest() as request:
                return cast("SpeechSynthesizer", engine).synthesize(request, self._on_step)
            case TranscriptionRequest() as request:
                return cast("Transcriber", engine).transcribe(request, self._on_step)
            case DiarizationRequest() as request:
                return cast("Diarizer", engine).diarize(request, self._on_step)
            case VoicesRequest() as request:
                return cast("VoiceEncoder", engine).encode_voices(request, self._on_step)
            case ListenRequest() as request:
                return cast("LiveTranscriber", engine).listen(request, _FedAudio(self), self._on_step)
            case ImageRequest() as request:
                return cast("ImageGenerator", engine).generate(request, self._on_step)
            case VideoRequest() as request:
                return film(cast("VideoGenerator", engine), request, self._on_step)

    def _send_results(self, results: Iterator[EngineResult]) -> None:
        try:
            while True:
                self._take_credit()  # before the item is made: credits bound the work, not only the sending
                try:
                    value = next(results)
                except StopIteration:
                    return
                self._send(Item(self.id, value))
        finally:
            close = getattr(results, "close", None)
            if close is not None:
                close()

    def _take_credit(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._credits or self._cancelled)
            self._raise_if_cancelled()
            self._credits -= 1

    def take_fed(self) -> Feed | None:
        """The next block of audio, waited for; None when the turn is over. Raises: Cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._fed or self._feed_ended or self._cancelled)
            self._raise_if_cancelled()
            if not self._fed:
                return None
            block = self._fed.popleft()
        self._send(Taken(self.id, 1))
        return block

    def _on_step(self, done: float, total: float | None) -> None:
        self._raise_if_cancelled()
        now = self._clock()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_INTERVAL
            self._send(Progress(self.id, done, total))

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise Cancelled("The request was cancelled.")


class _FedAudio:
    """A `LiveAudio` of what the server feeds."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self.pausing = False

    def __iter__(self) -> _FedAudio:
        return self

    def __next__(self) -> Samples:
        block = self._running.take_fed()
        if block is None:
            raise StopIteration
        self.pausing = block.pausing
        return block.samples


class Worker:
    """Loads the engine and deals the server's messages out to the running requests."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._sending = threading.Lock()
        self._engine: object = None
        self._running: dict[int, Running] = {}
        self._running_lock = threading.Lock()
        # Bounds nothing, the server's leases do that; it spares a request the making of a thread.
        self._threads = ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="run")

    def serve(self) -> NoReturn:
        """Load, then work until the server is gone. Loads in the main thread: some engines insist."""
        messages = self._messages()
        first = next(messages, None)
        if not isinstance(first, Load):
            _exit(2)
        threading.Thread(target=self._read, args=(messages,), name="reader", daemon=True).start()
        if not self._load(first.card):
            _exit(1)
        while True:
            signal.pause()

    def _load(self, card: Card) -> bool:
        began = time.monotonic()
        try:
            self._engine = importlib.import_module(card.engine_module).load(card)
            list_voices = getattr(self._engine, "voices", None)
            voices = tuple(list_voices()) if list_voices is not None else ()
        except BaseException as error:  # noqa: BLE001 - the server waits for an answer, even to SystemExit
            failure = as_engine_error(error, f"The engine of {card.id!r} could not be loaded.")
            self._send(LoadFailed(type(failure).__name__, failure.message))
            return False
        self._send(Ready(voices, time.monotonic() - began))
        return True

    def _read(self, messages: Iterator[ToWorker]) -> None:
        try:
            for message in messages:
                self._receive(message)
        except ConnectionError:
            pass  # the server died with something unread
        except Exception:  # whatever it is, a worker that cannot hear the server must not live on
            logger.exception("the connection to the server broke")
        _exit(0)

    def _receive(self, message: ToWorker) -> None:
        match message:
            case Run():
                running = Running(message, self._send)
                with self._running_lock:
                    self._running[message.id] = running
                self._threads.submit(self._execute, running)
            case Feed() | FeedEnd() | Credit() | Cancel():
                with self._running_lock:
                    known = self._running.get(message.id)
                if known is not None:  # else it ended while the message was under way
                    known.receive(message)
            case Load():
                raise ValueError("a worker loads one engine, once")

    def _execute(self, running: Running) -> None:
        try:
            running.execute(self._engine)
        finally:
            with self._running_lock:
                del self._running[running.id]

    def _messages(self) -> Iterator[ToWorker]:
        frames = FrameReader()
        while data := self._line.recv(1 << 16):
            for payload in frames.feed(data):
                yield decode_to_worker(payload)

    def _send(self, message: FromWorker) -> None:
        frame = encode_frame(message)
        try:
            with self._sending:
                self._line.sendall(frame)
        except ConnectionError:
            _exit(0)  # the server is gone


def as_engine_error(error: BaseException, otherwise: str) -> EngineError:
    """What the server is told of an error; `otherwise` is the message for one of any other make.

    Out of memory is told by the class's name, so that torch need not be imported to know its exception.
    """
    if isinstance(error, EngineError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ in ("OutOfMemoryError", "OutOfMemory"):
        logger.error("out of memory", exc_info=error)
        return OutOfMemory("The model ran out of memory.")
    logger.error("the engine raised", exc_info=error)
    return EngineFailed(otherwise)


def _exit(status: int) -> NoReturn:
    """Leave without unwinding: other threads may be inside native code that does not survive a teardown."""
    logging.shutdown()
    os._exit(status)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Entry point of the process."""
    parser = argparse.ArgumentParser(description="One Sonoreel model worker; started by the server.")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket to the server")
    options: Any = parser.parse_args(arguments)
    # Ctrl-C and a service manager's SIGTERM reach every process of the group. The server alone decides what
    # they mean for work in flight, and tells this process through the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s")
    line = socket.socket(fileno=options.fd)
    line.set_inheritable(False)  # a grandchild that kept it open would hide this process's death from the server
    Worker(line).serve()


if __name__ == "__main__":
    main()
