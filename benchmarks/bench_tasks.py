"""The task queue: empty tasks per second of one worker, an idle worker's cost, and how soon a task begins.

    make bench-tasks
    make bench-tasks ARGS='--tasks 20000 --no-postgresql'

The tasks are written first, then one worker runs them all; both databases wait for the disk as they do in
service. How soon a task begins is measured from before the transaction that writes it, with the worker in
another process.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from datetime import date
from typing import Any

import uvloop

from benchmarks.bench_sync import postgresql
from benchmarks.harness import ROOT, clean_environment, machine, scratch
from server.clock import now
from server.worker import Worker
from storage.database import Connection, Database, open_database, sqlite_url
from storage.queries.tasks import enqueue
from storage.queue import Task, TaskQueue

Row = dict[str, Any]
_KIND = "bench.empty"


def main() -> None:
    """Run the benchmark and write its results; with ``--wait-at``, be the worker of another process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--wakes", type=int, default=100)
    parser.add_argument("--no-postgresql", action="store_true")
    parser.add_argument("--wait-at", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.wait_at:
        uvloop.run(_answering(options.wait_at))
        return
    rows: list[Row] = []
    with scratch() as folder:
        rows += uvloop.run(_measure("SQLite", sqlite_url(folder / "fieldsync.db"), options))
        if not options.no_postgresql:
            with postgresql() as url:
                rows += uvloop.run(_measure("PostgreSQL", url, options))
    _report(rows, options)


async def _measure(name: str, url: str, options: argparse.Namespace) -> list[Row]:
    database = open_database(url)
    await database.migrate()
    rows = []
    for slots, teams in ((4, 1), (4, 200), (256, 1), (256, 200)):
        rows.append({"database": name, **await _empty_tasks(database, options.tasks, slots, teams)})
        print(rows[-1], flush=True)
    rows.append({"database": name, **await _idle(database)})
    print(rows[-1], flush=True)
    rows.append({"database": name, **await _wakes(database, url, options.wakes)})
    print(rows[-1], flush=True)
    await database.close()
    return rows


async def _empty_tasks(database: Database, count: int, slots: int, teams: int) -> Row:
    def fill(connection: Connection, first: int) -> None:
        for number in range(first, min(first + 500, count)):
            enqueue(connection, 1 + number % teams, _KIND, f"{number}", now=now())

    for first in range(0, count, 500):
        await database.write(fill, first)
    left = count
    over = asyncio.Event()

    async def empty(_task: Task) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            over.set()

    worker = Worker(TaskQueue(database), {_KIND: empty}, concurrency=slots)
    started, spent = time.perf_counter(), time.process_time()
    running = asyncio.create_task(worker.run())
    await over.wait()
    await worker.stop()
    await running
    elapsed = time.perf_counter() - started
    return {
        "what": f"{slots} at once, {teams} team{'s' * (teams > 1)}",
        "tasks_per_s": round(count / elapsed),
        "cpu_ms": round((time.process_time() - spent) * 1000 / count, 2),
    }


async def _idle(database: Database) -> Row:
    async def never(_task: Task) -> None:
        raise AssertionError("there is nothing to do")

    # As many kinds as the product has.
    worker = Worker(TaskQueue(database), {f"bench.{number}": never for number in range(12)})
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    spent = time.process_time()
    await asyncio.sleep(10)
    spent = time.process_time() - spent
    await worker.stop()
    await running
    return {"what": "idle", "cpu_percent": round(spent / 10 * 100, 2)}


async def _wakes(database: Database, url: str, count: int) -> Row:
    """Milliseconds from before the write of a task to the beginning of its handler in another process."""
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.bench_tasks", "--wait-at", url),
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    await other.stdout.readline()
    times = []
    for number in range(count):

        def one(connection: Connection, subject: str) -> None:
            enqueue(connection, 1, _KIND, subject, now=now())

        await asyncio.sleep(0.06)
        began = time.perf_counter()
        await database.write(one, f"{number}")
        await other.stdout.readline()
        times.append((time.perf_counter() - began) * 1000)
    other.terminate()
    await other.wait()
    times.sort()
    return {
        "what": "begins in another process",
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(times[int(len(times) * 0.95)], 1),
    }


async def _answering(url: str) -> None:
    async def answer(task: Task) -> None:
        print(task.subject, flush=True)

    database = open_database(url)
    worker = Worker(TaskQueue(database), {_KIND: answer})
    database.when_enqueued = worker.wake
    listening = asyncio.create_task(database.listen())
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1)
    print("ready", flush=True)
    await asyncio.gather(listening, running)


def _report(rows: list[Row], options: argparse.Namespace) -> None:
    lines = [
        "# Tasks",
        "",
        f"{machine()}; {options.tasks:,} empty tasks each, one worker.",
        "",
        "| database | what | tasks/s | CPU of the worker |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row['database']} | {row['what']} | {row['tasks_per_s']:,} | {row['cpu_ms']} ms each |"
            for row in rows
            if "tasks_per_s" in row
        ),
        "",
        *(
            f"{row['database']}: an idle worker takes {row['cpu_percent']} % of a core."
            for row in rows
            if "cpu_percent" in row
        ),
        *(
            f"{row['database']}: a task begins in another process after {row['median_ms']} ms "
            f"(p95 {row['p95_ms']})."
            for row in rows
            if "median_ms" in row
        ),
    ]
    target = ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-tasks.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
