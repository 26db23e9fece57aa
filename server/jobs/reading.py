"""Reading jobs: lists (6.1, 6.2, 6.6), one job (6.4, 6.5), its history (6.3)."""

from collections.abc import AsyncIterator

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from server.errors import Problem
from server.http import JSON, json_response, skip_and_limit, with_etag
from server.jobs.intake import JobRequest
from storage.database import Connection, Database
from storage.queries import feed as feed_queries
from storage.queries import jobs as queries
from storage.queries import snapshots as snapshot_queries
from storage.queries.jobs import JobView
from storage.queries.snapshots import SnapshotRow
from sync.answers import job_document
from sync.bodies import decompress
from sync.etag import format_etag
from sync.values import format_time

_TAGS = ["Jobs"]
#: Jobs fetched at a time where a list is streamed: a few megabytes.
_STREAM_PAGE = 200


def not_found() -> Problem:
    """The one answer for a job that is not there, not the team's, or not the caller's to see."""
    return Problem(404, "job-not-found", "There is no such job.")


def _page(
    connection: Connection,
    team_id: int,
    skip: int,
    limit: int,
    before: str | None,
    owner_id: str | None,
    workflow_id: str | None,
) -> tuple[str, list[JobView]]:
    rows = queries.page(
        connection,
        team_id,
        skip=skip,
        limit=limit,
        before=before,
        owner_id=owner_id,
        workflow_id=workflow_id,
    )
    return feed_queries.incarnation(connection, team_id), rows


def _array(incarnation: str, rows: list[JobView]) -> bytes:
    return b"[%s]" % b",".join(job_document(row.view, incarnation, row.rev) for row in rows)


@get(
    "/jobs/v1",
    opt={"policy": "Job_ReadAll"},
    tags=_TAGS,
    summary="Get all jobs",
    description="Newest first. Query parameters: `skip` (0), `limit` (20, at most 1,000).",
)
async def get_jobs(request: JobRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 6.1."""
    skip, limit = skip_and_limit(request)
    found = await database.read(_page, request.user.team_id, skip, limit, None, None, None)
    return json_response(_array(*found))


@get(
    "/jobs/v1/my",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get my jobs",
    description="The caller's own jobs, newest first. Query parameters: `skip` (0), `limit` (20, at most 1,000).",
)
async def get_my_jobs(request: JobRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 6.6."""
    skip, limit = skip_and_limit(request)
    found = await database.read(_page, request.user.team_id, skip, limit, None, request.user.subject_id, None)
    return json_response(_array(*found))


@get(
    "/jobs/v1/workflow/{workflow_id:str}",
    opt={"policy": "Job_ReadAll"},
    tags=_TAGS,
    summary="Get jobs by workflow id",
    description="All of them, streamed, newest first; with `limit` (and `skip`) a page.",
)
async def get_jobs_of_workflow(
    request: JobRequest, workflow_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes] | Stream:
    """Section 6.2."""
    skip, limit = skip_and_limit(request)
    team_id = request.user.team_id
    if "limit" in request.query_params:
        found = await database.read(_page, team_id, skip, limit, None, None, workflow_id)
        return json_response(_array(*found))

    async def pages() -> AsyncIterator[bytes]:
        yield b"["
        before, passed, first = None, skip, True
        while True:
            incarnation, rows = await database.read(
                _page, team_id, passed, _STREAM_PAGE, before, None, workflow_id
            )
            if rows:
                yield (b"" if first else b",") + _array(incarnation, rows)[1:-1]
                before, passed, first = rows[-1].job_id, 0, False
            if len(rows) < _STREAM_PAGE:
                break
        yield b"]"

    return Stream(pages(), media_type=JSON)


@get(
    "/jobs/v1/snapshots/{client_job_id:str}",
    opt={"policy": "Job_ReadAll"},
    tags=_TAGS,
    summary="Get snapshots of a job",
    description="Every distinct body that was pushed, newest first. Query parameters: `skip` (0), `limit` (20).",
)
async def get_snapshots(
    request: JobRequest, client_job_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 6.3, whose answer the document leaves blank."""
    skip, limit = skip_and_limit(request)
    rows = await database.read(snapshot_queries.of_job, request.user.team_id, client_job_id, skip, limit)
    if rows is None:
        raise not_found()
    return json_response(msgspec.json.encode([_snapshot(row) for row in rows]))


def _snapshot(row: SnapshotRow) -> dict[str, object]:
    return {
        "snapshotId": row.snapshot_id,
        "received": format_time(row.received_at),
        "rev": row.rev,
        "installId": row.install_id,
        "pushSeq": row.push_seq,
        "clockOffsetSeconds": round(row.clock_offset / 1_000_000, 3),
        "size": row.size,
        "job": msgspec.Raw(decompress(row.body)),
    }


def _one(
    connection: Connection, team_id: int, client_job_id: str | None, job_id: str | None
) -> tuple[str, JobView | None]:
    if client_job_id is not None:
        row = queries.by_client_job_id(connection, team_id, client_job_id)
    else:
        row = queries.by_job_id(connection, team_id, job_id or "")
    return feed_queries.incarnation(connection, team_id), row


async def _respond_with_one(
    request: JobRequest, database: Database, client_job_id: str | None, job_id: str | None
) -> Response[bytes]:
    user = request.user
    incarnation, row = await database.read(_one, user.team_id, client_job_id, job_id)
    if row is None or (user.own_work_only and row.owner_id != user.subject_id):
        raise not_found()
    body = job_document(row.view, incarnation, row.rev)
    return with_etag(request, body, format_etag(incarnation, row.rev))


@get(
    "/jobs/v1/{client_job_id:str}",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get job by client job id",
)
async def get_job(
    request: JobRequest, client_job_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 6.4."""
    return await _respond_with_one(request, database, client_job_id, None)


@get(
    "/jobs/v1/bson/{job_id:str}",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get job by job id",
)
async def get_job_by_job_id(
    request: JobRequest, job_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 6.5."""
    return await _respond_with_one(request, database, None, job_id)


route_handlers = [
    get_jobs,
    get_my_jobs,
    get_jobs_of_workflow,
    get_snapshots,
    get_job,
    get_job_by_job_id,
]
