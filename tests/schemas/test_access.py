"""Which kinds of URL are opened, and who is behind a host, however it is spelled."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from fsspec import available_protocols
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visavis.schemas.access import (
    ANYBODY,
    LEADING_ON,
    STORES,
    Access,
    Reach,
    Refused,
    host_of,
    kinds_of,
    literal,
    plainly_private,
    reach_of,
)
from visavis.schemas.config import SourcesConfig

PLAIN = Access()


@pytest.mark.parametrize("kind", sorted(set(available_protocols()) - set(STORES)))
def test_every_other_kind_of_fsspec_is_refused_with_the_setting(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind}://"):
        PLAIN.check_kind(f"{kind}://a/b.mp4")
    wider = Access((kind,))
    if kind in LEADING_ON:
        with pytest.raises(ValueError, match="never followed"):
            wider.check_kind(f"{kind}://a/b.mp4")
        with pytest.raises(ValueError, match="never followed"):
            ANYBODY.check_kind(f"{kind}://a/b.mp4")
        with pytest.raises(ValidationError, match="never followed"):
            SourcesConfig(protocols=(kind,))
    else:
        wider.check_kind(f"{kind}://a/b.mp4")


@pytest.mark.parametrize(
    ("url", "kinds"),
    [
        ("s3://b/a::b.mp4", ["s3"]),
        ("http://[::1]:80/a.mp4", ["http"]),
        ("zip://a.mp4::https://h/z.zip", ["zip", "https"]),
        ("zip://a.mp4::/d/z.zip", ["zip", "file"]),
        ("simplecache::s3://b/a.mp4", ["simplecache", "s3"]),
        ("https://h/a.mp4::reference://x", ["https", "reference"]),
    ],
)
def test_a_chain_is_every_kind_in_it(url: str, kinds: list[str]) -> None:
    assert kinds_of(url) == kinds
    if not set(kinds) <= set(STORES):
        with pytest.raises(ValueError, match=r"kind that is read|never followed"):
            PLAIN.check_kind(url)


LOOPBACK = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]",
            "localhost", "LOCALHOST.", "127.0.0.1.", "0.0.0.0", "0", "[::]", "１２７.0.0.1", "127。0。0。1",
            "a.localhost"]  # fmt: skip
HOME = ["10.0.0.1", "192.168.1.1", "172.16.0.1", "100.64.0.1", "[fc00::1]", "[64:ff9b::a00:1]", "[2002:a00:1::]",
        "nas", "nas.local", "198.18.0.1", "[::127.0.0.1]", "224.0.0.1", "255.255.255.255",
        "metadata.google.internal"]  # fmt: skip
KEYS = ["169.254.169.254", "[fe80::1%eth0]", "[fd00:ec2::254]", "100.100.100.200", "2852039166", "[::ffff:a9fe:a9fe]",
        "[64:ff9b::a9fe:a9fe]"]  # fmt: skip
PUBLIC = ["8.8.8.8", "example.org", "[2606:4700::1111]", "[64:ff9b::808:808]", "134744072", "münchen.example"]


@pytest.mark.parametrize("host", LOOPBACK + HOME + KEYS)
def test_a_host_of_this_network_is_one_however_it_is_spelled(host: str) -> None:
    name = host_of(f"http://me:pass@{host}:80/a.mp4?x#y")
    assert plainly_private(name)
    with pytest.raises(ValueError, match=r"sources.private: \["):
        PLAIN.check_row(name, own=False)
    with pytest.raises(Refused, match="redirected to"):
        PLAIN.check_name(name, redirected=True)
    if host in KEYS:
        with pytest.raises(ValueError, match="credentials"):
            PLAIN.check_row(name, own=True)
    else:
        PLAIN.check_row(name, own=True)
    opened = Access(private=(name.partition("%")[0],) if "%" not in name else ("fe80::/10",))
    opened.check_row(name, own=False)
    opened.check_name(name, redirected=True)


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_host_is_open_to_all(host: str) -> None:
    name = host_of(f"http://{host}/a.mp4")
    assert not plainly_private(name)
    PLAIN.check_row(name, own=False)
    PLAIN.check_name(name, redirected=True)


@pytest.mark.parametrize(
    "url",
    ["http:///a", "http://a b/", "http://evil\\@127.0.0.1/", "http://127%2E0.0.1/", "http://[::1", "http://@/a",
     "http://a@b@[x]/", "http://\n127.0.0.1/"],
)  # fmt: skip
def test_a_host_that_clients_read_differently_is_none(url: str) -> None:
    with pytest.raises(ValueError, match="plain host name"):
        host_of(url)


@given(st.integers(0, 2**32 - 1))
def test_ipv4_inside_ipv6_is_the_same_reach(number: int) -> None:
    address = ip_address(number)
    assert literal(str(number)) == address
    for prefix in (0xFFFF << 32, 0x64_FF9B << 96):
        assert reach_of(ip_address(prefix | number)) is reach_of(address)


def test_names_lead_where_the_user_said() -> None:
    private, keys = ip_address("10.1.2.3"), ip_address("169.254.169.254")
    for access in (Access(named=frozenset({"nas.example.org"})), Access(private=("*.example.org",)), ANYBODY):
        access.check_address("nas.example.org", private, redirected=False)
    for access in (PLAIN, Access(named=frozenset({"other.org"})), Access(private=("other.org", "10.2.0.0/16"))):
        with pytest.raises(Refused, match=r"its host is at the private address nas.example.org \(10.1.2.3\)"):
            access.check_address("nas.example.org", private, redirected=False)
    with pytest.raises(Refused, match="redirected"):  # that a user named a host lets no server lead to it
        Access(named=frozenset({"nas"})).check_address("nas", private, redirected=True)
    Access(private=("10.0.0.0/8",)).check_address("x.org", private, redirected=True)
    for access in (PLAIN, ANYBODY):
        with pytest.raises(Refused, match="link-local"):
            access.check_address("x.org", keys, redirected=False)
    assert reach_of(keys) is Reach.KEYS
