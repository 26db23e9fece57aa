"""Teams: the tenants."""

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from storage.tables import feeds, teams


@dataclass(frozen=True, slots=True)
class TeamRow:
    """A team as stored."""

    team_id: int
    name: str
    created_at: int


def team_by_name(connection: Connection, name: str) -> TeamRow | None:
    """The team called exactly ``name``; names are unique over the installation."""
    row = connection.execute(
        select(teams.c.team_id, teams.c.name, teams.c.created_at).where(teams.c.name == name)
    ).one_or_none()
    return TeamRow(*row) if row is not None else None


def insert_team(connection: Connection, name: str, now: int) -> int:
    """Add a team with its empty change feed, and answer its id."""
    team_id: int = connection.execute(
        insert(teams).values(name=name, created_at=now).returning(teams.c.team_id)
    ).scalar_one()
    connection.execute(insert(feeds).values(team_id=team_id, incarnation=secrets.token_hex(4), head=0))
    return team_id


def lock_team(connection: Connection, team_id: int) -> None:
    """Hold the team until the transaction ends, for rules that span several of its rows.

    PostgreSQL would otherwise let two transactions each remove what the other relies on. SQLite has one
    writer anyway.
    """
    connection.execute(select(teams.c.team_id).where(teams.c.team_id == team_id).with_for_update())
