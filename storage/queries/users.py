"""Users: the people who sign in (section 13)."""

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from storage.queries.statements import padded
from storage.queries.tokens import revoke_refresh_tokens_of_user
from storage.tables import authorization_codes, group_members, groups, password_links, teams, users

#: Far above the longest name there can be. Putting combining characters in order takes time with the square
#: of their number, and anybody may send a name.
_LONGEST_KEY = 1000
#: Ids of one IN list.
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class UserRow:
    """A user as stored, with the name of the team and what its groups add. Permissions are upper case.

    Attributes:
        permissions: the user's own.
        group_permissions: those of its groups.
        password_expired: the password is good for nothing but choosing another.
        sign_ins: how often all sign-ins have ended; an access token is good under the number it was issued
            under.
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
    sign_ins: int
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


@dataclass(frozen=True, slots=True)
class Person:
    """What a list says of a user. ``permissions``: the user's own, in upper case."""

    user_id: str
    username: str
    email_address: str
    name: str
    created_at: int
    locked: bool
    permissions: frozenset[str]


#: What :func:`person` takes.
PERSON = (
    users.c.user_id,
    users.c.username,
    users.c.email_address,
    users.c.name,
    users.c.created_at,
    users.c.locked,
    users.c.permissions,
)


def name_key(name: str) -> str:
    """What makes two spellings of a name the same one: neither case nor how accents are composed counts.

    Unicode's canonical caseless matching (section 3.13, D145), kept composed.
    """
    text = name.strip()[:_LONGEST_KEY]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def username_key(username: str) -> str:
    """What makes two spellings of a username the same one. Unique over the installation, deleted users aside."""
    return name_key(username)


def user_by_username(connection: Connection, key: str) -> UserRow | None:
    """The user signing in as ``key`` (see :func:`username_key`), of whichever team."""
    return _one(connection, by_username(key))


def by_username(key: str) -> Select[Any]:
    """The query of :func:`user_by_username`."""
    return _users().where(users.c.username_key == key)


def user_by_id(connection: Connection, team_id: int, user_id: str) -> UserRow | None:
    """The team's user."""
    return _one(connection, _users().where(users.c.team_id == team_id, users.c.user_id == user_id))


def user_for_update(connection: Connection, team_id: int, user_id: str) -> UserRow | None:
    """The team's user, held until the transaction ends."""
    query = _users().where(users.c.team_id == team_id, users.c.user_id == user_id)
    return _one(connection, query.with_for_update(of=users))


def user_as_seen(connection: Connection, seen: UserRow) -> UserRow | None:
    """The user, held until the transaction ends; None if it was locked or deleted, or its sign-ins have ended,
    since ``seen`` was read: what somebody has shown then does not count any more.
    """
    user = user_for_update(connection, seen.team_id, seen.user_id)
    return user if user is not None and not user.locked and user.sign_ins == seen.sign_ins else None


def users_by_email(
    connection: Connection, key: str, limit: int, teams_named: Collection[str] | None = None
) -> list[UserRow]:
    """The users with the e-mail address ``key`` (see :func:`name_key`), the longest known first.

    Args:
        key: the folded address.
        limit: how many at most.
        teams_named: only users of these teams; None: of all.
    """
    return [_user(row) for row in connection.execute(by_email(key, limit, teams_named))]


def by_email(key: str, limit: int, teams_named: Collection[str] | None) -> Select[Any]:
    """The query of :func:`users_by_email`."""
    query = _users().where(users.c.email_key == key).order_by(users.c.user_id).limit(limit)
    if teams_named is None:
        return query
    # Not the bare column: SQLite would begin with the team of that name, and read all of its users.
    return query.where((teams.c.name + "").in_(padded(sorted(teams_named))))


def users_by_ids(connection: Connection, user_ids: Iterable[str]) -> list[UserRow]:
    """Users of any team, by ids that signed tokens carried."""
    query = _users().where(users.c.user_id.in_(list(user_ids)))
    return [_user(row) for row in connection.execute(query)]


def people_of_team(
    connection: Connection, team_id: int, skip: int = 0, limit: int | None = None
) -> list[Person]:
    """The team's users in the order they were created."""
    rows = connection.execute(
        select(*PERSON)
        .where(users.c.team_id == team_id, users.c.deleted_at.is_(None))
        .order_by(users.c.created_at, users.c.user_id)
        .offset(skip)
        .limit(limit)
    )
    return [person(row) for row in rows]


def person(row: Sequence[Any]) -> Person:
    """A row of the columns :data:`PERSON`."""
    user_id, username, email_address, name, created_at, locked, permissions = row
    held = frozenset(permissions.split())
    return Person(user_id, username, email_address, name, created_at, locked, held)


def present_user_ids(connection: Connection, team_id: int, user_ids: Collection[str]) -> set[str]:
    """Those of ``user_ids``, which may be any texts, that are the team's users."""
    found: set[str] = set()
    # PostgreSQL refuses to look for a NUL, and no driver sends half a character.
    ids = [user_id for user_id in user_ids if user_id.isascii() and user_id.isprintable()]
    for start in range(0, len(ids), _CHUNK):
        query = select(users.c.user_id).where(
            users.c.team_id == team_id,
            users.c.user_id.in_(padded(ids[start : start + _CHUNK])),
            users.c.deleted_at.is_(None),
        )
        found.update(connection.scalars(query))
    return found


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


def owner_ids(connection: Connection, team_id: int) -> list[str]:
    """The team's owners who are able to sign in."""
    rows = connection.execute(
        select(users.c.user_id, users.c.permissions)
        .where(
            users.c.team_id == team_id,
            users.c.locked.is_(False),
            users.c.deleted_at.is_(None),
            # As above.
            users.c.permissions.contains("OWNER"),
        )
        .order_by(users.c.user_id)
    )
    return [row.user_id for row in rows if "OWNER" in row.permissions.split()]


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
            email_key=name_key(user.email_address),
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


def set_user_details(connection: Connection, user: UserRow) -> None:
    """Replace username, address and name by those of ``user`` (section 13.8).

    Raises:
        sqlalchemy.exc.IntegrityError: the username is taken.
    """
    _set(
        connection,
        user.team_id,
        user.user_id,
        username=user.username,
        username_key=username_key(user.username),
        email_address=user.email_address,
        email_key=name_key(user.email_address),
        name=user.name,
    )


def forget_oidc_subject(connection: Connection, team_id: int, user_id: str) -> None:
    """Let the user be nobody at the provider, until somebody comes from there with the user's address."""
    _set(connection, team_id, user_id, oidc_subject=None)


def set_user_password(
    connection: Connection, team_id: int, user_id: str, password_hash: str, now: int, *, expired: bool
) -> None:
    """Replace the password. Every sign-in ends with it: it may be replaced because somebody else has it.

    Args:
        now: when this is.
        expired: it is good for nothing but choosing another.
    """
    _set(connection, team_id, user_id, password_hash=password_hash, password_expired=expired)
    end_sign_ins(connection, team_id, user_id, now)


def end_sign_ins(connection: Connection, team_id: int, user_id: str, now: int) -> None:
    """End every sign-in of the user for good, access tokens included, and what would get another without the
    present password.
    """
    _set(connection, team_id, user_id, sign_ins=users.c.sign_ins + 1)
    revoke_refresh_tokens_of_user(connection, team_id, user_id, now)
    forget_password_links(connection, team_id, user_id)
    connection.execute(
        delete(authorization_codes).where(
            authorization_codes.c.team_id == team_id,
            authorization_codes.c.user_id == user_id,
            # Exchanged ones stay: whoever uses one again must be noticed.
            authorization_codes.c.family_id.is_(None),
        )
    )


def forget_password_links(connection: Connection, team_id: int, user_id: str) -> None:
    """Make the links of the mails for a forgotten password worthless."""
    connection.execute(
        delete(password_links).where(password_links.c.team_id == team_id, password_links.c.user_id == user_id)
    )


def delete_user(connection: Connection, team_id: int, user_id: str, now: int) -> None:
    """Delete the user (section 13.10): no query here finds it any more. The row stays, without a password,
    so that the history can say who it was.
    """
    _set(connection, team_id, user_id, deleted_at=now, password_hash="", permissions="")


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
        sign_ins=row.sign_ins,
        group_ids=frozenset((row.group_ids or "").split()),
        group_permissions=frozenset((row.group_permissions or "").split()),
    )
