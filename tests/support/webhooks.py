"""Triggers with what they have to deliver, as rows, and the engine that delivers it, for tests of webhooks."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import insert, select, update

from server.clock import now
from server.mail import Mailer
from server.settings import Settings
from server.triggers.delivering import Engine
from storage.blobs import BlobStore
from storage.database import Connection
from storage.ids import new_id
from storage.queries import deliveries as queries
from storage.queries.deliveries import AttemptRow, DeliveryRow
from storage.queries.triggers import TriggerRow, one
from storage.queue import Task
from storage.tables import deliveries, tasks, triggers
from tests.support.app import Team
from tests.support.receiver import SECRET, Receiver


def put_trigger(connection: Connection, team_id: int, url: str, **values: Any) -> str:
    """A trigger that sends webhooks to ``url``; its id. ``headers``: of its own."""
    headers = values.pop("headers", None)
    options = {"url": url} | ({"headers": headers} if headers else {})
    moment = now()
    row = {
        "team_id": team_id,
        "trigger_id": new_id(),
        "name": "Tell the office",
        "template_tags": b"[]",
        "object_ids": b"[]",
        "template_ids": b"[]",
        "trigger_type": "Http",
        "options": json.dumps(options).encode(),
        "secrets": json.dumps([{"secret": SECRET, "until": None}]).encode(),
        "pdf_requirement": "NotRequired",
        "disabled": False,
        "archived": False,
        "created_by": "nobody",
        "created_at": moment,
        "updated_at": moment,
        **values,
    }
    connection.execute(insert(triggers).values(**row))
    return str(row["trigger_id"])


def put_deliveries(connection: Connection, team_id: int, trigger_id: str, count: int = 1) -> list[str]:
    """Deliveries of ``job.completed`` that are due; their ids."""
    ids = []
    for _ in range(count):
        job_id = new_id()
        name = f"pump {job_id}"
        facts = {"jobId": job_id, "clientJobId": name, "jobTitle": "Pump", "status": "Completed"}
        payload = json.dumps(facts).encode()
        new = queries.NewDelivery(trigger_id, new_id(), "job.completed", job_id, name, 3, payload, None)
        added = queries.add(connection, team_id, new, now())
        assert added is not None
        ids.append(added)
    return ids


def make_due(connection: Connection, team_id: int, trigger_id: str) -> None:
    """Let the time pass until the trigger's next attempts."""
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.team_id == team_id,
            deliveries.c.trigger_id == trigger_id,
            deliveries.c.state == queries.DUE,
        )
        .values(next_at=now())
    )


def states_of(connection: Connection, team_id: int, trigger_id: str) -> dict[str, int]:
    """How many of a trigger's deliveries are in which state."""
    query = select(deliveries.c.state).where(
        deliveries.c.team_id == team_id, deliveries.c.trigger_id == trigger_id
    )
    found: dict[str, int] = {}
    for state in connection.scalars(query):
        found[state] = found.get(state, 0) + 1
    return found


class Sending:
    """A trigger of a team with what it has to deliver, and an engine that delivers it to a receiver.

    The application must be one without a worker, which would do the same with settings of its own.
    """

    def __init__(self, team: Team, receiver: Receiver, count: int = 1, **trigger: Any) -> None:
        self.team = team
        self.app = team.app
        self.receiver = receiver
        url = trigger.pop("url", receiver.url)
        self.trigger_id: str = self.write(put_trigger, url, **trigger)
        self.ids: list[str] = self.write(put_deliveries, self.trigger_id, count)
        self.settings: dict[str, Any] = {
            "webhook_networks": ("127.0.0.0/8",),
            "webhook_ports": (str(receiver.port),),
        }

    def write(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run a function of a connection and the team's id as one transaction."""
        return self.app.write(lambda connection: work(connection, self.team.team_id, *arguments, **named))

    def engine(self, **options: float) -> Engine:
        settings = Settings(data=self.app.settings.data, **self.settings)
        blobs: BlobStore = self.app.litestar.dependencies["blobs"].dependency()  # type: ignore[union-attr]
        return Engine(self.app.database, blobs, Mailer(settings), settings, **options)

    def run(self, engine: Engine | None = None) -> None:
        """What the worker does with one task, and with the one it leaves to those who mail."""
        engine = engine or self.engine()
        self.app.call(engine.deliver, self.task())
        if self.waiting(queries.DELIVER_MAILS):
            self.take_tasks(queries.DELIVER_MAILS)
            self.app.call(engine.deliver_mails, self.task(queries.DELIVER_MAILS))

    def task(self, kind: str = queries.DELIVER) -> Task:
        """A task of the trigger, as the worker gets it."""
        return Task(self.team.team_id, "t", kind, self.trigger_id, None, 1, now())

    def again(self) -> None:
        """The same once the time of the next attempt has come."""
        self.write(make_due, self.trigger_id)
        self.run()

    @property
    def trigger(self) -> TriggerRow:
        """The trigger as it is now."""
        row: TriggerRow | None = self.write(one, self.trigger_id)
        assert row is not None
        return row

    def delivery(self, number: int = 0) -> tuple[DeliveryRow, list[AttemptRow]]:
        """A delivery as it is now, and the attempts at it."""
        row: DeliveryRow | None = self.write(queries.one, self.ids[number])
        assert row is not None
        found: dict[str, list[AttemptRow]] = self.write(queries.attempts_of, [row.delivery_id])
        return row, found.get(row.delivery_id, [])

    def last(self) -> AttemptRow:
        """The last attempt at the first delivery."""
        return self.delivery()[1][-1]

    @property
    def states(self) -> dict[str, int]:
        """How many deliveries are in which state."""
        found: dict[str, int] = self.write(states_of, self.trigger_id)
        return found

    def waiting(self, kind: str = queries.DELIVER) -> list[tuple[str, int]]:
        """(subject, due) of the team's waiting tasks of a kind."""

        def read(connection: Connection, team_id: int) -> list[tuple[str, int]]:
            query = select(tasks.c.subject, tasks.c.run_at).where(
                tasks.c.team_id == team_id, tasks.c.kind == kind, tasks.c.state == "ready"
            )
            return [(row[0], row[1]) for row in connection.execute(query)]

        found: list[tuple[str, int]] = self.write(read)
        return found

    def take_tasks(self, *kinds: str) -> None:
        """As the worker does when it begins: no task waits any more, or none of these kinds."""
        which = [tasks.c.kind.in_(kinds)] if kinds else []
        self.write(
            lambda connection, team_id: connection.execute(
                update(tasks)
                .where(tasks.c.team_id == team_id, *which)
                .values(state="done", finished_at=now())
            )
        )
