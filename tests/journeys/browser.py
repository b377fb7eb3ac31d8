"""A visit to the studio page in headless Chromium, with a fake microphone that plays a file, held to good behaviour."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Page, Playwright, async_playwright, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: apt-get install chromium")

# What the page did not catch, and what its content security policy blocked, is kept for the test to read.
WATCH = """
window.trouble = [];
addEventListener("securitypolicyviolation", (event) => trouble.push(`CSP blocked ${event.blockedURI}`));
addEventListener("error", (event) => trouble.push(String(event.message)));
addEventListener("unhandledrejection", (event) => trouble.push(String(event.reason)));
"""


class Server(Protocol):
    @property
    def url(self) -> str: ...


@dataclass
class Visit:
    """A page on the studio, and everything it did that it should not have."""

    page: Page
    origin: str
    console: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.on("websocket", lambda socket: self.addresses.append(socket.url))

    async def assert_well_behaved(self) -> None:
        complaints = [line for line in self.console if line.startswith(("error", "warning"))]
        surprises = [line for line in complaints if not any(part in line for part in self.expected)]
        assert not surprises, "\n".join(surprises)
        assert await self.page.evaluate("window.trouble") == []
        # A blob: address is the page's own, and names its origin after the scheme.
        hosts = [urlsplit(address.removeprefix("blob:")).netloc for address in self.addresses]
        strangers = [host for host in hosts if host != self.origin]
        assert strangers == []


def browser_flags(microphone: Path | None) -> list[str]:
    flags = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
    ]
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone.resolve()}%noloop")
    return flags


async def open_studio(playwright: Playwright, url: str, microphone: Path | None, **context: Any) -> Visit:
    browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=browser_flags(microphone))
    page = await (await browser.new_context(permissions=["microphone"], **context)).new_page()
    visit = Visit(page, urlsplit(url).netloc)
    visit.watch()
    await page.add_init_script(WATCH)
    response = await page.goto(f"{url}/")
    assert response is not None
    assert "default-src 'self'" in response.headers["content-security-policy"]
    await expect(page.locator("html")).to_have_attribute("data-ready", "true")
    return visit


@asynccontextmanager
async def studio(server: Server, microphone: Path | None = None, **context: Any) -> AsyncIterator[Visit]:
    """Visit the studio, then hold the visit to good behaviour. `context` are Playwright's options."""
    async with async_playwright() as playwright:
        visit = await open_studio(playwright, server.url, microphone, **context)
        try:
            yield visit
            await visit.assert_well_behaved()
        finally:
            browser = visit.page.context.browser
            assert browser is not None
            await browser.close()
