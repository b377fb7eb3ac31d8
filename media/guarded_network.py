"""Connections to addresses of the internet only, for URLs that somebody else chose.

A URL from a request may name anything the server can reach and its sender cannot: a neighbour, a cloud's metadata
address, the server itself. So every connection goes to an address that was checked when it was resolved, right before
connecting: a name that answers differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

import anyio
import httpcore

NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve: TypeAlias = Callable[[str, int], "list[str]"]


class NotPublic(Exception):
    """The host, which is the message, must not be connected to."""


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's, looking through IPv6 forms that carry an IPv4 address."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        carried = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = carried or ip
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, in the system's order of preference. Blocks."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only; to `allowed_hosts`, in lower case, wherever they are.

    Names are resolved in threads that are counted by `threads`, not by what the rest of the server waits for. A name
    server that does not answer is not waited for beyond the caller's deadline.
    """

    def __init__(
        self, allowed_hosts: Collection[str], resolve: Resolve, threads: anyio.CapacityLimiter | None = None
    ) -> None:
        self._network = httpcore.AnyIOBackend()
        self._allowed_hosts = frozenset(allowed_hosts)
        self._resolve = resolve
        self._threads = threads

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await anyio.to_thread.run_sync(
                self._resolve, host, port, abandon_on_cancel=True, limiter=self._threads
            )
        except (OSError, UnicodeError) as error:  # a name with an empty or too long part is no IDNA name
            raise httpcore.ConnectError(f"the name {host} does not resolve") from error
        if host not in self._allowed_hosts and not all(is_public(address) for address in addresses):
            raise NotPublic(host)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, path: str, *args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        raise NotPublic(path)

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)
