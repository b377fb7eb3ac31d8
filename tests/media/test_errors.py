"""What an error means to a client: everything the product raises has a place in the table, and nothing leaks."""

from __future__ import annotations

import ast
import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException

from media.errors import TABLE, ApiError, close_code, describe, error_response, handle_error, meaning, unwrap
from models import errors as engine
from models.errors import KINDS, AtCapacity, EngineError, EngineFailed, InvalidInput, revive
from streaming.decode import UndecodableAudio

CHECKOUT = Path(__file__).parents[2]
SECRET = "password of a customer"
INTERNAL = {
    "ApiError": "carries its own meaning",
    "CatalogError": "the server does not start",
    "SettingsError": "the server does not start",
    "ClientStalled": "there is nobody to tell",
    "IdempotencyConflict": "becomes ApiError 409",
    "QueueFull": "becomes ApiError 429",
    "FilmError": "becomes EngineFailed or InvalidInput in the worker",
    "NotPublic": "becomes ApiError 400, or a failed delivery",
    "FrameTooLarge": "ends the worker's connection, which makes it EngineFailed",
    "LaneFull": "becomes AtCapacity in the engine",
    "LaneClosed": "becomes EngineFailed in the engine",
    "PullFailed": "a command's own, said on its terminal",
    "SpoolAbandoned": "becomes EngineFailed in the engine",
}
"""Errors that no client is ever told of by their class."""


def leaves(root: type[EngineError] = EngineError) -> Iterator[type[EngineError]]:
    for child in root.__subclasses__():
        if child.__module__ == engine.__name__:
            yield child
            yield from leaves(child)


def public_errors() -> Iterator[str]:
    """Every public exception class in the three packages, found in the text of their modules."""
    for package in ("media", "models", "streaming"):
        for file in sorted((CHECKOUT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
                    if any(base.endswith(("Error", "Exception")) for base in bases):
                        yield node.name


def body(error: BaseException) -> dict[str, object]:
    found: dict[str, object] = json.loads(bytes(error_response(error).body))["error"]
    return found


@pytest.mark.parametrize("kind", list(leaves()))
def test_every_engine_error_is_in_the_table_and_crosses_the_process_line(kind: type[EngineError]) -> None:
    assert kind in TABLE
    assert KINDS[kind.__name__] is kind
    assert type(revive(kind.__name__, "what happened")) is kind


def test_when_to_come_back_crosses_the_process_line() -> None:
    error = revive("AtCapacity", "full", retry_after=7.0)
    assert error_response(error).headers["retry-after"] == "7"


def test_every_other_error_is_in_the_table_or_never_reaches_a_client() -> None:
    known = {kind.__name__ for kind in TABLE} | set(INTERNAL)
    assert set(public_errors()) - known == set(), "give it a meaning in the table, or say why it needs none"
    assert set(INTERNAL) & {kind.__name__ for kind in TABLE} == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_is_said_and_may_be_tried_again(number: int) -> None:
    error = OSError(number, SECRET)
    response = error_response(error)
    assert (response.status_code, response.headers["x-should-retry"]) == (503, "true")
    assert body(error)["code"] == "storage_unavailable"
    assert SECRET not in str(body(error))
    assert error_response(OSError(errno.EIO, SECRET)).status_code == 500


@pytest.mark.parametrize("kind", list(TABLE))
def test_every_answer_is_one_both_vendors_sdks_read(kind: type[Exception]) -> None:
    error = (
        kind("what happened") if kind is not UndecodableAudio else UndecodableAudio("corrupt_audio", "what happened")
    )
    response = error_response(error)
    detail = body(error)
    assert detail.keys() == {"message", "type", "param", "code"}
    assert response.status_code == meaning(error).status
    assert 400 <= response.status_code < 600
    assert response.media_type == "application/json"
    assert detail["type"] in {"invalid_request_error", "server_error", "service_unavailable_error"}
    assert response.headers["x-should-retry"] == ("true" if meaning(error).retry else "false")
    assert close_code(error) in {1008, 1011, 1012, 1013}
    # A client's mistake is a 4xx that no SDK repeats.
    assert (response.status_code < 500) == (detail["type"] == "invalid_request_error") == (not meaning(error).retry)


@pytest.mark.parametrize("kind", list(leaves()))
def test_the_message_and_field_of_an_engine_error_are_told(kind: type[EngineError]) -> None:
    assert body(kind("say this", field="voice"))["message"] == "say this"
    assert body(kind("say this", field="voice"))["param"] == "voice"
    assert body(kind("say this", code="finer"))["code"] == "finer"


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.4, "1"), (1.0, "1"), (7.4, "7"), (60.0, "60")])
def test_a_full_server_says_when_to_come_back(seconds: float, header: str) -> None:
    response = error_response(AtCapacity("full", retry_after=seconds))
    assert response.status_code == 503
    assert response.headers["retry-after"] == header
    again = error_response(ApiError(503, "server_draining", "later", retry_after=seconds))
    assert again.headers["retry-after"] == header


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        OSError(2, SECRET, SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET), KeyError(SECRET)]),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        AssertionError(SECRET),
        KeyboardInterrupt(SECRET),
    ],
)
def test_the_text_of_an_unexpected_error_is_told_to_nobody(error: BaseException) -> None:
    response = error_response(error)
    assert response.status_code == 500
    assert SECRET not in bytes(response.body).decode()
    assert SECRET not in str(response.raw_headers)
    assert describe(error).code == "internal_error"
    assert close_code(error) == 1011


def test_a_lone_error_in_a_task_group_means_what_it_means_alone() -> None:
    inner = InvalidInput("no such voice", field="voice")
    group = BaseExceptionGroup("", [ExceptionGroup("", [inner])])
    assert unwrap(group) is inner
    assert describe(group) == describe(inner)
    assert error_response(group).status_code == 400
    assert close_code(group) == 1008


def test_a_new_kind_of_failure_means_what_its_base_means() -> None:
    class Melted(EngineFailed):
        pass

    assert meaning(Melted("hot")) == TABLE[EngineFailed]


def test_audio_that_cannot_be_read_names_the_file() -> None:
    assert body(UndecodableAudio("empty_file", "the file is empty")) == {
        "message": "the file is empty",
        "type": "invalid_request_error",
        "param": "file",
        "code": "empty_file",
    }


def test_a_refusal_of_the_api_carries_its_own_meaning() -> None:
    refusal = ApiError(413, "file_too_large", "at most 5 MB", param="file")
    assert error_response(refusal).status_code == 413
    assert body(refusal) == {
        "message": "at most 5 MB",
        "type": "invalid_request_error",
        "param": "file",
        "code": "file_too_large",
    }
    assert (close_code(refusal), close_code(ApiError(503, "full", "later"))) == (1008, 1013)
    assert body(ApiError(503, "full", "later"))["type"] == "server_error"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "not_found", "invalid_request_error"),
        (405, "method_not_allowed", "invalid_request_error"),
        (418, "invalid_request", "invalid_request_error"),
        (500, "internal_error", "server_error"),
    ],
)
def test_starlettes_own_errors_have_the_same_body(status: int, code: str, kind: str) -> None:
    error = HTTPException(status, headers={"allow": "GET"})
    assert error_response(error).headers["allow"] == "GET"
    assert (body(error)["code"], body(error)["type"]) == (code, kind)
    assert body(error)["message"]


async def test_the_handler_is_the_table() -> None:
    response = await handle_error(None, InvalidInput("no"))  # type: ignore[arg-type]
    assert response.status_code == 400
