"""Kokoro's voices: what their names say, and mixes of them such as `af_bella(2)+af_sky(1)`.

A name is a letter for the language, a letter for the gender, an underscore and a first name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import NamedTuple

from models.errors import InvalidInput
from models.interfaces import Voice

LANGUAGES = {
    "a": ("American English", ("en-US", "en")),
    "b": ("British English", ("en-GB", "en")),
    "e": ("Spanish", ("es",)),
    "f": ("French", ("fr-FR", "fr")),
    "h": ("Hindi", ("hi",)),
    "i": ("Italian", ("it",)),
    "j": ("Japanese", ("ja",)),
    "p": ("Brazilian Portuguese", ("pt-BR", "pt")),
    "z": ("Mandarin Chinese", ("zh", "cmn")),
}
"""By the first letter of a voice's name: the language in words, and as BCP 47 tags."""

_GENDERS = {"f": "female", "m": "male"}
_NAME = re.compile(r"[a-z][fm]_\w+", re.ASCII)
_PART = re.compile(r"(?P<name>[^()+]+?)\s*(?:\(\s*(?P<weight>\d+(?:\.\d*)?|\.\d+)\s*\))?", re.ASCII)
_MOST_PARTS = 64


class Part(NamedTuple):
    """A voice of a mix and its share; the shares of a mix add up to 1."""

    name: str
    share: float


def is_voice(name: str) -> bool:
    """Whether this is how a voice is called."""
    return _NAME.fullmatch(name) is not None and name[0] in LANGUAGES


def describe(name: str) -> Voice:
    """What the name of a voice says."""
    language, tags = LANGUAGES[name[0]]
    given = name[3:].replace("_", " ").title()
    return Voice(name, f"{given} ({language}, {_GENDERS[name[1]]})", tags)


def parse_mix(voice: str, known: Collection[str]) -> tuple[Part, ...]:
    """The voices of a mix, in the order in which they are named, each once. A voice without a weight has 1.

    Raises: InvalidInput for a voice that is not known, and for what is no mix.
    """
    weights: dict[str, float] = {}
    for text in voice.split("+")[: _MOST_PARTS + 1]:
        part = _PART.fullmatch(text.strip())
        if part is None:
            raise InvalidInput(f"{voice!r} is no voice and no mix: write it as 'af_bella(2)+af_sky(1)'.", field="voice")
        name = part["name"].lower()
        if name not in known:
            raise InvalidInput(f"There is no voice {name!r}; GET /v1/voices lists them.", field="voice")
        weights[name] = weights.get(name, 0.0) + float(part["weight"] or 1.0)
    total = sum(weights.values())
    if not 0 < total < math.inf or voice.count("+") >= _MOST_PARTS:
        raise InvalidInput(
            f"A mix has at most {_MOST_PARTS} voices, and their weights add up to more than 0.", field="voice"
        )
    return tuple(Part(name, weight / total) for name, weight in weights.items() if weight)
