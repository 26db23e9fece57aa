"""What the machine can do at best: durable group commit of the body and two small rows, and nothing else.

No token, no validation, no merge, no history: raw sqlite3 in a writer thread below a bare ASGI function. The
product's figures are read beside this one's of the same minute, because machines and their neighbours differ.
"""

import asyncio
import itertools
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec


class _Metadata(msgspec.Struct):
    clientJobId: str


class _Document(msgspec.Struct):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Document).decode
_thread = ThreadPoolExecutor(1)
_numbers = itertools.count(1)
_pending: list[tuple[str, bytes, asyncio.Future[None]]] = []
_connection: sqlite3.Connection
_draining = False


def _open() -> None:
    global _connection
    path = Path(os.environ["FIELDSYNC_DATA"]) / "reference.db"
    _connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    for statement in (
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        "CREATE TABLE jobs (team INT, job_id TEXT, client_job_id TEXT, body BLOB, PRIMARY KEY (team, job_id))",
        "CREATE UNIQUE INDEX by_client ON jobs (team, client_job_id)",
        "CREATE TABLE events (team INT, id TEXT, job_id TEXT, PRIMARY KEY (team, id)) WITHOUT ROWID",
        "CREATE TABLE feed (team INT, job_id TEXT, seq INT, PRIMARY KEY (team, job_id)) WITHOUT ROWID",
    ):
        _connection.execute(statement)


def _write(items: list[tuple[str, bytes]]) -> None:
    _connection.execute("BEGIN IMMEDIATE")
    for client_job_id, body in items:
        number = next(_numbers)
        job_id = f"{number:024x}"
        _connection.execute("INSERT INTO jobs VALUES (1, ?, ?, ?)", (job_id, client_job_id, body))
        _connection.execute("INSERT INTO events VALUES (1, ?, ?)", (job_id, job_id))
        _connection.execute("INSERT INTO feed VALUES (1, ?, ?)", (job_id, number))
    _connection.execute("COMMIT")


async def _drain() -> None:
    global _pending, _draining
    while _pending:
        batch, _pending = _pending, []
        items = [(client_job_id, body) for client_job_id, body, _ in batch]
        await asyncio.get_running_loop().run_in_executor(_thread, _write, items)
        for _, _, future in batch:
            future.set_result(None)
    _draining = False


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application."""
    global _draining
    if scope["type"] == "lifespan":
        while (await receive())["type"] == "lifespan.startup":
            _open()
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "POST":
        future = asyncio.get_running_loop().create_future()
        _pending.append((_decode(body).metadata.clientJobId, body, future))
        if not _draining:
            _draining = True
            task = asyncio.ensure_future(_drain())
            future.add_done_callback(lambda _, kept=task: None)
        await future
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
