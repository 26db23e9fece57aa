"""Reading the files of collections: from a CSV to records that can be asked for."""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import msgspec

from media.formats import Refused
from media.sandbox import Sandbox
from media.tables import Built, build
from server.attachments.forgetting import DELETE_BLOBS
from server.clock import now
from server.collections.details import Details, StoredColumn
from server.worker import GiveUp, Handler, Retry
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable
from storage.database import Connection, Database
from storage.queries import collections as queries
from storage.queries import tasks
from storage.queries.collections import IMPORT, IMPORTING, FileRow, Outcome
from storage.queue import Task

log = logging.getLogger("fieldsync.collections")

SECONDS = 120.0
#: Files of a collection that can still be downloaded; older ones are deleted.
KEPT_FILES = 20
_RETRY_SECONDS = 10
#: What is said of a file with which the last attempt failed. What happened stands in the task, for administrators.
_LAST = (
    "unreadable",
    f"The server failed to read it, {tasks.MAX_ATTEMPTS} times. Upload it again, or tell an administrator.",
)
_CHUNK = 1024 * 1024
_TYPE = "application/octet-stream"
_FOLDER = "fieldsync-records-"
_ABANDONED_SECONDS = 24 * 3600


def handlers(database: Database, blobs: BlobStore, sandbox: Sandbox) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    importing = _Importing(database, blobs, sandbox)
    return {IMPORT: importing.run}


def on_dead(database: Database) -> Mapping[str, Handler]:
    """Kind of task -> what is done when one died."""

    async def importing(task: Task) -> None:
        await _give_up(database, task, _LAST)

    return {IMPORT: importing}


class _Lost(Exception):
    """A file that is needed is not in the blob store. The text is for people."""


class _NotStored(Exception):
    """The records found no room. Reading the file again every few seconds would not make any."""


class _Importing:
    def __init__(self, database: Database, blobs: BlobStore, sandbox: Sandbox) -> None:
        self._database = database
        self._blobs = blobs
        self._sandbox = sandbox
        #: Of two files of one collection, the second is compared with the first. Other processes are noticed
        #: at the end, which costs the work.
        self._locks: WeakValueDictionary[tuple[int, str], asyncio.Lock] = WeakValueDictionary()

    async def run(self, task: Task) -> None:
        """Read a file and let its records be the collection's. Doing it again changes nothing."""
        row = await self._database.read(queries.file, task.team_id, task.subject)
        if row is None:
            return  # the collection was deleted
        lock = self._locks.setdefault((task.team_id, row.collection_id), asyncio.Lock())
        async with lock:
            try:
                outcome: Outcome = "again"
                while outcome == "again":
                    outcome = await self._import(task.team_id, row.file_id)
            except BlobsUnavailable:
                raise Retry(_RETRY_SECONDS) from None
            except _Lost as lost:
                await _give_up(self._database, task, ("file-lost", str(lost)))
                raise GiveUp(str(lost)) from None

    async def _import(self, team_id: int, file_id: str) -> Outcome:
        row = await self._database.read(queries.file, team_id, file_id)
        if row is None or row.state != IMPORTING:
            return "over"
        _, past = await self._database.read(queries.current, team_id, row.collection_id)
        if past is not None and past.number > row.number:
            outcome, _ = await self._database.write(queries.make_current, team_id, row, past.file_id)
            return outcome
        # What is in it follows from its key, so that whoever does it again writes the same.
        key = f"{row.blob_key}.after-{past.number if past else 0}.sqlite"
        with _folder() as folder:
            target = folder / "records.sqlite"
            try:
                try:
                    built = await self._build(row, past, target)
                except BlobNotFound:
                    missing = await self._missing(team_id, row, past)
                    if missing != "past":
                        return missing
                    log.warning("the records before file %s are lost; its readers begin anew", file_id)
                    key = f"{row.blob_key}.anew.sqlite"
                    built = await self._build(row, None, target)
            except Refused as refusal:
                built = _refused(("unreadable", str(refusal)))
            if built.failure is not None:
                log.info("file %s cannot be read: %s", file_id, built.failure[1])
                await self._database.write(_fail, team_id, _failed(row, built))
                return "over"
            read = row._replace(
                imported_at=now(), record_count=built.records, details=_details(built), records_key=key
            )
            try:
                await self._blobs.put(key, _pieces(target), content_type=_TYPE, size=target.stat().st_size)
            except BlobsUnavailable as error:
                raise _NotStored(str(error)) from error
        outcome = await self._database.write(_make_current, team_id, read, past.file_id if past else None)
        if outcome != "current":
            there = await self._database.read(queries.file, team_id, file_id)
            if there is None or there.records_key != key:
                await self._blobs.delete([key])
        return outcome

    async def _build(self, row: FileRow, past: FileRow | None, target: Path) -> Built:
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(self._blobs.local_path(row.blob_key))
            previous = None
            if past is not None and past.records_key is not None:
                previous = str(await stack.enter_async_context(self._blobs.local_path(past.records_key)))
            return await self._sandbox.run(
                build, str(source), str(target), row.number, previous, seconds=SECONDS
            )

    async def _missing(
        self, team_id: int, row: FileRow, past: FileRow | None
    ) -> Literal["over", "again", "past"]:
        """One of the two files was not there. ``again``: another one has come between; ``past``: it is lost.

        Raises:
            _Lost: what was uploaded is lost.
        """
        if await self._blobs.info(row.blob_key) is None:
            there = await self._database.read(queries.file, team_id, row.file_id)
            if there is None:
                return "over"
            raise _Lost("The file is not in the store of files any more. Upload it again.")
        _, current = await self._database.read(queries.current, team_id, row.collection_id)
        if current is not None and past is not None and current.file_id == past.file_id:
            return "past"
        return "again"


async def _give_up(database: Database, task: Task, failure: tuple[str, str]) -> None:
    """Note that a file will not be read, so that nobody waits for it and it is forgotten like others."""
    row = await database.read(queries.file, task.team_id, task.subject)
    if row is not None and row.state == IMPORTING:
        await database.write(_fail, task.team_id, _failed(row, _refused(failure)))


def _make_current(connection: Connection, team_id: int, read: FileRow, previous_id: str | None) -> Outcome:
    outcome, key = queries.make_current(connection, team_id, read, previous_id)
    keys = [key] if key else []
    if outcome == "current":
        keys += queries.forget_past(connection, team_id, read.collection_id, KEPT_FILES)
    _delete_later(connection, team_id, keys)
    return outcome


def _fail(connection: Connection, team_id: int, read: FileRow) -> None:
    queries.fail(connection, team_id, read)
    _delete_later(
        connection, team_id, queries.forget_past(connection, team_id, read.collection_id, KEPT_FILES)
    )


def _delete_later(connection: Connection, team_id: int, keys: list[str]) -> None:
    if keys:
        tasks.enqueue(connection, team_id, DELETE_BLOBS, keys[0], {"keys": keys}, now=now())


def _refused(failure: tuple[str, str]) -> Built:
    return Built(failure, [], [], 0, "", "", 0, [])


def _failed(row: FileRow, built: Built) -> FileRow:
    """The file with why it cannot be read."""
    return row._replace(imported_at=now(), record_count=0, details=_details(built), records_key=None)


def _details(built: Built) -> bytes:
    return msgspec.json.encode(
        Details(
            header=built.header,
            columns=[StoredColumn(*column) for column in built.columns],
            encoding=built.encoding,
            separator=built.separator,
            problems=built.problems,
            lines=built.lines,
            failure=built.failure,
        )
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for one import. What a crash has left of others is removed on the occasion."""
    before = time.time() - _ABANDONED_SECONDS
    for other in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        with suppress(OSError):  # somebody else's
            if other.stat().st_mtime < before:
                shutil.rmtree(other, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_FOLDER, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece
