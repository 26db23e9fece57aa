"""Scheduled jobs: listed, created, assigned, claimed, told how far they are, deleted (section 10).

Whoever is neither owner nor administrator sees what is assigned to them or to nobody; the rest is not there
for them.
"""

from typing import Any

from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import optional_page
from server.scheduled_jobs import shapes
from server.scheduled_jobs.shapes import PrintedScheduledJob, not_found, printed
from storage import schedule
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import scheduled_jobs as queries
from storage.queries.scheduled_jobs import Row, ScheduledJob, Wanted
from storage.queries.users import present_user_ids
from sync.snapshot import check_client_job_id

_TAGS = ["Scheduled jobs"]
_READ = {"policy": "Schedule_Read"}
_ADMIN = {"policy": "Schedule_Admin"}

ScheduleRequest = Request[Principal, Any, Any]


# Reading


@get(
    "/scheduledjobs/v1",
    opt={"policy": "Schedule_ReadAll"},
    tags=_TAGS,
    summary="Get all scheduled jobs",
    description=(
        "Newest first, all of them unless `skip` or `limit` asks for a part; `state` (Scheduled or Completed) and "
        "`assignedUserId` narrow it."
    ),
)
async def get_all(request: ScheduleRequest, database: NamedDependency[Database]) -> list[PrintedScheduledJob]:
    """Section 10.1."""
    wanted = _wanted(request)._replace(user_id=request.query_params.get("assignedUserId") or None)
    return [printed(job) for job in await database.read(queries.page, request.user.team_id, wanted)]


@get(
    "/scheduledjobs/v1/my",
    opt=_READ,
    tags=_TAGS,
    summary="Get my scheduled jobs",
    description=(
        "An array of those assigned to the caller and of those assigned to nobody, which may be claimed; "
        "newest first, with `skip`, `limit` and `state` as for all."
    ),
)
async def get_mine(
    request: ScheduleRequest, database: NamedDependency[Database]
) -> list[PrintedScheduledJob]:
    """Section 10.3."""
    wanted = _wanted(request)._replace(user_id=request.user.subject_id, or_unassigned=True)
    return [printed(job) for job in await database.read(queries.page, request.user.team_id, wanted)]


def _wanted(request: ScheduleRequest) -> Wanted:
    state = None
    asked = request.query_params.get("state")
    if asked:
        state = shapes.scheduled_job_state(asked)
        if state is None:
            raise Problem(400, "invalid-parameter", "state must be Scheduled or Completed.", field="state")
    return Wanted(*optional_page(request), state)


@get("/scheduledjobs/v1/{scheduled_job_id:str}", opt=_READ, tags=_TAGS, summary="Get a scheduled job")
async def get_one(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> PrintedScheduledJob:
    """Section 10.2."""
    job = await database.read(queries.one, request.user.team_id, scheduled_job_id)
    return printed(_seen(job, request.user))


def _seen(job: ScheduledJob | None, caller: Principal) -> ScheduledJob:
    """``job``, if it is there for the caller."""
    if job is None or (caller.own_work_only and job.user_ids and caller.subject_id not in job.user_ids):
        raise not_found()
    return job


# What planners do


@post(
    "/scheduledjobs/v1",
    status_code=200,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Create a scheduled job",
    description=(
        "`artifactId` is the workflow's id. Assigned to nobody, everybody sees it and somebody may claim it."
    ),
)
async def create(request: ScheduleRequest, database: NamedDependency[Database]) -> PrintedScheduledJob:
    """Section 10.8."""
    body = bodies.decode(await request.body(), shapes.CreateScheduledJob)
    moment = now()
    row = Row(
        scheduled_job_id=new_id(),
        name=bodies.name(body.name, "name"),
        description=shapes.description(body.description),
        state=schedule.SCHEDULED,
        priority=shapes.priority(body.priority),
        due_at=shapes.time(body.due_by_date, "dueByDate"),
        created_by=request.user.subject_id,
        created_at=moment,
        updated_at=moment,
        reminded=0,
    )
    job = ScheduledJob(
        row,
        shapes.user_ids(body.assigned_user_ids or ()),
        shapes.tasks(row.scheduled_job_id, body.tasks or ()),
    )
    await database.settle(_create, request.user.team_id, job)
    return printed(job)


def _create(connection: Connection, team_id: int, job: ScheduledJob) -> None:
    _check_users(connection, team_id, job.user_ids)
    queries.insert_scheduled_job(connection, team_id, job)


def _check_users(connection: Connection, team_id: int, user_ids: tuple[str, ...]) -> None:
    known = present_user_ids(connection, team_id, user_ids)
    unknown = [user_id for user_id in user_ids if user_id not in known]
    if unknown:
        raise Problem(
            422,
            "unknown-users",
            f"The team has no users {', '.join(unknown)}. Nothing was changed.",
            field="assignedUserIds",
            extra={"userIds": unknown},
        )


@put(
    "/scheduledjobs/v1/{scheduled_job_id:str}/assignedUsers",
    opt=_ADMIN,
    tags=_TAGS,
    summary="Update the assigned users of a scheduled job",
    description="`assignedUserIds` replaces the list; an empty one leaves it to whoever claims it.",
)
async def assign(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> PrintedScheduledJob:
    """Section 10.6."""
    named = bodies.decode(await request.body(), shapes.AssignedUsers).assigned_user_ids
    user_ids = shapes.user_ids(named)
    return printed(await database.settle(_assign, request.user, scheduled_job_id, user_ids, now()))


def _assign(
    connection: Connection, caller: Principal, scheduled_job_id: str, user_ids: tuple[str, ...], moment: int
) -> ScheduledJob:
    job = _seen(queries.for_update(connection, caller.team_id, scheduled_job_id), caller)
    # Those who have it already may have been deleted since; whoever reads the list and adds somebody may keep them.
    added = tuple(user_id for user_id in user_ids if user_id not in job.user_ids)
    _check_users(connection, caller.team_id, added)
    return _set_users(connection, caller, job, user_ids, moment)


def _set_users(
    connection: Connection, caller: Principal, job: ScheduledJob, user_ids: tuple[str, ...], moment: int
) -> ScheduledJob:
    if user_ids == job.user_ids:
        return job
    queries.set_users(connection, caller.team_id, job.row.scheduled_job_id, user_ids, moment)
    return job._replace(row=job.row._replace(updated_at=moment), user_ids=user_ids)


@delete(
    "/scheduledjobs/v1/{scheduled_job_id:str}",
    status_code=200,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Delete a scheduled job",
    description="The jobs done for it stay.",
)
async def delete_one(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 10.7."""
    if not await database.settle(queries.mark_deleted, request.user.team_id, scheduled_job_id, now()):
        raise not_found()
    return Response(b"", status_code=200)


# What people in the field do


@put(
    "/scheduledjobs/v1/{scheduled_job_id:str}/tasks/{task_id:str}/status",
    opt=_READ,
    tags=_TAGS,
    summary="Update the status of a task in a scheduled job",
    description=(
        "`clientJobId` is the job done for the task, `updated` the device's time. Of one job what is later "
        "counts: this, or the job as it was synced. Of several jobs the one that got farthest counts."
    ),
)
async def update_task(
    request: ScheduleRequest,
    scheduled_job_id: FromPath[str],
    task_id: FromPath[str],
    database: NamedDependency[Database],
) -> PrintedScheduledJob:
    """Section 10.4; answers the scheduled job."""
    body = bodies.decode(await request.body(), shapes.TaskStatus)
    client_job_id = check_client_job_id(body.client_job_id, "clientJobId")
    state, moment = shapes.task_state(body.state), now()
    updated_at = shapes.time(body.updated, "updated")
    # As with jobs, nothing happened later than it became known: a clock that is ahead must not win for good.
    updated_at = moment if updated_at is None else min(updated_at, moment)
    key = (scheduled_job_id, task_id.lower())
    return printed(await database.settle(_say, request.user, key, client_job_id, state, updated_at, moment))


def _say(
    connection: Connection,
    caller: Principal,
    key: queries.TaskKey,
    client_job_id: str,
    state: int,
    updated_at: int,
    moment: int,
) -> ScheduledJob:
    job = _seen(queries.for_update(connection, caller.team_id, key[0]), caller)
    if all(task.task_id != key[1] for task in job.tasks):
        raise Problem(404, "no-such-scheduled-task", "The scheduled job has no such task.")
    if not queries.say(connection, caller.team_id, key, client_job_id, state, updated_at, moment):
        raise Problem(
            409,
            "too-many-jobs",
            f"{queries.MAX_WORKS:,} jobs are known for this task; no further one is taken.",
            field="clientJobId",
        )
    return _seen(queries.one(connection, caller.team_id, key[0]), caller)


@put(
    "/scheduledjobs/v1/{scheduled_job_id:str}/status",
    opt=_READ,
    tags=_TAGS,
    summary="Update the status of a scheduled job",
    description="`Completed` once all its tasks are (409 `tasks-open` before that); `Scheduled` reopens it.",
)
async def update_status(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> PrintedScheduledJob:
    """Section 10.5. What the device says of the time is checked and not kept: ``updated`` is ours."""
    body = bodies.decode(await request.body(), shapes.ScheduledJobStatus)
    state = shapes.scheduled_job_state(body.state)
    if state is None:
        raise bodies.invalid("state", "state must be Scheduled or Completed.")
    shapes.time(body.updated, "updated")
    return printed(await database.settle(_update_status, request.user, scheduled_job_id, state, now()))


def _update_status(
    connection: Connection, caller: Principal, scheduled_job_id: str, state: str, moment: int
) -> ScheduledJob:
    job = _seen(queries.for_update(connection, caller.team_id, scheduled_job_id), caller)
    if state == job.row.state:
        return job
    if state == schedule.DONE:
        tasks = [task.task_id for task in job.tasks if task.state != schedule.COMPLETED]
        if tasks:
            raise Problem(
                409,
                "tasks-open",
                f"{len(tasks)} of {len(job.tasks)} tasks are not completed: {', '.join(tasks)}. "
                "Complete them first.",
                field="state",
                extra={"tasks": tasks},
            )
    queries.set_state(connection, caller.team_id, scheduled_job_id, state, moment)
    return job._replace(row=job.row._replace(state=state, updated_at=moment))


@post(
    "/scheduledjobs/v1/{scheduled_job_id:str}/claim",
    status_code=200,
    opt=_READ,
    tags=_TAGS,
    summary="Claim a scheduled job",
    description=(
        "Assigns one that is assigned to nobody to the caller. Of several who claim it at once one gets it; the "
        "others are answered 409 `already-claimed`."
    ),
)
async def claim(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> PrintedScheduledJob:
    """Beyond the specification."""
    return printed(await database.settle(_claim, request.user, scheduled_job_id, now()))


def _claim(connection: Connection, caller: Principal, scheduled_job_id: str, moment: int) -> ScheduledJob:
    # Another's is answered as claimed, not as missing: whoever comes second saw it in the list a moment ago.
    job = queries.for_update(connection, caller.team_id, scheduled_job_id)
    if job is None:
        raise not_found()
    if caller.kind != "user":
        raise Problem(409, "users-only", "Only people claim scheduled jobs. Assign it to a user instead.")
    if not job.user_ids:
        return _set_users(connection, caller, job, (caller.subject_id,), moment)
    if caller.subject_id not in job.user_ids:
        raise Problem(
            409,
            "already-claimed",
            "It is assigned to somebody else. Read your list again.",
            extra={} if caller.own_work_only else {"userIds": list(job.user_ids)},
        )
    return job


@post(
    "/scheduledjobs/v1/{scheduled_job_id:str}/release",
    status_code=200,
    opt=_READ,
    tags=_TAGS,
    summary="Release a scheduled job",
    description="Takes the caller off; assigned to nobody else, it may be claimed again.",
)
async def release(
    request: ScheduleRequest, scheduled_job_id: FromPath[str], database: NamedDependency[Database]
) -> PrintedScheduledJob:
    """Beyond the specification."""
    return printed(await database.settle(_release, request.user, scheduled_job_id, now()))


def _release(connection: Connection, caller: Principal, scheduled_job_id: str, moment: int) -> ScheduledJob:
    job = queries.for_update(connection, caller.team_id, scheduled_job_id)
    if job is None:
        raise not_found()
    if caller.subject_id not in job.user_ids:
        raise Problem(409, "not-assigned", "It is not assigned to you, so there is nothing to release.")
    left = tuple(user_id for user_id in job.user_ids if user_id != caller.subject_id)
    return _set_users(connection, caller, job, left, moment)


route_handlers = [
    get_all,
    get_mine,
    get_one,
    create,
    assign,
    delete_one,
    update_task,
    update_status,
    claim,
    release,
]
