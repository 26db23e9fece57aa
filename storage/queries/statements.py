"""What several nouns need of SQL: statements of the hot path, upserts, IN lists of few different lengths."""

from collections.abc import Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")


def upsert_insert(connection: Connection, table: Table) -> Any:
    """An INSERT that understands ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


_POSTGRESQL: Dialect = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]


class Hot:
    """A statement of the ingest's transaction, written for both drivers.

    Ten of these run for every group of pushes. SQLAlchemy's execution of a statement takes longer than
    SQLite's, so on SQLite they go to the driver's connection, inside the transaction that SQLAlchemy began.

    Args:
        sqlite: with ``?``; ``{row}`` stands for the place of one value (or of ``width`` in brackets),
            repeated as often as there are values.
        postgresql: with ``$1``; lists go as one array.
        width: how many columns a value of the list has.
    """

    def __init__(self, sqlite: str, postgresql: str, width: int = 1) -> None:
        self._text = cache(lambda count: sqlite.replace("{row}", ", ".join([_places(width)] * count)))
        self._postgresql = postgresql

    def on_sqlite(self, connection: Connection, count: int, values: Sequence[Any]) -> list[Any]:
        """The rows; ``count`` is the length of the list."""
        driver: Any = connection.connection.dbapi_connection
        rows: list[Any] = driver.execute(self._text(count), values).fetchall()
        return rows

    def on_postgresql(self, connection: Connection, values: Sequence[Any]) -> list[Any]:
        """The rows, if it answers any."""
        result = connection.exec_driver_sql(self._postgresql, tuple(values))
        return list(result) if result.returns_rows else []


def is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _places(width: int) -> str:
    return "?" if width == 1 else f"({', '.join('?' * width)})"


class Rows:
    """INSERT of many rows into a table, as fast as the driver allows; one object per statement.

    All rows go in one statement. SQLite's driver gives the interpreter's lock away at each step of a
    statement, and with a busy event loop it takes long to get it back; PostgreSQL takes the rows as one
    array for each column.

    Args:
        columns: in the order of the values.
        on_conflict: what follows the values: an ON CONFLICT clause, spelled alike in both databases.
    """

    def __init__(self, table: Table, columns: Sequence[str], on_conflict: str = "") -> None:
        unknown = set(columns) - set(table.c.keys())
        if unknown:
            raise ValueError(f"{table.name} has no columns {sorted(unknown)}")
        # Names and types come from the table definitions, values are bound.
        into = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES "  # noqa: S608
        arrays = ", ".join(
            f"${number}::{_POSTGRESQL.type_compiler_instance.process(table.c[name].type)}[]"
            for number, name in enumerate(columns, start=1)
        )
        self._hot = Hot(
            f"{into}{{row}} {on_conflict}",
            f"{into.removesuffix('VALUES ')}SELECT * FROM unnest({arrays}) {on_conflict}",  # noqa: S608
            len(columns),
        )

    def insert(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert ``rows``, whose values stand in the order of the columns."""
        if is_sqlite(connection):
            self._hot.on_sqlite(connection, len(rows), [value for row in rows for value in row])
        else:
            self._hot.on_postgresql(connection, [list(values) for values in zip(*rows, strict=True)])


def padded(values: Sequence[T]) -> list[T]:
    """``values`` repeated at the end up to a power of two.

    An IN list of another length is another statement to compile, and another one to prepare on
    PostgreSQL; with this there are seven for batches of up to 64.
    """
    result = list(values)
    size = 1
    while size < len(result):
        size *= 2
    result.extend([result[-1]] * (size - len(result)))
    return result
