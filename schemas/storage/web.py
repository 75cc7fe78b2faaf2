"""The HTTP client of all of fsspec's web file systems in this process: it connects where `schemas.access` says.

Every connection is looked at when it is made, after names were resolved, so neither a redirect nor a name that means
another address the second time gets past. One that is kept open is looked at again by whoever takes it. A proxy of the
environment is the user's own: it resolves names itself, so only they are looked at.

What a server sends is bounded where it is kept in memory, whatever it claims: a part is no longer than was asked for.
"""

from __future__ import annotations

import re
import socket
from contextvars import ContextVar
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from visavis.schemas.access import Access, Refused, allowed, plain_host

_MOST_IN_MEMORY = 256 << 20  # bytes of an answer that nobody asked a part of


class _Hop:
    """One connection on the way to a file. refusal: why it was not made."""

    def __init__(self, access: Access, url: URL, *, redirected: bool) -> None:
        self.access, self.host = access, plain_host(url.raw_host or "")
        if "%" in self.host and ":" not in self.host:
            raise Refused("led to a host without a plain name, which is not followed")
        self.redirected = redirected
        self.by_proxy = False
        self.refusal: Refused | None = None

    def check(self, place: str) -> None:
        try:
            self.access.check_address(self.host, ip_address(place.partition("%")[0]), redirected=self.redirected)
        except Refused as refused:
            self.refusal = refused
            raise


_first: ContextVar[URL | None] = ContextVar("first", default=None)
_hop: ContextVar[_Hop | None] = ContextVar("hop", default=None)


async def client(access: Access | None = None, **options: Any) -> aiohttp.ClientSession:
    """A session, as fsspec's `get_client` makes one. Options of the user's own settings go before.

    access: None: what `schemas.access.allowed` says at each request.
    """
    watch = aiohttp.TraceConfig()
    watch.on_request_start.append(_remember)
    defaults: dict[str, Any] = {"connector": _Connector(access), "response_class": _Answer}
    return aiohttp.ClientSession(**defaults | options, trace_configs=[watch])


async def _remember(session: aiohttp.ClientSession, context: SimpleNamespace, start: Any) -> None:
    """Once a request, not again where it is redirected."""
    _first.set(start.url)


class _Connector(aiohttp.TCPConnector):
    def __init__(self, access: Access | None) -> None:
        super().__init__(socket_factory=_checked_socket)
        self._access = access

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:
        first, url = _first.get() or req.url, req.url
        hop = _Hop(self._access or allowed(), url, redirected=not _same_place(first, url))
        hop.by_proxy = req.proxy is not None
        _hop.set(hop)
        hop.access.check_name(hop.host, redirected=hop.redirected)
        try:
            connection = await super().connect(req, traces, timeout)
        except (OSError, aiohttp.ClientError) as error:
            if hop.refusal is not None:
                raise hop.refusal from error
            raise
        try:
            if not hop.by_proxy and connection.transport is not None:
                hop.check(connection.transport.get_extra_info("peername")[0])
        except Refused:
            connection.close()
            raise
        return connection


def _checked_socket(info: Any) -> socket.socket:
    """The socket for a connection that is about to be made."""
    family, kind, protocol, _, place = info
    hop = _hop.get()
    if hop is not None and not hop.by_proxy:
        hop.check(str(place[0]))
    return socket.socket(family, kind, protocol)


def _same_place(first: URL, url: URL) -> bool:
    """Whether a redirect stays with the server that was named; it may change to https."""
    if first.raw_host != url.raw_host:
        return False
    return first.port == url.port or (first.is_default_port() and url.is_default_port())


class _Answer(aiohttp.ClientResponse):
    async def read(self) -> bytes:
        """The whole body.

        Raises:
            Refused: it is larger than was asked for.
        """
        if self._body is None:
            most, data = self._most(), bytearray()
            while chunk := await self.content.readany():
                data += chunk
                if len(data) > most:
                    self.close()
                    raise Refused(f"the server sends more than the {most} bytes that were asked for")
            self._body = bytes(data)
        return await super().read()

    def _most(self) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.request_info.headers.get("Range", ""))
        return int(asked[2]) - int(asked[1]) + 1 if asked else _MOST_IN_MEMORY
