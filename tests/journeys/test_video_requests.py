"""Requests for videos as clients really send them, or should not: forms of every kind, cameras' pictures, odd sound."""

from __future__ import annotations

import base64
import io
import json
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI
from PIL import ExifTags, Image

from tests.fakes import square
from tests.journeys.filming import film, filmer
from tests.journeys.painting import until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PICTURE = square("png", 80, 48)
URL = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
FORM = {"model": "filmer", "prompt": "film"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("video-requests")
    with running_server(folder / "data", **filmer(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def tone() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes(bytes(32_000))
    return file.getvalue()


def refused(answer: httpx.Response, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"]


def test_openais_sdk_sends_objects_and_lists(server: ServerProcess, client: httpx.Client) -> None:
    extra = {
        "num_frames": 13,
        "previews": False,
        "metadata": {"scene": "12", "take": "3"},
        "speech": {"input": "Hello.", "speed": 1.5},
        "media": {"frame_images": [{"input_image": URL, "frame": "first"}, {"input_image": URL, "frame": 12}]},
    }
    with OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0) as openai:
        id = openai.videos.create(model="filmer", prompt="film", extra_body=extra).id
    until(client, server.url, id, "succeeded")
    video = client.get(f"{server.url}/v1/videos/{id}").json()
    assert (video["num_frames"], video["metadata"], video["size"]) == (13, extra["metadata"], "80x48")
    assert video["outputs"]["audio"] is True


@pytest.mark.parametrize("content_type", ["multipart/form-data", "Multipart/Form-Data"])
def test_an_html_form_leaves_most_of_it_empty(server: ServerProcess, client: httpx.Client, content_type: str) -> None:
    fields = {**FORM, "seconds": "", "seed": "", "steps": "", "guidance_scale": "", "speech": "", "num_frames": "9"}
    parts = [f'form-data; name="{name}"\r\n\r\n{text}' for name, text in fields.items()]
    parts.append('form-data; name="input_reference"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n')
    body = "".join(f"--edge\r\nContent-Disposition: {part}\r\n" for part in parts) + "--edge--\r\n"
    headers = {"content-type": f"{content_type}; boundary=edge"}
    answer = client.post(f"{server.url}/v1/videos", content=body.encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["num_frames"], answer.json()["size"]) == (9, "64x48")


@pytest.mark.parametrize("name", ["image", "file", "video", "media[frame_images][0][input_image]", "prompt"])
def test_a_file_that_would_be_passed_over_is_refused(server: ServerProcess, client: httpx.Client, name: str) -> None:
    answer = client.post(f"{server.url}/v1/videos", data=FORM, files={name: ("a.png", PICTURE)})
    assert refused(answer) == ("unsupported_parameter", name)


@pytest.mark.parametrize("name", ["input_reference", "input_reference[]", "frame_images[0]"])
def test_a_picture_of_the_first_frame_by_its_names(server: ServerProcess, client: httpx.Client, name: str) -> None:
    answer = client.post(f"{server.url}/v1/videos", data=FORM, files={name: ("a.png", PICTURE)})
    assert answer.json()["size"] == "80x48"


@pytest.mark.parametrize(
    ("fields", "sounds", "param"),
    [
        ({"speech": '{"input": "Hello."}'}, 1, "speech"),
        ({}, 2, "media.audio_inputs"),
        ({"media": json.dumps({"audio_inputs": ["https://example.com/a.wav"]})}, 1, "media.audio_inputs"),
    ],
)
def test_a_clip_has_one_track(
    server: ServerProcess, client: httpx.Client, fields: dict[str, str], sounds: int, param: str
) -> None:
    files = [("audio", ("a.wav", tone()))] * sounds
    answer = client.post(f"{server.url}/v1/videos", data=FORM | fields, files=files)
    assert refused(answer) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"fps": 10**400, "seconds": "4"}, "invalid_value", "fps"),
        ({"fps": 100, "seconds": "4"}, "invalid_value", "fps"),
        ({"speech": {"input": " \n"}}, "missing_required_parameter", "speech.input"),
        ({"speech": {"input": "x" * 100_001}}, "string_above_max_length", "speech.input"),
        ({"speech": {"input": "Hello.", "model": "filmer"}}, "model_not_found", "speech.model"),
    ],
)
def test_what_no_clip_can_be_made_of(
    server: ServerProcess, client: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    answer = client.post(f"{server.url}/v1/videos", json=FORM | body)
    assert refused(answer, 404 if code == "model_not_found" else 400) == (code, param)


def test_a_form_with_deep_json_is_refused(server: ServerProcess, client: httpx.Client) -> None:
    answer = client.post(f"{server.url}/v1/videos", files={"media": (None, "[" * 100_000), "prompt": (None, "film")})
    assert refused(answer) == ("invalid_value", "media")


@pytest.mark.parametrize(("size", "orientation", "wanted"), [((96, 48), 6, "48x96"), ((96, 48), 3, "96x48")])
def test_a_cameras_picture_is_taken_upright(
    server: ServerProcess, client: httpx.Client, size: tuple[int, int], orientation: int, wanted: str
) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("RGB", size).save(file, "JPEG", exif=exif)
    answer = client.post(f"{server.url}/v1/videos", data=FORM, files={"input_reference": file.getvalue()})
    assert answer.json()["size"] == wanted


def test_a_picture_of_no_clips_shape_is_refused(server: ServerProcess, client: httpx.Client) -> None:
    files = {"input_reference": square("png", 20_000, 10)}
    answer = client.post(f"{server.url}/v1/videos", data=FORM, files=files)
    assert refused(answer) == ("invalid_value", "input_reference")
    assert client.post(f"{server.url}/v1/videos", data=FORM | {"size": "96x64"}, files=files).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        tone()[:20],
        b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nupload-0\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile upload-0\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["nothing", "half a header", "a playlist", "a list", "a session"],
)
def test_only_whole_files_are_sound(server: ServerProcess, client: httpx.Client, content: bytes) -> None:
    # What names other files would have them read: those of the server, or of its network.
    answer = client.post(f"{server.url}/v1/videos", data=FORM, files={"audio": ("a.wav", content)})
    assert refused(answer) == ("invalid_audio", "audio")


@pytest.mark.parametrize(("speech", "param"), [({"voice": "nobody"}, "voice"), ({"language": "klingon"}, "language")])
def test_what_a_voice_cannot_do_is_told_of_the_narration(
    server: ServerProcess, client: httpx.Client, speech: dict[str, str], param: str
) -> None:
    video = film(client, server.url, "film", speech={"input": "Hello.", "model": "espeak-ng", **speech})
    until(client, server.url, video["id"], "failed")
    error = client.get(f"{server.url}/v1/videos/{video['id']}").json()["error"]
    assert (error["code"], error["param"]) == ("invalid_value", f"speech.{param}")


def test_the_same_picture_for_another_purpose_is_another_request(server: ServerProcess, client: httpx.Client) -> None:
    headers = {"idempotency-key": "purpose"}
    url = f"{server.url}/v1/videos"
    first = client.post(url, data=FORM, files={"input_reference": PICTURE}, headers=headers)
    assert (
        client.post(url, data=FORM, files={"input_reference": PICTURE}, headers=headers).json()["id"]
        == (first.json()["id"])
    )
    other = client.post(url, data=FORM, files={"reference_images": PICTURE}, headers=headers)
    assert refused(other, 409) == ("idempotency_key_reused", "Idempotency-Key")


@pytest.mark.parametrize("path", ["/v1/videos/%00", "/v1/videos/%00/content", "/v2/videos/a%20b/events"])
def test_an_id_that_is_none(server: ServerProcess, client: httpx.Client, path: str) -> None:
    assert refused(client.get(server.url + path), 404) == ("video_not_found", "id")


def test_a_page_after_what_is_no_id(server: ServerProcess, client: httpx.Client) -> None:
    assert refused(client.get(f"{server.url}/v1/videos?after=%00")) == ("invalid_value", "after")
