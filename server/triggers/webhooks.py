"""One attempt at a webhook over HTTP, as careful about its receiver as the receiver should be about us.

The connection goes to an address that was checked, and to no other: a name is resolved once for a client, and TLS
still checks the certificate against the name. No redirects, no proxies from the environment, a bound on the answer.

Only delivering imports this module, when there is something to deliver: a process that sends nothing does not load
the HTTP client.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpcore

from server.triggers.receivers import NoResolver, Target

#: More of an answer is not read, and its connection is closed.
MAX_ANSWER = 64 * 1024
#: What is kept of it, for whoever looks for the reason of a failure.
MAX_KEPT = 4096
#: For the connection to an address, and for shaking hands over it. Where a name's first address does not answer,
#: another one may; at most three are tried.
CONNECT_SECONDS = 4.0
_ADDRESSES = 3
_NO_HTTP = "It does not speak HTTP as it should."

# What it says at the level debug holds the receivers' credentials.
logging.getLogger("httpcore").setLevel(logging.WARNING)


class Answer(NamedTuple):
    """What a receiver said.

    Attributes:
        body: its beginning.
        lost: why its end never came.
        hung: it took all the time there is.
    """

    status: int
    retry_after: str | None
    body: bytes
    lost: str | None
    hung: bool


class NoAnswer(Exception):
    """Nothing was answered; the text says why, in words of ours only.

    ``hung``: it took all the time there is. ``asked``: the receiver, or those who know its name, had a chance to answer.
    """

    def __init__(self, text: str, hung: bool = False, asked: bool = True) -> None:
        super().__init__(text)
        self.hung = hung
        self.asked = asked


#: Addresses of a host and a port that may be connected to; see :meth:`server.triggers.receivers.Receivers.resolve`.
Resolve = Callable[[str, int], Awaitable[list[str]]]


def trust() -> ssl.SSLContext:
    """Certificates are verified with the system's authorities. Reading them takes some 20 ms: once a process."""
    return ssl.create_default_context()


class _Stream(httpcore.AsyncNetworkStream):
    """A connection without TLS, or before it. The library's own stays open if it is cancelled while it shakes hands."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # as theirs
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as theirs
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # as theirs
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._stream.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Checked(httpcore.AsyncNetworkBackend):
    """Connects to addresses that webhooks may go to, whatever a name says a moment later."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()
        self._known: dict[tuple[str, int], list[str]] = {}
        self._one = asyncio.Lock()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # as theirs
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        async with self._one:
            if (host, port) not in self._known:
                self._known[host, port] = await self._resolve(host, port)
        *others, last = self._known[host, port][:_ADDRESSES]
        for address in others:
            try:
                return await self._connect(address, port, timeout, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._connect(last, port, timeout, socket_options)

    async def _connect(
        self,
        address: str,
        port: int,
        timeout: float | None,  # noqa: ASYNC109  # as theirs
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._network.connect_tcp(address, port, timeout, None, socket_options))


class Client:
    """Posts over connections that are kept until the end of its block.

    Args:
        trusted: see :func:`trust`.
        connections: how many at once.
        seconds: how long an attempt may take, from the name to the last byte of the answer.
    """

    def __init__(self, resolve: Resolve, trusted: ssl.SSLContext, connections: int, seconds: float) -> None:
        self._seconds = seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trusted, max_connections=connections, network_backend=_Checked(resolve)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post ``body``.

        Raises:
            ForbiddenReceiver: the name leads where webhooks do not go.
            NoAnswer: there was none.
        """
        status: int | None = None
        retry_after: str | None = None
        beginning = bytearray()
        lost: str | None = None
        hung, asked = False, True
        try:
            request = _request(target, headers, body)
            async with asyncio.timeout(self._seconds):
                response = await self._pool.handle_async_request(request)
                try:
                    status, retry_after = response.status, _header(response, b"retry-after")
                    read = 0
                    async for chunk in response.aiter_stream():
                        beginning += chunk[: MAX_KEPT - len(beginning)]
                        read += len(chunk)
                        if read > MAX_ANSWER:
                            break
                finally:
                    await response.aclose()
        except TimeoutError:
            lost, hung = f"No complete answer within {self._seconds:g} s.", True
        except httpcore.ConnectTimeout:
            lost, hung = f"No connection within {CONNECT_SECONDS:g} s.", True
        except httpcore.ConnectError as error:
            lost = f"The connection failed: {error}"
        except httpcore.NetworkError:
            lost = "The connection was lost."
        except httpcore.ProtocolError as error:
            # The library's text may quote what came, and that is for administrators.
            silent = str(error).startswith("Server disconnected without")
            lost = "It closed the connection without an answer." if silent else _NO_HTTP
        except NoResolver:
            lost, hung, asked = (
                "The name was not resolved: this server is busy with too many others.",
                True,
                False,
            )
        except OSError as error:
            lost = f"The name cannot be resolved: {error.strerror or error}"
        except UnicodeError:
            lost = "A header of the trigger cannot be sent."
        if status is None:
            raise NoAnswer(lost or "No answer.", hung, asked)
        return Answer(status, retry_after, bytes(beginning), lost, hung)


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
    return httpcore.Request(
        "POST",
        httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        ),
        headers=[
            (b"host", target.authority.encode()),
            *((name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()),
            (b"content-length", str(len(body)).encode()),
        ],
        content=body,
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )


def _header(response: httpcore.Response, name: bytes) -> str | None:
    for key, value in response.headers:
        if key.lower() == name:
            return bytes(value).decode("latin-1")
    return None
