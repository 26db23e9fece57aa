"""A receiver of webhooks that misbehaves as told: a real HTTP server on a port of this machine.

It runs in a thread with an event loop of its own, checks each signature with the standard's own library, and counts
what comes by webhook-id.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_" + "c2VjcmV0IG9mIHRlc3RzLCAzMiBieXRlcyBsb25nIQ=="
_STOP_SECONDS = 10


@dataclass
class Request:
    """What came. ``headers`` in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    genuine: bool

    @property
    def webhook_id(self) -> str:
        return self.headers.get("webhook-id", "")


@dataclass
class Wire:
    """One connection, as seen by a behaviour."""

    request: Request
    writer: asyncio.StreamWriter

    async def answer(self, status: int, body: bytes = b"ok", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await self.writer.drain()

    def reset(self) -> None:
        """Cut the connection hard: a packet with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Wire], Awaitable[None]]


def answering(status: int, body: bytes = b"ok", **headers: str) -> Behaviour:
    """Answer so; the names of headers with ``_`` for ``-``."""

    async def behave(wire: Wire) -> None:
        await wire.answer(status, body, **headers)

    return behave


ok = answering(200)


async def hang(wire: Wire) -> None:
    """Take the request and say nothing."""
    await asyncio.sleep(3600)


async def reset(wire: Wire) -> None:
    """Cut the connection instead of an answer."""
    wire.reset()


async def dribble(wire: Wire) -> None:
    """Answer 200, and then a byte of the body now and then, for ever."""
    wire.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        wire.writer.write(b".")
        await wire.writer.drain()
        await asyncio.sleep(0.05)


async def dribble_headers(wire: Wire) -> None:
    """Begin an answer and never come to the end of its headers."""
    wire.writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.writer.write(b"X-More: 1\r\n")
        await wire.writer.drain()
        await asyncio.sleep(0.05)


async def flood(wire: Wire) -> None:
    """Answer 200 with 10 MB."""
    await wire.answer(200, b"x" * 10_000_000)


async def flood_of_headers(wire: Wire) -> None:
    """Answer with headers that do not end."""
    wire.writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        wire.writer.write(b"X-More: " + b"x" * 10_000 + b"\r\n")
        await wire.writer.drain()


async def garbage(wire: Wire) -> None:
    """Answer what is not HTTP."""
    wire.writer.write(b"\x00\xff SSH-2.0-whatever\r\n\r\n")
    await wire.writer.drain()
    wire.writer.close()


async def ok_and_die(wire: Wire) -> None:
    """Answer 200 in full and cut the connection."""
    await wire.answer(200)
    wire.reset()


async def ok_cut_short(wire: Wire) -> None:
    """Answer 200 and die in the middle of the body."""
    wire.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await wire.writer.drain()
    wire.writer.close()


@dataclass
class Receiver:
    """Listens within its block.

    Args:
        secret: what signatures are checked with.
        tls: speaks TLS with this.

    Attributes:
        behaviours: what is done about requests, one after the other; the last one is done about all further ones.
        requests: everything that came, in order.
        connections: how many were made.
        most_at_once: how many requests were in hand at once, at most.
    """

    secret: str = SECRET
    tls: ssl.SSLContext | None = None
    behaviours: list[Behaviour] = field(default_factory=lambda: [ok])
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    most_at_once: int = 0
    port: int = 0
    _in_hand: int = 0

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/hook"

    @property
    def counts(self) -> Counter[str]:
        """By webhook-id: how often it came."""
        return Counter(request.webhook_id for request in self.requests)

    def has(self, count: int) -> bool:
        """Whether so many requests have come."""
        return len(self.requests) >= count

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="receiver")
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_STOP_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls, backlog=1000)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _close(self) -> None:
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while not writer.is_closing():
                await self._one(reader, writer)
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = [line.split(": ", 1) for line in lines]
        headers = {name.lower(): value for name, value in pairs}
        assert len(headers) == len(pairs), "a header twice"
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(method, path, headers, body, self._is_genuine(headers, body))
        behaviour = self.behaviours[min(len(self.requests), len(self.behaviours) - 1)]
        self.requests.append(request)
        self._in_hand += 1
        self.most_at_once = max(self.most_at_once, self._in_hand)
        try:
            await behaviour(Wire(request, writer))
        finally:
            self._in_hand -= 1

    def _is_genuine(self, headers: dict[str, str], body: bytes) -> bool:
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True
