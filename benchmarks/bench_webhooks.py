"""Webhooks of one worker: deliveries per minute, and what endpoints that hang cost the others.

    make bench-webhooks
    make bench-webhooks ARGS=--quick
    make bench-webhooks ARGS='--deliveries 6000 --hanging 200 --no-postgresql'

A real worker process sends to a receiver in this process. The clock runs from the first webhook that arrives until
the last one is noted as delivered, 20 seconds at most: then what was delivered until then counts. What hangs takes each
connection and never answers.
"""

import argparse
import asyncio
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from benchmarks.bench_sync import postgresql
from benchmarks.harness import ROOT, Server, clean_environment, machine, scratch
from fixtures.jobs import specification_snapshot
from server.clock import now
from server.triggers.secrets import new_secret
from storage.database import Connection, open_database, sqlite_url
from storage.ids import new_id
from storage.queries import deliveries as queries
from storage.queries.teams import insert_team
from storage.tables import deliveries, triggers

Row = dict[str, Any]
_HANGING_EACH = 20
_WAIT_SECONDS = 20
#: The worker has up to 16 connections to each endpoint that hangs.
_OPEN_FILES = 16_384
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--deliveries", type=int, default=3000)
    parser.add_argument("--hanging", type=int, default=200, help="endpoints that hang")
    parser.add_argument("--quick", action="store_true", help="600 deliveries, 50 endpoints that hang")
    parser.add_argument("--no-postgresql", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.deliveries, options.hanging = 600, 50
    # What is told to end ends its worker first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The worker inherits it.
    wanted = _OPEN_FILES if most == resource.RLIM_INFINITY else min(_OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    rows: list[Row] = []
    for name in ("SQLite", *(() if options.no_postgresql else ("PostgreSQL",))):
        for endpoints, hanging in ((1, 0), (20, 0), (20, options.hanging)):
            with scratch() as folder, _database(name, folder) as url, Receiver() as receiver:
                count = options.deliveries // endpoints
                rows.append({"database": name, **_measure(folder, url, receiver, endpoints, count, hanging)})
                print(rows[-1], flush=True)
    _report(rows, options)


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    if name == "PostgreSQL":
        with postgresql() as url:
            yield url
    else:
        yield sqlite_url(folder / "data" / "fieldsync.db")


class Receiver:
    """Answers 204 to what comes to ``/ok`` and nothing to all else, in a thread of its own."""

    def __init__(self) -> None:
        self.taken = 0
        self.hung = 0
        self.first = 0.0

    def __enter__(self) -> "Receiver":
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096), self._loop
        ).result()
        self.port: int = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if not head.startswith(b"POST /ok "):
                    self.hung += 1
                    await reader.read()
                    return
                self.first = self.first or time.perf_counter()
                self.taken += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()


def _measure(folder: Path, url: str, receiver: Receiver, endpoints: int, each: int, hanging: int) -> Row:
    asyncio.run(_fill(url, receiver.port, endpoints, each, hanging))
    environment = clean_environment(
        FIELDSYNC_DATA=str(folder / "data"),
        FIELDSYNC_DATABASE_URL=url,
        FIELDSYNC_WEBHOOK_NETWORKS="127.0.0.0/8",
        FIELDSYNC_WEBHOOK_PORTS=str(receiver.port),
        FIELDSYNC_LOG_LEVEL="error",
    )
    command = [sys.executable, "-m", "server.cli", "worker"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        preexec_fn=_die_with_parent,  # a call into the C library, nothing of Python's
    )
    worker = Server("", "", folder, process)
    try:
        delivered, ended = asyncio.run(_until_delivered(url, endpoints * each))
        seconds = ended - receiver.first
        peak = worker.peak_mb()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return {
        "endpoints": endpoints,
        "deliveries": endpoints * each,
        "delivered": delivered,
        "hanging": hanging,
        "in_hand_hanging": receiver.hung,
        "seconds": round(seconds, 2),
        "per_minute": round(delivered / seconds * 60),
        "peak_mb": peak,
    }


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _fill(url: str, port: int, endpoints: int, each: int, hanging: int) -> None:
    database = open_database(url)
    await database.migrate()
    team_id = await database.write(insert_team, "bench", now())
    payload = json.dumps({**specification_snapshot()["metadata"], "jobId": "bench"}).encode()

    def add(connection: Connection, path: str, count: int) -> None:
        moment = now()
        trigger_id = new_id()
        connection.execute(
            insert(triggers).values(
                team_id=team_id,
                trigger_id=trigger_id,
                name="Bench",
                template_tags=b"[]",
                object_ids=b"[]",
                template_ids=b"[]",
                trigger_type="Http",
                options=json.dumps({"url": f"http://127.0.0.1:{port}{path}"}).encode(),
                secrets=json.dumps([{"secret": new_secret(), "until": None}]).encode(),
                pdf_requirement="NotRequired",
                disabled=False,
                archived=False,
                created_by="bench",
                created_at=moment,
                updated_at=moment,
            )
        )
        for _ in range(count):
            job_id = new_id()
            new_one = queries.NewDelivery(
                trigger_id, new_id(), "job.completed", job_id, job_id, 1, payload, None
            )
            queries.add(connection, team_id, new_one, moment)

    # What hangs comes first: it is the longest due.
    for path, triggers_of_it, count in (("/hang", hanging, _HANGING_EACH), ("/ok", endpoints, each)):
        for _ in range(triggers_of_it):
            await database.write(add, path, count)
    await database.close()


async def _until_delivered(url: str, count: int) -> tuple[int, float]:
    """How many of so many are noted as delivered, and when the last one was, or the time was over."""
    database = open_database(url)
    query = select(func.count()).select_from(deliveries).where(deliveries.c.state == queries.DELIVERED)
    deadline = time.monotonic() + _WAIT_SECONDS
    try:
        while True:
            delivered = await database.read(lambda connection: connection.scalar(query)) or 0
            if delivered == count or time.monotonic() > deadline:
                return delivered, time.perf_counter()
            await asyncio.sleep(0.05)
    finally:
        await database.close()


def _report(rows: list[Row], options: argparse.Namespace) -> None:
    lines = [
        "# Webhooks",
        "",
        f"{machine()}; one worker process, signed webhooks to a receiver on the same machine. In the last row of each "
        f"database {options.hanging} further endpoints, with {_HANGING_EACH} webhooks each, take connections and never "
        "answer.",
        "",
        "| database | endpoints | webhooks | delivered | hanging endpoints | seconds | per minute | peak MB of the worker |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row['database']} | {row['endpoints']} | {row['deliveries']:,} | {row['delivered']:,} | {row['hanging']} "
            f"| {row['seconds']} | {row['per_minute']:,} | {row['peak_mb']} |"
            for row in rows
        ),
    ]
    target = ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-webhooks.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
