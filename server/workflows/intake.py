"""What requests about workflows share: who may see which, checked bodies, refusals."""

from typing import Any, Literal

import msgspec
from litestar import Request

from server import bodies
from server.auth.principal import Principal
from server.errors import Problem

WorkflowRequest = Request[Principal, Any, Any]

TAGS = ["Workflows"]
MAX_TEXT = 10_000
MAX_TAGS = 50
MAX_TAG = 100
MAX_LIVE_OBJECTS = 1_000

#: Those who make and approve workflows see all of them, also those kept to others.
_SEE_ALL = frozenset({"OWNER", "ADMIN", "EDITOR", "APPROVER"})

_ids = msgspec.json.Decoder(list[str])
#: A boolean, or a string as clients written after the document's examples send it.
Truth = bool | Literal["true", "false", "True", "False"]


class Finalize(msgspec.Struct, rename="camel"):
    """The body of section 14.4.5; with ``workflowId`` it adds a version. What is null was not sent."""

    upload_id: str
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    version_notes: str | None = None
    workflow_id: str | None = None


class Metadata(msgspec.Struct, rename="camel"):
    """The body of section 14.3, and ``isArchived``. What is null was not sent."""

    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    live_object_ids: list[str] | None = None
    is_archived: Truth | None = None


class VersionChanges(msgspec.Struct, rename="camel"):
    """What can be changed of a version. What is null was not sent."""

    is_archived: Truth | None = None
    version_notes: str | None = None


def truth(value: Truth) -> bool:
    """A boolean that may have come as a string."""
    return value in (True, "true", "True")


def checked_finalize(body: bytes) -> Finalize:
    """The request to finalize an upload, once it can be done.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    asked = bodies.decode(body, Finalize)
    if asked.name is None and asked.workflow_id is None:
        raise bodies.invalid(
            "name", "A new workflow needs a name; a new version of one needs its workflowId."
        )
    if asked.name is not None:
        asked.name = bodies.name(asked.name, "name")
    _check_text(asked.description, "description")
    _check_text(asked.version_notes, "versionNotes")
    asked.tags = _checked_tags(asked.tags)
    return asked


def checked_metadata(body: bytes) -> Metadata:
    """The new metadata of a workflow.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    asked = bodies.decode(body, Metadata)
    if asked.name is not None:
        asked.name = bodies.name(asked.name, "name")
    _check_text(asked.description, "description")
    asked.tags = _checked_tags(asked.tags)
    if asked.live_object_ids is not None:
        asked.live_object_ids = list(dict.fromkeys(asked.live_object_ids))
        if len(asked.live_object_ids) > MAX_LIVE_OBJECTS:
            raise bodies.invalid("liveObjectIds", f"liveObjectIds takes at most {MAX_LIVE_OBJECTS:,} ids.")
        for object_id in asked.live_object_ids:
            if "\0" in object_id or len(object_id) > MAX_TAG:
                raise bodies.invalid("liveObjectIds", "liveObjectIds takes ids of users and groups.")
    return asked


def checked_version_changes(body: bytes) -> VersionChanges:
    """What to change of a version.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    asked = bodies.decode(body, VersionChanges)
    _check_text(asked.version_notes, "versionNotes")
    return asked


def _check_text(value: str | None, field: str) -> None:
    if value is not None and len(value) > MAX_TEXT:
        raise bodies.invalid(field, f"{field} must not be longer than {MAX_TEXT:,} characters.")
    if value is not None and "\0" in value:
        raise bodies.invalid(field, f"{field} must not hold a NUL.")


def _checked_tags(tags: list[str] | None) -> list[str] | None:
    """Each tag once, without the blanks around it."""
    if tags is None:
        return None
    result = list(dict.fromkeys(tag.strip() for tag in tags if tag.strip()))
    if len(result) > MAX_TAGS:
        raise bodies.invalid("tags", f"A workflow has at most {MAX_TAGS} tags.")
    for tag in result:
        if len(tag) > MAX_TAG or not tag.isprintable():
            raise bodies.invalid("tags", f"A tag has at most {MAX_TAG} characters, all of them printable.")
    return result


def sees_all(user: Principal) -> bool:
    """Whether the caller sees every workflow of the team."""
    return not user.permissions.isdisjoint(_SEE_ALL)


def may_use(user: Principal, live_object_ids: bytes) -> bool:
    """Whether a workflow with these ``liveObjectIds`` (JSON) is the caller's to use."""
    if live_object_ids == b"[]" or sees_all(user):
        return True
    return not {user.subject_id, *user.group_ids}.isdisjoint(_ids.decode(live_object_ids))


def not_found() -> Problem:
    """The one answer for a workflow that is not there, not the team's, or not the caller's to use."""
    return Problem(404, "workflow-not-found", "There is no such workflow.")


def version_not_found() -> Problem:
    """The answer for a version that is not there, or not of this workflow."""
    return Problem(404, "workflow-version-not-found", "There is no such version of the workflow.")
