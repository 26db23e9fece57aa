"""Quarantine: payloads that could not be applied, for administrators to inspect, re-apply or discard."""

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.clock import now
from server.errors import Problem
from server.http import json_response, skip_and_limit
from server.jobs.intake import JobRequest, caller_of, submit
from storage.database import Database
from storage.queries import quarantine as queries
from storage.queries.quarantine import QuarantineRow
from sync.answers import push_answer
from sync.bodies import decompress
from sync.ingest import Ingest
from sync.items import PushItem
from sync.snapshot import parse
from sync.values import format_time

_TAGS = ["Quarantine"]
_POLICY = {"policy": "Job_Modify"}


def _entry(row: QuarantineRow) -> dict[str, object]:
    return {
        "quarantineId": row.quarantine_id,
        "code": row.code,
        "detail": row.detail,
        "field": row.field,
        "clientJobId": row.client_job_id,
        "subjectId": row.subject_id,
        "installId": row.install_id,
        "received": format_time(row.received_at),
        "lastReceived": format_time(row.last_received_at),
        "times": row.times,
        "size": row.size,
    }


async def _load(request: JobRequest, database: Database, quarantine_id: str) -> tuple[QuarantineRow, bytes]:
    found = await database.read(queries.one, request.user.team_id, quarantine_id)
    if found is None:
        raise Problem(404, "quarantine-not-found", "There is no such payload in quarantine.")
    return found[0], decompress(found[1])


@get(
    "/sync/v1/quarantine",
    opt=_POLICY,
    tags=_TAGS,
    summary="List quarantined payloads",
    description="Newest first. Query parameters: `skip` (0), `limit` (20, at most 1,000).",
)
async def list_quarantine(request: JobRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Every payload that was kept and not applied, with the reason."""
    rows = await database.read(queries.page, request.user.team_id, *skip_and_limit(request))
    return json_response(msgspec.json.encode([_entry(row) for row in rows]))


@get(
    "/sync/v1/quarantine/{quarantine_id:str}",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get a quarantined payload",
    description="The entry with `body` as text; `?raw=true`: the bytes as they came.",
)
async def get_quarantined(
    request: JobRequest, quarantine_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """One payload, verbatim."""
    row, body = await _load(request, database, quarantine_id)
    if request.query_params.get("raw") == "true":
        return Response(
            body,
            media_type="application/octet-stream",
            headers={
                "Content-Disposition": f'attachment; filename="{row.quarantine_id}.json"',
                "X-Content-Type-Options": "nosniff",
            },
        )
    entry = {**_entry(row), "body": body.decode("utf-8", "replace")}
    return json_response(msgspec.json.encode(entry))


@post(
    "/sync/v1/quarantine/{quarantine_id:str}/apply",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Apply a quarantined payload",
    description="Pushes it again, as the caller; on success it leaves quarantine.",
)
async def apply_quarantined(
    request: JobRequest,
    quarantine_id: FromPath[str],
    database: NamedDependency[Database],
    ingest: NamedDependency[Ingest],
) -> Response[bytes]:
    """Try once more, after what stood in the way was changed."""
    _, body = await _load(request, database, quarantine_id)
    applied = await submit(ingest, PushItem(caller_of(request.user, team_wide=True), parse(body), now()))
    await database.write(queries.discard, request.user.team_id, quarantine_id)
    return json_response(push_answer(applied))


@delete(
    "/sync/v1/quarantine/{quarantine_id:str}",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Discard a quarantined payload",
)
async def discard_quarantined(
    request: JobRequest, quarantine_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Forget it for good."""
    if not await database.write(queries.discard, request.user.team_id, quarantine_id):
        raise Problem(404, "quarantine-not-found", "There is no such payload in quarantine.")
    return Response(b"", status_code=200)


route_handlers = [list_quarantine, get_quarantined, apply_quarantined, discard_quarantined]
