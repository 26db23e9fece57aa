"""The root fields ``users`` and ``groups``: from either to the other, and back again."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
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


#: Rows of either kind.
Row = Person | GroupRow
#: Who is in what, as far as that is asked for: the field that leads on -> the id of a row -> whom it leads to.
Circle = Mapping[str, dict[str, Sequence[Row]]]


class Kind(NamedTuple):
    """Users, or groups.

    Attributes:
        others: the field with the groups of a user, or with the users of a group.
        of_team: reads a page of a team's (skip, limit), in the order they were created.
        read_others: reads those that are in ``others``, by id.
    """

    id_of: Callable[[Any], str]
    fields: Tellers[Any]
    others: str
    of_team: Callable[[Connection, int, int, int], Sequence[Row]]
    read_others: Callable[[Connection, int, Sequence[str]], Mapping[str, Sequence[Row]]]


USERS = Kind(
    attrgetter("user_id"),
    USER_FIELDS,
    "userGroups",
    user_queries.people_of_team,
    group_queries.groups_of_users,
)
GROUPS = Kind(
    attrgetter("group_id"),
    GROUP_FIELDS,
    "users",
    group_queries.groups_of_team,
    group_queries.users_of_groups,
)
#: Where a field leads.
_LEADS_TO = {USERS.others: GROUPS, GROUPS.others: USERS}


async def users(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Users as ``field`` asks for them, in the order they were created.

    Raises:
        QueryProblem: ``invalid-argument``, ``query-too-complex``.
    """
    return await _page(USERS, field, asking)


async def groups(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Groups, likewise."""
    return await _page(GROUPS, field, asking)


async def _page(kind: Kind, field: Field, asking: Asking) -> list[dict[str, Any]]:
    page = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    found, circle = await asking.database.read(_load, asking.team_id, kind, field.fields, *page)
    # A thousand people take some milliseconds: other requests go on meanwhile.
    return await asyncio.to_thread(PeopleShape(circle).listed, kind, field, found)


def _load(
    connection: Connection, team_id: int, kind: Kind, fields: Sequence[Field], skip: int, limit: int
) -> tuple[Sequence[Row], Circle]:
    found = kind.of_team(connection, team_id, skip, limit)
    return found, circle_around(connection, team_id, kind, found, fields)


def circle_around(
    connection: Connection, team_id: int, kind: Kind, rows: Iterable[Row], fields: Sequence[Field]
) -> Circle:
    """Who is in what around these users or groups, as far as ``fields`` of them ask: level by level, each once.

    A statement for each level, at most.
    """
    circle: Circle = {name: {} for name in _LEADS_TO}
    ids = [kind.id_of(row) for row in rows]
    for _ in range(_levels(fields)):
        known = circle[kind.others]
        new = [key for key in ids if key not in known]
        if new:
            known.update(dict.fromkeys(new, ()))
            known.update(kind.read_others(connection, team_id, new))
        others = _LEADS_TO[kind.others]
        ids = list({others.id_of(row): None for key in ids for row in known[key]})
        kind = others
    return circle


def _levels(fields: Sequence[Field]) -> int:
    """How deep objects lie in each other below these fields."""
    return max((1 + _levels(field.fields) for field in fields if field.fields), default=0)


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

    def listed(self, kind: Kind, field: Field, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Users or groups as ``field`` asks for them.

        Raises:
            QueryProblem: ``query-too-complex``: all that was made of this circle is too much.
        """
        made = [self._one(kind, field, row) for row in rows]
        self._size += sum(each.size for each in made)
        if self._size > MAX_COST:
            raise QueryProblem.of(
                "query-too-complex",
                f"With the users of groups and the groups of users these are more than {MAX_COST:,} objects. "
                "Ask for fewer at once (limit, skip), or less deep.",
                (field.key,),
            )
        return [each.shown for each in made]

    def _one(self, kind: Kind, field: Field, row: Row) -> _Made:
        row_id = kind.id_of(row)
        key = (id(field), row_id)
        if key not in self._made:
            size = 1

            def tell(inner: Field) -> Any:
                nonlocal size
                if inner.name != kind.others:
                    return kind.fields[inner.name](row)
                others = _LEADS_TO[kind.others]
                there = [self._one(others, inner, other) for other in self._circle[kind.others][row_id]]
                size += sum(each.size for each in there)
                return [each.shown for each in there]

            self._made[key] = _Made(shaped(field.fields, tell), size)
        return self._made[key]
