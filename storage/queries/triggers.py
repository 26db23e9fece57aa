"""Triggers: what a team wants done when something happens to a job."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, insert, literal_column, select, update

from storage.queries import tasks
from storage.queries.deliveries import DELIVER
from storage.tables import deliveries, teams, triggers

#: Finds the triggers that an event concerns. Subject: the event's id; payload: :func:`match`.
MATCH = "trigger.match"

#: Bits of ``teams.wanted_events``. A team without triggers wants nothing, and a push then costs no more.
COMPLETED, UPDATED = 1, 2
_WANTED_BY: dict[str, int] = {
    "job.completed": COMPLETED,
    "job.mediaComplete": COMPLETED | UPDATED,
    "job.updated": UPDATED,
}


class TriggerRow(NamedTuple):
    """A trigger; lists and options as JSON, ``secrets`` as in the table."""

    trigger_id: str
    name: str
    description: str | None
    template_tags: bytes
    object_ids: bytes
    template_ids: bytes
    trigger_type: str
    options: bytes
    secrets: bytes | None
    report_template_id: str | None
    pdf_requirement: str
    disabled: bool
    disabled_reason: str | None
    archived: bool
    failing_since: int | None
    created_by: str
    created_at: int
    updated_at: int
    failed_at: int | None = None

    @property
    def live(self) -> bool:
        """Whether events fire it."""
        return not self.disabled and not self.archived

    @property
    def settings(self) -> dict[str, Any]:
        """``triggerOptions``, without the secrets."""
        decoded: dict[str, Any] = msgspec.json.decode(self.options)
        return decoded


_columns = [triggers.c[name] for name in TriggerRow._fields]


def is_wanted(event_type: str, wanted: int) -> bool:
    """Whether triggers that want the events ``wanted`` look at one of this type."""
    return bool(_WANTED_BY.get(event_type, 0) & wanted)


def match(
    connection: Connection, team_id: int, event_id: str, event_type: str, rev: int, facts: object, now: int
) -> None:
    """Have triggers matched against an event, once this transaction commits.

    Args:
        facts: the job as it is now (``sync.facts.job_facts``): what is delivered later tells of this moment.
    """
    payload = {"type": event_type, "rev": rev, "job": facts}
    tasks.enqueue(connection, team_id, MATCH, event_id, payload, now=now)


def all_of(connection: Connection, team_id: int) -> list[TriggerRow]:
    """Every trigger of a team, archived ones too, oldest first."""
    query = select(*_columns).where(triggers.c.team_id == team_id).order_by(triggers.c.trigger_id)
    return [TriggerRow(*row) for row in connection.execute(query)]


def page(connection: Connection, team_id: int, skip: int, limit: int | None) -> list[TriggerRow]:
    """Triggers, archived ones too, newest first."""
    query = select(*_columns).where(triggers.c.team_id == team_id).order_by(triggers.c.trigger_id.desc())
    return [TriggerRow(*row) for row in connection.execute(query.offset(skip).limit(limit))]


def one(connection: Connection, team_id: int, trigger_id: str, lock: bool = False) -> TriggerRow | None:
    """A trigger; ``lock``: nobody else changes it until the transaction ends."""
    query = select(*_columns).where(triggers.c.team_id == team_id, triggers.c.trigger_id == trigger_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return TriggerRow(*row) if row else None


def add(connection: Connection, team_id: int, row: TriggerRow) -> None:
    """Insert a new trigger. See :func:`note_wants`."""
    connection.execute(insert(triggers).values(team_id=team_id, **row._asdict()))


def save(connection: Connection, team_id: int, row: TriggerRow) -> None:
    """Write every column of a trigger that :func:`one` answered with ``lock``. See :func:`note_wants`."""
    change(connection, team_id, **row._asdict())


def change(connection: Connection, team_id: int, trigger_id: str, **values: Any) -> bool:
    """Set columns of a trigger; answers whether there is one. See :func:`note_wants`."""
    result = connection.execute(
        update(triggers)
        .where(triggers.c.team_id == team_id, triggers.c.trigger_id == trigger_id)
        .values(**values)
    )
    return result.rowcount == 1


def resume(connection: Connection, team_id: int, trigger_id: str, now: int) -> None:
    """What a trigger has yet to deliver is due now: what waited while it was disabled, and what failed before."""
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.team_id == team_id,
            deliveries.c.trigger_id == trigger_id,
            # Spelled out: only then do the databases see that the partial index holds these rows.
            deliveries.c.state == literal_column("'due'"),
            deliveries.c.next_at > now,
        )
        .values(next_at=now)
    )
    tasks.enqueue(connection, team_id, DELIVER, trigger_id, now=now)


def want(connection: Connection, team_id: int, bits: Iterable[int]) -> None:
    """Note which events the team's triggers want, all of them together; after ``teams.lock_team``."""
    total = 0
    for each in bits:
        total |= each
    connection.execute(update(teams).where(teams.c.team_id == team_id).values(wanted_events=total))


def wanted_by(row: TriggerRow) -> int:
    """Which events a trigger wants."""
    if not row.live:
        return 0
    on_update = row.trigger_type == "Http" and row.settings.get("onUpdate")
    return COMPLETED | UPDATED if on_update else COMPLETED


def note_wants(connection: Connection, team_id: int) -> None:
    """Note which events the team's triggers want now; whoever changes a trigger calls this in the same
    transaction, and ``teams.lock_team`` at its beginning.
    """
    want(connection, team_id, map(wanted_by, all_of(connection, team_id)))
