"""Making reports in the background, and removing those of no more use."""

import logging
from collections.abc import Mapping

from media.pdf import Printed, Template, TemplateProblem, print_report
from media.sandbox import Interrupted, Refused, Sandbox
from server.clock import now
from server.reports.builtin import BUILT_IN
from server.reports.context import ReportMaterial, local_files, report_context
from server.reports.links import PDF
from server.reports.loading import load_template
from server.reports.pictures import needed
from server.worker import Handler, Retry
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, new_key
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import report_templates
from storage.queries import reports as queries
from storage.queries.jobs import JobView
from storage.queries.report_templates import VersionRow
from storage.queries.reports import GENERATE, PENDING, ReportRow
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task

log = logging.getLogger("fieldsync.reports")

_RETRY_SECONDS = 10
#: Of a printer that is not there, or that somebody ends: over half a minute.
_PRINTER_ATTEMPTS = 3
_AT_ONCE = 200
#: Reports that a newer one has replaced can be read so long.
KEPT_SECONDS = 30 * 24 * 3600
_SECOND = 1_000_000


class _Failed(Exception):
    """There will be no report; the text says why, for people."""


class _NoPrinter(Exception):
    """Nothing can be printed now, whatever the template; the text says why."""


#: Trying again changes nothing.
_FOR_GOOD = (_Failed, TemplateProblem, Refused)


def handlers(database: Database, blobs: BlobStore, printing: Sandbox) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""

    async def generate(task: Task) -> None:
        """Make the report that the task is about."""
        row, job, version = await database.read(_load, task.team_id, task.subject)
        if row is None or row.state != PENDING:
            return  # made before, or nobody's
        if job is None:
            await database.write(queries.forget, task.team_id, [row.report_id], now())
            return
        try:
            template = await _template(blobs, row, version)
            material = await report_context(database, blobs, task.team_id, job, row.images)
            pictures = needed(material, template, all_sizes=row.template_id is not None)
            async with local_files(blobs, pictures) as files:
                printed = await _printed(printing, template, material, files)
            await _keep(database, blobs, task.team_id, row.report_id, job.rev, printed)
        except BlobsUnavailable:
            raise Retry(_RETRY_SECONDS) from None
        except Exception as error:
            if task.attempts < _attempts(error):
                raise  # tried again
            await database.settle(queries.failed, task.team_id, row.report_id, _reason(error), now())
            if isinstance(error, _NoPrinter):
                log.error("report %s was given up after %d attempts: %s", row.report_id, task.attempts, error)
            elif not isinstance(error, _FOR_GOOD):
                raise  # for an administrator to see

    return {GENERATE: generate}


async def purge(database: Database) -> int:
    """Remove reports of no more use after 30 days; answers how many."""
    before, removed = now() - KEPT_SECONDS * _SECOND, 0
    while found := await database.read(queries.outdated, before, _AT_ONCE):

        def work(connection: Connection, found: list[tuple[int, str]] = found) -> int:
            return sum(
                queries.forget_outdated(
                    *(connection, team_id, [report_id for team, report_id in found if team == team_id]),
                    *(before, now()),
                )
                for team_id in sorted({team_id for team_id, _ in found})
            )

        removed += await database.write(work)
    return removed


def _load(
    connection: Connection, team_id: int, report_id: str
) -> tuple[ReportRow | None, JobView | None, VersionRow | None]:
    row = queries.one(connection, team_id, report_id)
    if row is None:
        return None, None, None
    job = job_queries.by_job_id(connection, team_id, row.job_id)
    if row.template_id is None or row.version_id is None:
        return row, job, None
    return row, job, report_templates.version(connection, team_id, row.template_id, row.version_id)


async def _template(blobs: BlobStore, row: ReportRow, version: VersionRow | None) -> Template:
    if row.template_id is None:
        return BUILT_IN
    if version is None:
        raise _Failed("The template was deleted.")
    try:
        return await load_template(blobs, version)
    except BlobNotFound:
        raise _Failed("A file of the template is missing in the store of files.") from None


async def _printed(
    printing: Sandbox, template: Template, material: ReportMaterial, files: Mapping[str, str]
) -> Printed:
    try:
        return await printing.run(print_report, template, material.context, files)
    except Interrupted as error:
        raise _NoPrinter("The printer was ended each time before it was ready.") from error
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _NoPrinter(f"The printer does not work: {error.strerror}.") from error
        # What loads Pango says that it is not there with an OSError of no number.
        raise _NoPrinter("The printer's libraries are missing; `fieldsync doctor` says which.") from error


async def _keep(
    database: Database, blobs: BlobStore, team_id: int, report_id: str, rev: int, printed: Printed
) -> None:
    """Store what was printed, as this attempt's own file."""
    key, size = new_key(team_id, now()), len(printed.pdf)
    await blobs.put(key, printed.pdf, content_type=PDF, size=size)

    def done(connection: Connection) -> bool:
        return queries.made(
            *(connection, team_id, report_id),
            blob_key=key,
            rev=rev,
            size=size,
            pages=printed.pages,
            log=printed.log,
            now=now(),
        )

    # Whatever this raises, the file stays: the row may have been written before the connection broke.
    if not await database.settle(done):
        await blobs.delete([key])  # the job was deleted meanwhile, or another attempt was faster


def _attempts(error: Exception) -> int:
    """How many attempts there are at what fails like this."""
    if isinstance(error, _FOR_GOOD):
        return 1
    return _PRINTER_ATTEMPTS if isinstance(error, _NoPrinter) else MAX_ATTEMPTS


def _reason(error: Exception) -> str:
    """Why there is no report, for people."""
    if isinstance(error, TemplateProblem):
        where = "header" if error.part == "headerContent" else "body"
        return f"The template's {where} fails in line {int(error.line)}: {error.detail}"
    if isinstance(error, Refused):
        return f"The report was given up. {error}"
    if isinstance(error, _Failed | _NoPrinter):
        return str(error)
    return "An error on our side; it was logged."
