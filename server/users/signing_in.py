"""Whether and how a user signs in: locked, unlocked, given another password (sections 13.5 to 13.7)."""

from typing import Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.auth.authority import Authority
from server.auth.passwords import generate_password, hash_password
from server.auth.principal import Principal
from server.clock import now
from server.users.rules import POLICY, TAGS, User, keep_an_owner, load_for_update, only_by_owners, printed
from storage.database import Connection, Database
from storage.queries import users as queries


class Password(msgspec.Struct):
    """The answer of section 13.6."""

    password: str


@post(
    ["/api/team/{user_id:str}/lock", "/api/team/user/{user_id:str}/lock"],
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Lock a user",
    description="The user's tokens are refused and do not come back with unlocking (section 13.5).",
)
async def lock_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> User:
    """Section 13.5. Owners are locked by owners only."""
    principal = request.user
    user = await database.settle(_lock, principal.team_id, user_id, "OWNER" in principal.permissions)
    authority.forget(user_id)
    return user


@post(
    ["/api/team/{user_id:str}/unlock", "/api/team/user/{user_id:str}/unlock"],
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Unlock a user",
)
async def unlock_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> User:
    """Section 13.7. Owners are unlocked by owners only."""
    principal = request.user
    user = await database.settle(_unlock, principal.team_id, user_id, "OWNER" in principal.permissions)
    authority.forget(user_id)
    return user


@post(
    ["/api/team/{user_id:str}/resetpassword", "/api/team/user/{user_id:str}/resetpassword"],
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Reset a user's password",
    description=(
        "The password in the answer is shown only this once. The user must choose another with it before "
        "signing in (section 13.6)."
    ),
)
async def reset_password(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> Password:
    """Section 13.6. Ends every sign-in of the user. Owners' passwords are reset by owners only."""
    principal = request.user
    password = generate_password()
    password_hash = await hash_password(password)
    await database.settle(
        _reset_password, principal.team_id, user_id, password_hash, "OWNER" in principal.permissions
    )
    authority.forget(user_id)
    return Password(password)


def _lock(connection: Connection, team_id: int, user_id: str, by_owner: bool) -> User:
    user = load_for_update(connection, team_id, user_id)
    only_by_owners(user, by_owner)
    keep_an_owner(connection, user)
    queries.set_user_locked(connection, team_id, user_id, True)
    queries.end_sign_ins(connection, team_id, user_id, now())
    return msgspec.structs.replace(printed(user), locked=True)


def _unlock(connection: Connection, team_id: int, user_id: str, by_owner: bool) -> User:
    user = load_for_update(connection, team_id, user_id)
    only_by_owners(user, by_owner)
    queries.set_user_locked(connection, team_id, user_id, False)
    return msgspec.structs.replace(printed(user), locked=False)


def _reset_password(
    connection: Connection, team_id: int, user_id: str, password_hash: str, by_owner: bool
) -> None:
    user = load_for_update(connection, team_id, user_id)
    only_by_owners(user, by_owner)
    queries.set_user_password(connection, team_id, user_id, password_hash, now(), expired=True)


route_handlers = [lock_user, unlock_user, reset_password]
