"""Users: listed, created, changed and deleted (section 13)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.authority import Authority
from server.auth.passwords import generate_password, hash_password
from server.auth.policies import ANY_TOKEN
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import optional_page
from server.users.rules import (
    POLICY,
    TAGS,
    User,
    keep_an_owner,
    load_for_update,
    not_found,
    only_by_owners,
    printed,
)
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import users as queries
from storage.queries.groups import leave_all_groups
from storage.queries.users import NewUser, UserRow, username_key
from sync.values import format_time

#: The members of section 13.8 as they compare, without case, and as we spell them.
_DETAILS = {"username": "username", "emailaddress": "emailAddress", "name": "name"}


class CreateUser(msgspec.Struct, rename="camel"):
    """The body of section 13.3."""

    username: str
    email_address: str
    name: str


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


@get(
    "/api/team/user",
    opt={"policy": ANY_TOKEN},
    tags=TAGS,
    summary="List the team's users",
    description="In the order they were created; all of them without `limit` (section 13.1).",
)
async def list_users(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> list[User]:
    """Section 13.1."""
    people = await database.read(queries.people_of_team, request.user.team_id, *optional_page(request))
    return [printed(person) for person in people]


@get("/api/team/user/{user_id:str}", opt={"policy": ANY_TOKEN}, tags=TAGS, summary="Get a user")
async def get_user(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], user_id: FromPath[str]
) -> User:
    """Section 13.2."""
    user = await database.read(queries.user_by_id, request.user.team_id, user_id)
    if user is None:
        raise not_found()
    return printed(user)


@post(
    "/api/team/user",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Create a user",
    description="The password in the answer is shown only this once (section 13.3).",
)
async def create_user(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> CreatedUser:
    """Section 13.3. The user has no permissions yet."""
    body = bodies.decode(await request.body(), CreateUser)
    principal = request.user
    # Looked at before the password is hashed, which takes long.
    username = bodies.name(body.username, "username")
    email_address = bodies.email(body.email_address, "emailAddress")
    name = bodies.name(body.name, "name")
    password = generate_password()
    user = NewUser(
        team_id=principal.team_id,
        user_id=new_id(),
        username=username,
        email_address=email_address,
        name=name,
        password_hash=await hash_password(password),
        permissions=frozenset(),
        created_at=now(),
    )
    # Another request may take the name between the look and the insertion; then it is seen.
    await database.settle(_create, user)
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


@put(
    "/api/team/user/{user_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Change a user's details",
    description=(
        "`name`, `emailAddress` and `username`, spelled in any case; what is not sent stays (section 13.8). "
        "With another address the user is not linked to an account at the OpenID Connect provider any more."
    ),
)
async def change_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> User:
    """Section 13.8; answers as 13.2."""
    changes = _details(bodies.decode(await request.body(), dict[str, Any]))
    principal = request.user
    arguments = (principal.team_id, user_id, changes, "OWNER" in principal.permissions)
    # As when creating: the username is unique over all teams, which holding this one does not see to.
    user = await database.settle(_change, *arguments)
    authority.forget(user_id)
    return user


@delete(
    "/api/team/user/{user_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Delete a user",
    description=(
        "For good. What jobs and histories say of the user stays; the username is free again (section 13.10)."
    ),
)
async def delete_user(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    user_id: FromPath[str],
) -> Response[bytes]:
    """Section 13.10. Anyone who may delete users may delete oneself, the last owner aside."""
    principal = request.user
    await database.settle(_delete, principal.team_id, user_id, "OWNER" in principal.permissions)
    authority.forget(user_id)
    return Response(b"")


def _create(connection: Connection, user: NewUser) -> None:
    _refuse_taken(queries.user_by_username(connection, username_key(user.username)))
    queries.insert_user(connection, user)


def _change(
    connection: Connection, team_id: int, user_id: str, changes: Mapping[str, str], by_owner: bool
) -> User:
    user = load_for_update(connection, team_id, user_id)
    changed = dataclasses.replace(
        user,
        username=changes.get("username", user.username),
        email_address=changes.get("emailAddress", user.email_address),
        name=changes.get("name", user.name),
    )
    if changed == user:
        return printed(user)
    if changed.email_address != user.email_address:
        # A link for a new password goes there, and who is known by it at a provider may sign in.
        only_by_owners(user, by_owner, "emailAddress")
        queries.forget_password_links(connection, team_id, user_id)
        queries.forget_oidc_subject(connection, team_id, user_id)
    if changed.username != user.username:
        only_by_owners(user, by_owner, "username")
        other = queries.user_by_username(connection, username_key(changed.username))
        _refuse_taken(None if other is not None and other.user_id == user_id else other)
    queries.set_user_details(connection, changed)
    return printed(changed)


def _delete(connection: Connection, team_id: int, user_id: str, by_owner: bool) -> None:
    user = load_for_update(connection, team_id, user_id)
    only_by_owners(user, by_owner)
    keep_an_owner(connection, user)
    at = now()
    leave_all_groups(connection, team_id, user_id)
    queries.end_sign_ins(connection, team_id, user_id, at)
    queries.delete_user(connection, team_id, user_id, at)


def _refuse_taken(other: UserRow | None) -> None:
    if other is not None:
        raise Problem(
            409, "username-taken", "There is a user of this name. Choose another.", field="username"
        )


def _details(body: Mapping[str, Any]) -> dict[str, str]:
    """The members of section 13.8, checked, by our spelling."""
    result: dict[str, str] = {}
    for key, value in body.items():
        member = _DETAILS.get(key.lower())
        if member is None:
            raise bodies.invalid(key, f"There is no such member. There are: {', '.join(_DETAILS.values())}.")
        if member in result:
            raise bodies.invalid(key, f"{member} came twice. Send each member once.")
        if not isinstance(value, str):
            raise bodies.invalid(member, f"{member} must be a text.")
        result[member] = (
            bodies.email(value, member) if member == "emailAddress" else bodies.name(value, member)
        )
    return result


route_handlers = [list_users, get_user, create_user, change_user, delete_user]
