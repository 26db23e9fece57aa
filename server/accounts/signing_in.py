"""The sign-in page: apps send people here and get a code for their tokens back."""

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency

from server.accounts import authorization
from server.accounts.authorization import AuthorizationRequest, finish
from server.accounts.passwords import ask_for_new_password
from server.accounts.rendering import message, page
from server.accounts.sealing import Seal
from server.accounts.shared import Accounts, Browser, address_of, too_many
from server.auth.authority import Authority
from server.auth.forms import form_of
from server.auth.grants import GrantRefused, Grants
from server.auth.policies import PUBLIC
from server.auth.signin_limits import TooManyAttempts
from server.settings import Settings
from storage.database import Database
from storage.queries.users import UserRow

_PUBLIC = {"policy": PUBLIC}
#: How long somebody may take to sign in.
PAGE_SECONDS = 1_800
_TOO_LATE = (
    "This page has been open too long, or was opened in another browser. Go back to your app and sign in."
)


class Page(msgspec.Struct):
    """A sign-in page that was given to a browser."""

    request: AuthorizationRequest
    browser: str


@get(
    "/connect/authorize",
    opt=_PUBLIC,
    tags=["Authentication"],
    summary="The sign-in page",
    description="RFC 6749, section 4.1.1, with PKCE (S256). Leads back to redirect_uri with code, state and iss.",
)
async def sign_in_page(
    request: Request[Any, Any, Any],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[Any]:
    """Nobody stays signed in here: every app asks for the password, or the provider's word."""
    try:
        asked = authorization.parse(request, settings)
    except authorization.BadRequest as error:
        return message(400, "This app cannot sign you in", str(error))
    except authorization.Answered as refused:
        return refused.answer
    browser = Browser(request, settings)
    sealed = (await accounts.seal()).close("page", Page(asked, browser.mark), PAGE_SECONDS)
    return browser.remember(_page(200, asked, sealed, settings))


@post(
    "/connect/authorize",
    status_code=200,
    opt=_PUBLIC,
    tags=["Authentication"],
    summary="Sign in on the page",
)
async def sign_in(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[Any]:
    """What the page's form sends."""
    form, browser, seal = await form_of(request), Browser(request, settings), await accounts.seal()
    asked = opened(seal, browser, form.get("request", ""))
    if asked is None:
        return message(400, "Sign in again", _TOO_LATE)
    grants = Grants(database, authority, authority.signin_limits, settings.refresh_days)
    username = form.get("username", "")
    try:
        user = await grants.authenticate(username, form.get("password", ""), address_of(request, settings))
    except GrantRefused as refusal:
        return _page(403, asked, form["request"], settings, refusal.description, username)
    except TooManyAttempts as limit:
        problem = too_many(limit)
        shown = _page(429, asked, form["request"], settings, problem.detail, username)
        shown.headers.update(problem.headers)
        return shown
    return await welcome(grants, settings, seal, browser, asked, user)


def opened(seal: Seal, browser: Browser, sealed: str) -> AuthorizationRequest | None:
    """The request of a page, if the page was given to this browser and its time is not over."""
    given = seal.open("page", sealed, Page)
    return given.request if given is not None and browser.is_marked(given.browser) else None


async def welcome(
    grants: Grants,
    settings: Settings,
    seal: Seal,
    browser: Browser,
    asked: AuthorizationRequest,
    user: UserRow,
) -> Response[Any]:
    """Somebody has shown who they are: back to the app, or first to another password."""
    if user.password_expired:
        return ask_for_new_password(seal, browser, user, asked)
    return await finish(grants, settings, asked, user)


def _page(
    status: int,
    asked: AuthorizationRequest,
    sealed: str,
    settings: Settings,
    error: str | None = None,
    username: str = "",
) -> Response[str]:
    return page(
        "sign_in",
        status,
        leads_to=asked.redirect_uri,
        client_id=asked.client_id,
        request=sealed,
        provider=settings.oidc_name if settings.oidc_issuer else "",
        error=error,
        username=username,
    )
