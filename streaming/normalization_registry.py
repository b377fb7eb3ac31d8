"""The languages that the normaliser has rules for."""

from __future__ import annotations

from functools import lru_cache

from streaming.normalization_english import BRITISH, ENGLISH
from streaming.normalization_french import FRENCH
from streaming.normalization_german import GERMAN
from streaming.normalization_italian import ITALIAN
from streaming.normalization_languages import Language
from streaming.normalization_portuguese import BRAZILIAN, PORTUGUESE
from streaming.normalization_spanish import AMERICAN, SPANISH

_LANGUAGES = {
    "en": ENGLISH, "de": GERMAN, "fr": FRENCH, "es": SPANISH, "it": ITALIAN, "pt": PORTUGUESE,
    "pt-br": BRAZILIAN, "es-mx": AMERICAN, "es-us": AMERICAN, "es-419": AMERICAN,
    **{f"en-{region}": BRITISH for region in ("gb", "au", "nz", "ie", "in", "za")},
}  # fmt: skip


@lru_cache(maxsize=256)
def language_of(tag: str) -> Language | None:
    """The language of a BCP 47 tag; None if there are no rules for it."""
    parts = tag.lower().replace("_", "-").split("-")
    regional = (_LANGUAGES.get(f"{parts[0]}-{part}") for part in parts[1:])
    return next((language for language in regional if language is not None), _LANGUAGES.get(parts[0]))
