"""Asking for a report: the one that shows just this, or a task that makes it."""

import hashlib

import msgspec

from server.clock import now
from server.reports.builtin import BUILT_IN, BUILT_IN_NAME
from server.reports.surroundings import decode_head, read_around, seen
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import jobs as job_queries
from storage.queries import report_templates
from storage.queries import reports as queries
from storage.queries.reports import ReportRow

#: What a report of the same job may show: pictures large or small, or none.
IMAGES = ("large", "small", "none")
_SECOND = 1_000_000
#: A pending one that was asked for longer ago is asked for anew: whatever became of its task.
_LOST_AFTER = 3600 * _SECOND
#: One that failed is made again after so long; before, it is answered as it is, so that whoever waits for it by
#: asking again and again learns of it.
_FAILED_FOR = 60 * _SECOND
#: Part of every fingerprint. Raise it when the same job would print differently.
_EDITION = hashlib.sha256("\0".join((BUILT_IN.body, BUILT_IN.header)).encode()).hexdigest()


class NoSuchTemplate(Exception):
    """The team has no such template, or it is archived."""


async def request_report(
    database: Database,
    team_id: int,
    client_job_id: str,
    template_id: str | None,
    images: str,
) -> ReportRow | None:
    """The report of a job as it is now: ready, or pending and in the queue, or failed less than a minute ago.

    Args:
        template_id: None: the team's default template, else the built-in one.
        images: one of :data:`IMAGES`.

    Returns:
        None: there is no such job.

    Raises:
        NoSuchTemplate: the template is unknown or archived.
    """

    def known(connection: Connection) -> tuple[ReportRow | None, bool]:
        wanted = _wanted(connection, team_id, client_job_id, template_id, images)
        if wanted is None:
            return None, True
        found = queries.by_fingerprint(connection, team_id, wanted.job_id, wanted.fingerprint)
        return found, found is not None and _stands(found)

    def ask(connection: Connection) -> ReportRow | None:
        wanted = _wanted(connection, team_id, client_job_id, template_id, images)
        return None if wanted is None else queries.ask(connection, team_id, wanted, now())

    # Most look again at what there is: that need not wait for the writer.
    found, enough = await database.read(known)
    return found if enough else await database.write(ask)


def _stands(row: ReportRow) -> bool:
    """Whether nothing has to be done about a report."""
    if row.state == queries.PENDING:
        return now() - row.requested_at < _LOST_AFTER
    return row.state == queries.READY or now() - (row.generated_at or 0) < _FAILED_FOR


def _wanted(
    connection: Connection, team_id: int, client_job_id: str, template_id: str | None, images: str
) -> ReportRow | None:
    """The row of such a report, were there none yet; None if there is no such job."""
    job = job_queries.by_client_job_id(connection, team_id, client_job_id)
    if job is None:
        return None
    chosen = template_id or report_templates.default_id(connection, team_id)
    version_id, name = None, BUILT_IN_NAME
    if chosen is not None:
        found = report_templates.current(connection, team_id, chosen)
        if found is None or found[0].archived:
            raise NoSuchTemplate(chosen)
        version_id, name = found[1].version_id, found[0].name
    head = decode_head(job.view)
    decides = [_EDITION, job.rev, version_id, images, seen(read_around(connection, team_id, job, head), head)]
    return ReportRow(
        report_id=new_id(),
        job_id=job.job_id,
        client_job_id=job.client_job_id,
        fingerprint=hashlib.sha256(msgspec.json.encode(decides)).digest(),
        rev=job.rev,
        template_id=chosen,
        version_id=version_id,
        template_name=name,
        images=images,
        state=queries.PENDING,
        failure=None,
        log=None,
        blob_key=None,
        size=None,
        pages=None,
        requested_at=now(),
        generated_at=None,
    )
