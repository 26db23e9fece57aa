"""The clock: what is done again and again, by one process of an installation at a time.

Times are kept in memory only: everything is due shortly after a start and then at its interval, and each
entry must stand being run more often than that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from apscheduler.schedulers.asyncio import AsyncIOScheduler  # type: ignore[import-untyped]

from storage.database import Contended, Database, Unavailable

log = logging.getLogger("fieldsync.timetable")

#: The lock of the database that the process with the clock holds.
LOCK = "clock"


class Entry(NamedTuple):
    """``work`` is done every ``seconds``."""

    name: str
    seconds: float
    work: Callable[[], Awaitable[object]]


class Timetable:
    """Runs its entries while this process holds the clock.

    Args:
        entries: their work must be safe to be done by two processes at once: on PostgreSQL a process that
            lost its connection learns only at its next look that another has the clock.
        retry_seconds: how often a process without the clock tries to get it, and one with it looks whether
            it still has it.
        first_seconds: when entries are due after the clock was got.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        database: Database,
        *,
        retry_seconds: float = 60,
        first_seconds: float = 15,
    ) -> None:
        self._entries = entries
        self._database = database
        self._retry_seconds = retry_seconds
        self._first_seconds = first_seconds
        self._stopping = asyncio.Event()
        #: Whether this process has the clock.
        self.held = False

    async def run(self) -> None:
        """Keep the timetable until :meth:`stop`, or wait for whoever does to end."""
        while not self._stopping.is_set():
            try:
                async with self._database.hold_lock(LOCK) as lock:
                    if lock:
                        scheduler = self._start()
                        try:
                            while await lock.still_held() and not await self._stopped():
                                pass
                        finally:
                            self.held = False
                            scheduler.shutdown(wait=False)
            except Exception as error:
                log.warning("the clock cannot be had: %s", error)
            await self._stopped()

    def stop(self) -> None:
        """End :meth:`run`. What is being done is cancelled."""
        self._stopping.set()

    async def _stopped(self) -> bool:
        """True if :meth:`stop` is called within the time to wait."""
        try:
            async with asyncio.timeout(self._retry_seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _start(self) -> Any:
        # It tells of every run, and of nothing that our own messages do not.
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        scheduler = AsyncIOScheduler(timezone=UTC)
        for entry in self._entries:
            scheduler.add_job(
                _do,
                "interval",
                args=[entry],
                name=entry.name,
                seconds=entry.seconds,
                next_run_time=datetime.now(UTC) + timedelta(seconds=self._first_seconds),
                # However late, and once for all the times that were missed.
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )
        scheduler.start()
        log.info("this process has the clock")
        self.held = True
        return scheduler


async def _do(entry: Entry) -> None:
    try:
        await entry.work()
    except (Unavailable, Contended) as error:
        log.warning("%s: the storage does not answer: %s", entry.name, error)
    except Exception:
        log.exception("%s failed; it is tried again in %.0f s", entry.name, entry.seconds)
