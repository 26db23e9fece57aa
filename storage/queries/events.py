"""Events: the outbox."""

from typing import Any

from sqlalchemy import Connection

from storage.tables import events


def insert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(events.insert(), rows)
