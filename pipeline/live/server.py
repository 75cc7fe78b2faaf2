"""The live page's server: on this machine alone, and only for whom the address was given to.

Every path begins with a token of 256 bits, so nobody else on the machine, and no page of anybody else in the same
browser, gets an answer. Requests for another host (DNS rebinding) and from another origin are refused. What is served
is a fixed list of names: no path is ever looked up on a disk.
"""

from __future__ import annotations

import asyncio
import hmac
import io
import itertools
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import soundfile
from aiohttp import WSCloseCode, WSMsgType, web

from visavis.pipeline.live.avatar import Avatar
from visavis.pipeline.live.looking import Looker
from visavis.pipeline.live.messages import MOST_BYTES, Malformed, parse_message
from visavis.pipeline.live.session import Session
from visavis.pipeline.page.base import page_text, policy, static
from visavis.pipeline.view.portrait import Portrait
from visavis.pipeline.view.puppet import puppet_json
from visavis.schemas import FPS, SAMPLE_RATE
from visavis.schemas.untrusted import first_line

HOST = "127.0.0.1"
_WAIT = 1.0  # seconds that a second person waits for the first to leave
_PARTS = (
    "page.css", "live.css", "page.js", "canvas.js", "avatar.js", "live_draw.js", "live_capture.js", "live_latency.js",
    "live_session.js", "live.js",
)  # fmt: skip
_BESIDE = ("live_worklet.js", "live_worker.js")  # what scripts load themselves
_TYPES = {"js": "text/javascript", "css": "text/css", "html": "text/html"}
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class LiveServer:
    """The page and one session at a time. `start` it, tell people `address`, and `stop` it."""

    avatar: Avatar
    looker: Looker
    port: int = 0
    portrait: Portrait | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    tell: Callable[[str], object] = print
    """Is told what ends a session that should not have ended."""
    _runner: web.AppRunner | None = None
    _socket: web.WebSocketResponse | None = None
    _place: asyncio.Lock = field(default_factory=asyncio.Lock)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def start(self) -> None:
        """Raises OSError: the port is taken."""
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 10)
        prefix = f"/{self.token}"
        files = {name: static(name) for name in (*_PARTS, *_BESIDE)}
        for name, data in files.items():
            app.router.add_get(f"{prefix}/static/{name}", _answer(data, _TYPES[name.rpartition(".")[2]]))
        app.router.add_get(f"{prefix}/", self._page)
        app.on_shutdown.append(self._say_goodbye)
        app.router.add_get(f"{prefix}/session", self._session)
        if len(self.avatar.speech_N):
            app.router.add_get(f"{prefix}/speech.wav", _answer(_wav(self.avatar), "audio/wav"))
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/{self.token}/"

    @property
    def policy(self) -> str:
        """Of the page: its own scripts, and nobody is called but this server."""
        return policy("'self'", f"'self' ws://{HOST}:{self.port} ws://localhost:{self.port}")

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who asks, and for whom: before anything else is looked at."""
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        given = request.path.split("/")[1] if "/" in request.path else ""
        if host not in (f"{HOST}:{self.port}", f"localhost:{self.port}"):
            answer: web.StreamResponse = web.Response(status=421, text="not this host")
        elif (origin is not None and origin != f"http://{host}") or _from_elsewhere(request):
            answer = web.Response(status=403, text="not from there")
        elif not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode()):
            answer = web.Response(status=403, text="the address is the one that `visavis live` printed")
        else:
            try:
                answer = await handler(request)
            except web.HTTPException as error:
                answer = web.Response(status=error.status, text=error.reason)
        if not answer.prepared:
            answer.headers.update(_HEADERS)
            answer.headers["Content-Security-Policy"] = f"{self.policy}; frame-ancestors 'none'"
        return answer

    async def _page(self, _: web.Request) -> web.Response:
        avatar = self.avatar
        config = {
            "fps": FPS,
            "sampleRate": SAMPLE_RATE,
            "block": avatar.block,
            "ahead": avatar.ahead,
            "rest": avatar.reference_D.tolist(),
            "speaks": len(avatar.speech_N) / SAMPLE_RATE,
            "puppet": puppet_json(avatar.puppet(self.portrait)),
        }
        text = page_text("live.html", self.policy, _PARTS, title="Visavis live", config=config)
        return web.Response(text=text, content_type="text/html")

    async def _session(self, request: web.Request) -> web.WebSocketResponse:
        if request.headers.get("Origin") is None:
            raise web.HTTPForbidden(reason="not from there")
        socket = web.WebSocketResponse(heartbeat=15, max_msg_size=MOST_BYTES, compress=False)
        await socket.prepare(request)
        try:
            async with asyncio.timeout(_WAIT):  # a page that is loaded anew comes before the old one has left
                await self._place.acquire()
        except TimeoutError:
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"somebody else is talking to it")
            return socket
        try:
            self._socket = socket
            await self._talk(socket)
        finally:
            self._socket = None
            self._place.release()
        return socket

    async def _say_goodbye(self, _: web.Application) -> None:
        if self._socket is not None:
            await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"the program was ended")

    async def _talk(self, socket: web.WebSocketResponse) -> None:
        key = f"live-{next(self._numbers)}"
        session = Session(self.avatar, self.looker, key, socket.send_bytes)
        running = asyncio.create_task(session.run())
        receiving = asyncio.create_task(_receive(socket, session))
        try:
            await asyncio.wait([running, receiving], return_when=asyncio.FIRST_COMPLETED)
            if running.done() and not socket.closed and (error := running.exception()):
                said = first_line(_cause(error))
                self.tell(f"a session ended: {said}")
                await socket.close(code=WSCloseCode.INTERNAL_ERROR, message=said.encode()[:100])
        finally:
            for task in (running, receiving):
                task.cancel()
            await asyncio.gather(running, receiving, return_exceptions=True)


def _from_elsewhere(request: web.Request) -> bool:
    """Whether another page asks. That one leads here is fine, as the page does that opens the browser: it learns
    nothing of the answer, and has to know the key."""
    headers = request.headers
    if headers.get("Sec-Fetch-Site") not in ("cross-site", "same-site"):
        return False
    leads = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    return not (leads and request.method == "GET" and request.path.count("/") == 2 and request.path.endswith("/"))


def _cause(error: BaseException) -> BaseException:
    """The first of what a group of tasks failed by."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _receive(socket: web.WebSocketResponse, session: Session) -> None:
    """Until the page goes away or sends what no page of ours sends."""
    async for message in socket:
        try:
            if message.type is not WSMsgType.BINARY:
                raise Malformed("text")
            await session.hear(parse_message(message.data))
        except Malformed as error:
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:120])
            return


def _answer(data: bytes, type: str) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=data, content_type=type)

    return answer


def _wav(avatar: Avatar) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, avatar.speech_N, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
