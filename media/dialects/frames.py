"""Reading a client's JSON: every way it can be wrong becomes an `ApiError` that names the field."""

from __future__ import annotations

from typing import Any

import msgspec

from media.errors import ApiError


def decode_frame(decoder: msgspec.json.Decoder[Any], frame: str | bytes) -> Any:
    """Parse a client frame into its tagged struct. Raises: ApiError that names the field."""
    try:
        return decoder.decode(frame)
    except msgspec.ValidationError as error:
        raise ApiError(400, "invalid_event", str(error), param=field_of(error)) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ApiError(400, "invalid_json", f"the frame is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ApiError(400, "invalid_json", "the frame is nested too deeply") from error


def field_of(error: msgspec.ValidationError) -> str | None:
    """The field a validation error is about: msgspec ends its message with "at `$.session.voice`"."""
    _, found, path = str(error).rpartition("`$.")
    return path.rstrip("`") if found else None
