"""What blobs may be called, and how they are named to whoever downloads them."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath
from urllib.parse import quote

from media.blobs import BlobMissing

SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
LONGEST_KEY = 800
"""Characters; S3 takes 1024 bytes, of which a prefix may take some."""
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
OCTETS = "application/octet-stream"
INLINE = re.compile(r"(?:image|audio|video)/(?!svg)[^;]*|text/plain|application/json")
"""What a browser may show in place. An SVG or a page could carry a script; those are only ever downloaded."""


def checked_key(key: str) -> str:
    """The key itself. A name that begins with a dot is never one: no way leads up, nor to what a store keeps aside.

    Raises: BlobMissing for what cannot be a key.
    """
    if len(key) > LONGEST_KEY or not all(SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise BlobMissing(f"there is no blob of the name {key[:100]!r}")
    return key


def checked_prefix(prefix: str) -> str:
    """A prefix without its last slash; empty for everything. Raises: BlobMissing."""
    return checked_key(prefix.removesuffix("/")) if prefix else ""


def media_type(content_type: str, name: str) -> str:
    """The media type that was declared, without parameters; else what the name ends in; else bytes."""
    declared = content_type.partition(";")[0].strip().lower()
    if MEDIA_TYPE.fullmatch(declared):
        return declared
    # The table of the module, not its functions: those read the machine's files when first called.
    return mimetypes.types_map.get(PurePosixPath(name).suffix.lower(), OCTETS)


def content_disposition(content_type: str, filename: str) -> str:
    """Shown or downloaded, and under which name (RFC 6266): plain ASCII for old clients, the name itself for others."""
    disposition = "inline" if INLINE.fullmatch(content_type) else "attachment"
    if not filename:
        return disposition
    plain = re.sub(r'[^ -~]|["\\%]', "_", filename)
    if plain == filename:
        return f'{disposition}; filename="{filename}"'
    return f"{disposition}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
