"""Queries for completed jobs: how long the first page takes for every argument, and paging through all of them.

    make bench-query
    make bench-query ARGS='--rows 200000 --postgresql'

The storage alone: ``storage.queries.completed_jobs.page`` as a query calls it. Times of the jobs are of every kind:
``created`` rises with the sequence but for tablets with a wrong clock, ``updated`` has nothing to do with it, and
``modified`` rises but for jobs that were changed again long after. The processor's time is that of this process alone:
of SQLite everything, of PostgreSQL the client.
"""

import argparse
import asyncio
import json
import resource
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, make_url

from benchmarks.bench_sync import postgresql
from benchmarks.harness import HERE, ROOT, machine, scratch
from storage.database import Database, open_database, sqlite_url
from storage.queries.completed_jobs import BLOCK, TEXTS, Wanted, page
from storage.queries.teams import insert_team
from storage.tables import completed_jobs, jobs

Row = dict[str, Any]

SECOND = 1_000_000
DAY = 86_400 * SECOND
YEAR = 365 * DAY
START = 1_735_689_600 * SECOND
LIMIT = 50
_AT_ONCE = 10_000
_VIEW = json.dumps({"metadata": {"status": "Completed", "jobTitle": "Pump"}, "steps": "x" * 950}).encode()


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--rounds", type=int, default=11, help="times each page is asked for; the median counts"
    )
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    options = parser.parse_args()
    if options.postgresql:
        with postgresql() as url:
            result = asyncio.run(_measure("PostgreSQL", url, options))
    else:
        with scratch() as folder:
            result = asyncio.run(_measure("SQLite", sqlite_url(folder / "fieldsync.db"), options))
    (HERE / "results").mkdir(exist_ok=True)
    name = f"{datetime.now(UTC):%Y-%m-%d}-query-{result['database'].lower()}.json"
    (HERE / "results" / name).write_text(json.dumps(result, indent=1) + "\n")


async def _measure(name: str, url: str, options: argparse.Namespace) -> Row:
    database = open_database(url)
    await database.migrate()
    team_id: int = await database.write(insert_team, "bench", 1)
    began = time.perf_counter()
    await _fill(database, team_id, options.rows)
    print(f"{machine()}; {name}, {options.rows:,} jobs, filled in {time.perf_counter() - began:.0f} s\n")
    pages = []
    for case in cases(options.rows):
        pages.append(await _first_page(database, team_id, case, options.rounds))
        told = pages[-1]
        print(
            f"  {case.name:62} median {told['median_ms']:7.2f} ms, processor {told['cpu_ms']:6.2f} ms, "
            f"{told['found']:3} jobs",
            flush=True,
        )
    whole = await _whole(database, team_id)
    print(f"\n  all, in pages of 100: {whole}")
    await database.close()
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "at": at,
        "machine": machine(),
        "database": name,
        "rows": options.rows,
        "pages": pages,
        "all": whole,
    }


class Case(NamedTuple):
    """A page that is asked for, with a name for it."""

    name: str
    wanted: Wanted


def cases(rows: int) -> Iterator[Case]:
    """Every argument singly, ascending and descending, and some together."""
    for direction in (False, True):
        for case in _ascending(rows):
            wanted = case.wanted._replace(descending=direction)
            yield Case(f"{case.name}, {'descending' if direction else 'ascending'}", wanted)


def _ascending(rows: int) -> Iterator[Case]:
    yield Case("nothing", Wanted())
    yield Case("excluded too", Wanted(excluded=True))
    yield Case("after the middle", Wanted(after=rows // 2))
    yield Case("one job id", Wanted(job_ids=[job_id(rows // 2)]))
    yield Case("100 job ids", Wanted(job_ids=[job_id(1 + number * rows // 101) for number in range(100)]))
    for column in TEXTS:
        yield Case(f"{column}: a common value", Wanted({column: [f"{column} 0"]}))
        yield Case(f"{column}: a rare value", Wanted({column: [f"{column} 150"]}))
        yield Case(f"{column}: 100 values", Wanted({column: [f"{column} {number}" for number in range(100)]}))
        yield Case(f"{column}: nobody's", Wanted({column: ["none"]}))
    yield Case("workflow_id: only in the first tenth", Wanted({"workflow_id": ["workflow_id early"]}))
    yield Case("workflow_id: only in the last tenth", Wanted({"workflow_id": ["workflow_id late"]}))
    for name in ("created", "updated", "modified"):
        yield Case(f"{name} since the middle", Wanted(since={name: START + YEAR // 2}))
        yield Case(f"{name} before the middle", Wanted(before={name: START + YEAR // 2}))
        yield Case(f"{name} in the last hour", Wanted(since={name: START + YEAR - DAY // 24}))
        yield Case(f"{name} in the first hour", Wanted(before={name: START + DAY // 24}))
        minute = START + YEAR // 2
        yield Case(f"{name} in a minute", _between(name, minute, minute + 60 * SECOND))
        yield Case(f"{name} in a month", _between(name, minute, minute + 30 * DAY))
        yield Case(f"{name} never", Wanted(since={name: START + 90 * YEAR}))
    common, rare = {"workflow_id": ["workflow_id 0"]}, {"workflow_id": ["workflow_id 150"]}
    for name, texts in (("a common workflow", common), ("a rare workflow", rare)):
        yield Case(f"{name}, modified since the middle", Wanted(texts, since={"modified": START + YEAR // 2}))
        yield Case(f"{name}, updated since the middle", Wanted(texts, since={"updated": START + YEAR // 2}))
        yield Case(
            f"{name}, updated in the last hour", Wanted(texts, since={"updated": START + YEAR - DAY // 24})
        )
        yield Case(
            f"{name}, created in the last hour", Wanted(texts, since={"created": START + YEAR - DAY // 24})
        )


def _between(name: str, since: int, before: int) -> Wanted:
    return Wanted(since={name: since}, before={name: before})


def job_id(seq: int) -> str:
    return f"{seq:024x}"


def _scattered(number: int, below: int) -> int:
    """The same number for the same ``number``, and no order in them."""
    return (number * 2_654_435_761 >> 7) % below


def completed_row(team_id: int, seq: int, rows: int) -> Row:
    """The ``seq``-th completed job of ``rows``."""
    middle = START + seq * YEAR // rows
    kind = _scattered(seq, 100)
    common = 0 if kind < 30 else _scattered(seq * 31, 1000)
    values: Row = {column: f"{column} {common}" for column in TEXTS}
    if kind == 99 and seq < rows // 10:
        values["workflow_id"] = "workflow_id early"
    if kind == 99 and seq > rows - rows // 10:
        values["workflow_id"] = "workflow_id late"
    wrong_clock = {1: START - 20 * YEAR + seq, 2: START + 20 * YEAR + seq}.get(_scattered(seq * 7, 1000))
    later = _scattered(seq * 13, 100) == 0
    return {
        "team_id": team_id,
        "seq": seq,
        "block": seq // BLOCK,
        "job_id": job_id(seq),
        "listed": _scattered(seq * 17, 100) != 0,
        "completed": True,
        **values,
        "created_at": wrong_clock or middle - DAY // 2,
        "updated_at": START + _scattered(seq * 19, YEAR // SECOND) * SECOND,
        "modified_at": min(middle + _scattered(seq * 23, YEAR), START + YEAR) if later else middle,
    }


def _job_row(team_id: int, seq: int) -> Row:
    return {
        "team_id": team_id,
        "job_id": job_id(seq),
        "client_job_id": f"client {seq}",
        "rev": 1,
        "owner_id": f"user_id {_scattered(seq, 500)}",
        "workflow_id": "w",
        "finished": True,
        "status": "completed",
        "excluded": False,
        "created_at": START,
        "modified_at": START,
        "deleted_at": None,
        "format": 1,
        "view": _VIEW,
        "edits": b"x",
    }


async def _fill(database: Database, team_id: int, rows: int) -> None:
    for first in range(1, rows + 1, _AT_ONCE):
        span = range(first, min(first + _AT_ONCE, rows + 1))
        await insert(database, jobs.name, [_job_row(team_id, seq) for seq in span])
        await insert(database, completed_jobs.name, [completed_row(team_id, seq, rows) for seq in span])
    if not database.is_sqlite:
        await database.write(_analyze)


def _analyze(connection: Connection) -> None:
    connection.exec_driver_sql("ANALYZE")


async def insert(database: Database, table: str, rows: list[Row]) -> None:
    """Insert rows as fast as the database takes them."""
    names = list(rows[0])
    values = [tuple(row.values()) for row in rows]
    if database.is_sqlite:
        places = ", ".join("?" * len(names))
        connection = sqlite3.connect(make_url(str(database.url)).database or "")
        with connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})", values)
        connection.close()
        return
    async with database._reader.begin() as opened:
        driver: Any = (await opened.get_raw_connection()).driver_connection
        await driver.copy_records_to_table(table, records=values, columns=names)


async def _first_page(database: Database, team_id: int, case: Case, rounds: int) -> Row:
    taken, spent = [], []
    for _ in range(rounds):
        began, used = time.perf_counter(), time.process_time()
        found = await database.read(page, team_id, case.wanted, LIMIT)
        taken.append((time.perf_counter() - began) * 1000)
        spent.append((time.process_time() - used) * 1000)
    return {
        "page": case.name,
        "found": len(found),
        "median_ms": round(statistics.median(taken), 2),
        "cpu_ms": round(statistics.median(spent), 2),
        "first_ms": round(taken[0], 2),
        "worst_ms": round(max(taken), 2),
    }


async def _whole(database: Database, team_id: int) -> Row:
    before, began, count, slowest = _peak_mb(), time.perf_counter(), 0, 0.0
    after: int | None = None
    while True:
        asked = time.perf_counter()
        found = await database.read(page, team_id, Wanted(after=after), 100)
        slowest = max(slowest, time.perf_counter() - asked)
        if not found:
            break
        count, after = count + len(found), found[-1].seq
    return {
        "jobs": count,
        "seconds": round(time.perf_counter() - began, 1),
        "slowest_page_ms": round(slowest * 1000, 1),
        "more_memory_mb": round(_peak_mb() - before, 1),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
