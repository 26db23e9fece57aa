"""Reports over HTTP: making one (chapter 7), getting its PDF (chapter 8), the reports of a job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from server.errors import Problem
from server.http import json_response, skip_and_limit
from server.jobs.intake import JobRequest
from server.jobs.reading import not_found as job_not_found
from server.reports.links import PDF, address, file_name, link
from server.reports.requesting import IMAGES, NoSuchTemplate, request_report
from storage.blobs import BlobNotFound, BlobStore, content_disposition
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import reports as queries
from storage.queries.jobs import JobView
from storage.queries.report_templates import is_live
from storage.queries.reports import FAILED, PENDING, READY, ReportRow

_POLICY = {"policy": "Reports_Read"}
_TAGS = ["Reports"]
_NO_STORE = {"Cache-Control": "private, no-store"}
#: What the answer calls the states; the document prints the first.
_STATUS = {READY: "Completed", PENDING: "Pending", FAILED: "Failed"}
#: So long a request waits for its report.
WAIT_SECONDS = 20.0
_LOOK_SECONDS = (0.05, 0.1, 0.2, 0.4)
_RETRY_AFTER = {"Retry-After": "5"}


@post(
    "/reportgenerator/v1/generate",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Generate a report",
    description="Of the job `jobId` (or clientJobId) as it is now, with the team's default template, else the "
    "built-in one. `images` (`large`, `small`, `none`): the size of its pictures. Waits up to 20 s; a report "
    "that takes longer is `Pending`: ask again. The same is not made twice.",
)
async def generate(
    request: JobRequest,
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 7.1."""
    return await _generated(request, database, blobs, None)


@post(
    "/reportgenerator/v1/generate/{report_template_id:str}",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Generate a report by its template",
    description="As without a template, with this one. 404 `report-template-not-found` for one that is archived.",
)
async def generate_by_template(
    request: JobRequest,
    report_template_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 7.2."""
    return await _generated(request, database, blobs, report_template_id)


async def _generated(
    request: JobRequest, database: Database, blobs: BlobStore, template_id: str | None
) -> Response[bytes]:
    job_id = request.query_params.get("jobId") or ""

    def find(connection: Connection) -> JobView | None:
        if template_id is not None and not is_live(connection, request.user.team_id, template_id):
            raise _no_such_template()
        if not job_id:
            raise Problem(422, "invalid-parameter", "Say with jobId of which job.", field="jobId")
        found = job_queries.by_job_id(connection, request.user.team_id, job_id)
        return found or job_queries.by_client_job_id(connection, request.user.team_id, job_id)

    job = await database.read(find)
    if job is None:
        raise job_not_found()
    row = await _waited_for(request, database, job, template_id)
    answer = {
        "jobId": row.job_id,
        "status": _STATUS[row.state],
        "reportUrl": address(blobs, row, file_name(job)),
        "generatedReportId": row.report_id,
        "failure": row.failure,
    }
    return json_response(msgspec.json.encode(answer), _NO_STORE)


@get(
    "/reports/v1/generate/{client_job_id:str}",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get PDF by client job id",
    description="The report of the job as it is now, made first if need be, as a PDF; with `getUrlOnly=true` an "
    "address of it that works for 65 minutes, as text. `images` as when one is generated. 503 `report-pending` "
    "if it is not ready after 20 s, 422 `report-failed` if it cannot be made.",
)
async def get_pdf(
    request: JobRequest,
    client_job_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[Any]:
    """Section 8.1."""
    job = await database.read(job_queries.by_client_job_id, request.user.team_id, client_job_id)
    if job is None:
        raise job_not_found()
    row = await _waited_for(request, database, job, None)
    name = file_name(job)
    if row.state == PENDING:
        detail = "The report is still being made. Ask again."
        raise Problem(503, "report-pending", detail, headers=_RETRY_AFTER)
    url = address(blobs, row, name)
    if url is None or row.blob_key is None:
        raise Problem(422, "report-failed", row.failure or "The report could not be made.")
    if _said(request, "getUrlOnly"):
        return Response(url, media_type="text/plain", headers=_NO_STORE)
    chunks = blobs.get(row.blob_key)
    try:
        # Before the answer begins: what goes wrong up to here is said with a status.
        first = await anext(chunks)
    except BlobNotFound:
        await database.settle(queries.lost, request.user.team_id, row.report_id, row.blob_key)
        detail = "The report's file is missing in the store. Ask again: it is made anew."
        raise Problem(503, "report-pending", detail, headers=_RETRY_AFTER) from None

    async def content() -> AsyncIterator[bytes]:
        async with aclosing(chunks):
            yield first
            async for chunk in chunks:
                yield chunk

    headers = {
        "Content-Disposition": content_disposition(name, inline=False),
        "Content-Length": str(row.size),
        "X-Content-Type-Options": "nosniff",
        **_NO_STORE,
    }
    return Stream(content(), media_type=PDF, headers=headers)


@get(
    "/jobs/v1/{client_job_id:str}/reports",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get the reports of a job",
    description="Newest first, those that failed or are being made included. `downloadUrl` works for 65 minutes. "
    "Query parameters: `skip` (0), `limit` (20, at most 1,000).",
)
async def get_reports_of_job(
    request: JobRequest,
    client_job_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Beyond the specification: what queries call `reports` of a job."""
    user = request.user
    skip, limit = skip_and_limit(request)

    def work(connection: Connection) -> tuple[JobView, list[ReportRow]]:
        job = job_queries.by_client_job_id(connection, user.team_id, client_job_id)
        if job is None or (user.own_work_only and job.owner_id != user.subject_id):
            raise job_not_found()
        return job, queries.of_job(connection, user.team_id, job.job_id, skip, limit)

    job, rows = await database.read(work)
    name = file_name(job)
    documents = [
        {
            **link(blobs, row, name),
            "state": row.state,
            "failure": row.failure,
            "rev": row.rev,
            "images": row.images,
            "reportTemplateId": row.template_id,
            "size": row.size,
            "pages": row.pages,
            "log": msgspec.json.decode(row.log) if row.log else [],
        }
        for row in rows
    ]
    return json_response(msgspec.json.encode(documents), _NO_STORE)


async def _waited_for(
    request: JobRequest, database: Database, job: JobView, template_id: str | None
) -> ReportRow:
    """The report that the request asks for, ready or not, after waiting for it.

    Raises:
        Problem: 422 ``invalid-parameter``; 404 ``job-not-found``, ``report-template-not-found``.
    """
    images = request.query_params.get("images") or "large"
    if images not in IMAGES:
        raise Problem(422, "invalid-parameter", "images is large, small or none.", field="images")
    team_id = request.user.team_id
    try:
        row = await request_report(database, team_id, job.client_job_id, template_id, images)
    except NoSuchTemplate:
        raise _no_such_template() from None
    if row is None:
        raise job_not_found()
    if row.state != PENDING:
        return row
    clock = asyncio.get_running_loop()
    until = clock.time() + WAIT_SECONDS
    looks = 0
    while clock.time() < until:
        await asyncio.sleep(_LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)])
        looks += 1
        found = await database.read(queries.one, team_id, row.report_id)
        if found is None:
            raise job_not_found()  # deleted meanwhile
        row = found
        if row.state != PENDING:
            break
    return row


def _no_such_template() -> Problem:
    return Problem(404, "report-template-not-found", "There is no such report template.")


def _said(request: JobRequest, name: str) -> bool:
    """A query parameter that is true or false; false unless it is said.

    Raises:
        Problem: 422 ``invalid-parameter``.
    """
    said = (request.query_params.get(name) or "false").lower()
    if said not in ("true", "false"):
        raise Problem(422, "invalid-parameter", f"{name} is true or false.", field=name)
    return said == "true"


route_handlers = [generate, generate_by_template, get_pdf, get_reports_of_job]
