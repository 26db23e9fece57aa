"""Machine-to-machine clients and their secrets (section 2.3)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from storage.tables import client_secrets, clients, teams


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client as stored, with the name of its team.

    ``scopes`` and ``permissions`` keep the order they were registered in; scopes also the spelling.
    """

    team_id: int
    team_name: str
    client_id: str
    display_name: str
    scopes: tuple[str, ...]
    permissions: tuple[str, ...]
    created_at: int
    revoked: bool


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client about to be stored."""

    team_id: int
    client_id: str
    display_name: str
    scopes: tuple[str, ...]
    permissions: tuple[str, ...]
    created_at: int


def client_by_client_id(connection: Connection, client_id: str) -> ClientRow | None:
    """The client of whichever team, revoked ones included."""
    return _one(connection, _clients().where(clients.c.client_id == client_id))


def clients_by_ids(connection: Connection, client_ids: Iterable[str]) -> list[ClientRow]:
    """Clients of any team, revoked ones included, by ids that signed tokens carried."""
    return [
        _client(row)
        for row in connection.execute(_clients().where(clients.c.client_id.in_(list(client_ids))))
    ]


def client_of_team(connection: Connection, team_id: int, client_id: str) -> ClientRow | None:
    """The team's client, unless it was revoked. Held until the transaction ends."""
    query = _clients().where(
        clients.c.team_id == team_id, clients.c.client_id == client_id, clients.c.revoked_at.is_(None)
    )
    return _one(connection, query.with_for_update(of=clients))


def clients_of_team(connection: Connection, team_id: int) -> list[ClientRow]:
    """The team's clients that were not revoked, oldest first."""
    query = _clients().where(clients.c.team_id == team_id, clients.c.revoked_at.is_(None))
    rows = connection.execute(query.order_by(clients.c.created_at, clients.c.client_id))
    return [_client(row) for row in rows]


def secret_ids_of_team(connection: Connection, team_id: int) -> dict[str, list[str]]:
    """For each client of the team the ids of its secrets, oldest first."""
    rows = connection.execute(
        select(client_secrets.c.client_id, client_secrets.c.secret_id)
        .where(client_secrets.c.team_id == team_id)
        .order_by(client_secrets.c.created_at, client_secrets.c.secret_id)
    )
    result: dict[str, list[str]] = {}
    for client_id, secret_id in rows:
        result.setdefault(client_id, []).append(secret_id)
    return result


def secret_hashes(connection: Connection, team_id: int, client_id: str) -> list[bytes]:
    """The hashes of the secrets that are valid for the client."""
    return list(
        connection.execute(
            select(client_secrets.c.secret_hash).where(
                client_secrets.c.team_id == team_id, client_secrets.c.client_id == client_id
            )
        ).scalars()
    )


def insert_client(connection: Connection, client: NewClient) -> None:
    """Add a client, as yet without a secret."""
    connection.execute(
        insert(clients).values(
            team_id=client.team_id,
            client_id=client.client_id,
            display_name=client.display_name,
            scopes=" ".join(client.scopes),
            permissions=" ".join(client.permissions),
            created_at=client.created_at,
        )
    )


def insert_secret(
    connection: Connection, team_id: int, client_id: str, secret_id: str, secret_hash: bytes, now: int
) -> None:
    """Add a secret; those there are stay valid."""
    connection.execute(
        insert(client_secrets).values(
            team_id=team_id, client_id=client_id, secret_id=secret_id, secret_hash=secret_hash, created_at=now
        )
    )


def delete_secret(connection: Connection, team_id: int, client_id: str, secret_id: str) -> bool:
    """Remove a secret; whether there was one."""
    result = connection.execute(
        delete(client_secrets).where(
            client_secrets.c.team_id == team_id,
            client_secrets.c.client_id == client_id,
            client_secrets.c.secret_id == secret_id,
        )
    )
    return result.rowcount == 1


def revoke_client(connection: Connection, team_id: int, client_id: str, now: int) -> bool:
    """Revoke a client for good; whether it was there and not revoked. The row stays for the audit."""
    result = connection.execute(
        update(clients)
        .where(clients.c.team_id == team_id, clients.c.client_id == client_id, clients.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return result.rowcount == 1


def _clients() -> Select[Any]:
    return select(clients, teams.c.name.label("team_name")).join_from(
        clients, teams, clients.c.team_id == teams.c.team_id
    )


def _one(connection: Connection, query: Select[Any]) -> ClientRow | None:
    row = connection.execute(query).one_or_none()
    return _client(row) if row is not None else None


def _client(row: Any) -> ClientRow:
    return ClientRow(
        team_id=row.team_id,
        team_name=row.team_name,
        client_id=row.client_id,
        display_name=row.display_name,
        scopes=tuple(row.scopes.split()),
        permissions=tuple(row.permissions.split()),
        created_at=row.created_at,
        revoked=row.revoked_at is not None,
    )
