"""Records of collections: reading the files that storage/record_files.py writes.

They never change, so they are opened without locks, by as many readers as there are. Which index answers a
question is decided here and not by SQLite: it knows neither how many rows a value has nor that a page needs few.
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
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, FolderBlobs
from storage.blobs.threads import Threads
from storage.record_files import Column, date_key, key_of

__all__ = ["Change", "Column", "Condition", "Page", "Record", "RecordFiles", "Sort", "page"]

T = TypeVar("T")

_THREADS = 4
#: Open files that nobody reads at the moment, and what each may keep in memory.
_MAX_IDLE = 16
_CACHE_KB = 4096
_MMAP_BYTES = 1024**3
_CACHE_BYTES = 2 * 1024**3
#: So many rows are always looked at one by one and sorted, some milliseconds. Of more, it depends on how soon a
#: page would be full if all rows were read in the order asked for.
_FEW = 5_000
#: As far as is counted how many rows a condition leads to.
_COUNTED = 20_000
#: What part of the rows those beyond are taken for. Too large a guess costs much more than too small a one.
_MANY = 0.1
#: What reading a row in the order of the file costs beside one found by an index.
_IN_FILE_ORDER = 0.15
_LARGEST = 2**62


class Condition(NamedTuple):
    """What a record must fulfil. ``operator``: ``=``, ``!=``, ``^=``, ``<``, ``<=``, ``>`` or ``>=``.

    Attributes:
        column: its place in the table.
        value: of a number or a date, one of that type, or empty, which stands for no value.
    """

    column: int
    operator: str
    value: str


class Sort(NamedTuple):
    """By which column a page is sorted."""

    column: int
    descending: bool


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


class _Test(NamedTuple):
    """A condition as SQL. ``span``: the values between which all that fulfil it lie, if it is one range."""

    condition: Condition
    sql: str
    values: tuple[Any, ...]
    span: tuple[Any, Any] | None
    indexed: bool


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


def statement(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    where: Sequence[Condition],
    sort: Sort | None,
    skip: int,
    count: int,
) -> tuple[str, list[Any]]:
    """The SELECT that finds the places of a page's rows, with its values."""
    tests = [_test(connection, columns, condition) for condition in where]
    if not tests and sort is None:
        # Places are numbered without gaps.
        return "SELECT position FROM records WHERE position > ? ORDER BY position LIMIT ?", [skip, count]
    values = [value for test in tests for value in test.values]
    fulfilled = f" WHERE {' AND '.join(test.sql for test in tests)}" if tests else ""
    direction = "DESC" if sort and sort.descending else "ASC"
    order = f"position {direction}"
    if sort is not None:
        order = f"{key_of(sort.column, columns[sort.column])} {direction}, {order}"
    (sided,) = connection.execute("SELECT sided FROM meta").fetchone()
    spans = [test for test in tests if test.span is not None and test.condition.column < sided]
    source = _source(connection, columns, tests, sort, skip + count, bool(spans))
    text = f"SELECT position FROM {source}{fulfilled} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
    if source == _BLOCKS:
        between, more = "", []
        for test in spans:
            assert test.span is not None
            low, high = test.span
            index = test.condition.column
            # Of a column without known sides nothing can be passed over.
            between += f" AND (low{index} IS NULL OR (low{index} <= ? AND high{index} >= ?))"
            more += [_HIGHEST if high is None else high, _LOWEST if low is None else low]
        text = (
            f"SELECT position FROM {source} WHERE position BETWEEN first AND last{between}"  # noqa: S608
            f" AND {' AND '.join(test.sql for test in tests)} ORDER BY first LIMIT ? OFFSET ?"
        )
        values = more + values
    return text, [*values, count, skip]


#: Before and after every value there is: SQLite sorts numbers before texts before blobs.
_LOWEST, _HIGHEST = -(2**63), b"\xff"
#: Not indexed: an index would change the order within a block.
_BLOCKS = "blocks CROSS JOIN records NOT INDEXED"


def _source(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    tests: Sequence[_Test],
    sort: Sort | None,
    wanted: int,
    spans: bool,
) -> str:
    """The table with the index that finds the rows soonest."""
    usable = [test for test in tests if test.indexed]
    if sort is None:
        # The rows of one value stand in the order of the file.
        equal = [test for test in usable if test.condition.operator == "="]
        if len(tests) == 1 and equal:
            return f"records INDEXED BY i{equal[0].condition.column}"
    elif columns[sort.column].indexed and all(test.condition.column == sort.column for test in tests):
        return f"records INDEXED BY i{sort.column}"
    of = _worth_it(connection, usable, wanted, 1.0 if sort else _IN_FILE_ORDER)
    if of is not None:
        return f"records INDEXED BY i{of}"
    if sort is not None:
        column = sort.column
        return f"records INDEXED BY i{column}" if columns[column].indexed else "records NOT INDEXED"
    return _BLOCKS if spans else "records NOT INDEXED"


def _worth_it(
    connection: sqlite3.Connection, usable: Sequence[_Test], wanted: int, cost: float
) -> int | None:
    """The column whose index leads to so few rows that looking at all of them is best; None: reading the rows
    in the order asked for, until ``wanted`` are found, is cheaper.

    Args:
        cost: of reading a row in the order asked for, in parts of that of one found by an index.
    """
    (records,) = connection.execute("SELECT records FROM meta").fetchone()
    if not usable or not records:
        return None
    fewest, of, part = _COUNTED, None, 1.0
    for column in {test.condition.column for test in usable}:
        together = [test for test in usable if test.condition.column == column]
        counting = (
            f"SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY i{column}"  # noqa: S608
            f" WHERE {' AND '.join(test.sql for test in together)} LIMIT {_COUNTED})"
        )
        values = [value for test in together for value in test.values]
        (found,) = connection.execute(counting, values).fetchone()
        part *= found / records if found < _COUNTED else _MANY
        if found < fewest:
            fewest, of = found, column
    if fewest <= _FEW:
        return of
    read = (
        min(records, wanted / part) if part else records
    )  # if what the conditions ask for has nothing to do with the order
    return of if fewest < read * cost else None


def _test(connection: sqlite3.Connection, columns: Sequence[Column], condition: Condition) -> _Test:
    column = columns[condition.column]
    key = key_of(condition.column, column)
    operator, text = condition.operator, condition.value
    # Of nearly all rows, no index finds those that are another value's.
    indexed = column.indexed and operator != "!="
    if operator == "^=":
        if not text:
            return _Test(condition, f"{key} >= ?", ("",), ("", None), indexed)
        after = _after(text)
        if after is None:
            return _Test(condition, f"{key} >= ?", (text,), (text, None), indexed)
        return _Test(condition, f"{key} >= ? AND {key} < ?", (text, after), (text, after), indexed)
    if column.type == "text":
        value: Any = text
    elif not text:
        sql = f"{key} IS NULL" if operator == "=" else f"{key} IS NOT NULL"
        return _Test(condition, sql, (), None, indexed)
    elif column.type == "number":
        value = _number(text, column.scale)
    else:
        (value,) = connection.execute(f"SELECT {date_key('?')}", (text,)).fetchone()
    if operator == "!=":
        return _Test(condition, f"{key} IS NOT ?", (value,), None, False)
    span = {
        "=": (value, value),
        "<": (None, value),
        "<=": (None, value),
        ">": (value, None),
        ">=": (value, None),
    }[operator]
    return _Test(condition, f"{key} {operator} ?", (value,), span, indexed)


def _number(text: str, scale: int) -> int | float:
    """A number as the columns of this scale are compared."""
    scaled = Decimal(text).scaleb(scale)
    if abs(scaled) > _LARGEST:
        return _LARGEST if scaled > 0 else -_LARGEST
    whole = int(scaled)
    # Between two that the column can hold: any number between them compares as it does.
    return whole if whole == scaled else whole + (0.5 if scaled > 0 else -0.5)


def _after(text: str) -> str | None:
    """The first text after all that begin with ``text``; None if there is none."""
    while text:
        last = ord(text[-1])
        if last < 0x10FFFF:
            # Surrogates are no characters.
            return text[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        text = text[:-1]
    return None


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
