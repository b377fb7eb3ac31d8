"""Remixes: whatever becomes of the video they are made of, and whatever is asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import square
from tests.journeys.filming import film, filmer
from tests.journeys.painting import until
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("remixes")
    with running_server(folder / "data", **filmer(folder)) as server:
        yield server


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def refused(answer: httpx.Response, status: int = 400) -> tuple[str, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["code"], error["param"]


def inputs(data_dir: Path) -> set[Path]:
    """Files that some job was submitted with."""
    return {path for path in data_dir.rglob("jobs/*/input/*") if path.is_file()}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"prompt": "film", "seed": -1}, "invalid_value", "seed"),
        ({"prompt": "film", "seed": 2**63}, "invalid_value", "seed"),
        ({"prompt": " "}, "missing_required_parameter", "prompt"),
        ({"prompt": "x" * 501}, "invalid_value", "prompt"),
    ],
)
def test_a_remix_is_held_to_what_its_model_takes(
    server: ServerProcess, client: httpx.Client, body: dict[str, Any], code: str, param: str
) -> None:
    video = film(client, server.url, "film")
    until(client, server.url, video["id"], "succeeded")
    assert refused(client.post(f"{server.url}/v1/videos/{video['id']}/remix", json=body)) == (code, param)


def test_a_source_that_goes_meanwhile_leaves_no_half_of_a_remix(server: ServerProcess, client: httpx.Client) -> None:
    before = inputs(server.data_dir)
    pictures = [("input_reference", (name, square("png", 64, 48))) for name in ("first.png", "last.png")]
    form = {"model": "filmer", "prompt": "film"}
    video = client.post(f"{server.url}/v1/videos", data=form, files=pictures).json()
    until(client, server.url, video["id"], "succeeded")
    _, last = sorted(inputs(server.data_dir) - before)
    last.unlink()  # as far as somebody has come who deletes it
    answer = client.post(f"{server.url}/v1/videos/{video['id']}/remix", json={"prompt": "film"})
    assert refused(answer, 404) == ("video_not_found", "id")
    assert len(inputs(server.data_dir) - before) == 1
