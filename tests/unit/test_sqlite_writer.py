"""SQLite's writer: who waits at the same time shares a transaction, and nothing else."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from storage.database import Connection, Contended, Database, Unavailable, open_database, sqlite_url


class Writing:
    """A database with one table, the statements its writer runs, and a gate that holds the writer up."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self.database: Database = open_database(sqlite_url(folder / "x.db"))
        self.seen: list[str] = []
        self.runner.run(self.database.write(self._prepare))
        self.gate = threading.Event()

    def _prepare(self, connection: Connection) -> None:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
        driver: Any = connection.connection.dbapi_connection
        driver.set_trace_callback(self.seen.append)

    def together(self, *works: Callable[[Connection], Any]) -> list[Any]:
        """The outcomes of works that come while a transaction runs, and so share the next one."""

        async def run() -> list[Any]:
            self.gate.clear()
            first: Awaitable[Any] = asyncio.ensure_future(self.database.write(lambda _: self.gate.wait(10)))
            await asyncio.sleep(0.05)
            rest = [asyncio.ensure_future(self.database.write(work)) for work in works]
            await asyncio.sleep(0)
            self.seen.clear()
            self.gate.set()
            await first
            return await asyncio.gather(*rest, return_exceptions=True)

        return self.runner.run(run())

    def kept(self) -> list[int]:
        def read(connection: Connection) -> list[int]:
            return list(connection.execute(text("SELECT n FROM t ORDER BY n")).scalars())

        return self.runner.run(self.database.read(read))

    def commits(self) -> int:
        return self.seen.count("COMMIT")


@pytest.fixture
def writing(tmp_path: Path) -> Iterator[Writing]:
    opened = Writing(tmp_path)
    yield opened
    opened.runner.run(opened.database.close())
    opened.runner.close()


def insert(number: int) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})
        return number

    return work


def then(number: int, error: Exception) -> Callable[[Connection], int]:
    def work(connection: Connection) -> int:
        insert(number)(connection)
        raise error

    return work


def test_works_that_wait_at_the_same_time_share_one_commit(writing: Writing) -> None:
    assert writing.together(*(insert(number) for number in range(20))) == list(range(20))
    assert writing.kept() == list(range(20))
    assert writing.commits() == 2  # that of the work they waited for, and theirs


def test_a_work_that_fails_leaves_nothing_and_harms_no_neighbour(writing: Writing) -> None:
    failure = LookupError("mine")
    first, failed, clashing, last = writing.together(insert(1), then(2, failure), insert(1), insert(3))
    assert (first, last) == (1, 3)
    assert failed is failure
    assert isinstance(clashing, Contended)
    assert writing.kept() == [1, 3]


def test_where_sqlite_gives_up_the_transaction_nobody_is_told_that_he_was_kept(writing: Writing) -> None:
    def disk_full(connection: Connection) -> None:
        driver: Any = connection.connection.dbapi_connection
        driver.execute("ROLLBACK")  # as SQLite does by itself
        raise OSError("disk full")

    outcomes = writing.together(insert(1), disk_full, insert(2))
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert writing.kept() == []
    assert writing.together(insert(4)) == [4]


def test_a_caller_that_goes_away_holds_up_nobody(writing: Writing) -> None:
    async def run() -> int:
        gone = asyncio.ensure_future(writing.database.write(lambda _: writing.gate.wait(0.2)))
        await asyncio.sleep(0.02)
        gone.cancel()
        return await asyncio.wait_for(writing.database.write(insert(7)), 10)

    assert writing.runner.run(run()) == 7
    assert writing.kept() == [7]


def test_closing_finishes_what_came_and_refuses_what_comes(writing: Writing) -> None:
    async def run() -> list[Any]:
        writing.gate.clear()
        first = asyncio.ensure_future(writing.database.write(lambda _: writing.gate.wait(10)))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(writing.database.write(insert(1)))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(writing.database.close())
        await asyncio.sleep(0)
        late = asyncio.ensure_future(writing.database.write(insert(2)))
        await asyncio.sleep(0)
        writing.gate.set()
        await asyncio.wait_for(closing, 10)
        return await asyncio.gather(first, second, late, return_exceptions=True)

    first, second, late = writing.runner.run(run())
    assert (first, second) == (True, 1)
    assert isinstance(late, Unavailable)
