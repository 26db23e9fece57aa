"""Deliveries: what triggers have sent or are to send, and each attempt."""

from typing import NamedTuple

from sqlalchemy import Connection, select, update

from storage.ids import new_id
from storage.queries import tasks
from storage.queries.statements import upsert_insert
from storage.tables import deliveries

#: Waits for a delivery's files and has its report made. Subject: the delivery's id.
PREPARE = "delivery.prepare"
#: Sends what is due of one trigger. Subject: the trigger's id, so that one worker at a time sends for it.
DELIVER = "trigger.deliver"

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


_columns = [deliveries.c[name] for name in DeliveryRow._fields]


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
