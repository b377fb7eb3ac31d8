"""Videos through the SDKs people use, and over HTTP: made, listed, watched, fetched, remixed and forgotten."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI
from PIL import Image
from together import Together

from media.video_options import VideoOptions
from tests.fakes import square
from tests.journeys.filming import decoded, film, filmer
from tests.journeys.painting import events, until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("videos")
    with running_server(folder / "data", **filmer(folder), SONOREEL_MAX_IMAGE_MB="1") as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def openai(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


def done(client: httpx.Client, server: ServerProcess, id: str) -> dict[str, Any]:
    """The video once its job has ended well."""
    until(client, server.url, id, "succeeded")
    video: dict[str, Any] = client.get(f"{server.url}/v1/videos/{id}").json()
    return video


def fetched(client: httpx.Client, server: ServerProcess, id: str, **query: str) -> httpx.Response:
    return client.get(f"{server.url}/v1/videos/{id}/content", params=query)


def refused(answer: httpx.Response, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"]


def test_openai_creates_polls_lists_downloads_and_deletes(openai: OpenAI) -> None:
    video = openai.videos.create_and_poll(model="filmer", prompt="film", seconds="4", size="720x1280")
    assert (video.status, video.progress, video.seconds, video.size) == ("completed", 100, "4", "720x1280")
    assert video.completed_at is not None
    assert video.expires_at is not None
    assert video.expires_at > video.completed_at
    assert video.id in [each.id for each in openai.videos.list(limit=5)]
    clip = decoded(openai.videos.download_content(video.id).read())
    assert clip.frames.shape == (33, 1280, 720, 3)
    assert clip.fps == 8
    for variant in ("thumbnail", "spritesheet"):
        picture = openai.videos.download_content(video.id, variant=variant)
        assert Image.open(io.BytesIO(picture.read())).format == "WEBP"
    assert openai.videos.delete(video.id).deleted
    assert video.id not in [each.id for each in openai.videos.list(limit=5)]


def test_openai_sends_a_picture_and_remixes(openai: OpenAI) -> None:
    picture = ("start.png", square("png", 64, 48), "image/png")
    first = openai.videos.create_and_poll(model="filmer", prompt="film", input_reference=picture)
    remix = openai.videos.remix(first.id, prompt="film again")
    assert remix.remixed_from_video_id == first.id
    assert remix.status in ("queued", "in_progress")
    again = openai.videos.poll(remix.id)
    assert (again.status, again.prompt) == ("completed", "film again")
    openai.videos.delete(first.id)  # the remix has inputs and files of its own
    clip = decoded(openai.videos.download_content(again.id).read())
    assert np.abs(clip.frames[0].mean(axis=(0, 1)) - (255, 0, 0)).max() < 12


def test_together_creates_and_retrieves(server: ServerProcess, client: httpx.Client) -> None:
    with Together(api_key="none", base_url=server.url, max_retries=0) as together:
        video = together.videos.create(
            model="filmer", prompt="film", width=96, height=64, seconds="1", fps=8, steps=3, seed=5, output_format="MP4"
        )
        assert video.id
        until(client, server.url, video.id, "succeeded")
        found = together.videos.retrieve(video.id)
    assert (found.status, found.size, found.seconds, found.error) == ("completed", "96x64", "1", None)
    assert found.outputs is not None
    assert found.outputs.cost == pytest.approx(0.1125)
    clip = decoded(client.get(str(found.outputs.video_url)).content)
    assert clip.frames.shape == (9, 64, 96, 3)
    again = film(client, server.url, "film", width=96, height=64, seconds="1", seed=5, steps=3)
    done(client, server, again["id"])
    assert np.array_equal(decoded(fetched(client, server, again["id"]).content).frames, clip.frames)


@pytest.mark.parametrize(("codec", "name"), [("", "vp9"), ("av1", "av1")])
def test_webm(server: ServerProcess, client: httpx.Client, codec: str, name: str) -> None:
    video = film(client, server.url, "film", output_format="WEBM", output_codec=codec, output_quality=30, num_frames=13)
    assert done(client, server, video["id"])["outputs"]["codec"] == name
    answer = fetched(client, server, video["id"])
    assert answer.headers["content-type"] == "video/webm"
    assert len(decoded(answer.content).frames) == 13


def test_first_and_last_frames_are_those_given(server: ServerProcess, client: httpx.Client) -> None:
    red = "data:image/png;base64," + base64.b64encode(square("png", 128, 96)).decode()
    media = {"frame_images": [{"input_image": red, "frame": "first"}, {"input_image": red, "frame": 8}]}
    video = film(client, server.url, "film", media=media)
    assert video["size"] == "128x96"  # that of the picture, where none is named
    done(client, server, video["id"])
    clip = decoded(fetched(client, server, video["id"]).content)
    assert clip.frames.shape == (9, 96, 128, 3)
    assert np.abs(clip.frames[0].mean(axis=(0, 1)) - (255, 0, 0)).max() < 12
    unplaced = film(client, server.url, "film", frame_images=[red, red])
    assert done(client, server, unplaced["id"])["status"] == "completed"


def test_a_clip_is_narrated_by_our_own_voice(server: ServerProcess, client: httpx.Client) -> None:
    video = film(client, server.url, "film", seconds=2, speech={"input": "Hello.", "voice": "alloy"})
    assert done(client, server, video["id"])["outputs"]["audio"] is True
    assert decoded(fetched(client, server, video["id"]).content).audio == "aac"


def test_sound_that_is_given_becomes_the_track(server: ServerProcess, client: httpx.Client, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        tone = np.sin(np.arange(16_000) / 6) * 8000
        file.writeframes(tone.astype("<i2").tobytes())
    form = {"model": "filmer", "prompt": "film", "output_format": "webm"}
    answer = client.post(
        f"{server.url}/v1/videos", data=form, files={"audio": ("tone.wav", (tmp_path / "tone.wav").read_bytes())}
    )
    done(client, server, answer.json()["id"])
    assert decoded(fetched(client, server, answer.json()["id"]).content).audio in ("opus", "libopus")


def test_a_range_of_the_file(server: ServerProcess, client: httpx.Client) -> None:
    video = film(client, server.url, "film")
    done(client, server, video["id"])
    whole = fetched(client, server, video["id"])
    url = f"{server.url}/v2/videos/{video['id']}/content"
    part = client.get(url, headers={"range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole.content[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole.content)}"
    assert whole.headers["accept-ranges"] == "bytes"
    assert client.get(url, headers={"range": f"bytes={len(whole.content)}-"}).status_code == 416


def test_a_waiting_video_is_queued_and_asks_to_be_polled(server: ServerProcess, client: httpx.Client) -> None:
    client.post(f"{server.url}/v1/pools/default/pause")
    try:
        video = film(client, server.url, "film")
        answer = client.get(f"{server.url}/v1/videos/{video['id']}")
        assert (answer.json()["status"], answer.json()["progress"]) == ("queued", 0)
        assert answer.json()["queue"]["position"] >= 1
        assert 500 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
        assert refused(fetched(client, server, video["id"]), 409) == ("video_not_ready", "id")
        assert fetched(client, server, video["id"]).headers["retry-after"] == "1"
        cancelled = client.post(f"{server.url}/v1/videos/{video['id']}/cancel")
        assert cancelled.json()["status"] == "cancelled"
        assert "openai-poll-after-ms" not in cancelled.headers
    finally:
        client.post(f"{server.url}/v1/pools/default/resume")


def test_events_tell_of_steps_frames_and_previews(server: ServerProcess, client: httpx.Client, tmp_path: Path) -> None:
    video = film(client, server.url, "film", steps=3)
    seen = []
    with client.stream("GET", f"{server.url}/v1/videos/{video['id']}/events") as answer:
        seen = [line for line in answer.iter_lines() if line.startswith("event: ")]
    assert seen[-1] == "event: state"
    last = done(client, server, video["id"])
    assert (last["status"], last["progress"]) == ("completed", 100)
    details = last["progress_details"]
    assert (details["stage"], details["step"], details["frame"]) == ("decoding", 3, 9)
    assert client.get(details["previews"][0]["url"]).headers["content-type"] == "image/jpeg"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"prompt": ""}, "missing_required_parameter", "prompt"),
        ({"prompt": "x" * 501}, "invalid_value", "prompt"),
        ({"seconds": "40"}, "invalid_value", "seconds"),
        ({"seconds": "soon"}, "invalid_value", "seconds"),
        ({"seconds": "0"}, "invalid_value", "seconds"),
        ({"seconds": "1", "num_frames": 13}, "invalid_value", "num_frames"),
        ({"num_frames": 6}, "invalid_value", "num_frames"),
        ({"fps": 61}, "invalid_value", "fps"),
        ({"size": "65x48"}, "invalid_value", "size"),
        ({"size": "big"}, "invalid_value", "size"),
        ({"width": 65}, "invalid_value", "width"),
        ({"size": "64x48", "resolution": "720P"}, "invalid_value", "resolution"),
        ({"resolution": "1080P"}, "invalid_value", "resolution"),
        ({"ratio": "wide"}, "invalid_value", "ratio"),
        ({"steps": 51}, "invalid_value", "steps"),
        ({"guidance_scale": 99}, "invalid_value", "guidance_scale"),
        ({"seed": -1}, "invalid_value", "seed"),
        ({"output_format": "GIF"}, "invalid_value", "output_format"),
        ({"output_codec": "vp9"}, "invalid_value", "output_codec"),
        ({"output_quality": 52}, "invalid_value", "output_quality"),
        ({"generate_audio": True}, "unsupported_parameter", "generate_audio"),
        ({"media": {"source_video": "https://example.com/a.mp4"}}, "unsupported_parameter", "media.source_video"),
        ({"media": {"frame_images": [{"input_image": "x", "frame": 4}]}}, "invalid_value", "media.frame_images"),
        ({"media": {"frame_images": [{"input_image": "x", "frame": "last"}]}}, "invalid_value", "media.frame_images"),
        ({"media": {"reference_images": ["x", "y"]}}, "invalid_value", "media.reference_images"),
        ({"input_reference": {"image_url": "data:image/png;base64,AAAA"}}, "invalid_image", "input_reference"),
        ({"media": {"audio_inputs": ["data:audio/wav;base64,AAAA"]}}, "invalid_audio", "media.audio_inputs"),
        ({"media": {"audio_inputs": ["a"]}, "speech": {"input": "b"}}, "invalid_value", "speech"),
        ({"speech": {"input": ""}}, "invalid_value", "speech.input"),
        ({"image_loras": [{"path": "a/b"}]}, "invalid_value", "image_loras"),
        ({"model": "espeak-ng"}, "model_not_found", "model"),
        ({"webhook": "ftp://example.com"}, "url_not_allowed", "webhook"),
    ],
)
def test_what_cannot_be_made_is_refused_before_it_is_queued(
    server: ServerProcess, client: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    before = client.get(f"{server.url}/v1/videos").json()["first_id"]
    answer = client.post(f"{server.url}/v2/videos", json={"model": "filmer", "prompt": "film", **body})
    found = refused(answer, 404 if code == "model_not_found" else 400)
    assert found == (code, param), answer.text
    assert client.get(f"{server.url}/v1/videos").json()["first_id"] == before


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_job_of_another_kind_is_no_video(server: ServerProcess, client: httpx.Client, method: str) -> None:
    speech = {"model": "espeak-ng", "input": "One.", "voice": "alloy"}
    job = client.post(f"{server.url}/v1/audio/speech", json=speech, headers={"prefer": "respond-async"}).json()
    answer = client.request(method, f"{server.url}/v1/videos/{job['id']}")
    assert refused(answer, 404) == ("video_not_found", "id")
    assert client.get(f"{server.url}/v1/jobs/{job['id']}").status_code == 200


def test_the_same_key_is_the_same_video(server: ServerProcess, client: httpx.Client) -> None:
    first = film(client, server.url, "film", key="again", seed=1)
    assert film(client, server.url, "film", key="again", seed=1)["id"] == first["id"]
    answer = client.post(
        f"{server.url}/v1/videos",
        json={"model": "filmer", "prompt": "film", "seed": 2},
        headers={"idempotency-key": "again"},
    )
    assert refused(answer, 409) == ("idempotency_key_reused", "Idempotency-Key")


def test_pages(server: ServerProcess, client: httpx.Client) -> None:
    made = [film(client, server.url, "film")["id"] for _ in range(3)]
    page = client.get(f"{server.url}/v1/videos?limit=2").json()
    assert [each["id"] for each in page["data"]] == made[:0:-1]
    assert page["has_more"] is True
    rest = client.get(f"{server.url}/v1/videos?limit=2&after={page['last_id']}").json()
    assert rest["data"][0]["id"] == made[0]
    assert refused(client.get(f"{server.url}/v1/videos?after=nobody")) == ("invalid_value", "after")
    assert refused(client.get(f"{server.url}/v1/videos?limit=101")) == ("invalid_value", "limit")


def test_the_job_is_the_video(server: ServerProcess, client: httpx.Client) -> None:
    video = film(client, server.url, "film", metadata={"scene": "12"})
    *_, (name, job) = events(client, server.url, video["id"])
    assert (name, job["type"], job["status"], job["metadata"]) == ("state", "video", "succeeded", {"scene": "12"})
    assert [output["variant"] for output in job["outputs"]] == ["video", "thumbnail", "spritesheet"]


def test_every_field_is_documented(server: ServerProcess, client: httpx.Client) -> None:
    described = client.get(f"{server.url}/openapi.json").json()["components"]["schemas"]["VideoOptions"]
    assert set(described["properties"]) == set(VideoOptions.__struct_fields__)
