"""What an app asks our sign-in page for, and what it is answered (RFC 6749, 4.1; RFC 7636; RFC 9207)."""

import re
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
from litestar import Request, Response

from server.accounts.rendering import message
from server.auth.grants import GrantRefused, Grants
from server.auth.policies import SCOPES, scope_segment
from server.settings import Settings
from storage.queries.users import UserRow

#: Sealed values of a request travel in addresses and cookies, which have room for about 4,000 characters.
_MAX = {"redirect_uri": 400, "state": 600, "scope": 1_000, "client_id": 100}
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
#: An app on the person's own machine, on whatever port it got (RFC 8252, 7.3).
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?/")
#: What an address consists of; also no blank, quote or backslash.
_ADDRESS = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """A request that may be answered to ``redirect_uri``."""

    client_id: str
    redirect_uri: str
    state: str | None
    scopes: tuple[str, ...]
    code_challenge: str

    @property
    def path(self) -> str:
        """The address of our page that asks the same again."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": self.code_challenge,
            "code_challenge_method": "S256",
        }
        if self.state is not None:
            query["state"] = self.state
        if self.scopes:
            query["scope"] = " ".join(self.scopes)
        return f"/connect/authorize?{urlencode(query)}"


class BadRequest(Exception):
    """A request that cannot be answered to anybody: the page says why."""


class Answered(Exception):
    """A request that is refused to the app that asked."""

    def __init__(self, answer: Response[bytes]) -> None:
        self.answer = answer


def parse(request: Request[Any, Any, Any], settings: Settings) -> AuthorizationRequest:
    """The request of a query.

    Raises:
        BadRequest: it does not say where to answer to, or to an address that may not have it. Never a
            redirect: that would lead people from our host to whatever an attacker likes.
        Answered: everything else that is wrong with it.
    """
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in query:
            raise BadRequest(
                f"The parameter {name} was sent twice." if name in _MAX else "A parameter came twice."
            )
        query[name] = value
    client_id, redirect_uri = query.get("client_id", ""), query.get("redirect_uri", "")
    if not 0 < len(client_id) <= _MAX["client_id"] or not client_id.isprintable():
        raise BadRequest("The app must give its name as client_id, with at most 100 characters.")
    if not may_redirect_to(redirect_uri, settings):
        raise BadRequest(
            "The app wants the answer at an address that is not allowed. An administrator of this server can "
            "add it to FIELDSYNC_REDIRECT_URIS."
        )
    state = query.get("state")
    if state is not None and len(state) > _MAX["state"]:
        raise BadRequest(f"The state must not be longer than {_MAX['state']} characters.")

    def refuse(error: str, description: str) -> Answered:
        return Answered(redirect(settings, redirect_uri, state, error=error, error_description=description))

    if "response_type" not in query:
        raise refuse("invalid_request", "response_type is missing.")
    if query["response_type"] != "code":
        raise refuse("unsupported_response_type", "response_type is code.")
    if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(
        query.get("code_challenge", "")
    ):
        raise refuse("invalid_request", "PKCE is needed: code_challenge, with code_challenge_method S256.")
    scope = query.get("scope", "")
    if len(scope) > _MAX["scope"] or not {scope_segment(one) for one in scope.split()} <= SCOPES:
        raise refuse("invalid_scope", "A scope was asked for that does not exist.")
    return AuthorizationRequest(client_id, redirect_uri, state, tuple(scope.split()), query["code_challenge"])


def may_redirect_to(address: str, settings: Settings) -> bool:
    """Whether people may be sent there with a code: to what the settings list, to this server, to an app on
    their own machine.
    """
    if address in settings.redirect_uris:
        return True
    if len(address) > _MAX["redirect_uri"] or not _ADDRESS.fullmatch(address):
        return False
    base = urlsplit(settings.base_url)
    # With the slash, so that the host cannot go on behind what we compare.
    return address.startswith(f"{base.scheme}://{base.netloc}/") or _LOOPBACK.match(address) is not None


async def finish(
    grants: Grants, settings: Settings, request: AuthorizationRequest, user: UserRow
) -> Response[Any]:
    """Send the person back to the app with a code."""
    try:
        code = await grants.new_code(
            user, request.scopes, request.client_id, request.redirect_uri, request.code_challenge
        )
    except GrantRefused as refusal:
        if refusal.error == "invalid_scope":
            return redirect(
                settings,
                request.redirect_uri,
                request.state,
                error=refusal.error,
                error_description=refusal.description,
            )
        return message(403, "You cannot sign in", refusal.description)
    return redirect(settings, request.redirect_uri, request.state, code=code)


def redirect(settings: Settings, redirect_uri: str, state: str | None, **members: str) -> Response[bytes]:
    """The answer to an app: through the browser, with its ``state`` and who we are (RFC 9207)."""
    if state is not None:
        members["state"] = state
    query = urlencode({**members, "iss": settings.base_url})
    return Response(
        b"",
        status_code=303,
        media_type="text/plain",
        headers={
            "Location": f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        },
    )
