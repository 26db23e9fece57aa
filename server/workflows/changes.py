"""What has changed since a device last asked: workflows in the order of their last change."""

import hashlib
import re
from typing import NamedTuple

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from server.auth.principal import Principal
from server.http import MAX_LIMIT, json_response, whole_number
from server.workflows.intake import TAGS, WorkflowRequest, may_use, sees_all
from storage.database import Connection, Database
from storage.queries import workflows as queries
from storage.queries.workflows import ChangedWorkflow

_DEFAULT_LIMIT = 100
_CURSOR = re.compile(r"([0-9a-f]{1,64})\.(all|[0-9a-f]{12})\.(\d{1,18})", re.ASCII)


class Page(NamedTuple):
    """Some changes. ``reset``: what the caller knows may be of a database that is lost."""

    rows: list[ChangedWorkflow]
    next: str
    more: bool
    reset: bool


@get(
    "/workflows/v2/changes",
    opt={"policy": "Workflow_Read"},
    tags=TAGS,
    summary="Get changes of workflows",
    description="The workflows that changed after `since` (the `next` of an earlier answer; without it: all), each "
    "once as it is now, or `deleted: true` if it was deleted or is not the caller's to use. `limit` (100, at most "
    "1,000). Ask with `next` until `more` is false. `reset: true`: forget all workflows first; what follows is "
    "everything.",
)
async def get_changes(request: WorkflowRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Changes, none of which is ever skipped."""
    limit = min(whole_number(request, "limit", _DEFAULT_LIMIT, 1), MAX_LIMIT)
    user = request.user
    page = await database.read(_page, user, request.query_params.get("since") or "", limit)
    body = {
        "changes": [_change(row, user) for row in page.rows],
        "next": page.next,
        "more": page.more,
        "reset": page.reset,
    }
    return json_response(msgspec.json.encode(body))


def _page(connection: Connection, user: Principal, since: str, limit: int) -> Page:
    incarnation, head = queries.position(connection, user.team_id)
    sight = _sight(user)
    place, reset = 0, False
    if since:
        found = _CURSOR.fullmatch(since)
        if found is None or found[1] != incarnation or int(found[3]) > head:
            # Not ours, or from before a restore of the database: the caller may know what is lost.
            reset = True
        elif found[2] == sight:
            place = int(found[3])
        # Else the caller may use others now: from the beginning, with every one it may not as deleted.
    rows = queries.changed_since(connection, user.team_id, place, limit + 1)
    more = len(rows) > limit
    rows = rows[:limit]
    last = rows[-1].seq if rows else place
    return Page(rows, f"{incarnation}.{sight}.{last}", more, reset)


def _sight(user: Principal) -> str:
    """A name for what the caller may see: it changes with the caller's groups and permissions."""
    if sees_all(user):
        return "all"
    text = " ".join([user.subject_id, *sorted(user.group_ids)])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _change(row: ChangedWorkflow, user: Principal) -> msgspec.Raw:
    if row.deleted_at is None and may_use(user, row.live_object_ids):
        return msgspec.Raw(row.document)
    return msgspec.Raw(msgspec.json.encode({"workflowId": row.workflow_id, "deleted": True}))


route_handlers = [get_changes]
