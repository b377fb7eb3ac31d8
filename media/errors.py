"""One table: what each error means to a client, on HTTP and on a WebSocket, in the body both vendors' SDKs parse."""

from __future__ import annotations

import errno
import http
import logging
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from media.blobs import BlobError, BlobMissing
from media.database import DatabaseError
from models import errors as engine
from streaming.decode import UndecodableAudio

logger = logging.getLogger("sonoreel")


class ApiError(Exception):
    """A request this server will not serve. `param` names the wire field, `message` says the way out."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind or ("invalid_request_error" if status < 500 else "server_error")
        self.retry_after = retry_after


class Meaning(NamedTuple):
    """HTTP status, error type and code on the wire, WebSocket close code, and whether trying again can help."""

    status: int
    kind: str
    code: str
    close_code: int
    retry: bool


TABLE: dict[type[Exception], Meaning] = {
    engine.UnknownModel: Meaning(404, "invalid_request_error", "model_not_found", 1008, False),
    engine.WeightsMissing: Meaning(400, "invalid_request_error", "model_weights_missing", 1008, False),
    engine.InvalidInput: Meaning(400, "invalid_request_error", "invalid_value", 1008, False),
    engine.AtCapacity: Meaning(503, "service_unavailable_error", "server_overloaded", 1013, True),
    engine.OutOfMemory: Meaning(503, "service_unavailable_error", "out_of_memory", 1013, True),
    engine.PoisonedRequest: Meaning(422, "invalid_request_error", "poisoned_request", 1011, False),
    engine.EngineFailed: Meaning(500, "server_error", "engine_failed", 1011, True),
    engine.Cancelled: Meaning(503, "service_unavailable_error", "cancelled", 1012, True),
    engine.EngineError: Meaning(500, "server_error", "engine_failed", 1011, True),
    BlobMissing: Meaning(404, "invalid_request_error", "blob_not_found", 1008, False),
    BlobError: Meaning(503, "service_unavailable_error", "storage_unavailable", 1013, True),
    DatabaseError: Meaning(503, "service_unavailable_error", "storage_unavailable", 1013, True),
    UndecodableAudio: Meaning(400, "invalid_request_error", "unsupported_format", 1008, False),
    Exception: Meaning(500, "server_error", "internal_error", 1011, True),
}

REFUSED_CONTENT = "content_policy_violation"
"""A safety checker's refusal, for which Together's clients expect 422."""
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
STORAGE = {
    "blob_not_found": "the file is not there any more",
    "storage_unavailable": "the server's storage cannot be reached now: try again later",
}
"""What a client is told of storage; where it is and what is wrong with it stays in the log."""

HTTP_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "file_too_large",
}


class ErrorDetail(msgspec.Struct, frozen=True):
    """The error object of both vendors; OpenAI's clients need all four keys."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """What every failed request answers."""

    error: ErrorDetail


def unwrap(error: BaseException) -> BaseException:
    """Task groups wrap errors; the meaning is inside. Of several that clients are told, the first is what happened."""
    told: tuple[type[Exception], ...] = (ApiError, *(TABLE.keys() - {Exception}))
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1 and error.split(told)[1] is not None:
            return error
        error = error.exceptions[0]
    return error


def meaning(error: BaseException) -> Meaning:
    """What the table says about an error, by its closest base class; a full disk is storage that cannot be used."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return TABLE[BlobError]
    for base in type(error).__mro__:
        if base in TABLE:
            found = TABLE[base]
            if getattr(error, "code", None) == REFUSED_CONTENT:
                return found._replace(status=422)
            return found._replace(code=error.code) if isinstance(error, UndecodableAudio) else found
    return TABLE[Exception]


def describe(error: BaseException) -> ErrorDetail:
    """The wire's error object. The text of an unexpected exception stays in the log."""
    error = unwrap(error)
    if isinstance(error, ApiError):
        return ErrorDetail(error.message, error.kind, error.param, error.code)
    found = meaning(error)
    if isinstance(error, engine.EngineError):
        return ErrorDetail(error.message, found.kind, error.field, error.code or found.code)
    if isinstance(error, UndecodableAudio):
        return ErrorDetail(str(error), found.kind, "file", found.code)
    if found.code in STORAGE:
        return ErrorDetail(STORAGE[found.code], found.kind, None, found.code)
    return ErrorDetail("the server failed on this request; its log has the details", found.kind, None, found.code)


def status_of(error: BaseException) -> int:
    """The HTTP status of an error."""
    error = unwrap(error)
    return error.status if isinstance(error, ApiError) else meaning(error).status


def close_code(error: BaseException) -> int:
    """The WebSocket close code for an error that ends a session."""
    error = unwrap(error)
    if isinstance(error, ApiError):
        return 1008 if error.status < 500 else 1013
    return meaning(error).close_code


def error_response(error: BaseException) -> Response:
    """The HTTP answer for an error."""
    error = unwrap(error)
    detail = describe(error)
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        code = HTTP_CODES.get(error.status_code, "invalid_request" if error.status_code < 500 else "internal_error")
        text = error.detail or http.HTTPStatus(error.status_code).phrase
        detail = ErrorDetail(text, "invalid_request_error" if error.status_code < 500 else "server_error", None, code)
        status = error.status_code
        headers |= dict(error.headers or {})
    elif isinstance(error, ApiError):
        status, retry_after = error.status, error.retry_after
        if retry_after is not None:
            headers["retry-after"] = str(max(1, round(retry_after)))
    else:
        found = meaning(error)
        status = found.status
        # Both SDKs retry every 5xx unless told otherwise.
        headers["x-should-retry"] = "true" if found.retry else "false"
        if isinstance(error, engine.AtCapacity):
            headers["retry-after"] = str(max(1, round(error.retry_after)))
    return Response(msgspec.json.encode(ErrorBody(detail)), status, headers, media_type="application/json")


async def handle_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything in the table."""
    if isinstance(error, BlobError | DatabaseError) and not isinstance(error, BlobMissing):
        logger.error("storage failed: %s", error)
    return error_response(error)
