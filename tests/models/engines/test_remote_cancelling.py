"""What nobody wants any more is called off at the server that makes it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from models.errors import (
    Cancelled,
)
from tests.models.engines.remote_engines import AT_WORK, CLIP, Until, cancelled_when, job, make, never, upstream
from tests.models.upstream import Reply, ScriptedUpstream

__all__ = ["never", "upstream"]

pytestmark = pytest.mark.timeout(30)


def test_nobody_is_asked_for_what_nobody_wants(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    until = Until()
    until.told.set()
    with pytest.raises(Cancelled):
        make(upstream, tmp_path, until)
    assert upstream.seen == []


@pytest.mark.parametrize("kind", ["look", "content"])
def test_a_cancel_in_the_middle_of_an_answer_is_passed_on(
    upstream: ScriptedUpstream, tmp_path: Path, never: threading.Event, kind: str
) -> None:
    upstream.scripts[kind] = Reply(CLIP, pause=never)
    cancelled_when(upstream, kind, lambda until: make(upstream, tmp_path, until))
    assert upstream.kinds[-1] == "cancel"
    upstream.wait_gone(kind)
    assert list(tmp_path.iterdir()) == []


def test_a_cancel_between_two_looks_is_passed_on(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.scripts["look"] = Reply(job("in_progress").body, headers={"openai-poll-after-ms": "25000"})
    cancelled_when(upstream, "look", lambda until: make(upstream, tmp_path, until))
    assert upstream.kinds == ["create", "look", "cancel"]


def test_a_job_that_is_cancelled_while_it_is_created_is_called_off(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    created = threading.Event()
    upstream.scripts["create"] = Reply(job().body, hold=created)
    until = Until()

    def on_step(done: float, total: float | None) -> None:
        if upstream.of("create"):
            created.set()  # before this request can break anything off
            until.told.set()
        until(done, total)

    with pytest.raises(Cancelled):
        make(upstream, tmp_path, on_step)
    assert upstream.kinds == ["create", "cancel"]


@pytest.mark.parametrize("kind", ["create", "cancel"])
def test_a_server_that_does_not_answer_does_not_keep_what_is_cancelled(
    upstream: ScriptedUpstream, tmp_path: Path, never: threading.Event, kind: str
) -> None:
    upstream.scripts[kind] = Reply(job().body, hold=never)
    upstream.scripts["look"] = AT_WORK
    cancelled_when(upstream, "create", lambda until: make(upstream, tmp_path, until))
    upstream.wait_gone(kind)


@pytest.mark.parametrize("status", [404, 405])
def test_where_there_is_no_cancel_a_job_is_deleted(upstream: ScriptedUpstream, tmp_path: Path, status: int) -> None:
    upstream.scripts |= {"cancel": Reply(b"", status), "look": AT_WORK}
    cancelled_when(upstream, "look", lambda until: make(upstream, tmp_path, until), times=2)
    assert upstream.kinds == ["create", "look", "cancel", "delete"]
