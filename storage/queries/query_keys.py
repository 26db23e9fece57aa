"""Query keys of teams (section 3.3.2): found by their hash, shown to administrators."""

from typing import NamedTuple

from sqlalchemy import Connection, select, update

from storage.queries.statements import upsert_insert
from storage.tables import query_keys, teams


class QueryKeyRow(NamedTuple):
    """A slot of a team as stored: without ``key_hash`` and ``sealed``, its key was revoked."""

    slot: str
    key_hash: bytes | None
    sealed: bytes | None
    created_at: int
    created_by: str
    revoked_at: int | None = None


def by_hash(connection: Connection, key_hash: bytes) -> tuple[int, str] | None:
    """The id and the name of the team whose key has this SHA-256; None if no team has it."""
    row = connection.execute(
        select(teams.c.team_id, teams.c.name)
        .join_from(query_keys, teams, query_keys.c.team_id == teams.c.team_id)
        .where(query_keys.c.key_hash == key_hash)
    ).one_or_none()
    return (row.team_id, row.name) if row is not None else None


def team_name(connection: Connection, team_id: int) -> str | None:
    """The name of the team that a temporary key speaks of, if there is such a team."""
    name: str | None = connection.execute(
        select(teams.c.name).where(teams.c.team_id == team_id)
    ).scalar_one_or_none()
    return name


def of_team(connection: Connection, team_id: int) -> dict[str, QueryKeyRow]:
    """The team's slots, revoked ones too; one that was never used is missing."""
    rows = connection.execute(
        select(*(query_keys.c[name] for name in QueryKeyRow._fields)).where(query_keys.c.team_id == team_id)
    )
    return {row.slot: QueryKeyRow(*row) for row in rows}


def put(connection: Connection, team_id: int, row: QueryKeyRow) -> None:
    """Write a slot, over the key it had."""
    values = row._asdict()
    insert = upsert_insert(connection, query_keys).values(team_id=team_id, **values)
    connection.execute(
        insert.on_conflict_do_update(index_elements=[query_keys.c.team_id, query_keys.c.slot], set_=values)
    )


def revoke(connection: Connection, team_id: int, slot: str, now: int) -> None:
    """Remove the key of a slot and keep the slot. One that is revoked already stays as it is."""
    connection.execute(
        update(query_keys)
        .where(query_keys.c.team_id == team_id, query_keys.c.slot == slot, query_keys.c.revoked_at.is_(None))
        .values(key_hash=None, sealed=None, revoked_at=now)
    )
