"""Images through the SDKs people use, and everything that may be wrong with a request for one."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI
from PIL import Image
from together import Together

from media.image_options import EditBody, GenerationBody
from tests.fakes import square
from tests.journeys.painting import painter
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]

PNG = square("png", 16, 16)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("images")
    with running_server(folder / "data", **painter(folder), SONOREEL_MAX_IMAGE_MB="1") as server:
        yield server


@pytest.fixture(scope="module")
def openai(server: ServerProcess) -> Iterator[OpenAI]:
    with OpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def together(server: ServerProcess) -> Iterator[Together]:
    with Together(api_key="none", base_url=server.url, max_retries=0) as client:
        yield client


def opened(data: str | None) -> Image.Image:
    assert data is not None
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_openai_gets_base64(openai: OpenAI) -> None:
    answer = openai.images.generate(model="painter", prompt="paint", n=2, size="24x16")
    assert answer.data is not None
    assert [opened(image.b64_json).size for image in answer.data] == [(24, 16)] * 2
    assert answer.output_format == "png"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize(("format", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_openai_gets_urls_of_files_in_the_format_asked_for(openai: OpenAI, format: Any, kind: str) -> None:
    answer = openai.images.generate(model="painter", prompt="paint", response_format="url", output_format=format)
    assert answer.data is not None
    assert answer.data[0].url is not None
    got = httpx.get(answer.data[0].url)
    assert got.headers["content-type"] == f"image/{format}"
    assert Image.open(io.BytesIO(got.content)).format == kind


def test_openai_streams_what_the_image_looks_like_on_its_way(openai: OpenAI) -> None:
    stream = openai.images.generate(model="painter", prompt="brush", stream=True, partial_images=2)
    seen = list(stream)
    assert seen[0].type == "image_generation.partial_image"
    assert opened(seen[0].b64_json).format == "JPEG"
    assert seen[-1].type == "image_generation.completed"
    assert opened(seen[-1].b64_json).size == (64, 64)


def test_openai_edits_where_the_mask_says(openai: OpenAI) -> None:
    answer = openai.images.edit(model="painter", prompt="paint", image=("a.png", PNG), mask=("m.png", PNG))
    assert answer.data is not None
    # An edit is as large as its image, unless a size is asked for.
    assert opened(answer.data[0].b64_json).size == (16, 16)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_openai_varies_an_image(openai: OpenAI) -> None:
    answer = openai.images.create_variation(
        model="painter", image=("a.png", PNG), n=1, size=None, extra_body={"prompt": "paint"}
    )
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (16, 16)


def test_together_gets_jpeg_by_url(together: Together) -> None:
    answer = together.images.generate(model="painter", prompt="paint", width=32, height=24, steps=2, n=1)
    image = answer.data[0]
    assert image.type == "url"
    got = httpx.get(image.url)
    assert got.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(got.content)).size == (32, 24)


def test_together_gets_base64(together: Together) -> None:
    answer = together.images.generate(
        model="painter",
        prompt="paint",
        response_format="base64",
        output_format="png",
        extra_body={"aspect_ratio": "16:9"},
    )
    image = answer.data[0]
    assert image.type == "b64_json"
    width, height = opened(image.b64_json).size
    assert width / height == pytest.approx(16 / 9, rel=0.15)


def test_json_edits_take_data_urls_and_files(server: ServerProcess, openai: OpenAI) -> None:
    file = openai.files.create(file=("a.png", PNG), purpose="vision")
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    for source in ({"image_url": url}, {"file_id": file.id}):
        answer = httpx.post(
            f"{server.url}/v1/images/edits",
            json={"model": "painter", "prompt": "paint", "images": [source], "mask": {"image_url": url}},
        )
        assert answer.status_code == 200, answer.text
        assert opened(answer.json()["data"][0]["b64_json"]).size == (16, 16)


def test_what_is_null_is_left_open(server: ServerProcess) -> None:
    file = httpx.post(f"{server.url}/v1/files", files={"file": ("a.png", PNG)}, data={"purpose": "vision"}).json()["id"]
    source = {"image_url": None, "file_id": file}
    for path, kind, images in (("generations", GenerationBody, {}), ("edits", EditBody, {"images": [source]})):
        nulls = dict.fromkeys(kind.__struct_fields__)
        body = nulls | {"model": "painter", "prompt": "paint"} | images
        answer = httpx.post(f"{server.url}/v1/images/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["output_format"] == "png"


def test_a_body_without_a_length_has_the_same_limit(server: ServerProcess) -> None:
    answer = httpx.post(f"{server.url}/v1/images/generations", content=(b" " * 100_000 for _ in range(30)), timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")


def test_a_stream_outlives_what_a_failed_attempt_leaves_behind(server: ServerProcess) -> None:
    body = {"model": "painter", "prompt": "raise", "stream": True, "partial_images": 3}
    answer = httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=30)
    assert "engine_failed" in answer.text
    assert "blob_not_found" not in answer.text


def test_the_sdk_raises_what_the_server_says(openai: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        openai.images.generate(model="painter", prompt="invalid")
    assert (caught.value.param, caught.value.code) == ("prompt", "invalid_value")


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"prompt": ""}, 400, "missing_required_parameter", "prompt"),
    ({"prompt": "p", "n": 0}, 400, "invalid_value", "n"),
    ({"prompt": "p", "n": "two"}, 400, "invalid_value", "n"),
    ({"prompt": "p", "size": "large"}, 400, "invalid_value", "size"),
    ({"prompt": "p", "size": "0x0"}, 400, "invalid_value", "size"),
    ({"prompt": None}, 400, "missing_required_parameter", "prompt"),
    ({"prompt": "p", "metadata": {"a": 1}}, 400, "invalid_value", "metadata[...]"),
    ({"prompt": "p", "metadata": {"a": "x" * 513}}, 400, "invalid_value", "metadata[...]"),
    ({"prompt": "p", "metadata": {str(number): "" for number in range(17)}}, 400, "invalid_value", "metadata"),
    ({"prompt": "p", "size": "64x64", "width": 32}, 400, "invalid_value", "size"),
    ({"prompt": "p", "width": 33}, 400, "invalid_value", "width"),
    ({"prompt": "p", "steps": 5000}, 400, "invalid_value", "steps"),
    ({"prompt": "p", "aspect_ratio": "wide"}, 400, "invalid_value", "aspect_ratio"),
    ({"prompt": "p", "background": "transparent"}, 400, "unsupported_parameter", "background"),
    ({"prompt": "p", "output_format": "gif"}, 400, "invalid_value", "output_format"),
    ({"prompt": "p", "response_format": "file"}, 400, "invalid_value", "response_format"),
    ({"prompt": "p", "image_loras": [{"path": "/etc/passwd"}]}, 400, "invalid_value", "image_loras"),
    ({"prompt": "p", "image_loras": [{"path": "owner/name"}]}, 400, "invalid_value", "image_loras"),
    ({"prompt": "p", "image_url": "http://127.0.0.1/a.png"}, 400, "url_not_allowed", "image_url"),
    ({"prompt": "p", "image_url": "http://169.254.169.254/a"}, 400, "url_not_allowed", "image_url"),
    ({"prompt": "p", "image_url": "data:image/png;base64,AAAA"}, 400, "invalid_image", "image_url"),
    ({"prompt": "p", "image_url": "data:image/png,AAAA"}, 400, "invalid_value", "image_url"),
    ({"prompt": "p", "image_url": "data:image/png;base64," + "A" * 1_500_000}, 413, "file_too_large", "image_url"),
    ({"prompt": "p", "webhook": "ftp://host/"}, 400, "url_not_allowed", "webhook"),
    ({"prompt": "p", "model": "espeak-ng"}, 404, "model_not_found", "model"),
    ({"prompt": "p", "model": "black-forest-labs/FLUX.1-dev"}, 400, "model_weights_missing", "model"),
    ({"prompt": "invalid"}, 400, "invalid_value", "prompt"),
]


@pytest.mark.parametrize(("body", "status", "code", "param"), WRONG, ids=lambda value: str(value)[:40])
def test_what_is_wrong_is_named(
    server: ServerProcess, body: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    answer = httpx.post(f"{server.url}/v1/images/generations", json={"model": "painter"} | body, timeout=30)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert spools(server) == []


@pytest.mark.parametrize(
    ("files", "status", "code", "param"),
    [
        ([], 400, "missing_required_parameter", "image"),
        ([("image", b"")], 400, "invalid_image", "image"),
        ([("image", b"text")], 400, "invalid_image", "image"),
        ([("image", PNG[:50])], 400, "invalid_image", "image"),
        ([("image", PNG), ("mask", square("png", 8, 8))], 400, "invalid_value", "mask"),
        ([("image", PNG), ("image", PNG)], 400, "invalid_value", "image"),
        ([("image", PNG + bytes(1_100_000))], 413, "file_too_large", "image"),
    ],
    ids=["none", "empty", "text", "truncated", "mask of another size", "too many", "too large"],
)
def test_what_is_wrong_with_an_edit_is_named(
    server: ServerProcess, files: list[tuple[str, bytes]], status: int, code: str, param: str
) -> None:
    answer = httpx.post(
        f"{server.url}/v1/images/edits",
        data={"model": "painter", "prompt": "paint"},
        files=[(name, ("a.png", data)) for name, data in files] or [("other", ("a", b"x"))],
        timeout=30,
    )
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert spools(server) == []


def spools(server: ServerProcess) -> list[Path]:
    return [path for path in (server.data_dir / "spool").glob("*/**/*") if path.name.startswith("request-")]
