"""Requests of tus as a client makes them, whole or cut anywhere."""

import asyncio
import base64
import hashlib
import uuid
from typing import Any, NamedTuple

import httpx

from storage.queries import attachments as queries
from storage.queries.attachments import AttachmentRow
from tests.support.app import Account, Headers, Team

#: What a request of tus must say, and the type of the bytes it brings.
TUS = {"Tus-Resumable": "1.0.0"}
TUS_CHUNK = "application/offset+octet-stream"


def tus_metadata(**values: str) -> str:
    """Upload-Metadata with these values."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


ADDRESS = "/attachments/v1/tus"


def begin(
    team: Team, size: int, *, by: Account | None = None, body: bytes = b"", **values: str
) -> httpx.Response:
    """The answer to the beginning of an upload of ``size`` bytes."""
    values.setdefault("attachmentId", str(uuid.uuid4()))
    headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": tus_metadata(**values)}
    if body:
        headers |= {"Content-Type": TUS_CHUNK}
    return team.post(ADDRESS, by=by, headers=headers, content=body)


def begun(team: Team, size: int, **rest: Any) -> str:
    """The address of an upload that has begun."""
    response = begin(team, size, **rest)
    assert response.status_code == 201, response.text
    return response.headers["location"]


def send(
    team: Team,
    address: str,
    offset: int,
    chunk: bytes,
    headers: Headers | None = None,
    by: Account | None = None,
) -> httpx.Response:
    """The answer to bytes sent at ``offset``."""
    everything = {**TUS, "Content-Type": TUS_CHUNK, "Upload-Offset": str(offset), **(headers or {})}
    return team.request("PATCH", address, by=by, headers=everything, content=chunk)


def sent(team: Team, address: str, offset: int, chunk: bytes, **rest: Any) -> int:
    """The new offset, once the bytes were taken."""
    response = send(team, address, offset, chunk, **rest)
    assert response.status_code == 204, response.text
    return int(response.headers["upload-offset"])


def look(team: Team, address: str, by: Account | None = None) -> httpx.Response:
    return team.request("HEAD", address, by=by, headers=TUS)


def offset_of(team: Team, address: str) -> int:
    """Where the upload goes on."""
    response = look(team, address)
    assert response.status_code == 200, response.text
    return int(response.headers["upload-offset"])


def row_of(team: Team, attachment_id: str) -> AttachmentRow | None:
    return team.app.read(queries.one, team.team_id, attachment_id)


def content(team: Team, attachment_id: str) -> bytes | None:
    """What is stored under an attachment's id."""
    row = row_of(team, attachment_id)
    if row is None or row.blob_key is None:
        return None
    blobs = team.app._part("blobs")
    key = row.blob_key

    async def read() -> bytes:
        return b"".join([chunk async for chunk in blobs.get(key)])

    stored = team.app.call(read)
    assert (len(stored), hashlib.sha256(stored).digest()) == (row.size, row.sha256)
    return stored


def checksum(algorithm: str, chunk: bytes) -> Headers:
    digest = hashlib.new(algorithm, chunk).digest()
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}


class Said(NamedTuple):
    """What the application answered to a request that was driven by hand."""

    status: int
    headers: dict[str, str]


class Line:
    """One connection to the application, which can be cut anywhere."""

    def __init__(self, team: Team, method: str, path: str, headers: Headers) -> None:
        self._coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._taken = asyncio.Event()
        self._sent: list[dict[str, Any]] = []
        self._app = team.app.litestar
        everything = {**team.owner.headers, **TUS, **headers}
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in everything.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }

    async def taken(self) -> None:
        """Return once the server has taken all that was pushed."""
        await self._taken.wait()

    async def _receive(self) -> dict[str, Any]:
        message = await self._coming.get()
        if self._coming.empty():
            self._taken.set()
        return message

    def push(self, chunk: bytes, more: bool = True) -> None:
        self._taken.clear()
        self._coming.put_nowait({"type": "http.request", "body": chunk, "more_body": more})

    def cut(self) -> None:
        self._coming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> Said:
        async def send(message: dict[str, Any]) -> None:
            self._sent.append(message)

        await self._app(self._scope, self._receive, send)  # type: ignore[arg-type]
        headers = {name.decode(): value.decode() for name, value in self._sent[0]["headers"]}
        return Said(self._sent[0]["status"], headers)


def chunk_headers(offset: int, length: int | None = None, **more: str) -> Headers:
    announced = {} if length is None else {"Content-Length": str(length)}
    return {"Content-Type": TUS_CHUNK, "Upload-Offset": str(offset), **announced, **more}
