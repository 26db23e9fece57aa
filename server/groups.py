"""Groups of users, who have its permissions beside their own: chapter 5 of the primary specification.

Every route answers with and without ``/api`` in front: the document prints both.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.auth.authority import Authority
from server.auth.policies import ANY_TOKEN
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import optional_page
from server.users.flags import GROUP_FLAGS, changed_permissions, parse_flags, printed_flags
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import groups as queries
from storage.queries.groups import GroupRow
from storage.queries.teams import lock_team
from storage.queries.users import present_user_ids
from storage.queries.workflows import touch_for_object
from sync.values import format_time

_POLICY = {"policy": "Team_Admin"}
_TAGS = ["Groups"]
_ALL = ["/group", "/api/group"]
_ONE = ["/group/{group_id:str}", "/api/group/{group_id:str}"]
_PERMISSIONS = [f"{path}/permissions" for path in _ONE]
_USERS = [f"{path}/users" for path in _ONE]

#: Users put in or taken out at once.
MAX_USERS = 10_000


class GroupName(msgspec.Struct):
    """The body of sections 5.2 and 5.4."""

    name: str


class Group(msgspec.Struct):
    """A group as sections 5.1, 5.2 and 5.4 print it."""

    id: str
    name: str


class GroupDetails(msgspec.Struct, rename="camel"):
    """A group as section 5.3 prints it."""

    group_id: str
    team_name: str
    name: str
    lowercase_name: str
    created: str
    users: list[str]
    permissions: dict[str, bool]


@get(
    _ALL,
    opt={"policy": ANY_TOKEN},
    tags=_TAGS,
    summary="List the team's groups",
    description="In the order they were created; all of them without `limit` (section 5.1).",
)
async def list_groups(
    request: Request[Principal, Any, Any], database: NamedDependency[Database]
) -> list[Group]:
    """Section 5.1."""
    groups = await database.read(queries.groups_of_team, request.user.team_id, *optional_page(request))
    return [Group(group.group_id, group.name) for group in groups]


@post(_ALL, status_code=200, opt=_POLICY, tags=_TAGS, summary="Create a group")
async def create_group(request: Request[Principal, Any, Any], database: NamedDependency[Database]) -> Group:
    """Section 5.2. The group has neither users nor permissions yet."""
    name = bodies.name(bodies.decode(await request.body(), GroupName).name, "name")
    group = Group(new_id(), name)
    await database.settle(_create, request.user.team_id, group)
    return group


@get(_ONE, opt={"policy": ANY_TOKEN}, tags=_TAGS, summary="Get a group")
async def get_group(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], group_id: FromPath[str]
) -> GroupDetails:
    """Section 5.3."""
    return await database.read(_details, request.user.team_id, group_id)


@put(
    _ONE,
    status_code=200,
    opt={"policy": ANY_TOKEN},
    tags=_TAGS,
    summary="Rename a group",
    description="With any valid token, as the document says (section 5.4).",
)
async def rename_group(
    request: Request[Principal, Any, Any], database: NamedDependency[Database], group_id: FromPath[str]
) -> Group:
    """Section 5.4."""
    name = bodies.name(bodies.decode(await request.body(), GroupName).name, "name")
    await database.settle(_rename, request.user.team_id, group_id, name)
    return Group(group_id, name)


@put(
    _PERMISSIONS,
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Change a group's permissions",
    description="Flags that are not sent stay. A group cannot make owners (section 5.5).",
)
async def change_group_permissions(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    group_id: FromPath[str],
) -> GroupDetails:
    """Section 5.5; answers as 5.3."""
    changes = parse_flags(bodies.decode(await request.body(), dict[str, Any]), GROUP_FLAGS)
    group = await database.settle(_change_permissions, request.user.team_id, group_id, changes)
    _forget(authority, group.users)
    return group


@put(
    _USERS,
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Add users to a group",
    description="An array of user ids; who is in the group already stays (section 5.6).",
)
async def add_users(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    group_id: FromPath[str],
) -> GroupDetails:
    """Section 5.6; answers as 5.3."""
    return await _change_users(request, database, authority, group_id, _add)


@delete(
    _USERS,
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Remove users from a group",
    description="An array of user ids in the body; who is not in the group is passed over (section 5.7).",
)
async def remove_users(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    group_id: FromPath[str],
) -> GroupDetails:
    """Section 5.7; answers as 5.3."""
    return await _change_users(request, database, authority, group_id, _remove)


@delete(_ONE, status_code=200, opt=_POLICY, tags=_TAGS, summary="Delete a group")
async def delete_group(
    request: Request[Principal, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    group_id: FromPath[str],
) -> Response[bytes]:
    """Section 5.8. Its users stay, without what the group gave them."""
    _forget(authority, await database.settle(_delete, request.user.team_id, group_id))
    return Response(b"")


_Change = Callable[[Connection, int, str, list[str]], tuple[GroupDetails, list[str]]]


async def _change_users(
    request: Request[Principal, Any, Any],
    database: Database,
    authority: Authority,
    group_id: str,
    change: _Change,
) -> GroupDetails:
    user_ids = bodies.decode(await request.body(), list[str])
    if len(user_ids) > MAX_USERS:
        raise Problem(
            422, "invalid-body", f"One request takes at most {MAX_USERS} users. Send them in several."
        )
    # Each once, in the order they came.
    user_ids = list(dict.fromkeys(user_ids))
    group, changed = await database.settle(change, request.user.team_id, group_id, user_ids)
    _forget(authority, changed)
    return group


def _forget(authority: Authority, user_ids: Sequence[str]) -> None:
    """Let what the users gained or lost take effect with their next requests."""
    for user_id in user_ids:
        authority.forget(user_id)


def _create(connection: Connection, team_id: int, group: Group) -> None:
    # Holding the team, nobody takes the name between the look and the insertion.
    lock_team(connection, team_id)
    _refuse_taken(queries.group_by_name(connection, team_id, group.name), group.id)
    queries.insert_group(connection, team_id, group.id, group.name, now())


def _rename(connection: Connection, team_id: int, group_id: str, name: str) -> None:
    _load_for_update(connection, team_id, group_id)
    _refuse_taken(queries.group_by_name(connection, team_id, name), group_id)
    queries.set_group_name(connection, team_id, group_id, name)


def _change_permissions(
    connection: Connection, team_id: int, group_id: str, changes: Mapping[str, bool]
) -> GroupDetails:
    group = _load_for_update(connection, team_id, group_id)
    permissions = changed_permissions(group.permissions, changes)
    queries.set_group_permissions(connection, team_id, group_id, permissions)
    return _details(connection, team_id, group_id)


def _add(
    connection: Connection, team_id: int, group_id: str, user_ids: list[str]
) -> tuple[GroupDetails, list[str]]:
    _load_for_update(connection, team_id, group_id)
    _refuse_unknown(connection, team_id, user_ids)
    there = set(queries.members_of(connection, team_id, group_id))
    added = [user_id for user_id in user_ids if user_id not in there]
    if added:
        queries.add_members(connection, team_id, group_id, added)
        touch_for_object(connection, team_id, group_id)
    return _details(connection, team_id, group_id), added


def _remove(
    connection: Connection, team_id: int, group_id: str, user_ids: list[str]
) -> tuple[GroupDetails, list[str]]:
    _load_for_update(connection, team_id, group_id)
    _refuse_unknown(connection, team_id, user_ids)
    there = set(queries.members_of(connection, team_id, group_id))
    removed = [user_id for user_id in user_ids if user_id in there]
    if removed:
        queries.remove_members(connection, team_id, group_id, removed)
        touch_for_object(connection, team_id, group_id)
    return _details(connection, team_id, group_id), removed


def _delete(connection: Connection, team_id: int, group_id: str) -> list[str]:
    _load_for_update(connection, team_id, group_id)
    members = queries.members_of(connection, team_id, group_id)
    queries.delete_group(connection, team_id, group_id)
    touch_for_object(connection, team_id, group_id)
    return members


def _load_for_update(connection: Connection, team_id: int, group_id: str) -> GroupRow:
    """The group, which nobody else changes before the transaction ends: who changes groups or deletes
    users holds the team.
    """
    lock_team(connection, team_id)
    return _load(connection, team_id, group_id)


def _load(connection: Connection, team_id: int, group_id: str) -> GroupRow:
    group = queries.group_by_id(connection, team_id, group_id)
    if group is None:
        raise Problem(404, "no-such-group", "The team has no such group.")
    return group


def _details(connection: Connection, team_id: int, group_id: str) -> GroupDetails:
    group = _load(connection, team_id, group_id)
    return GroupDetails(
        group_id=group.group_id,
        team_name=group.team_name,
        name=group.name,
        lowercase_name=group.name.lower(),
        created=format_time(group.created_at),
        users=queries.members_of(connection, team_id, group_id),
        permissions=printed_flags(group.permissions),
    )


def _refuse_taken(other: GroupRow | None, group_id: str) -> None:
    if other is not None and other.group_id != group_id:
        raise Problem(
            409, "group-name-taken", "The team has a group of this name. Choose another.", field="name"
        )


def _refuse_unknown(connection: Connection, team_id: int, user_ids: list[str]) -> None:
    there = present_user_ids(connection, team_id, user_ids)
    unknown = [user_id for user_id in user_ids if user_id not in there]
    if unknown:
        raise Problem(
            422,
            "unknown-users",
            f"The team has no such users: {', '.join(unknown)}. Nothing was changed; send the rest alone.",
            extra={"userIds": unknown},
        )


route_handlers = [
    list_groups,
    create_group,
    get_group,
    rename_group,
    change_group_permissions,
    add_users,
    remove_users,
    delete_group,
]
