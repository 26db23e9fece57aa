"""Attachments: what is known of each file, and what becomes of it when it arrives or is given up.

Which jobs refer to which files is written by ``storage/queries/attachment_references.py``.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, bindparam, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects import postgresql, sqlite

from storage.queries import tasks
from storage.queries.attachment_references import MISSING
from storage.queries.statements import padded
from storage.tables import attachment_references as references
from storage.tables import attachments, jobs, uploads

STORED = "stored"
READY = "ready"
FAILED = "failed"
#: Tells a job which of its files are there. One task for each job, so that a burst of photos is told once.
JOB_FILES = "job.files"
#: Makes the thumbnails of a file.
THUMBNAILS = "attachment.thumbnails"
#: Deletes blobs nothing refers to any more; the payload is ``{"keys": […]}``.
DELETE_BLOBS = "blobs.delete"
#: ``uploads.kind`` of what becomes an attachment.
UPLOAD_KIND = "attachment"


class AttachmentRow(NamedTuple):
    """One attachment; from ``stored_at`` to ``details`` all is None until its file has arrived."""

    attachment_id: str
    state: str
    created_at: int
    stored_at: int | None
    blob_key: str | None
    size: int | None
    sha256: bytes | None
    file_name: str | None
    declared_type: str | None
    content_type: str | None
    uploaded_by: str | None
    failure: str | None
    details: bytes | None
    orphaned_at: int | None


class NewFile(NamedTuple):
    """A file that has arrived; ``blob_key`` is durable."""

    attachment_id: str
    blob_key: str
    size: int
    sha256: bytes
    file_name: str | None
    declared_type: str | None
    content_type: str
    uploaded_by: str
    stored_at: int


#: same: this content was there already, the new blob is not needed. differs: another content is there; it stays.
Stored = Literal["stored", "same", "differs"]

_columns = [attachments.c[name] for name in AttachmentRow._fields]
#: What a row without a file says of one.
_one = select(*_columns).where(
    attachments.c.team_id == bindparam("team"), attachments.c.attachment_id == bindparam("attachment")
)
_NO_FILE = dict.fromkeys(set(AttachmentRow._fields) - {"attachment_id", "state", "created_at"})


def one(connection: Connection, team_id: int, attachment_id: str) -> AttachmentRow | None:
    row = connection.execute(_one, {"team": team_id, "attachment": attachment_id}).one_or_none()
    return AttachmentRow(*row) if row else None


def of_job(
    connection: Connection, team_id: int, job_id: str, after: str, limit: int, skip: int = 0
) -> list[AttachmentRow]:
    """The files a job refers to, missing ones included, in the order of their ids.

    Args:
        after: only ids beyond this one: where the last page ended; "" for the first.
        skip: how many to pass over.
    """
    query = (
        select(*_columns)
        .join(
            references,
            (references.c.team_id == attachments.c.team_id)
            & (references.c.attachment_id == attachments.c.attachment_id),
        )
        .where(
            references.c.team_id == team_id,
            references.c.job_id == job_id,
            references.c.attachment_id > after,
        )
        .order_by(references.c.attachment_id)
        .offset(skip)
        .limit(limit)
    )
    return [AttachmentRow(*row) for row in connection.execute(query)]


def of_jobs(connection: Connection, team_id: int, job_ids: Sequence[str]) -> dict[str, list[AttachmentRow]]:
    """By job the files that have arrived, in the order of their ids."""
    query = (
        select(references.c.job_id, *_columns)
        .join(
            references,
            (references.c.team_id == attachments.c.team_id)
            & (references.c.attachment_id == attachments.c.attachment_id),
        )
        .where(
            references.c.team_id == team_id,
            references.c.job_id.in_(padded(job_ids)),
            attachments.c.blob_key.is_not(None),
        )
        .order_by(references.c.job_id, references.c.attachment_id)
    )
    found: dict[str, list[AttachmentRow]] = {}
    for job_id, *row in connection.execute(query):
        found.setdefault(job_id, []).append(AttachmentRow(*row))
    return found


def jobs_of(
    connection: Connection, team_id: int, attachment_id: str, owner_id: str | None = None
) -> list[tuple[str, str]]:
    """(jobId, clientJobId) of the jobs that refer to a file, oldest first; of one owner or of all."""
    conditions = [
        references.c.team_id == team_id,
        references.c.attachment_id == attachment_id,
        jobs.c.deleted_at.is_(None),
    ]
    if owner_id is not None:
        conditions.append(jobs.c.owner_id == owner_id)
    query = (
        select(jobs.c.job_id, jobs.c.client_job_id)
        .join(references, (references.c.team_id == jobs.c.team_id) & (references.c.job_id == jobs.c.job_id))
        .where(*conditions)
        .order_by(jobs.c.job_id)
    )
    return [(row.job_id, row.client_job_id) for row in connection.execute(query)]


def arriving(connection: Connection, team_id: int, attachment_ids: list[str], now: int) -> set[str]:
    """Which of these files an upload is open for."""
    if not attachment_ids:
        return set()
    query = select(uploads.c.target).where(
        uploads.c.team_id == team_id,
        uploads.c.kind == UPLOAD_KIND,
        uploads.c.target.in_(padded(attachment_ids)),
        uploads.c.finished_at.is_(None),
        uploads.c.expires_at > now,
    )
    return set(connection.execute(query).scalars())


def store(connection: Connection, team_id: int, file: NewFile) -> Stored:
    """Note that a file has arrived, and have its jobs told and its thumbnails made.

    The row is locked before anything is decided: of two pushes of one id the second sees what the first
    one left, and a job that comes to refer to the file meanwhile is either seen here or sees the file.
    """
    state, sha256, size = _locked(connection, team_id, file)
    if state != MISSING:
        if (bytes(sha256 or b""), size) != (file.sha256, file.size):
            return "differs"
        if state == STORED:
            # Pushing once more repairs what somehow got no thumbnails.
            tasks.enqueue(connection, team_id, THUMBNAILS, file.attachment_id, now=file.stored_at)
        return "same"
    referring = _referring(connection, team_id, file.attachment_id)
    values = {
        **file._asdict(),
        "team": team_id,
        "attachment": file.attachment_id,
        "state": STORED,
        "orphaned_at": None if referring else file.stored_at,
    }
    connection.execute(_arrive, values)
    _tell(connection, team_id, referring, file.stored_at)
    tasks.enqueue(connection, team_id, THUMBNAILS, file.attachment_id, now=file.stored_at)
    return "stored"


def _locked(connection: Connection, team_id: int, file: NewFile) -> tuple[str, bytes | None, int | None]:
    """State, hash and size of the file's row, which exists and is locked afterwards."""
    values = (team_id, file.attachment_id, MISSING, file.stored_at)
    row = connection.execute(
        _lock[connection.dialect.name],
        dict(zip(("team_id", "attachment_id", "state", "created_at"), values, strict=True)),
    ).one()
    return row.state, row.sha256, row.size


def _locking(insert: Any) -> Any:
    return insert.on_conflict_do_update(
        index_elements=[attachments.c.team_id, attachments.c.attachment_id],
        # Changes nothing; DO NOTHING would neither lock the row nor answer it.
        set_={"state": attachments.c.state},
    ).returning(attachments.c.state, attachments.c.sha256, attachments.c.size)


# Built once: making statements anew took most of the writer's time for a small file.
_lock = {
    "sqlite": _locking(sqlite.insert(attachments)),
    "postgresql": _locking(postgresql.insert(attachments)),
}
_arrive = (
    update(attachments)
    .where(
        attachments.c.team_id == bindparam("team"),
        attachments.c.attachment_id == bindparam("attachment"),
    )
    .values(
        {
            **{name: bindparam(name) for name in NewFile._fields},
            **{name: bindparam(name) for name in ("state", "orphaned_at")},
            **dict.fromkeys(("failure", "details")),
        }
    )
)
_jobs_referring = select(references.c.job_id).where(
    references.c.team_id == bindparam("team"), references.c.attachment_id == bindparam("attachment")
)


def _referring(connection: Connection, team_id: int, attachment_id: str) -> list[str]:
    """Ids of the jobs that refer to a file."""
    parameters = {"team": team_id, "attachment": attachment_id}
    return sorted(connection.execute(_jobs_referring, parameters).scalars())


def _tell(connection: Connection, team_id: int, job_ids: Sequence[str], now: int) -> None:
    for job_id in job_ids:
        tasks.enqueue(connection, team_id, JOB_FILES, job_id, now=now)


def describe(
    connection: Connection,
    team_id: int,
    attachment_id: str,
    *,
    blob_key: str,
    state: str,
    details: bytes,
    failure: str | None,
) -> bool:
    """Note what became of a file's thumbnails; answers whether the file is still the one with ``blob_key``.

    If it is not, the thumbnails that were made belong to nothing and their blobs can go.

    Args:
        state: ``ready`` or ``failed``.
        details: as ``media/details.py`` encodes them.
    """
    result = connection.execute(
        update(attachments)
        .where(*_key(team_id, attachment_id), attachments.c.blob_key == blob_key)
        .where(attachments.c.state.in_([STORED, READY, FAILED]))
        .values(state=state, details=details, failure=failure)
    )
    return result.rowcount > 0


def delete(
    connection: Connection,
    team_id: int,
    attachment_id: str,
    now: int,
    orphaned_before: int | None = None,
) -> AttachmentRow | None:
    """Forget a file. Where jobs refer to it, it is missing again and they are told; else nothing is left.

    Args:
        orphaned_before: only if nobody has referred to it since before this time; it is looked at again
            here because a job may have come to refer to it after it was listed.

    Returns:
        The row as it was, so that its blobs can be deleted; None if there was no file to forget.
    """
    query = select(*_columns).where(*_key(team_id, attachment_id)).with_for_update()
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    row = AttachmentRow(*found)
    if row.state == MISSING:
        return None
    if orphaned_before is not None and (row.orphaned_at is None or row.orphaned_at >= orphaned_before):
        return None
    referring = _referring(connection, team_id, attachment_id)
    if referring:
        connection.execute(
            update(attachments).where(*_key(team_id, attachment_id)).values(state=MISSING, **_NO_FILE)
        )
        _tell(connection, team_id, referring, now)
    else:
        connection.execute(delete_from(attachments).where(*_key(team_id, attachment_id)))
    return row


def orphans(connection: Connection, before: int, limit: int) -> list[tuple[int, AttachmentRow]]:
    """(team, row) of files that nobody has referred to since before a time, of every team, oldest first."""
    query = (
        select(attachments.c.team_id, *_columns)
        .where(attachments.c.orphaned_at.is_not(None), attachments.c.orphaned_at < before)
        .order_by(attachments.c.orphaned_at)
        .limit(limit)
    )
    return [(row[0], AttachmentRow(*row[1:])) for row in connection.execute(query)]


def _key(team_id: int, attachment_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return attachments.c.team_id == team_id, attachments.c.attachment_id == attachment_id
