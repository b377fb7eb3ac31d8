"""Text fields of a multipart form as the values they stand for: `speech[input]` is a field of an object, `tags[]` an
item of a list. So OpenAI's SDKs write whatever is no text, as PHP's forms did first.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from media.errors import ApiError

NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\]){0,8})")
KEY = re.compile(r"\[([^\[\]]*)\]")
PLACE = re.compile(r"[0-9]{1,3}")
"""Of an item in its list: what is longer is the key of an object."""


def form_values(
    fields: Sequence[tuple[str, str]], known: Collection[str], encoded: Collection[str] = ()
) -> dict[str, Any]:
    """The `known` fields by name; of those that are `encoded` a text is JSON. What is empty is left open.

    Items without a place are told apart by their order: of `shots[][url]`, `shots[][url]` the second is another item's.
    Raises: ApiError 400 that names the field.
    """
    values: dict[str, Any] = {}
    seen: Counter[str] = Counter()
    for name, text in fields:
        found = NAME.fullmatch(name)
        if found is None or found[1] not in known:
            continue
        outer, keys = found[1], KEY.findall(found[2])
        if "" in keys:
            keys[keys.index("")] = str(seen[name])
            seen[name] += 1
        if not text:
            continue
        value = _decoded(outer, text) if outer in encoded and not keys else text
        if not _put(values, [outer, *keys], value):
            message = f"{outer} comes in several parts that contradict each other"
            raise ApiError(400, "invalid_value", message, param=outer)
    return values


def _put(holder: Any, keys: list[str], value: Any) -> bool:
    """Set what the keys lead to; False where something of another kind is in the way."""
    key, *rest = keys
    fresh: Any = value if not rest else [] if _is_place(rest[0]) else {}
    if isinstance(holder, list) and _is_place(key):
        place = min(int(key), len(holder))
        if place == len(holder):
            holder.append(fresh)
        elif not rest:
            return False
        inner = holder[place]
    elif isinstance(holder, dict):
        if not rest:
            holder[key] = value
        inner = holder.setdefault(key, fresh)
    else:
        return False
    return not rest or _put(inner, rest, value)


def _is_place(key: str) -> bool:
    return PLACE.fullmatch(key) is not None


def _decoded(name: str, text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(400, "invalid_value", f"{name} must be JSON", param=name) from error
