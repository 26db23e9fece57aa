"""Reading workflows: the list (14.1), one (14.2), a version, its file, its steps."""

import asyncio
from typing import NamedTuple

import msgspec
from litestar import HttpMethod, Response, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.auth.principal import Principal
from server.errors import Problem
from server.http import json_response, optional_page, with_etag
from server.workflows.documents import version_document
from server.workflows.intake import TAGS, WorkflowRequest, may_use, not_found, sees_all, version_not_found
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import workflows as queries
from storage.queries.workflows import StoredSteps, VersionRow, WorkflowRow
from sync.etag import matches

_POLICY = {"policy": "Workflow_Read"}
#: Addresses in it expire, and whoever has one needs no token.
_NO_STORE = {"Cache-Control": "private, no-store"}
#: Part of the ETag of steps. Another number: what is read of a package is printed differently now.
_STEPS_FORMAT = 1
#: Compressed steps, bytes: more is not unpacked on the event loop.
_MUCH = 16 * 1024

_strings = msgspec.json.Decoder(list[str])


class Filter(NamedTuple):
    """Which workflows a list shows. ``limit`` None: all."""

    tag: str | None
    archived: bool | None
    skip: int
    limit: int | None


@get(
    "/workflows/v2",
    opt=_POLICY,
    tags=TAGS,
    summary="Get workflows",
    description="Newest first, all of them unless `limit` or `skip` says otherwise. `tag`: only "
    "those with this tag. `archived`: only those that are (`true`) or are not (`false`). Field workers get those "
    "that are for everybody, for them, or for one of their groups.",
)
async def get_workflows(request: WorkflowRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 14.1."""
    found = await database.read(_list, request.user, _filter(request))
    return json_response(b"[%s]" % b",".join(found))


@route(
    "/workflows/v2/{workflow_id:str}",
    http_method=[HttpMethod.GET, HttpMethod.POST],
    status_code=200,
    opt=_POLICY,
    tags=TAGS,
    summary="Get a workflow",
    description="By GET, or by POST as the document prints it.",
)
async def get_workflow(
    request: WorkflowRequest, workflow_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 14.2."""
    row = await database.read(_workflow, request.user, workflow_id)
    return json_response(row.document)


@get(
    "/workflows/v2/{workflow_id:str}/{version_id:str}",
    opt=_POLICY,
    tags=TAGS,
    summary="Get a workflow version",
    description="With the address of its file, which works for 65 minutes.",
)
async def get_version(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """One version."""
    workflow, version = await database.read(_version, request.user, workflow_id, version_id)
    document = {
        "workflowId": workflow.workflow_id,
        **version_document(version),
        "isActive": version.version_id == workflow.active_version_id,
        "downloadUrl": _address(blobs, workflow, version),
    }
    return json_response(msgspec.json.encode(document), _NO_STORE)


@route(
    "/workflows/v2/{workflow_id:str}/{version_id:str}/content",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=302,
    opt=_POLICY,
    tags=TAGS,
    summary="Get a workflow version's package",
    description="Redirects to an address that works for 65 minutes and takes Range and If-None-Match.",
)
async def get_content(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """The package, by one more request."""
    found = await database.read(_version, request.user, workflow_id, version_id)
    return Response(b"", status_code=302, headers={"Location": _address(blobs, *found), **_NO_STORE})


@get(
    "/workflows/v2/{workflow_id:str}/steps",
    opt=_POLICY,
    tags=TAGS,
    summary="Get the steps of a workflow",
    description="`version`: a number or a versionId; without it the active version, else the newest. Steps of a "
    "deleted version stay readable when it is named. A package that could not be read has `opaque: true`, the "
    "`problem` and no steps. With an ETag: the steps of a version never change.",
)
async def get_steps(
    request: WorkflowRequest, workflow_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """The graph of steps, forms and groups with their steps inside."""
    asked = request.query_params.get("version") or None
    wanted: str | int | None = asked
    if asked is not None and asked.isascii() and asked.isdigit() and len(asked) < 10:
        wanted = int(asked)
    found = await database.read(queries.stored_steps, request.user.team_id, workflow_id, wanted)
    if (
        found is None
        or found.workflow_deleted_at is not None
        or not may_use(request.user, found.live_object_ids)
    ):
        await database.read(_workflow, request.user, workflow_id)
        raise version_not_found()
    etag = f'"{found.version_id}.{_STEPS_FORMAT}"'
    known = request.headers.get("if-none-match")
    if known is not None and matches(known, etag):
        return with_etag(request, b"", etag)
    if len(found.steps) > _MUCH:
        return with_etag(request, await asyncio.to_thread(_steps, workflow_id, found), etag)
    return with_etag(request, _steps(workflow_id, found), etag)


def _steps(workflow_id: str, found: StoredSteps) -> bytes:
    head = {
        "workflowId": workflow_id,
        "versionId": found.version_id,
        "version": found.number,
        "opaque": found.opaque,
        "problem": found.problem,
    }
    if not found.steps:
        return msgspec.json.encode({**head, "title": None, "capabilities": [], "steps": [], "extra": {}})
    # Two objects made one: neither is empty.
    return msgspec.json.encode(head)[:-1] + b"," + queries.decompressed(found.steps)[1:]


def _filter(request: WorkflowRequest) -> Filter:
    params = request.query_params
    archived = (params.get("archived") or "").lower()
    if archived not in ("", "true", "false"):
        raise Problem(400, "invalid-parameter", "archived must be true or false.", field="archived")
    return Filter(
        params.get("tag") or None,
        {"true": True, "false": False}.get(archived),
        *optional_page(request),
    )


def _list(connection: Connection, user: Principal, wanted: Filter) -> list[bytes]:
    everything = sees_all(user) and wanted.tag is None
    skip, limit = (wanted.skip, wanted.limit) if everything else (0, None)
    rows = queries.listed(connection, user.team_id, wanted.archived, skip, limit)
    if everything:
        return [row.document for row in rows]
    shown = [
        row.document
        for row in rows
        if may_use(user, row.live_object_ids)
        and (wanted.tag is None or wanted.tag in _strings.decode(row.tags))
    ]
    return shown[wanted.skip :][: wanted.limit]


def _workflow(connection: Connection, user: Principal, workflow_id: str) -> WorkflowRow:
    row = queries.by_id(connection, user.team_id, workflow_id)
    if row is None or not may_use(user, row.live_object_ids):
        raise not_found()
    return row


def _version(
    connection: Connection, user: Principal, workflow_id: str, version_id: str
) -> tuple[WorkflowRow, VersionRow]:
    workflow = _workflow(connection, user, workflow_id)
    version = queries.version(connection, user.team_id, version_id)
    if version is None or version.workflow_id != workflow_id:
        raise version_not_found()
    return workflow, version


def _address(blobs: BlobStore, workflow: WorkflowRow, version: VersionRow) -> str:
    # Only a deleted version has no file.
    assert version.blob_key is not None
    name = version.file_name or f"{workflow.name} {version.number}.zip".replace("/", "-").replace("\\", "-")
    return blobs.get_url(version.blob_key, content_type="application/zip", file_name=name)


route_handlers = [get_workflows, get_workflow, get_version, get_content, get_steps]
