"""From a request body to the ingest: size, parsing, quarantine of what does not parse."""

from typing import Any

import msgspec
from litestar import Request

from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem, to_problem
from sync.answers import job_document
from sync.errors import PreconditionFailed, SyncError, TooLarge
from sync.etag import format_etag
from sync.ingest import Ingest
from sync.items import Applied, Caller, ChangeItem, PushItem, RefusedItem
from sync.snapshot import parse

JobRequest = Request[Principal, Any, Any]


def caller_of(principal: Principal, team_wide: bool = False) -> Caller:
    """The caller as the ingest knows it.

    Args:
        team_wide: the route's policy lets only those in who act on every job of the team (Job_Modify,
            Job_ReadAll). Elsewhere (Job_Read, Workflow_Execute) a field worker has its own work.
    """
    return Caller(
        principal.team_id,
        principal.team_name,
        principal.subject_id,
        principal.own_work_only and not team_wide,
    )


async def push(request: JobRequest) -> Applied:
    """Apply the request's body as a snapshot; see :func:`push_body`."""
    state = request.app.state
    return await push_body(
        state.ingest,
        request.user,
        await request.body(),
        request.headers.get("if-match"),
        state.settings.max_snapshot_bytes,
    )


async def push_body(
    ingest: Ingest, principal: Principal, body: bytes, if_match: str | None, limit: int
) -> Applied:
    """Apply a body as a snapshot.

    Raises:
        SyncError: it was refused; ``quarantined`` says whether it is kept for an administrator.
        Problem: 412 with the current job.
    """
    received_at = now()
    caller = caller_of(principal)
    item: PushItem | RefusedItem
    try:
        if len(body) > limit:
            raise TooLarge("too-large", f"A snapshot may have {limit:,} bytes; this one has {len(body):,}.")
        item = PushItem(caller, parse(body), received_at, if_match)
    except SyncError as error:
        item = RefusedItem(caller, body, received_at, error)
    return await submit(ingest, item)


async def submit(ingest: Ingest, item: PushItem | ChangeItem | RefusedItem) -> Applied:
    """Apply one item, its refusal turned into the answer's problem."""
    try:
        return await ingest.apply(item)
    except PreconditionFailed as error:
        raise _with_current_job(error) from None


def _with_current_job(error: PreconditionFailed) -> Problem:
    """412 with the current job, so that the caller can merge without asking again."""
    problem = to_problem(error)
    job, incarnation = error.extra.get("job"), error.extra.get("incarnation")
    problem.extra = {}
    if job is not None and incarnation is not None:
        problem.extra["job"] = msgspec.Raw(job_document(job.view, incarnation, job.rev))
        problem.headers["ETag"] = format_etag(incarnation, job.rev)
    return problem
