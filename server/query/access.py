"""Who may query (section 3.3): whoever has a key of a team, a temporary key, or a token."""

from collections.abc import Callable
from typing import Any, NamedTuple

from litestar import Request

from server.auth.principal import Principal
from server.errors import Problem
from server.query.sealing import hash_of, is_key
from server.triggers.keys import QueryKeys
from storage.database import Database
from storage.queries import query_keys as queries


class Caller(NamedTuple):
    """The team whose data may be queried: all of it (section 3.3.1)."""

    team_id: int
    team_name: str


async def caller(
    request: Request[Principal, Any, Any],
    database: Database,
    query_keys: QueryKeys,
    clock: Callable[[], int],
) -> Caller:
    """The caller of a query. A key in the address counts before a token; an empty one is none.

    The guard has let pass whoever gives a key, and has looked at everybody else's token (``OR_KEY``).
    Nothing is remembered between requests: a key that was regenerated or revoked is refused at once, by every process.

    Args:
        query_keys: tells whose a temporary key is.
        clock: the time now, in microseconds.

    Raises:
        Problem: 401 ``query-key-invalid`` or ``query-key-expired``. Neither holds the key.
        storage.database.Unavailable: the database cannot be asked.
    """
    key = request.query_params.get("key")
    if not key:
        return Caller(request.user.team_id, request.user.team_name)
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


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, headers={"WWW-Authenticate": 'Bearer realm="fieldsync"'})
