"""Everything a server that makes videos may do instead."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from models.errors import (
    AtCapacity,
    EngineError,
    EngineFailed,
    InvalidInput,
    OutOfMemory,
    PoisonedRequest,
    WeightsMissing,
)
from tests.models.engines.conformance import Steps
from tests.models.engines.remote_engines import AT_WORK, CLIP, ERROR, SOON, fails, job, kind_of, make, paint, upstream
from tests.models.upstream import Reply, ScriptedUpstream

__all__ = ["upstream"]

pytestmark = pytest.mark.timeout(30)

ANSWERS: list[tuple[Reply, type[EngineError], str | None, str | None]] = [
    (Reply({"error": ERROR}, 400), InvalidInput, "frames", None),
    (Reply({"error": ERROR | {"param": "num_inference_steps"}}, 400), InvalidInput, "steps", None),
    (Reply({"error": ERROR | {"param": "seconds"}}, 400), InvalidInput, "frames", None),
    (Reply({"error": ERROR | {"param": "size"}}, 422), InvalidInput, "width", None),
    (Reply({"error": ERROR | {"param": "input_reference"}}, 400), InvalidInput, "frame_images", None),
    (Reply({"error": ERROR | {"param": "unheard of"}}, 400), InvalidInput, None, None),
    (Reply(ERROR, 400), InvalidInput, "frames", None),
    (Reply({"detail": [{"loc": ["body", "guidance_scale"], "msg": "too high"}]}, 422), InvalidInput, "guidance", None),
    (Reply({"detail": "Invalid size"}, 400), InvalidInput, None, None),
    (Reply({"detail": "Model mismatch: request specifies 'a'"}, 400), WeightsMissing, "model", "upstream_refused"),
    (Reply({"error": {"message": "no", "code": "moderation_blocked"}}, 400), InvalidInput, "prompt",
     "content_policy_violation"),
    (Reply({"error": {"message": "no", "code": "content_policy_violation"}}, 422), InvalidInput, "prompt",
     "content_policy_violation"),
    (Reply({"error": {"message": "killed", "code": "poisoned_request"}}, 422), PoisonedRequest, None, None),
    (Reply(b"too large", 413), InvalidInput, None, None),
    (Reply(b"\xff\xfe", 400), InvalidInput, None, None),
    (Reply(b"[" * 100_000, 400), InvalidInput, None, None),
    (Reply(b"x" * 200_000, 400), InvalidInput, None, None),
    (Reply({"error": "no"}, 401), WeightsMissing, "model", "upstream_refused"),
    (Reply({"error": "no"}, 403), WeightsMissing, "model", "upstream_refused"),
    (Reply({"detail": "Not Found"}, 404), WeightsMissing, "model", "upstream_refused"),
    (Reply({"error": ERROR | {"param": "model", "code": "model_not_found"}}, 404), WeightsMissing, "model",
     "upstream_refused"),
    (Reply(b"", 405), WeightsMissing, "model", "upstream_refused"),
    (Reply(b"", 308, {"location": "/elsewhere"}), WeightsMissing, "model", "upstream_refused"),
    (Reply(b"", 429, {"retry-after": "7"}), AtCapacity, None, None),
    (Reply(b"", 503), AtCapacity, None, None),
    (Reply({"error": {"message": "oom", "code": "out_of_memory"}}, 503), OutOfMemory, None, None),
    (Reply(b"", 500), EngineFailed, None, None),
    (Reply(b"", 502), EngineFailed, None, None),
    (Reply(b"", 418), EngineFailed, None, None),
    (Reply(b"", hang_up=True), EngineFailed, None, None),
    (Reply(b"<html>"), EngineFailed, None, None),
    (Reply(["list"]), EngineFailed, None, None),
    (Reply({"status": "queued"}), EngineFailed, None, None),
    (Reply({"id": {"a": 1}}), EngineFailed, None, None),
    (Reply({"id": ""}), EngineFailed, None, None),
    (Reply({"id": "x" * 2_000_000}), EngineFailed, None, None),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "kind", "field", "code"), ANSWERS, ids=lambda value: str(value)[:60])
def test_what_a_server_answers_instead_of_a_job(
    upstream: ScriptedUpstream,
    tmp_path: Path,
    reply: Reply,
    kind: type[EngineError],
    field: str | None,
    code: str | None,
) -> None:
    upstream.scripts["create"] = reply
    error = fails(upstream, tmp_path)
    assert (kind_of(error), error.field, error.code) == (kind, field, code)
    assert len(error.message) < 600
    assert upstream.kinds == ["create"]


def test_the_server_is_left_alone_for_as_long_as_it_wants(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    for said, waited in (
        ("7", 7.0),
        ("0", 0.1),
        ("86400", 300.0),
        ("nan", 5.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 5.0),
    ):
        upstream.scripts["create"] = Reply(b"", 429, {"retry-after": said})
        error = fails(upstream, tmp_path)
        assert isinstance(error, AtCapacity)
        assert error.retry_after == waited


FAILURES: list[tuple[Any, type[EngineError]]] = [
    ({"code": "invalid_value", "message": "bad", "param": "steps"}, InvalidInput),
    ({"code": 400, "message": "bad"}, InvalidInput),
    ({"code": "422", "message": "bad"}, InvalidInput),
    ({"code": "moderation_blocked", "message": "bad"}, InvalidInput),
    ({"code": "poisoned_request", "message": "bad", "type": "invalid_request_error"}, PoisonedRequest),
    ({"code": "out_of_memory", "message": "bad"}, OutOfMemory),
    ({"code": "engine_failed", "message": "bad"}, EngineFailed),
    ({"code": 500, "message": "bad"}, EngineFailed),
    ({"code": 429, "message": "bad"}, EngineFailed),
    ({"message": "CUDA error"}, EngineFailed),
    ("words", EngineFailed),
    (None, EngineFailed),
    ([], EngineFailed),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES, ids=str)
def test_a_video_that_failed_there(
    upstream: ScriptedUpstream, tmp_path: Path, error: Any, kind: type[EngineError]
) -> None:
    upstream.scripts["look"] = job("failed", error=error)
    assert type(fails(upstream, tmp_path)) is kind
    upstream.wait_for("cancel")


@pytest.mark.parametrize("status", ["cancelled", "expired"])
def test_a_video_that_was_called_off_there_may_be_tried_again(
    upstream: ScriptedUpstream, tmp_path: Path, status: str
) -> None:
    upstream.scripts["look"] = job(status)
    assert fails(upstream, tmp_path).retryable


LOOKS: list[Reply] = [
    Reply(b"", hang_up=True),
    Reply(b"", 500),
    Reply(b"", 503),
    Reply(b"", 502),
    Reply(b"<html>"),
    Reply(b'{"status": "comp', length=100, hang_up=True),
    Reply({"id": "x" * 2_000_000}),
]


@pytest.mark.parametrize("reply", LOOKS, ids=lambda reply: str(reply)[:60])
def test_a_look_that_fails_fails_an_attempt_that_may_be_repeated(
    upstream: ScriptedUpstream, tmp_path: Path, reply: Reply
) -> None:
    upstream.scripts["look"] = reply
    error = fails(upstream, tmp_path)
    assert isinstance(error, EngineFailed)
    assert error.retryable
    assert upstream.kinds == ["create", "look", "cancel"]


@pytest.mark.parametrize("reply", LOOKS[:-1], ids=lambda reply: str(reply)[:60])
def test_with_patience_a_look_that_fails_is_repeated(upstream: ScriptedUpstream, tmp_path: Path, reply: Reply) -> None:
    upstream.scripts["look"] = [reply, reply, job("completed")]
    assert make(upstream, tmp_path, patience=20.0) == CLIP


def test_a_server_with_no_time_for_looks_is_asked_later(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    busy = Reply(b"", 429, {"retry-after": "0"})
    upstream.scripts |= {"look": [busy, busy, job("completed")], "content": [busy, Reply(CLIP)]}
    assert make(upstream, tmp_path) == CLIP


@pytest.mark.parametrize("kind", ["look", "content"])
def test_a_job_that_is_lost_is_the_servers_death(upstream: ScriptedUpstream, tmp_path: Path, kind: str) -> None:
    upstream.scripts[kind] = Reply({"detail": "Video not found"}, 404)
    error = fails(upstream, tmp_path, patience=20.0)
    assert type(error) is EngineFailed


@pytest.mark.parametrize("status", [400, 409, 422])
def test_a_file_that_is_refused_is_not_the_users_fault(upstream: ScriptedUpstream, tmp_path: Path, status: int) -> None:
    upstream.scripts["content"] = Reply({"detail": "in cloud storage"}, status)
    assert type(fails(upstream, tmp_path)) is EngineFailed


def test_a_key_that_is_withdrawn_is_told_as_such(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = Reply(b"", 401)
    assert isinstance(fails(upstream, tmp_path), WeightsMissing)


BROKEN: list[Reply] = [
    Reply(CLIP[:1000], length=len(CLIP), hang_up=True),
    Reply(CLIP[:1000], length=-1, hang_up=True),
    Reply(b"", hang_up=True),
    Reply(b""),
    Reply(b"", 500),
]


@pytest.mark.parametrize("reply", BROKEN, ids=lambda reply: str(reply)[:60])
def test_a_file_that_broke_off_is_fetched_again_or_the_attempt_fails(
    upstream: ScriptedUpstream, tmp_path: Path, reply: Reply
) -> None:
    upstream.scripts["content"] = [reply, Reply(CLIP)]
    error = fails(upstream, tmp_path)
    assert isinstance(error, EngineFailed)
    assert error.retryable
    upstream.seen.clear()
    assert make(upstream, tmp_path, patience=20.0) == CLIP


@pytest.mark.parametrize("reply", [Reply(b"x", length=10**9), Reply(bytes(1_500_000), length=-1)], ids=["told", "not"])
def test_a_file_that_is_too_large_is_left_there(upstream: ScriptedUpstream, tmp_path: Path, reply: Reply) -> None:
    upstream.scripts["content"] = reply
    error = fails(upstream, tmp_path, max_mb=1, patience=20.0)
    assert "1000000 bytes" in error.message
    assert len(upstream.of("content")) == 1


def test_a_server_that_died_and_still_knows_the_job_goes_on_with_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = AT_WORK

    def reborn() -> None:
        upstream.wait_for("look", 2)
        upstream.die()
        upstream.scripts["look"] = job("completed")
        upstream.rise()

    other = threading.Thread(target=reborn)
    other.start()
    assert make(upstream, tmp_path, patience=20.0) == CLIP
    other.join()
    assert len(upstream.of("create")) == 1


def test_a_server_that_stays_dead_fails_the_attempt(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = AT_WORK

    def dies() -> None:
        upstream.wait_for("look", 2)
        upstream.die()

    other = threading.Thread(target=dies)
    other.start()
    error = fails(upstream, tmp_path, patience=0.3)
    other.join()
    assert isinstance(error, EngineFailed)
    assert error.retryable
    upstream.rise()


def test_a_server_that_is_not_there_yet_is_waited_for(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.die()
    assert fails(upstream, tmp_path).retryable
    steps = Steps()

    def late(done: float, total: float | None) -> None:
        steps(done, total)
        if len(steps.calls) == 3:
            upstream.rise()

    assert make(upstream, tmp_path, late, patience=20.0) == CLIP
    assert len(upstream.of("create")) == 1


@pytest.mark.parametrize("reply", [Reply(b"", hang_up=True), Reply(b"<html>"), Reply(b"", 502)], ids=str)
def test_what_a_server_may_have_begun_is_not_asked_for_twice(
    upstream: ScriptedUpstream, tmp_path: Path, reply: Reply
) -> None:
    upstream.scripts |= {"create": reply, "paint": reply}
    assert fails(upstream, tmp_path, patience=20.0).retryable
    with pytest.raises(EngineFailed):
        paint(upstream, options={"patience": 20.0})
    assert upstream.kinds == ["create", "paint"]


def test_a_video_that_takes_too_long_is_called_off(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = AT_WORK
    error = fails(upstream, tmp_path, timeout=0.5)
    assert isinstance(error, EngineFailed)
    assert upstream.kinds == ["create", "look", "cancel"]


def test_a_slow_server_is_waited_for(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    ready = threading.Event()
    upstream.scripts |= {
        "create": Reply(job().body, headers=SOON, hold=ready),
        "content": Reply(CLIP, pause=ready),
    }
    steps = Steps()

    def slowly(done: float, total: float | None) -> None:
        steps(done, total)
        if len(steps.calls) >= 3:
            ready.set()

    assert make(upstream, tmp_path, slowly) == CLIP
