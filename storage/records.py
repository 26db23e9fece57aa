"""Records of collections: reading the files that storage/record_files.py writes.

They never change, so they are opened without locks, by as many readers as there are.
"""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, FolderBlobs
from storage.blobs.threads import Threads
from storage.record_files import Column
from storage.record_plans import Condition, Sort, statement

__all__ = ["Change", "Column", "Condition", "Page", "Record", "RecordFiles", "Sort", "page"]

T = TypeVar("T")

_THREADS = 4
#: Open files that nobody reads at the moment, and what each may keep in memory.
_MAX_IDLE = 16
_CACHE_KB = 4096
_MMAP_BYTES = 1024**3
_CACHE_BYTES = 2 * 1024**3


class Record(NamedTuple):
    """One row."""

    record_id: str
    values: tuple[str, ...]


class Page(NamedTuple):
    """Some records, and whether there are more."""

    records: list[Record]
    more: bool


class RecordFiles:
    """Opens the record files of this process's collections.

    Args:
        cache: where copies go when the store of files is not on this machine.
        most_bytes: how much room they may take there; those not read for longest go first.
    """

    def __init__(self, blobs: BlobStore, cache: Path, most_bytes: int = _CACHE_BYTES) -> None:
        self._blobs = blobs
        self._cache = cache / "records"
        self._most_bytes = most_bytes
        self._threads = Threads(_THREADS, "records")
        self._lock = threading.Lock()
        self._idle: OrderedDict[sqlite3.Connection, Path] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    async def read(self, key: str, query: Callable[..., T], *args: Any) -> T:
        """``query(connection, *args)`` on the record file under ``key``.

        Raises:
            BlobNotFound: it is gone; a newer file has taken its place.
            BlobsUnavailable: the store of files does not answer.
        """
        path = await self._path(key)
        try:
            return await self._threads.run(self._run, path, query, args)
        except BlobNotFound:
            if isinstance(self._blobs, FolderBlobs):
                raise
        # Another process had to make room in the same folder just now.
        return await self._threads.run(self._run, await self._path(key), query, args)

    async def close(self) -> None:
        """Let go of open files."""
        self._threads.close()
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    async def _path(self, key: str) -> Path:
        if isinstance(self._blobs, FolderBlobs):
            async with self._blobs.local_path(key) as path:
                return path
        name = hashlib.sha256(key.encode()).hexdigest()[:40]
        path = self._cache / f"{name}.sqlite"
        lock = self._fetching.setdefault(name, asyncio.Lock())
        async with lock:
            if not await self._threads.run(_touched, path):
                async with self._blobs.local_path(key) as copy:
                    await self._threads.run(self._keep, copy, path)
        if not lock.locked():
            self._fetching.pop(name, None)
        return path

    # In threads.

    def _keep(self, copy: Path, path: Path) -> None:
        """Take a copy into the cache, whole or not at all, and make room for it."""
        try:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            incoming = path.with_suffix(f".{os.getpid()}.incoming")
            try:
                shutil.copyfile(copy, incoming)
                incoming.replace(path)
            finally:
                incoming.unlink(missing_ok=True)
        except OSError as error:
            raise BlobsUnavailable(f"no room for a copy of a record file: {error}") from None
        kept = []
        for other in self._cache.glob("*.sqlite"):
            with suppress(FileNotFoundError):  # another process is making room too
                found = other.stat()
                kept.append((found.st_mtime_ns, found.st_size, other))
        left = sum(size for _, size, _ in kept) - self._most_bytes
        for _, size, other in sorted(kept):
            if left <= 0:
                break
            if other != path:
                other.unlink(missing_ok=True)
                left -= size

    def _run(self, path: Path, query: Callable[..., T], args: tuple[Any, ...]) -> T:
        connection = self._opened(path)
        try:
            result = query(connection, *args)
        except sqlite3.OperationalError as error:
            connection.close()
            if not path.exists():
                raise BlobNotFound(path.name) from None
            raise BlobsUnavailable(f"a record file cannot be read: {error}") from error
        except BaseException:
            connection.close()
            raise
        self._put_back(path, connection)
        return result

    def _opened(self, path: Path) -> sqlite3.Connection:
        with self._lock:
            for connection, of in reversed(self._idle.items()):
                if of == path:
                    del self._idle[connection]
                    return connection
        try:
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro&immutable=1",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
        except sqlite3.OperationalError:
            raise BlobNotFound(path.name) from None
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
        return connection

    def _put_back(self, path: Path, connection: sqlite3.Connection) -> None:
        with self._lock:
            self._idle[connection] = path
            # A file that was deleted takes room as long as somebody holds it open.
            ended = [idle for idle, of in self._idle.items() if not of.exists()]
            ended += [idle for idle in self._idle if idle not in ended][: max(0, len(self._idle) - _MAX_IDLE)]
            for idle in ended:
                del self._idle[idle]
                idle.close()


def _touched(path: Path) -> bool:
    """Whether it is there; notes that it was wanted."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


# Pages


def page(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    where: Sequence[Condition],
    sort: Sort | None,
    skip: int,
    limit: int,
) -> Page:
    """A page of the records that fulfil all conditions; in the order of the file, or of a column.

    Rows of the same value stand in the order of the file, reversed where the sort is.
    """
    positions = _positions(connection, columns, where, sort, skip, limit + 1)
    return Page(_records(connection, columns, positions[:limit]), len(positions) > limit)


def _positions(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    where: Sequence[Condition],
    sort: Sort | None,
    skip: int,
    count: int,
) -> list[int]:
    text, values = statement(connection, columns, where, sort, skip, count)
    return [position for (position,) in connection.execute(text, values)]


def _records(
    connection: sqlite3.Connection, columns: Sequence[Column], positions: Sequence[int]
) -> list[Record]:
    cells = ", ".join(f"c{index}" for index in range(len(columns)))
    text = f"SELECT id, {cells} FROM records WHERE position = ?"  # noqa: S608
    found = []
    for position in positions:
        row = connection.execute(text, (position,)).fetchone()
        found.append(Record(row[0].hex(), row[1:]))
    return found


# Changes


class Change(NamedTuple):
    """A record that appeared, or one that went away (``values`` is None) in the file of this number."""

    number: int
    record_id: str
    values: tuple[str, ...] | None


class Place(NamedTuple):
    """How far a reader of changes has come.

    Attributes:
        number: all files before this one are read, and of this one the records up to ``record_id``.
        record_id: in hex; empty: none of them; ``z``: all of them.
        begun: the number of the file with which it began with nothing; it needs no older removals.
    """

    number: int = 0
    record_id: str = ""
    begun: int = 0


ALL = "z"


class Changes(NamedTuple):
    """Some changes in order; ``reset``: the reader must forget what it has first."""

    changes: list[Change]
    place: Place
    more: bool
    reset: bool


def changes(
    connection: sqlite3.Connection, columns: Sequence[Column], place: Place | None, limit: int
) -> Changes:
    """What changed after ``place``; None: the reader has nothing.

    The order is that of the files and within one that of the ids. A newer file that arrives between two pages
    changes nothing of what was passed already without also giving it its own, higher number; so going on from
    the same place in the newer file ends with exactly the newer file's records.
    """
    number, base, floor = connection.execute("SELECT number, base, floor FROM meta").fetchone()
    reset = False
    if place is not None and not _reaches(place, number, floor):
        place, reset = None, True
    if place is None:
        place = Place(0, "", number)
    after = _key(place)
    rows: list[tuple[int, bytes, int | None]] = []
    wanted = limit + 1
    for text, values in _parts(after, base):
        if len(rows) < wanted:
            rows += connection.execute(f"{text} LIMIT ?", (*values, wanted - len(rows))).fetchall()
    gone = connection.execute(
        "SELECT number, id, NULL FROM removed WHERE (number, id) > (?, ?) AND number > ?"
        " ORDER BY number, id LIMIT ?",
        (*after, place.begun, wanted),
    ).fetchall()
    rows = sorted(rows + gone, key=lambda row: row[:2])
    more = len(rows) > limit
    rows = rows[:limit]
    there = iter(_records(connection, columns, [row[2] for row in rows if row[2] is not None]))
    found = [
        Change(since, identity.hex(), None if position is None else next(there).values)
        for since, identity, position in rows
    ]
    if more:
        last = found[-1]
        return Changes(found, Place(last.number, last.record_id, place.begun), True, reset)
    return Changes(found, Place(number, ALL, place.begun), False, reset)


def _reaches(place: Place, number: int, floor: int) -> bool:
    """Whether nothing is missing between ``place`` and what the file still knows."""
    if place.number > number:
        return False  # of a file that is not there any more: a database was restored
    return floor <= place.begun or floor < place.number or (floor == place.number and place.record_id == ALL)


def _key(place: Place) -> tuple[int, bytes]:
    if place.record_id == ALL:
        return place.number + 1, b""
    return place.number, bytes.fromhex(place.record_id)


def _parts(after: tuple[int, bytes], base: int) -> list[tuple[str, tuple[Any, ...]]]:
    """Queries for records in the order of changes: those before the file that most are from, of it, after it."""
    log = "SELECT since, id, position FROM log WHERE (since, id) > (?, ?)"
    parts: list[tuple[str, tuple[Any, ...]]] = []
    if after[0] < base:
        parts.append((f"{log} AND since < ? ORDER BY since, id", (*after, base)))
    if after[0] <= base:
        least = after[1] if after[0] == base else b""
        parts.append(
            ("SELECT since, id, position FROM ids WHERE id > ? AND since = ? ORDER BY id", (least, base))
        )
    parts.append((f"{log} AND since > ? ORDER BY since, id", (*after, base)))
    return parts
