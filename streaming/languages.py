"""Languages by the tags that clients write."""

from __future__ import annotations


def primary_language(tag: str) -> str:
    """The language of a tag such as "en-US" or "pt_BR", in lower case (the primary subtag of BCP 47); empty of none."""
    return tag.strip().lower().replace("_", "-").partition("-")[0]
