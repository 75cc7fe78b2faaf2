"""The server answers whom it should, on what it should, and a session that goes wrong is the only one that ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSMsgType

from tests.live.sitter import FakeLooker, avatar, jpeg, serving
from tests.live.test_messages import PICTURE, PING, SOUND, SPEAK, message
from visavis.pipeline.live.server import LiveServer

FRAMES_MS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serving(avatar(speech_N=np.full(6400, 0.25, np.float32)), FakeLooker()) as running:
        yield running


def asked(server: LiveServer, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Status, text and headers of a GET of exactly this path."""

    async def ask() -> tuple[int, str, dict[str, str]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        lines = {"Host": f"127.0.0.1:{server.port}", "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        writer.write(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        answer = (await reader.read()).decode(errors="replace")
        writer.close()
        first, _, rest = answer.partition("\r\n")
        fields, _, body = rest.partition("\r\n\r\n")
        return int(first.split()[1]), body, dict(line.split(": ", 1) for line in fields.split("\r\n"))

    return asyncio.run(ask())


def path_of(server: LiveServer, name: str = "") -> str:
    return f"/{server.token}/{name}"


def test_the_page_comes_to_whoever_has_the_address(server: LiveServer) -> None:
    status, text, headers = asked(server, path_of(server))
    assert status == 200
    assert "Start" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    for name in ("live.js", "live_session.js", "avatar.js", "page.css", "live_worklet.js"):
        assert asked(server, path_of(server, f"static/{name}"))[0] == 200
    assert asked(server, path_of(server, "speech.wav"))[0] == 200


def test_it_listens_on_this_machine_alone(server: LiveServer) -> None:
    assert server._runner is not None
    assert server._runner.addresses == [("127.0.0.1", server.port)]


@pytest.mark.parametrize(
    "path", ["/", "/static/live.js", "/session", "/speech.wav", "/x/", "/x/session", "//", "/%00/"]
)
def test_without_the_token_nothing_is_answered(server: LiveServer, path: str) -> None:
    status, text, headers = asked(server, path)
    assert status == 403
    assert "address" in text
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_half_a_token_or_one_more_letter_is_none(server: LiveServer) -> None:
    for wrong in (server.token[:-1], server.token + "a", server.token.swapcase(), "ü" + server.token[1:]):
        assert asked(server, f"/{wrong}/".replace("ü", "%C3%BC"))[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "[::1]", "localhost.evil.example:80", ""])
def test_another_host_is_not_ours(server: LiveServer, host: str) -> None:
    """What DNS rebinding makes a browser send."""
    assert asked(server, path_of(server), Host=host)[0] in (400, 421)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"])
def test_another_origin_is_refused(server: LiveServer, origin: str) -> None:
    assert asked(server, path_of(server), Origin=origin)[0] == 403
    assert asked(server, path_of(server, "session"), Origin=origin)[0] == 403
    assert asked(server, path_of(server), Sec_Fetch_Site="cross-site")[0] == 403


def test_a_page_may_lead_here_and_do_nothing_else(server: LiveServer) -> None:
    """As the one does that opens the browser, which lies on the disk."""
    led = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert asked(server, path_of(server), **led)[0] == 200
    assert asked(server, path_of(server), **led | {"Sec_Fetch_Dest": "iframe"})[0] == 403
    assert asked(server, path_of(server, "static/live.js"), **led)[0] == 403
    assert asked(server, path_of(server, "session"), **led)[0] == 403


@pytest.mark.parametrize(
    "name",
    [
        "static/../server.py",
        "static/..%2f..%2fapp.py",
        "../../etc/passwd",
        "static//etc/passwd",
        "static/%2e%2e/base.py",
        "static/",
        "static/vendor/uPlot.iife.min.js",
        "session/x",
    ],
)
def test_no_path_leads_outside_the_list_of_files(server: LiveServer, name: str) -> None:
    status, text, _ = asked(server, path_of(server, name))
    assert status in (403, 404)
    assert "root:" not in text
    assert "import" not in text


Talk = Callable[[aiohttp.ClientWebSocketResponse], Coroutine[Any, Any, Any]]


def talk(server: LiveServer, do: Talk, origin: str | None = "") -> Any:
    """A session like the page's."""

    async def run() -> Any:
        own = f"http://127.0.0.1:{server.port}"
        headers = {} if origin is None else {"Origin": origin or own}
        place = f"{own}{path_of(server, 'session')}"
        async with aiohttp.ClientSession() as http, http.ws_connect(place, headers=headers) as socket:
            return await asyncio.wait_for(do(socket), 20)

    return asyncio.run(run())


async def reacts(socket: aiohttp.ClientWebSocketResponse, blocks: int = 2) -> list[tuple[int, np.ndarray]]:
    """Sit before it in real time until so many blocks have come: (first frame, motion [10, D])."""
    found: list[tuple[int, np.ndarray]] = []
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def send() -> None:
        for n in range(1000):
            await asyncio.sleep(max(0.0, began + (n + 1) * FRAMES_MS / 1000 - loop.time()))
            await socket.send_bytes(message(SOUND, n * FRAMES_MS, bytes(1280)))
            await socket.send_bytes(message(PICTURE, n * FRAMES_MS + 30, jpeg(100 + n % 50)))

    sending = asyncio.create_task(send())
    try:
        async for one in socket:
            assert one.type is WSMsgType.BINARY
            if one.data[0] == 1:
                found.append((struct.unpack_from("<I", one.data, 4)[0], np.frombuffer(one.data, "<f4", offset=64)))
                if len(found) == blocks:
                    return found
    finally:
        sending.cancel()
    raise AssertionError(f"it ended: {socket.close_code}")


@pytest.mark.slow
def test_a_session_reacts_block_by_block(server: LiveServer) -> None:
    blocks = talk(server, reacts)
    assert [first for first, _ in blocks] == [0, 10]
    assert all(np.isfinite(motion).all() and motion.size == 100 for _, motion in blocks)


def test_a_socket_without_an_origin_or_with_anothers_is_refused(server: LiveServer) -> None:
    for origin in (None, "http://evil.example"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            talk(server, reacts, origin)
        assert refused.value.status == 403


BAD = {
    "text": "hello",
    "empty": b"",
    "garbage": bytes(range(256)),
    "truncated JPEG": message(PICTURE, 1, jpeg(90)[:-20]),
    "not a time": message(PICTURE, float("nan"), jpeg(90)),
    "a minus time": message(SOUND, -5, bytes(64)),
    "huge picture": message(PICTURE, 1, jpeg(90, (3000, 3000))),
    "too long": bytes(1 << 20),
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_message_ends_its_session_with_a_code_and_no_other(server: LiveServer, name: str) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> int | None:
        bad = BAD[name]
        await (socket.send_str(bad) if isinstance(bad, str) else socket.send_bytes(bad))
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
            pass
        return socket.close_code

    assert talk(server, send) == (1009 if name == "too long" else 1008)
    assert len(talk(server, lambda socket: reacts(socket, 1))) == 1


def test_times_that_jump_and_go_back_end_nothing(server: LiveServer) -> None:
    async def send(socket: aiohttp.ClientWebSocketResponse) -> bytes:
        for time in (0, 5000, 40, 3e8, 2.0, 3e8 + 40):
            await socket.send_bytes(message(SOUND, time, bytes(1280)))
            await socket.send_bytes(message(PICTURE, time, jpeg(100)))
        await socket.send_bytes(message(PING, 99.0, number=123))
        async for one in socket:
            if one.data[0] == 3:
                return one.data
        raise AssertionError("no answer")

    assert struct.unpack_from("<I", talk(server, send), 4)[0] == 123
    assert len(talk(server, lambda socket: reacts(socket, 1))) == 1


def test_a_picture_that_cannot_be_decoded_is_one_without_a_face(server: LiveServer) -> None:
    broken = bytearray(jpeg(128))
    broken[-60:-2] = bytes(58)

    async def send(socket: aiohttp.ClientWebSocketResponse) -> int:
        await socket.send_bytes(message(PICTURE, 10, bytes(broken)))
        async for one in socket:
            if one.data[0] == 2:
                return one.data[0]
        raise AssertionError("no answer")

    assert talk(server, send) == 2


@pytest.mark.slow
def test_a_second_person_is_told_to_come_later(server: LiveServer) -> None:
    async def both(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, int]:
        own = f"http://127.0.0.1:{server.port}"
        await socket.send_bytes(message(PING, 1))
        await socket.receive()
        place = f"{own}{path_of(server, 'session')}"
        async with aiohttp.ClientSession() as http, http.ws_connect(place, headers={"Origin": own}) as second:
            await second.receive()
            return second.close_code, len(await reacts(socket, 1))

    assert talk(server, both) == (1013, 1)


@pytest.mark.slow
def test_what_the_avatar_says_is_named_sample_by_sample(server: LiveServer) -> None:
    """Its file is 10 frames long; it begins with the first frame that the model has not been given yet."""

    async def speak(socket: aiohttp.ClientWebSocketResponse) -> list[int]:
        spoken: list[int] = []
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def send() -> None:
            await socket.send_bytes(message(SOUND, 0, bytes(640)))
            await socket.send_bytes(message(SPEAK, 1))
            for n in range(1, 1000):
                await asyncio.sleep(max(0.0, began + n * 0.04 - loop.time()))
                await socket.send_bytes(message(SOUND, n * FRAMES_MS, bytes(1280)))

        sending = asyncio.create_task(send())
        async for one in socket:
            if one.data[0] == 1:
                spoken.append(struct.unpack_from("<i", one.data, 56)[0])
                if len(spoken) == 3:
                    break
        sending.cancel()
        return spoken

    assert talk(server, speak) == [0, -(2**31), -(2**31)]
