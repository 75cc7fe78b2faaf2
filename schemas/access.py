"""What a name from a list may lead to: the kinds of URL that are opened, and the hosts behind them.

Kinds are an allow-list, `STORES`: places that keep bytes and hand them out. Everything else of fsspec's is left out,
for it leads on to other files (`reference`, caches, archives), needs a user's account or keys and would show them to a
stranger's host (`sftp`, `smb`, `hf`, `gdrive`), or goes to hosts that nobody looks at (`ftp`, `webhdfs`). The setting
`sources.protocols` adds some; no setting adds what only leads on.

Hosts: what a list says plainly is the user's own word, as long as the list is: `http://nas/…` and `http://10.0.0.7/…`
are read. What shows only at the connection is not: a redirect, or a public name whose address is a private one. These
are refused unless the user named that host on the command line or in `sources.private`. The reason to go by names:
labs do keep video on servers of their own network, and no setting should be needed to say so twice; a stranger's
redirect to a machine's own services is never what they want. A list that lies on a public server or in a bucket is
nobody's own word: it may not name private hosts, and no files of this machine. Addresses by which clouds give out
credentials are not read on any list's word.

This module decides; `schemas.storage.web` asks it at every connection.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import cast

STORES = ("file", "local", "http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl")
"""Protocols that sources may always have."""
LEADING_ON = frozenset((
    "reference", "generic", "dir", "dask", "async_wrapper", "asyncwrapper", "asynclocal", "cached", "blockcache",
    "filecache", "simplecache", "data", "jupyter", "jlab", "pyscript", "libarchive", "git", "github", "gist", "dvc",
))  # fmt: skip
"""Those that no setting allows: they lead to other files and places than their name says."""
WEB = ("http", "https")

Address = IPv4Address | IPv6Address


class Refused(OSError):
    """A name that leads where it may not. It is the name's fault, so nobody tries again."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EPERM, why)


class Reach(StrEnum):
    """Who is behind an address."""

    PUBLIC = "public"
    PRIVATE = "private"  # this machine or the network around it
    KEYS = "link-local"  # of one cable, where clouds answer with credentials


@dataclass(frozen=True)
class Access:
    """What sources may be.

    protocols: beside `STORES`. private: hosts (`nas.example.org`, `*.lab.example.org`) and networks (`10.0.0.0/8`) that
    lists, redirects and names may lead to though they are private. named: hosts that the user named on the command
    line; None: whoever opens a URL named it, as in a library.
    """

    protocols: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    named: frozenset[str] | None = frozenset()

    def check_kind(self, url: str) -> None:
        """Raises ValueError, which says what is expected, for a URL of a kind that is not opened."""
        for kind in kinds_of(url):
            if kind in LEADING_ON:
                raise ValueError(f"a URL that holds bytes itself; {kind}:// leads on to others, and is never followed")
            if self.named is not None and kind not in STORES and kind not in self.protocols:
                raise ValueError(f"a path or a URL of a kind that is read, not {kind}:// ({_widen(kind)})")

    def check_row(self, host: str, *, own: bool) -> None:
        """The same for a host that a list names. own: the list is the user's own, or lies on their network."""
        address = literal(host)
        if not plainly_private(host) or self._allowed(host, address):
            return
        if address is not None and reach_of(address) is Reach.KEYS:
            raise ValueError(f"another host: {host} is where clouds give out credentials ({_open(host)})")
        if not own and host not in (self.named or ()):
            raise ValueError(f"a public host: a list from elsewhere may not name hosts of this network ({_open(host)})")

    def check_address(self, host: str, address: Address, *, redirected: bool) -> None:
        """Before a connection to one of a host's addresses.

        Raises:
            Refused: it may not be opened.
        """
        reach = reach_of(address)
        if reach is Reach.PUBLIC or self._allowed(host, address):
            return
        if not redirected:
            if (host in self.named) if self.named else (self.named is None and reach is not Reach.KEYS):
                return
            if reach is Reach.PRIVATE and plainly_private(host):
                return
        found = host if literal(host) else f"{host} ({address})"
        raise Refused(f"{_how(redirected)} the {reach.value} address {found}, which is not followed ({_open(host)})")

    def check_name(self, host: str, *, redirected: bool) -> None:
        """The same where only the name is known: a proxy connects, or a connection is there already."""
        address = literal(host)
        if address is not None:
            self.check_address(host, address, redirected=redirected)
        elif redirected and plainly_private(host) and not self._allowed(host, None):
            raise Refused(f"redirected to the private host {host}, which is not followed ({_open(host)})")

    def _allowed(self, host: str, address: Address | None) -> bool:
        return any(_matches(pattern, host, address) for pattern in self.private)


ANYBODY = Access(named=None)
_now = [ANYBODY]


@contextmanager
def allowing(access: Access) -> Iterator[None]:
    """What this process, with all its threads, may open inside the block: that of a worker's task."""
    _now.append(access)
    try:
        yield
    finally:
        _now.pop()


def allowed() -> Access:
    return _now[-1]


def kinds_of(url: str) -> list[str]:
    """The protocols of a URL; several for a chain, as fsspec reads it (see `schemas.uris.located`)."""
    first, chained, last = url.rpartition("::")
    if not chained or ("://" in first and "://" not in last and not last.startswith("/")):
        return [url.partition("://")[0]]
    return [part.partition("://")[0] if "://" in part or "/" not in part else "file" for part in url.split("::")]


_AUTHORITY = re.compile(
    r"(?:[^/?#\\\s]*@)?(?P<host>\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^@:/?#\\\s\[\]%]+)(?P<port>:\d*)?(?:[/?#].*)?", re.DOTALL
)


def host_of(url: str) -> str:
    """The host of a URL, as clients understand it: lower case, without brackets, in ASCII.

    Raises:
        ValueError: no plain host name, so clients may not agree on who is meant.
    """
    found = _AUTHORITY.fullmatch(url.partition("://")[2])
    if found is None:
        raise ValueError("a URL with a plain host name")
    return plain_host(found["host"])


def plain_host(host: str) -> str:
    """A host as names are compared. Digits of other alphabets are digits."""
    host = host.strip("[]").rstrip(".").lower()
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise ValueError("a URL with a plain host name") from error
    return host


def literal(host: str) -> Address | None:
    """The address that a host is spelled as, in any way that resolvers take (`127.1`, `0x7f000001`)."""
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    if not re.fullmatch(r"[0-9a-fx.]+", host):
        return None
    try:
        return ip_address(socket.inet_aton(host))
    except OSError:
        return None


_HOME = (".local", ".localhost", ".localdomain", ".lan", ".home", ".internal", ".intranet", ".corp", ".private",
         ".home.arpa")  # fmt: skip


@lru_cache(1024)
def plainly_private(host: str) -> bool:
    """Whether everybody can see that a host is one of this network: by its address, or a name that nobody can buy."""
    address = literal(host)
    if address is not None:
        return reach_of(address) is not Reach.PUBLIC
    return "." not in host or host.endswith(_HOME)


_CREDENTIALS = frozenset(map(ip_address, ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254")))
_NAT64 = cast(IPv6Network, ip_network("64:ff9b::/96"))


def reach_of(address: Address) -> Reach:
    """Who is behind an address."""
    address = _inner(address)
    if address in _CREDENTIALS or address.is_link_local:
        return Reach.KEYS
    special = address.is_multicast or address.is_reserved or address.is_unspecified
    return Reach.PUBLIC if address.is_global and not special else Reach.PRIVATE


def _inner(address: Address) -> Address:
    """The IPv4 address that one of IPv6 stands for."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


@lru_cache(1024)
def _matches(pattern: str, host: str, address: Address | None) -> bool:
    try:
        network = ip_network(pattern, strict=False)
    except ValueError:
        return fnmatchcase(host, pattern.lower())
    inner = None if address is None else _inner(address)
    return any(each is not None and each.version == network.version and each in network for each in (address, inner))


def hosts_of(names: Iterable[str]) -> frozenset[str]:
    """The hosts of those names that are URLs of the web."""
    found = set()
    for name in names:
        if name.startswith(("http://", "https://")):
            found.add(host_of(name))
    return frozenset(found)


def _how(redirected: bool) -> str:
    return "redirected to" if redirected else "its host is at"


def _widen(kind: str) -> str:
    return f"sources.protocols: [{kind}] in the recipe, or --set 'sources.protocols=[{kind}]', reads it all the same"


def _open(host: str) -> str:
    return f"sources.private: [{host}] in the recipe allows it"
