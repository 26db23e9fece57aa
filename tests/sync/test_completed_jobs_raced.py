"""Who pages through the completed jobs of a team while they are completed meets each exactly once, on PostgreSQL."""

import asyncio
from typing import Any

from sqlalchemy import text

from storage.database import Connection, Database, open_database
from storage.queries import completed_jobs as queries
from storage.queries.completed_jobs import Wanted
from storage.queries.teams import insert_team
from sync.batch import apply_batch
from sync.ingest import Ingest
from sync.items import Applied, Caller, PushItem
from sync.snapshot import parse
from tests.sync.pushing import snapshot

WRITERS, JOBS = 6, 25


def completing(caller: Caller, writer: int, job: int) -> PushItem:
    install = f"00000000-0000-4000-9300-{writer:012}"
    body = snapshot(install, seq=job + 1, job=f"{writer}-{job}", status="Completed", workflowId="w")
    return PushItem(caller, parse(body), 1_000 + job)


def test_a_reader_meets_every_job_once_while_many_are_completed(fresh_postgres: str) -> None:
    async def write(url: str, caller: Caller, writer: int) -> None:
        database = open_database(url)
        ingest = Ingest(database)
        for job in range(JOBS):
            assert isinstance(await ingest.submit(completing(caller, writer, job)), Applied)
        await ingest.close()
        await database.close()

    async def follow(database: Database, caller: Caller, wanted: Wanted, size: int) -> list[str]:
        met: list[str] = []
        while len(met) < WRITERS * JOBS:
            page = await database.read(queries.page, caller.team_id, wanted, size)
            # Without a gap: what commits later has a later number, so that nothing can be passed by.
            assert [row.seq for row in page] == list(range(len(met) + 1, len(met) + 1 + len(page)))
            met += [row.job_id for row in page]
            wanted = wanted._replace(after=len(met))
        return met

    async def main() -> None:
        database = open_database(fresh_postgres)
        await database.migrate()
        caller = Caller(await database.write(insert_team, "team", 1), "team", "user", own_work_only=False)
        many = Wanted({"workflow_id": [*map(str, range(150)), "w"]})
        readers = [
            asyncio.create_task(follow(database, caller, wanted, size))
            for wanted, size in ((Wanted(), 7), (Wanted(since={"modified": 0}), 100), (many, 3))
        ]
        await asyncio.gather(*(write(fresh_postgres, caller, writer) for writer in range(WRITERS)))
        first, *others = await asyncio.wait_for(asyncio.gather(*readers), 60)
        assert len(set(first)) == WRITERS * JOBS
        assert all(other == first for other in others)
        await database.close()

    asyncio.run(main())


_WAITING = text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def test_who_commits_late_comes_before_those_who_wait_for_it(fresh_postgres: str) -> None:
    async def main() -> None:
        database = open_database(fresh_postgres)
        await database.migrate()
        caller = Caller(await database.write(insert_team, "team", 1), "team", "user", own_work_only=False)

        async def met() -> list[int]:
            return [row.seq for row in await database.read(queries.page, caller.team_id, Wanted(), 10)]

        def job_of(connection: Connection, seq: int) -> Any:
            (row,) = queries.page(connection, caller.team_id, Wanted(after=seq - 1), 1)
            return row.view

        late = await database._reader.connect()
        await late.run_sync(apply_batch, [completing(caller, 1, 0)])
        other = asyncio.create_task(database.write(apply_batch, [completing(caller, 2, 0)]))
        async with asyncio.timeout(30):
            while not await database.read(lambda connection: connection.execute(_WAITING).scalar()):
                assert not other.done()
        assert await met() == []
        await late.commit()
        await late.close()
        await other
        assert await met() == [1, 2]
        assert b'"1-0"' in bytes(await database.read(job_of, 1))
        await database.close()

    asyncio.run(main())
