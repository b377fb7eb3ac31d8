"""URLs of this server that open one blob for a while, to whoever has them: an expiry, and an HMAC over all they say."""

from __future__ import annotations

import hmac
import math
import secrets
from collections.abc import Callable, Mapping
from urllib.parse import urlencode

import msgspec
from starlette.requests import HTTPConnection

from media.database import Database
from media.database.opening import secret
from media.database.sqlite import wall_clock
from media.errors import ApiError
from media.settings import Settings

BLOBS = "/v1/blobs/"
SECRET = "blob_urls"  # noqa: S105 - the name of a secret, not one


class UrlSigner:
    """Signs and checks with one key. `clock` says Unix seconds."""

    def __init__(self, key: str, clock: Callable[[], float] = wall_clock) -> None:
        self._key = key.encode()
        self._clock = clock

    def url(self, method: str, key: str, seconds: float, *, content_type: str = "", filename: str = "") -> str:
        """A path of this server with a query, good for `method` for so long."""
        expires = str(math.ceil(self._clock() + seconds))
        query = {"expires": expires, "type": content_type, "name": filename}
        query["signature"] = self._signature(method, key, expires, content_type, filename)
        return f"{BLOBS}{key}?{urlencode({name: value for name, value in query.items() if value})}"

    def check(self, method: str, key: str, query: Mapping[str, str]) -> None:
        """Raises: ApiError 403 for a URL that was not signed here, not for this, or too long ago."""
        expires = query.get("expires", "")
        signature = self._signature(method, key, expires, query.get("type", ""), query.get("name", ""))
        # As bytes: compare_digest takes no other text than ASCII.
        if not hmac.compare_digest(signature.encode(), query.get("signature", "").encode()):
            message = "the signature of this URL is not right: use it exactly as it was given"
            raise ApiError(403, "invalid_signature", message)
        if int(expires) <= self._clock():
            raise ApiError(403, "url_expired", "this URL has expired: ask for the result again to get a new one")

    def _signature(self, *said: str) -> str:
        # A JSON array: no two different lists of texts read the same.
        return hmac.new(self._key, msgspec.json.encode(said), "sha256").hexdigest()


async def shared_signer(database: Database, clock: Callable[[], float] = wall_clock) -> UrlSigner:
    """The signer of all processes that share this database."""
    return UrlSigner(await database.run(secret, SECRET, secrets.token_hex(32)), clock)


def absolute_url(connection: HTTPConnection, settings: Settings, url: str) -> str:
    """A blob's URL as clients can open it: a path of this server gets what public_url says, or the request's host."""
    if not url.startswith("/"):
        return url
    return (settings.public_url or str(connection.base_url)).rstrip("/") + url
