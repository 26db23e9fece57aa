"""Jobs of the schema before queries are found by queries after its upgrade, as if they had been pushed since."""

import asyncio
from typing import Any

from alembic import command
from sqlalchemy import Connection, insert, select, table
from sqlalchemy import column as named

from storage.database import Database, open_database
from storage.migrate import _config
from storage.queries.completed_jobs import CompletedWrite, Wanted, page
from storage.tables import completed_jobs, feeds, jobs
from sync.edits import Job
from sync.view import finished, is_excluded
from sync.writes import _completed, _status
from tests.sync.pushing import Office

A = "00000000-0000-4000-8000-00000000000a"
TEAM, OTHER = 7, 8
#: Jobs all alike, so that there are more than are read and numbered at once.
MANY = 1_100


def office(**head: Any) -> Office:
    opened = Office()
    opened.push(A, **head)
    return opened


def excluded() -> Office:
    opened = office(status="Completed", jobTitle="excluded")
    opened.operate(exclusion=b'{"jobExclusion":[],"excluded":true}')
    return opened


def operated(kind: Any, *statuses: str) -> Office:
    opened = office(status=statuses[0])
    for status in statuses[1:]:
        opened.push(A, status=status, base=opened.job.rev)
    if kind:
        opened.operate(kind)
    return opened


def stories() -> dict[str, Job]:
    """A job of every kind, by its name."""
    offices = {
        "open": office(status="InProgress"),
        "without a status": office(jobTitle="x"),
        "of an odd status": office(status="completed soon"),
        "completed": office(
            status="Completed",
            jobTitle="Pump",
            workflowId="w",
            workflowName="Pumps",
            userId="u",
            username="Ana",
            created="2025-06-02T09:00:00.5+02:00",
            updated="2025/06/02 10:00:00",
        ),
        "completed in small letters": office(status="cOMPLETED", created="no time"),
        "abandoned": office(status="Abandoned", abandonReason="rain"),
        "aborted": operated("abort", "InProgress"),
        "aborted by a device": operated(None, "Completed", "Aborted"),
        "taken up again": operated(None, "Completed", "InProgress"),
        "excluded": excluded(),
        "of a long title": office(status="Completed", jobTitle="\U0001f6a7" * 5_000),
        "of a NUL": office(status="Completed", jobTitle="a\0b", workflowId="w\0"),
        "of the year one": office(status="Completed", created="0001-01-01T00:00:00Z", updated=None),
    }
    return {name: opened.job for name, opened in offices.items()}


def fill(connection: Connection, told: dict[str, Job]) -> None:
    """The jobs as version 0004 keeps them; each was changed after the one that comes after it."""
    command.upgrade(_config(connection), "0004")
    for team in (TEAM, OTHER):
        connection.exec_driver_sql(
            f"INSERT INTO teams (team_id, name, created_at) VALUES ({team}, 't{team}', 1)"
        )
        connection.exec_driver_sql(
            f"INSERT INTO feeds (team_id, incarnation, head) VALUES ({team}, 'i', 5000)"
        )
    rows = [_row(TEAM, number, name, job) for number, (name, job) in enumerate(told.items())]
    gone = _row(TEAM, 900, "deleted", told["completed"])
    rows.append({**gone, "view": b"", "edits": b"", "deleted_at": 5})
    many = [_row(OTHER, number, str(number), told["completed"]) for number in range(MANY)]
    connection.execute(insert(table("jobs", *map(named, rows[0]))), rows + many)
    entries = [
        {"team_id": row["team_id"], "job_id": row["job_id"], "seq": 2_000 - number}
        for number, row in enumerate(rows + many)
    ]
    connection.execute(insert(table("feed_entries", *map(named, entries[0]))), entries)


def _row(team: int, number: int, name: str, job: Job) -> dict[str, Any]:
    return {
        "team_id": team,
        "job_id": f"{number:024x}",
        "client_job_id": name,
        "rev": job.rev,
        "finished": finished(job),
        "created_at": 1,
        "modified_at": job.modified_at,
        "deleted_at": None,
        "format": 1,
        "view": job.view,
        "edits": b"x",
    }


async def upgraded(database: Database, told: dict[str, Job]) -> None:
    if database._write_engine is not None:
        with database._write_engine.begin() as connection:
            fill(connection, told)
    else:
        async with database._reader.begin() as opened:
            await opened.run_sync(fill, told)
    await database.migrate()


def test_jobs_of_before_are_numbered_and_found_as_if_they_were_pushed_now(database_url: str) -> None:
    told = stories()

    async def main() -> None:
        database = open_database(database_url)
        try:
            await upgraded(database, told)
            await database.read(check, told)
        finally:
            await database.close()

    asyncio.run(main())


def check(connection: Connection, told: dict[str, Job]) -> None:
    ids = {f"{number:024x}": name for number, name in enumerate(told)}
    query = select(completed_jobs).where(completed_jobs.c.team_id == TEAM).order_by(completed_jobs.c.seq)
    rows = connection.execute(query).all()
    expected = [
        *("of the year one", "of a NUL", "of a long title", "excluded", "abandoned"),
        *("completed in small letters", "completed"),
    ]
    assert [ids[row.job_id] for row in rows] == expected
    assert [(row.seq, row.block, row.completed) for row in rows] == [(n, 0, True) for n in range(1, 8)]
    for row in rows:
        said = CompletedWrite(*(row._mapping[name] for name in CompletedWrite._fields))
        assert said == _completed(told[ids[row.job_id]])._replace(job_id=row.job_id)
    query_jobs = select(jobs.c.job_id, jobs.c.status, jobs.c.excluded).where(
        jobs.c.team_id == TEAM, jobs.c.deleted_at.is_(None)
    )
    for row in connection.execute(query_jobs):
        job = told[ids[row.job_id]]
        assert (row.status, row.excluded) == (_status(job), is_excluded(job)), ids[row.job_id]
    numbers = connection.execute(select(feeds.c.team_id, feeds.c.completions).order_by(feeds.c.team_id))
    assert [tuple(row) for row in numbers] == [(TEAM, 7), (OTHER, MANY)]
    many = select(completed_jobs.c.seq, completed_jobs.c.block).where(completed_jobs.c.team_id == OTHER)
    assert sorted(map(tuple, connection.execute(many))) == [(n, n // 1000) for n in range(1, MANY + 1)]
    assert [row.seq for row in page(connection, TEAM, Wanted(texts={"user_name": ["Ana"]}), 9)] == [7]
    assert [row.seq for row in page(connection, TEAM, Wanted(before={"created": 0}), 9)] == [1]
    assert len(page(connection, OTHER, Wanted(since={"modified": 0}, after=1_050), 100)) == 50
