"""Clips that are hard to show: their addresses expire, their files break, the browser has no decoder for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.journeys.browser import needs_browser, studio
from tests.journeys.faults import eventually
from tests.journeys.filming import decoded, filmer
from tests.journeys.server_process import ServerProcess, running_server

pytestmark = [pytest.mark.journey, needs_browser]
URL_SECONDS = 2.0
NO_H264 = """
const media = HTMLMediaElement.prototype, known = media.canPlayType;
media.canPlayType = function (kind) { return kind.includes("avc1") ? "" : known.call(this, kind); };
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("studio-clips")
    with running_server(folder / "data", **filmer(folder), SONOREEL_URL_SECONDS=str(URL_SECONDS)) as server:
        yield server


async def made(page: Page, prompt: str = "film") -> None:
    """Waits until a clip is on the screen."""
    await page.locator("#video-prompt").fill(prompt)
    await page.locator("#video-generate").click()
    await expect(page.locator("#screen")).to_have_attribute("data-state", "done", timeout=20_000)


async def expired(address: str) -> None:
    """Returns once nothing is at a signed address any more."""
    async with httpx.AsyncClient() as client:

        async def is_over() -> bool:
            return (await client.get(address)).status_code != 200

        await eventually(is_over)


async def test_a_clip_whose_address_expired_is_kept_and_played_all_the_same(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with studio(server) as visit:
        visit.expected.append("403")
        page = visit.page
        await made(page)
        await expired(await page.locator("#screen .download").evaluate("link => link.href"))
        async with page.expect_download() as download:
            await page.locator("#screen .download").press("Enter")
        await (await download.value).save_as(tmp_path / "clip.mp4")
        assert len(decoded((tmp_path / "clip.mp4").read_bytes()).frames) == 9
        # A player that asks for more of the clip than it has gets the same answer as one with a wrong signature.
        clip = page.locator("#screen video")
        await clip.evaluate("video => (video.src += '0')")
        await expect(clip).to_have_js_property("readyState", 4)
        await clip.evaluate("async video => { video.muted = true; await video.play(); }")
        await expect(page.locator("#screen .hint")).to_be_hidden()


async def test_a_clip_that_was_deleted_is_told_of(server: ServerProcess) -> None:
    async with studio(server) as visit:
        visit.expected.append("404")
        page = visit.page
        await made(page)
        async with httpx.AsyncClient(base_url=server.url) as client:
            (video, *_) = (await client.get("/v1/videos")).json()["data"]
            (await client.delete(f"/v1/videos/{video['id']}")).raise_for_status()
        await page.locator("#screen .download").click()
        await expect(page.locator("#screen .hint")).to_have_text("The clip was deleted.")


async def test_a_clip_that_cannot_be_decoded_is_told_of(server: ServerProcess) -> None:
    async with studio(server) as visit:
        page = visit.page
        await made(page)
        for path in server.data_dir.rglob("video.mp4"):
            spoilt = path.with_name("spoilt")  # at once, and as long: a player may still be asking for the rest of it
            spoilt.write_bytes(bytes(path.stat().st_size))
            spoilt.replace(path)
        await page.reload()
        await expect(page.locator("#screen .hint")).to_have_text(
            "The clip cannot be played here. Download it to see it elsewhere."
        )


async def test_a_browser_without_a_decoder_shows_the_first_frame(server: ServerProcess, tmp_path: Path) -> None:
    async with studio(server, viewport=ViewportSize(width=375, height=740), color_scheme="dark") as visit:
        page = visit.page
        await page.add_init_script(NO_H264)
        await page.reload()
        await made(page, 'film <img src=x onerror="trouble.push(1)">')
        await expect(page.locator("#screen .hint")).to_contain_text("cannot play the clip")
        await expect(page.locator("#screen img")).to_have_js_property("naturalWidth", 64)
        await expect(page.locator(".job").first.get_by_role("link", name="video.mp4")).to_be_visible()
        assert await page.locator(".job video, .job audio, #screen video").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await page.screenshot(path=tmp_path / "no-decoder.png", full_page=True)
