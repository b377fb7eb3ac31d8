"""The Video panel in a real browser: a clip is asked for, watched while it is made, called off, played after a reload.

The model is the scripted filmer, whose prompts are verbs (`tests.fakes`).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Locator, Page, ViewportSize, expect

from tests.journeys.browser import needs_browser, studio
from tests.journeys.filming import decoded, filmer
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, needs_browser]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("studio-video")
    with running_server(folder / "data", **filmer(folder)) as server:
        yield server


async def film(page: Page, prompt: str, **fields: str) -> None:
    """Fill the form and send it; `fields` are the ids of its inputs without their "video-"."""
    await page.locator("#video-prompt").fill(prompt)
    for name, value in fields.items():
        await page.locator(f"#video-{name}").fill(value)
    await page.locator("#video-generate").click()


async def played(clip: Locator) -> tuple[int, float]:
    """Plays a clip to a moment within it, without sound; its width and the moment."""
    width, moment = await clip.evaluate(
        """async (video) => {
          video.muted = true;
          await video.play();
          await new Promise((resolve) => {
            if (video.currentTime > 0) resolve();
            else video.addEventListener("timeupdate", () => video.currentTime > 0 && resolve());
          });
          video.pause();
          return [video.videoWidth, video.currentTime];
        }"""
    )
    return width, moment


async def test_a_clip_is_made_shown_kept_and_played_after_a_reload(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        await page.get_by_text("First frame, narration").click()
        await film(page, "film a <b>harbour</b>", seed="7", size="96x64", seconds="2", steps="3", narration="Hello.")
        clip = page.locator("#screen video")
        await expect(page.locator("#screen")).to_have_attribute("data-state", "done", timeout=20_000)
        await expect(page.locator("#videos-panel")).to_have_attribute("data-state", "idle")
        await expect(page.locator("#screen .seed")).to_have_text("Seed 7, 96×64, 17 frames at 8 a second")
        async with page.expect_download() as download:
            await page.locator("#screen").get_by_role("link", name="Download").click()
        await (await download.value).save_as(tmp_path / "clip.mp4")
        kept = decoded((tmp_path / "clip.mp4").read_bytes())
        assert kept.frames.shape == (17, 64, 96, 3)
        assert kept.audio == "aac"
        for _ in ("now", "after a reload"):
            width, moment = await played(clip)
            assert width == 96
            assert 0 < moment <= 2.2
            row = page.locator(".job").first
            await expect(row).to_have_attribute("data-status", "succeeded")
            await expect(row.locator(".job-title")).to_have_text("film a <b>harbour</b>")
            await expect(row.locator(".job-head")).to_contain_text("Video")
            assert (await played(row.locator("video")))[0] == 96
            await expect(row.get_by_role("link", name="spritesheet.webp")).to_be_visible()
            await page.screenshot(path=tmp_path / "clip.png", full_page=True)
            await page.reload()


async def test_a_clip_is_watched_and_called_off(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        await film(page, "decode step")
        await expect(page.locator("#screen")).to_have_attribute("data-state", "preview")
        await expect(page.locator("#screen img")).to_have_js_property("naturalWidth", 8)
        await expect(page.locator("#videos-status")).to_have_text("Frame 4 of 9")
        await page.screenshot(path=tmp_path / "watching.png", full_page=True)
        await page.locator("#video-cancel").click()
        await expect(page.locator("#videos-status")).to_have_text("Cancelled")
        await expect(page.locator("#video-generate")).to_be_focused()
        await expect(page.locator(".job").first).to_have_attribute("data-status", "cancelled", timeout=10_000)


async def test_a_picture_of_the_first_frame_is_sent(server: ServerProcess) -> None:
    file = io.BytesIO()
    Image.new("RGB", (80, 48), "blue").save(file, "PNG")
    async with studio(server) as visit:
        page = visit.page
        await page.get_by_text("First frame, narration").click()
        await page.get_by_label("Picture of the first frame").set_input_files(
            {"name": "start.png", "mimeType": "image/png", "buffer": file.getvalue()}
        )
        await expect(page.locator("#video-start-shown")).to_be_visible()
        await film(page, "film")
        await expect(page.locator("#screen .seed")).to_contain_text("80×48", timeout=20_000)


async def test_what_goes_wrong_is_told_in_the_servers_words(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server, viewport=ViewportSize(width=375, height=740)) as visit:
        page = visit.page
        visit.expected.append("400")
        await film(page, "film", seconds="60")
        message = page.locator("#videos-error-message")
        await expect(message).to_have_text(
            "A clip of this model lasts 0.625 to 10.1 seconds at 8 frames a second, not 60."
        )
        await page.locator("#video-seconds").fill("")
        await film(page, "invalid")
        await expect(message).to_have_text("no such thing can be filmed")
        await page.screenshot(path=tmp_path / "failed.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
