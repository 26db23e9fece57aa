"""SQLite's writer: one connection in one thread, and one fsync for all who wait at the same time.

What is written while a transaction runs gathers; the next transaction takes it all, each work in a savepoint
of its own, so that one that fails takes nothing of its neighbours with it. Nobody is answered before the commit.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine

#: Works in one transaction; more would make the first of them wait long.
_MOST = 64


class _Waiting(NamedTuple):
    work: Callable[..., Any]
    args: tuple[Any, ...]
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    value: Any = None
    error: Exception | None = None


class SqliteWriter:
    """Runs works on ``engine``'s one connection. Used from one event loop at a time.

    Args:
        flag: a key of ``Connection.info``; when a work has set it, ``flagged`` is called after the commit.
    """

    def __init__(self, engine: Engine, flag: str, flagged: Callable[[], None]) -> None:
        self._engine = engine
        self._flag = flag
        self._flagged = flagged
        self._connection: Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._waiting: deque[_Waiting] = deque()
        self._running = False
        self._closed = False
        self._idle = asyncio.Event()

    async def write(self, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """The value of ``work(connection, *args)``, committed; or what it, or the commit, raised."""
        if self._closed:
            raise OSError("the database is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Waiting(work, args, future))
        if not self._running:
            self._running = True
            self._idle.clear()
            self._thread.submit(self._run, loop)
        return await future

    async def close(self) -> None:
        """Finish what is under way; what comes later is refused."""
        self._closed = True
        if self._running:
            await self._idle.wait()
        self._thread.shutdown(wait=True)
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    # In the writer's thread.

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        group: list[_Waiting] = []
        with contextlib.suppress(IndexError):  # nobody waits any more
            while len(group) < _MOST:
                group.append(self._waiting.popleft())
        try:
            outcomes = self._transaction(group)
        except Exception as error:
            # Begin or commit: nothing of the whole group is kept.
            outcomes = [_Outcome(error=error)] * len(group)
        flagged = self._connection is not None and self._connection.info.pop(self._flag, False)
        try:
            loop.call_soon_threadsafe(self._answer, loop, group, outcomes, flagged)
        except RuntimeError:  # the loop has been closed; nobody waits for the answers
            self._running = False

    def _transaction(self, group: Sequence[_Waiting]) -> list[_Outcome]:
        if self._connection is None:
            self._connection = self._engine.connect()
        connection = self._connection
        # Through SQLAlchemy, beginning and committing take 0.2 ms of a group's time.
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.execute("BEGIN IMMEDIATE")
            try:
                if len(group) == 1:
                    outcomes = [_Outcome(group[0].work(connection, *group[0].args))]
                else:
                    outcomes = [_in_savepoint(connection, driver, waiting) for waiting in group]
                commit(driver)
            except BaseException:
                if driver.in_transaction:
                    driver.execute("ROLLBACK")
                raise
            return outcomes
        finally:
            if connection.in_transaction():
                connection.rollback()  # ends SQLAlchemy's own record of it; the driver's has ended

    # In the event loop.

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        group: Sequence[_Waiting],
        outcomes: Sequence[_Outcome],
        flagged: bool,
    ) -> None:
        for waiting, outcome in zip(group, outcomes, strict=True):
            if waiting.future.done():
                continue  # its caller has gone
            if outcome.error is not None:
                waiting.future.set_exception(outcome.error)
            else:
                waiting.future.set_result(outcome.value)
        if self._waiting:
            self._thread.submit(self._run, loop)
        else:
            self._running = False
            self._idle.set()
        if flagged:
            self._flagged()


def commit(driver: Any) -> None:
    """Commit the driver's transaction."""
    driver.execute("COMMIT")


def _in_savepoint(connection: Connection, driver: Any, waiting: _Waiting) -> _Outcome:
    driver.execute("SAVEPOINT work")
    try:
        outcome = _Outcome(waiting.work(connection, *waiting.args))
    except Exception as error:
        if not driver.in_transaction:
            raise  # SQLite itself has given up the whole transaction: a full disk, a failed read
        driver.execute("ROLLBACK TO work")
        outcome = _Outcome(error=error)
    driver.execute("RELEASE work")
    return outcome
