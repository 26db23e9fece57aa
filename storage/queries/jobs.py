"""Jobs: reading them for merging and for showing, writing what the merge made of them."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from storage.queries.statements import Hot, Rows, is_sqlite, padded
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


_view_columns = [jobs.c[name] for name in JobView._fields]
_listed = jobs.c.deleted_at.is_(None)

_names = ", ".join(JobRow._fields)
_lock = Hot(
    f"SELECT {_names} FROM jobs WHERE team_id = ? AND client_job_id IN ({{row}})",  # noqa: S608
    f"SELECT {_names} FROM jobs WHERE team_id = $1 AND client_job_id = ANY($2::text[]) "  # noqa: S608
    "ORDER BY client_job_id FOR UPDATE",
)


class JobWrite(NamedTuple):
    """A job as the merge left it. Columns that never change are ignored where the row exists."""

    team_id: int
    job_id: str
    client_job_id: str
    rev: int
    owner_id: str | None
    workflow_id: str | None
    finished: bool
    status: str | None
    excluded: bool
    created_at: int
    modified_at: int
    deleted_at: int | None
    format: int
    view: bytes
    edits: bytes


_CHANGING = (
    *("rev", "owner_id", "workflow_id", "finished", "status", "excluded", "modified_at", "deleted_at"),
    *("format", "view", "edits"),
)
_write = Rows(
    jobs,
    JobWrite._fields,
    "ON CONFLICT (team_id, job_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _CHANGING),
)


def lock(connection: Connection, team_id: int, client_job_ids: Sequence[str]) -> list[JobRow]:
    """The jobs of these ids, tombstones included, locked until the transaction ends."""
    if is_sqlite(connection):
        # The transaction began IMMEDIATE: everything is locked.
        ids = padded(client_job_ids)
        rows = _lock.on_sqlite(connection, len(ids), [team_id, *ids])
    else:
        rows = _lock.on_postgresql(connection, [team_id, list(client_job_ids)])
    return [JobRow(*row) for row in rows]


def write(connection: Connection, rows: Sequence[JobWrite]) -> None:
    """Insert new jobs and rewrite known ones. A new job whose clientJobId is taken clashes."""
    _write.insert(connection, rows)


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


def by_status(
    connection: Connection,
    team_id: int,
    *,
    statuses: Sequence[str] | None,
    workflow_ids: Sequence[str] | None,
    owner_ids: Sequence[str] | None,
    job_ids: Sequence[str] | None,
    after: str | None,
    descending: bool,
    excluded: bool,
    limit: int,
) -> list[JobView]:
    """Jobs in the order of their creation; of what is None it does not matter which.

    Args:
        statuses: folded.
        after: only beyond this job id, in the direction of ``descending``.
        excluded: excluded ones too.
    """
    conditions = [jobs.c.team_id == team_id, _listed]
    if not excluded:
        conditions.append(~jobs.c.excluded)
    if after is not None:
        conditions.append(jobs.c.job_id < after if descending else jobs.c.job_id > after)
    order = jobs.c.job_id.desc() if descending else jobs.c.job_id.asc()
    lists = [
        (column, values)
        for column, values in (
            (jobs.c.job_id, job_ids),
            (jobs.c.workflow_id, workflow_ids),
            (jobs.c.owner_id, owner_ids),
            (jobs.c.status, statuses),
        )
        if values is not None
    ]
    if not lists:
        query = select(*_view_columns).where(*conditions).order_by(order).limit(limit)
        return [JobView(*row) for row in connection.execute(query)]
    # By what most likely leaves the fewest; of each value the jobs lie in order, of several they do not.
    (leading, values), *others = lists
    conditions += [column.in_(padded(each)) for column, each in others]
    found: set[str] = set()
    for value in values:
        query = select(jobs.c.job_id).where(leading == value, *conditions).order_by(order).limit(limit)
        found.update(connection.execute(query).scalars())
    ids = sorted(found, reverse=descending)[:limit]
    if not ids:
        return []
    query = select(*_view_columns).where(jobs.c.team_id == team_id, jobs.c.job_id.in_(padded(ids)))
    rows = {row.job_id: JobView(*row) for row in connection.execute(query)}
    return [rows[job_id] for job_id in ids]


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
