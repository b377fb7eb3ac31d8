"""The language that a request asks a model for."""

from __future__ import annotations

from collections.abc import Collection

from models.errors import InvalidInput
from streaming.languages import primary_language


def known_language(asked: str, known: Collection[str]) -> str:
    """The one of a model's languages that is asked for; empty when none is. Raises: InvalidInput for another."""
    code = primary_language(asked)
    if code and code not in known:
        message = f"This model does not know the language {asked!r}: use one of {', '.join(known)}."
        raise InvalidInput(message, field="language")
    return code
