"""Images and videos that another server makes, and everything such a server may do instead."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from PIL import Image

from models.catalog import Card, Catalog
from models.engines import remote
from models.errors import (
    AtCapacity,
    Cancelled,
    EngineError,
    EngineFailed,
    InvalidInput,
    OutOfMemory,
    PoisonedRequest,
    WeightsMissing,
)
from models.interfaces import ImageRequest, ImageResult
from models.pool import Pool
from models.remote_options import RemoteOptions
from models.video_interfaces import FrameImage, VideoFile, VideoRequest
from tests.fakes import square
from tests.models import scripted
from tests.models.engines.conformance import Steps
from tests.models.upstream import Reply, ScriptedUpstream, scripted_upstream

pytestmark = pytest.mark.timeout(30)

CLIP = bytes(range(256)) * 400
KEY = "sk-secret-of-the-upstream"
EXAMPLES = Path(__file__).parents[3] / "deploy" / "remote-models.toml"


def job(status: str = "queued", **more: Any) -> Reply:
    return Reply({"id": "video_1", "object": "video", "status": status} | more)


SOON = {"openai-poll-after-ms": "50"}
AT_WORK = Reply(job("in_progress").body, headers=SOON)
MADE: dict[str, Any] = {
    "create": Reply(job().body, headers=SOON),
    "look": [AT_WORK, job("completed")],
    "content": Reply(CLIP, headers={"content-type": "video/mp4"}),
    "cancel": job("cancelled"),
    "delete": Reply({"id": "video_1", "deleted": True}),
}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """One that makes a clip."""
    with scripted_upstream(**MADE) as upstream:
        yield upstream


def card_of(task: Any, url: str, rules: dict[str, Any] | None = None, **options: Any) -> Card:
    usual: dict[str, Any] = {"base_url": url, "model": "theirs", "patience": 0.0, "poll_seconds": 0.05}
    card: dict[str, Any] = {
        "id": "ours",
        "task": task,
        "engine": "remote",
        "name": "Ours",
        "size_multiple": 8,
        "default_size": (64, 48),
        "default_steps": 4,
        "max_frames": 100,
        "default_frames": 17,
        "default_fps": 8,
        "frame_images": ("first", "last", "any"),
        "max_reference_images": 1,
        "edits": True,
        "inpaints": True,
        "max_input_images": 2,
    }
    return Card(**card | {"options": usual | options} | (rules or {}))


def make(
    upstream: ScriptedUpstream,
    folder: Path,
    on_step: Callable[[float, float | None], None] | None = None,
    **options: Any,
) -> bytes:
    """The clip that comes back."""
    (made,) = films(upstream, folder, on_step, **options)
    return made


def films(
    upstream: ScriptedUpstream, folder: Path, on_step: Callable[[float, float | None], None] | None, **options: Any
) -> list[bytes]:
    engine = remote.load(card_of("video", upstream.url, **options))
    assert isinstance(engine, remote.RemoteVideoGenerator)
    request = VideoRequest(prompt="a red square moves", seed=7, directory=str(folder))
    return [each.path.read_bytes() for each in engine.generate(request, on_step or Steps())]


def fails(upstream: ScriptedUpstream, folder: Path, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as failure:
        make(upstream, folder, **options)
    assert list(folder.iterdir()) == []
    return failure.value


class Until:
    """An `on_step` that says nobody wants it any more, once it is told so."""

    def __init__(self) -> None:
        self.told = threading.Event()

    def __call__(self, done: float, total: float | None) -> None:
        if self.told.is_set():
            raise Cancelled("stop")


def cancelled_when(upstream: ScriptedUpstream, kind: str, work: Callable[[Until], object], times: int = 1) -> None:
    """Cancel `work` when a request of a kind has arrived; it must end as cancelled."""
    until = Until()

    def tell() -> None:
        upstream.wait_for(kind, times)
        until.told.set()

    teller = threading.Thread(target=tell)
    teller.start()
    try:
        with pytest.raises(Cancelled):
            work(until)
    finally:
        teller.join()


# ---------------------------------------------------------------------- videos


def test_a_video_is_asked_for_fetched_and_deleted_there(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    engine = remote.load(card_of("video", upstream.url))
    assert isinstance(engine, remote.RemoteVideoGenerator)
    request = VideoRequest(prompt="a red square", negative_prompt="blur", seed=7, directory=str(tmp_path))
    steps = Steps()
    results = engine.generate(request, steps)
    result = next(results)
    assert isinstance(result, VideoFile)
    assert result.path.parent == tmp_path
    assert result.path.read_bytes() == CLIP
    assert upstream.kinds == ["create", "look", "content", "delete"]
    assert upstream.of("create")[0].fields == {
        "model": "theirs",
        "prompt": "a red square",
        "negative_prompt": "blur",
        "size": "64x48",
        "num_frames": "17",
        "fps": "8",
        "num_inference_steps": "4",
        "steps": "4",
        "seed": "7",
    }
    assert steps.calls
    assert set(steps.calls) == {(0, None)}
    results.close()
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_made_at_once_is_not_looked_at(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["create"] = job("completed")
    assert make(upstream, tmp_path) == CLIP
    assert upstream.kinds == ["create", "content", "delete"]


@pytest.mark.parametrize("status", ["processing", "QUEUED", "", None, 7, "half way", [[["in_progress"]] * 2] * 2])
def test_a_status_nobody_knows_means_that_it_is_being_made(
    upstream: ScriptedUpstream, tmp_path: Path, status: Any
) -> None:
    upstream.scripts["look"] = [Reply({"id": "video_1", "status": status}), Reply({"id": "video_1"}), job("Completed")]
    assert make(upstream, tmp_path) == CLIP
    assert len(upstream.of("look")) == 3


def test_the_server_says_when_to_look_again(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    assert make(upstream, tmp_path, poll_seconds=600.0) == CLIP


@pytest.mark.parametrize("said", ["", "soon", "-1", "1e9", "\xb2", "9" * 5000])
def test_what_it_says_about_that_may_be_nonsense(upstream: ScriptedUpstream, tmp_path: Path, said: str) -> None:
    upstream.scripts["create"] = Reply(job().body, headers={"openai-poll-after-ms": said})
    assert make(upstream, tmp_path) == CLIP


def test_ids_are_only_ids(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["create"] = Reply({"id": "../files?a=b#c", "status": "queued"})
    assert make(upstream, tmp_path) == CLIP
    assert upstream.of("content")[0].path == "/v1/videos/..%2Ffiles%3Fa%3Db%23c/content"


def test_a_picture_is_sent_in_the_size_of_the_clip(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    picture = tmp_path / "picture"
    picture.write_bytes(square("webp", 100, 100))
    engine = remote.load(card_of("video", upstream.url))
    assert isinstance(engine, remote.RemoteVideoGenerator)
    request = VideoRequest(prompt="it moves", width=64, height=32, frame_images=(FrameImage(str(picture)),))
    list(engine.generate(request, Steps()))
    with Image.open(io.BytesIO(upstream.of("create")[0].files["input_reference"])) as sent:
        assert (sent.format, sent.size) == ("PNG", (64, 32))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"frames": 101}, "frames"),
        ({"width": 63}, "width"),
        ({"frame_images": (FrameImage("{picture}", 16),)}, "frame_images"),
        ({"frame_images": (FrameImage("{picture}"), FrameImage("{picture}", 5))}, "frame_images"),
        ({"reference_paths": ("{picture}",)}, "reference_paths"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_is_refused_before_anybody_is_asked(
    upstream: ScriptedUpstream, tmp_path: Path, fields: dict[str, Any], field: str
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(square("png", 8, 8))
    told = json.loads(json.dumps(msgspec.to_builtins(fields)).replace("{picture}", str(picture)))
    request = msgspec.convert({"type": "video", "prompt": "x", **told}, VideoRequest)
    engine = remote.load(card_of("video", upstream.url))
    with pytest.raises(InvalidInput) as refusal:
        list(engine.generate(request, Steps()))  # type: ignore[arg-type]
    assert refusal.value.field == field
    assert upstream.seen == []


def test_a_server_that_takes_pictures_of_any_frame_is_sent_them(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(square("png", 8, 8))
    engine = remote.load(card_of("video", upstream.url, style="sonoreel"))
    assert isinstance(engine, remote.RemoteVideoGenerator)
    frames = (FrameImage(str(picture)), FrameImage(str(picture), 16))
    list(engine.generate(VideoRequest(prompt="x", frame_images=frames, reference_paths=(str(picture),)), Steps()))
    media = upstream.of("create")[0].fields["media"]
    assert [image["frame"] for image in media["frame_images"]] == [0, 16]
    assert [url.partition(",")[0] for url in media["reference_images"]] == ["data:image/png;base64"]


@pytest.mark.parametrize(
    ("options", "sent", "as_json"),
    [
        ({"style": "openai"}, {"model", "prompt", "seconds", "size"}, False),
        ({"style": "sglang"}, {"num_frames", "num_inference_steps", "fps", "seed"}, True),
        ({"style": "vllm-omni", "body": {"flow_shift": 5.0, "extra_params": {"a": 1}}}, {"flow_shift"}, False),
        ({"style": "sonoreel"}, {"num_frames", "fps", "steps", "output_format", "output_quality"}, False),
        ({"fields": {"steps": "effort", "seed": ""}}, {"effort", "num_frames"}, False),
    ],
    ids=["openai", "sglang", "vllm-omni", "sonoreel", "fields"],
)
def test_fields_go_under_the_names_they_have_there(
    upstream: ScriptedUpstream, tmp_path: Path, options: dict[str, Any], sent: set[str], as_json: bool
) -> None:
    make(upstream, tmp_path, **options)
    (created,) = upstream.of("create")
    assert (created.headers["content-type"] == "application/json") == as_json
    assert sent <= created.fields.keys()
    if options.get("style") == "openai":
        assert created.fields.keys() == sent
    if options.get("style") == "sonoreel":
        assert "seconds" not in created.fields  # it would be told the same twice
    if "body" in options:
        assert json.loads(created.fields["extra_params"]) == {"a": 1}
    if "fields" in options:
        assert not {"seed", "steps", "num_inference_steps"} & created.fields.keys()


ERROR = {"message": "bad frames: /srv/models", "type": "invalid_request_error", "param": "num_frames", "code": "bad"}
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
    assert (_kind(error), error.field, error.code) == (kind, field, code)
    assert len(error.message) < 600
    assert upstream.kinds == ["create"]


def _kind(error: EngineError) -> type[EngineError]:
    """Its class, as the server process will know it."""
    return type(error) if type(error).__module__ == "models.errors" else EngineFailed


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


# ---------------------------------------------------------------------- cancelling


@pytest.fixture
def never() -> threading.Event:
    """What does not happen while a test runs."""
    return threading.Event()


def test_nobody_is_asked_for_what_nobody_wants(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    until = Until()
    until.told.set()
    with pytest.raises(Cancelled):
        make(upstream, tmp_path, until)
    assert upstream.seen == []


@pytest.mark.parametrize("kind", ["look", "content"])
def test_a_cancel_in_the_middle_of_an_answer_is_passed_on(
    upstream: ScriptedUpstream, tmp_path: Path, never: threading.Event, kind: str
) -> None:
    upstream.scripts[kind] = Reply(CLIP, pause=never)
    cancelled_when(upstream, kind, lambda until: make(upstream, tmp_path, until))
    assert upstream.kinds[-1] == "cancel"
    upstream.wait_gone(kind)
    assert list(tmp_path.iterdir()) == []


def test_a_cancel_between_two_looks_is_passed_on(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = Reply(job("in_progress").body, headers={"openai-poll-after-ms": "25000"})
    cancelled_when(upstream, "look", lambda until: make(upstream, tmp_path, until))
    assert upstream.kinds == ["create", "look", "cancel"]


def test_a_job_that_is_cancelled_while_it_is_created_is_called_off(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    created = threading.Event()
    upstream.scripts["create"] = Reply(job().body, hold=created)
    until = Until()

    def on_step(done: float, total: float | None) -> None:
        if upstream.of("create"):
            created.set()  # before this request can break anything off
            until.told.set()
        until(done, total)

    with pytest.raises(Cancelled):
        make(upstream, tmp_path, on_step)
    assert upstream.kinds == ["create", "cancel"]


@pytest.mark.parametrize("kind", ["create", "cancel"])
def test_a_server_that_does_not_answer_does_not_keep_what_is_cancelled(
    upstream: ScriptedUpstream, tmp_path: Path, never: threading.Event, kind: str
) -> None:
    upstream.scripts[kind] = Reply(job().body, hold=never)
    upstream.scripts["look"] = AT_WORK
    cancelled_when(upstream, "create", lambda until: make(upstream, tmp_path, until))
    upstream.wait_gone(kind)


@pytest.mark.parametrize("status", [404, 405])
def test_where_there_is_no_cancel_a_job_is_deleted(upstream: ScriptedUpstream, tmp_path: Path, status: int) -> None:
    upstream.scripts |= {"cancel": Reply(b"", status), "look": AT_WORK}
    cancelled_when(upstream, "look", lambda until: make(upstream, tmp_path, until), times=2)
    assert upstream.kinds == ["create", "look", "cancel", "delete"]


# ---------------------------------------------------------------------- the key


def test_the_key_goes_to_its_server_and_nowhere_else(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)
    caplog.set_level(logging.DEBUG, "sonoreel")
    with scripted_upstream(content=Reply(CLIP)) as elsewhere:
        location = f"{elsewhere.url}/videos/a/content"
        upstream.scripts["content"] = Reply(b"", 302, {"location": location})
        assert make(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY") == CLIP
        assert {seen.headers["authorization"] for seen in upstream.seen} == {f"Bearer {KEY}"}
        assert [seen.headers.get("authorization") for seen in elsewhere.seen] == [None]
    for status in (400, 401, 500):
        upstream.scripts["create"] = Reply({"error": {"message": f"wrong key {KEY}"}}, status)
        error = fails(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY")
        assert KEY not in error.message
    assert "REMOTE_TEST_KEY" not in error.message
    assert "wrong key" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("location", ["ftp://host/clip", "http://", "/v1/videos/video_1/content", "http://[::bad"])
def test_redirects_that_lead_nowhere_fail_the_attempt(
    upstream: ScriptedUpstream, tmp_path: Path, location: str
) -> None:
    upstream.scripts["content"] = Reply(b"", 302, {"location": location})
    assert fails(upstream, tmp_path).retryable


def test_who_has_to_put_a_key_right_is_told_which(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsMissing, match="REMOTE_TEST_KEY"):
        make(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY")
    monkeypatch.setenv("REMOTE_TEST_KEY", KEY)
    upstream.scripts["create"] = Reply(b"", 401)
    assert "REMOTE_TEST_KEY" in fails(upstream, tmp_path, api_key_env="REMOTE_TEST_KEY").message
    assert "api_key_env" in fails(upstream, tmp_path).message


# ---------------------------------------------------------------------- images


def painted(data: bytes) -> Reply:
    return Reply({"created": 1, "data": [{"b64_json": base64.b64encode(data).decode(), "url": None}]})


def paint(
    upstream: ScriptedUpstream, on_step: Callable[[float, float | None], None] | None = None, **fields: Any
) -> list[ImageResult]:
    options = fields.pop("options", {})
    engine = remote.load(card_of("image", upstream.url, **options))
    assert isinstance(engine, remote.RemoteImageGenerator)
    usual: dict[str, Any] = {"prompt": "a red square", "seed": 7}
    return list(engine.generate(ImageRequest(**usual | fields), on_step or Steps()))


def test_images_are_asked_for_one_by_one_with_their_seeds(upstream: ScriptedUpstream) -> None:
    upstream.scripts["paint"] = painted(square("png", 64, 48))
    results = paint(upstream, n=2, guidance=3.5)
    assert [(each.index, each.seed, each.format, each.width, each.height) for each in results] == [
        (0, 7, "png", 64, 48),
        (1, 8, "png", 64, 48),
    ]
    assert [each.data for each in results] == [square("png", 64, 48)] * 2
    asked = [seen.fields for seen in upstream.of("paint")]
    assert [fields["seed"] for fields in asked] == [7, 8]
    assert asked[0] == {
        "model": "theirs",
        "prompt": "a red square",
        "size": "64x48",
        "num_inference_steps": 4,
        "steps": 4,
        "guidance_scale": 3.5,
        "seed": 7,
        "output_format": "png",
        "response_format": "b64_json",
    }


def test_openai_is_sent_only_what_it_takes(upstream: ScriptedUpstream) -> None:
    upstream.scripts["paint"] = painted(square("jpeg", 64, 48))
    paint(upstream, format="jpeg", compression=80, options={"style": "openai"})
    asked = upstream.of("paint")[0].fields
    assert asked.keys() == {"model", "prompt", "size", "output_format", "output_compression"}


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_an_image_in_another_format_or_size_comes_as_it_was_asked_for(upstream: ScriptedUpstream, format: Any) -> None:
    upstream.scripts["paint"] = painted(square("png", 32, 16))
    (result,) = paint(upstream, format=format)
    assert (result.format, result.width, result.height) == (format, 32, 16)
    with Image.open(io.BytesIO(result.data)) as image:
        assert (image.format, image.size) == (format.upper(), (32, 16))


def test_edits_are_a_form_with_a_mask_that_is_understood_both_ways(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    image, mask = tmp_path / "image.webp", tmp_path / "mask.png"
    image.write_bytes(square("webp", 16, 8))
    half = Image.new("L", (16, 8))
    half.paste(255, (0, 0, 8, 8))
    half.save(mask)
    upstream.scripts["edit"] = painted(square("png", 16, 8))
    (result,) = paint(upstream, image_paths=(str(image),), mask_path=str(mask), strength=0.5)
    assert (result.width, result.height) == (16, 8)
    (asked,) = upstream.of("edit")
    assert (asked.fields["size"], asked.fields["strength"]) == ("16x8", "0.5")
    assert asked.files.keys() == {"image", "mask", "mask_image"}
    with Image.open(io.BytesIO(asked.files["mask"])) as sent:
        assert sent.getpixel((0, 0)) == (255, 255, 255, 0)
        assert sent.getpixel((15, 0)) == (0, 0, 0, 255)


def test_several_images_are_named_as_openai_names_them(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(square("png", 16, 8))
    upstream.scripts["edit"] = painted(square("png", 16, 8))
    paint(upstream, image_paths=(str(image), str(image)))
    assert [name for name, file, _ in upstream.of("edit")[0].parts if file] == ["image[]", "image[]"]


PNG = square("png", 8, 8)
BOMB = io.BytesIO()
Image.new("1", (9000, 9000)).save(BOMB, "PNG")
NO_IMAGES: list[Reply] = [
    Reply({"data": []}),
    Reply({"data": None}),
    Reply({"data": [{"url": "http://host/a.png"}]}),
    Reply({"data": ["text"]}),
    Reply({"data": [{"b64_json": "!!!"}]}),
    Reply({"data": [{"b64_json": 7}]}),
    painted(b"no image"),
    painted(PNG[:50]),
    painted(BOMB.getvalue()),
    Reply(b"<html>"),
    Reply(b"", hang_up=True),
    Reply(b'{"data": [', length=10_000, hang_up=True),
    Reply(b"{}", length=10**9),
]


@pytest.mark.parametrize("reply", NO_IMAGES, ids=lambda reply: str(reply)[:60])
def test_an_answer_without_an_image_fails_the_attempt(upstream: ScriptedUpstream, reply: Reply) -> None:
    upstream.scripts["paint"] = reply
    with pytest.raises(EngineFailed) as failure:
        paint(upstream)
    assert failure.value.retryable
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "field"),
    [
        (Reply({"error": {"message": "no", "param": "output_format"}}, 400), InvalidInput, "format"),
        (Reply({"error": {"message": "no", "param": "images[0]"}}, 400), InvalidInput, "image_paths"),
        (Reply({"detail": [{"loc": ["body", "num_inference_steps"], "msg": "no"}]}, 422), InvalidInput, "steps"),
        (Reply(b"", 429), AtCapacity, None),
        (Reply(b"", 404), WeightsMissing, "model"),
        (Reply(b"", 500), EngineFailed, None),
    ],
    ids=["openai", "picture", "fastapi", "full", "unknown", "broken"],
)
def test_what_a_server_answers_instead_of_an_image(
    upstream: ScriptedUpstream, reply: Reply, kind: type[EngineError], field: str | None
) -> None:
    upstream.scripts["paint"] = reply
    with pytest.raises(kind) as refusal:
        paint(upstream)
    assert refusal.value.field == field


def test_a_cancelled_image_is_hung_up_on(upstream: ScriptedUpstream, never: threading.Event) -> None:
    upstream.scripts["paint"] = Reply(b"", hold=never)
    cancelled_when(upstream, "paint", lambda until: paint(upstream, until))
    upstream.wait_gone("paint")


def test_an_image_that_takes_too_long_fails_the_attempt(upstream: ScriptedUpstream, never: threading.Event) -> None:
    upstream.scripts["paint"] = Reply(b"", hold=never)
    with pytest.raises(EngineFailed):
        paint(upstream, options={"timeout": 0.5})
    upstream.wait_gone("paint")


async def test_results_refusals_and_cancels_cross_the_process_line(
    upstream: ScriptedUpstream, never: threading.Event
) -> None:
    upstream.scripts["paint"] = [
        painted(PNG),
        Reply({"error": {"message": "no such size", "param": "size"}}, 400),
        Reply(b"", hang_up=True),
        Reply(b"", hold=never),
    ]
    card = card_of("image", upstream.url, {"concurrency": 2, "cancel_grace": 30.0})
    request = ImageRequest(prompt="a red square", seed=7)
    async with Pool(Catalog((card,))) as pool, pool.lease(card) as lease:
        async with lease.run(request) as run:
            assert [item.data async for item in run if isinstance(item, ImageResult)] == [PNG]
        refusal = await scripted.fails(pool, card, request)
        assert isinstance(refusal, InvalidInput)
        assert (refusal.field, refusal.message) == ("width", "no such size")
        death = await scripted.fails(pool, card, request)
        assert type(death) is EngineFailed
        async with lease.run(request) as run:
            await anyio.to_thread.run_sync(upstream.wait_for, "paint", 4)
            run.cancel()
            await run.finished.wait()
        assert isinstance(run.error, Cancelled)
    await anyio.to_thread.run_sync(upstream.wait_gone, "paint")


# ---------------------------------------------------------------------- cards


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://host/v1"},
        {"base_url": "http://"},
        {"base_url": "http://user:password@host/v1"},
        {"base_url": "http://host/v1?key=secret"},
        {"api_key": KEY},
        {"timeout": 0.0},
        {"fields": {"sed": "seed"}},
        {"style": "ours"},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused_without_telling_keys(options: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError) as refusal:
        remote.load(card_of("video", "http://host/v1", **options))
    assert KEY not in str(refusal.value)
    assert "password" not in str(refusal.value).replace("no user, password", "")


def test_an_address_without_a_path_gets_openais() -> None:
    urls = ("http://gpu:8091", "http://gpu:8091/", "http://gpu:8091/v1/", "https://host/media/v2")
    assert [RemoteOptions(base_url=url).url for url in urls] == [
        "http://gpu:8091/v1",
        "http://gpu:8091/v1",
        "http://gpu:8091/v1",
        "https://host/media/v2",
    ]


def test_only_images_and_videos_are_made_elsewhere() -> None:
    with pytest.raises(ValueError, match="speech"):
        remote.load(card_of("speech", "http://host/v1"))


def test_the_examples_are_cards_that_need_nothing_here(tmp_path: Path) -> None:
    (tmp_path / "remote.toml").write_bytes(EXAMPLES.read_bytes())
    catalog = Catalog.load(tmp_path)
    ours = [card for card in catalog.cards if card.engine == "remote"]
    assert {card.task for card in ours} == {"image", "video"}
    for card in ours:
        assert catalog.missing(card) is None
        assert msgspec.convert(card.options, RemoteOptions).url.startswith("http")
        assert card.cancel_grace >= 5
