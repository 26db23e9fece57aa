"""Signing in through an OpenID Connect provider, from the sign-in page and back to it.

What must come back stays in a signed cookie of the browser; the server keeps nothing of a sign-in that was
begun.
"""

import hmac
import logging
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency

from server.accounts.authorization import AuthorizationRequest
from server.accounts.provider import Identity, ProviderDown, ProviderWrong
from server.accounts.rendering import message
from server.accounts.shared import Accounts, Browser
from server.accounts.signing_in import opened, welcome
from server.auth.authority import Authority
from server.auth.grants import Grants
from server.auth.policies import PUBLIC
from server.settings import Settings
from storage.database import Connection, Database
from storage.queries import accounts as queries
from storage.queries.users import UserRow

log = logging.getLogger("fieldsync.accounts")

_PUBLIC = {"policy": PUBLIC}
_COOKIE = "fieldsync-journey"
JOURNEY_SECONDS = 900
_TOO_LATE = "This took too long, or was begun in another browser or tab. Go back to your app and sign in."


class Begun(msgspec.Struct):
    """A visit to the provider, as the browser keeps it."""

    request: AuthorizationRequest
    state: str
    nonce: str
    verifier: str


@get(
    "/account/oidc/start",
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="Go to the OpenID Connect provider",
    description="From the button of the sign-in page.",
)
async def start(
    request: Request[Any, Any, Any],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[Any]:
    """Only from a sign-in page of ours that this browser has: other sites cannot begin it."""
    browser, seal = Browser(request, settings), await accounts.seal()
    if accounts.provider is None:
        return _not_set()
    asked = opened(seal, browser, request.query_params.get("request", ""))
    if asked is None:
        return message(400, "Sign in again", _TOO_LATE)
    try:
        journey = await accounts.provider.begin(callback(settings))
    except (ProviderDown, ProviderWrong) as error:
        return _failed(error, settings, asked)
    answer: Response[bytes] = Response(
        b"",
        status_code=303,
        media_type="text/plain",
        headers={
            "Location": journey.address,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        },
    )
    begun = Begun(asked, journey.state, journey.nonce, journey.verifier)
    browser.set_cookie(answer, _COOKIE, seal.close("journey", begun, JOURNEY_SECONDS), JOURNEY_SECONDS)
    return answer


@get(
    "/account/oidc/callback",
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="Come back from the OpenID Connect provider",
)
async def come_back(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[Any]:
    """The provider says who it is; from here on as after a password."""
    browser, seal, query = Browser(request, settings), await accounts.seal(), request.query_params
    provider = accounts.provider
    if provider is None:
        return _not_set()
    begun = seal.open("journey", browser.cookie(_COOKIE) or "", Begun)
    if begun is None or not hmac.compare_digest(query.get("state", "").encode(), begun.state.encode()):
        return message(400, "Sign in again", _TOO_LATE)
    # RFC 9207: where there are several providers, one must not answer for another.
    if query.get("iss", provider.issuer) != provider.issuer:
        answer = _failed(ProviderWrong("another issuer came back"), settings, begun.request)
    elif "code" not in query:
        answer = _message(403, f"{settings.oidc_name} did not sign you in.", begun.request)
    else:
        try:
            identity = await provider.identify(query["code"], callback(settings), begun.nonce, begun.verifier)
        except (ProviderDown, ProviderWrong) as error:
            answer = _failed(error, settings, begun.request)
        else:
            found = await _user_or_reason(database, settings, identity)
            if isinstance(found, str):
                answer = _message(403, found, begun.request)
            else:
                grants = Grants(database, authority, authority.signin_limits, settings.refresh_days)
                answer = await welcome(grants, settings, seal, browser, begun.request, found)
    # Good for one return.
    browser.set_cookie(answer, _COOKIE, "", 0)
    return answer


def callback(settings: Settings) -> str:
    """The address that is registered at the provider."""
    return f"{settings.base_url}/account/oidc/callback"


async def _user_or_reason(database: Database, settings: Settings, identity: Identity) -> UserRow | str:
    """Who this is here, or why nobody is signed in."""
    try:
        # The same person may come in twice at one moment; then the link is seen.
        user = await database.settle(_known_or_linked, identity, settings.oidc_teams)
    except _NoTeamsSet:
        log.warning(
            "somebody from the provider was not looked up by address, as there are several teams: "
            "set FIELDSYNC_OIDC_TEAMS to those whose users sign in there"
        )
        return (
            f"This server has several teams, and does not know whose people sign in with {settings.oidc_name}. "
            "Whoever runs it must set FIELDSYNC_OIDC_TEAMS."
        )
    if user is None:
        return _nobody(identity, settings)
    if user.locked:
        return "The account is locked. An administrator of your team can unlock it."
    return user


class _NoTeamsSet(Exception):
    """Nobody may be linked: with several teams, the administrators of one could give its users the addresses
    of another's people, and so keep these out or let them in as somebody else.
    """


def _known_or_linked(connection: Connection, identity: Identity, teams: Sequence[str]) -> UserRow | None:
    """The user who is this at the provider; else the only one of the teams with the verified address, who is
    from now on.

    Afterwards the subject alone counts: addresses are given to other people.

    Args:
        connection: of the transaction.
        identity: as the provider vouches for it.
        teams: as in the settings.

    Raises:
        _NoTeamsSet: the settings do not say which teams, and there are several.
    """
    user = queries.user_by_oidc_subject(connection, identity.subject)
    if user is not None or identity.email is None:
        return user
    if not teams:
        only = queries.only_team(connection)
        if only is None:
            raise _NoTeamsSet
        teams = (only,)
    known = queries.users_known_as(
        connection, identity.email, teams_named=None if "*" in teams else teams, limit=2
    )
    if len(known) != 1:
        return None
    (user,) = known
    if user.locked:
        return user
    linked = queries.link_oidc_subject(connection, user.team_id, user.user_id, identity.subject)
    return user if linked else None


def _nobody(identity: Identity, settings: Settings) -> str:
    if identity.email is None:
        return f"{settings.oidc_name} does not vouch for an e-mail address of yours, so we cannot tell who you are."
    return (
        f"There is no account for {identity.email} in a team that signs in with {settings.oidc_name}, or more than "
        "one, or it belongs to somebody else there. An administrator of your team can help."
    )


def _message(status: int, text: str, asked: AuthorizationRequest) -> Response[Any]:
    return message(status, "You are not signed in", text, (asked.path, "Back to signing in"))


def _failed(error: Exception, settings: Settings, asked: AuthorizationRequest) -> Response[Any]:
    log.warning("signing in with the provider failed: %s", error)
    if isinstance(error, ProviderDown):
        return _message(503, f"{settings.oidc_name} does not answer now. Try again in a while.", asked)
    return _message(
        502, f"The answer of {settings.oidc_name} cannot be trusted. An administrator can help.", asked
    )


def _not_set() -> Response[Any]:
    return message(404, "Not here", "This server has no other way to sign in than a password.")
