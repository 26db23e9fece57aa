"""Making reports in the background, and removing those of no more use."""

import re
from collections.abc import Mapping
from urllib.parse import unquote

from media.pdf import Template, TemplateProblem, print_report
from media.sandbox import Interrupted, Refused, Sandbox
from server.clock import now
from server.reports.builtin import BUILT_IN
from server.reports.context import ReportMaterial, local_files, report_context
from server.reports.links import PDF
from server.reports.loading import load_template
from server.settings import Settings
from server.worker import Handler, Retry
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import report_templates
from storage.queries import reports as queries
from storage.queries.jobs import JobView
from storage.queries.report_templates import VersionRow
from storage.queries.reports import GENERATE, PENDING, ReportRow
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task

_RETRY_SECONDS = 10
_AT_ONCE = 200
#: Reports that a newer one has replaced can be read so long.
KEPT_SECONDS = 30 * 24 * 3600
_SECOND = 1_000_000
#: How a template says a picture of another size than the one that ``src`` stands for.
_SIZES_IN_TEMPLATE = re.compile(r"thumbnails|att:")


class _Failed(Exception):
    """There will be no report; the text says why, for people."""


def handlers(
    database: Database, blobs: BlobStore, printing: Sandbox, settings: Settings
) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    del settings

    async def generate(task: Task) -> None:
        """Make the report that the task is about."""
        row, job, version = await database.read(_load, task.team_id, task.subject)
        if row is None or row.state != PENDING or row.blob_key is None:
            return  # made before, or nobody's
        if job is None:
            await database.write(queries.forget, task.team_id, [row.report_id], now())
            return
        try:
            template = await _template(blobs, row, version)
            material = await report_context(database, blobs, task.team_id, job, row.images)
            async with local_files(blobs, _needed(material, row, template)) as files:
                printed = await printing.run(print_report, template, material.context, files)
            await blobs.put(row.blob_key, printed.pdf, content_type=PDF, size=len(printed.pdf))
        except BlobsUnavailable:
            raise Retry(_RETRY_SECONDS) from None
        except (_Failed, TemplateProblem, Refused) as failure:
            await database.settle(queries.failed, task.team_id, row.report_id, _reason(failure), now())
            return
        except Exception as error:
            if task.attempts >= MAX_ATTEMPTS:
                reason = (
                    "The printer was ended each time before it was ready."
                    if isinstance(error, Interrupted)
                    else "An error on our side; it was logged."
                )
                await database.settle(queries.failed, task.team_id, row.report_id, reason, now())
            raise  # tried again, or for an administrator to see

        def done(connection: Connection) -> bool:
            return queries.made(
                *(connection, task.team_id, row.report_id),
                rev=job.rev,
                size=len(printed.pdf),
                pages=printed.pages,
                log=printed.log,
                now=now(),
            )

        if not await database.settle(done):
            await blobs.delete([row.blob_key])  # the job was deleted meanwhile

    return {GENERATE: generate}


async def purge(database: Database) -> int:
    """Remove reports of no more use after 30 days; answers how many."""
    before, removed = now() - KEPT_SECONDS * _SECOND, 0
    while found := await database.read(queries.outdated, before, _AT_ONCE):

        def work(connection: Connection, found: list[tuple[int, str]] = found) -> None:
            for team_id in sorted({team_id for team_id, _ in found}):
                theirs = [report_id for team, report_id in found if team == team_id]
                queries.forget(connection, team_id, theirs, now())

        await database.write(work)
        removed += len(found)
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


def _needed(material: ReportMaterial, row: ReportRow, template: Template) -> Mapping[str, str]:
    """The pictures that the template can ask for. Most take what ``src`` says; on S3 each is copied first."""
    if row.template_id is not None and _SIZES_IN_TEMPLATE.search(template.header + template.body):
        return material.keys
    sources = (file["src"] for file in material.context["attachments"])
    names = {unquote(source.removeprefix("att:")) for source in sources if source is not None}
    return {name: key for name, key in material.keys.items() if name in names}


def _reason(failure: Exception) -> str:
    if isinstance(failure, TemplateProblem):
        where = "header" if failure.part == "headerContent" else "body"
        return f"The template's {where} fails in line {int(failure.line)}: {failure.detail}"
    if isinstance(failure, Refused):
        return f"The report was given up. {failure}"
    return str(failure)
