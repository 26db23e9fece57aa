"""Background work: which task is done by what, and what the clock does; in the server or on its own."""

import asyncio
import logging
import signal
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import Any

import uvloop

from media.pdf import warm_up
from media.sandbox import Sandbox
from media.uploads import Uploads
from server.accounts import background as accounts
from server.attachments.background import handlers as attachment_handlers
from server.attachments.forgetting import delete_now, forget
from server.clock import now
from server.collections import background as collections
from server.logs import configure_logging
from server.mail import Mailer
from server.reports import background as reports
from server.scheduled_jobs import background as scheduled_jobs
from server.settings import Settings
from server.timetable import Entry, Timetable
from server.triggers import delivering, matching
from server.worker import CONCURRENCY, Handler, Worker
from storage.blobs import BlobStore, open_blobs
from storage.database import Database, Unavailable, open_database
from storage.queries import attachments, tokens
from storage.queries import reports as report_queries
from storage.queries.collections import IMPORT
from storage.queries.deliveries import DELIVER, DELIVER_MAILS, PREPARE
from storage.queries.reports import GENERATE
from storage.queries.secrets import shared_secret
from storage.queries.triggers import MATCH
from storage.queue import Task, TaskQueue
from sync.ingest import Ingest

log = logging.getLogger("fieldsync.background")

_HOUR = 3600
_DAY_US = 24 * _HOUR * 1_000_000
_AT_ONCE = 200
#: How long the database may take to answer for the first time: all machines may have started just now.
_START_SECONDS = 30.0
_START_AGAIN_SECONDS = 0.5
#: For the loops to end once the worker has stopped; one that does not, as the database hangs, is cancelled.
_LOOPS_END_SECONDS = 2.0


def timetable(database: Database, blobs: BlobStore, uploads: Uploads, settings: Settings) -> list[Entry]:
    """What the clock does, and every how many seconds."""
    queue = TaskQueue(database)
    orphaned = settings.orphan_days * _DAY_US
    ahead = settings.remind_hours * _HOUR * 1_000_000
    return [
        Entry("expired uploads", 600, lambda: uploads.expire(now())),
        Entry("files nobody refers to", _HOUR, lambda: delete_orphans(database, blobs, now() - orphaned)),
        Entry("reminders", 60, lambda: scheduled_jobs.enqueue_reminders(database, now(), ahead)),
        Entry("links and codes", _HOUR, lambda: accounts.delete_expired(database, now())),
        *delivering.entries(database),
        Entry("reports of no more use", 6 * _HOUR, lambda: reports.purge(database)),
        Entry("tasks that are over", _HOUR, lambda: queue.purge(now())),
        Entry("expired refresh tokens", 6 * _HOUR, lambda: delete_tokens(database, now() - _DAY_US)),
    ]


async def delete_orphans(database: Database, blobs: BlobStore, before: int) -> int:
    """Delete files to which no job has referred since ``before``; answers how many."""
    deleted = 0
    while found := await database.read(attachments.orphans, before, _AT_ONCE):
        forgotten = 0
        for team_id, orphan in found:
            keys = await database.write(forget, team_id, orphan.attachment_id, now(), before)
            if keys is not None:
                forgotten += 1
                await delete_now(blobs, keys)
        deleted += forgotten
        if not forgotten:
            break  # all of them have found a job meanwhile
    return deleted


async def delete_tokens(database: Database, before: int) -> int:
    """Delete refresh tokens that expired before a time; answers how many."""
    deleted = 0
    while found := await database.read(tokens.expired_refresh_tokens, before, _AT_ONCE):
        deleted += await database.write(tokens.forget_refresh_tokens, found)
    return deleted


async def _report_died(database: Database, task: Task) -> None:
    reason = "The server failed to make it, and has given up."
    await database.write(report_queries.failed, task.team_id, task.subject, reason, now())


class Background:
    """The worker and the clock of one process, running between ``start`` and ``stop``.

    Args:
        more: further handlers.
        stop_seconds: how long stopping waits for what runs.

    Attributes:
        sandbox: the process pool for files of strangers, for the server's requests as well.
        printing: the one for reports, so that a burst of photos does not delay them.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        blobs: BlobStore,
        uploads: Uploads,
        ingest: Ingest,
        more: Mapping[str, Handler] | None = None,
        *,
        stop_seconds: float = 20,
    ) -> None:
        self.sandbox = Sandbox(settings.media_workers)
        self.printing = Sandbox(settings.report_workers, warm_up=warm_up)
        mailer = Mailer(settings)
        handlers = {
            **attachment_handlers(database, blobs, ingest, self.sandbox),
            **accounts.handlers(database, mailer, settings),
            **collections.handlers(database, blobs, self.sandbox),
            **scheduled_jobs.handlers(database, mailer),
            **reports.handlers(database, blobs, self.printing),
            **matching.handlers(database),
            **delivering.handlers(database, blobs, mailer, settings),
            **(more or {}),
        }
        concurrency = dict.fromkeys(handlers, CONCURRENCY)
        for kind in (attachments.THUMBNAILS, IMPORT):
            concurrency[kind] = settings.media_workers
        concurrency[GENERATE] = settings.report_workers
        concurrency[DELIVER] = delivering.CONCURRENCY
        concurrency[DELIVER_MAILS] = delivering.MAILS_AT_ONCE
        for kind in (MATCH, PREPARE):
            concurrency[kind] = matching.CONCURRENCY
        self.worker = Worker(
            TaskQueue(database),
            handlers,
            {**collections.on_dead(database), GENERATE: partial(_report_died, database)},
            concurrency=concurrency,
            lease_seconds=settings.lease_seconds,
            stop_seconds=stop_seconds,
        )
        self.timetable = Timetable(
            timetable(database, blobs, uploads, settings), database, retry_seconds=settings.lease_seconds
        )
        self._database = database
        database.when_enqueued = self.worker.wake
        self._running: list[asyncio.Task[None]] = []
        self._listening: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._running = [
            asyncio.create_task(self.worker.run(), name="worker"),
            asyncio.create_task(self.timetable.run(), name="timetable"),
        ]
        self._listening = asyncio.create_task(self._database.listen(), name="listener")

    async def ended(self) -> None:
        """Return once the worker or the clock has ended, which they do not before :meth:`stop`."""
        await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """End both; what runs gets some seconds to end, then its tasks are handed back."""
        self.timetable.stop()
        await self.worker.stop()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
        for loop in self._running:
            await _cancelled_after(loop, _LOOPS_END_SECONDS)
            if loop.done() and not loop.cancelled() and loop.exception() is not None:
                log.error("background work ended with an error", exc_info=loop.exception())
        self._running = []
        await self.sandbox.close()
        await self.printing.close()


async def _cancelled_after(task: asyncio.Task[None], seconds: float) -> None:
    """Wait for it to end, and cancel it if that takes too long."""
    _, waiting = await asyncio.wait([task], timeout=seconds)
    if waiting:
        task.cancel()
        await asyncio.wait([task], timeout=seconds)


def main(settings: Settings) -> None:
    """``fieldsync worker``.

    Raises:
        ValueError: the database does not answer, its schema is not current, or the work ended by itself.
    """
    configure_logging(settings)
    try:
        uvloop.run(work(settings))
    except (Unavailable, RuntimeError) as error:
        raise ValueError(str(error)) from None


async def work(settings: Settings, more: Mapping[str, Handler] | None = None) -> None:
    """Do background work until SIGTERM or SIGINT.

    Args:
        more: further handlers.

    Raises:
        RuntimeError: the schema is not current, or the work ended without being told to.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = open_database(settings.effective_database_url)
    try:
        if not await _finished_before(stop, _prepare(database)):
            return
        blobs = open_blobs(settings.blobs, settings.data / "blobs", settings.base_url)
        try:
            # Mails and webhooks carry addresses of reports.
            blobs.sign_with(await database.write(shared_secret, "files", now()))
            uploads = Uploads(database, blobs, settings.upload_days * _DAY_US)
            ingest = Ingest(database)
            background = Background(settings, database, blobs, uploads, ingest, more)
            await background.start()
            log.info("working")
            broken = await _finished_before(stop, background.ended())
            await background.stop()
            await ingest.close()
            if broken:
                raise RuntimeError("Background work has ended by itself; the log says why.")
        finally:
            await blobs.close()
    finally:
        await database.close()


async def _prepare(database: Database) -> None:
    """Make the database ready, which may itself just be starting."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _START_SECONDS
    is_said = False
    while True:
        try:
            return await database.prepare()
        except Unavailable as error:
            if loop.time() > until:
                raise
            if not is_said:
                log.warning("waiting for the database: %s", error)
            is_said = True
        await asyncio.sleep(_START_AGAIN_SECONDS)


async def _finished_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether ``work`` finished before ``stop`` was set; if not it is cancelled. What it raises is raised."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        return not stop.is_set()
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait([working], timeout=_LOOPS_END_SECONDS)
