"""The grants of the token endpoint (RFC 6749): client credentials, password, refresh token."""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.auth.authority import Authority
from server.auth.passwords import verify_password
from server.auth.policies import scope_segment, scopes_for
from server.auth.signin_limits import SignInLimits
from server.clock import now
from storage.database import Connection, Database
from storage.ids import new_id, new_secret
from storage.queries import tokens
from storage.queries.clients import ClientRow, client_by_client_id, secret_hashes
from storage.queries.tokens import RefreshRow
from storage.queries.users import UserRow, user_by_id, user_by_username, user_for_update, username_key

_MICROSECONDS_PER_DAY = 86_400_000_000


@dataclass
class GrantRefused(Exception):
    """A refusal in the terms of RFC 6749, section 5.2.

    Attributes:
        error: the code of the RFC.
        description: for a person, in ASCII without quotes (the RFC's character set).
        code: our own finer code, if there is one.
    """

    error: str
    description: str
    code: str = ""
    status: int = 400
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Granted:
    """What was granted: an access token, and for people the means to refresh it."""

    access_token: str
    refresh_token: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for beyond a token: nothing means everything it may have.

    Attributes:
        scopes: in any spelling of the document.
        permissions: upper case. They stay with the subject (section 2.2.2), so asking for them grants
            nothing; asking for one that is not there is refused all the same.
    """

    scopes: tuple[str, ...]
    permissions: tuple[str, ...]


class Grants:
    """Answers the grants of one process.

    Args:
        database: where accounts and refresh tokens are.
        authority: signs the access tokens.
        limits: how often signing in may fail.
        refresh_days: lifetime of a refresh token; each use starts it anew.
    """

    def __init__(
        self, database: Database, authority: Authority, limits: SignInLimits, refresh_days: int
    ) -> None:
        self._database = database
        self._authority = authority
        self._limits = limits
        self._refresh_lifetime = refresh_days * _MICROSECONDS_PER_DAY

    async def client_credentials(
        self, client_id: str, client_secret: str, wanted: Wanted, address: str
    ) -> Granted:
        """A token for a machine (RFC 6749, section 4.4).

        Raises:
            GrantRefused: ``invalid_client`` (unknown, revoked or another secret) or ``invalid_scope``.
            TooManyAttempts: too many failures. They count per client and address together: with a secret
                that nobody can guess, an outsider must not be able to stop an integration by failing.
        """
        with self._limits.attempt(f"client {client_id} {address}", address, guessable=False) as attempt:
            client = await self._database.read(_authenticated_client, client_id, hash_secret(client_secret))
            if client is None:
                attempt.failed = True
                raise GrantRefused("invalid_client", "The client or its secret is not known.", status=401)
        _check_permissions(wanted.permissions, client.permissions)
        scopes = _granted(wanted.scopes, client.scopes)
        # Signing takes a millisecond: too long for everyone else on the loop when many ask at once.
        return Granted(
            await asyncio.to_thread(
                self._authority.issue_access_token, client.team_id, client.client_id, "client", scopes
            )
        )

    async def password(self, username: str, password: str, wanted: Wanted, address: str) -> Granted:
        """A token and a refresh token for a person (RFC 6749, section 4.3).

        Raises:
            GrantRefused: ``invalid_grant``, the same for an unknown account and a wrong password;
                ``account-locked`` only to those who know the password; ``invalid_scope``.
            TooManyAttempts: too many failures.
        """
        key = username_key(username)
        with self._limits.attempt(f"user {key}", address) as attempt:
            user = await self._database.read(user_by_username, key)
            matches = await verify_password(user.password_hash if user is not None else None, password)
            if user is None or not matches:
                attempt.failed = True
                raise GrantRefused("invalid_grant", "The username or the password is wrong.")
        if user.locked:
            raise _locked()
        _check_permissions(wanted.permissions, user.held)
        scopes = _granted_to_user(wanted.scopes, user)
        refresh_token = new_secret()
        signed_in = await self._database.write(
            _sign_in, user, hash_secret(refresh_token), wanted.scopes, now() + self._refresh_lifetime
        )
        if not signed_in:
            raise _locked()
        return await self._granted(user, scopes, refresh_token)

    async def refresh(self, refresh_token: str, wanted: Wanted) -> Granted:
        """A new pair for a refresh token, which is used up (RFC 9700, section 4.14.2).

        Raises:
            GrantRefused: ``invalid_grant``; if the token was used before, the whole family is revoked,
                because either the thief or the owner has used it. ``invalid_scope`` does not use it up.
        """
        token_hash = hash_secret(refresh_token)
        found = await self._database.read(_refresh_token_and_user, token_hash)
        if found is None:
            raise _not_refreshed()
        row, user = found
        scopes: Sequence[str] = ()
        if not (row.used or row.revoked):
            _check_permissions(wanted.permissions, user.held)
            scopes = (
                _granted(wanted.scopes, row.scopes) if row.scopes else _granted_to_user(wanted.scopes, user)
            )
        successor = new_secret()
        current = await self._database.write(
            _rotate, row, hash_secret(successor), now(), now() + self._refresh_lifetime
        )
        if current is None:
            raise _not_refreshed()
        if current.locked:
            raise _locked()
        return await self._granted(current, scopes, successor)

    async def _granted(self, user: UserRow, scopes: Sequence[str], refresh_token: str) -> Granted:
        access_token = await asyncio.to_thread(
            self._authority.issue_access_token, user.team_id, user.user_id, "user", scopes
        )
        return Granted(access_token, refresh_token)


def hash_secret(secret: str) -> bytes:
    """What is stored of a generated secret: with 256 random bits there is nothing to slow down."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _authenticated_client(connection: Connection, client_id: str, secret_hash: bytes) -> ClientRow | None:
    client = client_by_client_id(connection, client_id)
    if client is None or client.revoked:
        return None
    hashes = secret_hashes(connection, client.team_id, client_id)
    # Every one is compared, so that the time does not tell which one came close.
    matches = [hmac.compare_digest(stored, secret_hash) for stored in hashes]
    return client if any(matches) else None


def _sign_in(
    connection: Connection, user: UserRow, token_hash: bytes, scopes: tuple[str, ...], expires_at: int
) -> bool:
    """Begin a family, unless the user was locked while the password was being checked."""
    current = user_for_update(connection, user.team_id, user.user_id)
    if current is None or current.locked or current.password_hash != user.password_hash:
        return False
    tokens.insert_refresh_token(
        connection, user.team_id, token_hash, new_id(), user.user_id, scopes, expires_at
    )
    return True


def _refresh_token_and_user(connection: Connection, token_hash: bytes) -> tuple[RefreshRow, UserRow] | None:
    row = tokens.refresh_token_by_hash(connection, token_hash)
    user = user_by_id(connection, row.team_id, row.user_id) if row is not None else None
    return (row, user) if row is not None and user is not None else None


def _rotate(
    connection: Connection, row: RefreshRow, successor_hash: bytes, at: int, expires_at: int
) -> UserRow | None:
    """Use up a token and add its successor. The user if that was done or the user is locked; else None.

    The user is held first: a lock that comes at the same moment revokes the successor as well.
    """
    user = user_for_update(connection, row.team_id, row.user_id)
    if user is None or user.locked:
        return user
    if tokens.use_refresh_token(connection, row.team_id, row.token_hash, at):
        tokens.insert_refresh_token(
            connection, row.team_id, successor_hash, row.family_id, row.user_id, row.scopes, expires_at
        )
        return user
    current = tokens.refresh_token_by_hash(connection, row.token_hash)
    if current is not None and current.used:
        tokens.revoke_family(connection, row.team_id, row.family_id, at)
    return None


def _granted(wanted: Sequence[str], held: Sequence[str]) -> Sequence[str]:
    """The held scopes that were asked for, spelled as they are held; all of them if none was."""
    if not wanted:
        return held
    segments = {scope_segment(scope) for scope in wanted}
    _refuse_scopes(segments - {scope_segment(scope) for scope in held})
    return [scope for scope in held if scope_segment(scope) in segments]


def _granted_to_user(wanted: Sequence[str], user: UserRow) -> Sequence[str]:
    """The scopes asked for, spelled as asked; if none was, every one the permissions can use."""
    held = scopes_for(user.held)
    if not wanted:
        return sorted(held)
    _refuse_scopes({scope_segment(scope) for scope in wanted} - held)
    return wanted


def _refuse_scopes(missing: set[str]) -> None:
    if missing:
        # Not echoed: what was asked for may hold any character.
        raise GrantRefused("invalid_scope", "A scope was asked for that this account does not have.")


def _check_permissions(wanted: Sequence[str], held: Sequence[str] | frozenset[str]) -> None:
    if not set(wanted) <= {permission.upper() for permission in held}:
        raise GrantRefused("invalid_scope", "A permission was asked for that this account does not have.")


def _locked() -> GrantRefused:
    return GrantRefused(
        "invalid_grant", "The account is locked. An administrator can unlock it.", code="account-locked"
    )


def _not_refreshed() -> GrantRefused:
    return GrantRefused("invalid_grant", "The refresh token is not valid any more. Sign in again.")
