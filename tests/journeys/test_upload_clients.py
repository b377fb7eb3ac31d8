"""Clients that leave, lie, send too much or come all at once: nothing is left of them."""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from typing import Any

import httpx
import numpy as np
import pytest

from streaming.audio import Samples
from tests.journeys.server_process import ServerProcess
from tests.journeys.upload_server import EARS, LIMIT_MB, SPEAKERS, SPHINX, TOO_LARGE, _nothing_left, server, speech
from tests.journeys.uploading import (
    BOUNDARY,
    TRANSCRIPTIONS,
    file,
    form,
    gauge,
    left_behind,
    raw_client,
    running,
    upload,
    wait_for,
    wav,
)

__all__ = ["_nothing_left", "server", "speech"]

pytestmark = pytest.mark.journey


def test_a_body_shorter_than_it_was_said_to_be(server: ServerProcess) -> None:
    """The server waits for the rest; when the client ends the connection instead, that was no request."""
    before = gauge(server, "sonoreel_requests_total", route=TRANSCRIPTIONS, status="499")
    body = form(EARS, file(b"say one\n"))
    with raw_client(server, len(body) + 100) as client:
        client.send(body)
        client.stop_sending()
        with pytest.raises(http.client.RemoteDisconnected):
            client.answer()
    wait_for(
        lambda: gauge(server, "sonoreel_requests_total", route=TRANSCRIPTIONS, status="499") == before + 1,
        "the request was not counted as one whose client left",
    )


def test_a_body_longer_than_it_was_said_to_be(server: ServerProcess) -> None:
    body = form(EARS, file(b"say one\n"))
    with raw_client(server, len(body) - 20) as client:
        client.send(body[:-20])
        assert client.answer().error == (
            400,
            "invalid_multipart",
            None,
            "the form ends in the middle: its last boundary is missing",
        )
    with raw_client(server, len(body) - 20) as client:
        client.send(body)  # what is left over is no request
        assert client.answer().status == 400


@pytest.mark.parametrize("leave", ["vanish", "close"])
def test_a_client_that_leaves_in_the_middle_of_its_upload(server: ServerProcess, leave: str) -> None:
    with raw_client(server, 1_000_000) as client:
        client.send(form(EARS, file(b"say one\n"))[:-10])
        wait_for(lambda: running(server) == 1, "the work did not begin")
        assert left_behind(server)
        getattr(client, leave)()


@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_client_that_does_not_wait_for_its_answer(server: ServerProcess, stream: str) -> None:
    body = form(EARS, SPEAKERS, ("diarize", "true"), ("stream", stream), file(b"say one\nwait\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 2, "the work did not begin")
        assert left_behind(server)
        client.vanish()
    wait_for(lambda: not running(server), "the work goes on for nobody")


def test_a_client_that_leaves_a_recogniser_at_work(server: ServerProcess, speech: Samples) -> None:
    """A real engine notices too: 100 seconds of speech would take it half a minute."""
    body = form(SPHINX, file(wav(np.tile(speech, 1_600_000 // len(speech)))))
    with raw_client(server, len(body)) as client:
        client.send(body)
        wait_for(lambda: running(server) == 1, "the work did not begin")
        client.vanish()
    began = time.monotonic()
    wait_for(lambda: not running(server), "the recogniser is still at work")
    assert time.monotonic() - began < 5


def over(megabytes: float) -> bytes:
    return form(EARS, file(bytes(round(1_000_000 * megabytes))))


@pytest.mark.parametrize("megabytes", [LIMIT_MB + 1, LIMIT_MB + 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_httpx_sees_that_its_upload_is_too_large(server: ServerProcess, megabytes: int, chunked: bool) -> None:
    body = over(megabytes)
    content: Any = (body[at : at + 65_536] for at in range(0, len(body), 65_536)) if chunked else body
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    answer = httpx.post(f"{server.url}{TRANSCRIPTIONS}", content=content, headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["message"]) == (413, TOO_LARGE)
    assert answer.json()["error"]["code"] == "file_too_large"


@pytest.mark.parametrize("megabytes", [LIMIT_MB + 1, LIMIT_MB + 20])
def test_a_client_that_closes_after_each_request_sees_it_too(server: ServerProcess, megabytes: int) -> None:
    """urllib sends everything before it looks for an answer, and asks for the connection to be closed after it."""
    request = urllib.request.Request(  # noqa: S310 - a server of this test
        f"{server.url}{TRANSCRIPTIONS}",
        over(megabytes),
        {"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)  # noqa: S310
    with refused.value as answer:
        assert answer.code == 413
        assert TOO_LARGE.encode() in answer.read()


def test_a_raw_client_sees_it_before_it_has_sent_anything(server: ServerProcess) -> None:
    with raw_client(server, 500_000_000) as client:
        assert client.answer().error == (413, "file_too_large", "file", TOO_LARGE)


def test_a_client_that_asks_first_is_told_before_it_sends(server: ServerProcess) -> None:
    with raw_client(server, 500_000_000, expect="100-continue") as client:
        assert client.socket.recv(12) == b"HTTP/1.1 413"


def test_a_model_that_does_not_exist_is_refused_while_the_upload_has_just_begun(server: ServerProcess) -> None:
    body = form(("model", "nobody"), file(bytes(3_000_000)))
    with raw_client(server, len(body)) as client:
        client.send(body[:100_000])
        assert client.answer().error[:3] == (404, "model_not_found", "model")
        # Whoever sends the rest all the same is heard out, and can use the connection again.
        client.send(body[100_000:])
    body = form(EARS, ("response_format", "xml"), file(bytes(3_000_000)))
    with raw_client(server, len(body), connection="close") as client:
        client.send(body[:100_000])
        assert client.answer().error[:3] == (400, "invalid_value", "response_format")


def test_a_recording_that_cannot_be_read_is_refused_while_it_arrives(server: ServerProcess) -> None:
    body = form(EARS, file(b"invalid\n" + bytes(3_000_000)))
    with raw_client(server, len(body)) as client:
        client.send(body[:100_000])
        assert client.answer().error == (400, "corrupt_audio", "file", "there is no audio in it")


def test_too_many_at_once_are_turned_away_while_their_upload_has_just_begun(server: ServerProcess) -> None:
    body = form(EARS, file(b"say one\n" + bytes(1000)))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw_client(server, len(body))) for _ in range(4)]
        for client in clients:
            client.send(body[:-500])
        wait_for(lambda: running(server) == 4, "the work did not begin")
        refused = stack.enter_context(raw_client(server, len(body)))
        refused.send(body[:-500])
        answer = refused.answer()
        assert answer.error[:2] == (503, "server_overloaded")
        assert int(answer.headers["retry-after"]) >= 1


def test_a_worker_that_dies_takes_only_its_requests_along(server: ServerProcess) -> None:
    assert upload(server, EARS, file(b"say one\nkill\n")).error[:2] == (500, "engine_failed")
    assert upload(server, EARS, file(b"say one\n")).json["text"] == "one"


def test_uploads_arrive_side_by_side(server: ServerProcess) -> None:
    bodies = [form(EARS, file(f"say {name}\n".encode() * 50)) for name in ("left", "right")]
    with raw_client(server, len(bodies[0])) as one, raw_client(server, None) as other:
        for at in range(0, max(map(len, bodies)), 50):
            if piece := bodies[0][at : at + 50]:
                one.send(piece)
            if piece := bodies[1][at : at + 50]:
                other.send(piece)
        other.end()
        assert one.answer().json["text"] == " ".join(["left"] * 50)
        assert other.answer().json["text"] == " ".join(["right"] * 50)


def test_a_connection_serves_one_upload_after_another(server: ServerProcess) -> None:
    """Refusals included; none keeps the next one waiting."""
    began = time.monotonic()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for model, status in [("ears", 200), ("nobody", 404), ("ears", 200), ("ears", 200)]:
            answer = client.post(TRANSCRIPTIONS, data={"model": model}, files={"file": ("a.wav", b"say one\n")})
            assert answer.status_code == status
    assert time.monotonic() - began < 3
