"""Accounts: what people change about their own, and what is good once for signing in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select, update

from storage.queries.tokens import revoke_family
from storage.queries.users import (
    UserRow,
    name_key,
    user_by_id,
    user_by_username,
    user_for_update,
    users_by_email,
)
from storage.tables import authorization_codes, password_links, teams, users

#: The task that mails a link for choosing a new password; its subject: see server/accounts/background.py.
PASSWORD_LINK = "account.password-link"  # noqa: S105  # a name, no password


@dataclass(frozen=True, slots=True)
class CodeRow:
    """An authorization code as stored: its hash, never the code.

    Attributes:
        scopes: as asked for; none: whatever the permissions allow.
        family_id: of the refresh tokens it was exchanged for, if it was.
    """

    team_id: int
    code_hash: bytes
    user_id: str
    scopes: tuple[str, ...]
    client_id: str
    redirect_uri: str
    code_challenge: str
    expires_at: int
    family_id: str | None = None


# Finding people


def user_by_oidc_subject(connection: Connection, oidc_subject: str) -> UserRow | None:
    """The user who is ``oidc_subject`` (issuer, blank, subject) at the provider, of whichever team."""
    row = connection.execute(
        select(users.c.team_id, users.c.user_id).where(
            users.c.oidc_subject == oidc_subject, users.c.deleted_at.is_(None)
        )
    ).one_or_none()
    return user_by_id(connection, row.team_id, row.user_id) if row is not None else None


def users_known_as(
    connection: Connection, text: str, *, teams_named: Collection[str] | None = None, limit: int = 5
) -> list[UserRow]:
    """The users whose username or e-mail address is ``text``, as :func:`storage.queries.users.name_key` has it.

    The one with the username comes first. Several people may share an address.

    Args:
        text: as somebody spells it.
        teams_named: only users of these teams; None: of all.
        limit: how many at most.
    """
    key = name_key(text)
    if not key:
        return []
    named = user_by_username(connection, key)
    if named is not None and teams_named is not None and named.team_name not in teams_named:
        named = None
    found = {} if named is None else {named.user_id: named}
    found |= {user.user_id: user for user in users_by_email(connection, key, limit, teams_named)}
    return list(found.values())[:limit]


def only_team(connection: Connection) -> str | None:
    """The name of the installation's team, if there is exactly one."""
    names = connection.scalars(select(teams.c.name).limit(2)).all()
    return names[0] if len(names) == 1 else None


def link_oidc_subject(connection: Connection, team_id: int, user_id: str, oidc_subject: str) -> bool:
    """Remember who a user is at the provider; whether the user was nobody there before.

    Raises:
        sqlalchemy.exc.IntegrityError: another user is that already.
    """
    result = connection.execute(
        update(users)
        .where(
            users.c.team_id == team_id,
            users.c.user_id == user_id,
            users.c.deleted_at.is_(None),
            users.c.oidc_subject.is_(None),
        )
        .values(oidc_subject=oidc_subject)
    )
    return result.rowcount == 1


# Links of "forgotten password" mails


def insert_password_link(
    connection: Connection, team_id: int, token_hash: bytes, user_id: str, expires_at: int
) -> None:
    """Add a link that is good until ``expires_at``."""
    connection.execute(
        insert(password_links).values(
            team_id=team_id, token_hash=token_hash, user_id=user_id, expires_at=expires_at
        )
    )


def password_links_of(connection: Connection, team_id: int, user_id: str, now: int) -> int:
    """How many links a user has that are good at ``now``."""
    count: int = connection.execute(
        select(func.count()).where(
            password_links.c.team_id == team_id,
            password_links.c.user_id == user_id,
            password_links.c.expires_at > now,
        )
    ).scalar_one()
    return count


def user_of_password_link(connection: Connection, token_hash: bytes, now: int) -> UserRow | None:
    """Whose link this is, if it is good at ``now``. The user is held until the transaction ends, so that of
    two who use one link the second finds it gone.
    """
    found = select(password_links.c.team_id, password_links.c.user_id).where(
        password_links.c.token_hash == token_hash, password_links.c.expires_at > now
    )
    row = connection.execute(found).one_or_none()
    if row is None:
        return None
    user = user_for_update(connection, row.team_id, row.user_id)
    return user if user is not None and connection.execute(found).one_or_none() is not None else None


# Authorization codes


def insert_code(connection: Connection, code: CodeRow) -> None:
    """Add a code that was not exchanged yet."""
    connection.execute(
        insert(authorization_codes).values(
            team_id=code.team_id,
            code_hash=code.code_hash,
            user_id=code.user_id,
            scopes=" ".join(code.scopes),
            client_id=code.client_id,
            redirect_uri=code.redirect_uri,
            code_challenge=code.code_challenge,
            expires_at=code.expires_at,
        )
    )


def code_and_user(connection: Connection, code_hash: bytes) -> tuple[CodeRow, UserRow] | None:
    """The code of whichever team, exchanged and expired ones included, and whose it is.

    The user is held until the transaction ends, so that of two exchanges the second sees the first. The user
    and not the code, because that is what whoever ends sign-ins holds first.
    """
    owner = connection.execute(
        select(authorization_codes.c.team_id, authorization_codes.c.user_id).where(
            authorization_codes.c.code_hash == code_hash
        )
    ).one_or_none()
    user = user_for_update(connection, owner.team_id, owner.user_id) if owner is not None else None
    if user is None:
        return None
    row = connection.execute(
        select(authorization_codes).where(authorization_codes.c.code_hash == code_hash)
    ).one_or_none()
    if row is None:
        return None
    code = CodeRow(
        team_id=row.team_id,
        code_hash=row.code_hash,
        user_id=row.user_id,
        scopes=tuple(row.scopes.split()),
        client_id=row.client_id,
        redirect_uri=row.redirect_uri,
        code_challenge=row.code_challenge,
        expires_at=row.expires_at,
        family_id=row.family_id,
    )
    return code, user


def use_code(connection: Connection, code: CodeRow, family_id: str) -> None:
    """Mark a code exchanged for a family of refresh tokens."""
    connection.execute(
        update(authorization_codes)
        .where(
            authorization_codes.c.team_id == code.team_id, authorization_codes.c.code_hash == code.code_hash
        )
        .values(family_id=family_id)
    )


def end_family_of(connection: Connection, code: CodeRow, now: int) -> None:
    """End the sign-in a code was exchanged for: the code came a second time."""
    if code.family_id is not None:
        revoke_family(connection, code.team_id, code.family_id, now)


def delete_expired(connection: Connection, links_before: int, codes_before: int, limit: int) -> int:
    """Remove links and codes that expired before these times, at most ``limit`` of each; answers how many.

    Codes are kept longer than they are good: a second use must be noticed.
    """
    deleted = 0
    for table, column, before in (
        (password_links, password_links.c.token_hash, links_before),
        (authorization_codes, authorization_codes.c.code_hash, codes_before),
    ):
        expired: Sequence[bytes] = list(
            connection.execute(select(column).where(table.c.expires_at < before).limit(limit)).scalars()
        )
        for token_hash in expired:
            deleted += connection.execute(delete(table).where(column == token_hash)).rowcount
    return deleted
