"""Probes and numbers: /healthz, /readyz, /metrics."""

from __future__ import annotations

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from media.openapi import Operation
from media.services import services_of


class Health(Struct):
    """`status` is ok, starting, draining or failed; `detail` says why when it is not ok."""

    status: str
    detail: str = ""


async def healthz(request: Request) -> Response:
    """200 while the process lives."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 when requests can be served, 503 while models load and while the server drains."""
    services = services_of(request)
    if services.drain.started:
        status, detail = "draining", "the server is shutting down"
    elif services.starting_error:
        status, detail = "failed", services.starting_error
    elif not services.ready:
        status, detail = "starting", "models are loading"
    else:
        return JSONResponse({"status": "ok"})
    return JSONResponse({"status": status, "detail": detail}, 503, {"retry-after": "1"})


async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    services = services_of(request)
    for model, stats in services.pool.stats().items():
        services.metrics.pool(
            model,
            workers=stats.workers,
            running=stats.running,
            waiting=stats.waiting,
            restarts=stats.restarts,
        )
    return Response(services.metrics.exposition(), media_type="text/plain; version=0.0.4")


routes = [
    Route("/healthz", healthz, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics, methods=["GET"]),
]
operations = [
    Operation("get", "/healthz", "Whether the process lives", answer=Health),
    Operation("get", "/readyz", "Whether requests can be served", answer=Health),
    Operation("get", "/metrics", "Prometheus metrics", produces=("text/plain",)),
]
