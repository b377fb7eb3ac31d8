"""`sonoreel worker`: works on jobs on any host that reaches the database and the blobs, without serving anything."""

from __future__ import annotations

import logging
import signal

import anyio

from media.background import job_runner
from media.blob_opening import open_blobs
from media.database.opening import open_database
from media.jobs import identity
from media.local import load_catalog
from media.server import log_to_stderr
from media.services import Services
from media.settings import Settings
from media.spool_folders import prepare_spools
from models.pool import Pool

logger = logging.getLogger("sonoreel.worker")


def work(settings: Settings, pool: str, slots: int) -> None:
    """Work until SIGTERM or SIGINT, then finish what is begun, for at most SONOREEL_DRAIN_SECONDS.

    Raises: DatabaseError, BlobError, CatalogError.
    """
    log_to_stderr(settings)
    anyio.run(_work, settings, pool, slots, backend_options={"use_uvloop": True})


async def _work(settings: Settings, pool: str, slots: int) -> None:
    services = Services(settings, await anyio.to_thread.run_sync(load_catalog, settings))
    budget = await anyio.to_thread.run_sync(lambda: settings.memory_budget)
    me = await anyio.to_thread.run_sync(identity.runner, pool, slots)
    services.spools = await anyio.to_thread.run_sync(prepare_spools, settings.data_dir)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with (
            open_database(settings.database_url, settings.database_listen_url, settings.data_dir) as database,
            open_blobs(settings, database, services.spools) as blobs,
            Pool(services.catalog, memory_budget_mb=budget) as models,
            anyio.create_task_group() as tasks,
        ):
            services.start(models, database, blobs)
            tasks.start_soon(job_runner(services, me).run)
            logger.info("working on jobs of pool %s, %d at once", pool, slots)
            async for _ in signals:
                break
            logger.info("draining: up to %g s for open work", settings.drain_seconds)
            await services.drain.finish(settings.drain_seconds)
            tasks.cancel_scope.cancel()
