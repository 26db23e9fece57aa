"""Deliveries: what triggers have sent or are to send, and each attempt."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    and_,
    delete,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    update,
)

from storage.ids import new_id
from storage.queries import tasks
from storage.queries.statements import padded, upsert_insert
from storage.tables import deliveries, delivery_attempts, triggers
from storage.tables import tasks as tasks_table

#: Waits for a delivery's files and has its report made. Subject: the delivery's id.
PREPARE = "delivery.prepare"
#: Sends what is due of one trigger. Subject: the trigger's id, so that one worker at a time sends for it.
DELIVER = "trigger.deliver"
#: The same for a trigger that mails: :data:`DELIVER` leaves it that. Of its own, as a mail server serves everybody:
#: one that hangs must not hold up webhooks.
DELIVER_MAILS = "trigger.deliver_mails"

#: An event id that begins so is of nobody's event: somebody wanted this delivery, whether the trigger fires or not.
BY_HAND = "hand-"

PREPARING, DUE, DELIVERED, FAILED = "preparing", "due", "delivered", "failed"


class DeliveryRow(NamedTuple):
    """One delivery; see the table."""

    delivery_id: str
    trigger_id: str
    event_id: str
    type: str
    job_id: str
    client_job_id: str
    rev: int
    state: str
    payload: bytes
    report_id: str | None
    wait_until: int | None
    note: str | None
    attempts: int
    next_at: int | None
    created_at: int
    finished_at: int | None


class NewDelivery(NamedTuple):
    """What is to be delivered. ``wait_until``: until when it waits for files; None: no report is wanted."""

    trigger_id: str
    event_id: str
    type: str
    job_id: str
    client_job_id: str
    rev: int
    payload: bytes
    wait_until: int | None


class AttemptRow(NamedTuple):
    """One attempt at a delivery; see the table."""

    number: int
    at: int
    duration_us: int
    status: int | None
    error: str | None
    answer: bytes | None = None


class Attempted(NamedTuple):
    """How an attempt went, and what becomes of its delivery.

    Attributes:
        state: ``due`` (again at ``next_at``), ``delivered`` or ``failed``.
        seen: the delivery's ``attempts`` and ``next_at`` when the attempt began. If they are others by now, somebody
            has sent it again or resumed its trigger: a failure then changes nothing. None: whatever they are.
    """

    delivery_id: str
    at: int
    duration_us: int
    status: int | None
    error: str | None
    answer: bytes | None
    state: str
    next_at: int | None
    seen: tuple[int, int | None] | None = None


_columns = [deliveries.c[name] for name in DeliveryRow._fields]
_attempt_columns = [delivery_attempts.c[name] for name in AttemptRow._fields]
_no_bytes = literal(b"", LargeBinary)
_listed = [_no_bytes if column is deliveries.c.payload else column for column in _columns]
# Spelled out: only then do the databases see that the partial index holds these rows.
_is_due = deliveries.c.state == literal_column("'due'")
_is_preparing = deliveries.c.state == literal_column("'preparing'")


def add(connection: Connection, team_id: int, new: NewDelivery, now: int) -> str | None:
    """Note a delivery and have it prepared or sent; its id, or None if this event was told to this trigger."""
    delivery_id = new_id()
    preparing = new.wait_until is not None
    values = {
        **new._asdict(),
        "team_id": team_id,
        "delivery_id": delivery_id,
        "state": PREPARING if preparing else DUE,
        "attempts": 0,
        "next_at": None if preparing else now,
        "created_at": now,
    }
    insert = upsert_insert(connection, deliveries).values(**values)
    inserted = connection.execute(
        insert.on_conflict_do_nothing(
            index_elements=[deliveries.c.team_id, deliveries.c.trigger_id, deliveries.c.event_id]
        )
    )
    if inserted.rowcount != 1:
        return None
    if preparing:
        tasks.enqueue(connection, team_id, PREPARE, delivery_id, now=now)
    else:
        tasks.enqueue(connection, team_id, DELIVER, new.trigger_id, now=now)
    return delivery_id


def one(connection: Connection, team_id: int, delivery_id: str) -> DeliveryRow | None:
    query = select(*_columns).where(deliveries.c.team_id == team_id, deliveries.c.delivery_id == delivery_id)
    row = connection.execute(query).one_or_none()
    return DeliveryRow(*row) if row else None


def preparing_of_job(connection: Connection, team_id: int, job_id: str) -> list[str]:
    """The ids of a job's deliveries that are still being prepared, oldest first."""
    query = select(deliveries.c.delivery_id).where(
        deliveries.c.team_id == team_id,
        deliveries.c.job_id == job_id,
        _is_preparing,
    )
    return list(connection.scalars(query.order_by(deliveries.c.delivery_id)))


def prepared(
    connection: Connection,
    team_id: int,
    delivery: DeliveryRow,
    report_id: str | None,
    note: str | None,
    now: int,
) -> bool:
    """It may be sent now; answers whether it was still being prepared."""
    result = connection.execute(
        update(deliveries)
        .where(
            deliveries.c.team_id == team_id,
            deliveries.c.delivery_id == delivery.delivery_id,
            deliveries.c.state == PREPARING,
        )
        .values(state=DUE, report_id=report_id, note=note, next_at=now)
    )
    if result.rowcount != 1:
        return False
    tasks.enqueue(connection, team_id, DELIVER, delivery.trigger_id, now=now)
    return True


def _of(team_id: int, trigger_id: str, by_hand: bool) -> ColumnElement[bool]:
    """A trigger's deliveries that are due at some time; ``by_hand``: only those that somebody asked for."""
    mine = and_(deliveries.c.team_id == team_id, deliveries.c.trigger_id == trigger_id, _is_due)
    return and_(mine, _by_hand) if by_hand else mine


_by_hand = deliveries.c.event_id.startswith(BY_HAND)


def due(
    connection: Connection, team_id: int, trigger_id: str, now: int, limit: int, by_hand: bool = False
) -> list[DeliveryRow]:
    """What is to be sent now, the longest due first; ``by_hand``: only what somebody asked for."""
    query = select(*_columns).where(_of(team_id, trigger_id, by_hand), deliveries.c.next_at <= now)
    return [
        DeliveryRow(*row) for row in connection.execute(query.order_by(deliveries.c.next_at).limit(limit))
    ]


def enqueue_next(
    connection: Connection, team_id: int, trigger_id: str, now: int, by_hand: bool = False
) -> None:
    """Have the trigger's earliest delivery sent when it is due, if there is one.

    Whoever sends calls this in the transaction of its last look: what becomes due by another's hand has a task
    already, what is known to this transaction gets one, and so no delivery is forgotten.
    """
    earliest = connection.scalar(
        select(func.min(deliveries.c.next_at)).where(_of(team_id, trigger_id, by_hand))
    )
    if earliest is not None:
        tasks.enqueue(connection, team_id, DELIVER, trigger_id, run_at=earliest, now=now)


def record(connection: Connection, team_id: int, attempted: Sequence[Attempted]) -> None:
    """Note attempts, and what becomes of their deliveries.

    A success is always noted. A delivery that is over meanwhile, by another's attempt, stays so; one that was purged
    is passed over. In the order of their ids, so that two who write do not wait for each other.
    """
    numbers = _last_numbers(connection, team_id, [each.delivery_id for each in attempted])
    rows = []
    for each in sorted(attempted, key=lambda each: each.delivery_id):
        if each.delivery_id not in numbers:
            continue
        numbers[each.delivery_id] += 1
        rows.append(
            {
                "team_id": team_id,
                "delivery_id": each.delivery_id,
                **AttemptRow(
                    numbers[each.delivery_id], each.at, each.duration_us, each.status, each.error, each.answer
                )._asdict(),
            }
        )
        over = each.state != DUE
        connection.execute(
            update(deliveries)
            .where(
                deliveries.c.team_id == team_id,
                deliveries.c.delivery_id == each.delivery_id,
                *_concerned(each),
            )
            .values(
                state=each.state,
                attempts=deliveries.c.attempts + 1,
                next_at=None if over else each.next_at,
                finished_at=each.at + each.duration_us if over else None,
            )
        )
    if rows:
        connection.execute(insert(delivery_attempts), rows)


def _concerned(each: Attempted) -> list[ColumnElement[bool]]:
    """What a delivery must be like for an attempt to decide its fate."""
    if each.state == DELIVERED:
        return [deliveries.c.state.in_((DUE, FAILED))]
    if each.seen is None:
        return [deliveries.c.state == DUE]
    attempts, next_at = each.seen
    return [deliveries.c.state == DUE, deliveries.c.attempts == attempts, deliveries.c.next_at == next_at]


def _last_numbers(connection: Connection, team_id: int, ids: Sequence[str]) -> dict[str, int]:
    """The number of the last attempt, 0 before the first, at each of these deliveries that exists."""
    if not ids:
        return {}
    numbers = func.coalesce(func.max(delivery_attempts.c.number), 0)
    both = and_(
        delivery_attempts.c.team_id == deliveries.c.team_id,
        delivery_attempts.c.delivery_id == deliveries.c.delivery_id,
    )
    query = (
        select(deliveries.c.delivery_id, numbers)
        .select_from(deliveries.outerjoin(delivery_attempts, both))
        .where(deliveries.c.team_id == team_id, deliveries.c.delivery_id.in_(padded(ids)))
        .group_by(deliveries.c.delivery_id)
    )
    return {row[0]: row[1] for row in connection.execute(query)}


def page(
    connection: Connection,
    team_id: int,
    trigger_id: str,
    state: str | None,
    skip: int,
    limit: int,
    client_job_id: str | None = None,
) -> list[DeliveryRow]:
    """A trigger's deliveries, newest first; those of one state and of one job, or all. Without their payloads, which
    are empty here.
    """
    query = select(*_listed).where(deliveries.c.team_id == team_id, deliveries.c.trigger_id == trigger_id)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if client_job_id is not None:
        query = query.where(deliveries.c.client_job_id == client_job_id)
    rows = connection.execute(query.order_by(deliveries.c.delivery_id.desc()).offset(skip).limit(limit))
    return [DeliveryRow(*row) for row in rows]


def newest_of(
    connection: Connection, team_id: int, trigger_ids: Sequence[str], limit: int, before: str | None = None
) -> dict[str, list[DeliveryRow]]:
    """trigger -> its newest deliveries, newest first, as :func:`page` answers them. One statement, which reads no
    others; triggers without deliveries are left out.

    Args:
        limit: so many of each trigger.
        before: only those that are older than this one.
    """
    if not trigger_ids:
        return {}
    # How far back each trigger's last delivery lies: with a window all of its deliveries would be read.
    older = deliveries.alias()
    ends = (
        select(older.c.delivery_id)
        .where(older.c.team_id == team_id, older.c.trigger_id == triggers.c.trigger_id)
        .order_by(older.c.delivery_id.desc())
        .offset(limit - 1)
        .limit(1)
    )
    ends = ends if before is None else ends.where(older.c.delivery_id < before)
    query = (
        select(*_listed)
        .join_from(
            triggers,
            deliveries,
            and_(
                deliveries.c.team_id == triggers.c.team_id,
                deliveries.c.trigger_id == triggers.c.trigger_id,
                deliveries.c.delivery_id >= func.coalesce(ends.scalar_subquery(), ""),
            ),
        )
        .where(triggers.c.team_id == team_id, triggers.c.trigger_id.in_(padded(trigger_ids)))
        # By trigger first: else SQLite reads the deliveries of the whole team, in the order that is asked for.
        .order_by(triggers.c.trigger_id, deliveries.c.delivery_id.desc())
    )
    query = query if before is None else query.where(deliveries.c.delivery_id < before)
    found: dict[str, list[DeliveryRow]] = {}
    for row in connection.execute(query):
        found.setdefault(row.trigger_id, []).append(DeliveryRow(*row))
    return found


def attempts_of(
    connection: Connection,
    team_id: int,
    delivery_ids: Sequence[str],
    *,
    answers: bool = True,
    latest: int | None = None,
) -> dict[str, list[AttemptRow]]:
    """The attempts at each of these deliveries, first to last; those without any are left out.

    Args:
        answers: whether the receivers' answers are read; else they are None.
        latest: only so many of each delivery, the last ones.
    """
    if not delivery_ids:
        return {}
    from_last = func.row_number().over(
        partition_by=delivery_attempts.c.delivery_id, order_by=delivery_attempts.c.number.desc()
    )
    columns = [each for each in _attempt_columns if answers or each is not delivery_attempts.c.answer]
    found_ones = (
        select(delivery_attempts.c.delivery_id, *columns, from_last.label("from_last"))
        .where(
            delivery_attempts.c.team_id == team_id,
            delivery_attempts.c.delivery_id.in_(padded(delivery_ids)),
        )
        .subquery()
        .c
    )
    query = select(*found_ones).order_by(found_ones.delivery_id, found_ones.number)
    if latest is not None:
        query = query.where(found_ones.from_last <= latest)
    found: dict[str, list[AttemptRow]] = {}
    for row in connection.execute(query):
        delivery_id, *values, _ = row
        found.setdefault(delivery_id, []).append(AttemptRow(*values))
    return found


def replay(connection: Connection, team_id: int, trigger_id: str, delivery_id: str, now: int) -> bool:
    """Send a delivery now, with all its attempts before it, whatever became of it; answers whether there is such a
    delivery that is ready to be sent.
    """
    is_it = deliveries.c.delivery_id == delivery_id
    return _replay(connection, team_id, trigger_id, and_(is_it, deliveries.c.state != PREPARING), now) == 1


def replay_failed(connection: Connection, team_id: int, trigger_id: str, since: int, now: int) -> int:
    """Send again what was made since a time and has failed for good; answers how much."""
    failed = and_(deliveries.c.state == FAILED, deliveries.c.created_at >= since)
    return _replay(connection, team_id, trigger_id, failed, now)


def _replay(
    connection: Connection, team_id: int, trigger_id: str, which: ColumnElement[bool], now: int
) -> int:
    result = connection.execute(
        update(deliveries)
        .where(deliveries.c.team_id == team_id, deliveries.c.trigger_id == trigger_id, which)
        .values(state=DUE, attempts=0, next_at=now, finished_at=None)
    )
    if result.rowcount:
        tasks.enqueue(connection, team_id, DELIVER, trigger_id, now=now)
    return result.rowcount


def purge(connection: Connection, before: int, limit: int) -> int:
    """Forget deliveries made before a time, with their attempts; answers how many, ``limit`` at most."""
    old = select(deliveries.c.team_id, deliveries.c.delivery_id).where(deliveries.c.created_at < before)
    rows = sorted((row[0], row[1]) for row in connection.execute(old.limit(limit)))
    # Team by team: a list of (team, delivery) would make SQLite read the whole table.
    for team_id, group in groupby(rows, key=itemgetter(0)):
        ids = padded([delivery_id for _, delivery_id in group])
        for table in (delivery_attempts, deliveries):
            connection.execute(delete(table).where(table.c.team_id == team_id, table.c.delivery_id.in_(ids)))
    return len(rows)


def neglected(connection: Connection, now: int) -> list[tuple[int, str]]:
    """(team, trigger) of what should be sent and has nobody who will: an administrator has ended its task, say."""
    return _pairs(
        connection,
        select(deliveries.c.team_id, deliveries.c.trigger_id)
        .distinct()
        .join(
            triggers,
            and_(
                triggers.c.team_id == deliveries.c.team_id, triggers.c.trigger_id == deliveries.c.trigger_id
            ),
        )
        .where(
            _is_due,
            deliveries.c.next_at <= now,
            triggers.c.archived.is_(False),
            or_(triggers.c.disabled.is_(False), _by_hand),
            ~_has_task(deliveries.c.trigger_id, DELIVER, DELIVER_MAILS),
        ),
    )


def abandoned(connection: Connection, before: int, long_before: int, now: int) -> list[tuple[int, str]]:
    """(team, delivery) of what is being prepared and has nobody who does it: its task has died, say.

    Args:
        before: only those made before this time.
        long_before: if they were made before this one, also those that may still wait for files.
    """
    return _pairs(
        connection,
        select(deliveries.c.team_id, deliveries.c.delivery_id).where(
            _is_preparing,
            deliveries.c.created_at < before,
            or_(deliveries.c.wait_until <= now, deliveries.c.created_at < long_before),
            ~_has_task(deliveries.c.delivery_id, PREPARE),
        ),
    )


def _has_task(subject: ColumnElement[str], *kinds: str) -> ColumnElement[bool]:
    """Whether a task of one of the kinds waits or runs for a delivery's team and ``subject``."""
    return exists().where(
        tasks_table.c.team_id == deliveries.c.team_id,
        tasks_table.c.kind.in_(kinds),
        tasks_table.c.subject == subject,
        tasks_table.c.state.in_(("ready", "retry", "running")),
    )


def _pairs(connection: Connection, query: Select[Any]) -> list[tuple[int, str]]:
    rows: Iterable[Any] = connection.execute(query)
    return [(row[0], row[1]) for row in rows]
