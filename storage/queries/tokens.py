"""What the token issuer keeps: signing keys, and refresh tokens by family."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from storage.queries.statements import padded
from storage.tables import refresh_tokens, signing_keys


@dataclass(frozen=True, slots=True)
class RefreshRow:
    """A refresh token as stored: its hash, never the token. No ``scopes``: whatever the permissions allow."""

    team_id: int
    token_hash: bytes
    family_id: str
    user_id: str
    scopes: tuple[str, ...]
    expires_at: int
    used: bool
    revoked: bool


def refresh_token_by_hash(connection: Connection, token_hash: bytes) -> RefreshRow | None:
    """The refresh token of whichever team; used, revoked and expired ones included."""
    row = connection.execute(
        select(refresh_tokens).where(refresh_tokens.c.token_hash == token_hash)
    ).one_or_none()
    return _refresh_token(row) if row is not None else None


def insert_refresh_token(
    connection: Connection,
    team_id: int,
    token_hash: bytes,
    family_id: str,
    user_id: str,
    scopes: tuple[str, ...],
    expires_at: int,
) -> None:
    """Add a refresh token to a family; a new family begins with its first token."""
    connection.execute(
        insert(refresh_tokens).values(
            team_id=team_id,
            token_hash=token_hash,
            family_id=family_id,
            user_id=user_id,
            scopes=" ".join(scopes),
            expires_at=expires_at,
        )
    )


def use_refresh_token(connection: Connection, team_id: int, token_hash: bytes, now: int) -> bool:
    """Mark a live token used; whether it was live. Of two at once exactly one is told so."""
    result = connection.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.team_id == team_id,
            refresh_tokens.c.token_hash == token_hash,
            refresh_tokens.c.used_at.is_(None),
            refresh_tokens.c.revoked_at.is_(None),
            refresh_tokens.c.expires_at > now,
        )
        .values(used_at=now)
    )
    return result.rowcount == 1


def revoke_family(connection: Connection, team_id: int, family_id: str, now: int) -> None:
    """End one sign-in: none of its tokens refreshes any more."""
    connection.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.team_id == team_id,
            refresh_tokens.c.family_id == family_id,
            refresh_tokens.c.revoked_at.is_(None),
        )
        .values(revoked_at=now)
    )


def revoke_refresh_tokens_of_user(connection: Connection, team_id: int, user_id: str, now: int) -> None:
    """End every sign-in of a user."""
    connection.execute(
        update(refresh_tokens)
        .where(
            refresh_tokens.c.team_id == team_id,
            refresh_tokens.c.user_id == user_id,
            refresh_tokens.c.revoked_at.is_(None),
        )
        .values(revoked_at=now)
    )


def expired_refresh_tokens(connection: Connection, before: int, limit: int) -> list[tuple[int, bytes]]:
    """(team, token hash) of tokens that expired before that time."""
    query = (
        select(refresh_tokens.c.team_id, refresh_tokens.c.token_hash)
        .where(refresh_tokens.c.expires_at < before)
        .limit(limit)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]


def forget_refresh_tokens(connection: Connection, tokens: Sequence[tuple[int, bytes]]) -> int:
    """Remove tokens; answers how many."""
    forgotten = 0
    # Team by team: a list of (team, hash) would make SQLite read the whole table.
    for team_id, group in groupby(sorted(tokens), key=itemgetter(0)):
        hashes = padded([token_hash for _, token_hash in group])
        result = connection.execute(
            delete(refresh_tokens).where(
                refresh_tokens.c.team_id == team_id, refresh_tokens.c.token_hash.in_(hashes)
            )
        )
        forgotten += result.rowcount
    return forgotten


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """A signing key of the installation."""

    kid: str
    private_pem: bytes
    created_at: int


def all_signing_keys(connection: Connection) -> list[SigningKeyRow]:
    """Every key tokens may have been signed with, the one to sign with first."""
    rows = connection.execute(
        select(signing_keys.c.kid, signing_keys.c.private_pem, signing_keys.c.created_at).order_by(
            signing_keys.c.created_at.desc(), signing_keys.c.kid
        )
    )
    return [SigningKeyRow(*row) for row in rows]


def insert_signing_key(connection: Connection, kid: str, private_pem: bytes, now: int) -> None:
    """Add a key; being the newest, every process signs with it once it has read it."""
    connection.execute(insert(signing_keys).values(kid=kid, private_pem=private_pem, created_at=now))


def _refresh_token(row: Any) -> RefreshRow:
    return RefreshRow(
        team_id=row.team_id,
        token_hash=row.token_hash,
        family_id=row.family_id,
        user_id=row.user_id,
        scopes=tuple(row.scopes.split()),
        expires_at=row.expires_at,
        used=row.used_at is not None,
        revoked=row.revoked_at is not None,
    )
