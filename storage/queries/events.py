"""Events: the outbox."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection

from storage.queries.statements import Rows
from storage.tables import events


class EventWrite(NamedTuple):
    """Something that happened to a job; ``type`` as in the table."""

    team_id: int
    event_id: str
    type: str
    job_id: str
    client_job_id: str
    rev: int
    created_at: int


_write = Rows(events, EventWrite._fields)


def insert(connection: Connection, rows: Sequence[EventWrite]) -> None:
    """Write events in the transaction of their cause."""
    _write.insert(connection, rows)
