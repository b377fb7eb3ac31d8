"""Transcripts as events, while the recording is still on its way."""

from __future__ import annotations

import numpy as np
import pytest

from tests.journeys.server_process import ServerProcess
from tests.journeys.upload_server import EARS, SPEAKERS, SPHINX, _nothing_left, server
from tests.journeys.uploading import (
    file,
    form,
    raw_client,
    wav,
)

__all__ = ["_nothing_left", "server"]

pytestmark = pytest.mark.journey


def test_events_add_up_to_the_text(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say hello there\nsay \nsay how are you\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        assert client.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        *deltas, done = client.events()
    assert [delta["type"] for delta in deltas] == ["transcript.text.delta"] * 2
    assert "".join(delta["delta"] for delta in deltas) == done["text"] == "hello there how are you"
    assert (done["type"], done["usage"]["seconds"], done["usage"]["output_tokens"]) == ("transcript.text.done", 3, 5)


def test_events_of_silence(server: ServerProcess) -> None:
    body = form(SPHINX, ("stream", "true"), file(wav(np.zeros(16_000, np.float32))))
    with raw_client(server, len(body)) as client:
        client.send(body)
        (done,) = client.events()
    assert (done["type"], done["text"], done["usage"]["total_tokens"]) == ("transcript.text.done", "", 10)


def test_events_of_speakers(server: ServerProcess) -> None:
    fields = [EARS, SPEAKERS, ("stream", "true"), ("response_format", "diarized_json")]
    body = form(*fields, file(b"say a b\nsay c d\n"))
    with raw_client(server, len(body)) as client:
        client.send(body)
        events = client.events()
    segments = [event for event in events if event["type"] == "transcript.text.segment"]
    assert [(segment["id"], segment["speaker"], segment["text"]) for segment in segments] == [
        ("seg_000", "A", "a b"),
        ("seg_001", "B", "c d"),
    ]
    assert events[-1]["type"] == "transcript.text.done"


def test_what_is_heard_is_told_before_the_upload_ends(server: ServerProcess) -> None:
    """Every line is answered before the next one is sent, in the middle of a body of one file."""
    script = [b"say one\n", b"say two\n", b"say three\n"]
    body = form(EARS, ("stream", "true"), file(b"".join(script)))
    with raw_client(server, len(body)) as client:
        sent = body.index(script[0])
        client.send(body[:sent])
        for number, line in enumerate(script):
            client.send(line)
            assert client.event()["segment_id"] == f"seg_{number:03}"
        client.send(body[sent + len(b"".join(script)) :])
        assert client.event()["text"] == "one two three"


@pytest.mark.parametrize(
    ("verb", "code", "param"), [("raise", "engine_failed", None), ("invalid", "corrupt_audio", "file")]
)
def test_what_goes_wrong_in_a_stream_is_its_last_event(
    server: ServerProcess, verb: str, code: str, param: str | None
) -> None:
    body = form(EARS, ("stream", "true"), file(f"say one\n{verb}\n".encode()))
    with raw_client(server, len(body)) as client:
        client.send(body)
        delta, error = client.events()
    assert delta["delta"] == "one"
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    body = form(EARS, ("stream", "true"), file(f"{verb}\n".encode()))
    with raw_client(server, len(body)) as client:
        client.send(body)
        assert client.answer().error[1] == code


def test_a_form_that_breaks_off_ends_its_stream_with_an_error(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say one\nsay two\n"))[:-10]
    with raw_client(server, len(body)) as client:
        client.send(body[: body.index(b"say two")])
        assert client.event()["delta"] == "one"
        client.send(body[body.index(b"say two") :])
        assert client.events()[-1]["error"]["code"] == "invalid_multipart"


def test_a_field_that_comes_too_late_for_a_stream_is_not_passed_over(server: ServerProcess) -> None:
    body = form(EARS, ("stream", "true"), file(b"say one\nsay two\n"), ("language", "fr"))
    with raw_client(server, len(body)) as client:
        cut = body.index(b"say two")
        client.send(body[:cut])
        assert client.event()["delta"] == "one"
        client.send(body[cut:])
        error = client.events()[-1]["error"]
    assert (error["code"], error["param"]) == ("field_too_late", "language")
