"""Pushing snapshots: basic sync (6.14) and create (6.12)."""

from litestar import Response, post

from server.http import json_response, wants_minimal
from server.jobs.intake import JobRequest, push
from sync.answers import job_document, push_answer
from sync.etag import format_etag

_TAGS = ["Jobs"]


@post(
    "/jobs/v1/basicSync",
    status_code=200,
    opt={"policy": "Workflow_Execute"},
    tags=_TAGS,
    summary="Basic sync",
    description="Creates the job, merges into it, or aborts it (status Aborted). `sync.action` says what happened.",
)
async def basic_sync(request: JobRequest) -> Response[bytes]:
    """Section 6.14."""
    applied = await push(request)
    headers = {"ETag": format_etag(applied.incarnation, applied.rev)}
    if wants_minimal(request):
        return json_response(
            push_answer(applied, minimal=True), {**headers, "Preference-Applied": "return=minimal"}
        )
    return json_response(push_answer(applied), headers)


@post(
    "/jobs/v1",
    status_code=200,
    opt={"policy": "Workflow_Execute"},
    tags=_TAGS,
    summary="Create a job",
    description="With a known clientJobId: as basic sync. Answers the stored document.",
)
async def create_job(request: JobRequest) -> Response[bytes]:
    """Section 6.12."""
    applied = await push(request)
    headers = {"ETag": format_etag(applied.incarnation, applied.rev)}
    if applied.job is None:
        return json_response(push_answer(applied), headers)
    return json_response(job_document(applied.job.view, applied.incarnation, applied.rev), headers)


route_handlers = [basic_sync, create_job]
