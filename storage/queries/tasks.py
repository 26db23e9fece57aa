"""Tasks: the queue's rows. A task is written in the transaction of its cause: no commit, no task.

States: ``ready`` and ``retry`` wait, ``running`` is leased to a worker, ``done`` and ``dead`` are over.
Of one kind and subject at most one task waits (``ix_tasks_waiting``), so whatever makes a task wait again
must look whether another does; then the task is superseded: done, as the other will do its work.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from random import SystemRandom
from typing import Any, Literal, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Text,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    exists,
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
#: Not the module's own generator: whoever seeds that decides for everything in the process.
_random = SystemRandom()
#: In ``Connection.info``: the transaction has written a task that is due. Whoever commits it tells the workers.
ENQUEUED = "enqueued"
#: How many due tasks of a kind are looked at beyond those that may be taken, so that more than one team is seen.
_MORE = 30
#: At most so many teams are looked for that have none among the oldest.
_TEAMS = 50
_VANISHED = 300
#: PostgreSQL: how long the queue's own transactions wait for a lock of others.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"

#: (team, task)
Key = tuple[int, str]

# Spelled out rather than bound: only then do the databases see that the partial indexes hold these rows.
_READY: ColumnElement[str] = literal_column("'ready'")
_RETRY: ColumnElement[str] = literal_column("'retry'")
_RUNNING: ColumnElement[str] = literal_column("'running'")
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


class Ending(NamedTuple):
    """How an attempt ended. ``waits``: again at ``run_at``; one not ``counted`` is as if it had not been made."""

    key: Key
    state: Literal["done", "dead", "waits"]
    error: str | None = None
    run_at: int = 0
    counted: bool = True


_columns = [tasks.c[name] for name in TaskRow._fields]
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
    if run_at <= now:
        connection.info[ENQUEUED] = True


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


# One statement each, whatever there is to do: an idle queue costs one, a busy one three. As text, because each
# database has its own way to take the first few rows of several groups.

_FIELDS = ", ".join(f"t.{name}" for name in Candidate._fields)
_WAITING = "t.state IN ('ready', 'retry')"
#: Nothing of the same kind and subject runs, nor has it been left by a worker that vanished: that one comes first.
#: Not as NOT EXISTS: PostgreSQL makes a join of that, which reads all that runs, and has run, for each row.
_ALONE = (
    "(SELECT 1 FROM tasks AS r WHERE r.state = 'running'"
    " AND r.team_id = t.team_id AND r.kind = t.kind AND r.subject = t.subject LIMIT 1) IS NULL"
)
_DUE = f"{_WAITING} AND t.run_at <= :now AND {_ALONE}"
_LEFT = f"t.state = 'running' AND t.leased_until <= :now AND t.attempts < {MAX_ATTEMPTS}"


def _statement(sql: str, *arrays: Any) -> TextClause:
    return text(sql).bindparams(bindparam("now", type_=BigInteger), *arrays)


def _array(name: str, of: Any) -> Any:
    return bindparam(name, type_=postgresql.ARRAY(of))


@cache
def _oldest(kinds: int) -> TextClause:
    """SQLite: the oldest due tasks of so many kinds, and what vanished workers have left."""
    parts = [
        f"SELECT * FROM (SELECT {_FIELDS} FROM tasks AS t"  # noqa: S608  # every value is bound
        f" WHERE {condition} AND t.kind = :kind{number} ORDER BY {order} LIMIT :most{number})"
        for number in range(kinds)
        for condition, order in ((_DUE, "t.run_at"), (_LEFT, "t.leased_until"))
    ]
    return _statement(" UNION ALL ".join(parts))


_oldest_postgresql = _statement(
    "SELECT t.* FROM unnest(:kinds, :most) AS wanted (kind, most) CROSS JOIN LATERAL ("  # noqa: S608
    f"(SELECT {_FIELDS} FROM tasks AS t WHERE {_DUE} AND t.kind = wanted.kind"
    " ORDER BY t.run_at LIMIT wanted.most)"
    f" UNION ALL (SELECT {_FIELDS} FROM tasks AS t WHERE {_LEFT} AND t.kind = wanted.kind"
    " ORDER BY t.leased_until LIMIT wanted.most)) AS t",
    _array("kinds", Text),
    _array("most", BigInteger),
)
#: Teams with tasks of a kind: one look into ``ix_tasks_teams`` for each team, not one for each task.
_teams = text(
    "WITH RECURSIVE waiting (team_id) AS ("  # noqa: S608
    f"SELECT min(t.team_id) FROM tasks AS t WHERE {_WAITING} AND t.kind = :kind UNION ALL"
    f" SELECT (SELECT min(t.team_id) FROM tasks AS t WHERE {_WAITING} AND t.kind = :kind"
    " AND t.team_id > waiting.team_id) FROM waiting WHERE waiting.team_id IS NOT NULL)"
    " SELECT team_id FROM waiting WHERE team_id IS NOT NULL"
)
_heads_sqlite = _statement(
    f"SELECT {_FIELDS} FROM json_each(:teams) AS team CROSS JOIN tasks AS t WHERE t.rowid IN ("  # noqa: S608
    f"SELECT t.rowid FROM tasks AS t WHERE {_DUE} AND t.kind = :kind AND t.team_id = team.value"
    " ORDER BY t.run_at LIMIT :depth)"
)
_heads_postgresql = _statement(
    f"SELECT t.* FROM unnest(:teams) AS team (team_id) CROSS JOIN LATERAL ("  # noqa: S608
    f"SELECT {_FIELDS} FROM tasks AS t WHERE {_DUE} AND t.kind = :kind AND t.team_id = team.team_id"
    " ORDER BY t.run_at LIMIT :depth) AS t",
    _array("teams", BigInteger),
)


def candidates(
    connection: Connection, slots: Mapping[str, int], served: Mapping[int, int], now: int
) -> list[Candidate]:
    """What could be taken of each kind in ``slots``: the oldest tasks, and some of further teams, those served
    longest ago (see :func:`storage.queue.choose`), so that no team's backlog hides the others.

    Reads only, so that an idle queue costs the one writer of SQLite nothing; and no more of a long backlog
    than is needed.
    """
    most = {kind: count + _MORE for kind, count in slots.items()}
    if is_sqlite(connection):
        values: dict[str, Any] = {"now": now}
        for number, (kind, count) in enumerate(most.items()):
            values |= {f"kind{number}": kind, f"most{number}": count}
        found = [Candidate(*row) for row in connection.execute(_oldest(len(most)), values)]
    else:
        lists = {"kinds": list(most), "most": list(most.values()), "now": now}
        found = [Candidate(*row) for row in connection.execute(_oldest_postgresql, lists)]
    for kind, count in most.items():
        seen = [candidate.team_id for candidate in found if candidate.kind == kind]
        if len(seen) >= count:
            found += _hidden(connection, kind, slots[kind], set(seen), served, now)
    return found


def _hidden(
    connection: Connection, kind: str, slots: int, seen: set[int], served: Mapping[int, int], now: int
) -> list[Candidate]:
    unseen = [row[0] for row in connection.execute(_teams, {"kind": kind}) if row[0] not in seen]
    _random.shuffle(unseen)
    teams = sorted(unseen, key=lambda team_id: served.get(team_id, 0))[: min(_TEAMS, slots)]
    if not teams:
        return []
    values = {"kind": kind, "depth": slots // len(teams) + 1, "now": now}
    if is_sqlite(connection):
        rows = connection.execute(_heads_sqlite, {**values, "teams": msgspec.json.encode(teams).decode()})
    else:
        rows = connection.execute(_heads_postgresql, {**values, "teams": teams})
    return [Candidate(*row) for row in rows]


_TAKE = "SET state = 'running', lease = {lease}, leased_until = {until}, attempts = attempts + 1"
_RETURNED = ", ".join(f"tasks.{name}" for name in Taken._fields)
_MAY_BE_TAKEN = f"(({_DUE}) OR ({_LEFT}))"
# One by one: for a list of keys SQLite would rather search everything that is due.
_take_sqlite = (
    f"UPDATE tasks AS t {_TAKE.format(lease='?1', until='?2')}"
    f" WHERE t.team_id = ?3 AND t.task_id = ?4 AND {_MAY_BE_TAKEN.replace(':now', '?5')}"
    f" RETURNING {', '.join(Taken._fields)}"
)
# What is locked is either being taken by another, or a second cause of it is about to commit.
_WANTED = (
    "FROM unnest($1::bigint[], $2::text[]) AS wanted (team_id, task_id)"
    " JOIN tasks AS t ON t.team_id = wanted.team_id AND t.task_id = wanted.task_id"
)
_FREE = "WHERE tasks.team_id = free.team_id AND tasks.task_id = free.task_id"
_take_waiting = (
    f"WITH free AS MATERIALIZED (SELECT t.team_id, t.task_id {_WANTED}"  # noqa: S608
    f" WHERE {_MAY_BE_TAKEN.replace(':now', '$5::bigint')} FOR UPDATE OF t)"
    f" UPDATE tasks {_TAKE.format(lease='$3', until='$4')} FROM free {_FREE} RETURNING {_RETURNED}"
)
_take_postgresql = _take_waiting.replace("FOR UPDATE OF t)", "FOR UPDATE OF t SKIP LOCKED)")


def limit_waiting(connection: Connection) -> None:
    """Let this transaction fail rather than wait long for a lock of another, on PostgreSQL."""
    if not is_sqlite(connection):
        connection.exec_driver_sql(_LOCK_TIMEOUT)


def take(
    connection: Connection, keys: Sequence[Key], lease: str, until: int, now: int, *, wait: bool = False
) -> list[Taken]:
    """Lease those of ``keys`` that may still be taken, in this order. Nobody else gets them before ``until``.

    Args:
        wait: for those that another transaction has locked, rather than leave them out.
    """
    if is_sqlite(connection):
        driver: Any = connection.connection.dbapi_connection
        rows = [
            row
            for team_id, task_id in keys
            for row in driver.execute(_take_sqlite, (lease, until, team_id, task_id, now)).fetchall()
        ]
    else:
        teams, ids = zip(*keys, strict=True)
        statement = _take_waiting if wait else _take_postgresql
        rows = list(connection.exec_driver_sql(statement, (teams, ids, lease, until, now)))
    places = {key: place for place, key in enumerate(keys)}
    return [_to_taken(row) for row in sorted(rows, key=lambda row: places[row[0], row[1]])]


def exhausted(connection: Connection, kinds: Collection[str], now: int) -> list[Taken]:
    """Tasks whose worker vanished for the last time."""
    query = select(*_taken).where(_exhausted(now), tasks.c.kind.in_(padded(sorted(kinds))))
    return [_to_taken(row) for row in connection.execute(query.limit(_VANISHED))]


def bury(connection: Connection, key: Key, now: int) -> bool:
    """Let a task die whose worker vanished for the last time; answers whether it is such a task."""
    error = f"Its worker vanished; that was attempt {MAX_ATTEMPTS}."
    return _change(connection, key, _exhausted(now), state="dead", error=error, finished_at=now)


def _exhausted(now: int) -> ColumnElement[bool]:
    return and_(_runs, tasks.c.leased_until <= now, tasks.c.attempts >= MAX_ATTEMPTS)


def _is(key: Key) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return tasks.c.team_id == key[0], tasks.c.task_id == key[1]


def _to_taken(row: Any) -> Taken:
    team_id, task_id, kind, subject, payload, attempts, created_at = row
    return Taken(team_id, task_id, kind, subject, msgspec.json.decode(payload), attempts, created_at)


# What is locked is being ended by its own worker, or taken by another: neither is waited for.
_extend_postgresql = (
    f"WITH free AS MATERIALIZED (SELECT t.team_id, t.task_id {_WANTED}"  # noqa: S608
    " WHERE t.state = 'running' AND t.lease = $3 FOR UPDATE OF t SKIP LOCKED)"
    f" UPDATE tasks SET leased_until = $4 FROM free {_FREE} RETURNING tasks.team_id, tasks.task_id"
)


def extend(connection: Connection, keys: Sequence[Key], lease: str, until: int) -> set[Key]:
    """Prolong leases; answers which of ``keys`` are still held under ``lease``.

    On PostgreSQL those are missing whose end is being written down at this moment.
    """
    if not is_sqlite(connection):
        teams, ids = zip(*keys, strict=True)
        rows = connection.exec_driver_sql(_extend_postgresql, (teams, ids, lease, until))
        return {(row[0], row[1]) for row in rows}
    rows = connection.execute(
        update(tasks)
        .where(_key.in_(padded(keys)), _held(lease))
        .values(leased_until=until)
        .returning(tasks.c.team_id, tasks.c.task_id)
    )
    return {(row[0], row[1]) for row in rows}


def _held(lease: str) -> ColumnElement[bool]:
    return and_(_runs, tasks.c.lease == lease)


_END = "SET state = 'done', lease = NULL, leased_until = NULL, error = NULL, finished_at = {now}"
_done_sqlite = (
    f"UPDATE tasks {_END.format(now='?1')}"
    " WHERE team_id = ?2 AND task_id = ?3 AND state = 'running' AND lease = ?4"
)
_done_postgresql = (
    f"UPDATE tasks {_END.format(now='$1')} FROM unnest($2::bigint[], $3::text[]) AS over (team_id, task_id)"
    " WHERE tasks.team_id = over.team_id AND tasks.task_id = over.task_id"
    " AND tasks.state = 'running' AND tasks.lease = $4 RETURNING tasks.team_id, tasks.task_id"
)


def end(connection: Connection, endings: Sequence[Ending], lease: str, now: int) -> set[Key]:
    """Write down how attempts ended; answers which of the tasks were still held under ``lease``."""
    held = _done(connection, [ending.key for ending in endings if ending.state == "done"], lease, now)
    for ending in endings:
        if (ending.state == "dead" and finish(connection, ending.key, lease, "dead", ending.error, now)) or (
            ending.state == "waits" and _wait_again(connection, ending, lease, now)
        ):
            held.add(ending.key)
    return held


def _done(connection: Connection, keys: Sequence[Key], lease: str, now: int) -> set[Key]:
    if not keys:
        return set()
    if is_sqlite(connection):
        driver: Any = connection.connection.dbapi_connection
        return {key for key in keys if driver.execute(_done_sqlite, (now, *key, lease)).rowcount == 1}
    teams, ids = zip(*keys, strict=True)
    rows = connection.exec_driver_sql(_done_postgresql, (now, teams, ids, lease))
    return {(row[0], row[1]) for row in rows}


def finish(connection: Connection, key: Key, lease: str, state: str, error: str | None, now: int) -> bool:
    """End a task as ``done`` or ``dead``; answers whether the lease was still held."""
    return _change(connection, key, _held(lease), state=state, error=_cut(error), finished_at=now)


def _wait_again(connection: Connection, ending: Ending, lease: str, now: int) -> bool:
    """Let a leased task wait; answers whether the lease was still held.

    If another such task waits already, this one is superseded: the other does it, later. An attempt that is
    not counted does not bring the task nearer to its end.
    """
    if _superseded(connection, ending.key, _held(lease), ending.error, now):
        return True
    values: dict[str, Any] = {"state": "retry", "run_at": ending.run_at}
    if ending.error is not None:
        values["error"] = _cut(ending.error)
    if not ending.counted:
        values["attempts"] = tasks.c.attempts - 1
    if ending.run_at <= now:
        connection.info[ENQUEUED] = True
    return _change(connection, ending.key, _held(lease), **values)


def replay(connection: Connection, team_id: int, task_id: str, now: int) -> bool:
    """Run a dead task again, with all its attempts; answers whether there was such a dead task."""
    key = (team_id, task_id)
    dead = tasks.c.state == "dead"
    if _superseded(connection, key, dead, None, now):
        return True
    connection.info[ENQUEUED] = True
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
    # PostgreSQL's text has no NUL, and no database has halves of surrogate pairs.
    return None if error is None else error.replace("\0", "").encode(errors="replace").decode()[:MAX_ERROR]


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
