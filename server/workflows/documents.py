"""Workflows as they are printed. The document is rendered when something changes, and read as it is."""

from collections.abc import Sequence
from typing import Any

import msgspec

from storage.database import Connection
from storage.queries import workflows as queries
from storage.queries.workflows import VersionRow, WorkflowRow
from sync.values import format_time


def save(
    connection: Connection, row: WorkflowRow, versions: Sequence[VersionRow], team_name: str, place: int
) -> bytes:
    """Store a changed workflow in its place of the sequence of changes; answers its document."""
    document = render(row, versions, team_name)
    queries.save(connection, row._replace(document=document, seq=place))
    return document


def render(row: WorkflowRow, versions: Sequence[VersionRow], team_name: str) -> bytes:
    """A workflow as section 14.1 prints it, and ``tags``."""
    return msgspec.json.encode(
        {
            "workflowId": row.workflow_id,
            "created": format_time(row.created_at),
            "lastUpdated": format_time(row.updated_at),
            "teamName": team_name,
            "activeVersionId": row.active_version_id,
            "name": row.name,
            "description": row.description,
            "isArchived": row.archived,
            "liveObjectIds": msgspec.Raw(row.live_object_ids),
            "versions": [version_document(version) for version in versions],
            "tags": msgspec.Raw(row.tags),
        }
    )


def version_document(row: VersionRow) -> dict[str, Any]:
    """A version as section 14.1 prints it, and what else is known of it."""
    return {
        "versionId": row.version_id,
        "fileReference": row.file_reference,
        "fileSize": row.file_size,
        "uploaded": format_time(row.uploaded_at),
        "authorId": row.author_id,
        "authorName": row.author_name,
        "version": row.number,
        "isArchived": row.archived,
        "fileName": row.file_name,
        "sha256": row.sha256.hex(),
        "versionNotes": row.notes,
        "opaque": row.opaque,
        "problem": row.problem,
        "approved": row.approved_at is not None,
        "approvedBy": row.approved_by,
        "approvedAt": None if row.approved_at is None else format_time(row.approved_at),
    }
