"""The grants of the token endpoint (RFC 6749): client credentials, password, authorization code, refresh token."""

import asyncio
import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.auth.authority import Authority
from server.auth.passwords import verify_password
from server.auth.policies import scope_segment, scopes_for
from server.auth.signin_limits import SignInLimits
from server.clock import now
from storage.database import Connection, Database
from storage.ids import new_id, new_secret
from storage.queries import accounts, tokens
from storage.queries.clients import ClientRow, client_by_client_id, secret_hashes
from storage.queries.tokens import RefreshRow
from storage.queries.users import (
    UserRow,
    user_as_seen,
    user_by_id,
    user_by_username,
    user_for_update,
    username_key,
)

_MICROSECONDS_PER_DAY = 86_400_000_000
_SECOND = 1_000_000
#: An app exchanges its code at once; RFC 6749, 4.1.2 allows ten minutes at most.
CODE_SECONDS = 60
#: RFC 7636, 4.1.
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


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
                ``account-locked`` and ``password-change-required`` only to those who know the password;
                ``invalid_scope``.
            TooManyAttempts: too many failures.
        """
        user = await self.authenticate(username, password, address)
        if user.password_expired:
            raise _password_expired()
        _check_permissions(wanted.permissions, user.held)
        scopes = _granted_to_user(wanted.scopes, user)
        refresh_token = new_secret()
        signed_in = await self._database.write(
            _sign_in, user, hash_secret(refresh_token), wanted.scopes, now() + self._refresh_lifetime
        )
        if not signed_in:
            raise _locked()
        return await self._granted(user, scopes, refresh_token)

    async def authenticate(self, username: str, password: str, address: str) -> UserRow:
        """The user with this name and password. The password may be good for nothing but choosing another.

        Raises:
            GrantRefused: ``invalid_grant``, the same and after the same time for an unknown account and a
                wrong password; ``account-locked`` only to those who know the password.
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
        return user

    async def new_code(
        self, user: UserRow, scopes: tuple[str, ...], client_id: str, redirect_uri: str, code_challenge: str
    ) -> str:
        """A code with which the app that asked gets its tokens (RFC 6749, section 4.1.2).

        Raises:
            GrantRefused: ``invalid_scope``, or the account was locked or its password changed meanwhile.
        """
        _granted_to_user(scopes, user)
        code = new_secret()
        row = accounts.CodeRow(
            user.team_id,
            hash_secret(code),
            user.user_id,
            scopes,
            client_id,
            redirect_uri,
            code_challenge,
            now() + CODE_SECONDS * _SECOND,
        )
        if not await self._database.write(_insert_code, user, row):
            raise _locked()
        return code

    async def authorization_code(
        self, code: str, client_id: str, redirect_uri: str, code_verifier: str
    ) -> Granted:
        """A token and a refresh token for a code of our sign-in page (RFC 6749, 4.1.3; RFC 7636, 4.5).

        Raises:
            GrantRefused: ``invalid_grant``. A code that comes a second time ends the sign-in that the first
                began: one of the two who had it stole it.
        """
        if not _VERIFIER.fullmatch(code_verifier):
            raise GrantRefused("invalid_request", "code_verifier has 43 to 128 letters, digits and -._~")
        refresh_token = new_secret()
        challenge = pkce_challenge(code_verifier)
        exchanged = await self._database.write(
            _exchange,
            hash_secret(code),
            (client_id, redirect_uri, challenge),
            hash_secret(refresh_token),
            now(),
            now() + self._refresh_lifetime,
        )
        if isinstance(exchanged, GrantRefused):
            raise exchanged
        user, scopes = exchanged
        return await self._granted(user, _granted_to_user(scopes, user), refresh_token)

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
        if current.password_expired:
            raise _password_expired()
        return await self._granted(current, scopes, successor)

    async def _granted(self, user: UserRow, scopes: Sequence[str], refresh_token: str) -> Granted:
        """The pair; ``user`` as it was when the refresh token was written, or earlier."""
        access_token = await asyncio.to_thread(
            self._authority.issue_access_token, user.team_id, user.user_id, "user", scopes, user.sign_ins
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
    """Begin a family, unless the user's sign-ins ended while the password was being checked."""
    if user_as_seen(connection, user) is None:
        return False
    tokens.insert_refresh_token(
        connection, user.team_id, token_hash, new_id(), user.user_id, scopes, expires_at
    )
    return True


def _insert_code(connection: Connection, user: UserRow, code: accounts.CodeRow) -> bool:
    """Keep a code, unless the user's sign-ins ended since it was looked at."""
    if user_as_seen(connection, user) is None:
        return False
    accounts.insert_code(connection, code)
    return True


def _exchange(
    connection: Connection,
    code_hash: bytes,
    asked: tuple[str, str, str],
    token_hash: bytes,
    at: int,
    expires_at: int,
) -> tuple[UserRow, tuple[str, ...]] | GrantRefused:
    """Begin a family for a code. A refusal is answered, not raised: it may have ended the code's family."""
    found = accounts.code_and_user(connection, code_hash)
    if found is None:
        return _not_exchanged()
    code, user = found
    # Compared first: without the verifier nobody can end a sign-in by sending its code.
    proof = "\n".join((code.client_id, code.redirect_uri, code.code_challenge))
    if not hmac.compare_digest(proof.encode(), "\n".join(asked).encode("utf-8", "surrogatepass")):
        return _not_exchanged()
    if code.family_id is not None:
        accounts.end_family_of(connection, code, at)
        return _not_exchanged()
    if code.expires_at <= at:
        return _not_exchanged()
    if user.locked:
        return _locked()
    if user.password_expired:
        return _password_expired()
    try:
        _granted_to_user(code.scopes, user)
    except GrantRefused as refused:
        return refused
    family_id = new_id()
    tokens.insert_refresh_token(
        connection, code.team_id, token_hash, family_id, code.user_id, code.scopes, expires_at
    )
    accounts.use_code(connection, code, family_id)
    return user, code.scopes


def pkce_challenge(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636, 4.2)."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _refresh_token_and_user(connection: Connection, token_hash: bytes) -> tuple[RefreshRow, UserRow] | None:
    row = tokens.refresh_token_by_hash(connection, token_hash)
    user = user_by_id(connection, row.team_id, row.user_id) if row is not None else None
    return (row, user) if row is not None and user is not None else None


def _rotate(
    connection: Connection, row: RefreshRow, successor_hash: bytes, at: int, expires_at: int
) -> UserRow | None:
    """Use up a token and add its successor. The user if that was done, or the user is locked or must choose
    a password; else None.

    The user is held first: a lock that comes at the same moment revokes the successor as well.
    """
    user = user_for_update(connection, row.team_id, row.user_id)
    if user is None or user.locked or user.password_expired:
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


def _password_expired() -> GrantRefused:
    return GrantRefused(
        "invalid_grant",
        "The password was reset and is good for nothing but choosing another: POST /account/password.",
        code="password-change-required",
    )


def _not_exchanged() -> GrantRefused:
    return GrantRefused(
        "invalid_grant", "The code is not valid any more, or not for this client. Sign in again."
    )
