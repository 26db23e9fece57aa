"""A user's permissions: sections 13.4 and 13.9."""

from collections.abc import Mapping
from typing import Any

from litestar import Request, get, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.authority import Authority
from server.auth.principal import Principal
from server.errors import Problem
from server.users.flags import FLAGS, changed_permissions, parse_flags, printed_flags
from server.users.rules import POLICY, TAGS, keep_an_owner, load_for_update, not_found, only_by_owners
from storage.database import Connection, Database
from storage.queries import users as queries


@get(
    "/api/team/user/{user_id:str}/permissions",
    opt=POLICY,
    tags=TAGS,
    summary="Get a user's permissions",
    description="The user's own; with `effective=true` those of its groups too (section 13.4).",
)
async def get_permissions(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], user_id: FromPath[str]
) -> dict[str, bool]:
    """Section 13.4: the flags that are true."""
    effective = _effective(request)
    user = await database.read(queries.user_by_id, request.user.team_id, user_id)
    if user is None:
        raise not_found()
    return printed_flags(user.held if effective else user.permissions)


@put(
    "/api/team/user/{user_id:str}/permissions",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Change a user's permissions",
    description="Flags that are not sent stay as they are (section 13.9).",
)
async def change_permissions(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> dict[str, bool]:
    """Section 13.9; answers as 13.4."""
    changes = parse_flags(bodies.decode(await request.body(), dict[str, Any]), FLAGS)
    principal = request.user
    permissions = await database.settle(
        _change_permissions, principal.team_id, user_id, changes, "OWNER" in principal.permissions
    )
    authority.forget(user_id)
    return printed_flags(permissions)


def _change_permissions(
    connection: Connection, team_id: int, user_id: str, changes: Mapping[str, bool], by_owner: bool
) -> frozenset[str]:
    user = load_for_update(connection, team_id, user_id)
    permissions = changed_permissions(user.permissions, changes)
    changed = permissions ^ user.permissions
    if not changed:
        return permissions
    only_by_owners(user, by_owner, FLAGS["OWNER"] if "OWNER" in changed else None)
    if "OWNER" in changed:
        if not by_owner:
            raise Problem(403, "insufficient-permission", "Only an owner makes owners.", field=FLAGS["OWNER"])
        if "OWNER" not in permissions:
            keep_an_owner(connection, user)
    queries.set_user_permissions(connection, team_id, user_id, permissions)
    return permissions


def _effective(request: Request[Principal, Any, Any]) -> bool:
    text = request.query_params.get("effective", "false").lower()
    if text not in ("true", "false"):
        raise Problem(400, "invalid-parameter", "effective must be true or false.", field="effective")
    return text == "true"


route_handlers = [get_permissions, change_permissions]
