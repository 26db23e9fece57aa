"""Snapshots: the history of jobs."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, bindparam, select, update

from storage.queries.statements import Rows, padded
from storage.tables import jobs, snapshots


class SnapshotRow(NamedTuple):
    """One body of the history; ``body`` is compressed."""

    snapshot_id: str
    received_at: int
    rev: int
    install_id: str
    push_seq: int | None
    clock_offset: int
    size: int
    body: bytes


_columns = [snapshots.c[name] for name in SnapshotRow._fields]
_known = select(snapshots.c.job_id, snapshots.c.body_hash).where(
    snapshots.c.team_id == bindparam("team"),
    snapshots.c.job_id.in_(bindparam("jobs", expanding=True)),
    snapshots.c.body_hash.in_(bindparam("hashes", expanding=True)),
)


class SnapshotWrite(NamedTuple):
    """A body to keep; ``body`` is compressed, ``clock_offset`` in microseconds."""

    team_id: int
    job_id: str
    body_hash: bytes
    snapshot_id: str
    rev: int
    install_id: str
    push_seq: int | None
    received_at: int
    clock_offset: int
    size: int
    body: bytes


_write = Rows(snapshots, SnapshotWrite._fields, "ON CONFLICT (team_id, job_id, body_hash) DO NOTHING")


def insert(connection: Connection, rows: Sequence[SnapshotWrite]) -> None:
    """Keep bodies that are not kept yet."""
    _write.insert(connection, rows)


def known(
    connection: Connection, team_id: int, job_ids: Sequence[str], body_hashes: Sequence[bytes]
) -> set[tuple[str, bytes]]:
    """Which of these bodies these jobs have had."""
    rows = connection.execute(
        _known, {"team": team_id, "jobs": padded(job_ids), "hashes": padded(body_hashes)}
    )
    return {(row.job_id, bytes(row.body_hash)) for row in rows}


def body(connection: Connection, team_id: int, job_id: str, body_hash: bytes) -> bytes | None:
    """One kept body, compressed."""
    query = select(snapshots.c.body).where(
        snapshots.c.team_id == team_id, snapshots.c.job_id == job_id, snapshots.c.body_hash == body_hash
    )
    return connection.execute(query).scalar_one_or_none()


def of_job(
    connection: Connection, team_id: int, client_job_id: str, skip: int, limit: int
) -> list[SnapshotRow] | None:
    """The history of a job, newest first; None if there is no such job."""
    job_id = connection.execute(
        select(jobs.c.job_id).where(
            jobs.c.team_id == team_id, jobs.c.client_job_id == client_job_id, jobs.c.deleted_at.is_(None)
        )
    ).scalar_one_or_none()
    if job_id is None:
        return None
    mine = and_(snapshots.c.team_id == team_id, snapshots.c.job_id == job_id)
    # Sorting ids first, so that the sorter does not carry bodies.
    wanted = (
        select(snapshots.c.snapshot_id)
        .where(mine)
        .order_by(snapshots.c.snapshot_id.desc())
        .offset(skip)
        .limit(limit)
    )
    ids = list(connection.execute(wanted).scalars())
    if not ids:
        return []
    query = select(*_columns).where(mine, snapshots.c.snapshot_id.in_(ids))
    rows = [SnapshotRow(*row) for row in connection.execute(query)]
    return sorted(rows, key=lambda row: row.snapshot_id, reverse=True)


def drop_bodies(connection: Connection, team_id: int, job_ids: Sequence[str]) -> None:
    """Forget the bodies of deleted jobs; that there were such bodies stays known, for replays."""
    connection.execute(
        update(snapshots)
        .where(snapshots.c.team_id == team_id, snapshots.c.job_id.in_(padded(job_ids)))
        .values(body=b"")
    )
