"""Ingest: the only way into the jobs. Concurrent pushes of one process share a transaction (group commit).

While one transaction runs, what arrives gathers; the next one takes all of it, up to ``MAX_BATCH``. Each
push keeps its own revision and its own answer, and no answer leaves before its commit. With one push at a
time nothing waits for anything.
"""

import asyncio
import logging
from collections import deque

from storage.database import Contended, Database, Unavailable
from sync.batch import apply_batch
from sync.errors import Busy, SyncError
from sync.items import Applied, Item, Result

log = logging.getLogger("fieldsync.ingest")

MAX_BATCH = 64
#: A race to create the same job is lost at most a few times in a row.
_ATTEMPTS = 8


class Ingest:
    """Applies items of any number of concurrent callers, in as few transactions as possible.

    One transaction at a time: more of them at once on PostgreSQL make smaller groups and were slower
    (1,001/s against 674/s with two and 625/s with four, 64 connections on two cores).
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def apply(self, item: Item) -> Applied:
        """Apply one item; durable when this returns.

        Raises:
            SyncError: it was refused; ``extra["quarantined"]`` says whether it was kept.
            Busy: the storage did not take it, and nothing was kept.
        """
        result = await self.submit(item)
        if isinstance(result, SyncError):
            raise result
        return result

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue one item; a refusal is the future's result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._pending.append((item, future))
        if not self._draining:
            self._draining = True
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return future

    async def close(self) -> None:
        """Finish what has been submitted."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def _drain(self) -> None:
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(MAX_BATCH, len(self._pending)))]
            results = await self._commit([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    if isinstance(result, Exception) and not isinstance(result, SyncError):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        # No await stands between the last look at the queue and this: what comes later starts a new task.
        self._draining = False

    async def _commit(self, items: list[Item]) -> list[Result | Exception]:
        error: Exception
        for attempt in range(_ATTEMPTS):
            try:
                return list(await self._database.write(apply_batch, items))
            except Contended as lost:
                error = lost
                # Somebody else created the job, or took the lock first: read it and merge.
                await asyncio.sleep(0.005 * attempt)
            except Unavailable as unavailable:
                error = unavailable
                break
            except Exception as unexpected:
                log.exception("a batch of %d failed", len(items))
                if len(items) == 1:
                    return [unexpected]
                # One of them is at fault; its neighbours must not suffer for it.
                return [result for item in items for result in await self._commit([item])]
        log.warning("the storage did not take a batch of %d: %s", len(items), error)
        return [
            Busy(
                "storage-unavailable",
                "The storage did not take it; nothing was kept. Try later.",
                quarantine=False,
            )
            for _ in items
        ]
