"""Whose dialect a request speaks, where one answer cannot serve both (contracts: `GET /v1/models`, defaults)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from starlette.requests import HTTPConnection

from media.errors import ApiError

Vendor: TypeAlias = Literal["together", "openai"]


def vendor_of(connection: HTTPConnection) -> Vendor:
    """`?dialect=together|openai` decides, then the User-Agent of Together's SDKs; everybody else speaks OpenAI's.

    Raises: ApiError for any other dialect.
    """
    asked = connection.query_params.get("dialect")
    if asked is not None:
        if asked not in ("together", "openai"):
            message = f"dialect {asked!r} is not spoken here: use together or openai"
            raise ApiError(400, "invalid_value", message, param="dialect")
        return "together" if asked == "together" else "openai"
    return "together" if "together/" in connection.headers.get("user-agent", "").lower() else "openai"
