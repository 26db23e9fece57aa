"""Users: the people who sign in (section 13)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select, update

from storage.tables import group_members, groups, teams, users


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored, with the name of the team and what its groups add. Permissions are upper case.

    Attributes:
        permissions: the user's own.
        group_permissions: those of its groups.
        password_expired: the password is good for nothing but choosing another.
    """

    team_id: int
    team_name: str
    user_id: str
    username: str
    email_address: str
    name: str
    password_hash: str
    permissions: frozenset[str]
    locked: bool
    created_at: int
    password_expired: bool
    group_ids: frozenset[str]
    group_permissions: frozenset[str]

    @property
    def held(self) -> frozenset[str]:
        """Every permission of the user: its own and its groups'."""
        return self.permissions | self.group_permissions


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user about to be stored."""

    team_id: int
    user_id: str
    username: str
    email_address: str
    name: str
    password_hash: str
    permissions: frozenset[str]
    created_at: int


def username_key(username: str) -> str:
    """What makes two spellings of a username the same one. Unique over the installation, deleted users aside."""
    return username.strip().casefold()


def user_by_username(connection: Connection, key: str) -> UserRow | None:
    """The user signing in as ``key`` (see :func:`username_key`), of whichever team."""
    return _one(connection, _users().where(users.c.username_key == key))


def user_by_id(connection: Connection, team_id: int, user_id: str) -> UserRow | None:
    """The team's user."""
    return _one(connection, _users().where(users.c.team_id == team_id, users.c.user_id == user_id))


def user_for_update(connection: Connection, team_id: int, user_id: str) -> UserRow | None:
    """The team's user, held until the transaction ends."""
    query = _users().where(users.c.team_id == team_id, users.c.user_id == user_id)
    return _one(connection, query.with_for_update(of=users))


def users_by_ids(connection: Connection, user_ids: Iterable[str]) -> list[UserRow]:
    """Users of any team, by ids that signed tokens carried."""
    query = _users().where(users.c.user_id.in_(list(user_ids)))
    return [_user(row) for row in connection.execute(query)]


def other_active_owners(connection: Connection, team_id: int, user_id: str) -> bool:
    """Whether the team has an owner beside ``user_id`` who is able to sign in."""
    rows = connection.execute(
        select(users.c.permissions).where(
            users.c.team_id == team_id,
            users.c.user_id != user_id,
            users.c.locked.is_(False),
            users.c.deleted_at.is_(None),
            # Narrows the rows; the exact test is on the split names below.
            users.c.permissions.contains("OWNER"),
        )
    )
    return any("OWNER" in row.permissions.split() for row in rows)


def insert_user(connection: Connection, user: NewUser) -> None:
    """Add a user.

    Raises:
        sqlalchemy.exc.IntegrityError: the username is taken.
    """
    connection.execute(
        insert(users).values(
            team_id=user.team_id,
            user_id=user.user_id,
            username=user.username,
            username_key=username_key(user.username),
            email_address=user.email_address,
            name=user.name,
            password_hash=user.password_hash,
            permissions=_joined(user.permissions),
            locked=False,
            created_at=user.created_at,
        )
    )


def set_user_locked(connection: Connection, team_id: int, user_id: str, locked: bool) -> None:
    """Lock or unlock (sections 13.5, 13.7)."""
    _set(connection, team_id, user_id, locked=locked)


def set_user_permissions(
    connection: Connection, team_id: int, user_id: str, permissions: frozenset[str]
) -> None:
    """Replace the permissions (section 13.9)."""
    _set(connection, team_id, user_id, permissions=_joined(permissions))


def _set(connection: Connection, team_id: int, user_id: str, **values: Any) -> None:
    connection.execute(
        update(users).where(users.c.team_id == team_id, users.c.user_id == user_id).values(**values)
    )


def _joined(permissions: frozenset[str]) -> str:
    return " ".join(sorted(permissions))


def _users() -> Select[Any]:
    """Users who are there. In one statement with what their groups add: signing in and every look at a
    token's subject need both.
    """
    joined = group_members.join(
        groups,
        (groups.c.team_id == group_members.c.team_id) & (groups.c.group_id == group_members.c.group_id),
    )
    of_user = (group_members.c.team_id == users.c.team_id) & (group_members.c.user_id == users.c.user_id)
    ids = select(func.aggregate_strings(groups.c.group_id, " ")).select_from(joined).where(of_user)
    permissions = select(func.aggregate_strings(groups.c.permissions, " ")).select_from(joined).where(of_user)
    return (
        select(
            users,
            teams.c.name.label("team_name"),
            ids.scalar_subquery().label("group_ids"),
            permissions.scalar_subquery().label("group_permissions"),
        )
        .join_from(users, teams, users.c.team_id == teams.c.team_id)
        .where(users.c.deleted_at.is_(None))
    )


def _one(connection: Connection, query: Select[Any]) -> UserRow | None:
    row = connection.execute(query).one_or_none()
    return _user(row) if row is not None else None


def _user(row: Any) -> UserRow:
    return UserRow(
        team_id=row.team_id,
        team_name=row.team_name,
        user_id=row.user_id,
        username=row.username,
        email_address=row.email_address,
        name=row.name,
        password_hash=row.password_hash,
        permissions=frozenset(row.permissions.split()),
        locked=row.locked,
        created_at=row.created_at,
        password_expired=row.password_expired,
        group_ids=frozenset((row.group_ids or "").split()),
        group_permissions=frozenset((row.group_permissions or "").split()),
    )
