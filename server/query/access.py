"""Who may query (section 3.3): whoever has a key of a team, a temporary key, or a token."""

from collections.abc import Callable
from typing import Any, NamedTuple

from litestar import Request

from server.auth.authority import Authority
from server.errors import Problem
from server.query.sealing import hash_of, is_key
from server.triggers.keys import QueryKeys
from storage.database import Database
from storage.queries import query_keys as queries

_POLICY = "Query_Read"


class Caller(NamedTuple):
    """The team whose data may be queried: all of it (section 3.3.1)."""

    team_id: int
    team_name: str


async def caller(
    request: Request[Any, Any, Any],
    authority: Authority,
    database: Database,
    query_keys: QueryKeys,
    clock: Callable[[], int],
) -> Caller:
    """The caller of a query. A key in the address counts before a token; an empty one is none.

    Nothing is remembered between requests: a key that was regenerated or revoked is refused at once, by every process.

    Args:
        query_keys: tells whose a temporary key is.
        clock: the time now, in microseconds.

    Raises:
        Problem: 401 ``query-key-invalid``, ``query-key-expired`` or ``token-missing``, and what
            :meth:`~server.auth.authority.Authority.admit` says of a token. None of them holds the key.
        storage.database.Unavailable: the database cannot be asked.
    """
    key = request.query_params.get("key")
    if not key:
        return await _with_token(request, authority)
    if is_key(key):
        found = await database.read(queries.by_hash, hash_of(key))
    else:
        found = await _of_temporary(key, database, query_keys, clock())
    if found is None:
        # One answer for every reason: which part of a key is wrong helps nobody but a forger.
        raise _unauthorized(
            "query-key-invalid",
            "The key is not one of ours, or it was regenerated or revoked. GET /query/v2/keys shows those that work.",
        )
    return Caller(*found)


async def _of_temporary(
    key: str, database: Database, query_keys: QueryKeys, at: int
) -> tuple[int, str] | None:
    team_id = query_keys.team_of(key, at)
    if team_id is None:
        if query_keys.expired(key, at):
            raise _unauthorized(
                "query-key-expired",
                "The hour of this temporary key is over. Use a key of the team or an access token.",
            )
        return None
    name = await database.read(queries.team_name, team_id)
    return (team_id, name) if name is not None else None


async def _with_token(request: Request[Any, Any, Any], authority: Authority) -> Caller:
    try:
        user = await authority.admit(request.scope["headers"], _POLICY)
    except Problem as refusal:
        if refusal.code != "token-missing":
            raise
        raise _unauthorized(
            "token-missing",
            "This needs a query key as ?key=, or a header Authorization: Bearer with an access token of "
            "/connect/token.",
        ) from None
    return Caller(user.team_id, user.team_name)


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="fieldsync"'})
