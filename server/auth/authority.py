"""The authority: issues access tokens, verifies them, and stands before every route.

Tokens are JWTs (RFC 9068 in spirit) signed with RS256. A verified token is remembered, so that a request
with a known one costs a few dictionary look-ups; its subject's state is never older than two seconds.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jwt
from litestar.connection import ASGIConnection, Request
from litestar.handlers import BaseRouteHandler

from server.auth.keys import SigningKeys
from server.auth.policies import ANY_TOKEN, PUBLIC, allows, needed, scope_segment
from server.auth.principal import Kind, Principal
from server.auth.signin_limits import SignInLimits
from server.auth.subjects import Account, Subject, Subjects
from server.errors import Problem
from server.settings import Settings
from storage.database import Database

AUDIENCE = "fieldsync"
_ALGORITHM = "RS256"
#: Option of routes that take a query key in place of a token: whoever gives one passes the guard, and the route looks
#: at it (server/query/access.py).
OR_KEY = "or_key"
_REQUIRED = ["exp", "iat", "iss", "aud", "sub"]
#: The claim with the number of the user's ended sign-ins. Clients' tokens, and older ones, have none.
_SIGN_INS = "sgn"
#: Verified tokens remembered; beyond it the longest known is verified again when it returns.
_MAX_VERIFIED = 10_000
#: Ours take about 1 KB, 2 KB with every scope in URL form. Headers reach us up to the server's own limit.
_MAX_TOKEN_BYTES = 16_384


class _Verified:
    """A token whose signature and claims are good until ``expires_at``.

    ``principal`` was made from ``account`` and holds as long as that is the subject's current one.
    ``sign_ins`` is the number it was issued under (see :class:`~server.auth.subjects.Account`).
    """

    __slots__ = ("account", "expires_at", "principal", "scopes", "sign_ins", "subject", "team_id")

    def __init__(
        self, subject: Subject, team_id: int, scopes: frozenset[str], expires_at: float, sign_ins: int
    ) -> None:
        self.subject = subject
        self.team_id = team_id
        self.scopes = scopes
        self.expires_at = expires_at
        self.sign_ins = sign_ins
        self.account: Account | None = None
        self.principal: Principal | None = None


class Authority:
    """The token issuer and guard of one process."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monotonic = monotonic
        self._subjects = Subjects(database, monotonic)
        self._verified: dict[bytes, _Verified] = {}
        self.keys = SigningKeys(database, monotonic)
        #: Here because it lives as long: one for all requests of the process.
        self.signin_limits = SignInLimits(monotonic)

    async def start(self) -> None:
        """Load the signing keys, making the first one in a new installation."""
        await self.keys.start()

    def forget(self, subject_id: str) -> None:
        """Let a change to a user or client take effect with its next request to this process."""
        self._subjects.forget(subject_id)

    def issue_access_token(
        self, team_id: int, subject_id: str, kind: Kind, scopes: Sequence[str], sign_ins: int = 0
    ) -> str:
        """A signed token for the subject, valid from now for the time of the settings.

        Args:
            team_id: the subject's team.
            subject_id: the user's or the client's id.
            kind: a client's token also has the claim ``client_id``.
            scopes: as granted; an array in the token, as in the example of section 2.3.4.
            sign_ins: a user's number when it was decided that there is a token, or earlier: what ends all
                sign-ins after that ends this token too.
        """
        issued_at = int(self._clock())
        claims: dict[str, Any] = {
            "iss": self._settings.base_url,
            "aud": AUDIENCE,
            "sub": subject_id,
            "team_id": team_id,
            "scope": list(scopes),
            "iat": issued_at,
            "exp": issued_at + self._settings.token_seconds,
            "jti": secrets.token_hex(16),
        }
        if kind == "client":
            claims["client_id"] = subject_id
        else:
            claims[_SIGN_INS] = sign_ins
        kid, key = self.keys.signing
        return jwt.encode(claims, key, algorithm=_ALGORITHM, headers={"kid": kid})

    async def verify(self, token: str) -> Principal:
        """The caller that ``token`` stands for.

        Raises:
            Problem: 401 ``token-invalid``, ``token-expired``, ``account-locked`` or
                ``password-change-required``.
            storage.database.Unavailable: the subject's state cannot be read.
        """
        return await self._principal(token.encode("utf-8", "surrogatepass"))

    async def authorize(
        self, connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
    ) -> None:
        """The guard of every route: who is it, and may they?

        The route's ``policy`` is a name of :data:`~server.auth.policies.POLICIES`, ``ANY_TOKEN`` or
        ``PUBLIC``. The caller becomes ``request.user``; one who gives a query key to a route with :data:`OR_KEY` has
        no user.

        Raises:
            Problem: 401 without a good token, 403 without a scope or permission of the policy.
            RuntimeError: the route has no policy; none is open by omission.
        """
        policy = handler.opt.get("policy")
        if policy == PUBLIC:
            return
        scope = connection.scope
        if policy is None:
            # The framework's own answer to OPTIONS names the methods and no more.
            if isinstance(connection, Request) and connection.method == "OPTIONS":
                return
            raise RuntimeError(f"the route {handler.handler_name} has no policy")
        or_key = bool(handler.opt.get(OR_KEY))
        if or_key and connection.query_params.get("key"):
            return
        scope["user"] = await self.admit(scope["headers"], policy, or_key)

    async def admit(
        self, headers: Iterable[tuple[bytes, bytes]], policy: str, or_key: bool = False
    ) -> Principal:
        """The caller of a request with these headers, if ``policy`` (or any valid token) lets it in.

        Args:
            or_key: a query key would have done as well, and whoever sends neither is told so.

        Raises:
            Problem: as :meth:`authorize`.
        """
        token = _bearer_token(headers)
        if token is None:
            raise _missing(or_key)
        known = self._verified.get(token)
        if (
            known is not None
            and known.principal is not None
            and known.account is known.subject.account
            and known.subject.fresh_until > self._monotonic()
            and known.expires_at > self._clock()
        ):
            principal = known.principal
        else:
            principal = await self._principal(token)
        if policy != ANY_TOKEN and not allows(policy, principal.scopes, principal.permissions):
            raise _forbidden(policy, principal)
        return principal

    async def _principal(self, token: bytes) -> Principal:
        verified = self._verified.get(token)
        if verified is None:
            verified = await self._verify_signature(token)
        elif verified.expires_at <= self._clock():
            del self._verified[token]
            raise _expired()
        subject = verified.subject
        await self._subjects.refresh(subject)
        if subject.account is not None and subject.account.sign_ins < verified.sign_ins:
            # The number never falls: what we know of the user is older than the token. Another process has
            # just let them sign in again.
            self._subjects.forget(subject.subject_id)
            await self._subjects.refresh(subject)
        account = subject.account
        if account is None or account.team_id != verified.team_id:
            raise _unauthorized("token-invalid", "The account of this token does not exist any more.")
        if not account.active:
            raise _unauthorized(
                "account-locked", "The account is locked or revoked. An administrator can help."
            )
        if account.password_expired:
            raise _unauthorized(
                "password-change-required", "The password was reset. Choose another and sign in again."
            )
        if account.sign_ins != verified.sign_ins:
            raise _unauthorized("token-invalid", "This sign-in has ended: signed out. Sign in again.")
        if verified.principal is None or verified.account is not account:
            verified.account = account
            verified.principal = Principal(
                team_id=account.team_id,
                team_name=account.team_name,
                subject_id=subject.subject_id,
                kind=subject.kind,
                username=account.username,
                permissions=account.permissions,
                scopes=verified.scopes,
                group_ids=account.group_ids,
            )
        self._remember(token, verified)
        return verified.principal

    def _remember(self, token: bytes, verified: _Verified) -> None:
        if token not in self._verified and len(self._verified) >= _MAX_VERIFIED:
            del self._verified[next(iter(self._verified))]
        self._verified[token] = verified

    async def _verify_signature(self, token: bytes) -> _Verified:
        """Check a token that was not seen before (RFC 8725, section 3).

        The key is found by its id among our own. Headers that carry or point to a key (``jwk``, ``jku``,
        ``x5u``) are never looked at, and no algorithm but ours is tried.
        """
        if len(token) > _MAX_TOKEN_BYTES:
            raise _invalid()
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self.keys.public_key(kid) if isinstance(kid, str) else None
            if key is None:
                raise _invalid()
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                issuer=self._settings.base_url,
                # iat must be there but may lie ahead: the clocks of two servers differ a little.
                options={"require": _REQUIRED, "verify_iat": False},
            )
        except jwt.ExpiredSignatureError:
            raise _expired() from None
        # Parsing what anybody may send: deep nesting and numbers without end are refusals, not errors.
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise _invalid() from None
        subject_id, team_id, scopes = claims["sub"], claims.get("team_id"), claims.get("scope")
        sign_ins = claims.get(_SIGN_INS, 0)
        if not (isinstance(team_id, int) and isinstance(scopes, list) and isinstance(sign_ins, int)):
            raise _invalid()
        kind: Kind = "client" if claims.get("client_id") == subject_id else "user"
        return _Verified(
            self._subjects.get(kind, subject_id),
            team_id,
            frozenset(map(scope_segment, scopes)),
            claims["exp"],
            sign_ins,
        )


def _bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The token of the Authorization header (RFC 6750, section 2.1), the only place it is taken from."""
    for name, value in headers:
        if name == b"authorization":
            return value[7:].strip() if value[:7].lower() == b"bearer " else None
    return None


def _missing(or_key: bool) -> Problem:
    needs = "a query key as ?key=, or a header" if or_key else "a header"
    # No error code where no token was sent: RFC 6750, section 3.1.
    return Problem(
        401,
        "token-missing",
        f"This needs {needs} Authorization: Bearer with an access token of /connect/token.",
        headers={"WWW-Authenticate": 'Bearer realm="fieldsync"'},
    )


def _unauthorized(code: str, detail: str) -> Problem:
    challenge = f'Bearer realm="fieldsync", error="invalid_token", error_description="{detail}"'
    return Problem(401, code, detail, headers={"WWW-Authenticate": challenge})


def _invalid() -> Problem:
    # One answer for every reason: which check failed helps nobody but a forger.
    return _unauthorized("token-invalid", "The access token is not one of ours.")


def _expired() -> Problem:
    return _unauthorized("token-expired", "The access token has expired. Refresh it or sign in again.")


def _forbidden(policy: str, principal: Principal) -> Problem:
    scopes, permissions = needed(policy)
    if scopes.isdisjoint(principal.scopes):
        names = " ".join(sorted(scopes))
        challenge = f'Bearer realm="fieldsync", error="insufficient_scope", scope="{names}"'
        return Problem(
            403,
            "insufficient-scope",
            f"Policy {policy} takes a token with one of these scopes: {names}.",
            headers={"WWW-Authenticate": challenge},
            extra={"policy": policy, "scopes": sorted(scopes)},
        )
    names = " ".join(sorted(permissions))
    return Problem(
        403,
        "insufficient-permission",
        f"Policy {policy} takes one of these permissions: {names}.",
        extra={"policy": policy, "permissions": sorted(permissions)},
    )
