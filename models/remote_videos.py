"""A video that another server makes: queued there, looked at until it is made, fetched, and deleted there.

OpenAI's `/v1/videos`. Whatever ends it here before the video is there, it is called off there too.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx

from models.errors import EngineFailed
from models.remote_bodies import Body
from models.remote_client import LONGEST_PAUSE, MOST_STATUS, Answer, Upstream, Watch
from models.remote_errors import Unreachable

CREATE_SECONDS = 120.0
"""For a request with its picture to be taken in, and answered with the id of a job."""
SHORTEST_PAUSE = 0.05
MADE = frozenset({"completed", "succeeded", "success"})
FAILED = frozenset({"failed", "error"})
CALLED_OFF = frozenset({"cancelled", "canceled", "expired", "deleted"})
"""All else, known or not, means that the server is at it."""
LONGEST_ID = 512
INTEGER = re.compile(r"[0-9]{1,9}")


async def fetch_video(upstream: Upstream, body: Body, to: Path, watch: Watch) -> None:
    """Have a video made, into a file. Raises: an EngineError that says whether trying again may help."""
    with anyio.move_on_after(upstream.options.timeout) as time:
        async with upstream.client() as client:
            await _Made(upstream, client, watch).fetch(body, to)
    if time.cancelled_caught:
        raise EngineFailed(f"The server of this model took longer than {upstream.options.timeout:g} s.")


class _Made:
    """One video's way."""

    def __init__(self, upstream: Upstream, client: httpx.AsyncClient, watch: Watch) -> None:
        self._upstream = upstream
        self._client = client
        self._watch = watch
        self._path = ""

    async def fetch(self, body: Body, to: Path) -> None:
        answer = await self._upstream.reached(partial(self._create, body))
        self._path = f"videos/{quote(_id(answer.body), safe='')}"
        is_here = False
        try:
            await self._until_made(answer)
            await self._upstream.patiently(lambda: self._upstream.download(self._client, f"{self._path}/content", to))
            is_here = True
        finally:
            with anyio.move_on_after(self._watch.grace, shield=True):
                await self._leave(call_off=not is_here)

    async def _create(self, body: Body) -> Answer:
        # Broken off between the server's decision and its answer, a job would go on that nobody can call off.
        post = partial(self._upstream.post, self._client, "videos", body, MOST_STATUS, CREATE_SECONDS)
        return await self._watch.finish(CREATE_SECONDS, post)

    async def _until_made(self, answer: Answer) -> None:
        while True:
            said = answer.body.get("status")
            status = said.lower() if isinstance(said, str) else ""
            if status in MADE:
                return
            if status in FAILED:
                raise self._upstream.refusals.of_job(answer.body)
            if status in CALLED_OFF:
                raise EngineFailed("The server of this model called the video off.")
            await anyio.sleep(self._pause(answer))
            answer = await self._upstream.patiently(lambda: self._upstream.get(self._client, self._path))

    async def _leave(self, *, call_off: bool) -> None:
        """Have the server forget the job, stopped if it is still at it; one without cancel stops what is deleted."""
        if not (call_off and await self._upstream.tell(self._client, "POST", f"{self._path}/cancel")):
            await self._upstream.tell(self._client, "DELETE", self._path)

    def _pause(self, answer: Answer) -> float:
        said = answer.headers.get("openai-poll-after-ms", "")
        pause = int(said) / 1000 if INTEGER.fullmatch(said) else self._upstream.options.poll_seconds
        return min(max(pause, SHORTEST_PAUSE), LONGEST_PAUSE)


def _id(body: dict[str, Any]) -> str:
    id = body.get("id")
    if not isinstance(id, str | int) or not 0 < len(str(id)) <= LONGEST_ID:
        raise Unreachable("The server of this model answered without the id of a job.")
    return str(id)
