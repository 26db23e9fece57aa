"""Scheduled jobs: planned work, who it is for, its tasks, and the jobs that do them (section 10).

Everything about one scheduled job happens under the lock of its row in ``scheduled_jobs``; several are locked
in the order of their ids, so that two transactions never wait for each other.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    or_,
    select,
    text,
    update,
)

from storage.queries.statements import Rows, padded
from storage.queries.tasks import enqueue
from storage.queries.users import PERSON, Person, person
from storage.schedule import Heard, Standing, counting, job_state, said
from storage.tables import (
    scheduled_job_tasks,
    scheduled_job_users,
    scheduled_job_works,
    scheduled_jobs,
    users,
)

#: Tasks of the queue: a scheduled job is due soon or overdue; one of its people is told.
REMIND = "schedule.remind"
REMIND_USER = "schedule.remind-user"
#: How far reminding has come.
DUE_SOON, OVERDUE = 1, 2

_SCHEDULED_JOB_ID = re.compile(r"[0-9a-f]{24}")
_TASK_ID = re.compile(r"[0-9a-f-]{36}")


class Row(NamedTuple):
    """A scheduled job's own columns."""

    scheduled_job_id: str
    name: str
    description: str
    state: str
    priority: bool
    due_at: int | None
    created_by: str
    created_at: int
    updated_at: int
    reminded: int


class TaskRow(NamedTuple):
    """A task of a scheduled job."""

    scheduled_job_id: str
    task_id: str
    position: int
    task_type: str
    artifact_id: str | None
    job_id: str | None
    client_job_id: str | None
    state: int
    updated_at: int | None
    modified_at: int | None

    @property
    def standing(self) -> Standing:
        return Standing(self.state, self.client_job_id, self.job_id, self.updated_at)


class ScheduledJob(NamedTuple):
    """A scheduled job with who it is for and its tasks, each in the order they were named."""

    row: Row
    user_ids: tuple[str, ...]
    tasks: tuple[TaskRow, ...]


class Work(NamedTuple):
    """A job, as merged now, that names a task. ``updated_at``: the job's own time."""

    scheduled_job_id: str
    task_id: str
    client_job_id: str
    job_id: str
    state: int
    updated_at: int | None


class Wanted(NamedTuple):
    """Which scheduled jobs to list.

    Attributes:
        user_id: only those assigned to this user.
        or_unassigned: with ``user_id``: and those assigned to nobody.
    """

    skip: int
    limit: int | None
    state: str | None = None
    user_id: str | None = None
    or_unassigned: bool = False


#: Jobs of one task of which a device may say something: all are looked at whenever one changes.
MAX_WORKS = 1_000
#: More ids than these are not named one by one in a statement.
_MAX_NAMED = 1_000
#: (scheduled job, task)
TaskKey = tuple[str, str]

_columns = [scheduled_jobs.c[name] for name in Row._fields]
_task_columns = [scheduled_job_tasks.c[name] for name in TaskRow._fields]
_heard_columns = [scheduled_job_works.c[name] for name in Heard._fields]
_present = scheduled_jobs.c.deleted_at.is_(None)

_WORK_KEY = ("team_id", "scheduled_job_id", "task_id", "client_job_id")
_JOB_PART = ("job_id", "job_state", "job_updated_at")
_SAID_PART = ("said_state", "said_updated_at")
_STANDING = ("state", "client_job_id", "job_id", "updated_at", "modified_at")


def _setting(columns: Iterable[str]) -> str:
    return "DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in columns)


_put_job_parts = Rows(
    scheduled_job_works,
    (*_WORK_KEY, *_JOB_PART),
    f"ON CONFLICT ({', '.join(_WORK_KEY)}) {_setting(_JOB_PART)}",
)
_put_said_parts = Rows(
    scheduled_job_works,
    (*_WORK_KEY, *_SAID_PART),
    f"ON CONFLICT ({', '.join(_WORK_KEY)}) {_setting(_SAID_PART)}",
)
_put_tasks = Rows(
    scheduled_job_tasks,
    ("team_id", *TaskRow._fields),
    f"ON CONFLICT (team_id, scheduled_job_id, task_id) {_setting(_STANDING)}",
)


# What jobs and devices tell


def follow(
    connection: Connection, team_id: int, works: Sequence[Work], gone: Sequence[str], now: int
) -> None:
    """Let the tasks of scheduled jobs follow the jobs that were changed in this transaction.

    Scheduled jobs and tasks that do not exist, or not any more, are passed over: a job merges whatever it
    names.

    Args:
        works: the changed jobs that name a task. Under tasks they named before they count no more.
        gone: clientJobIds of jobs that were deleted or name no task any more.
    """
    named = {
        work.client_job_id: work._replace(
            scheduled_job_id=work.scheduled_job_id.lower(), task_id=work.task_id.lower()
        )
        for work in works
    }
    # What cannot be an id is none; a text that the database cannot hold must not fail everybody's pushes.
    valid = {
        client_job_id: work
        for client_job_id, work in named.items()
        if _SCHEDULED_JOB_ID.fullmatch(work.scheduled_job_id) and _TASK_ID.fullmatch(work.task_id)
    }
    stale = [
        (*key, client_job_id)
        for *key, client_job_id in _known_works(connection, team_id, {*named, *gone})
        if client_job_id not in valid or tuple(key) != valid[client_job_id][:2]
    ]
    touched = {work.scheduled_job_id for work in valid.values()} | {row[0] for row in stale}
    if not touched:
        return
    locked = _lock(connection, team_id, touched)
    if not locked:
        return
    tasks = _tasks(connection, team_id, list(locked))
    there = {(task.scheduled_job_id, task.task_id) for task in tasks}
    parts = [(team_id, *row, None, None, None) for row in stale if row[0] in locked]
    parts += [
        (team_id, *work[:4], work.state, work.updated_at) for work in valid.values() if work[:2] in there
    ]
    if parts:
        _put_job_parts.insert(connection, sorted(parts, key=lambda part: part[:4]))
        _settle(connection, team_id, locked, tasks, {(part[1], part[2]) for part in parts}, now)


def _known_works(connection: Connection, team_id: int, client_job_ids: Collection[str]) -> list[Any]:
    """(scheduled job, task, clientJobId) under which jobs count as synced."""
    if not client_job_ids:
        return []
    query = select(*(scheduled_job_works.c[name] for name in _WORK_KEY[1:])).where(
        scheduled_job_works.c.team_id == team_id,
        scheduled_job_works.c.client_job_id.in_(padded(sorted(client_job_ids))),
        scheduled_job_works.c.job_state.is_not(None),
    )
    return list(connection.execute(query))


def say(
    connection: Connection,
    team_id: int,
    key: TaskKey,
    client_job_id: str,
    state: int,
    updated_at: int,
    now: int,
) -> bool:
    """Take what a device says of a task (section 10.4). The scheduled job is locked, and has the task.

    Answers False if so many jobs are known for the task already that no further one is taken.
    """
    known = _heard(connection, team_id, {key})[key]
    before = next((work for work in known if work.client_job_id == client_job_id), None)
    if before is None and len(known) >= MAX_WORKS:
        return False
    after = said(before or Heard(client_job_id), state, updated_at)
    if after == before:
        return True
    _put_said_parts.insert(
        connection, [(team_id, *key, client_job_id, after.said_state, after.said_updated_at)]
    )
    locked = _lock(connection, team_id, {key[0]})
    _settle(connection, team_id, locked, _tasks(connection, team_id, [key[0]]), {key}, now)
    return True


def _settle(
    connection: Connection,
    team_id: int,
    locked: Mapping[str, Row],
    tasks: Sequence[TaskRow],
    touched: Collection[TaskKey],
    now: int,
) -> None:
    """Bring the rows of tasks, and of their scheduled jobs, to what the works say.

    Args:
        locked: the scheduled jobs.
        tasks: all of theirs.
        touched: the tasks whose works have changed.
    """
    heard = _heard(connection, team_id, touched)
    changed: list[TaskRow] = []
    states: dict[str, list[int]] = defaultdict(list)
    for task in tasks:
        standing = task.standing
        key = (task.scheduled_job_id, task.task_id)
        if key in touched:
            standing = counting(heard[key])
            if standing != task.standing:
                changed.append(task._replace(**standing._asdict(), modified_at=now))
        states[task.scheduled_job_id].append(standing.state)
    if not changed:
        return
    _put_tasks.insert(connection, [(team_id, *task) for task in changed])
    by_state: dict[str, list[str]] = defaultdict(list)
    for scheduled_job_id in {task.scheduled_job_id for task in changed}:
        by_state[job_state(states[scheduled_job_id])].append(scheduled_job_id)
    for state, ids in sorted(by_state.items()):
        connection.execute(
            update(scheduled_jobs)
            .where(
                scheduled_jobs.c.team_id == team_id,
                scheduled_jobs.c.scheduled_job_id.in_(padded(sorted(ids))),
            )
            .values(state=state, updated_at=now)
        )


def _heard(
    connection: Connection, team_id: int, keys: Collection[TaskKey]
) -> Mapping[TaskKey, Sequence[Heard]]:
    works = scheduled_job_works.c
    # Two lists rather than one of pairs, for which SQLite would read all of the team's.
    query = select(works.scheduled_job_id, works.task_id, *_heard_columns).where(
        works.team_id == team_id,
        works.scheduled_job_id.in_(padded(sorted({key[0] for key in keys}))),
        works.task_id.in_(padded(sorted({key[1] for key in keys}))),
    )
    result: dict[TaskKey, list[Heard]] = defaultdict(list)
    for scheduled_job_id, task_id, *heard in connection.execute(query):
        result[scheduled_job_id, task_id].append(Heard(*heard))
    return result


# Reading


def page(connection: Connection, team_id: int, wanted: Wanted) -> list[ScheduledJob]:
    """Scheduled jobs, newest first. Three statements, however many there are."""
    return _whole(connection, team_id, rows(connection, team_id, wanted))


def rows(connection: Connection, team_id: int, wanted: Wanted) -> list[Row]:
    """The same without people and tasks. One statement."""
    query = _of(team_id)
    if wanted.state is not None:
        query = query.where(scheduled_jobs.c.state == wanted.state)
    if wanted.user_id is not None:
        theirs = _assigned(scheduled_job_users.c.user_id == wanted.user_id)
        query = query.where(or_(theirs, ~_assigned()) if wanted.or_unassigned else theirs)
    query = query.order_by(scheduled_jobs.c.scheduled_job_id.desc()).offset(wanted.skip).limit(wanted.limit)
    return [Row(*row) for row in connection.execute(query)]


def people_of(
    connection: Connection, team_id: int, scheduled_job_ids: Sequence[str]
) -> dict[str, list[Person]]:
    """scheduled job -> whom it is assigned to, in the order they were named, deleted users left out. One statement;
    those that are assigned to nobody are left out.
    """
    if not scheduled_job_ids:
        return {}
    assigned = scheduled_job_users.c
    query = (
        select(assigned.scheduled_job_id, *PERSON)
        .join_from(
            scheduled_job_users,
            users,
            and_(users.c.team_id == assigned.team_id, users.c.user_id == assigned.user_id),
        )
        .where(
            assigned.team_id == team_id,
            _among(assigned.scheduled_job_id, scheduled_job_ids),
            users.c.deleted_at.is_(None),
        )
        .order_by(assigned.position)
    )
    found: dict[str, list[Person]] = defaultdict(list)
    for scheduled_job_id, *columns in connection.execute(query):
        found[scheduled_job_id].append(person(columns))
    return found


def tasks_of(
    connection: Connection, team_id: int, scheduled_job_ids: Sequence[str]
) -> dict[str, list[TaskRow]]:
    """scheduled job -> its tasks, in the order they were named. One statement; those without tasks are left out."""
    found: dict[str, list[TaskRow]] = defaultdict(list)
    for task in _tasks(connection, team_id, scheduled_job_ids) if scheduled_job_ids else ():
        found[task.scheduled_job_id].append(task)
    return found


def one(connection: Connection, team_id: int, scheduled_job_id: str) -> ScheduledJob | None:
    """The team's scheduled job, unless it is deleted."""
    return _first(connection, team_id, _of(team_id).where(_is(scheduled_job_id)))


def for_update(connection: Connection, team_id: int, scheduled_job_id: str) -> ScheduledJob | None:
    """The team's scheduled job, held until the transaction ends."""
    return _first(connection, team_id, _of(team_id).where(_is(scheduled_job_id)).with_for_update())


def _of(team_id: int) -> Select[Any]:
    return select(*_columns).where(scheduled_jobs.c.team_id == team_id, _present)


def _is(scheduled_job_id: str) -> ColumnElement[bool]:
    return scheduled_jobs.c.scheduled_job_id == scheduled_job_id


def _assigned(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return exists().where(
        scheduled_job_users.c.team_id == scheduled_jobs.c.team_id,
        scheduled_job_users.c.scheduled_job_id == scheduled_jobs.c.scheduled_job_id,
        *conditions,
    )


def _first(connection: Connection, team_id: int, query: Select[Any]) -> ScheduledJob | None:
    row = connection.execute(query).one_or_none()
    return _whole(connection, team_id, [Row(*row)])[0] if row is not None else None


def _whole(connection: Connection, team_id: int, rows: Sequence[Row]) -> list[ScheduledJob]:
    if not rows:
        return []
    ids = [row.scheduled_job_id for row in rows]
    assigned = scheduled_job_users.c
    query = (
        select(assigned.scheduled_job_id, assigned.user_id)
        .where(assigned.team_id == team_id, _among(assigned.scheduled_job_id, ids))
        .order_by(assigned.position)
    )
    user_ids: dict[str, list[str]] = defaultdict(list)
    for scheduled_job_id, user_id in connection.execute(query):
        user_ids[scheduled_job_id].append(user_id)
    tasks = tasks_of(connection, team_id, ids)
    return [
        ScheduledJob(row, tuple(user_ids[row.scheduled_job_id]), tuple(tasks.get(row.scheduled_job_id, ())))
        for row in rows
    ]


def _among(column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
    """Rows of these scheduled jobs; of very many, with some of others that lie between them."""
    if len(ids) <= _MAX_NAMED:
        return column.in_(padded(ids))
    return column.between(min(ids), max(ids))


def _tasks(connection: Connection, team_id: int, scheduled_job_ids: Sequence[str]) -> list[TaskRow]:
    query = (
        select(*_task_columns)
        .where(
            scheduled_job_tasks.c.team_id == team_id,
            _among(scheduled_job_tasks.c.scheduled_job_id, scheduled_job_ids),
        )
        .order_by(scheduled_job_tasks.c.position)
    )
    return [TaskRow(*row) for row in connection.execute(query)]


def _lock(connection: Connection, team_id: int, scheduled_job_ids: Collection[str]) -> dict[str, Row]:
    query = (
        _of(team_id)
        .where(scheduled_jobs.c.scheduled_job_id.in_(padded(sorted(scheduled_job_ids))))
        .order_by(scheduled_jobs.c.scheduled_job_id)
        .with_for_update()
    )
    return {row.scheduled_job_id: Row(*row) for row in connection.execute(query)}


# Writing


def insert_scheduled_job(connection: Connection, team_id: int, job: ScheduledJob) -> None:
    """Add a scheduled job."""
    connection.execute(insert(scheduled_jobs).values(team_id=team_id, **job.row._asdict()))
    if job.tasks:
        _put_tasks.insert(connection, [(team_id, *task) for task in job.tasks])
    _insert_users(connection, team_id, job.row.scheduled_job_id, job.user_ids)


def set_state(connection: Connection, team_id: int, scheduled_job_id: str, state: str, now: int) -> None:
    """Complete or reopen (section 10.5)."""
    _set(connection, team_id, scheduled_job_id, state=state, updated_at=now)


def set_users(
    connection: Connection, team_id: int, scheduled_job_id: str, user_ids: Sequence[str], now: int
) -> None:
    """Let it be for ``user_ids`` and nobody else (section 10.6)."""
    assigned = scheduled_job_users.c
    connection.execute(
        delete(scheduled_job_users).where(
            assigned.team_id == team_id, assigned.scheduled_job_id == scheduled_job_id
        )
    )
    _insert_users(connection, team_id, scheduled_job_id, user_ids)
    _set(connection, team_id, scheduled_job_id, updated_at=now)


def mark_deleted(connection: Connection, team_id: int, scheduled_job_id: str, now: int) -> bool:
    """Delete (section 10.7): the rows stay for the history. Answers whether there was one."""
    return _set(connection, team_id, scheduled_job_id, deleted_at=now)


def _set(connection: Connection, team_id: int, scheduled_job_id: str, **values: Any) -> bool:
    result = connection.execute(
        update(scheduled_jobs)
        .where(scheduled_jobs.c.team_id == team_id, _is(scheduled_job_id), _present)
        .values(**values)
    )
    return result.rowcount == 1


def _insert_users(
    connection: Connection, team_id: int, scheduled_job_id: str, user_ids: Sequence[str]
) -> None:
    if user_ids:
        connection.execute(
            insert(scheduled_job_users),
            [
                {
                    "team_id": team_id,
                    "scheduled_job_id": scheduled_job_id,
                    "user_id": user_id,
                    "position": position,
                }
                for position, user_id in enumerate(user_ids)
            ],
        )


# Reminding

#: Spelled out as in ix_scheduled_jobs_due: only then do the databases see that the index holds these rows.
_to_remind = text(
    "due_at IS NOT NULL AND deleted_at IS NULL AND state <> 'Completed' AND reminded < 2 "
    "AND due_at <= :horizon AND (reminded = 0 OR due_at <= :now)"
)


def due_query(now: int, horizon: int, limit: int) -> Select[Any]:
    """Scheduled jobs of all teams that are due before ``horizon`` or overdue, and not reminded of yet."""
    times = [bindparam("horizon", horizon, BigInteger), bindparam("now", now, BigInteger)]
    return (
        select(scheduled_jobs.c.team_id, scheduled_jobs.c.scheduled_job_id, scheduled_jobs.c.due_at)
        .where(_to_remind.bindparams(*times))
        .order_by(scheduled_jobs.c.due_at)
        .limit(limit)
        # Somebody works on one that is locked; it has its turn at the next look.
        .with_for_update(skip_locked=True)
    )


def enqueue_reminders(connection: Connection, now: int, ahead_us: int, limit: int) -> int:
    """Mark up to ``limit`` scheduled jobs as reminded of and enqueue their reminders; answers how many."""
    found = list(connection.execute(due_query(now, now + ahead_us, limit)))
    marks = []
    for team_id, scheduled_job_id, due_at in found:
        level = OVERDUE if due_at <= now else DUE_SOON
        marks.append({"of_team": team_id, "of_job": scheduled_job_id, "level": level})
        enqueue(connection, team_id, REMIND, f"{scheduled_job_id}:{level}", now=now)
    if marks:
        connection.execute(
            update(scheduled_jobs)
            .where(
                and_(
                    scheduled_jobs.c.team_id == bindparam("of_team"),
                    scheduled_jobs.c.scheduled_job_id == bindparam("of_job"),
                )
            )
            .values(reminded=bindparam("level")),
            marks,
        )
    return len(found)


def enqueue_mails(
    connection: Connection, team_id: int, subject: str, user_ids: Iterable[str], now: int
) -> None:
    """Enqueue a mail to each of ``user_ids``; ``subject`` is that of the reminder."""
    for user_id in user_ids:
        enqueue(connection, team_id, REMIND_USER, f"{subject}:{user_id}", now=now)
