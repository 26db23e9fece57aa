"""What several nouns need of SQL: upserts in either dialect, IN lists of few different lengths."""

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

T = TypeVar("T")


def upsert_insert(connection: Connection, table: Table) -> Any:
    """An INSERT that understands ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


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
