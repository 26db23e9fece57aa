"""What `fieldsync doctor` asks of a database."""

import secrets
from typing import NamedTuple

from sqlalchemy import Connection, delete, exists, func, insert, select, text

from storage.queries.statements import is_sqlite
from storage.tables import server_secrets, tasks, teams, triggers


class Server(NamedTuple):
    """The database's own account of itself. ``encoding`` and ``connections``: PostgreSQL's."""

    version: str
    encoding: str = ""
    connections: int = 0


class Backlog(NamedTuple):
    """The tasks of all teams. ``oldest``: since when the first of those that are due has waited, microseconds."""

    due: int
    oldest: int | None
    running: int
    dead: dict[str, int]


def server(connection: Connection) -> Server:
    """Which database this is."""
    if is_sqlite(connection):
        return Server(str(connection.scalar(text("SELECT sqlite_version()"))))
    row = connection.execute(
        text(
            "SELECT current_setting('server_version'), current_setting('server_encoding'),"
            " current_setting('max_connections')"
        )
    ).one()
    return Server(row[0].partition(" ")[0], row[1], int(row[2]))


def changes_backend(connection: Connection) -> bool:
    """Whether transactions of this one connection met different processes of PostgreSQL: a pooler is between.

    A pooler that has nothing else to do may give the same one again, so False proves nothing.
    """
    seen = set()
    for _ in range(2):
        seen.add(_backend(connection))
        connection.rollback()
    return len(seen) > 1


def _backend(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)


def journal(connection: Connection) -> tuple[str, int]:
    """SQLite's journal mode and how far it goes for durability (2: FULL) on this connection."""
    return (
        str(connection.scalar(text("PRAGMA journal_mode"))),
        int(connection.scalar(text("PRAGMA synchronous")) or 0),
    )


def time_of_database(connection: Connection) -> float:
    """PostgreSQL's clock, seconds since the epoch."""
    return float(connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0)


def write_and_remove(connection: Connection, now: int) -> None:
    """Write a row and remove it: a commit that goes to the disk and leaves nothing."""
    name = f"doctor {secrets.token_hex(8)}"
    connection.execute(
        insert(server_secrets).values(name=name, value=secrets.token_bytes(16), created_at=now)
    )
    connection.execute(delete(server_secrets).where(server_secrets.c.name == name))


def count_teams(connection: Connection) -> int:
    return int(connection.scalar(select(func.count()).select_from(teams)) or 0)


def secret(connection: Connection, name: str) -> bytes:
    """The installation's secret called ``name``; empty if it has not been made yet."""
    value = connection.scalar(select(server_secrets.c.value).where(server_secrets.c.name == name))
    return bytes(value or b"")


def any_trigger(connection: Connection) -> bool:
    """Whether a team has a trigger."""
    return bool(connection.scalar(select(exists().where(triggers.c.archived.is_(False)))))


def backlog(connection: Connection, now: int) -> Backlog:
    """How background work stands at ``now``, microseconds. Reads the whole table of tasks."""
    waiting = tasks.c.state.in_(("ready", "retry"))
    due, oldest = connection.execute(
        select(func.count(), func.min(tasks.c.run_at)).where(waiting, tasks.c.run_at <= now)
    ).one()
    running = connection.scalar(
        select(func.count()).where(tasks.c.state == "running", tasks.c.leased_until > now)
    )
    dead = connection.execute(
        select(tasks.c.kind, func.count()).where(tasks.c.state == "dead").group_by(tasks.c.kind)
    )
    return Backlog(due, oldest, int(running or 0), {row[0]: row[1] for row in dead})
