"""Jobs: reading them for merging and for showing, writing what the merge made of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from storage.queries.statements import padded
from storage.tables import jobs


class JobRow(NamedTuple):
    """A stored job; ``deleted_at`` marks a tombstone, whose ``view`` and ``edits`` are empty."""

    job_id: str
    client_job_id: str
    rev: int
    owner_id: str | None
    created_at: int
    modified_at: int
    deleted_at: int | None
    view: bytes
    edits: bytes


class JobView(NamedTuple):
    """What showing a job takes."""

    job_id: str
    client_job_id: str
    rev: int
    owner_id: str | None
    modified_at: int
    view: bytes


_columns = [jobs.c[name] for name in JobRow._fields]
_view_columns = [jobs.c[name] for name in JobView._fields]
_listed = jobs.c.deleted_at.is_(None)

_lock = (
    select(*_columns)
    .where(jobs.c.team_id == bindparam("team"), jobs.c.client_job_id.in_(bindparam("ids", expanding=True)))
    .order_by(jobs.c.client_job_id)
    .with_for_update()
)
_insert = jobs.insert()
_update = (
    update(jobs)
    .where(jobs.c.team_id == bindparam("b_team_id"), jobs.c.job_id == bindparam("b_job_id"))
    .values(
        {
            name: bindparam(name)
            for name in (
                *("rev", "owner_id", "workflow_id", "finished", "modified_at", "deleted_at"),
                *("format", "view", "edits"),
            )
        }
    )
)


def lock(connection: Connection, team_id: int, client_job_ids: Sequence[str]) -> list[JobRow]:
    """The jobs of these ids, tombstones included, locked until the transaction ends."""
    rows = connection.execute(_lock, {"team": team_id, "ids": padded(client_job_ids)})
    return [JobRow(*row) for row in rows]


def insert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(_insert, rows)


def rewrite(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Replace what merging changes of known jobs; ``b_team_id`` and ``b_job_id`` say which."""
    connection.execute(_update, rows)


def by_client_job_id(connection: Connection, team_id: int, client_job_id: str) -> JobView | None:
    query = select(*_view_columns).where(
        jobs.c.team_id == team_id, jobs.c.client_job_id == client_job_id, _listed
    )
    row = connection.execute(query).one_or_none()
    return JobView(*row) if row else None


def by_job_id(connection: Connection, team_id: int, job_id: str) -> JobView | None:
    query = select(*_view_columns).where(jobs.c.team_id == team_id, jobs.c.job_id == job_id, _listed)
    row = connection.execute(query).one_or_none()
    return JobView(*row) if row else None


def page(
    connection: Connection,
    team_id: int,
    *,
    limit: int,
    skip: int = 0,
    before: str | None = None,
    owner_id: str | None = None,
    workflow_id: str | None = None,
) -> list[JobView]:
    """Jobs, newest first.

    Args:
        before: only jobs older than the one of this job id: where the last page ended.
        skip: how many to pass over; counted in the index alone, so that it costs no bodies.
    """
    conditions = [jobs.c.team_id == team_id, _listed]
    if owner_id is not None:
        conditions.append(jobs.c.owner_id == owner_id)
    if workflow_id is not None:
        conditions.append(jobs.c.workflow_id == workflow_id)
    if skip:
        first = select(jobs.c.job_id).where(*conditions).order_by(jobs.c.job_id.desc()).offset(skip).limit(1)
        start = connection.execute(first).scalar_one_or_none()
        if start is None:
            return []
        conditions.append(jobs.c.job_id <= start)
    if before is not None:
        conditions.append(jobs.c.job_id < before)
    query = select(*_view_columns).where(*conditions).order_by(jobs.c.job_id.desc()).limit(limit)
    return [JobView(*row) for row in connection.execute(query)]


def open_ids(
    connection: Connection, team_id: int, owner_id: str | None, after: str, limit: int
) -> list[tuple[str, str]]:
    """(jobId, clientJobId) of unfinished jobs beyond ``after``, of one owner or of all."""
    conditions = [jobs.c.team_id == team_id, _listed, ~jobs.c.finished, jobs.c.job_id > after]
    if owner_id is not None:
        conditions.append(jobs.c.owner_id == owner_id)
    query = (
        select(jobs.c.job_id, jobs.c.client_job_id).where(*conditions).order_by(jobs.c.job_id).limit(limit)
    )
    return [(row.job_id, row.client_job_id) for row in connection.execute(query)]
