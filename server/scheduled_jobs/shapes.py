"""What section 10 takes and answers."""

import uuid
from collections.abc import Sequence

import msgspec

from server import bodies
from server.errors import Problem
from storage import schedule
from storage.queries.scheduled_jobs import ScheduledJob, TaskRow
from sync.values import format_time, parse_time

MAX_TASKS = 100
MAX_USERS = 1000
MAX_DESCRIPTION = 10_000
MAX_ARTIFACT_ID = 255
_LAST_TIME = 253_402_300_800_000_000  # the year 10000, in microseconds

#: The one type of task there is.
WORKFLOW = "Workflow"

#: Name as it is compared -> number, of the states of tasks (sections 10.2 and 10.4).
TASK_STATES = {
    "notstarted": schedule.NOT_STARTED,
    "active": schedule.ACTIVE,
    "paused": schedule.PAUSED,
    "completed": schedule.COMPLETED,
    "abandoned": schedule.ABANDONED,
}
_TASK_STATES_NAMED = "NotStarted, Active, Paused, Completed, Abandoned"


class NewTask(msgspec.Struct, rename="camel"):
    """A task of section 10.8. ``artifactId`` is the workflow's id."""

    task_type: str
    artifact_id: str | None = None


class CreateScheduledJob(msgspec.Struct, rename="camel"):
    """The body of section 10.8. ``priority`` is a boolean or, as some clients send it, a string."""

    name: str
    description: str | None = None
    tasks: list[NewTask] | None = None
    assigned_user_ids: list[str] | None = None
    due_by_date: str | None = None
    priority: bool | str | None = False


class TaskStatus(msgspec.Struct, rename="camel"):
    """The body of section 10.4. Without ``updated`` it is as of now."""

    client_job_id: str
    state: str | int
    updated: str | None = None


class ScheduledJobStatus(msgspec.Struct, rename="camel"):
    """The body of section 10.5."""

    state: str
    updated: str | None = None


class AssignedUsers(msgspec.Struct, rename="camel"):
    """The body of section 10.6."""

    assigned_user_ids: list[str]


class Task(msgspec.Struct, rename="camel"):
    """A task as section 10.2 prints it. ``jobId`` and ``clientJobId`` are those of the job that does it."""

    task_type: str
    task_id: str
    artifact_id: str | None
    job_id: str | None
    client_job_id: str | None
    updated: str | None
    modified: str | None
    state: int


class PrintedScheduledJob(msgspec.Struct, rename="camel"):
    """A scheduled job as section 10.2 prints it. ``jobId`` is the scheduled job's own id."""

    job_id: str
    created: str
    updated: str
    state: str
    name: str
    description: str
    priority: bool
    due_by_date: str | None
    assigned_user_ids: list[str]
    tasks: list[Task]


def printed(job: ScheduledJob) -> PrintedScheduledJob:
    """``job`` as it is answered."""
    row = job.row
    return PrintedScheduledJob(
        job_id=row.scheduled_job_id,
        created=format_time(row.created_at),
        updated=format_time(row.updated_at),
        state=row.state,
        name=row.name,
        description=row.description,
        priority=row.priority,
        due_by_date=_printed_time(row.due_at),
        assigned_user_ids=list(job.user_ids),
        tasks=[_printed_task(task) for task in job.tasks],
    )


def _printed_task(task: TaskRow) -> Task:
    return Task(
        task_type=task.task_type,
        task_id=task.task_id,
        artifact_id=task.artifact_id,
        job_id=task.job_id,
        client_job_id=task.client_job_id,
        updated=_printed_time(task.updated_at),
        modified=_printed_time(task.modified_at),
        state=task.state,
    )


def _printed_time(moment: int | None) -> str | None:
    return None if moment is None else format_time(moment)


def time(text: str | None, field: str) -> int | None:
    """A time, which without a zone is UTC.

    Raises:
        Problem: 422 if it is none, or not between 1970 and 9999.
    """
    if text is None:
        return None
    moment = parse_time(text.strip())
    if moment is None or not 0 <= moment < _LAST_TIME:
        raise bodies.invalid(
            field, f"{field} must be a time between 1970 and 9999, such as 2021-10-06T07:24:52.440Z."
        )
    return moment


def task_state(value: str | int) -> int:
    """The number of a task's state: by name, in any case and with or without a blank, or by the number itself.

    Raises:
        Problem: 422.
    """
    if isinstance(value, str):
        name = value.lower().replace(" ", "")
        if name in TASK_STATES:
            return TASK_STATES[name]
        known = [number for number in TASK_STATES.values() if str(number) == name]
    else:
        known = [number for number in TASK_STATES.values() if number == value]
    if not known:
        raise bodies.invalid(
            "state", f"state must be one of {_TASK_STATES_NAMED}, or a number from 0 to 4 as answers have it."
        )
    return known[0]


def scheduled_job_state(value: str) -> str | None:
    """``Scheduled`` or ``Completed``, in any case; None for anything else."""
    known = {state.lower(): state for state in (schedule.SCHEDULED, schedule.DONE)}
    return known.get(value.strip().lower())


def description(text: str | None) -> str:
    """A description: lines of text, at most 10,000 characters.

    Raises:
        Problem: 422.
    """
    text = text or ""
    if len(text) > MAX_DESCRIPTION:
        raise bodies.invalid(
            "description", f"description must not be longer than {MAX_DESCRIPTION} characters."
        )
    if not all(char.isprintable() or char in "\n\r\t" for char in text):
        raise bodies.invalid("description", "description must not hold control characters but line ends.")
    return text


def priority(value: bool | str | None) -> bool:
    """A flag; "true" and "false" in any case are taken for the booleans.

    Raises:
        Problem: 422.
    """
    if isinstance(value, str):
        if value.lower() not in ("true", "false"):
            raise bodies.invalid("priority", "priority must be true or false.")
        return value.lower() == "true"
    return bool(value)


def tasks(scheduled_job_id: str, named: Sequence[NewTask]) -> tuple[TaskRow, ...]:
    """The tasks of a new scheduled job.

    Raises:
        Problem: 422 for too many, another type than Workflow or an id that cannot be one.
    """
    if len(named) > MAX_TASKS:
        raise bodies.invalid("tasks", f"tasks may hold at most {MAX_TASKS} tasks.")
    result = []
    for position, task in enumerate(named):
        if task.task_type.strip().lower() != WORKFLOW.lower():
            raise bodies.invalid(f"tasks[{position}].taskType", f"taskType must be {WORKFLOW}.")
        artifact_id = task.artifact_id
        if artifact_id is not None and (len(artifact_id) > MAX_ARTIFACT_ID or not artifact_id.isprintable()):
            raise bodies.invalid(
                f"tasks[{position}].artifactId",
                f"artifactId must be the id of a workflow: at most {MAX_ARTIFACT_ID} printable characters.",
            )
        result.append(
            TaskRow(
                scheduled_job_id=scheduled_job_id,
                task_id=str(uuid.uuid4()),
                position=position,
                task_type=WORKFLOW,
                artifact_id=artifact_id or None,
                job_id=None,
                client_job_id=None,
                state=schedule.NOT_STARTED,
                updated_at=None,
                modified_at=None,
            )
        )
    return tuple(result)


def user_ids(named: Sequence[str]) -> tuple[str, ...]:
    """Ids without doubles, in their order.

    Raises:
        Problem: 422 for too many.
    """
    if len(named) > MAX_USERS:
        raise bodies.invalid("assignedUserIds", f"assignedUserIds may hold at most {MAX_USERS} users.")
    return tuple(dict.fromkeys(named))


def not_found() -> Problem:
    return Problem(404, "no-such-scheduled-job", "There is no such scheduled job, or not for you.")
