"""Eight processes create the same job at the same moment: one job, and everybody succeeds."""

import asyncio
import json
import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from sqlalchemy import func, select

from storage.database import Connection, open_database
from storage.queries import jobs
from storage.queries.teams import insert_team
from storage.tables import events, feed_entries, feeds
from storage.tables import jobs as jobs_table
from sync.batch import Applied, Caller, PushItem
from sync.ingest import Ingest
from sync.snapshot import parse
from tests.support.app import keys_of, migrate, step

PROCESSES = 8
ROUNDS = 5


def push_body(number: int, client_job_id: str) -> bytes:
    """What one process pushes: its own install, its own step."""
    document = {
        "metadata": {"clientJobId": client_job_id, "status": "InProgress"},
        "completedSteps": [step(f"of {number}")],
        "sync": {"installId": f"00000000-0000-4000-8000-{number:012}", "pushSeq": int(client_job_id)},
    }
    return json.dumps(document).encode()


def race(url: str, team_id: int, number: int, start: Barrier, results: Any) -> None:
    """One of the processes: its own database connections, its own ingest."""

    async def run() -> list[tuple[str, int]]:
        database = open_database(url)
        ingest = Ingest(database)
        caller = Caller(team_id, "team", f"subject {number}", False)
        outcomes = []
        # Connected before the start, so that all of them really begin at once.
        await database.check()
        for round_number in range(1, ROUNDS + 1):
            item = PushItem(caller, parse(push_body(number, str(round_number))), time.time_ns() // 1000)
            await asyncio.to_thread(start.wait, 60)
            applied = await ingest.apply(item)
            assert isinstance(applied, Applied)
            outcomes.append((applied.action, applied.rev))
        await ingest.close()
        await database.close()
        return outcomes

    try:
        results.put((number, asyncio.run(run())))
    except BaseException as error:
        start.abort()
        results.put((number, repr(error)))
        raise


def test_a_race_to_create_a_job_makes_one_job_and_no_error(database_url: str) -> None:
    migrate(database_url)
    team_id = asyncio.run(_in_database(database_url, insert_team, "team", 1))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    start = context.Barrier(PROCESSES)
    processes = [
        context.Process(target=race, args=(database_url, team_id, number, start, results))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    try:
        outcomes = dict(results.get(timeout=60) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=10)
            if process.is_alive():
                process.kill()
    assert all(isinstance(outcome, list) for outcome in outcomes.values()), outcomes
    for index in range(ROUNDS):
        said = [outcome[index] for outcome in outcomes.values()]
        # One of them created it, the others merged into it, each with a revision of its own.
        assert sorted(action for action, _ in said) == ["created"] + ["merged"] * (PROCESSES - 1)
        assert sorted(rev for _, rev in said) == list(range(1, PROCESSES + 1))
    asyncio.run(_in_database(database_url, _assert_once, team_id))


async def _in_database(url: str, work: Any, *arguments: Any) -> Any:
    database = open_database(url)
    try:
        return await database.write(work, *arguments)
    finally:
        await database.close()


def _assert_once(connection: Connection, team_id: int) -> None:
    names = {str(number) for number in range(1, ROUNDS + 1)}
    rows = connection.execute(select(jobs_table.c.client_job_id).where(jobs_table.c.team_id == team_id))
    assert sorted(rows.scalars()) == sorted(names)
    for row in jobs.lock(connection, team_id, sorted(names)):
        steps = json.loads(bytes(row.view))["completedSteps"]
        assert keys_of(steps) == {f"of {number}" for number in range(PROCESSES)}
        assert row.rev == PROCESSES
    created = select(events.c.client_job_id).where(events.c.type == "job.created")
    assert sorted(connection.execute(created).scalars()) == sorted(names)
    updated = select(func.count()).select_from(events).where(events.c.type == "job.updated")
    assert connection.execute(updated).scalar() == ROUNDS * (PROCESSES - 1)
    # Every commit took its numbers, none was burnt: the head counts the stamps.
    head = connection.execute(select(feeds.c.head)).scalar()
    newest = connection.execute(select(func.max(feed_entries.c.seq))).scalar()
    assert head == newest
    assert head <= ROUNDS * PROCESSES
