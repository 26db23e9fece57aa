"""The root fields ``users`` and ``groups``: from either to the other, and back again."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from server.query.asking import Asking
from server.query.documents import QueryProblem
from server.query.selecting import MAX_COST, Field
from server.query.shaping import Tellers, shaped, skip_and_limit
from server.users.flags import printed_flags
from storage.database import Connection
from storage.queries import groups as group_queries
from storage.queries import users as user_queries
from storage.queries.groups import GroupRow
from storage.queries.users import Person
from sync.values import format_time

MAX_LIMIT = 1_000

USER_FIELDS: Tellers[Person] = {
    "userId": lambda user: user.user_id,
    "username": lambda user: user.username,
    "emailAddress": lambda user: user.email_address,
    "name": lambda user: user.name,
    "created": lambda user: format_time(user.created_at),
    "locked": lambda user: user.locked,
    "permissions": lambda user: list(printed_flags(user.permissions)),
}
GROUP_FIELDS: Tellers[GroupRow] = {
    "groupId": lambda group: group.group_id,
    "name": lambda group: group.name,
    "created": lambda group: format_time(group.created_at),
    "permissions": lambda group: list(printed_flags(group.permissions)),
}


class Circle(NamedTuple):
    """Users and groups that a query reaches, and who is in what, as far as that is asked for.

    Attributes:
        groups_of: user id -> its groups.
        users_of: group id -> its users.
    """

    groups_of: dict[str, Sequence[GroupRow]]
    users_of: dict[str, Sequence[Person]]


async def users(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Users as ``field`` asks for them, in the order they were created.

    Raises:
        QueryProblem: ``invalid-argument``, ``query-too-complex``.
    """
    page = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    found, circle = await asking.database.read(_load_users, asking.team_id, field.fields, *page)
    # A thousand people take some milliseconds: other requests go on meanwhile.
    return await asyncio.to_thread(PeopleShape(circle).users, field, found)


async def groups(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Groups as ``field`` asks for them, in the order they were created.

    Raises:
        QueryProblem: ``invalid-argument``, ``query-too-complex``.
    """
    page = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    found, circle = await asking.database.read(_load_groups, asking.team_id, field.fields, *page)
    return await asyncio.to_thread(PeopleShape(circle).groups, field, found)


def _load_users(
    connection: Connection, team_id: int, fields: Sequence[Field], skip: int, limit: int
) -> tuple[list[Person], Circle]:
    found = user_queries.people_of_team(connection, team_id, skip, limit)
    return found, around_users(connection, team_id, found, fields)


def _load_groups(
    connection: Connection, team_id: int, fields: Sequence[Field], skip: int, limit: int
) -> tuple[list[GroupRow], Circle]:
    found = group_queries.groups_of_team(connection, team_id, skip, limit)
    circle = Circle({}, {})
    _reach(connection, team_id, circle, [group.group_id for group in found], False, _levels(fields))
    return found, circle


def around_users(
    connection: Connection, team_id: int, people: Iterable[Person], fields: Sequence[Field]
) -> Circle:
    """Whom these users are in groups with, as far as ``fields`` of them ask. A statement for each level, at most."""
    circle = Circle({}, {})
    _reach(connection, team_id, circle, [user.user_id for user in people], True, _levels(fields))
    return circle


def _levels(fields: Sequence[Field]) -> int:
    """How deep objects lie in each other below these fields."""
    return max((1 + _levels(field.fields) for field in fields if field.fields), default=0)


def _reach(
    connection: Connection, team_id: int, circle: Circle, ids: Sequence[str], are_users: bool, levels: int
) -> None:
    """Read who is in what, level by level, each user and each group once."""
    for _ in range(levels):
        if are_users:
            new = [key for key in ids if key not in circle.groups_of]
            if new:
                circle.groups_of.update(dict.fromkeys(new, ()))
                circle.groups_of.update(group_queries.groups_of_users(connection, team_id, new))
            ids = list({group.group_id: None for key in ids for group in circle.groups_of[key]})
        else:
            new = [key for key in ids if key not in circle.users_of]
            if new:
                circle.users_of.update(dict.fromkeys(new, ()))
                circle.users_of.update(group_queries.users_of_groups(connection, team_id, new))
            ids = list({user.user_id: None for key in ids for user in circle.users_of[key]})
        are_users = not are_users


class _Made(NamedTuple):
    """An object of the answer; ``size``: how many objects it is with all that lies in it."""

    shown: dict[str, Any]
    size: int


class PeopleShape:
    """Makes answers of a circle. An object that stands in several places is made once: nobody may change it.

    So the work is bounded by who is in what; what is printed of it is not, and is counted.
    """

    def __init__(self, circle: Circle) -> None:
        self._circle = circle
        # (selection, id): the same user is told differently where something else is selected.
        self._made: dict[tuple[int, str], _Made] = {}
        self._size = 0

    def users(self, field: Field, people: Iterable[Person]) -> list[dict[str, Any]]:
        """Users as ``field`` asks for them.

        Raises:
            QueryProblem: ``query-too-complex``: all that was made of this circle is too much.
        """
        return self._counted(field, [self._user(field, user) for user in people])

    def groups(self, field: Field, found: Iterable[GroupRow]) -> list[dict[str, Any]]:
        """Groups, likewise."""
        return self._counted(field, [self._group(field, group) for group in found])

    def _counted(self, field: Field, made: Sequence[_Made]) -> list[dict[str, Any]]:
        self._size += sum(each.size for each in made)
        if self._size > MAX_COST:
            raise QueryProblem.of(
                "query-too-complex",
                f"With the users of groups and the groups of users these are more than {MAX_COST:,} objects. "
                "Ask for fewer at once (limit, skip), or less deep.",
                (field.key,),
            )
        return [each.shown for each in made]

    def _user(self, field: Field, user: Person) -> _Made:
        key = (id(field), user.user_id)
        if key not in self._made:
            size = 1

            def tell(inner: Field) -> Any:
                nonlocal size
                if inner.name != "userGroups":
                    return USER_FIELDS[inner.name](user)
                there = [self._group(inner, group) for group in self._circle.groups_of[user.user_id]]
                size += sum(each.size for each in there)
                return [each.shown for each in there]

            self._made[key] = _Made(shaped(field.fields, tell), size)
        return self._made[key]

    def _group(self, field: Field, group: GroupRow) -> _Made:
        key = (id(field), group.group_id)
        if key not in self._made:
            size = 1

            def tell(inner: Field) -> Any:
                nonlocal size
                if inner.name != "users":
                    return GROUP_FIELDS[inner.name](group)
                there = [self._user(inner, user) for user in self._circle.users_of[group.group_id]]
                size += sum(each.size for each in there)
                return [each.shown for each in there]

            self._made[key] = _Made(shaped(field.fields, tell), size)
        return self._made[key]
