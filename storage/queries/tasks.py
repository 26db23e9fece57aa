"""Tasks: the queue's rows. A task is written in the transaction of its cause: no commit, no task.

States: ``ready`` and ``retry`` wait, ``running`` is leased to a worker, ``done`` and ``dead`` are over.
Of one kind and subject at most one task waits (``ix_tasks_waiting``), so whatever makes a task wait again
must look whether another does; then the task is superseded: done, as the other will do its work.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from storage.ids import new_id
from storage.queries.statements import is_sqlite, padded
from storage.tables import tasks

#: A task whose worker vanished this often is not given to another: it may be what ends them.
MAX_ATTEMPTS = 12
MAX_ERROR = 2_000
SUPERSEDED = "superseded"
#: How many due tasks are looked at in one go, the oldest first; and how many teams that have none among them.
_OLDEST = 300
_TEAMS = 50

#: (team, task)
Key = tuple[int, str]

# Spelled out rather than bound: only then do the databases see that the partial indexes hold these rows.
_READY: ColumnElement[str] = literal_column("'ready'")
_RETRY: ColumnElement[str] = literal_column("'retry'")
_RUNNING: ColumnElement[str] = literal_column("'running'")
_waiting = tasks.c.state.in_((_READY, _RETRY))
_runs = tasks.c.state == _RUNNING
_key = tuple_(tasks.c.team_id, tasks.c.task_id)


class TaskRow(NamedTuple):
    """A task as administrators see it."""

    task_id: str
    kind: str
    subject: str
    state: str
    run_at: int
    attempts: int
    error: str | None
    created_at: int
    finished_at: int | None


class Candidate(NamedTuple):
    """A task that may be taken: it is due, or whoever ran it has vanished."""

    team_id: int
    task_id: str
    kind: str
    subject: str
    run_at: int

    @property
    def key(self) -> Key:
        return self.team_id, self.task_id


class Taken(NamedTuple):
    """A task that is leased now. ``attempts`` counts this one."""

    team_id: int
    task_id: str
    kind: str
    subject: str
    payload: Any
    attempts: int
    created_at: int


_columns = [tasks.c[name] for name in TaskRow._fields]
_candidate = [tasks.c[name] for name in Candidate._fields]
_taken = [tasks.c[name] for name in Taken._fields]


def enqueue(
    connection: Connection,
    team_id: int,
    kind: str,
    subject: str,
    payload: Any = None,
    *,
    run_at: int = 0,
    now: int,
) -> None:
    """Let ``kind`` be done about ``subject``, not before ``run_at``, once this transaction commits.

    If such a task waits already, that one does for both, with its own payload: it becomes due at the earlier
    of the two times, unless it has failed before and waits for its next attempt.
    """
    row = {
        "team_id": team_id,
        "task_id": new_id(),
        "kind": kind,
        "subject": subject,
        "payload": msgspec.json.encode(payload),
        "state": "ready",
        "run_at": max(run_at, now),
        "attempts": 0,
        "created_at": now,
    }
    connection.execute(_enqueue[connection.dialect.name], row)


def _enqueueing(insert: Any) -> Any:
    sooner = and_(tasks.c.state == "ready", tasks.c.run_at > insert.excluded.run_at)
    return insert.on_conflict_do_update(
        index_elements=[tasks.c.team_id, tasks.c.kind, tasks.c.subject],
        index_where=text("state IN ('ready', 'retry')"),
        # An update even if it changes nothing: on PostgreSQL it locks the row, so that nobody takes the
        # task before this transaction commits and then misses what this transaction wrote.
        set_={"run_at": case((sooner, insert.excluded.run_at), else_=tasks.c.run_at)},
    )


#: By database. Built once: it stands in the transactions of requests.
_enqueue = {"sqlite": _enqueueing(sqlite.insert(tasks)), "postgresql": _enqueueing(postgresql.insert(tasks))}


def candidates(
    connection: Connection, kinds: Collection[str], depth: int, now: int
) -> tuple[list[Candidate], set[tuple[int, str, str]]]:
    """What could be taken, and (team, kind, subject) of what runs: the oldest tasks, and of further teams
    ``depth`` each, so that no team's backlog hides the others.

    Reads only, so that an idle queue costs the one writer of SQLite nothing; and no more of a long backlog
    than is needed.
    """
    wanted = tasks.c.kind.in_(padded(sorted(kinds)))
    vanished = select(*_candidate).where(_runs, tasks.c.leased_until <= now, wanted).limit(_OLDEST)
    due = (
        select(*_candidate)
        .where(_waiting, tasks.c.run_at <= now, wanted)
        .order_by(tasks.c.run_at)
        .limit(_OLDEST)
    )
    oldest = [Candidate(*row) for row in connection.execute(due)]
    found = [Candidate(*row) for row in connection.execute(vanished)] + oldest
    if len(oldest) == _OLDEST:
        unseen = sorted(_teams(connection, wanted) - {candidate.team_id for candidate in found})
        for team_id in random.sample(unseen, min(_TEAMS, len(unseen))):
            heads = (
                select(*_candidate)
                .where(tasks.c.team_id == team_id, tasks.c.state == _READY, tasks.c.run_at <= now, wanted)
                .order_by(tasks.c.task_id)
                .limit(depth)
            )
            found += [Candidate(*row) for row in connection.execute(heads)]
    if not found:
        return found, set()
    # After the candidates: whoever took a task's forerunner meanwhile is seen.
    running = select(tasks.c.team_id, tasks.c.kind, tasks.c.subject).where(_runs, tasks.c.leased_until > now)
    return found, {(row[0], row[1], row[2]) for row in connection.execute(running)}


def _teams(connection: Connection, wanted: ColumnElement[bool]) -> set[int]:
    """Teams with such tasks waiting: one look into ``ix_tasks_waiting`` for each, not one for each task."""
    lowest = select(func.min(tasks.c.team_id).label("team_id")).where(_waiting, wanted)
    first = lowest.cte("waiting", recursive=True)
    following = lowest.where(tasks.c.team_id > first.c.team_id)
    teams = first.union_all(
        select(following.correlate(first).scalar_subquery()).where(first.c.team_id.is_not(None))
    )
    return {row[0] for row in connection.execute(select(teams.c.team_id)) if row[0] is not None}


def _due(now: int) -> ColumnElement[bool]:
    return or_(and_(_waiting, tasks.c.run_at <= now), and_(_runs, tasks.c.leased_until <= now))


def take(connection: Connection, keys: Sequence[Key], lease: str, until: int, now: int) -> list[Taken]:
    """Lease those of ``keys`` that may still be taken. Nobody else gets them before ``until``.

    Tasks whose worker vanished for the last time die here, whoever had them.
    """
    wanted = list(keys)
    if not is_sqlite(connection):
        # A statement of its own: as a subquery of the UPDATE it could be run more than once.
        query = (
            select(tasks.c.team_id, tasks.c.task_id)
            .where(_key.in_(padded(keys)), _due(now))
            .with_for_update(skip_locked=True)
        )
        wanted = [(row[0], row[1]) for row in connection.execute(query)]
    if not wanted:
        return []
    connection.execute(
        update(tasks)
        .where(_runs, tasks.c.leased_until <= now, tasks.c.attempts >= MAX_ATTEMPTS)
        .values(
            state="dead",
            lease=None,
            leased_until=None,
            finished_at=now,
            error=f"Its worker vanished; that was attempt {MAX_ATTEMPTS}.",
        )
    )
    taken: list[Taken] = []
    # One by one: for a list of keys SQLite would rather search everything that is due.
    for key in wanted:
        row = connection.execute(
            update(tasks)
            .where(*_is(key), _due(now))
            .values(state="running", lease=lease, leased_until=until, attempts=tasks.c.attempts + 1)
            .returning(*_taken)
        ).one_or_none()
        if row is not None:
            taken.append(_to_taken(row))
    return taken


def _is(key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return tasks.c.team_id == key[0], tasks.c.task_id == key[1]


def _to_taken(row: Any) -> Taken:
    team_id, task_id, kind, subject, payload, attempts, created_at = row
    return Taken(team_id, task_id, kind, subject, msgspec.json.decode(payload), attempts, created_at)


def extend(connection: Connection, keys: Sequence[Key], lease: str, until: int) -> set[Key]:
    """Prolong leases; answers which of ``keys`` are still held under ``lease``."""
    rows = connection.execute(
        update(tasks)
        .where(_key.in_(padded(keys)), _held(lease))
        .values(leased_until=until)
        .returning(tasks.c.team_id, tasks.c.task_id)
    )
    return {(row[0], row[1]) for row in rows}


def _held(lease: str) -> ColumnElement[bool]:
    return and_(_runs, tasks.c.lease == lease)


def finish(connection: Connection, key: Key, lease: str, state: str, error: str | None, now: int) -> bool:
    """End a task as ``done`` or ``dead``; answers whether the lease was still held."""
    return _change(connection, key, _held(lease), state=state, error=_cut(error), finished_at=now)


def wait_again(
    connection: Connection,
    key: Key,
    lease: str,
    *,
    run_at: int,
    now: int,
    error: str | None = None,
    counted: bool = True,
) -> bool:
    """Let a leased task wait until ``run_at``; answers whether the lease was still held.

    If another such task waits already, this one is superseded: the other does it, later. An attempt that is
    not ``counted`` does not bring the task nearer to its end.
    """
    if _superseded(connection, key, _held(lease), error, now):
        return True
    values: dict[str, Any] = {"state": "retry", "run_at": run_at}
    if error is not None:
        values["error"] = _cut(error)
    if not counted:
        values["attempts"] = tasks.c.attempts - 1
    return _change(connection, key, _held(lease), **values)


def replay(connection: Connection, team_id: int, task_id: str, now: int) -> bool:
    """Run a dead task again, with all its attempts; answers whether there was such a dead task."""
    key = (team_id, task_id)
    dead = tasks.c.state == "dead"
    if _superseded(connection, key, dead, None, now):
        return True
    return _change(connection, key, dead, state="ready", run_at=now, attempts=0, finished_at=None)


def _superseded(
    connection: Connection, key: Key, condition: ColumnElement[bool], error: str | None, now: int
) -> bool:
    other = tasks.alias()
    waits = exists().where(
        other.c.team_id == tasks.c.team_id,
        other.c.kind == tasks.c.kind,
        other.c.subject == tasks.c.subject,
        other.c.state.in_((_READY, _RETRY)),
    )
    reason = SUPERSEDED if error is None else f"{SUPERSEDED}: {error}"
    return _change(connection, key, and_(condition, waits), state="done", error=_cut(reason), finished_at=now)


def _change(connection: Connection, key: Key, condition: ColumnElement[bool], **values: Any) -> bool:
    result = connection.execute(
        update(tasks).where(*_is(key), condition).values(lease=None, leased_until=None, **values)
    )
    return result.rowcount == 1


def _cut(error: str | None) -> str | None:
    # PostgreSQL's text has no NUL.
    return None if error is None else error.replace("\0", "")[:MAX_ERROR]


def page(connection: Connection, team_id: int, state: str | None, skip: int, limit: int) -> list[TaskRow]:
    """A team's tasks, newest first; those of one state, or all."""
    query = select(*_columns).where(tasks.c.team_id == team_id)
    if state is not None:
        query = query.where(tasks.c.state == state)
    rows = connection.execute(query.order_by(tasks.c.task_id.desc()).offset(skip).limit(limit))
    return [TaskRow(*row) for row in rows]


def one(connection: Connection, team_id: int, task_id: str) -> TaskRow | None:
    row = connection.execute(
        select(*_columns).where(tasks.c.team_id == team_id, tasks.c.task_id == task_id)
    ).one_or_none()
    return TaskRow(*row) if row is not None else None


def over(connection: Connection, before: Mapping[str, int], limit: int) -> list[Key]:
    """Tasks that ended in one of these states before the time given for it."""
    ended = or_(*(and_(tasks.c.state == state, tasks.c.finished_at < at) for state, at in before.items()))
    query = select(tasks.c.team_id, tasks.c.task_id).where(ended).limit(limit)
    return [(row[0], row[1]) for row in connection.execute(query)]


def forget(connection: Connection, keys: Sequence[Key]) -> int:
    """Remove tasks that are over; answers how many."""
    forgotten = 0
    # Team by team: a list of (team, task) would make SQLite read the whole table.
    for team_id, group in groupby(sorted(keys), key=itemgetter(0)):
        ids = padded([task_id for _, task_id in group])
        result = connection.execute(
            delete(tasks).where(
                tasks.c.team_id == team_id, tasks.c.task_id.in_(ids), tasks.c.state.in_(("done", "dead"))
            )
        )
        forgotten += result.rowcount
    return forgotten
