"""Groups of users (section 5)."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, true, update

from storage.queries.statements import padded, upsert_insert
from storage.queries.users import PERSON, Person, name_key, person
from storage.tables import group_members, groups, teams, users

#: Ids of one IN list.
_CHUNK = 512
#: Of more users or groups than these, everybody's are read in place of theirs.
_MAX_NAMED = 1_000


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as stored, with the name of the team. Permissions are upper case."""

    team_id: int
    team_name: str
    group_id: str
    name: str
    permissions: frozenset[str]
    created_at: int


def groups_of_team(
    connection: Connection, team_id: int, skip: int = 0, limit: int | None = None
) -> list[GroupRow]:
    """The team's groups in the order they were created."""
    query = _groups(team_id).order_by(groups.c.created_at, groups.c.group_id).offset(skip).limit(limit)
    return [_group(row) for row in connection.execute(query)]


def group_by_id(connection: Connection, team_id: int, group_id: str) -> GroupRow | None:
    """The team's group."""
    row = connection.execute(_groups(team_id).where(groups.c.group_id == group_id)).one_or_none()
    return _group(row) if row is not None else None


def group_by_name(connection: Connection, team_id: int, name: str) -> GroupRow | None:
    """The team's group of this name, however it is spelled (see :func:`storage.queries.users.name_key`)."""
    row = connection.execute(_groups(team_id).where(groups.c.name_key == name_key(name))).one_or_none()
    return _group(row) if row is not None else None


def members_of(connection: Connection, team_id: int, group_id: str) -> list[str]:
    """The ids of the group's users, the longest known user first."""
    query = (
        select(users.c.user_id)
        .join_from(
            group_members,
            users,
            (users.c.team_id == group_members.c.team_id) & (users.c.user_id == group_members.c.user_id),
        )
        .where(
            group_members.c.team_id == team_id,
            group_members.c.group_id == group_id,
            users.c.deleted_at.is_(None),
        )
        .order_by(users.c.user_id)
    )
    return list(connection.scalars(query))


def groups_of_users(
    connection: Connection, team_id: int, user_ids: Sequence[str]
) -> dict[str, list[GroupRow]]:
    """user id -> its groups in the order they were created. One statement; of very many users, all of the team's
    may be answered. Users without groups are left out.
    """
    query = (
        _groups(team_id)
        .add_columns(group_members.c.user_id.label("member_id"))
        .join(
            group_members,
            (group_members.c.team_id == groups.c.team_id) & (group_members.c.group_id == groups.c.group_id),
        )
        .where(_among(group_members.c.user_id, user_ids))
        .order_by(groups.c.created_at, groups.c.group_id)
    )
    known: dict[str, GroupRow] = {}
    found: dict[str, list[GroupRow]] = defaultdict(list)
    for row in connection.execute(query):
        group = known.get(row.group_id) or known.setdefault(row.group_id, _group(row))
        found[row.member_id].append(group)
    return found


def users_of_groups(
    connection: Connection, team_id: int, group_ids: Sequence[str]
) -> dict[str, list[Person]]:
    """group id -> its users as :func:`members_of` arranges them. One statement; of very many groups, all of the
    team's may be answered. Groups without users are left out.
    """
    query = (
        select(group_members.c.group_id, *PERSON)
        .join_from(
            group_members,
            users,
            (users.c.team_id == group_members.c.team_id) & (users.c.user_id == group_members.c.user_id),
        )
        .where(
            group_members.c.team_id == team_id,
            _among(group_members.c.group_id, group_ids),
            users.c.deleted_at.is_(None),
        )
        .order_by(users.c.user_id)
    )
    known: dict[str, Person] = {}
    found: dict[str, list[Person]] = defaultdict(list)
    for group_id, *columns in connection.execute(query):
        user_id = columns[0]
        found[group_id].append(known.get(user_id) or known.setdefault(user_id, person(columns)))
    return found


def _among(column: ColumnElement[str], ids: Sequence[str]) -> ColumnElement[bool]:
    return column.in_(padded(ids)) if len(ids) <= _MAX_NAMED else true()


def insert_group(connection: Connection, team_id: int, group_id: str, name: str, now: int) -> None:
    """Add a group without users and permissions.

    Raises:
        sqlalchemy.exc.IntegrityError: the name is taken.
    """
    connection.execute(
        insert(groups).values(
            team_id=team_id,
            group_id=group_id,
            name=name,
            name_key=name_key(name),
            permissions="",
            created_at=now,
        )
    )


def set_group_name(connection: Connection, team_id: int, group_id: str, name: str) -> None:
    """Rename it (section 5.4).

    Raises:
        sqlalchemy.exc.IntegrityError: the name is taken.
    """
    connection.execute(
        update(groups)
        .where(groups.c.team_id == team_id, groups.c.group_id == group_id)
        .values(name=name, name_key=name_key(name))
    )


def set_group_permissions(
    connection: Connection, team_id: int, group_id: str, permissions: frozenset[str]
) -> None:
    """Replace the permissions (section 5.5)."""
    connection.execute(
        update(groups)
        .where(groups.c.team_id == team_id, groups.c.group_id == group_id)
        .values(permissions=" ".join(sorted(permissions)))
    )


def add_members(connection: Connection, team_id: int, group_id: str, user_ids: Collection[str]) -> None:
    """Put users into the group; those who are in it stay."""
    if user_ids:
        connection.execute(
            upsert_insert(connection, group_members).on_conflict_do_nothing(),
            [{"team_id": team_id, "group_id": group_id, "user_id": user_id} for user_id in user_ids],
        )


def remove_members(connection: Connection, team_id: int, group_id: str, user_ids: Sequence[str]) -> None:
    """Take users out of the group; those who are not in it are passed over."""
    for start in range(0, len(user_ids), _CHUNK):
        connection.execute(
            delete(group_members).where(
                group_members.c.team_id == team_id,
                group_members.c.group_id == group_id,
                group_members.c.user_id.in_(padded(user_ids[start : start + _CHUNK])),
            )
        )


def leave_all_groups(connection: Connection, team_id: int, user_id: str) -> None:
    """Take a user out of every group."""
    connection.execute(
        delete(group_members).where(group_members.c.team_id == team_id, group_members.c.user_id == user_id)
    )


def delete_group(connection: Connection, team_id: int, group_id: str) -> None:
    """Delete the group (section 5.8); its users stay."""
    connection.execute(
        delete(group_members).where(group_members.c.team_id == team_id, group_members.c.group_id == group_id)
    )
    connection.execute(delete(groups).where(groups.c.team_id == team_id, groups.c.group_id == group_id))


def _groups(team_id: int) -> Select[Any]:
    return (
        select(groups, teams.c.name.label("team_name"))
        .join_from(groups, teams, groups.c.team_id == teams.c.team_id)
        .where(groups.c.team_id == team_id)
    )


def _group(row: Any) -> GroupRow:
    return GroupRow(
        team_id=row.team_id,
        team_name=row.team_name,
        group_id=row.group_id,
        name=row.name,
        permissions=frozenset(row.permissions.split()),
        created_at=row.created_at,
    )
