"""The application's own route table, for tests that must hold for every route there is or will be."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from tests.support.tus import TUS, TUS_CHUNK

#: Headers without which a route does not get to its work.
HEADERS: dict[str, dict[str, str]] = {
    "POST /attachments/v1/tus/{tus_id}": {**TUS, "X-HTTP-Method-Override": "HEAD"},
    "HEAD /attachments/v1/tus/{tus_id}": TUS,
    "PATCH /attachments/v1/tus/{tus_id}": {**TUS, "Content-Type": TUS_CHUNK, "Upload-Offset": "0"},
    "DELETE /attachments/v1/tus/{tus_id}": TUS,
    "POST /attachments/v1/upload/{upload_id}": {"Content-Range": "bytes 0-1/4"},
    "POST /workflows/v2/upload/{upload_id}": {"Content-Range": "bytes 0-1/4"},
    "POST /collections/v1/upload/{upload_id}": {"Content-Range": "bytes 0-1/4"},
}


class Route(NamedTuple):
    """One address and method. ``template`` has its parameters as ``{name}``."""

    method: str
    template: str
    handler: HTTPRouteHandler

    @property
    def policy(self) -> str | None:
        """What the guard goes by; None if somebody forgot it."""
        policy: str | None = self.handler.opt.get("policy")
        return policy

    @property
    def parameters(self) -> list[str]:
        """The names of the parameters in the address."""
        return [part[1:-1] for part in self.template.split("/") if part.startswith("{")]

    @property
    def headers(self) -> dict[str, str]:
        """What must be said beside the token."""
        return HEADERS.get(str(self), {})

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def routes_of(app: Litestar) -> list[Route]:
    """Every route of the application; the framework's own answers to OPTIONS are none."""
    return sorted(_routes(app), key=str)


def _routes(app: Litestar) -> Iterator[Route]:
    for route in app.routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is neither HTTP nor known to these tests"
        parts = [part if isinstance(part, str) else f"{{{part.name}}}" for part in route.path_components]
        for method, (handler, _) in route.route_handler_map.items():
            if method != "OPTIONS" or handler.fn.__module__.startswith("server."):
                yield Route(method, "/" + "/".join(parts), handler)


class Answer(NamedTuple):
    """An answer without ceremony."""

    status: int
    body: bytes


async def ask(
    app: Any, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
) -> Answer:
    """One request straight to the application, many times faster than through a client."""
    address, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": address,
        "raw_path": address.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    sent: list[dict[str, Any]] = []
    complete = asyncio.Event()

    request = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        for message in request:
            return message
        # The caller hangs up when the answer is complete, and not before.
        await complete.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            complete.set()

    await app(scope, receive, send)
    return Answer(sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))
