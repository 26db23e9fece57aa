"""Deliveries of triggers, as the engine leaves them."""

from typing import Any

from server.clock import now
from storage.database import Connection
from storage.ids import new_id
from storage.queries import deliveries
from storage.queries.deliveries import DUE, Attempted, DeliveryRow
from storage.tables import deliveries as table
from tests.support.app import Team

PAYLOAD = b'{"jobId":"job","clientJobId":"pump-7","jobTitle":"Pump 7"}'
_HOUR = 3600 * 1_000_000


def delivery_of(team: Team, trigger_id: str, *attempts: Attempted, **columns: Any) -> str:
    """A delivery and the attempts at it, without a task: nobody sends it until it is replayed or its trigger resumed."""
    delivery_id = new_id()
    row = DeliveryRow(
        delivery_id=delivery_id,
        trigger_id=trigger_id,
        event_id=new_id(),
        type="job.completed",
        job_id="job",
        client_job_id="pump-7",
        rev=3,
        state=DUE,
        payload=PAYLOAD,
        report_id=None,
        wait_until=None,
        note=None,
        attempts=0,
        next_at=now(),
        created_at=now(),
        finished_at=None,
    )

    def add(connection: Connection) -> None:
        connection.execute(table.insert().values(team_id=team.team_id, **row._asdict()))
        made = [attempt._replace(delivery_id=delivery_id) for attempt in attempts]
        deliveries.record(connection, team.team_id, made)
        if columns:
            is_it = (table.c.team_id == team.team_id) & (table.c.delivery_id == delivery_id)
            connection.execute(table.update().where(is_it).values(**columns))

    team.app.write(add)
    return delivery_id


def attempt(state: str, **members: Any) -> Attempted:
    """An attempt that the receiver answered with 500; the next one, if there is one, is due in an hour."""
    made = Attempted("", 1_700_000_000_000_000, 12_345_678, 500, "500", b"Sorry", state, None)
    next_at = now() + _HOUR if state == DUE else None
    return made._replace(next_at=next_at)._replace(**members)
