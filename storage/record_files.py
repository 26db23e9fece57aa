"""Record files: what one is made of, and how it is written. A SQLite file of its own for each imported table.

It is written once, by one process, and never changed: there is no journal and no lock. `records` holds the rows
as texts, with an index for each of the first columns. `ids` says in which file of the collection each record
appeared first, `removed` in which one a record went away; a reader of changes reads both in the order of the
numbers. `log` is an index of `ids` without the number that most records have, `base` of the table `meta`.
"""

import sqlite3
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import NamedTuple

__all__ = ["BLOCK", "ID_BYTES", "NUMBER_DIGITS", "Column", "Writer", "key_of"]

ID_BYTES = 16
#: Digits that a number has at most: with these, no two texts of different numbers become the same one.
NUMBER_DIGITS = 15
#: Rows for which the smallest and the largest value of each column are kept (the table `blocks`): a search in
#: the order of the file passes over those that cannot hold what it looks for.
BLOCK = 250
#: Columns that get an index: no more, and no more entries altogether than are written in some seconds.
MAX_INDEXED = 30
MAX_ENTRIES = 8_000_000
#: Removals that are kept at least. Beyond, no more than there are records: starting anew is cheaper for a reader.
LEAST_REMOVED = 10_000

_CACHE_KB = 65_536
#: Rows of one INSERT: as fast as more of them, and a quarter faster than one.
_AT_ONCE = 10


class Column(NamedTuple):
    """A column.

    Attributes:
        name: under which it is asked for; unique within the table.
        type: `text`, `number` or `date`.
        scale: digits behind the point, of numbers.
        indexed: whether a search uses an index.
    """

    name: str
    type: str
    scale: int = 0
    indexed: bool = False


#: Smallest and largest value of each column in one block; None: not known.
Extremes = Sequence[tuple[object, object] | None]


def key_of(index: int, column: Column) -> str:
    """SQL for what a column is compared and sorted by, word for word what its index is made of.

    Whole numbers: sorting them takes half the time. A cell without a value has none.
    """
    if column.type == "number":
        return f"CAST(ROUND(CAST(NULLIF(c{index}, '') AS REAL) * {10**column.scale}) AS INTEGER)"
    if column.type == "date":
        return date_key(f"c{index}")
    return f"c{index}"


def date_key(value: str) -> str:
    """SQL for a date as milliseconds."""
    return f"CAST(julianday({value}) * 86400000 + 0.5 AS INTEGER)"


class Writer:
    """Writes one record file.

    Args:
        path: where; nothing is there yet.
        width: how many columns the table has.
        seed: what the identity of a record depends on beside its values.
    """

    def __init__(self, path: Path, width: int, seed: bytes) -> None:
        self._width = width
        self._seed = seed
        self._connection = sqlite3.connect(path.absolute().as_uri(), uri=True, isolation_level=None)
        execute = self._connection.execute
        # A crash leaves a file that nobody looks at again.
        execute("PRAGMA page_size = 8192")
        execute("PRAGMA journal_mode = OFF")
        execute("PRAGMA synchronous = OFF")
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA temp_store = FILE")
        execute(f"PRAGMA cache_size = -{_CACHE_KB}")
        execute("BEGIN")
        columns = ", ".join(f"c{index} TEXT NOT NULL" for index in range(width))
        execute(f"CREATE TABLE records (position INTEGER PRIMARY KEY, id BLOB NOT NULL, {columns})")
        row = f"(NULL, ?{', ?' * width})"
        # Names are made here, values are bound; of these there may be 32,766.
        self._at_once = max(1, min(_AT_ONCE, 32_000 // (width + 1)))
        self._insert = f"INSERT INTO records VALUES {row}"  # noqa: S608
        self._insert_many = f"INSERT INTO records VALUES {', '.join([row] * self._at_once)}"  # noqa: S608

    def close(self) -> None:
        self._connection.close()

    def add(self, rows: Sequence[Sequence[str]]) -> None:
        """The next rows, each with a text for every column; none holds a NUL."""
        seed, join = self._seed, "\0".join
        identified = [
            (blake2b(seed + join(row).encode(), digest_size=ID_BYTES).digest(), *row) for row in rows
        ]
        whole = len(identified) - len(identified) % self._at_once
        execute, flat = self._connection.execute, chain.from_iterable
        for start in range(0, whole, self._at_once):
            execute(self._insert_many, list(flat(identified[start : start + self._at_once])))
        self._connection.executemany(self._insert, identified[whole:])

    def finish(
        self,
        number: int,
        columns: Sequence[Column],
        blocks: Sequence[Extremes],
        previous: Path | None,
        least_removed: int = LEAST_REMOVED,
    ) -> list[Column]:
        """Everything that follows from the rows; answers the columns with what is indexed.

        Args:
            number: of this file within its collection.
            blocks: of each :data:`BLOCK` rows.
            previous: the record file that this one takes the place of.
        """
        execute = self._connection.execute
        (count,) = execute("SELECT coalesce(max(position), 0) FROM records").fetchone()
        execute("CREATE TABLE removed (number INTEGER, id BLOB, PRIMARY KEY (number, id)) WITHOUT ROWID")
        execute(
            "CREATE TABLE log (since INTEGER, id BLOB, position INTEGER, PRIMARY KEY (since, id)) WITHOUT ROWID"
        )
        # Nothing is known of what was before: whoever has read it begins anew.
        base = floor = number
        if previous is None:
            self._fill_ids(count, number)
        else:
            # Attaching is not possible within a transaction.
            execute("COMMIT")
            execute("ATTACH ? AS old", (f"{previous.absolute().as_uri()}?mode=ro&immutable=1",))
            execute("BEGIN")
            old_base, floor = execute("SELECT base, floor FROM old.meta").fetchone()
            self._fill_ids(count, old_base)
            self._carry_over(number)
            self._fill_removed(number)
            floor = self._prune(floor, max(count, least_removed))
            counts = execute("SELECT since FROM ids GROUP BY since ORDER BY count(*) DESC, since LIMIT 1")
            base = next(counts, (number,))[0]
            execute("INSERT INTO log SELECT since, id, position FROM ids WHERE since <> ?", (base,))
            execute("COMMIT")
            execute("DETACH old")
            execute("BEGIN")
        execute(
            "CREATE TABLE meta (number INTEGER, records INTEGER, base INTEGER, floor INTEGER, sided INTEGER)"
        )
        sided = min(len(columns), MAX_INDEXED)
        execute("INSERT INTO meta VALUES (?, ?, ?, ?, ?)", (number, count, base, floor, sided))
        indexed = self._index(count, columns)
        self._write_blocks(count, sided, blocks)
        execute("COMMIT")
        return indexed

    def _fill_ids(self, count: int, since: int) -> None:
        """Every record as one that appeared in the file ``since``."""
        execute = self._connection.execute
        execute("CREATE TABLE ids (id BLOB PRIMARY KEY, since INTEGER, position INTEGER) WITHOUT ROWID")
        fill = "INSERT OR IGNORE INTO ids SELECT id, ?, position FROM records ORDER BY id"
        if execute(fill, (since,)).rowcount < count:
            # Some rows are equal. Ignored and not refused: without a journal, no statement is taken back.
            execute("DELETE FROM ids")
            self._tell_equal_rows_apart()
            execute(fill, (since,))

    def _carry_over(self, number: int) -> None:
        """Of the records that did not appear in the file that most of the old ones are from: in which they did.

        Both files have their ids in order, so they are compared in one pass over both (EXCEPT with ORDER BY
        merges): a million look-ups took three times as long.
        """
        execute = self._connection.execute
        execute("CREATE TEMP TABLE new (id BLOB PRIMARY KEY) WITHOUT ROWID")
        execute("INSERT INTO new SELECT id FROM ids EXCEPT SELECT id FROM old.ids ORDER BY 1")
        execute("UPDATE ids SET since = o.since FROM old.log AS o WHERE o.id = ids.id")
        execute("UPDATE ids SET since = ? WHERE id IN (SELECT id FROM new)", (number,))
        execute("DROP TABLE new")

    def _tell_equal_rows_apart(self) -> None:
        """The second of two equal rows gets an identity of its own, and so on."""
        execute = self._connection.execute
        execute("CREATE TEMP TABLE again (position INTEGER PRIMARY KEY, id BLOB)")
        self._connection.create_function("again_id", 2, _again, deterministic=True)
        execute(
            "INSERT INTO again SELECT position, again_id(id, nth) FROM (SELECT position, id, row_number() OVER"
            " (PARTITION BY id ORDER BY position) AS nth FROM records) WHERE nth > 1"
        )
        execute("UPDATE records SET id = again.id FROM again WHERE again.position = records.position")
        execute("DROP TABLE again")

    def _fill_removed(self, number: int) -> None:
        gone = "NOT EXISTS (SELECT 1 FROM ids WHERE ids.id = o.id)"
        self._connection.execute(
            f"INSERT INTO removed SELECT o.number, o.id FROM old.removed AS o WHERE {gone}"  # noqa: S608
        )
        self._connection.execute(
            "INSERT INTO removed SELECT ?, id FROM (SELECT id FROM old.ids EXCEPT SELECT id FROM ids ORDER BY 1)",
            (number,),
        )

    def _prune(self, floor: int, most: int) -> int:
        """Forget the oldest removals beyond ``most``; answers the newest number that has lost some."""
        left = 0
        counts = self._connection.execute(
            "SELECT number, count(*) FROM removed GROUP BY number ORDER BY number DESC"
        )
        for number, count in counts.fetchall():
            left += count
            if left > most:
                self._connection.execute("DELETE FROM removed WHERE number <= ?", (number,))
                return max(floor, int(number))
        return floor

    def _index(self, count: int, columns: Sequence[Column]) -> list[Column]:
        most = min(MAX_INDEXED, max(1, MAX_ENTRIES // max(1, count)))
        for index, column in enumerate(columns[:most]):
            self._connection.execute(f"CREATE INDEX i{index} ON records ({key_of(index, column)})")
        return [column._replace(indexed=index < most) for index, column in enumerate(columns)]

    def _write_blocks(self, count: int, width: int, blocks: Sequence[Extremes]) -> None:
        execute = self._connection.execute
        sides = "".join(f", low{index}, high{index}" for index in range(width))
        execute(f"CREATE TABLE blocks (first INTEGER PRIMARY KEY, last INTEGER{sides})")
        if blocks:
            insert = f"INSERT INTO blocks VALUES (?, ?{', ?' * (2 * width)})"  # noqa: S608
            rows = []
            for number, extremes in enumerate(blocks):
                sides_of = chain.from_iterable(pair or (None, None) for pair in extremes[:width])
                first = number * BLOCK + 1
                rows.append((first, min(first + BLOCK - 1, count), *sides_of))
            self._connection.executemany(insert, rows)


def _again(identity: bytes, nth: int) -> bytes:
    return blake2b(identity + nth.to_bytes(8, "big"), digest_size=ID_BYTES).digest()
