"""Completed jobs: written with the push that completes them, and found by what a query asks for."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from storage.queries.completed_search import BLOCK, TEXTS, TIMES, Wanted, find
from storage.queries.statements import Hot, Rows, is_sqlite, padded
from storage.tables import completed_jobs, jobs

__all__ = ["BLOCK", "MAX_CHARACTERS", "TEXTS", "TIMES", "CompletedWrite", "Found", "Wanted", "cut"]
__all__ += ["forget", "known", "page", "retire", "write"]

#: What is searched by is cut to so many characters: a row of an index of PostgreSQL takes 2,700 bytes. Whoever
#: searches for more compares the job itself.
MAX_CHARACTERS = 500


class CompletedWrite(NamedTuple):
    """A job that is completed, as the merge left it; ``listed``: and not excluded."""

    job_id: str
    listed: bool
    workflow_id: str | None
    workflow_title: str | None
    user_id: str | None
    user_name: str | None
    job_title: str | None
    created_at: int | None
    updated_at: int | None
    modified_at: int


class Found(NamedTuple):
    """A job that was found: ``view`` is its document."""

    seq: int
    job_id: str
    rev: int
    view: bytes


# With more than a few ids SQLite would walk through all of the team's rows: 100 ms of a million.
_known = Hot(
    "SELECT job_id, seq FROM completed_jobs INDEXED BY ix_completed_jobs_job WHERE team_id = ? AND job_id IN ({row})",
    "SELECT job_id, seq FROM completed_jobs WHERE team_id = $1 AND job_id = ANY($2::text[])",
)
_retire = Hot(
    "UPDATE completed_jobs INDEXED BY ix_completed_jobs_job SET listed = 0, completed = 0 "
    "WHERE team_id = ? AND completed AND job_id IN ({row})",
    "UPDATE completed_jobs SET listed = false, completed = false "
    "WHERE team_id = $1 AND completed AND job_id = ANY($2::text[])",
)
_forget = Hot(
    "DELETE FROM completed_jobs INDEXED BY ix_completed_jobs_job WHERE team_id = ? AND job_id IN ({row})",
    "DELETE FROM completed_jobs WHERE team_id = $1 AND job_id = ANY($2::text[])",
)
_write = Rows(
    completed_jobs,
    ("team_id", "seq", "block", "completed", *CompletedWrite._fields),
    "ON CONFLICT (team_id, seq) DO UPDATE SET completed = excluded.completed, "
    + ", ".join(f"{name} = excluded.{name}" for name in CompletedWrite._fields[1:]),
)


def cut(text: str) -> str:
    """A text as it is searched by."""
    return text.replace("\0", "\ufffd")[:MAX_CHARACTERS]


def known(connection: Connection, team_id: int, job_ids: Sequence[str]) -> dict[str, int]:
    """job id -> seq of those jobs that were completed before."""
    if not job_ids:
        return {}
    if is_sqlite(connection):
        ids = padded(job_ids)
        rows = _known.on_sqlite(connection, len(ids), [team_id, *ids])
    else:
        rows = _known.on_postgresql(connection, [team_id, list(job_ids)])
    return {row[0]: row[1] for row in rows}


def retire(connection: Connection, team_id: int, job_ids: Sequence[str]) -> None:
    """These jobs are not completed (any more). They keep their place."""
    if is_sqlite(connection):
        ids = padded(job_ids)
        _retire.on_sqlite(connection, len(ids), [team_id, *ids])
    else:
        _retire.on_postgresql(connection, [team_id, list(job_ids)])


def forget(connection: Connection, team_id: int, job_ids: Sequence[str]) -> None:
    """These jobs were deleted."""
    if is_sqlite(connection):
        ids = padded(job_ids)
        _forget.on_sqlite(connection, len(ids), [team_id, *ids])
    else:
        _forget.on_postgresql(connection, [team_id, list(job_ids)])


def write(connection: Connection, team_id: int, rows: Sequence[tuple[int, CompletedWrite]]) -> None:
    """Write completed jobs with their numbers."""
    _write.insert(connection, [(team_id, seq, seq // BLOCK, True, *row) for seq, row in rows])


def page(connection: Connection, team_id: int, wanted: Wanted, limit: int) -> list[Found]:
    """The first jobs of what is wanted."""
    pairs = find(connection, team_id, wanted, limit)
    return _with_views(connection, team_id, pairs)


def _with_views(connection: Connection, team_id: int, pairs: Sequence[tuple[int, str]]) -> list[Found]:
    if not pairs:
        return []
    query = select(jobs.c.job_id, jobs.c.rev, jobs.c.view).where(
        jobs.c.team_id == team_id,
        jobs.c.job_id.in_(padded([job_id for _, job_id in pairs])),
        jobs.c.deleted_at.is_(None),
    )
    rows = {row.job_id: row for row in connection.execute(query)}
    return [
        Found(seq, job_id, rows[job_id].rev, rows[job_id].view) for seq, job_id in pairs if job_id in rows
    ]
