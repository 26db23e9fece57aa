"""Quarantine: payloads that could not be applied."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select

from storage.queries.statements import upsert_insert
from storage.tables import quarantine


class QuarantineRow(NamedTuple):
    """One kept payload, without its body."""

    quarantine_id: str
    code: str
    detail: str
    field: str | None
    client_job_id: str | None
    subject_id: str
    install_id: str | None
    received_at: int
    last_received_at: int
    times: int
    size: int


_columns = [quarantine.c[name] for name in QuarantineRow._fields]


def put(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Keep payloads, once per body; one that is kept already counts another time."""
    insert = upsert_insert(connection, quarantine)
    statement = insert.on_conflict_do_update(
        index_elements=[quarantine.c.team_id, quarantine.c.body_hash],
        set_={
            "times": quarantine.c.times + 1,
            "last_received_at": insert.excluded.last_received_at,
            "code": insert.excluded.code,
            "detail": insert.excluded.detail,
            "field": insert.excluded.field,
        },
    )
    for row in rows:
        connection.execute(statement, row)


def page(connection: Connection, team_id: int, skip: int, limit: int) -> list[QuarantineRow]:
    """Newest first."""
    query = (
        select(*_columns)
        .where(quarantine.c.team_id == team_id)
        .order_by(quarantine.c.quarantine_id.desc())
        .offset(skip)
        .limit(limit)
    )
    return [QuarantineRow(*row) for row in connection.execute(query)]


def one(connection: Connection, team_id: int, quarantine_id: str) -> tuple[QuarantineRow, bytes] | None:
    """A payload and its body, compressed."""
    query = select(*_columns, quarantine.c.body).where(
        quarantine.c.team_id == team_id, quarantine.c.quarantine_id == quarantine_id
    )
    row = connection.execute(query).one_or_none()
    return (QuarantineRow(*row[:-1]), row[-1]) if row else None


def discard(connection: Connection, team_id: int, quarantine_id: str) -> bool:
    """Forget a payload; answers whether there was one."""
    result = connection.execute(
        delete(quarantine).where(quarantine.c.team_id == team_id, quarantine.c.quarantine_id == quarantine_id)
    )
    return result.rowcount > 0
