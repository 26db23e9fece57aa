"""Pushes: which (install, pushSeq) carried which body."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from storage.queries.statements import Hot, Rows, is_sqlite, padded
from storage.tables import pushes


class PushRow(NamedTuple):
    """A push that was applied."""

    install_id: str
    push_seq: int
    client_job_id: str
    body_hash: bytes


class PushWrite(NamedTuple):
    """A push to remember; ``clock_offset`` in microseconds."""

    team_id: int
    install_id: str
    push_seq: int
    client_job_id: str
    body_hash: bytes
    rev: int
    received_at: int
    clock_offset: int


_columns = [pushes.c[name] for name in PushRow._fields]
_names = ", ".join(PushRow._fields)
_known = Hot(
    # Asked as `(install_id, push_seq) IN (VALUES …)`, SQLite reads every push of the team.
    f"WITH wanted (install, seq) AS (VALUES {{row}}) SELECT {_names} FROM wanted CROSS JOIN pushes "  # noqa: S608
    "WHERE team_id = ? AND install_id = wanted.install AND push_seq = wanted.seq",
    f"SELECT {_names} FROM pushes JOIN unnest($2::text[], $3::bigint[]) AS wanted (install, seq) "  # noqa: S608
    "ON team_id = $1 AND install_id = wanted.install AND push_seq = wanted.seq",
    width=2,
)
_write = Rows(pushes, PushWrite._fields)


def insert(connection: Connection, rows: Sequence[PushWrite]) -> None:
    """Remember pushes. One that another transaction has remembered meanwhile clashes."""
    _write.insert(connection, rows)


def known(connection: Connection, team_id: int, numbers: Sequence[tuple[str, int]]) -> list[PushRow]:
    """What came under these (install, pushSeq) before."""
    if is_sqlite(connection):
        pairs = padded(numbers)
        rows = _known.on_sqlite(
            connection, len(pairs), [*(value for pair in pairs for value in pair), team_id]
        )
    else:
        rows = _known.on_postgresql(
            connection, [team_id, [install for install, _ in numbers], [seq for _, seq in numbers]]
        )
    return [PushRow(*row) for row in rows]


def later(
    connection: Connection, team_id: int, install_id: str, push_seq: int, client_job_id: str
) -> list[PushRow]:
    """Pushes of an install to a job beyond ``push_seq``."""
    query = select(*_columns).where(
        pushes.c.team_id == team_id,
        pushes.c.install_id == install_id,
        pushes.c.push_seq > push_seq,
        pushes.c.client_job_id == client_job_id,
    )
    return [PushRow(*row) for row in connection.execute(query)]
