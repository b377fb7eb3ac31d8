"""Which URLs may be given for webhooks. Where their hosts are is seen when they are connected to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from media.errors import ApiError

MAX_CHARACTERS = 2048
PRINTABLE = re.compile(r"[\x21-\x7e]+")
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")


def check_webhook_url(url: str, param: str) -> SplitResult:
    """The parts of a URL that webhooks may be sent to. Raises: ApiError 400 that names `param`."""
    if len(url) > MAX_CHARACTERS:
        message = f"the URL has {len(url)} characters, at most {MAX_CHARACTERS} are taken"
        raise ApiError(400, "string_above_max_length", message, param=param)
    if not PRINTABLE.fullmatch(url):
        message = "a webhook URL is ASCII without spaces: percent-encode its path, and write its host as xn--..."
        raise ApiError(400, "url_not_allowed", message, param=param)
    try:
        parts = urlsplit(url)
        port = parts.port  # raises when it is no number, or too large
    except ValueError as error:
        raise ApiError(400, "url_not_allowed", f"this is no URL: {error}", param=param) from error
    if parts.scheme not in ("http", "https"):
        raise ApiError(400, "url_not_allowed", "webhooks go to http and https URLs only", param=param)
    if parts.username is not None or parts.password is not None:
        message = "a webhook URL must not hold a user name or password: deliveries are signed instead"
        raise ApiError(400, "url_not_allowed", message, param=param)
    if port == 0 or not _is_host(parts.hostname or "", bracketed="[" in parts.netloc):
        raise ApiError(400, "url_not_allowed", "the URL names no host that could be connected to", param=param)
    return parts


def host_of(url: str) -> str:
    """The host of a URL that was checked, in lower case; '' if it was not."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_host(host: str, *, bracketed: bool) -> bool:
    if not bracketed:
        return HOST_NAME.fullmatch(host) is not None
    try:
        return "%" not in host and ipaddress.IPv6Address(host) is not None
    except ValueError:
        return False
