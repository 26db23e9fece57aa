"""Users: created, locked and unlocked, given permissions (section 13).

The document prints Trigger_Admin for these routes. That would let a token made for triggers create users;
they take Team_Admin.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.authority import Authority
from server.auth.passwords import generate_password, hash_password
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from storage.database import Connection, Contended, Database
from storage.ids import new_id
from storage.queries import users as queries
from storage.queries.teams import lock_team
from storage.queries.tokens import revoke_refresh_tokens_of_user
from storage.queries.users import NewUser, UserRow, username_key
from sync.values import format_time

_POLICY = {"policy": "Team_Admin"}
_TAGS = ["Users"]

#: Permission -> its flag in sections 13.4 and 13.9, in the order they are printed. SPOKE is for clients.
FLAGS: dict[str, str] = {
    "OWNER": "owner",
    "ADMIN": "admin",
    "EDITOR": "editor",
    "APPROVER": "approver",
    "MODIFIER": "modifier",
    "DATAVIEWER": "dataViewer",
    "EXECUTOR": "executor",
}


class CreateUser(msgspec.Struct, rename="camel"):
    """The body of section 13.3."""

    username: str
    email_address: str
    name: str


class User(msgspec.Struct, rename="camel"):
    """A user as section 13.2 prints it."""

    user_id: str
    username: str
    email_address: str
    name: str
    created: str
    locked: bool


class CreatedUser(msgspec.Struct, rename="camel"):
    """A user as section 13.3 prints it: the one answer with the password.

    ``mode`` is 0 in the document, which does not say what else it might be.
    """

    password: str
    team_name: str
    mode: int
    user_id: str
    username: str
    email_address: str
    name: str
    created: str
    locked: bool


@post(
    "/api/team/user",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Create a user",
    description="The password in the answer is shown only this once (section 13.3).",
)
async def create_user(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> CreatedUser:
    """Section 13.3. The user has no permissions yet."""
    body = bodies.decode(await request.body(), CreateUser)
    principal = request.user
    password = generate_password()
    user = NewUser(
        team_id=principal.team_id,
        user_id=new_id(),
        username=bodies.name(body.username, "username"),
        email_address=bodies.email(body.email_address, "emailAddress"),
        name=bodies.name(body.name, "name"),
        password_hash=await hash_password(password),
        permissions=frozenset(),
        created_at=now(),
    )
    try:
        await database.write(_create, user)
    except Contended:
        # Another request may have taken the name between the look and the insertion; now it is seen.
        await database.write(_create, user)
    return CreatedUser(
        password=password,
        team_name=principal.team_name,
        mode=0,
        user_id=user.user_id,
        username=user.username,
        email_address=user.email_address,
        name=user.name,
        created=format_time(user.created_at),
        locked=False,
    )


@get("/api/team/user/{user_id:str}/permissions", opt=_POLICY, tags=_TAGS, summary="Get a user's permissions")
async def get_permissions(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], user_id: FromPath[str]
) -> dict[str, bool]:
    """Section 13.4: the flags that are true."""
    user = await database.read(queries.user_by_id, request.user.team_id, user_id)
    if user is None:
        raise _not_found()
    return _printed_flags(user.permissions)


@put(
    "/api/team/user/{user_id:str}/permissions",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
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
    changes = _flags(bodies.decode(await request.body(), dict[str, Any]))
    principal = request.user
    permissions = await database.write(
        _change_permissions, principal.team_id, user_id, changes, "OWNER" in principal.permissions
    )
    authority.forget(user_id)
    return _printed_flags(permissions)


@post(
    ["/api/team/{user_id:str}/lock", "/api/team/user/{user_id:str}/lock"],
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Lock a user",
    description="The user's tokens are refused and do not come back with unlocking (section 13.5).",
)
async def lock_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> User:
    """Section 13.5."""
    user = await database.write(_lock, request.user.team_id, user_id)
    authority.forget(user_id)
    return user


@post(
    ["/api/team/{user_id:str}/unlock", "/api/team/user/{user_id:str}/unlock"],
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Unlock a user",
)
async def unlock_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> User:
    """Section 13.7."""
    user = await database.write(_unlock, request.user.team_id, user_id)
    authority.forget(user_id)
    return user


def _create(connection: Connection, user: NewUser) -> None:
    if queries.user_by_username(connection, username_key(user.username)) is not None:
        raise Problem(
            409, "username-taken", "There is a user of this name. Choose another.", field="username"
        )
    queries.insert_user(connection, user)


def _change_permissions(
    connection: Connection, team_id: int, user_id: str, changes: Mapping[str, bool], by_owner: bool
) -> frozenset[str]:
    user = _load_for_update(connection, team_id, user_id)
    granted = {permission for permission, value in changes.items() if value}
    permissions = (user.permissions - changes.keys()) | granted
    changed = permissions ^ user.permissions
    if "OWNER" in changed:
        if not by_owner:
            raise Problem(
                403, "insufficient-permission", "Only an owner makes or unmakes owners.", field=FLAGS["OWNER"]
            )
        if "OWNER" not in permissions:
            _keep_an_owner(connection, user)
    if changed:
        queries.set_user_permissions(connection, team_id, user_id, permissions)
    return permissions


def _lock(connection: Connection, team_id: int, user_id: str) -> User:
    user = _load_for_update(connection, team_id, user_id)
    _keep_an_owner(connection, user)
    queries.set_user_locked(connection, team_id, user_id, True)
    revoke_refresh_tokens_of_user(connection, team_id, user_id, now())
    return _printed(user, locked=True)


def _unlock(connection: Connection, team_id: int, user_id: str) -> User:
    user = _load_for_update(connection, team_id, user_id)
    queries.set_user_locked(connection, team_id, user_id, False)
    return _printed(user, locked=False)


def _load_for_update(connection: Connection, team_id: int, user_id: str) -> UserRow:
    # The team first: two owners who lock each other must not both succeed.
    lock_team(connection, team_id)
    user = queries.user_for_update(connection, team_id, user_id)
    if user is None:
        raise _not_found()
    return user


def _keep_an_owner(connection: Connection, user: UserRow) -> None:
    """Refuse what would leave the team without an owner who can sign in: nobody could ever make one."""
    if "OWNER" not in user.permissions or user.locked:
        return
    if not queries.other_active_owners(connection, user.team_id, user.user_id):
        raise Problem(409, "last-owner", "This is the team's last owner. Make another user an owner first.")


def _flags(body: Mapping[str, Any]) -> dict[str, bool]:
    """Permission -> whether it is to be held. Flags compare without case.

    The document's example is Python rather than JSON, and clients built from it send strings: "true" and
    "false" are taken for the booleans.
    """
    known = {flag.lower(): permission for permission, flag in FLAGS.items()}
    result: dict[str, bool] = {}
    for flag, value in body.items():
        permission = known.get(flag.lower())
        if permission is None:
            raise bodies.invalid(
                flag, f"There is no such permission. There are: {', '.join(FLAGS.values())}."
            )
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if not isinstance(value, bool):
            raise bodies.invalid(flag, f"{flag} must be true or false.")
        result[permission] = value
    return result


def _printed_flags(permissions: frozenset[str]) -> dict[str, bool]:
    return {flag: True for permission, flag in FLAGS.items() if permission in permissions}


def _printed(user: UserRow, locked: bool) -> User:
    return User(
        user_id=user.user_id,
        username=user.username,
        email_address=user.email_address,
        name=user.name,
        created=format_time(user.created_at),
        locked=locked,
    )


def _not_found() -> Problem:
    return Problem(404, "no-such-user", "The team has no such user.")


route_handlers = [create_user, get_permissions, change_permissions, lock_user, unlock_user]
