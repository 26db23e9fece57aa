"""Where reports can be read, and under which names they are saved."""

from collections.abc import Sequence
from typing import Any

import msgspec

from server.attachments.archive import safe_name
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import reports as queries
from storage.queries.jobs import JobView
from storage.queries.reports import READY, ReportRow
from sync.values import format_time

PDF = "application/pdf"


class _Header(msgspec.Struct):
    jobTitle: Any = None


class _Job(msgspec.Struct):
    metadata: _Header = msgspec.field(default_factory=_Header)


_title = msgspec.json.Decoder(_Job)


def file_name(job: JobView | None) -> str:
    """What the report of a job is saved as: the job's title, in any script."""
    if job is None:
        return file_name_of(None, "")
    return file_name_of(_title.decode(job.view).metadata.jobTitle, job.client_job_id)


def file_name_of(title: Any, client_job_id: str) -> str:
    """The same, of a job with this title."""
    name = safe_name(title.replace("/", "-").replace("\\", "-")) if isinstance(title, str) else ""
    return f"{name or safe_name(client_job_id) or 'report'}.pdf"


def address(blobs: BlobStore, row: ReportRow, name: str) -> str | None:
    """Where a report can be read for 65 minutes; None while there is none."""
    if row.state != READY or row.blob_key is None:
        return None
    return blobs.get_url(row.blob_key, content_type=PDF, file_name=name)


def link(blobs: BlobStore, row: ReportRow, name: str) -> dict[str, object]:
    """A report as queries show it."""
    made = row.generated_at if row.state == READY else None
    return {
        "generatedReportId": row.report_id,
        "generated": None if made is None else format_time(made),
        "templateName": row.template_name,
        "mimeType": PDF,
        "downloadUrl": address(blobs, row, name),
    }


async def report_links(
    database: Database, blobs: BlobStore, team_id: int, report_ids: Sequence[str]
) -> list[dict[str, object]]:
    """Those of these reports that are ready, oldest first, with addresses that work for 65 minutes."""

    def work(connection: Connection) -> list[tuple[ReportRow, str]]:
        rows = [row for row in queries.several(connection, team_id, report_ids) if row.state == READY]
        names = {
            job_id: file_name(job_queries.by_job_id(connection, team_id, job_id))
            for job_id in {row.job_id for row in rows}
        }
        return [(row, names[row.job_id]) for row in rows]

    return [link(blobs, row, name) for row, name in await database.read(work)]
