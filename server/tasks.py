"""Tasks: the background work of a team, for administrators to look at, and to run dead tasks again."""

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.clock import now
from server.errors import Problem
from server.http import json_response, skip_and_limit
from server.jobs.intake import JobRequest
from storage.database import Database
from storage.queries import tasks as queries
from storage.queries.tasks import TaskRow
from storage.queue import TaskQueue
from sync.values import format_time

_TAGS = ["Tasks"]
_POLICY = {"policy": "Job_Modify"}
_STATES = ("ready", "running", "retry", "done", "dead")


def _entry(row: TaskRow) -> dict[str, object]:
    return {
        "taskId": row.task_id,
        "kind": row.kind,
        "subject": row.subject,
        "state": row.state,
        "attempts": row.attempts,
        "error": row.error,
        "created": format_time(row.created_at),
        "runAt": format_time(row.run_at),
        "finished": format_time(row.finished_at) if row.finished_at is not None else None,
    }


@get(
    "/tasks/v1",
    opt=_POLICY,
    tags=_TAGS,
    summary="List background tasks",
    description="Newest first. Query parameters: `state` (ready, running, retry, done or dead; without it "
    "all), `skip` (0), `limit` (20, at most 1,000).",
)
async def list_tasks(request: JobRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """What is done in the background, and why some of it failed."""
    state = request.query_params.get("state") or None
    if state is not None and state not in _STATES:
        raise Problem(400, "invalid-parameter", f"state must be one of {', '.join(_STATES)}.", field="state")
    rows = await database.read(queries.page, request.user.team_id, state, *skip_and_limit(request))
    return json_response(msgspec.json.encode([_entry(row) for row in rows]))


@post(
    "/tasks/v1/{task_id:str}/replay",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Run a dead task again",
    description="With all its attempts. If the same work waits already, the task is done with that.",
)
async def replay_task(
    request: JobRequest, task_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """For when what stood in the way is gone."""
    team_id = request.user.team_id
    replayed = await TaskQueue(database).replay(team_id, task_id, now())
    row = await database.read(queries.one, team_id, task_id)
    if row is None:
        raise Problem(404, "task-not-found", "There is no such task.")
    if not replayed:
        raise Problem(409, "task-not-dead", f"Only a dead task can be run again; this one is {row.state}.")
    return json_response(msgspec.json.encode(_entry(row)))


route_handlers = [list_tasks, replay_task]
