"""What the routes of accounts share: one object per process, and how they know browsers."""

import hashlib
import hmac
import re
from typing import Any
from urllib.parse import urlsplit

from litestar import Request, Response

from server.accounts.provider import Provider
from server.accounts.sealing import Seal
from server.auth.addresses import address_group, client_address
from server.auth.grants import GrantRefused
from server.auth.signin_limits import SignInLimits, TooManyAttempts
from server.clock import now
from server.errors import Problem
from server.settings import Settings
from storage.database import Database
from storage.ids import new_secret
from storage.queries.secrets import shared_secret

_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")
_DAY = 86_400


class Accounts:
    """What lives as long as the process.

    Attributes:
        provider: the OpenID Connect provider of the settings, if there is one.
        link_limits: how often links may be asked for. Apart from the limits of signing in: who asks for a
            link has not failed at anything, and must not use up the attempts of a whole depot.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._database = database
        self._seal: Seal | None = None
        self.provider = Provider(settings) if settings.oidc_issuer else None
        self.link_limits = SignInLimits()

    async def seal(self) -> Seal:
        """Signs what travels through browsers."""
        if self._seal is None:
            self._seal = Seal(await self._database.write(shared_secret, "accounts", now()))
        return self._seal


class Browser:
    """The browser of a request, known by a cookie that says nothing about the person.

    A form is taken only from the browser it was given to, so that no other site can send it.
    """

    def __init__(self, request: Request[Any, Any, Any], settings: Settings) -> None:
        self._secure = urlsplit(settings.base_url).scheme == "https"
        # With this prefix no neighbouring host name can have set it (RFC 6265bis, 4.1.3.2).
        self._prefix = "__Host-" if self._secure else ""
        self._cookies = request.cookies
        sent = self.cookie("fieldsync-browser")
        self._secret = sent if sent and _BROWSER.fullmatch(sent) else new_secret()

    @property
    def mark(self) -> str:
        """What a sealed value says of its browser."""
        return hashlib.sha256(self._secret.encode()).hexdigest()

    def is_marked(self, mark: str) -> bool:
        """Whether a sealed value was given to this browser."""
        return hmac.compare_digest(mark, self.mark)

    def remember(self, answer: Response[Any]) -> Response[Any]:
        """``answer`` with the cookie."""
        self.set_cookie(answer, "fieldsync-browser", self._secret, _DAY)
        return answer

    def cookie(self, name: str) -> str | None:
        """A cookie of ours."""
        return self._cookies.get(self._prefix + name)

    def set_cookie(self, answer: Response[Any], name: str, value: str, seconds: int) -> None:
        """Let the browser keep ``value``; not for scripts, nor for requests that other sites make. Lax and
        not Strict: an app opens our page, and a provider leads back to it, by a link from another site.
        """
        answer.set_cookie(
            key=self._prefix + name,
            value=value,
            max_age=seconds,
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="lax",
        )


def address_of(request: Request[Any, Any, Any], settings: Settings) -> str:
    """What to count a request's attempts by."""
    return address_group(client_address(request.scope, settings.trusted_proxies))


def too_many(limit: TooManyAttempts) -> Problem:
    """The refusal after too many attempts."""
    return Problem(
        429,
        "too-many-attempts",
        f"Too many attempts. The next one may come in {limit.retry_after} s.",
        headers={"Retry-After": str(limit.retry_after)},
    )


def refused(refusal: GrantRefused) -> Problem:
    """A refused sign-in outside the token endpoint. Not 401, which needs a scheme to authenticate with."""
    return Problem(403, refusal.code or "wrong-password", refusal.description)
