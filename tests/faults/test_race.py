"""Eight processes create the same job at the same moment: one job, and everybody succeeds."""

import asyncio
import json
import multiprocessing
from typing import Any

from sqlalchemy import func, select

from storage.database import Connection, open_database
from storage.queries import jobs
from storage.queries.teams import insert_team
from storage.tables import events, feed_entries, feeds
from storage.tables import jobs as jobs_table
from tests.support.app import keys_of, migrate
from tests.support.racer import ROUNDS, race

PROCESSES = 8


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
        outcomes = dict(results.get(timeout=90) for _ in processes)
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
    head = connection.execute(select(feeds.c.head)).scalar_one()
    newest = connection.execute(select(func.max(feed_entries.c.seq))).scalar_one()
    assert head == newest
    assert head <= ROUNDS * PROCESSES
