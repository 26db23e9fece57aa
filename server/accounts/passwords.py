"""Passwords: people change their own (NIST SP 800-63B-4, 3.1.1), over HTTP and on a page."""

from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency

from server import bodies
from server.accounts.authorization import AuthorizationRequest, finish
from server.accounts.rendering import message, page
from server.accounts.sealing import Seal
from server.accounts.shared import Accounts, Browser, address_of, refused, too_many
from server.auth.authority import Authority
from server.auth.forms import form_of
from server.auth.grants import GrantRefused, Grants
from server.auth.passwords import hash_password, verify_password, weakness
from server.auth.policies import PUBLIC
from server.auth.signin_limits import TooManyAttempts
from server.clock import now
from server.errors import Problem
from server.settings import Settings
from storage.database import Connection, Database
from storage.queries.users import UserRow, set_user_password, user_as_seen, user_by_id

_PUBLIC = {"policy": PUBLIC}
TICKET_SECONDS = 600
DIFFERENT = "The two new passwords are not the same."
_TOO_LATE = "This page has been open too long, or the password was changed meanwhile. Sign in again."


class ChangePassword(msgspec.Struct, rename="camel"):
    """The body of a change."""

    username: str
    password: str
    new_password: str


class Ticket(msgspec.Struct):
    """Somebody has shown the present password, and may choose another on the page that follows.

    Attributes:
        sign_ins: the user's number (see storage/queries/users.py), so that the ticket ends with the sign-ins.
        request: what to go on with afterwards.
    """

    team_id: int
    user_id: str
    sign_ins: int
    browser: str
    request: AuthorizationRequest | None = None


@post(
    "/account/password",
    status_code=200,
    opt=_PUBLIC,
    tags=["Accounts"],
    summary="Change one's own password",
    description="Works with a password that was reset, too. Ends every sign-in of the account.",
)
async def change_password(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """The new password is looked at before the old one: what is said of it depends on nothing but the
    request, and tells nobody which accounts there are.
    """
    body = bodies.decode(await request.body(), ChangePassword)
    weak = weakness(body.new_password, body.username, body.password)
    if weak is not None:
        raise weak_password(weak)
    user = await _authenticated(request, database, authority, settings, body.username, body.password)
    if not await choose(database, authority, user, body.new_password):
        raise Problem(409, "password-changed", "The account was changed at the same moment. Sign in again.")
    return Response(b"", media_type="application/json")


@get("/account/change", opt=_PUBLIC, tags=["Account pages"], summary="The page for changing one's password")
async def change_page() -> Response[str]:
    """For people who want to, or were told to."""
    return page("change", error=None, ticket="", username="")


@post(
    "/account/change",
    status_code=200,
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="Change one's password on the page",
)
async def change_on_page(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[Any]:
    """With the present password, or with the ticket that our sign-in page gives for it."""
    form = await form_of(request)
    new, seal = form.get("new", ""), await accounts.seal()
    ticket = None
    if "ticket" in form:
        ticket = seal.open("change", form["ticket"], Ticket)
        user = await _user_of(ticket, Browser(request, settings), database)
        if ticket is None or user is None:
            return message(400, "Sign in again", _TOO_LATE)
    else:
        username, password = form.get("username", ""), form.get("password", "")
        wrong = DIFFERENT if new != form.get("again") else weakness(new, username, password)
        if wrong is not None:
            return page("change", 422, error=wrong, ticket="", username=username)
        try:
            user = await _authenticated(request, database, authority, settings, username, password)
        except Problem as problem:
            headers = (
                {"Retry-After": problem.headers.get("Retry-After", "0")} if problem.status == 429 else {}
            )
            return page(
                "change", problem.status, headers=headers, error=problem.detail, ticket="", username=username
            )
    wrong = DIFFERENT if new != form.get("again") else await unfit(user, new)
    if wrong is not None:
        leads_to = ticket.request.redirect_uri if ticket is not None and ticket.request is not None else None
        return page(
            "change",
            422,
            leads_to=leads_to,
            error=wrong,
            ticket=form.get("ticket", ""),
            username=user.username,
        )
    if not await choose(database, authority, user, new):
        return message(409, "Sign in again", _TOO_LATE)
    if ticket is not None and ticket.request is not None:
        changed = await database.read(user_by_id, user.team_id, user.user_id)
        if changed is not None:
            grants = Grants(database, authority, authority.signin_limits, settings.refresh_days)
            return await finish(grants, settings, ticket.request, changed)
    return message(200, "The password is changed", "Go back to your app and sign in with the new one.")


def ask_for_new_password(
    seal: Seal, browser: Browser, user: UserRow, request: AuthorizationRequest
) -> Response[Any]:
    """The page on which somebody whose password was reset chooses another, and then goes on."""
    ticket = Ticket(user.team_id, user.user_id, user.sign_ins, browser.mark, request)
    answer = page(
        "change",
        leads_to=request.redirect_uri,
        error=None,
        ticket=seal.close("change", ticket, TICKET_SECONDS),
        username=user.username,
    )
    return browser.remember(answer)


async def unfit(user: UserRow, new: str) -> str | None:
    """What is wrong with ``new`` as the user's next password."""
    weak = weakness(new, user.username)
    if weak is None and await verify_password(user.password_hash, new):
        weak = "The new password is the old one."
    return weak


async def choose(database: Database, authority: Authority, user: UserRow, new: str) -> bool:
    """Give the user the password; False if the account was changed since ``user`` was read."""
    done = await database.settle(_set_password, user, await hash_password(new), now())
    authority.forget(user.user_id)
    return done


def weak_password(detail: str) -> Problem:
    """The refusal of a password that should not be one."""
    return Problem(422, "weak-password", detail, field="newPassword")


async def _authenticated(
    request: Request[Any, Any, Any],
    database: Database,
    authority: Authority,
    settings: Settings,
    username: str,
    password: str,
) -> UserRow:
    grants = Grants(database, authority, authority.signin_limits, settings.refresh_days)
    try:
        return await grants.authenticate(username, password, address_of(request, settings))
    except GrantRefused as refusal:
        raise refused(refusal) from None
    except TooManyAttempts as limit:
        raise too_many(limit) from None


async def _user_of(ticket: Ticket | None, browser: Browser, database: Database) -> UserRow | None:
    if ticket is None or not browser.is_marked(ticket.browser):
        return None
    user = await database.read(user_by_id, ticket.team_id, ticket.user_id)
    if user is None or user.locked or user.sign_ins != ticket.sign_ins:
        return None
    return user


def _set_password(connection: Connection, user: UserRow, password_hash: str, at: int) -> bool:
    if user_as_seen(connection, user) is None:
        return False
    set_user_password(connection, user.team_id, user.user_id, password_hash, at, expired=False)
    return True
