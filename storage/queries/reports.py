"""Reports: PDFs of jobs. The same is made once: a job has one row for each fingerprint.

Each attempt to make one writes a file of its own, which is the report's once :func:`made` says so: two attempts at
once, of which one does not know that its lease is lost, do not take each other's file away.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, exists, func, or_, select, update
from sqlalchemy import delete as delete_from

from storage.queries import deliveries, tasks
from storage.queries.attachments import DELETE_BLOBS
from storage.queries.statements import padded, upsert_insert
from storage.tables import jobs, reports

PENDING = "pending"
READY = "ready"
FAILED = "failed"
#: Makes a report; the subject is its id.
GENERATE = "report.generate"


class ReportRow(NamedTuple):
    """A report as stored.

    ``log`` is a JSON array of texts, ``requested_at`` when it was asked for last, ``generated_at`` when it was made
    or failed. There is a file, under ``blob_key``, only once the state is ``ready``.
    """

    report_id: str
    job_id: str
    client_job_id: str
    fingerprint: bytes
    rev: int
    template_id: str | None
    version_id: str | None
    template_name: str
    images: str
    state: str
    failure: str | None
    log: bytes | None
    blob_key: str | None
    size: int | None
    pages: int | None
    requested_at: int
    generated_at: int | None


_columns = [reports.c[name] for name in ReportRow._fields]


def one(connection: Connection, team_id: int, report_id: str) -> ReportRow | None:
    row = connection.execute(select(*_columns).where(*_key(team_id, report_id))).one_or_none()
    return ReportRow(*row) if row else None


def several(connection: Connection, team_id: int, report_ids: Sequence[str]) -> list[ReportRow]:
    """Those of these reports that there are, oldest first."""
    if not report_ids:
        return []
    query = (
        select(*_columns)
        .where(reports.c.team_id == team_id, reports.c.report_id.in_(padded(report_ids)))
        .order_by(reports.c.report_id)
    )
    return [ReportRow(*row) for row in connection.execute(query)]


def of_job(
    connection: Connection, team_id: int, job_id: str, skip: int = 0, limit: int | None = None
) -> list[ReportRow]:
    """A job's reports, newest first."""
    query = (
        select(*_columns)
        .where(reports.c.team_id == team_id, reports.c.job_id == job_id)
        .order_by(reports.c.report_id.desc())
        .offset(skip)
        .limit(limit)
    )
    return [ReportRow(*row) for row in connection.execute(query)]


def of_jobs(connection: Connection, team_id: int, job_ids: Sequence[str]) -> dict[str, list[ReportRow]]:
    """By job the reports that are ready, oldest first."""
    query = (
        select(*_columns)
        .where(
            reports.c.team_id == team_id,
            reports.c.job_id.in_(padded(job_ids)),
            reports.c.state == READY,
        )
        .order_by(reports.c.job_id, reports.c.report_id)
    )
    found: dict[str, list[ReportRow]] = {}
    for row in connection.execute(query):
        found.setdefault(row.job_id, []).append(ReportRow(*row))
    return found


def by_fingerprint(connection: Connection, team_id: int, job_id: str, fingerprint: bytes) -> ReportRow | None:
    """The report that shows just this."""
    query = select(*_columns).where(
        reports.c.team_id == team_id, reports.c.job_id == job_id, reports.c.fingerprint == fingerprint
    )
    row = connection.execute(query).one_or_none()
    return ReportRow(*row) if row else None


def ask(connection: Connection, team_id: int, wanted: ReportRow, now: int) -> ReportRow:
    """Have a report made: ``wanted``, or the one of its fingerprint, which is made anew unless it is ready.

    Whoever else asks for it at this moment gets the same row.
    """
    insert = upsert_insert(connection, reports).values(team_id=team_id, **wanted._asdict())
    again = insert.on_conflict_do_update(
        index_elements=[reports.c.team_id, reports.c.job_id, reports.c.fingerprint],
        set_={
            "state": PENDING,
            "failure": None,
            "log": None,
            "generated_at": None,
            "requested_at": wanted.requested_at,
        },
        where=reports.c.state != READY,
    )
    connection.execute(again)
    row = by_fingerprint(connection, team_id, wanted.job_id, wanted.fingerprint)
    assert row is not None
    if row.state == PENDING:
        tasks.enqueue(connection, team_id, GENERATE, row.report_id, now=now)
    return row


def made(
    connection: Connection,
    team_id: int,
    report_id: str,
    *,
    blob_key: str,
    rev: int,
    size: int,
    pages: int,
    log: Sequence[str],
    now: int,
) -> bool:
    """Note that its file is there, and which revision of the job it shows; False if nobody wants it any more.

    The job's deliveries that are being prepared are looked at again.
    """
    notes = msgspec.json.encode([storable(note) for note in log])
    values = {"state": READY, "blob_key": blob_key, "rev": rev, "size": size, "pages": pages, "log": notes}
    return _end(connection, team_id, report_id, {**values, "failure": None, "generated_at": now})


def failed(connection: Connection, team_id: int, report_id: str, reason: str, now: int) -> bool:
    """Note why it could not be made. Deliveries go on as after :func:`made`."""
    values = {"state": FAILED, "failure": storable(reason), "generated_at": now}
    return _end(connection, team_id, report_id, values)


def lost(connection: Connection, team_id: int, report_id: str, blob_key: str) -> None:
    """Note that the file of one that was ready is gone: it is made anew as soon as somebody asks."""
    query = update(reports).where(
        *_key(team_id, report_id), reports.c.state == READY, reports.c.blob_key == blob_key
    )
    values = {"state": FAILED, "failure": "Its file is missing.", "blob_key": None, "generated_at": None}
    connection.execute(query.values(values))


def storable(text: str) -> str:
    """A text that comes from a template, without what a database cannot hold: NUL, halves of characters."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _end(connection: Connection, team_id: int, report_id: str, values: dict[str, Any]) -> bool:
    query = update(reports).where(*_key(team_id, report_id), reports.c.state == PENDING).values(values)
    job_id = connection.scalar(query.returning(reports.c.job_id))
    if job_id is None:
        return False
    for delivery_id in deliveries.preparing_of_job(connection, team_id, job_id):
        tasks.enqueue(connection, team_id, deliveries.PREPARE, delivery_id, now=values["generated_at"])
    return True


def forget(connection: Connection, team_id: int, report_ids: Sequence[str], now: int) -> None:
    """Remove reports; a task of this transaction deletes their files."""
    _forget(connection, team_id, report_ids, now)


def forget_outdated(
    connection: Connection, team_id: int, report_ids: Sequence[str], before: int, now: int
) -> int:
    """Remove those of them that :func:`outdated` would still name; answers how many."""
    return _forget(connection, team_id, report_ids, now, _outdated(before))


def _forget(
    connection: Connection, team_id: int, report_ids: Sequence[str], now: int, *only: ColumnElement[bool]
) -> int:
    removed = 0
    for start in range(0, len(report_ids), 500):
        some = list(report_ids[start : start + 500])
        gone = (
            delete_from(reports)
            .where(reports.c.team_id == team_id, reports.c.report_id.in_(padded(some)), *only)
            .returning(reports.c.blob_key)
        )
        found = list(connection.execute(gone).scalars())
        keys = [key for key in found if key is not None]
        if keys:
            tasks.enqueue(connection, team_id, DELETE_BLOBS, min(keys), {"keys": keys}, now=now)
        removed += len(found)
    return removed


def forget_jobs(connection: Connection, team_id: int, job_ids: Sequence[str], now: int) -> None:
    """Remove the reports of jobs that are deleted in this transaction."""
    query = select(reports.c.report_id).where(
        reports.c.team_id == team_id, reports.c.job_id.in_(padded(job_ids))
    )
    forget(connection, team_id, sorted(connection.execute(query).scalars()), now)


def outdated(connection: Connection, before: int, limit: int) -> list[tuple[int, str]]:
    """(team, report) of what was asked for and made before a time and is of no use now: it failed, its job is
    deleted, or there is a newer one of the same job and template with the same images. Oldest first.
    """
    query = (
        select(reports.c.team_id, reports.c.report_id)
        .where(_outdated(before))
        .order_by(reports.c.requested_at)
        .limit(limit)
    )
    return [(row.team_id, row.report_id) for row in connection.execute(query)]


def _outdated(before: int) -> ColumnElement[bool]:
    newer = reports.alias("newer")
    superseded = exists().where(
        newer.c.team_id == reports.c.team_id,
        newer.c.job_id == reports.c.job_id,
        newer.c.report_id > reports.c.report_id,
        newer.c.state == READY,
        newer.c.images == reports.c.images,
        func.coalesce(newer.c.template_id, "") == func.coalesce(reports.c.template_id, ""),
    )
    orphaned = ~exists().where(
        jobs.c.team_id == reports.c.team_id, jobs.c.job_id == reports.c.job_id, jobs.c.deleted_at.is_(None)
    )
    return and_(
        reports.c.requested_at < before,
        func.coalesce(reports.c.generated_at, 0) < before,
        or_(reports.c.state == FAILED, superseded, orphaned),
    )


def _key(team_id: int, report_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return reports.c.team_id == team_id, reports.c.report_id == report_id
