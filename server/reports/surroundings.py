"""What a report shows beside its job and can change without it: people, workflow, files, the team's time zone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from server.jobs.names import naming_version, searchable
from storage.database import Connection
from storage.queries import attachments, team_settings, users, workflows
from storage.queries.attachments import AttachmentRow
from storage.queries.jobs import JobView
from storage.queries.users import UserRow
from storage.queries.workflows import VersionRow, WorkflowRow
from sync.facts import number, text

#: More files than this of one job are neither shown nor looked at.
MOST_FILES = 5_000


class Around(NamedTuple):
    """What stands around a job. ``naming``: the version that says what its steps are called. ``has_more``: it has
    files that are not among ``files``.
    """

    zone: str
    user: UserRow | None
    workflow: WorkflowRow | None
    version: VersionRow | None
    naming: str | None
    files: list[AttachmentRow]
    has_more: bool = False


class Head(msgspec.Struct):
    """What of a job's view leads to its surroundings; reading only this is quick."""

    metadata: dict[str, Any]
    team: Any = None


decode_head = msgspec.json.Decoder(Head, float_hook=number).decode


def read_around(connection: Connection, team_id: int, job: JobView, head: Head) -> Around:
    """All of it, as it is now."""
    user_id, workflow_id, version_id = (
        searchable(head.metadata.get(name)) for name in ("userId", "workflowId", "workflowVersionId")
    )
    files = attachments.of_job(connection, team_id, job.job_id, "", MOST_FILES + 1)
    return Around(
        zone=team_settings.default_timezone(connection, team_id),
        user=users.user_by_id(connection, team_id, user_id) if user_id else None,
        workflow=workflows.by_id(connection, team_id, workflow_id, True) if workflow_id else None,
        version=workflows.version(connection, team_id, version_id) if version_id else None,
        naming=naming_version(connection, team_id, {"metadata": head.metadata}),
        files=files[:MOST_FILES],
        has_more=len(files) > MOST_FILES,
    )


def shown(around: Around, metadata: Mapping[str, Any], team: Any) -> dict[str, Any]:
    """The part of what templates are given that is not the job's own: what is said here, a fingerprint covers.

    Args:
        metadata, team: members of the job's document.
    """
    return {
        "team": {"name": team, "timeZone": around.zone},
        "user": _user(around.user, metadata),
        "workflow": _workflow(around, metadata),
        "zone": around.zone,
    }


def seen(around: Around, head: Head) -> list[Any]:
    """All that decides how a report of the same revision of the job looks, as JSON."""
    files = [
        (row.attachment_id, row.state, row.sha256, row.file_name, row.content_type) for row in around.files
    ]
    return [shown(around, head.metadata, head.team), around.naming, files, around.has_more]


def _user(user: UserRow | None, metadata: Mapping[str, Any]) -> dict[str, str | None]:
    if user is None:
        # Somebody who was deleted, or whom only the tablet knew.
        return {"id": text(metadata.get("userId")), "name": text(metadata.get("username")), "email": None}
    return {"id": user.user_id, "name": user.name or user.username, "email": user.email_address}


def _workflow(around: Around, metadata: Mapping[str, Any]) -> dict[str, Any]:
    workflow, version = around.workflow, around.version
    return {
        "id": text(metadata.get("workflowId")),
        "name": workflow.name if workflow is not None else text(metadata.get("workflowName")),
        "description": workflow.description if workflow is not None else None,
        "tags": msgspec.json.decode(workflow.tags) if workflow is not None else [],
        "version": version.number if version is not None else None,
    }
