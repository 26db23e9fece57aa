"""What operators do to jobs: abort, delete, assign, exclude, metadata, update (6.7 to 6.15), and reopen."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.clock import now
from server.errors import Problem
from server.http import json_response
from server.jobs.intake import JobRequest, caller_of, submit
from storage.database import Database
from storage.queries import jobs as queries
from storage.queries.users import user_by_id
from sync.answers import job_document
from sync.edits import Job
from sync.etag import format_etag
from sync.ingest import Ingest
from sync.items import Applied, ChangeItem
from sync.snapshot import Part, parse
from sync.values import TooDeep, check_depth, check_values, decode, format_time

_TAGS = ["Jobs"]
#: Jobs aborted in one round of a bulk abort, so that pushes get their turn in between.
_BULK = 200

_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


def _answer(applied: Applied) -> Response[bytes]:
    """The changed job."""
    assert applied.job is not None
    return json_response(
        job_document(applied.job.view, applied.incarnation, applied.rev),
        {"ETag": format_etag(applied.incarnation, applied.rev)},
    )


Kind = Literal["edit", "assign", "abort", "reopen", "delete"]
Scopes = Callable[[Job], Mapping[str, Part]]


async def _change(
    request: JobRequest,
    ingest: Ingest,
    client_job_id: str,
    kind: Kind,
    *,
    team_wide: bool = True,
    scopes: Scopes | None = None,
    body: bytes = b"",
) -> Applied:
    """Apply an operator's change, under the If-Match of the request."""
    item = ChangeItem(
        caller_of(request.user, team_wide=team_wide),
        client_job_id,
        now(),
        kind,
        scopes=scopes,
        body=body,
        if_match=request.headers.get("if-match"),
    )
    return await submit(ingest, item)


@post(
    "/jobs/v1/{client_job_id:str}/abort",
    status_code=200,
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Abort a job",
    description="Only incomplete jobs; a completed one answers 409 `job-finished`. Reopening undoes it.",
)
async def abort_job(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Section 6.7."""
    return _answer(await _change(request, ingest, client_job_id, "abort", team_wide=False))


@put(
    "/jobs/v1/abort",
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Abort jobs for a user",
    description=(
        "`userId`: that user's incomplete jobs. An empty query string, or `all=true`: every incomplete job of "
        "the team. Anything else is refused, so that a misspelt parameter does not abort everything."
    ),
)
async def abort_jobs(
    request: JobRequest, database: NamedDependency[Database], ingest: NamedDependency[Ingest]
) -> dict[str, int]:
    """Section 6.13."""
    owner_id = _whose_jobs(request)
    caller, aborted, after = caller_of(request.user, team_wide=True), 0, ""
    while True:
        ids = await database.read(queries.open_ids, caller.team_id, owner_id, after, _BULK)
        items = [
            ChangeItem(caller, client_job_id, now(), "abort", skip_finished=True) for _, client_job_id in ids
        ]
        for future in [ingest.submit(item) for item in items]:
            result = await future
            if isinstance(result, Applied):
                aborted += result.action == "merged"
            elif result.code != "job-not-found":
                raise result
        if len(ids) < _BULK:
            return {"aborted": aborted}
        after = ids[-1][0]


def _whose_jobs(request: JobRequest) -> str | None:
    params = request.query_params
    owner_id: str | None = params.get("userId")
    if set(params) == {"userId"} and owner_id and len(params.getall("userId")) == 1:
        return owner_id
    if not request.scope["query_string"] or (set(params) == {"all"} and params["all"] == "true"):
        return None
    raise Problem(
        422,
        "invalid-parameter",
        "Give userId alone, or all=true, or no query string at all to abort every incomplete job.",
        field=next((name for name in params if name != "userId"), "userId"),
    )


@delete(
    "/jobs/v1/{client_job_id:str}",
    status_code=200,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Delete a job",
    description="Leaves a tombstone: a snapshot that comes later answers 410 and is kept in quarantine.",
)
async def delete_job(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Section 6.8."""
    await _change(request, ingest, client_job_id, "delete")
    return Response(b"", status_code=200)


@post(
    "/jobs/v1/{client_job_id:str}/assign/{user_id:str}",
    status_code=200,
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Assign user to a job",
    description="Not for aborted or completed jobs (409 `job-finished`).",
)
async def assign_job(
    request: JobRequest,
    client_job_id: FromPath[str],
    user_id: FromPath[str],
    database: NamedDependency[Database],
    ingest: NamedDependency[Ingest],
) -> Response[bytes]:
    """Section 6.9."""
    user = await database.read(user_by_id, request.user.team_id, user_id)
    if user is None:
        raise Problem(404, "no-such-user", "There is no such user.", field="user_id")
    value = _encode({"userId": user.user_id, "username": user.username})
    body = _encode(
        {"metadata": {"clientJobId": client_job_id, "userId": user.user_id, "username": user.username}}
    )
    scopes = {"assignee": Part(value)}
    return _answer(
        await _change(
            request, ingest, client_job_id, "assign", team_wide=False, scopes=lambda _: scopes, body=body
        )
    )


class Exclusion(msgspec.Struct, rename="camel"):
    """The body of section 6.10. ``isExcluded`` is a boolean or, as the document prints it, a string."""

    is_excluded: bool | Literal["true", "false", "True", "False"]
    user_id: str | None = None
    reason: str | None = None


@put(
    "/jobs/v1/{client_job_id:str}",
    opt={"policy": "Job_ReadAll"},
    tags=_TAGS,
    summary="Exclude a job",
    description="Recorded in `jobExclusion`; `isExcluded: false` takes the job in again.",
)
async def exclude_job(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Section 6.10."""
    body = await request.body()
    asked = bodies.decode(body, Exclusion)
    received_at = now()
    excluded = asked.is_excluded in (True, "true", "True")
    entry = {
        "userId": asked.user_id if asked.user_id is not None else request.user.subject_id,
        "reason": asked.reason,
        "isExcluded": excluded,
        "time": format_time(received_at),
    }

    def scopes(job: Job) -> Mapping[str, Part]:
        known = job.shown_in("exclusion")
        entries = decode(known.value)["jobExclusion"] if known else []
        return {"exclusion": Part(_encode({"jobExclusion": [*entries, entry], "excluded": excluded}))}

    return _answer(await _change(request, ingest, client_job_id, "edit", scopes=scopes, body=body))


@post(
    "/jobs/v1/{client_job_id:str}/metadata",
    status_code=200,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Add metadata to a job",
    description="Each member is set in `metadata.metadata`; an explicit null takes the key away.",
)
async def add_metadata(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Section 6.11."""
    body = await request.body()
    try:
        check_values(body)
        check_depth(body, 0)
    except TooDeep as error:
        raise Problem(400, "too-deep", f"The body is {error}.", field="$") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Problem(400, "malformed-json", f"The body is not JSON that can be kept: {error}.") from None
    members = bodies.decode(body, dict[str, msgspec.Raw])
    scopes = {f"meta:{key}": Part(bytes(raw)) for key, raw in members.items()}
    return _answer(await _change(request, ingest, client_job_id, "edit", scopes=lambda _: scopes, body=body))


@post(
    "/jobs/v1/{client_job_id:str}",
    status_code=200,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Update a job",
    description="A partial job document: what it holds is set, what it lacks stays.",
)
async def update_job(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Section 6.15."""
    body = await request.body()
    snapshot = parse(body, expected_id=client_job_id)
    item = ChangeItem(
        caller_of(request.user, team_wide=True),
        client_job_id,
        now(),
        "abort" if snapshot.aborted else "edit",
        scopes=lambda _: snapshot.scopes,
        created=snapshot.created,
        updated=snapshot.updated,
        abort_value=snapshot.abort_value,
        body=body,
        if_match=request.headers.get("if-match"),
    )
    return _answer(await submit(ingest, item))


@post(
    "/jobs/v1/{client_job_id:str}/reopen",
    status_code=200,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Reopen an aborted job",
    description="Clears the abort mark; the status merged underneath shows again. Does nothing to other jobs.",
)
async def reopen_job(
    request: JobRequest, client_job_id: FromPath[str], ingest: NamedDependency[Ingest]
) -> Response[bytes]:
    """Beyond the specification: the undo of an abort."""
    return _answer(await _change(request, ingest, client_job_id, "reopen"))


class Reopen(msgspec.Struct, rename="camel"):
    """Which jobs to reopen."""

    client_job_ids: list[str]


@post(
    "/jobs/v1/reopen",
    status_code=200,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Reopen aborted jobs",
    description="`{clientJobIds: [...]}`, at most 1,000; answers `{reopened, notFound}`.",
)
async def reopen_jobs(request: JobRequest, ingest: NamedDependency[Ingest]) -> dict[str, int | list[str]]:
    """Beyond the specification: the undo of a bulk abort."""
    ids = bodies.decode(await request.body(), Reopen).client_job_ids
    if len(ids) > 1000:
        raise bodies.invalid("clientJobIds", "clientJobIds may name at most 1,000 jobs.")
    caller = caller_of(request.user, team_wide=True)
    futures = [ingest.submit(ChangeItem(caller, item, now(), "reopen")) for item in ids]
    reopened, missing = 0, []
    for client_job_id, future in zip(ids, futures, strict=True):
        result = await future
        if isinstance(result, Applied):
            reopened += result.action == "merged"
        elif result.code == "job-not-found":
            missing.append(client_job_id)
        else:
            raise result
    return {"reopened": reopened, "notFound": missing}


route_handlers = [
    abort_job,
    abort_jobs,
    delete_job,
    assign_job,
    exclude_job,
    add_metadata,
    update_job,
    reopen_job,
    reopen_jobs,
]
