"""Changing workflows: metadata (14.3), the active version (14.5), approval, archiving, deleting (14.6, 14.7)."""

from typing import NamedTuple

import msgspec
from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.attachments.forgetting import DELETE_BLOBS, delete_now
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response
from server.workflows import documents
from server.workflows.intake import (
    TAGS,
    Metadata,
    VersionChanges,
    WorkflowRequest,
    checked_metadata,
    checked_version_changes,
    not_found,
    truth,
    version_not_found,
)
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import tasks
from storage.queries import workflows as queries
from storage.queries.team_settings import approver_mode
from storage.queries.workflows import VersionRow, WorkflowRow

_MODIFY = {"policy": "Workflow_Modify"}
_DELETE = {"policy": "Workflow_Delete"}


@put(
    "/workflows/v2/{workflow_id:str}",
    status_code=200,
    opt=_MODIFY,
    tags=TAGS,
    summary="Update a workflow's metadata",
    description="`name`, `description`, `tags`, `liveObjectIds` (users and groups who may use it; empty: everybody) "
    "and `isArchived`. What is not sent stays.",
)
async def update_workflow(
    request: WorkflowRequest, workflow_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 14.3; answers the workflow."""
    asked = checked_metadata(await request.body())
    return json_response(await database.settle(_update, request.user, workflow_id, asked, now()))


@put(
    "/workflows/v2/{workflow_id:str}/{version_id:str}",
    status_code=200,
    opt=_MODIFY,
    tags=TAGS,
    summary="Update a workflow version",
    description="`isArchived` and `versionNotes`. What is not sent stays. The active version cannot be archived.",
)
async def update_version(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Archives a version, or takes it out of the archive; answers the workflow."""
    asked = checked_version_changes(await request.body())
    return json_response(
        await database.settle(_update_version, request.user, workflow_id, version_id, asked, now())
    )


@post(
    "/workflows/v2/{version_id:str}/activate",
    status_code=200,
    opt=_MODIFY,
    tags=TAGS,
    summary="Set the active version of a workflow",
)
async def activate_version(
    request: WorkflowRequest, version_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 14.5; answers the workflow."""
    return json_response(await database.settle(_activate, request.user, version_id, now()))


@post(
    "/workflows/v2/{workflow_id:str}/{version_id:str}/approve",
    status_code=200,
    opt={"policy": "Workflow_Approve"},
    tags=TAGS,
    summary="Approve a workflow version",
    description="While the team setting WorkflowApproverMode is 1, this makes the version the active one, unless a "
    "newer one is, or it is archived.",
)
async def approve_version(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Records who approved and when; answers the workflow. The first approval counts."""
    return json_response(await database.settle(_approve, request.user, workflow_id, version_id, now()))


@delete(
    "/workflows/v2/{workflow_id:str}/{version_id:str}",
    status_code=200,
    opt=_DELETE,
    tags=TAGS,
    summary="Delete a workflow version",
    description="Its file goes; its steps stay for the jobs that were done with it. Not the active version.",
)
async def delete_version(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 14.6."""
    keys = await database.settle(_delete_version, request.user, workflow_id, version_id, now())
    await delete_now(blobs, keys)
    return Response(b"", status_code=200)


@delete(
    "/workflows/v2/{workflow_id:str}",
    status_code=200,
    opt=_DELETE,
    tags=TAGS,
    summary="Delete a workflow",
    description="With all its versions and their files. Its steps stay for the jobs that were done with it.",
)
async def delete_workflow(
    request: WorkflowRequest,
    workflow_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 14.7."""
    keys = await database.settle(_delete, request.user, workflow_id, now())
    await delete_now(blobs, keys)
    return Response(b"", status_code=200)


class _Held(NamedTuple):
    """A workflow whose change has begun: nobody else changes it until the transaction ends."""

    place: int
    workflow: WorkflowRow
    versions: list[VersionRow]

    def version(self, version_id: str) -> VersionRow:
        for row in self.versions:
            if row.version_id == version_id:
                return row
        raise version_not_found()

    def with_version(self, changed: VersionRow) -> "_Held":
        versions = [changed if row.version_id == changed.version_id else row for row in self.versions]
        return self._replace(versions=versions)


def _hold(connection: Connection, team_id: int, workflow_id: str) -> _Held:
    place = queries.take_place(connection, team_id)
    workflow = queries.by_id(connection, team_id, workflow_id)
    if workflow is None:
        raise not_found()
    return _Held(place, workflow, queries.versions(connection, team_id, workflow_id))


def _save(connection: Connection, user: Principal, held: _Held, at: int) -> bytes:
    row = held.workflow._replace(updated_at=at)
    return documents.save(connection, row, held.versions, user.team_name, held.place)


def _update(connection: Connection, user: Principal, workflow_id: str, asked: Metadata, at: int) -> bytes:
    held = _hold(connection, user.team_id, workflow_id)
    row = held.workflow
    if asked.name is not None:
        row = row._replace(name=asked.name)
    if asked.description is not None:
        row = row._replace(description=asked.description)
    if asked.tags is not None:
        row = row._replace(tags=msgspec.json.encode(asked.tags))
    if asked.live_object_ids is not None:
        _check_objects(connection, row, asked.live_object_ids)
        row = row._replace(live_object_ids=msgspec.json.encode(asked.live_object_ids))
    if asked.is_archived is not None:
        row = row._replace(archived=truth(asked.is_archived))
    return _save(connection, user, held._replace(workflow=row), at)


def _check_objects(connection: Connection, row: WorkflowRow, wanted: list[str]) -> None:
    """Refuse ids that are no users or groups. Those it has already may stay: sending back what was read must
    work, and a workflow kept to a group that was deleted must not be open to everybody."""
    new = set(wanted) - set(msgspec.json.decode(row.live_object_ids, type=list[str]))
    unknown = sorted(new - queries.known_objects(connection, row.team_id, new))
    if unknown:
        raise Problem(
            422,
            "unknown-live-objects",
            f"The team has no users or groups {', '.join(unknown)}. Nothing was changed.",
            field="liveObjectIds",
            extra={"unknown": unknown},
        )


def _update_version(
    connection: Connection, user: Principal, workflow_id: str, version_id: str, asked: VersionChanges, at: int
) -> bytes:
    held = _hold(connection, user.team_id, workflow_id)
    version = held.version(version_id)
    if asked.version_notes is not None:
        version = version._replace(notes=asked.version_notes)
    if asked.is_archived is not None:
        version = version._replace(archived=truth(asked.is_archived))
    if version.archived and version_id == held.workflow.active_version_id:
        raise _active("archived")
    queries.change_version(
        connection, user.team_id, version_id, notes=version.notes, archived=version.archived
    )
    return _save(connection, user, held.with_version(version), at)


def _activate(connection: Connection, user: Principal, version_id: str, at: int) -> bytes:
    found = queries.version(connection, user.team_id, version_id)
    if found is None:
        raise version_not_found()
    held = _hold(connection, user.team_id, found.workflow_id)
    # As it is now that nobody else changes it.
    version = held.version(version_id)
    if version.archived:
        raise Problem(409, "version-archived", "The version is archived. Take it out of the archive first.")
    if version.approved_at is None and approver_mode(connection, user.team_id):
        raise Problem(
            409,
            "version-not-approved",
            "The version must be approved first, by somebody with Workflow_Approve.",
        )
    if held.workflow.active_version_id == version_id:
        return held.workflow.document
    workflow = held.workflow._replace(active_version_id=version_id)
    return _save(connection, user, held._replace(workflow=workflow), at)


def _approve(connection: Connection, user: Principal, workflow_id: str, version_id: str, at: int) -> bytes:
    held = _hold(connection, user.team_id, workflow_id)
    version = held.version(version_id)
    if version.approved_at is not None:
        return held.workflow.document
    version = version._replace(approved_by=user.subject_id, approved_at=at)
    queries.change_version(
        connection, user.team_id, version_id, approved_by=version.approved_by, approved_at=at
    )
    held = held.with_version(version)
    active = next(
        (row.number for row in held.versions if row.version_id == held.workflow.active_version_id), 0
    )
    if version.number > active and not version.archived and approver_mode(connection, user.team_id):
        held = held._replace(workflow=held.workflow._replace(active_version_id=version_id))
    return _save(connection, user, held, at)


def _delete_version(
    connection: Connection, user: Principal, workflow_id: str, version_id: str, at: int
) -> list[str]:
    """Answers the keys of the files to delete, which a task of this transaction does unless somebody is faster."""
    held = _hold(connection, user.team_id, workflow_id)
    version = held.version(version_id)
    if version_id == held.workflow.active_version_id:
        raise _active("deleted")
    keys = _forget(connection, version, at)
    rest = [row for row in held.versions if row.version_id != version_id]
    _save(connection, user, held._replace(versions=rest), at)
    return keys


def _delete(connection: Connection, user: Principal, workflow_id: str, at: int) -> list[str]:
    held = _hold(connection, user.team_id, workflow_id)
    keys = [key for version in held.versions for key in _forget(connection, version, at)]
    row = held.workflow._replace(seq=held.place, document=b"", updated_at=at, deleted_at=at)
    queries.save(connection, row)
    return keys


def _forget(connection: Connection, version: VersionRow, at: int) -> list[str]:
    queries.change_version(connection, version.team_id, version.version_id, blob_key=None, deleted_at=at)
    if version.blob_key is None:
        return []
    keys = [version.blob_key]
    tasks.enqueue(connection, version.team_id, DELETE_BLOBS, version.blob_key, {"keys": keys}, now=at)
    return keys


def _active(what: str) -> Problem:
    return Problem(
        409,
        "version-active",
        f"The active version cannot be {what}. Activate another one first, or archive or delete the workflow.",
    )


route_handlers = [
    update_workflow,
    update_version,
    activate_version,
    approve_version,
    delete_version,
    delete_workflow,
]
