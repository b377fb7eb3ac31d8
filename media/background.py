"""What a process does beside answering requests: it works on jobs, delivers webhooks and cleans up."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from media.fetch import Fetcher, Limits
from media.files import sweep_files, sweep_orphans
from media.jobs.attempts import Terms, Workshop
from media.jobs.handlers import HANDLERS
from media.jobs.housekeeping import Janitor
from media.jobs.leases import Runner
from media.jobs.runner import JobRunner
from media.services import Services
from media.uploads import MEGABYTE
from media.webhooks import WebhookDeliverer

DEFAULT_POOL = "default"


def background(services: Services, me: Runner) -> Iterator[Callable[[], Coroutine[Any, Any, None]]]:
    """Every task of an API process, each to be run until cancelled; `me` is who works on jobs in it."""
    settings = services.settings
    if settings.run_jobs:
        yield job_runner(services, me).run
    yield WebhookDeliverer(services.database, settings).run
    janitor = Janitor(services.database, services.blobs, settings.job_history)
    stores = services.database, services.blobs
    janitor.also(functools.partial(sweep_files, *stores), functools.partial(sweep_orphans, *stores))
    yield janitor.run


def job_runner(services: Services, me: Runner) -> JobRunner:
    """A runner in this process, which leases what the process's own pool has."""
    settings = services.settings
    workshop = Workshop(
        database=services.database,
        pool=services.pool,
        catalog=services.catalog,
        blobs=services.blobs,
        fetcher=Fetcher(
            Limits(settings.max_upload_mb * MEGABYTE, settings.fetch_seconds), settings.fetch_allowed_hosts
        ),
        handlers=HANDLERS,
        spools=services.spools,
    )
    terms = Terms(settings.job_lease_seconds, settings.max_running_jobs)
    return JobRunner(me, workshop, terms, services.drain)
