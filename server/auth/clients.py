"""Machine-to-machine clients: created, listed, given further secrets, revoked (section 2.3.3)."""

import re
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.authority import Authority
from server.auth.grants import hash_secret
from server.auth.policies import PERMISSIONS, SCOPES, scope_segment
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from storage.database import Connection, Database
from storage.ids import new_id, new_secret
from storage.queries import clients as queries
from storage.queries.clients import ClientRow, NewClient

_POLICY = {"policy": "Client_Admin"}
_TAGS = ["Clients"]

#: Scopes are kept as they were sent: one word, and no longer than any spelling in the document needs.
_SCOPE = re.compile(r"[\x21-\x7e]{1,200}")
_MAX_ENTRIES = 100


class CreateClient(msgspec.Struct):
    """The body of section 2.3.3."""

    name: str
    scopes: list[str]
    permissions: list[str]


class Secret(msgspec.Struct, rename="camel"):
    """A secret by its id; the secret itself is shown once and kept as a hash."""

    secret_id: str


class Client(msgspec.Struct, rename="camel"):
    """A client as section 2.3.3 prints it."""

    client_id: str
    grant_types: list[str]
    secrets: list[Secret]
    team_name: str
    display_name: str
    scopes: list[str]
    allow_access_tokens_via_browser: bool
    client_permissions: list[str]


class ClientWithSecret(msgspec.Struct, rename="camel"):
    """A client and the secret just made for it."""

    client: Client
    new_secret: str


@post(
    "/api/client",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Create a machine-to-machine client",
    description="The secret in the answer is shown only this once (section 2.3.3).",
)
async def create_client(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> ClientWithSecret:
    """Section 2.3.3."""
    body = bodies.decode(await request.body(), CreateClient)
    client = NewClient(
        team_id=request.user.team_id,
        client_id=new_id(),
        display_name=bodies.name(body.name, "name"),
        scopes=_scopes(body.scopes),
        permissions=_permissions(body.permissions),
        created_at=now(),
    )
    secret = new_secret()
    row, secret_ids = await database.write(_create, client, hash_secret(secret))
    return ClientWithSecret(_printed(row, secret_ids), secret)


@get("/api/client", opt=_POLICY, tags=_TAGS, summary="List the team's clients")
async def list_clients(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> list[Client]:
    """Every client that was not revoked, the oldest first, without secrets."""
    return await database.read(_list, request.user.team_id)


@delete("/api/client/{client_id:str}", status_code=200, opt=_POLICY, tags=_TAGS, summary="Revoke a client")
async def revoke_client(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    client_id: FromPath[str],
) -> Response[bytes]:
    """Its secrets get no more tokens and its tokens are refused, for good."""
    if not await database.write(queries.revoke_client, request.user.team_id, client_id, now()):
        raise _not_found()
    authority.forget(client_id)
    return Response(b"")


@post(
    "/api/client/{client_id:str}/secrets",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Add a secret to a client",
    description="The secrets there are stay valid, so that secrets can be exchanged without an outage.",
)
async def add_secret(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], client_id: FromPath[str]
) -> ClientWithSecret:
    """The new secret is shown only this once."""
    secret = new_secret()
    row, secret_ids = await database.write(_add_secret, request.user.team_id, client_id, hash_secret(secret))
    return ClientWithSecret(_printed(row, secret_ids), secret)


@delete(
    "/api/client/{client_id:str}/secrets/{secret_id:str}",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Remove a secret of a client",
)
async def remove_secret(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    client_id: FromPath[str],
    secret_id: FromPath[str],
) -> Response[bytes]:
    """Tokens it got before stay valid until they expire."""
    await database.write(_remove_secret, request.user.team_id, client_id, secret_id)
    return Response(b"")


def _create(connection: Connection, client: NewClient, secret_hash: bytes) -> tuple[ClientRow, list[str]]:
    queries.insert_client(connection, client)
    return _add_secret(connection, client.team_id, client.client_id, secret_hash)


def _add_secret(
    connection: Connection, team_id: int, client_id: str, secret_hash: bytes
) -> tuple[ClientRow, list[str]]:
    client = _load(connection, team_id, client_id)
    queries.insert_secret(connection, team_id, client_id, new_id(), secret_hash, now())
    return client, queries.secret_ids_of_team(connection, team_id)[client_id]


def _remove_secret(connection: Connection, team_id: int, client_id: str, secret_id: str) -> None:
    _load(connection, team_id, client_id)
    if not queries.delete_secret(connection, team_id, client_id, secret_id):
        raise Problem(404, "no-such-secret", "The client has no such secret.")


def _load(connection: Connection, team_id: int, client_id: str) -> ClientRow:
    client = queries.client_of_team(connection, team_id, client_id)
    if client is None:
        raise _not_found()
    return client


def _list(connection: Connection, team_id: int) -> list[Client]:
    secret_ids = queries.secret_ids_of_team(connection, team_id)
    return [
        _printed(client, secret_ids.get(client.client_id, []))
        for client in queries.clients_of_team(connection, team_id)
    ]


def _printed(client: ClientRow, secret_ids: list[str]) -> Client:
    return Client(
        client_id=client.client_id,
        grant_types=["client_credentials"],
        secrets=[Secret(secret_id) for secret_id in secret_ids],
        team_name=client.team_name,
        display_name=client.display_name,
        scopes=list(client.scopes),
        allow_access_tokens_via_browser=False,
        client_permissions=[permission.lower() for permission in client.permissions],
    )


def _scopes(scopes: list[str]) -> tuple[str, ...]:
    _check_length(scopes, "scopes")
    for index, scope in enumerate(scopes):
        if not _SCOPE.fullmatch(scope) or scope_segment(scope) not in SCOPES:
            known = ", ".join(sorted(SCOPES))
            raise bodies.invalid(
                f"scopes[{index}]", f"There is no such scope. The last part is one of: {known}."
            )
    return tuple(dict.fromkeys(scopes))


def _permissions(permissions: list[str]) -> tuple[str, ...]:
    _check_length(permissions, "permissions")
    for index, permission in enumerate(permissions):
        if permission.upper() not in PERMISSIONS:
            known = ", ".join(sorted(PERMISSIONS)).lower()
            raise bodies.invalid(f"permissions[{index}]", f"There is no such permission. There are: {known}.")
    return tuple(dict.fromkeys(permission.upper() for permission in permissions))


def _check_length(entries: list[str], field: str) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise bodies.invalid(field, f"{field} must not have more than {_MAX_ENTRIES} entries.")


def _not_found() -> Problem:
    return Problem(404, "no-such-client", "The team has no such client.")


route_handlers = [create_client, list_clients, revoke_client, add_secret, remove_secret]
