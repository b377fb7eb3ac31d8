"""The Images and the Jobs panel in a real browser: pictures are asked for, watched, kept and called off.

The model is the scripted painter, whose prompts are verbs (`tests.fakes`).
"""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from playwright.async_api import Locator, Page, Route, ViewportSize, expect

from tests.journeys.browser import needs_browser, studio
from tests.journeys.painting import painter
from tests.journeys.server_process import ServerProcess, running_server

PAGE = 20
"""Jobs that the list shows at first."""
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

pytestmark = [pytest.mark.journey, needs_browser]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("studio-jobs")
    with running_server(folder / "data", **painter(folder)) as server:
        yield server


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{server.url}/v1", timeout=30) as client:
        yield client


async def generate(page: Page, prompt: str, **fields: str) -> None:
    """Fill the form and send it; `fields` are the ids of its inputs without their "image-"."""
    await page.locator("#image-prompt").fill(prompt)
    for name, value in fields.items():
        await page.locator(f"#image-{name}").fill(value)
    await page.locator("#image-generate").click()


async def newest(page: Page, status: str) -> Locator:
    """The first row of the list, once its job is in this state."""
    row = page.locator(".job").first
    await expect(row).to_have_attribute("data-status", status, timeout=10_000)
    return row


async def come_back(page: Page) -> None:
    """What the page is told when somebody turns to its tab again: it looks at once instead of when it next would."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def widths(pictures: Locator) -> list[int]:
    """How wide each picture really is; 0 for one that could not be loaded."""
    loaded: list[int] = await pictures.evaluate_all(
        "images => Promise.all(images.map(async (image) => { await image.decode(); return image.naturalWidth; }))"
    )
    return loaded


async def test_pictures_are_made_shown_listed_and_there_after_a_reload(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        offered = page.locator("#image-model option:enabled")
        await expect(offered.nth(0)).to_have_text("auto")
        await expect(offered.nth(1)).to_have_text("Painter")  # what is installed beside it follows
        await page.get_by_text("Start from a picture").click()
        await generate(page, "paint a <b>harbour</b>", count="2", seed="7", size="64x32", steps="3")
        done = page.locator("#pictures li[data-state=done]")
        await expect(done).to_have_count(2)
        await expect(page.locator("#images-panel")).to_have_attribute("data-state", "idle")
        await expect(done.locator(".seed")).to_have_text(["Seed 7", "Seed 8"])
        assert await widths(done.locator("img")) == [64, 64]
        async with page.expect_download() as download:
            await done.get_by_role("link", name="Download").nth(1).click()
        kept = tmp_path / (await download.value).suggested_filename
        await (await download.value).save_as(kept)
        with Image.open(kept) as image:
            assert image.size == (64, 32)

        for _ in ("now", "after a reload"):
            row = await newest(page, "succeeded")
            await expect(row.locator(".job-title")).to_have_text("paint a <b>harbour</b>")
            await expect(row.locator(".job-head")).to_contain_text("Painter")
            assert await widths(row.locator("img")) == [64, 64]
            await page.screenshot(path=tmp_path / "pictures.png", full_page=True)
            await page.reload()
        # The panel takes up what this tab made last.
        await expect(done.locator(".seed")).to_have_text(["Seed 7", "Seed 8"])


async def test_a_picture_is_watched_called_off_and_deleted(
    server: ServerProcess, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    async with studio(server) as visit:
        page = visit.page
        await generate(page, "step", count="2")
        await expect(page.locator("#pictures li[data-state=preview] img")).to_have_count(1)
        await expect(page.locator("#pictures li[data-state=waiting]")).to_have_count(1)
        assert await widths(page.locator("#pictures img")) == [8]
        row = await newest(page, "running")
        await expect(page.locator("#jobs-status")).to_have_text("1 running")
        await page.screenshot(path=tmp_path / "watching.png", full_page=True)
        await page.locator("#image-cancel").click()
        await expect(page.locator("#images-status")).to_have_text("Cancelled")
        await expect(page.locator("#image-generate")).to_be_focused()
        row = await newest(page, "cancelled")

        id = await row.get_attribute("data-job-id")
        await row.get_by_role("button", name="Delete").click()
        await row.get_by_role("button", name="Delete for good?").click()
        await expect(page.locator(f"[data-job-id={id}]")).to_have_count(0)
        assert (await client.get(f"/jobs/{id}")).status_code == 404


async def test_what_goes_wrong_is_told_in_the_servers_words(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        visit.expected.append("400")
        message = page.locator("#images-error-message")
        await generate(page, "invalid")
        await expect(message).to_have_text("no such thing can be painted")
        row = await newest(page, "failed")
        await expect(row.locator(".job-failure")).to_have_text("no such thing can be painted")
        await page.screenshot(path=tmp_path / "failed.png", full_page=True)

        await generate(page, "paint", size="7x7")
        await expect(message).to_have_text("The width must be a multiple of 8, not 7.")
        await page.locator("#image-size").fill("")
        await page.get_by_role("button", name="Try again").click()
        await expect(page.locator("#pictures li[data-state=done]")).to_have_count(1)
        await expect(page.locator("#images-error")).to_be_hidden()


async def test_a_picture_to_start_from_is_sent(server: ServerProcess) -> None:
    file = io.BytesIO()
    Image.new("RGB", (72, 40), "blue").save(file, "PNG")
    async with studio(server) as visit:
        page = visit.page
        await page.get_by_text("Start from a picture").click()
        await page.get_by_label("Picture to start from").set_input_files(
            {"name": "start.png", "mimeType": "image/png", "buffer": file.getvalue()}
        )
        await expect(page.locator("#image-start-shown")).to_be_visible()
        assert await widths(page.locator("#image-start-shown")) == [72]
        async with page.expect_response("**/v1/images/edits") as answer:
            await generate(page, "paint it red")
        assert (await answer.value).status == 202
        # A result takes the size of the picture it starts from.
        await expect(page.locator("#pictures li[data-state=done]")).to_have_count(1)
        assert await widths(page.locator("#pictures img")) == [72]
        assert (await (await answer.value).json())["metadata"] == {"prompt": "paint it red"}

        await page.get_by_role("button", name="Remove").click()
        await expect(page.locator("#image-start-shown")).to_be_hidden()
        async with page.expect_response("**/v1/images/generations"):
            await page.locator("#image-generate").click()


async def test_speech_and_transcripts_are_heard_and_read(
    server: ServerProcess, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    speech = {"model": "espeak-ng", "input": "go forward ten meters", "voice": "alloy", "response_format": "wav"}
    sound = (await client.post("/audio/speech", json=speech)).content
    await client.post("/audio/speech?async=true", json=speech)
    for format in ("srt", "json"):
        form = {"model": "auto", "response_format": format}
        await client.post("/audio/transcriptions?async=true", data=form, files={"file": ("a.wav", sound)})
    async with studio(server) as visit:
        page = visit.page
        transcript, subtitles, spoken = (page.locator(".job").nth(place) for place in range(3))
        for row in (transcript, subtitles, spoken):
            await expect(row).to_have_attribute("data-status", "succeeded", timeout=15_000)
        await expect(spoken.locator("audio")).to_have_js_property("readyState", 4)
        assert await spoken.locator("audio").evaluate("audio => audio.duration") > 0.5
        job = (await client.get("/jobs?limit=1")).json()["data"][0]
        assert job["result"]["text"].strip()
        await expect(transcript.locator(".job-text")).to_have_text(job["result"]["text"].strip())
        await expect(subtitles.locator(".job-text")).to_contain_text(" --> ")
        await page.screenshot(path=tmp_path / "results.png", full_page=True)
        await page.set_viewport_size({"width": 375, "height": 740})
        await page.screenshot(path=tmp_path / "results-telephone.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_waiting_jobs_have_places_and_older_ones_are_a_button_away(
    server: ServerProcess, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    async def queue(prompt: str) -> str:
        answer = await client.post("/images/generations?async=true", json={"prompt": prompt})
        id: str = answer.json()["id"]
        return id

    await client.post("/pools/default/pause")
    ids = [await queue(f"paint {number}") for number in range(PAGE + 2)]
    try:
        async with studio(server) as visit:
            page = visit.page
            rows = page.locator(".job")
            await expect(rows).to_have_count(PAGE)
            await expect(rows.first.locator(".job-progress")).to_contain_text(f"Number {len(ids)} in line")
            await page.get_by_role("button", name="Show older jobs").click()
            first = page.locator(f"[data-job-id={ids[0]}]")
            await expect(first.locator(".job-progress")).to_contain_text("Next in line")
            await page.screenshot(path=tmp_path / "waiting.png", full_page=True)
            await first.get_by_role("button", name="Cancel").click()
            await expect(first).to_have_attribute("data-status", "cancelled")

            # What comes meanwhile goes on top, and what was read before stays.
            shown = await rows.count()
            ids.append(await queue("paint more"))
            await come_back(page)
            await expect(rows.first).to_have_attribute("data-job-id", ids[-1], timeout=10_000)
            await expect(rows).to_have_count(shown + 1)
            for id in ids:
                await client.post(f"/jobs/{id}/cancel")
            await come_back(page)
            await expect(page.locator(".job[data-status=queued]")).to_have_count(0, timeout=15_000)
            await expect(page.locator("#jobs-status")).to_have_text("Nothing is running")
    finally:
        await client.post("/pools/default/resume")


async def test_a_job_outlives_its_server_and_the_page_sees_it_end(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    # The page gets results from where it came from, whatever name they have for others.
    settings = painter(tmp_path) | {"SONOREEL_PUBLIC_URL": "https://media.example"}
    server = ServerProcess(tmp_path / "data", settings)
    try:
        server.wait_ready()
        async with studio(server) as visit:
            page = visit.page
            visit.expected += ["ERR_CONNECTION", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE"]
            await generate(page, f"wait {gate}")
            await expect(page.locator("#pictures li[data-state=preview]")).to_have_count(1)
            await newest(page, "running")
            for pid in [server.process.pid, *server.worker_pids()]:
                os.kill(pid, signal.SIGKILL)
            await expect(page.locator("#images-status")).to_have_text("Connection lost, trying again…")
            await expect(page.locator("#jobs-error")).to_contain_text("cannot be reached", timeout=10_000)
            await page.screenshot(path=tmp_path / "lost.png", full_page=True)

            port = str(urlsplit(server.url).port)
            with running_server(tmp_path / "data", **settings, SONOREEL_PORT=port):
                row = await newest(page, "running")
                await expect(row.locator(".job-note")).to_contain_text("Attempt 2.", timeout=10_000)
                await expect(page.locator("#jobs-error")).to_be_hidden()
                opener = threading.Thread(target=lambda: gate.open("w").close(), daemon=True)
                opener.start()
                await expect(page.locator("#pictures li[data-state=done]")).to_have_count(1, timeout=10_000)
                row = await newest(page, "succeeded")
                assert await widths(row.locator("img")) == [64]
                await expect(row.locator(".job-note")).to_have_text("Took 2 attempts.")
                opener.join(5)
    finally:
        server.terminate()


async def test_every_request_carries_the_key_and_no_address_does(server: ServerProcess) -> None:
    async with studio(server) as visit:
        page = visit.page
        visit.expected.append("401")

        async def guard(route: Route) -> None:
            if route.request.headers.get("authorization") == "Bearer sesame":
                await route.continue_()
            else:
                error = {"message": "No.", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
                await route.fulfill(status=401, json={"error": error})

        await page.route(re.compile(r"/v1/(?!blobs)"), guard)
        await page.reload()
        await page.get_by_label("API key").fill("sesame")
        await page.get_by_role("button", name="Use this key").click()
        await generate(page, "paint")
        await expect(page.locator("#pictures li[data-state=done]")).to_have_count(1)
        await newest(page, "succeeded")
        assert [address for address in visit.addresses if "sesame" in address] == []


async def test_a_machine_without_an_image_model_is_told_how_to_get_one(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server, viewport=ViewportSize(width=375, height=740)) as visit:
        page = visit.page

        async def without_image_models(route: Route) -> None:
            body: dict[str, Any] = await (await route.fetch()).json()
            for model in body["data"]:
                if model["task"] == "image":
                    model |= {"available": False, "embedded": model["id"] == "painter"}
            await route.fulfill(json=body)

        await page.route("**/v1/models", without_image_models)
        await page.reload()
        await expect(page.locator("#images-absent")).to_contain_text("No image model can run on this machine yet.")
        await expect(page.locator("#images-form")).to_be_hidden()
        commands = page.locator("#image-absent-commands")
        await page.locator("#image-absent-model").select_option(label="Painter (embedded)")
        await expect(commands).to_have_text("pip install 'sonoreel[diffusion]'")
        await page.locator("#image-absent-model").select_option(label="FLUX.1 schnell")
        await expect(commands).to_contain_text("sonoreel models pull black-forest-labs/FLUX.1-schnell")
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=tmp_path / f"absent-{scheme}.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
