"""What another server's answers mean here: whose fault it is, and whether trying again may help.

What the operator has to put right, such as a key, is `WeightsMissing`: the model cannot be had, and nothing is tried
again. The user is told what is wrong with the request; everything else that a server says of itself stays in the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from models.errors import (
    AtCapacity,
    EngineError,
    EngineFailed,
    InvalidInput,
    OutOfMemory,
    PoisonedRequest,
    WeightsMissing,
)
from models.remote_bodies import field_of
from models.remote_options import Names

logger = logging.getLogger("sonoreel.remote")

MOST_TOLD = 500
"""Characters of a message that are passed on."""
USUAL_WAIT, LONGEST_WAIT = 5.0, 300.0
"""Seconds to wait for a server that is full and says nothing about it, and the most it may say."""
SERVER_FAULT = 500
REQUEST_STATUSES = frozenset({"400", "413", "422"})
"""For which the request is to blame; others tell of what this server does wrong, or the other one."""
REFUSED_CONTENT = "content_policy_violation"
_MODERATION = ("content_policy", "moderation", "safety", "sensitive")
_REQUEST_FAULTS = ("invalid", "unsupported", "missing_required", "unknown_parameter")


class Fault(NamedTuple):
    """What a server says is wrong: in words, by a field's name, by a code and by a kind; empty where it does not."""

    message: str = ""
    param: str = ""
    code: str = ""
    kind: str = ""


class Unreachable(EngineFailed):
    """The server was not reached, or did not make sense: that may pass. `untouched`: it has seen nothing of it."""

    def __init__(self, message: str, *, untouched: bool = False) -> None:
        super().__init__(message)
        self.untouched = untouched


def fault_in(answer: object) -> Fault:
    """OpenAI's error object, bare or wrapped, or FastAPI's `detail`, from decoded JSON."""
    if not isinstance(answer, dict):
        return Fault(_string(answer))
    error = answer.get("error")
    if isinstance(error, str):
        return Fault(error)
    if isinstance(error, dict):
        answer = error
    detail = answer.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        where = detail[0].get("loc")
        return Fault(_string(detail[0].get("msg")), _string(where[-1]) if isinstance(where, list) and where else "")
    return Fault(
        _string(answer.get("message")) or _string(detail),
        _string(answer.get("param")),
        _string(answer.get("code")),
        _string(answer.get("type")),
    )


class Refusals:
    """Turns answers into errors for one model. `key` is never told on."""

    def __init__(self, model: str, there: str, key_from: str, key: str, names: Names) -> None:
        self._model = model
        self._there = there
        self._key_from = key_from
        self._key = key
        self._names = names

    def of_answer(self, status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
        """What an HTTP answer that is no success means."""
        fault = self._read(body)
        logger.warning("the server of %s answered %d: %s", self._model, status, fault.message or "nothing")
        if status in (401, 403):
            return self._unusable(f"does not take this server's key: look at {self._key_from}")
        if status in (404, 405, 501) or 300 <= status < 400 or _of_model(fault):
            return self._unusable(f"has no {self._there!r} to ask: look at base_url and model of its card")
        if fault.code == "out_of_memory":
            return OutOfMemory("The model ran out of memory.")
        if status in (429, 503):
            return AtCapacity("The server of this model has no room now.", retry_after=wait_in(headers))
        return self._of_fault(fault, str(status) in REQUEST_STATUSES)

    def of_look(self, status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
        """What it means that a job, which the server had taken, cannot be looked at or fetched."""
        if status >= SERVER_FAULT:
            logger.warning("the server of %s answered %d: %s", self._model, status, self._read(body).message)
            return Unreachable("The server of this model fails.")
        if status in (401, 429):
            return self.of_answer(status, headers, body)
        logger.warning("the server of %s answered %d for a job: %s", self._model, status, self._read(body).message)
        return EngineFailed("The server of this model has lost the job.")

    def of_job(self, error: object) -> EngineError:
        """What the error of a failed job means."""
        fault = self._hidden(fault_in(error))
        logger.warning("a job failed at the server of %s: %s %s", self._model, fault.code, fault.message)
        if fault.code == "out_of_memory":
            return OutOfMemory("The model ran out of memory.")
        code = fault.code.lower()
        return self._of_fault(fault, code in REQUEST_STATUSES or code.startswith(_REQUEST_FAULTS))

    def _of_fault(self, fault: Fault, of_request: bool) -> EngineError:
        if fault.code == "poisoned_request":
            return PoisonedRequest("This request has killed the worker of its model twice.")
        field = field_of(fault.param, self._names)
        if any(word in f"{fault.code} {fault.kind}".lower() for word in _MODERATION):
            message = fault.message or "The server of this model refused what was asked."
            return InvalidInput(message, field=field or "prompt", code=REFUSED_CONTENT)
        if of_request or fault.kind == "invalid_request_error":
            return InvalidInput(fault.message or "The server of this model refused the request.", field=field)
        return EngineFailed("The server of this model failed.")

    def _unusable(self, message: str) -> WeightsMissing:
        return WeightsMissing(f"The server of model {self._model!r} {message}.", field="model", code="upstream_refused")

    def _read(self, body: bytes) -> Fault:
        try:
            return self._hidden(fault_in(msgspec.json.decode(body)))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._hidden(Fault(body.decode(errors="replace")))

    def _hidden(self, fault: Fault) -> Fault:
        message = fault.message.replace(self._key, "...") if self._key else fault.message
        return fault._replace(message=" ".join(message[:MOST_TOLD].split()))


def wait_in(headers: Mapping[str, str]) -> float:
    """Seconds that a server wants to be left alone for."""
    try:
        wait = float(headers.get("retry-after", ""))
    except ValueError:  # a date, or nothing
        return USUAL_WAIT
    return min(max(wait, 0.1), LONGEST_WAIT) if math.isfinite(wait) else USUAL_WAIT


def _of_model(fault: Fault) -> bool:
    return fault.param == "model" or fault.code == "model_not_found" or fault.message.startswith("Model mismatch")


def _string(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float) else ""
