"""The application: routes, middleware, lifespan, and nothing else."""

from __future__ import annotations

import gc
import logging
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from media.access import AccessMiddleware
from media.api import (
    blobs,
    files,
    health,
    images,
    jobs,
    models,
    realtime,
    speech,
    speech_websocket,
    transcriptions,
    videos,
    voices,
    webhook_endpoints,
)
from media.background import DEFAULT_POOL, background
from media.blob_opening import open_blobs
from media.database.opening import open_database
from media.errors import TABLE, ApiError, handle_error
from media.jobs import identity
from media.openapi import document
from media.requests import RequestMiddleware
from media.services import Services
from media.settings import Settings
from media.spool_folders import prepare_spools
from media.voice_activity import VoiceActivityLane
from models.catalog import AUTO, Catalog, Task
from models.errors import EngineError
from models.pool import Pool
from streaming.smart_turn import SmartTurn
from streaming.voice_activity import SileroVoiceActivity

logger = logging.getLogger("sonoreel")
STUDIO = Path(__file__).with_name("studio")
STUDIO_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' data: blob:; media-src 'self' blob:; "
        "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
RESOURCES = (speech, transcriptions, images, videos, jobs, files, blobs, webhook_endpoints, models, voices, health)


def create_app(settings: Settings, catalog: Catalog | None = None) -> Starlette:
    """Build the application. The pool and its workers live as long as its lifespan."""
    services = Services(settings, catalog or Catalog.load(Path(settings.models_dir) if settings.models_dir else None))

    memory_budget = settings.memory_budget  # reads what the machine has, which may block

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        services.spools = await anyio.to_thread.run_sync(prepare_spools, settings.data_dir)
        me = await anyio.to_thread.run_sync(identity.runner, DEFAULT_POOL, settings.job_slots)
        lane = VoiceActivityLane(await anyio.to_thread.run_sync(_prepare))
        if settings.end_of_turn_model:
            services.judge = await anyio.to_thread.run_sync(SmartTurn, Path(settings.end_of_turn_model))
        pool = Pool(services.catalog, memory_budget_mb=memory_budget)
        async with (
            open_database(settings.database_url, settings.database_listen_url, settings.data_dir) as database,
            open_blobs(settings, database, services.spools) as blob_store,
            pool,
            anyio.create_task_group() as tasks,
        ):
            services.start(pool, database, blob_store, lane)
            tasks.start_soon(lane.run)
            tasks.start_soon(_warm, services)
            for work in background(services, me):
                tasks.start_soon(work)
            yield
            tasks.cancel_scope.cancel()

    app = Starlette(
        routes=[
            *(route for resource in (*RESOURCES, speech_websocket, realtime) for route in resource.routes),
            Route("/openapi.json", _openapi, methods=["GET"]),
            Route("/v1/", _front_door, methods=["GET"]),
            Route("/", _studio, methods=["GET"]),
            Mount("/studio", _StudioFiles(directory=STUDIO)),
        ],
        middleware=[
            Middleware(
                RequestMiddleware,
                metrics=services.metrics,
                drain=services.drain,
                stall_seconds=settings.stall_seconds,
            ),
            # Preflights carry no key, so they are answered before anybody asks for one.
            *(
                [
                    Middleware(
                        CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"]
                    )
                ]
                if settings.allowed_origins
                else []
            ),
            Middleware(AccessMiddleware, settings=settings),
        ],
        exception_handlers=dict.fromkeys((*TABLE, ApiError, HTTPException), handle_error),
        lifespan=lifespan,
    )
    app.state.services = services
    return app


def _prepare() -> SileroVoiceActivity:
    """What else has to be read from the disk before anything can be served."""
    mimetypes.init()  # reads the machine's table, at the first file served if not now
    return SileroVoiceActivity()


async def _warm(services: Services) -> None:
    """Load what the settings want loaded, then say that the server is ready."""
    try:
        for name in services.settings.warm:
            defaults: tuple[Task, ...] = ("speech", "transcription")
            for task in defaults if name == AUTO else (services.catalog.describe(name).task,):
                await services.pool.warm(services.card(name, task))
    except EngineError as error:
        services.starting_error = error.message
        logger.error("a model could not be loaded: %s", error.message)
        return
    # What exists now lives as long as the server: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    services.ready = True


class _StudioFiles(StaticFiles):
    def file_response(self, *args: object, **kwargs: object) -> Response:
        response: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(STUDIO_HEADERS)
        return response


async def _studio(request: Request) -> Response:
    return FileResponse(STUDIO / "index.html", headers=STUDIO_HEADERS)


async def _front_door(request: Request) -> Response:
    """Some clients open `/v1/` to warm up their connection."""
    return JSONResponse({"object": "server", "name": "sonoreel"})


async def _openapi(request: Request) -> Response:
    return JSONResponse(await anyio.to_thread.run_sync(_document))


@cache
def _document() -> dict[str, object]:
    """Made when it is first asked for, in a thread: reading docstrings reads source files."""
    return document(operation for resource in RESOURCES for operation in resource.operations)
