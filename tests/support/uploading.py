"""Sending files in tests, and looking at what became of them."""

import asyncio
import hashlib
import json
import random
from typing import Any

from storage.blobs import BlobStore
from storage.ids import new_id
from storage.queries import attachments as queries
from storage.queries.attachments import AttachmentRow
from tests.support.app import Document, Headers, RunningApp, Team

JPEG = b"\xff\xd8\xff\xe0 as a phone makes them"


def content_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def hex_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def part(app: RunningApp, name: str) -> Any:
    """A part of the running application."""
    provide: Any = app.litestar.dependencies[name]
    return provide.dependency()


def row_of(team: Team, attachment_id: str) -> AttachmentRow | None:
    return team.app.read(queries.one, team.team_id, attachment_id)


def stored(team: Team, attachment_id: str) -> bytes:
    """The content of an attachment, from the blob store."""
    row = row_of(team, attachment_id)
    assert row is not None
    assert row.blob_key is not None
    blobs: BlobStore = part(team.app, "blobs")

    async def read(key: str) -> bytes:
        return b"".join([chunk async for chunk in blobs.get(key)])

    content = team.app.call(read, row.blob_key)
    assert (row.size, row.sha256) == (len(content), hashlib.sha256(content).digest())
    return content


def files(app: RunningApp) -> set[str]:
    """Every blob there is, except those made from others."""
    folder = app.settings.data / "blobs"
    return {str(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".jpg"}


def opened(team: Team, content: bytes, attachment_id: str | None = None, **body: Any) -> Document:
    """A session for ``content``."""
    by = body.pop("by", None)
    asked = {"attachmentId": attachment_id or new_id(), "fileSize": len(content), "blockSize": 1000, **body}
    response = team.post("/attachments/v1/upload", json=asked, by=by)
    assert response.status_code == 200, response.text
    return dict(response.json())


def send(
    team: Team, session: Document, content: bytes, start: int, stop: int | None = None, **rest: Any
) -> Any:
    """One block of ``content``."""
    stop = min(start + 1000, len(content)) if stop is None else stop
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
    path = f"/attachments/v1/upload/{session['id']}"
    return team.post(path, content=content[start:stop], headers=headers, **rest)


def received(team: Team, session: Document, **rest: Any) -> list[tuple[int, int]]:
    response = team.get(f"/attachments/v1/upload/{session['id']}", **rest)
    assert response.status_code == 200, response.text
    return [(item["start"], item["end"]) for item in response.json()["received"]]


def ask_streaming(
    team: Team,
    method: str,
    path: str,
    chunks: list[bytes],
    headers: Headers | None = None,
    hang_up: bool = False,
) -> tuple[int, Document]:
    """A request whose body comes in pieces, and whose caller may go away before its end."""
    everything = {**team.owner.headers, **(headers or {})}
    scope = {
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
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    if hang_up:
        messages.append({"type": "http.disconnect"})
    elif messages:
        messages[-1]["more_body"] = False
    sent: list[Any] = []

    async def run() -> None:
        waiting = iter(messages)

        async def receive() -> Any:
            for message in waiting:
                return message
            return await asyncio.Event().wait()

        async def keep(message: Any) -> None:
            sent.append(message)

        await team.app.litestar(scope, receive, keep)  # type: ignore[arg-type]

    team.app.call(run)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(body) if body else {}
