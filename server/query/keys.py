"""The two query keys of a team (section 3.3.2): showing, regenerating and revoking them."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response
from server.query.sealing import KeySeal, hash_of, new_key
from storage.database import Connection, Database
from storage.queries import query_keys as queries
from storage.queries.query_keys import QueryKeyRow
from storage.queries.teams import lock_team
from sync.values import format_time

SLOTS = ("primary", "secondary")

_TAGS = ["Query"]
_ADMIN = {"policy": "Query_Admin"}
_NO_STORE = {"Cache-Control": "no-store"}

KeyRequest = Request[Principal, Any, Any]


class KeyProblem(msgspec.Struct):
    """Why a key that works cannot be shown, and what to do about it."""

    code: str
    detail: str


class PrintedKey(msgspec.Struct, rename="camel"):
    """A slot as it is shown. ``key`` is null if it was revoked (then ``revoked`` says when), or cannot be shown
    (then ``problem`` says why); ``created`` is when the slot's last key was made.
    """

    slot: str
    key: str | None
    created: str
    created_by: str
    revoked: str | None
    problem: KeyProblem | None


_UNREADABLE = KeyProblem(
    code="query-key-unreadable",
    detail="The key works, but it was encrypted with another FIELDSYNC_SECRET_KEY and cannot be shown. Set the former "
    "one again, or regenerate the key.",
)


@get(
    "/query/v2/keys",
    opt=_ADMIN,
    tags=_TAGS,
    summary="Get the query keys",
    description="The primary and the secondary key. A team's first call makes both. A revoked one is null.",
)
async def get_keys(
    request: KeyRequest, database: NamedDependency[Database], key_seal: NamedDependency[KeySeal]
) -> Response[bytes]:
    """Section 3.3.2."""
    team_id = request.user.team_id
    rows = await database.read(queries.of_team, team_id)
    if len(rows) < len(SLOTS):
        rows = await database.settle(_complete, request.user, key_seal, now())
    return _answer([_printed(team_id, rows[slot], key_seal) for slot in SLOTS])


@post(
    "/query/v2/keys/{slot:str}/regenerate",
    status_code=200,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Regenerate a query key",
    description="`primary` or `secondary`. Answers the new key; the one before stops working at once.",
)
async def regenerate_key(
    request: KeyRequest,
    slot: FromPath[str],
    database: NamedDependency[Database],
    key_seal: NamedDependency[KeySeal],
) -> Response[bytes]:
    """Section 3.3.2; a revoked slot has a key again."""
    _check_slot(slot)
    row = await database.settle(_regenerate, request.user, slot, key_seal, now())
    return _answer(_printed(request.user.team_id, row, key_seal))


@delete(
    "/query/v2/keys/{slot:str}",
    status_code=204,
    opt=_ADMIN,
    tags=_TAGS,
    summary="Revoke a query key",
    description="`primary` or `secondary`. It stops working at once, and the slot is empty until it is regenerated.",
)
async def revoke_key(
    request: KeyRequest,
    slot: FromPath[str],
    database: NamedDependency[Database],
    key_seal: NamedDependency[KeySeal],
) -> Response[None]:
    """Revoking a revoked one is no error."""
    _check_slot(slot)
    await database.settle(_revoke, request.user, slot, key_seal, now())
    return Response(None, status_code=204, headers=_NO_STORE)


def _complete(connection: Connection, user: Principal, seal: KeySeal, at: int) -> dict[str, QueryKeyRow]:
    """The team's slots; keys are made for those it never used."""
    lock_team(connection, user.team_id)
    rows = queries.of_team(connection, user.team_id)
    for slot in SLOTS:
        if slot not in rows:
            rows[slot] = _put_new(connection, user, slot, seal, at)
    return rows


def _regenerate(connection: Connection, user: Principal, slot: str, seal: KeySeal, at: int) -> QueryKeyRow:
    lock_team(connection, user.team_id)
    return _put_new(connection, user, slot, seal, at)


def _revoke(connection: Connection, user: Principal, slot: str, seal: KeySeal, at: int) -> None:
    # A slot without a row would get a key with the next look at the keys.
    _complete(connection, user, seal, at)
    queries.revoke(connection, user.team_id, slot, at)


def _put_new(connection: Connection, user: Principal, slot: str, seal: KeySeal, at: int) -> QueryKeyRow:
    key = new_key()
    row = QueryKeyRow(slot, hash_of(key), seal.close(key, user.team_id, slot), at, user.subject_id)
    queries.put(connection, user.team_id, row)
    return row


def _check_slot(slot: str) -> None:
    if slot not in SLOTS:
        raise Problem(404, "no-such-query-key", f"A team has the query keys {' and '.join(SLOTS)}.")


def _printed(team_id: int, row: QueryKeyRow, seal: KeySeal) -> PrintedKey:
    key = seal.open(row.sealed, team_id, row.slot) if row.sealed is not None else None
    return PrintedKey(
        slot=row.slot,
        key=key,
        created=format_time(row.created_at),
        created_by=row.created_by,
        revoked=format_time(row.revoked_at) if row.revoked_at is not None else None,
        problem=_UNREADABLE if key is None and row.revoked_at is None else None,
    )


def _answer(value: PrintedKey | list[PrintedKey]) -> Response[bytes]:
    return json_response(msgspec.json.encode(value), _NO_STORE)


route_handlers = [get_keys, regenerate_key, revoke_key]
