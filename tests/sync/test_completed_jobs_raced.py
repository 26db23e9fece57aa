"""Who pages through the completed jobs of a team while they are completed meets each exactly once."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, text, update
from sqlalchemy.util import await_only

from storage.database import Connection, Database, open_database
from storage.queries import completed_jobs as queries
from storage.queries.completed_jobs import Wanted
from storage.queries.teams import insert_team
from storage.tables import feeds
from sync.batch import apply_batch
from sync.ingest import Ingest
from sync.items import Applied, Caller, PushItem
from sync.snapshot import parse
from tests.sync.pushing import snapshot

WRITERS, JOBS = 6, 25


def completing(caller: Caller, writer: int, job: int, workflow: str = "w") -> PushItem:
    install = f"00000000-0000-4000-9300-{writer:012}"
    body = snapshot(install, seq=job + 1, job=f"{writer}-{job}", status="Completed", workflowId=workflow)
    return PushItem(caller, parse(body), 1_000 + job)


#: What takes several statements: many values, a time, and both.
_SEVERAL = {
    "many values": Wanted({"workflow_id": ["first", *map(str, range(100)), "last"]}),
    "a time": Wanted(since={"modified": 0}),
    "values of a time": Wanted({"workflow_id": ["first", "last"]}, since={"modified": 0}),
}


def test_a_reader_meets_every_job_once_while_many_are_completed(fresh_postgres: str) -> None:
    async def write(url: str, caller: Caller, writer: int) -> None:
        database = open_database(url)
        ingest = Ingest(database)
        for job in range(JOBS):
            pushed = completing(caller, writer, job, "first" if job % 2 else "last")
            assert isinstance(await ingest.submit(pushed), Applied)
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
        many = _SEVERAL["many values"]
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


@pytest.mark.parametrize("name", _SEVERAL)
def test_what_is_completed_between_two_statements_of_a_page_is_met_all_the_same(
    database_url: str, name: str
) -> None:
    async def main() -> None:
        database = open_database(database_url)
        await database.migrate()
        turn, statements = 0, 1
        while turn < statements:
            turn += 1
            statements = await page_interrupted(database, f"team {turn}", _SEVERAL[name], turn)
        assert statements > 2
        await database.close()

    asyncio.run(main())


async def page_interrupted(database: Database, team: str, wanted: Wanted, turn: int) -> int:
    """Read a page, and after its ``turn``-th statement have two jobs completed. Answers how many statements it took."""
    caller = Caller(await database.write(insert_team, team, 1), team, "user", own_work_only=False)
    asked = 0

    async def complete(number: int, workflow: str) -> None:
        await database.write(apply_batch, [completing(caller, 1, number, workflow)])

    async def complete_two() -> None:
        await complete(1, "first")
        await complete(2, "last")

    def interrupted(connection: Connection) -> list[int]:
        def count(*_: Any) -> None:
            nonlocal asked
            asked += 1
            if asked == turn:
                await_only(complete_two())

        event.listen(connection, "after_cursor_execute", count)
        return page(connection, wanted)

    def page(connection: Connection, wanted: Wanted) -> list[int]:
        return [row.seq for row in queries.page(connection, caller.team_id, wanted, 10)]

    def count_completions(connection: Connection) -> None:
        of_team = feeds.c.team_id == caller.team_id
        connection.execute(update(feeds).where(of_team).values(completions=queries.BLOCK - 3))

    # The two that come meanwhile lie in different blocks.
    await database.write(count_completions)
    await complete(0, "last")
    met = await database.read(interrupted)
    while found := await database.read(page, wanted._replace(after=met[-1])):
        met += found
    assert met == [queries.BLOCK - 2, queries.BLOCK - 1, queries.BLOCK], turn
    return asked
