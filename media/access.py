"""Who may talk to this server: keys, and on loopback without keys the Host and Origin of a page's requests.

A server on loopback without keys is open to every program of its user, and nothing more: a web page anywhere could
otherwise reach it through the browser (by a cross-origin WebSocket, which no CORS rule stops, or by a DNS name that
resolves to 127.0.0.1), so requests have to name a loopback Host and may only come from a page this server served.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from media.errors import ApiError, error_response
from media.settings import LOOPBACK_HOSTS, Settings

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
"""Answered without a key: what a probe, a browser at the front door or a code generator needs."""
OPEN_PREFIXES = ("/studio/", "/v1/blobs/")
"""The page's own files; and results, whose URLs are signed."""
KEY_SUBPROTOCOL = "openai-insecure-api-key."
LOCAL_TENANT = "local"
"""Who everybody is on a server without keys."""
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([\w.-]+))(?::[0-9]+)?")


def presented_key(headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str | None:
    """The key a request carries, in any of the forms the vendors' clients use."""
    authorization = headers.get("authorization") or next(iter(query.get("authorization", ())), "")
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer" and credentials:
        return credentials.strip()
    if keys := query.get("api_key"):
        return keys[0]
    for protocol in headers.get("sec-websocket-protocol", "").split(","):
        if protocol.strip().startswith(KEY_SUBPROTOCOL):
            return protocol.strip().removeprefix(KEY_SUBPROTOCOL)
    return None


def _hostname(host: str) -> str:
    found = HOST.fullmatch(host.lower())
    return (found[1] or found[2]) if found else ""


def tenant_of(connection: HTTPConnection) -> str:
    """Whose jobs and files a request may see: each key has its own."""
    tenant: str = connection.scope.get("state", {}).get("tenant", LOCAL_TENANT)
    return tenant


def tenant_name(key: str) -> str:
    """A name for a key that does not give it away."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


class AccessMiddleware:
    """Refuses what the settings do not allow, before any route sees it. Pure ASGI, HTTP and WebSocket alike.

    Whose key it was is in `scope["state"]["tenant"]`.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._hosts = LOOPBACK_HOSTS | {host.lower() for host in settings.allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            try:
                self._check(scope)
            except ApiError as refusal:
                await refuse(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._check_origin(headers)
        keys = self._settings.api_keys
        if not keys:
            self._check_host(headers)
        elif scope["path"] not in OPEN_PATHS and not scope["path"].startswith(OPEN_PREFIXES):
            key = presented_key(headers, parse_qs(scope.get("query_string", b"").decode("latin-1")))
            if key is None:
                message = "no API key: send Authorization: Bearer <key>"
                raise ApiError(401, "missing_api_key", message, kind="authentication_error")
            if not any(hmac.compare_digest(key.encode(), known.encode()) for known in keys):
                message = "this API key is not known to this server"
                raise ApiError(401, "invalid_api_key", message, kind="authentication_error")
            scope.setdefault("state", {})["tenant"] = tenant_name(key)

    def _check_host(self, headers: Headers) -> None:
        host = _hostname(headers.get("host", ""))
        if host not in self._hosts:
            raise ApiError(
                403,
                "host_not_allowed",
                f"this server answers to loopback names only, not to {host!r}; "
                "set SONOREEL_ALLOWED_HOSTS to add a name, or SONOREEL_API_KEYS to serve a network",
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return
        _, _, served_from = origin.lower().partition("://")
        if served_from and served_from == headers.get("host", "").lower():
            return
        raise ApiError(
            403,
            "origin_not_allowed",
            f"pages from {origin} may not call this server; set SONOREEL_ALLOWED_ORIGINS to allow them",
        )


async def refuse(refusal: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a refused request; a WebSocket handshake gets a real HTTP answer where the server can send one."""
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await error_response(refusal)(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.code})
