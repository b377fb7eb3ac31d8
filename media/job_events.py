"""A job as server-sent events, whenever it changes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from media.access import tenant_of
from media.errors import ApiError
from media.event_stream import EventStream
from media.jobs.states import Job
from media.jobs.watching import follow
from media.services import Services, services_of

EVENT_ID = re.compile(r"[0-9]{1,18}")
KEEP_ALIVE_SECONDS = 15.0
"""Between two comments on a stream, so that no proxy takes it for dead."""
Present: TypeAlias = Callable[[Services, Request, Job], Awaitable[dict[str, Any]]]


class JobEvents(Response):
    """Events named `state`, `progress` and `preview`; each id is a revision, and each data the whole job.

    Whoever comes back with Last-Event-ID gets what has changed since, as it is now.
    """

    def __init__(self, request: Request, id: str, present: Present) -> None:
        """`present` makes what is sent of a job. Raises: ApiError 400 for a Last-Event-ID that is none."""
        super().__init__()
        last = request.headers.get("last-event-id") or "0"
        if not EVENT_ID.fullmatch(last):
            raise ApiError(400, "invalid_value", "Last-Event-ID must be one of this stream", param="Last-Event-ID")
        self._request = request
        self._id = id
        self._present = present
        self._seen = int(last)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = EventStream(send)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._until_hung_up, receive, tasks.cancel_scope)
            tasks.start_soon(self._keep_alive, stream)
            await self._follow(stream)
            await stream.end()
            tasks.cancel_scope.cancel()

    async def _follow(self, stream: EventStream) -> None:
        services = services_of(self._request)
        before: Job | None = None
        tenant = tenant_of(self._request)
        async with aclosing(follow(services.database, tenant, self._id, self._seen)) as changes:
            async for job in changes:
                body = await self._present(services, self._request, job)
                await stream.send(body, event=_name(job, before), id=str(job.revision))
                before = job

    async def _keep_alive(self, stream: EventStream) -> None:
        while True:
            await stream.comment()
            await anyio.sleep(KEEP_ALIVE_SECONDS)

    async def _until_hung_up(self, receive: Receive, answer: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answer.cancel()


def _name(job: Job, before: Job | None) -> str:
    """What an event is about."""
    if before is None or before.state is not job.state or before.attempt != job.attempt:
        return "state"
    known = (job.progress or {}).get("previews")
    return "preview" if known and known != (before.progress or {}).get("previews") else "progress"
