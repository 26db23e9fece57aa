"""Pushes: which (install, pushSeq) carried which body."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, or_, select

from storage.queries.statements import padded
from storage.tables import pushes


class PushRow(NamedTuple):
    install_id: str
    push_seq: int
    client_job_id: str
    body_hash: bytes
    rev: int


_columns = [pushes.c[name] for name in PushRow._fields]


def insert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(pushes.insert(), rows)


def same_or_later(
    connection: Connection, team_id: int, numbers: Sequence[tuple[str, str, int]]
) -> list[PushRow]:
    """Pushes known under these (install, clientJobId, pushSeq), and later ones of the same install and job.

    The first tell replays from clones; the second tell that a push comes late.
    """
    query = select(*_columns).where(
        pushes.c.team_id == team_id,
        or_(
            *(
                and_(
                    pushes.c.install_id == install,
                    or_(
                        pushes.c.push_seq == seq,
                        and_(pushes.c.push_seq > seq, pushes.c.client_job_id == client_job_id),
                    ),
                    pushes.c.push_seq >= seq,
                )
                for install, client_job_id, seq in padded(numbers)
            )
        ),
    )
    return [PushRow(*row) for row in connection.execute(query)]
