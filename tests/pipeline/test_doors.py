"""What lists and servers of strangers lead to: nothing that the user did not name.

Some tests play a public server: `public` makes everybody take 127.0.0.2 for an address of the internet, and lets names
have the addresses that the test says. What must not be reached is a server of the same machine, which logs who asks.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.server import Server, refusal, serving
from tests.stages.test_ingest import write_clip
from visavis.pipeline.plan.sources import access_to, find_sources
from visavis.schemas import access
from visavis.schemas.access import Access, Reach, allowing
from visavis.schemas.config import IngestConfig, SourcesConfig
from visavis.schemas.errors import UsageError
from visavis.schemas.rows import Source
from visavis.schemas.storage import files
from visavis.stages.ingest import IngestStage
from visavis.stages.media.opening import open_bytes

PUBLIC = "127.0.0.2"


@pytest.fixture
def inside() -> Iterator[Server]:
    """What must not be reached."""
    with serving() as server:
        server.answers = {"/secret": b"secret", "/a.mp4": b"secret"}
        yield server


@pytest.fixture
def outside(public: dict[str, list[str]]) -> Iterator[Server]:
    """A server of the internet, by the name of public.example."""
    with serving(PUBLIC) as server:
        server.address = f"http://public.example:{server.port}"
        yield server


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses, one after the other as they are asked for."""
    names = {"public.example": [PUBLIC]}
    reach, resolve = access.reach_of, socket.getaddrinfo

    def getaddrinfo(host: Any, *options: Any, **named: Any) -> Any:
        found = names.get(host)
        return resolve((found.pop(0) if len(found) > 1 else found[0]) if found else host, *options, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(access, "reach_of", lambda at: Reach.PUBLIC if at == IPv4Address(PUBLIC) else reach(at))
    return names


def told(*inputs: str, config: SourcesConfig | None = None) -> str:
    with pytest.raises(UsageError) as error:
        list(find_sources(inputs, (), access_to(config or SourcesConfig(), inputs)))
    said = str(error.value)
    assert said.isprintable()
    return said


def listing(folder: Path, *uris: str) -> str:
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps({"uri": uri}) + "\n" for uri in uris))
    return str(path)


# Kinds of URL


@pytest.mark.parametrize(
    "uri",
    ["reference://x/a.mp4", "zip://a.mp4", "memory://a.mp4", "ftp://{}/a.mp4", "github://o:r@main/a.mp4", "git://x",
     "data://x,a", "dir://a", "hf://datasets/a/b.mp4", "sftp://{}/a.mp4", "jupyter://{}/a", "dask://{}/a", "local2://x",
     "simplecache::http://{}/a.mp4", "zip://a.mp4::http://{}/a.zip", "http://{}/a.mp4::reference://x",
     "filecache::file:///etc/passwd", "reference::http://{}/a.json", "HTTP://{}/a.mp4", "tar://a::/etc/passwd",
     "webhdfs://{}/a", "libarchive://a::http://{}/a", "smb://{}/a"],
)  # fmt: skip
def test_a_row_of_another_kind_ends_planning_in_a_line(tmp_path: Path, inside: Server, uri: str) -> None:
    uri = uri.format(inside.address.removeprefix("http://"))
    said = told(listing(tmp_path, "ok.mp4", uri))
    assert "row 2" in said
    assert "`uri` is" in said
    assert "expected a" in said
    assert "expected a" in told(uri)
    assert inside.asked == []


def test_a_setting_widens_what_sources_may_be(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/doors/a.mp4", b"a")
    wide = SourcesConfig(protocols=("memory",))
    listed = listing(tmp_path, "memory://doors/a.mp4")
    for name in ("memory://doors/a.mp4", listed):
        assert "sources.protocols: [memory]" in told(name)
        (source,) = find_sources([name], (), access_to(wide, [name]))
        assert source.uris[0].endswith("/doors/a.mp4")
    assert "memory://" in refusal("memory://doors/a.mp4")
    with allowing(access_to(wide, [])), open_bytes("memory://doors/a.mp4") as file:
        assert file.read() == b"a"


def test_a_worker_follows_nothing_that_leads_on(tmp_path: Path, inside: Server) -> None:
    refs = tmp_path / "refs.json"
    refs.write_text(json.dumps({"version": 1, "refs": {"a.mp4": [f"{inside.address}/secret"]}}))
    for url in (f"reference://a.mp4::{refs}", "reference://a.mp4", f"simplecache::{inside.address}/secret"):
        with allowing(access.ANYBODY):
            assert "never followed" in refusal(url, access.ANYBODY)
    assert inside.asked == []


# Lists that lie elsewhere


@pytest.mark.parametrize(
    "row",
    ["file:///etc/passwd", "/etc/passwd", "/proc/self/environ", "local:///etc/passwd", "file://localhost/etc/passwd",
     " /etc/passwd", "//etc/passwd", "../../other", "a/../../../etc/passwd", "~/../../../x", "file:////etc/passwd"],
)  # fmt: skip
def test_a_list_elsewhere_names_no_files_of_this_machine(inside: Server, row: str) -> None:
    inside.answers["/lists/list.jsonl"] = json.dumps({"uri": row}).encode()
    said = told(f"{inside.address}/lists/list.jsonl")
    assert "row 1 `uri` is" in said
    assert "names no files of this machine" in said or "a name below http://127.0.0.1" in said


def test_a_list_elsewhere_names_files_beside_it(inside: Server) -> None:
    rows = ("a.mp4", "../b.mp4", "sub/./c.mp4", f"{inside.address}/d.mp4", "http://example.org/e.mp4", "s3://b/f.mp4")
    inside.answers["/lists/list.jsonl"] = "".join(json.dumps({"uri": row}) + "\n" for row in rows).encode()
    found = [source.uris[0] for source in find_sources([f"{inside.address}/lists/list.jsonl"])]
    there = f"{inside.address}/lists"
    assert found[:3] == [f"{there}/a.mp4", f"{inside.address}/b.mp4", f"{there}/sub/c.mp4"]
    assert found[3:] == list(rows[3:])


def test_a_public_list_names_no_hosts_of_this_network(outside: Server, inside: Server) -> None:
    name = f"{outside.address}/list.jsonl"
    for row in (
        f"{inside.address}/a.mp4",
        "http://2130706433/",
        "http://nas/a",
        "http://me:pw@[::1]:80/",
        "http://0/x",
    ):
        outside.answers["/list.jsonl"] = json.dumps({"uri": row}).encode()
        said = told(name)
        assert "may not name hosts of this network (sources.private: [" in said
        assert "pw" not in said
    outside.answers["/list.jsonl"] = json.dumps({"uri": f"{inside.address}/a.mp4"}).encode()
    config = SourcesConfig(private=("127.0.0.1",))
    assert len(find_sources([name], (), access_to(config, [name]))) == 1
    assert inside.asked == []


def test_nobody_is_asked_for_credentials_of_a_cloud(tmp_path: Path, public: dict[str, list[str]]) -> None:
    for host in ("169.254.169.254", "2852039166", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"):
        assert "credentials" in told(listing(tmp_path, f"http://{host}/latest/meta-data"))
    public["metadata.google.internal"] = ["169.254.169.254"]
    assert "link-local" in refusal("http://metadata.google.internal/x")


# Where servers lead to


@pytest.mark.parametrize(
    "place",
    ["{inside}/a.mp4", "{inside}/secret?x", "http://localhost:{port}/a.mp4", "http://2130706433:{port}/a.mp4",
     "http://[::ffff:127.0.0.1]:{port}/a.mp4", "http://inner.example:{port}/a.mp4", "//127.0.0.1:{port}/a.mp4",
     "http://0x7f.1:{port}/", "http://public.example@127.0.0.1:{port}/a.mp4", "http://nas:{port}/a.mp4",
     "http://169.254.169.254/", "file:///etc/passwd", "ftp://127.0.0.1:{port}/a", "gopher://127.0.0.1:{port}/a",
     "/again.mp4", "http://", "http://%31%32%37.0.0.1:{port}/"],
)  # fmt: skip
def test_no_server_leads_to_this_network(
    outside: Server, inside: Server, public: dict[str, list[str]], place: str, tmp_path: Path
) -> None:
    public |= {"inner.example": ["127.0.0.1"], "nas": ["127.0.0.1"]}
    place = place.format(inside=inside.address, port=inside.port)
    outside.answers |= {"/a.mp4": place, "/again.mp4": "/a.mp4"}
    said = refusal(f"{outside.address}/a.mp4")
    assert re.search(r"(redirected|led) to .*, which is not followed|redirected too often", said), said
    assert "not followed" in (again := told(f"{outside.address}/a.mp4")) or "too often" in again
    assert inside.asked == []


def test_a_redirect_of_a_private_server_leads_to_no_other(inside: Server) -> None:
    with serving() as other:
        other.answers["/a.mp4"] = f"{inside.address}/a.mp4"
        for by in (Access(), access.ANYBODY, access_to(SourcesConfig(), [other.address])):
            assert "redirected to the private address 127.0.0.1" in refusal(f"{other.address}/a.mp4", by)
        assert inside.asked == []
        with allowing(Access(private=("127.0.0.0/8",))), open_bytes(f"{other.address}/a.mp4") as file:
            assert file.read() == b"secret"


def test_a_connection_that_is_open_is_no_way_in(outside: Server, inside: Server, public: dict[str, list[str]]) -> None:
    public["inner.example"] = ["127.0.0.1"]
    named = Access(named=frozenset({"inner.example"}))
    outside.answers |= {"/a.mp4": f"http://inner.example:{inside.port}/secret", "/b.mp4": f"{inside.address}/secret"}
    with allowing(named):
        for host in ("inner.example", "127.0.0.1"):
            with open_bytes(f"http://{host}:{inside.port}/a.mp4") as file:
                assert file.read() == b"secret"
    before = len(inside.asked)
    for path in ("a.mp4", "b.mp4"):
        assert "redirected to" in refusal(f"{outside.address}/{path}", named)
    assert len(inside.asked) == before


def test_a_name_that_leads_to_this_network_is_refused(inside: Server, public: dict[str, list[str]]) -> None:
    public["rebound.example"] = ["127.0.0.1"]
    url = f"http://rebound.example:{inside.port}/a.mp4"
    assert "its host is at the private address rebound.example (127.0.0.1)" in refusal(url)
    assert inside.asked == []
    for by in (Access(private=("*.example",)), Access(private=("127.0.0.1",)), access_to(SourcesConfig(), [url])):
        with allowing(by), open_bytes(url) as file:
            assert file.read() == b"secret"


def test_a_name_that_means_another_address_the_second_time(public: dict[str, list[str]]) -> None:
    """Both listen on one port: the first part of a file comes from the internet, the second would not."""
    data = bytes(7 << 20)

    def part(handler: BaseHTTPRequestHandler) -> None:
        found = re.match(r"bytes=(\d+)-(\d+)", handler.headers["Range"])
        assert found
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[first : last + 1])

    with serving(PUBLIC) as outside, ExitStack() as stack:
        outside.answers["/a.mp4"] = part
        inner = stack.enter_context(socket.socket())
        inner.bind(("127.0.0.1", outside.port))
        inner.listen()
        inner.settimeout(0.2)
        public["rebound.example"] = [PUBLIC]
        with allowing(Access()), open_bytes(f"http://rebound.example:{outside.port}/a.mp4") as file:
            public["rebound.example"] = ["127.0.0.1"]
            _forget_names()
            with pytest.raises(OSError, match="private address"):
                file.read(3 << 20)
        with pytest.raises(TimeoutError):
            inner.accept()


def _forget_names() -> None:
    import fsspec

    web = fsspec.filesystem("http", get_client=files.client_of)
    if web._session is not None:
        web._session.connector.clear_dns_cache()


def test_a_password_is_not_sent_on(outside: Server, public: dict[str, list[str]]) -> None:
    with serving(PUBLIC) as other:
        public["other.example"] = [PUBLIC]
        other.answers["/a.mp4"] = b"fine"
        outside.answers["/a.mp4"] = f"http://other.example:{other.port}/a.mp4"
        url = outside.address.replace("://", "://me:pass@")
        with allowing(Access()), open_bytes(f"{url}/a.mp4") as file:
            assert file.read() == b"fine"
        assert all("Authorization" in headers for headers in outside.headers)
        assert other.asked
        assert not any({"Authorization", "Cookie"} & set(headers) for headers in other.headers)


# Sidecars


def test_planning_asks_no_server_that_a_row_names(tmp_path: Path, inside: Server) -> None:
    rows = [f"{inside.address}/d/V00_S0809_I00000582_P{n:04}.mp4" for n in (1, 2)]
    found = find_sources([listing(tmp_path, *rows)])
    (source,) = found
    assert source.participants == ("V00_P0001", "V00_P0002")
    assert inside.asked == []
    assert "2 files of Seamless Interaction on web servers" in "\n".join(found.notes.lines())


def test_good_files_are_as_before(tmp_path: Path, inside: Server) -> None:
    clip = write_clip(tmp_path / "a.mp4", seconds=3.5)
    inside.answers |= {"/good.mp4": clip.read_bytes(), "/moved.mp4": "/good.mp4"}
    stage, local = IngestStage(IngestConfig(min_duration=1)), Source(uris=(str(clip),), participants=(None,))
    (expected,) = stage.process(local)
    with allowing(Access()):
        for path in ("good.mp4", "moved.mp4"):
            (row,) = stage.process(Source(uris=(f"{inside.address}/{path}",), participants=(None,)))
            assert row.id == expected.id
