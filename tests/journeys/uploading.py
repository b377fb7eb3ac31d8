"""Uploads as no well-behaved client would send them, files nobody should send, and a look at what is left behind."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import av
import httpx
import numpy as np

from streaming.audio import Samples
from streaming.encode import AudioFormat, open_encoder
from tests.journeys.server_process import ServerProcess

BOUNDARY = "s0n0reel"
TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
PATIENCE = 20.0


class Part(NamedTuple):
    """One part of a form; a file if it has a file name."""

    name: str
    data: bytes | str
    filename: str | None = None


Field: TypeAlias = Part | tuple[str, str]


def file(data: bytes, filename: str = "recording.wav") -> Part:
    """The recording."""
    return Part("file", data, filename)


def form(*parts: Field) -> bytes:
    """A multipart body, in this very order."""
    body = bytearray()
    for part in parts:
        name, data, filename = Part(*part)
        disposition = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        body += f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
        body += (data.encode() if isinstance(data, str) else data) + b"\r\n"
    return bytes(body + f"--{BOUNDARY}--\r\n".encode())


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str, str | None, str]:
        """Status, code, param and message."""
        error = self.json["error"]
        return self.status, error["code"], error["param"], error["message"]


class RawClient:
    """One request on one connection, its body sent piece by piece; the answer may be read at any time."""

    def __init__(self, server: ServerProcess, path: str, length: int | None, headers: dict[str, str]) -> None:
        address = urlsplit(server.url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
        self._connection.putrequest("POST", path)
        self._connection.putheader("content-type", f"multipart/form-data; boundary={BOUNDARY}")
        if length is None:
            self._connection.putheader("transfer-encoding", "chunked")
        else:
            self._connection.putheader("content-length", str(length))
        for name, value in headers.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        self.socket: socket.socket = self._connection.sock
        self._chunked = length is None
        self._response: http.client.HTTPResponse | None = None

    def send(self, data: bytes) -> None:
        """The next bytes of the body."""
        self.socket.sendall(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The last chunk of a body without a length."""
        self.socket.sendall(b"0\r\n\r\n")

    @property
    def response(self) -> http.client.HTTPResponse:
        """Waits for the status. Raises: TimeoutError, http.client.HTTPException when there is none."""
        if self._response is None:
            self._response = self._connection.getresponse()
        return self._response

    def answer(self) -> Answer:
        """The whole answer."""
        headers = {name.lower(): value for name, value in self.response.getheaders()}
        return Answer(self.response.status, headers, self.response.read())

    def event(self) -> Any:
        """The next server-sent event; None when there are no more."""
        while line := self.response.readline():
            if line.startswith(b"data: "):
                return json.loads(line.removeprefix(b"data: "))
        return None

    def events(self) -> list[Any]:
        """All that are still to come."""
        return list(iter(self.event, None))

    def stop_sending(self) -> None:
        """Half-close: no more will come, but an answer would be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def vanish(self) -> None:
        """Reset the connection, as a client that crashed does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._connection.close()


@contextmanager
def raw_client(
    server: ServerProcess, length: int | None, path: str = TRANSCRIPTIONS, **headers: str
) -> Iterator[RawClient]:
    """Open a connection and send the head of a request; `length` None announces chunks."""
    client = RawClient(server, path, length, headers)
    try:
        yield client
    finally:
        client.close()


def upload(server: ServerProcess, *parts: Field, path: str = TRANSCRIPTIONS, **headers: str) -> Answer:
    """Send a form whole."""
    body = form(*parts)
    with raw_client(server, len(body), path, **headers) as client:
        client.send(body)
        return client.answer()


def left_behind(server: ServerProcess) -> list[str]:
    """Everything in the server's spool directory."""
    found = []
    for process in (server.data_dir / "spool").glob("*"):
        for folder, directories, files in os.walk(process):  # which may be going at this moment
            found += [os.path.join(folder, name) for name in (*directories, *files)]
    return found


def gauge(server: ServerProcess, name: str, **labels: str) -> float:
    """One of the server's numbers, summed over the series that have these labels."""
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    total = 0.0
    for found in re.finditer(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE):
        if all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
            total += float(found[2])
    return total


def running(server: ServerProcess) -> float:
    """Leases held and waited for."""
    return gauge(server, "sonoreel_model_running") + gauge(server, "sonoreel_model_waiting")


def wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is so. Raises: AssertionError that says `otherwise`."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.01)  # it is so in another process, which has nobody to tell


# ---------------------------------------------------------------------- files


def wav_header(size: int, *, sample_rate: int = 16_000, channels: int = 1, mulaw: bool = False) -> bytes:
    """The head of a WAV with `size` bytes of samples, 16-bit PCM unless they are G.711 mu-law."""
    width = 1 if mulaw else 2
    rate, block = sample_rate * channels * width, channels * width
    layout = struct.pack("<HHIIHH", 7 if mulaw else 1, channels, sample_rate, rate, block, 8 * width)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + layout
        + (b"data" + struct.pack("<I", size))
    )


def wav(samples: Samples, sample_rate: int = 16_000) -> bytes:
    """16-bit PCM; `samples` has shape (n,) or (n, channels)."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    return wav_header(pcm.nbytes, sample_rate=sample_rate, channels=channels) + pcm.tobytes()


def encoded(samples: Samples, audio_format: AudioFormat, sample_rate: int = 16_000) -> bytes:
    """The samples in one of the formats the server itself speaks."""
    encoder = open_encoder(audio_format, sample_rate, total_samples=len(samples))
    try:
        return encoder.encode(samples) + encoder.finish()
    finally:
        encoder.close()


def contained(samples: Samples, container: str, codec: str, sample_rate: int = 16_000) -> bytes:
    """The samples in any container and codec that libav writes."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=sample_rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = sample_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def silent_film() -> bytes:
    """A video without any audio."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))
    return file.getvalue()


def noise(seconds: float, level: float = 0.1) -> Samples:
    """White noise at 16 kHz."""
    return np.random.default_rng(0).normal(0.0, level, round(16_000 * seconds)).astype(np.float32)


def chords(seconds: float) -> Samples:
    """Music without words: a chord of four notes with their overtones, a new one each half second."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    roots = np.array([220.0, 174.6, 196.0, 146.8])[(time * 2).astype(int) % 4]
    phase = 2 * np.pi * np.cumsum(roots) / 16_000
    notes: Sequence[float] = (1.0, 1.25, 1.5, 2.0)
    tone = sum(np.sin(note * overtone * phase) / overtone for note in notes for overtone in (1, 2, 3))
    return (0.06 * tone * np.exp(-(time * 2 % 1))).astype(np.float32)
