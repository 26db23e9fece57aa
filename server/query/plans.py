"""The root fields ``workflows`` and ``scheduledJobs``."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from server.query.asking import Asking
from server.query.people import USERS, Circle, PeopleShape, circle_around
from server.query.selecting import Field
from server.query.shaping import (
    Tellers,
    refused,
    shaped,
    skip_and_limit,
    time_or_none,
    told,
)
from server.scheduled_jobs.shapes import scheduled_job_state
from storage import schedule
from storage.database import Connection
from storage.queries import scheduled_jobs as queries
from storage.queries import workflows as workflow_queries
from storage.queries.scheduled_jobs import Row, TaskRow, Wanted
from storage.queries.users import Person
from storage.queries.workflows import WorkflowSummary
from sync.values import format_time

MAX_LIMIT = 100
USUAL_SCHEDULED_JOBS = 50

_strings: Callable[[bytes], list[str]] = msgspec.json.Decoder(list[str]).decode

WORKFLOW_FIELDS: Tellers[WorkflowSummary] = {
    "workflowId": lambda row: row.workflow_id,
    "name": lambda row: row.name,
    "description": lambda row: row.description,
    "tags": lambda row: _strings(row.tags),
    "activeVersionId": lambda row: row.active_version_id,
    "archived": lambda row: row.archived,
    "created": lambda row: format_time(row.created_at),
    "updated": lambda row: format_time(row.updated_at),
}
SCHEDULED_JOB_FIELDS: Tellers[Row] = {
    "jobId": lambda row: row.scheduled_job_id,
    "name": lambda row: row.name,
    "description": lambda row: row.description,
    "state": lambda row: row.state,
    "priority": lambda row: row.priority,
    "due": lambda row: time_or_none(row.due_at),
    "created": lambda row: format_time(row.created_at),
    "updated": lambda row: format_time(row.updated_at),
}
#: Section 10.4.
TASK_STATES = {
    schedule.NOT_STARTED: "NotStarted",
    schedule.ACTIVE: "Active",
    schedule.PAUSED: "Paused",
    schedule.COMPLETED: "Completed",
    schedule.ABANDONED: "Abandoned",
}
TASK_FIELDS: Tellers[TaskRow] = {
    "taskId": lambda row: row.task_id,
    "taskType": lambda row: row.task_type,
    "artifactId": lambda row: row.artifact_id,
    "jobId": lambda row: row.job_id,
    "clientJobId": lambda row: row.client_job_id,
    "state": lambda row: TASK_STATES[row.state],
    "updated": lambda row: time_or_none(row.updated_at),
    "modified": lambda row: time_or_none(row.modified_at),
}


async def workflows(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Workflows as ``field`` asks for them, newest first.

    Raises:
        QueryProblem: ``invalid-argument``.
    """
    page = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    archived = None if field.arguments.get("includeArchived") else False
    rows = await asking.database.read(workflow_queries.summaries, asking.team_id, archived, *page)
    return [told(field.fields, WORKFLOW_FIELDS, row) for row in rows]


class _Page(NamedTuple):
    """Scheduled jobs, and by their ids what was asked for beside them."""

    rows: Sequence[Row]
    people: Mapping[str, Sequence[Person]]
    circle: Circle
    tasks: Mapping[str, Sequence[TaskRow]]


async def scheduled_jobs(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Scheduled jobs as ``field`` asks for them, newest first.

    Raises:
        QueryProblem: ``invalid-argument``, ``query-too-complex``.
    """
    wanted = Wanted(*skip_and_limit(field, USUAL_SCHEDULED_JOBS, MAX_LIMIT), _state(field))
    page = await asking.database.read(_load, asking.team_id, field.fields, wanted)
    # A hundred of them may be for a thousand users each.
    return await asyncio.to_thread(_shaped, field.fields, page)


def _state(field: Field) -> str | None:
    given = field.arguments.get("state")
    state = None if given is None else scheduled_job_state(given)
    if given is not None and state is None:
        raise refused(field, "state must be Scheduled or Completed.")
    return state


def _load(connection: Connection, team_id: int, fields: Sequence[Field], wanted: Wanted) -> _Page:
    rows = queries.rows(connection, team_id, wanted)
    ids = [row.scheduled_job_id for row in rows]
    names = {field.name for field in fields}
    people = queries.people_of(connection, team_id, ids) if "users" in names else {}
    # Each once, however many jobs they are to do.
    users = {user.user_id: user for assigned in people.values() for user in assigned}
    of_users = [inner for field in fields if field.name == "users" for inner in field.fields]
    return _Page(
        rows=rows,
        people=people,
        circle=circle_around(connection, team_id, USERS, users.values(), of_users),
        tasks=queries.tasks_of(connection, team_id, ids) if "tasks" in names else {},
    )


def _shaped(fields: Sequence[Field], page: _Page) -> list[dict[str, Any]]:
    people = PeopleShape(page.circle)

    def scheduled_job(row: Row) -> dict[str, Any]:
        def tell(field: Field) -> Any:
            if field.name == "users":
                return people.listed(USERS, field, page.people.get(row.scheduled_job_id, ()))
            if field.name == "tasks":
                tasks = page.tasks.get(row.scheduled_job_id, ())
                return [told(field.fields, TASK_FIELDS, task) for task in tasks]
            return SCHEDULED_JOB_FIELDS[field.name](row)

        return shaped(fields, tell)

    return [scheduled_job(row) for row in page.rows]
