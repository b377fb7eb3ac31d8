"""The studio page in a real browser against a real server: it speaks, stops, listens, and stays at home.

The browser is Chromium with a fake microphone that plays a file; the file is this server's own voice.
"""

from __future__ import annotations

import re
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest
import soxr
from playwright.async_api import Route, ViewportSize, expect

from tests.journeys.browser import Server, needs_browser, studio

SPOKEN_TO_MICROPHONE = "she sells books about the history of music"
LONG_TEXT = "This sentence is spoken until somebody stops it, and nobody should hear the end of it. " * 8
SPEECH_RATE, MICROPHONE_RATE = 24_000, 48_000

pytestmark = [pytest.mark.journey, needs_browser]


async def record_microphone(server: Server, path: Path) -> None:
    """Write the server's own voice as the 48 kHz mono wav that the fake microphone plays."""
    request = {
        "model": "auto",
        "voice": "alloy",
        "input": SPOKEN_TO_MICROPHONE,
        "response_format": "pcm",
        "sample_rate": SPEECH_RATE,
    }
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        response = await client.post("/v1/audio/speech", json=request)
    response.raise_for_status()
    speech = np.frombuffer(response.content, "<i2").astype(np.float32) / 32768
    samples = soxr.resample(speech, SPEECH_RATE, MICROPHONE_RATE)
    pause = np.zeros(MICROPHONE_RATE * 3 // 2, np.float32)
    pcm = np.clip(np.concatenate([pause, samples, pause]) * 32767, -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as target:
        target.setnchannels(1)
        target.setsampwidth(2)
        target.setframerate(MICROPHONE_RATE)
        target.writeframes(pcm.tobytes())


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


async def test_what_is_written_is_heard_and_each_word_is_marked_in_turn(server: Server, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        panel, marked = page.locator("#speak-panel"), page.locator("#reading-word")
        await page.locator("#speech-text").fill("Every word lights up.")
        # The mark may move faster than a test can look: the page is asked to remember.
        await page.evaluate("""() => {
            window.marked = [];
            const word = document.getElementById("reading-word");
            const remember = () => word.textContent && marked.push(word.textContent);
            new MutationObserver(remember).observe(word, { childList: true });
        }""")
        await page.locator("#speak").click()
        await expect(panel).to_have_attribute("data-state", "speaking")
        await expect(panel).to_have_attribute("data-first-audio-ms", re.compile(r"^\d+\.\d$"))
        await expect(page.locator("#first-audio")).to_have_text(re.compile(r"^\d+ ms$"))
        await expect(marked).not_to_be_empty()
        await page.screenshot(path=tmp_path / "speaking.png")
        await expect(panel).to_have_attribute("data-outcome", "finished", timeout=15_000)
        await expect(panel).to_have_attribute("data-state", "idle")

        assert words(" ".join(await page.evaluate("window.marked"))) == ["every", "word", "lights", "up"]
        assert await panel.get_attribute("data-underruns") == "0"
        received = float(await panel.get_attribute("data-received-seconds") or 0)
        assert received > 0.5
        assert float(await panel.get_attribute("data-heard-seconds") or 0) == pytest.approx(received, abs=0.1)


async def test_stop_silences_at_once_and_says_what_was_not_spoken(server: Server, tmp_path: Path) -> None:
    async with studio(server) as visit:
        page = visit.page
        panel = page.locator("#speak-panel")
        await page.locator("#speech-text").fill(LONG_TEXT)
        await page.locator("#speak").click()
        await expect(page.locator("#reading-word")).not_to_be_empty()
        # Some words later, so that there is something that was spoken.
        await expect(panel).to_have_attribute("data-heard-seconds", re.compile(r"^1\."), timeout=10_000)
        await page.keyboard.press("Escape")
        await expect(panel).to_have_attribute("data-outcome", "cancelled")
        await expect(page.locator("#cut-off")).to_be_visible()
        await page.screenshot(path=tmp_path / "stopped.png")

        spoken = words(await page.locator("#text-spoken").inner_text())
        remaining = words(await page.locator("#text-remaining").inner_text())
        assert spoken
        assert remaining
        assert spoken + remaining == words(LONG_TEXT)
        assert float(await panel.get_attribute("data-heard-seconds") or 0) < 4
        await expect(page.locator("#speak")).to_be_enabled()


async def test_what_is_said_into_the_microphone_is_read(server: Server, tmp_path: Path) -> None:
    recording = tmp_path / "microphone.wav"
    await record_microphone(server, recording)
    async with studio(server, recording) as visit:
        page = visit.page
        panel = page.locator("#listen-panel")
        await page.get_by_role("button", name="Start listening").click()
        await expect(panel).to_have_attribute("data-state", "listening", timeout=10_000)
        await expect(panel).to_have_attribute("data-speaking", "true", timeout=10_000)
        await expect(page.locator("#level")).not_to_have_attribute("aria-valuenow", "0")
        await expect(page.locator("#transcript li[data-state=partial]")).not_to_have_count(0, timeout=15_000)
        await page.screenshot(path=tmp_path / "listening.png")
        settled = page.locator("#transcript li[data-state=final]")
        await expect(settled).not_to_have_count(0, timeout=20_000)
        await page.get_by_role("button", name="Stop listening").click()
        await expect(panel).to_have_attribute("data-state", "idle", timeout=10_000)
        await page.screenshot(path=tmp_path / "heard.png")

        heard = words(" ".join(await settled.all_inner_texts()))
        expected = words(SPOKEN_TO_MICROPHONE)
        # A robot listens to a robot; the way between them is under test, and noise gives none of these words.
        assert sum(word in heard for word in expected) >= len(expected) / 2, heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_fits_a_telephone(server: Server, tmp_path: Path, scheme: str) -> None:
    async with studio(server, viewport=ViewportSize(width=375, height=740), color_scheme=scheme) as visit:
        page = visit.page
        await page.screenshot(path=tmp_path / f"telephone-{scheme}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await page.locator("#models-in-use").inner_text() != ""
        assert await page.locator("#voice option").count() >= 13


async def test_a_restarting_server_offers_the_way_back(server: Server) -> None:
    async with studio(server) as visit:
        page = visit.page
        # Only the next connection is cut, the way a draining server cuts it; the one after it goes through.
        await page.route_web_socket(re.compile("/v1/realtime"), lambda socket: socket.close(code=1012))
        await page.get_by_role("button", name="Start listening").click()
        await expect(page.locator("#listen-panel")).to_have_attribute("data-state", "error")
        await expect(page.locator("#listen-error")).to_contain_text("restarting")

        await page.route_web_socket(re.compile("/v1/realtime"), lambda socket: socket.connect_to_server())
        await page.get_by_role("button", name="Reconnect").click()
        await expect(page.locator("#listen-panel")).to_have_attribute("data-state", "listening")
        await expect(page.locator("#listen-error")).to_be_hidden()
        await page.get_by_role("button", name="Stop listening").click()
        await expect(page.locator("#listen-panel")).to_have_attribute("data-state", "idle")


async def test_a_server_that_wants_a_key_gets_it_in_every_form(server: Server) -> None:
    async with studio(server) as visit:
        page = visit.page
        visit.expected.append("401")
        await expect(page.locator("#key-form")).to_be_hidden()

        async def guard(route: Route) -> None:
            if route.request.headers.get("authorization") == "Bearer sesame":
                await route.continue_()
            else:
                error = {"message": "No.", "type": "invalid_request_error", "param": None, "code": "invalid_api_key"}
                await route.fulfill(status=401, json={"error": error})

        await page.route("**/v1/*", guard)
        await page.reload()
        await page.get_by_label("API key").fill("sesame")
        await page.get_by_role("button", name="Use this key").click()
        await expect(page.locator("html")).to_have_attribute("data-ready", "true")
        await expect(page.locator("#key-form")).to_be_hidden()
        async with page.expect_websocket(lambda socket: "api_key=sesame" in socket.url):
            await page.locator("#speak").click()
        await page.locator("#stop").click()
        await expect(page.locator("#speak-panel")).to_have_attribute("data-outcome", "cancelled")
