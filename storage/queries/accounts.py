"""Accounts: what people change about their own, and what is good once for signing in."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from storage.queries.tokens import revoke_family, revoke_refresh_tokens_of_user
from storage.queries.users import UserRow, user_by_id, user_by_username, user_for_update, username_key
from storage.tables import authorization_codes, password_links, users

#: The task that mails a link for choosing a new password; its subject is the user.
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


def set_password(connection: Connection, team_id: int, user_id: str, password_hash: str, now: int) -> None:
    """Give a user a password of its own choice. Every sign-in, link and unused code of the user ends with it:
    whoever chooses a password may do so because somebody else has the old one.
    """
    connection.execute(
        update(users)
        .where(users.c.team_id == team_id, users.c.user_id == user_id)
        .values(password_hash=password_hash, password_expired=False)
    )
    revoke_refresh_tokens_of_user(connection, team_id, user_id, now)
    connection.execute(
        delete(password_links).where(password_links.c.team_id == team_id, password_links.c.user_id == user_id)
    )
    connection.execute(
        delete(authorization_codes).where(
            authorization_codes.c.team_id == team_id,
            authorization_codes.c.user_id == user_id,
            # Exchanged ones stay: whoever uses one again must be noticed.
            authorization_codes.c.family_id.is_(None),
        )
    )


# Finding people


def user_by_oidc_subject(connection: Connection, oidc_subject: str) -> UserRow | None:
    """The user who is ``oidc_subject`` (issuer, blank, subject) at the provider, of whichever team."""
    row = connection.execute(
        select(users.c.team_id, users.c.user_id).where(
            users.c.oidc_subject == oidc_subject, users.c.deleted_at.is_(None)
        )
    ).one_or_none()
    return user_by_id(connection, row.team_id, row.user_id) if row is not None else None


def users_known_as(connection: Connection, text: str, limit: int = 5) -> list[UserRow]:
    """The users whose username or e-mail address is ``text``, whatever the case; of whichever team.

    The one with the username comes first. Several people may share an address.
    """
    key = username_key(text)
    named = user_by_username(connection, key)
    found = [] if named is None else [named]
    # SQLite folds ASCII only; an address beyond that is found as it is spelled.
    by_email = select(users.c.team_id, users.c.user_id).where(
        or_(users.c.email_address == text.strip(), func.lower(users.c.email_address) == key),
        users.c.deleted_at.is_(None),
    )
    for row in connection.execute(by_email.order_by(users.c.user_id).limit(limit)):
        if named is None or row.user_id != named.user_id:
            user = user_by_id(connection, row.team_id, row.user_id)
            found += [user] if user is not None else []
    return found[:limit]


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
    and not the code, because that is what :func:`set_password` holds first.
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
