"""What may become of a job, without any database."""

from __future__ import annotations

import pytest

from media.jobs.events import event_type, wants
from media.jobs.states import MAX_FAILURES, Job, Priority, State, retry_delay
from models import errors as engine


def job(**fields: object) -> Job:
    own: dict[str, object] = dict.fromkeys(Job.__struct_fields__)
    return Job(**own | {"kind": "image", "priority": Priority.NORMAL} | fields)  # type: ignore[arg-type]


def test_a_job_that_waits_or_runs_is_not_over() -> None:
    assert {state for state in State if not state.final} == {State.QUEUED, State.RUNNING}


@pytest.mark.parametrize(
    "error",
    [
        engine.InvalidInput("no", field="prompt"),
        engine.UnknownModel("no"),
        engine.WeightsMissing("no"),
        engine.PoisonedRequest("no"),
    ],
)
def test_what_never_gets_better_is_not_tried_again(error: engine.EngineError) -> None:
    assert retry_delay(error, 1) is None


def test_other_failures_are_tried_again_later_and_later_and_then_no_more() -> None:
    delays = [retry_delay(engine.EngineFailed("dead"), failures) for failures in range(1, MAX_FAILURES + 1)]
    assert delays == [0.2, 0.4, None]


def test_a_full_machine_is_asked_again_when_it_says_however_often_it_was_full() -> None:
    assert retry_delay(engine.AtCapacity("full", retry_after=7.0), MAX_FAILURES + 5) == 7.0


def test_every_end_has_its_event() -> None:
    ends = [state for state in State if state.final]
    assert {event_type(job(state=state)) for state in ends} == {
        "image.completed",
        "image.failed",
        "image.cancelled",
        "image.expired",
    }


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ([], True),
        (["image.failed"], True),
        (["image.*"], True),
        (["*"], True),
        (["image.completed", "speech.failed"], False),
        (["speech.*"], False),
        (["image"], False),
    ],
)
def test_an_endpoint_gets_the_types_it_asked_for(asked: list[str], wanted: bool) -> None:
    assert wants(asked, "image.failed") is wanted
