"""Triggers in tests: in the database as the API leaves them, and the worker's work done by hand."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update
from sqlalchemy.sql.dml import Update

from server.attachments.background import handlers as attachment_handlers
from server.clock import now
from server.triggers import matching
from server.worker import Handler
from storage.ids import new_id
from storage.queries import deliveries as delivery_queries
from storage.queries.deliveries import DeliveryRow
from storage.queries.groups import insert_group
from storage.queries.triggers import note_wants
from storage.queue import Task
from storage.tables import deliveries, group_members, tasks, triggers
from tests.support.app import (
    Account,
    Document,
    Team,
)
from tests.support.attachments import store_of

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
#: The id of nobody and nothing.
NOBODY = "f" * 24


class Clock:
    """The time of the worker; tests move it."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return now() + self.ahead


def add_trigger(team: Team, **values: Any) -> str:
    """A trigger as the API leaves it in the database; answers its id."""
    for name in ("template_tags", "object_ids", "template_ids"):
        values[name] = json.dumps(values.get(name, [])).encode()
    values["options"] = json.dumps(values.get("options", {})).encode()
    row = {
        "team_id": team.team_id,
        "trigger_id": new_id(),
        "name": "Tell the office",
        "trigger_type": "Email",
        "pdf_requirement": "NotRequired",
        "disabled": False,
        "archived": False,
        "created_by": team.owner.subject_id,
        "created_at": now(),
        "updated_at": now(),
        **values,
    }

    def write(connection: Connection) -> None:
        connection.execute(insert(triggers).values(row))
        note_wants(connection, team.team_id)

    team.app.write(write)
    return str(row["trigger_id"])


def write(team: Team, statement: Update) -> None:
    """Change the database behind the application's back."""

    def execute(connection: Connection) -> None:
        connection.execute(statement)

    team.app.write(execute)


def work(team: Team, clock: Clock | None = None) -> list[str]:
    """Do what is due of the team's matching and preparing, and tell its jobs of files; answers the kinds done."""
    app = team.app
    sandbox: Any = None
    known: Mapping[str, Handler] = {
        **attachment_handlers(app.database, store_of(team), app.ingest, sandbox),
        **matching.handlers(app.database),
    }
    done: list[str] = []
    while len(done) < 100:
        at = (clock or now)()
        due = (tasks.c.team_id == team.team_id, tasks.c.state == "ready", tasks.c.run_at <= at)
        query = select(tasks.c.task_id, tasks.c.kind, tasks.c.subject, tasks.c.payload).where(*due)
        query = query.where(tasks.c.kind.in_([kind for kind in known if kind != "attachment.thumbnails"]))

        def take(connection: Connection, query: Any = query) -> Any:
            row = connection.execute(query.order_by(tasks.c.task_id).limit(1)).one_or_none()
            if row is not None:
                connection.execute(
                    update(tasks).where(tasks.c.task_id == row.task_id).values(state="running", attempts=1)
                )
            return row

        row = app.write(take)
        if row is None:
            break
        task = Task(team.team_id, row.task_id, row.kind, row.subject, msgspec.json.decode(row.payload), 1, at)
        app.call(known[row.kind], task)
        write(team, update(tasks).where(tasks.c.task_id == row.task_id).values(state="done", finished_at=at))
        done.append(row.kind)
    return done


def sent(team: Team, trigger_id: str | None = None) -> list[DeliveryRow]:
    """What has been noted for a trigger of the team, or for all, oldest first."""

    def read(connection: Connection) -> list[DeliveryRow]:
        query = select(deliveries.c.delivery_id).where(deliveries.c.team_id == team.team_id)
        if trigger_id is not None:
            query = query.where(deliveries.c.trigger_id == trigger_id)
        ids = connection.scalars(query.order_by(deliveries.c.delivery_id)).all()
        rows = [delivery_queries.one(connection, team.team_id, one) for one in ids]
        return [row for row in rows if row is not None]

    return team.app.read(read)


def types(team: Team, trigger_id: str) -> list[str]:
    return [row.type for row in sent(team, trigger_id)]


def facts(row: DeliveryRow) -> Document:
    decoded: Document = json.loads(row.payload)
    return decoded


def waiting(team: Team, kind: str) -> list[Any]:
    """(subject, run_at) of the team's tasks of a kind that wait."""

    def read(connection: Connection) -> list[Any]:
        query = select(tasks.c.subject, tasks.c.run_at).where(
            tasks.c.team_id == team.team_id, tasks.c.kind == kind, tasks.c.state == "ready"
        )
        return [tuple(row) for row in connection.execute(query)]

    return team.app.read(read)


def group_with(team: Team, *people: Account) -> str:
    group_id = new_id()

    def write(connection: Connection) -> None:
        insert_group(connection, team.team_id, group_id, f"group {group_id}", now())
        for person in people:
            connection.execute(
                insert(group_members).values(
                    team_id=team.team_id, group_id=group_id, user_id=person.subject_id
                )
            )

    team.app.write(write)
    return group_id
