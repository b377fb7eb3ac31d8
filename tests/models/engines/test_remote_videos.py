"""Videos that another server makes: what it is asked, and what comes back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from models.engines import remote
from models.errors import (
    InvalidInput,
)
from models.video_interfaces import FrameImage, VideoFile, VideoRequest
from tests.fakes import square
from tests.models.engines.conformance import Steps
from tests.models.engines.remote_engines import CLIP, card_of, job, make, upstream
from tests.models.upstream import Reply, ScriptedUpstream

__all__ = ["upstream"]

pytestmark = pytest.mark.timeout(30)


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
