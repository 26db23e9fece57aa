"""Attachment references: which jobs refer to which files, and which of these have arrived."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, case, delete, exists, func, select, tuple_, update

from storage.queries.statements import Hot, Rows, is_sqlite, padded
from storage.tables import attachment_references as references
from storage.tables import attachments

MISSING = "missing"


class JobFiles(NamedTuple):
    """How many files a job refers to, how many of them have not come, how many are without their thumbnails yet,
    and when the last of these came (0: there is none).
    """

    total: int
    missing: int
    in_the_making: int
    last_stored_at: int


#: Touches each row also where it exists: PostgreSQL then waits for whoever stores that file, and whoever
#: stores it later waits for us, so that one of the two sees the other.
_touched = (
    "ON CONFLICT (team_id, attachment_id) DO UPDATE SET orphaned_at = NULL RETURNING attachment_id, state"
)
_expect = Hot(
    f"INSERT INTO attachments (team_id, attachment_id, state, created_at) VALUES {{row}} {_touched}",  # noqa: S608
    "INSERT INTO attachments (team_id, attachment_id, state, created_at) "  # noqa: S608
    f"SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) {_touched}",
    width=4,
)
_refer = Rows(references, ("team_id", "attachment_id", "job_id"), "ON CONFLICT DO NOTHING")


def expect(connection: Connection, team_id: int, attachment_ids: Sequence[str], now: int) -> set[str]:
    """Make files known that a job will refer to; answers which of them are stored already."""
    rows = [(team_id, attachment_id, MISSING, now) for attachment_id in sorted(set(attachment_ids))]
    if is_sqlite(connection):
        found = _expect.on_sqlite(connection, len(rows), [value for row in rows for value in row])
    else:
        found = _expect.on_postgresql(connection, [list(values) for values in zip(*rows, strict=True)])
    return {attachment_id for attachment_id, state in found if state != MISSING}


def stored_among(connection: Connection, team_id: int, attachment_ids: Sequence[str]) -> frozenset[str]:
    """Which of these files are stored."""
    if not attachment_ids:
        return frozenset()
    query = select(attachments.c.attachment_id).where(
        attachments.c.team_id == team_id,
        attachments.c.attachment_id.in_(padded(attachment_ids)),
        attachments.c.state != MISSING,
    )
    return frozenset(connection.execute(query).scalars())


def files_of_job(connection: Connection, team_id: int, job_id: str) -> JobFiles:
    """How far a job's files are."""
    in_the_making = attachments.c.state == "stored"
    query = (
        select(
            func.count(),
            func.count(case((attachments.c.state == MISSING, 1))),
            func.count(case((in_the_making, 1))),
            func.coalesce(func.max(case((in_the_making, attachments.c.stored_at))), 0),
        )
        .join(
            references,
            (references.c.team_id == attachments.c.team_id)
            & (references.c.attachment_id == attachments.c.attachment_id),
        )
        .where(references.c.team_id == team_id, references.c.job_id == job_id)
    )
    return JobFiles(*connection.execute(query).one())


def refer(connection: Connection, team_id: int, pairs: Sequence[tuple[str, str]]) -> None:
    """Note that jobs refer to files: pairs of (attachment id, job id)."""
    _refer.insert(connection, [(team_id, attachment_id, job_id) for attachment_id, job_id in sorted(pairs)])


def release(connection: Connection, team_id: int, pairs: Sequence[tuple[str, str]], now: int) -> None:
    """Note that jobs do not refer to files any more; those that nobody refers to are orphans from now on."""
    connection.execute(
        delete(references).where(
            references.c.team_id == team_id,
            tuple_(references.c.attachment_id, references.c.job_id).in_(pairs),
        )
    )
    forget_unreferred(connection, team_id, sorted({attachment_id for attachment_id, _ in pairs}), now)


def release_jobs(connection: Connection, team_id: int, job_ids: Sequence[str], now: int) -> None:
    """:func:`release` everything that deleted jobs referred to."""
    mine = (references.c.team_id == team_id, references.c.job_id.in_(padded(job_ids)))
    ids = sorted(set(connection.execute(select(references.c.attachment_id).where(*mine)).scalars()))
    connection.execute(delete(references).where(*mine))
    if ids:
        forget_unreferred(connection, team_id, ids, now)


def forget_unreferred(connection: Connection, team_id: int, attachment_ids: Sequence[str], now: int) -> None:
    """Those of these files to which no job refers are orphans from now on; of one that never came nothing is left."""
    orphaned = (
        attachments.c.team_id == team_id,
        attachments.c.attachment_id.in_(padded(attachment_ids)),
        ~exists().where(
            references.c.team_id == attachments.c.team_id,
            references.c.attachment_id == attachments.c.attachment_id,
        ),
    )
    # Of a file that never came nothing is left; one that is here stays for a while.
    connection.execute(delete(attachments).where(*orphaned, attachments.c.state == MISSING))
    connection.execute(update(attachments).where(*orphaned).values(orphaned_at=now))
