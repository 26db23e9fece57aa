"""Forgotten passwords: a link by mail, good once and for an hour, for choosing another.

The secret of the link stands behind its ``#``: browsers keep that part to themselves, so neither servers'
logs nor the Referer of what comes next has it. A small script moves it into the form; without scripts people
copy the code that stands in the mail. Whatever looks at links in mails before people do uses nothing up,
because only the form does.
"""

from asyncio import gather, sleep
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.di import NamedDependency

from server import bodies
from server.accounts.background import link_subject
from server.accounts.passwords import DIFFERENT, unfit
from server.accounts.rendering import message, page
from server.accounts.shared import Accounts, address_of, too_many
from server.auth.authority import Authority
from server.auth.forms import form_of
from server.auth.grants import hash_secret
from server.auth.passwords import hash_password
from server.auth.policies import PUBLIC
from server.auth.signin_limits import TooManyAttempts
from server.clock import now
from server.errors import Problem
from server.settings import Settings
from storage.database import Connection, Database
from storage.queries.accounts import PASSWORD_LINK, user_of_password_link, users_known_as
from storage.queries.tasks import enqueue
from storage.queries.users import UserRow, set_user_password, username_key

_PUBLIC = {"policy": PUBLIC}
#: Every answer takes as long, so that it does not tell whether there was somebody to write to. Finding out,
#: and writing down that a mail is due, takes a few milliseconds.
ANSWER_SECONDS = 0.3
_MAX_ACCOUNT = 254
_SENT = "If there is such an account, a mail with a link is on its way. The link is good for one hour."
_GONE = "This link was used already, or it is too old. Ask for another one."
_ANOTHER = ("/account/forgotten", "Send another link")


class AskForLink(msgspec.Struct, rename="camel"):
    """The body of a request for a link: one of the two."""

    username: str | None = None
    email_address: str | None = None


class LinkAnswer(msgspec.Struct):
    """The answer, whoever asked."""

    detail: str


@post(
    "/account/password-link",
    status_code=200,
    opt=_PUBLIC,
    tags=["Accounts"],
    summary="Have a link for choosing a new password mailed",
    description="The answer is the same whether or not there is such an account.",
)
async def send_link(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> LinkAnswer:
    """Forgotten passwords, for apps with a page of their own."""
    body = bodies.decode(await request.body(), AskForLink)
    account = body.username if body.username is not None else body.email_address
    if account is None:
        raise bodies.invalid("username", "Send username or emailAddress.")
    try:
        await _ask(request, database, settings, accounts, account)
    except TooManyAttempts as limit:
        raise too_many(limit) from None
    return LinkAnswer(_SENT)


@get("/account/forgotten", opt=_PUBLIC, tags=["Account pages"], summary="The page for forgotten passwords")
async def forgotten_page() -> Response[str]:
    """One field."""
    return page("forgotten", error=None)


@post(
    "/account/forgotten",
    status_code=200,
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="Have a link mailed, on the page",
)
async def forgotten(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    settings: NamedDependency[Settings],
    accounts: NamedDependency[Accounts],
) -> Response[str]:
    """As :func:`send_link`."""
    form = await form_of(request)
    try:
        await _ask(request, database, settings, accounts, form.get("account", ""))
    except TooManyAttempts as limit:
        problem = too_many(limit)
        return page("forgotten", 429, headers=problem.headers, error=problem.detail)
    except Problem as problem:
        return page("forgotten", problem.status, error=problem.detail)
    return message(200, "Look into your mail", _SENT)


@get(
    "/account/new-password",
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="The page a mailed link leads to",
)
async def new_password_page() -> Response[str]:
    """The same for every link: its secret is not sent with the request."""
    return page("new_password", error=None, token="")


@post(
    "/account/new-password",
    status_code=200,
    opt=_PUBLIC,
    tags=["Account pages"],
    summary="Choose a new password with a mailed link",
)
async def new_password(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
) -> Response[str]:
    """Uses the link up. It ends every other link and every sign-in of the account."""
    form = await form_of(request)
    token, new = form.get("token", "").strip(), form.get("new", "")
    user = await database.read(user_of_password_link, hash_secret(token), now())
    if user is None:
        return message(410, "This link is not good any more", _GONE, _ANOTHER)
    if user.locked:
        return message(403, "The account is locked", "An administrator of your team can unlock it.")
    wrong = DIFFERENT if new != form.get("again") else await unfit(user, new)
    if wrong is not None:
        return page("new_password", 422, error=wrong, token=token)
    done = await database.settle(_use_link, hash_secret(token), await hash_password(new), now())
    if not done:
        return message(410, "This link is not good any more", _GONE, _ANOTHER)
    authority.forget(user.user_id)
    return message(200, "The password is changed", "Go back to your app and sign in with the new one.")


async def _ask(
    request: Request[Any, Any, Any],
    database: Database,
    settings: Settings,
    accounts: Accounts,
    account: str,
) -> None:
    """Let the account's people get a mail, if there are any.

    Raises:
        Problem: what was sent can be nobody's name or address.
        TooManyAttempts: for this account, known or not, or from this address.
    """
    if not account.strip() or len(account) > _MAX_ACCOUNT or not account.isprintable():
        raise bodies.invalid("username", "Say a username or an e-mail address.")
    with accounts.link_limits.attempt(
        f"link {username_key(account)}", address_of(request, settings)
    ) as attempt:
        # Asking is what is limited here.
        attempt.failed = True
        await gather(_enqueue_for(database, account), sleep(ANSWER_SECONDS))


async def _enqueue_for(database: Database, account: str) -> None:
    """Writes only if there is somebody to write to: anybody may ask for anything."""
    found = [user for user in await database.read(users_known_as, account) if not user.locked]
    if found:
        await database.settle(_enqueue, found, now())


def _enqueue(connection: Connection, found: Sequence[UserRow], at: int) -> None:
    for user in found:
        enqueue(connection, user.team_id, PASSWORD_LINK, link_subject(user.user_id, at), now=at)


def _use_link(connection: Connection, token_hash: bytes, password_hash: str, at: int) -> bool:
    user = user_of_password_link(connection, token_hash, at)
    if user is None or user.locked:
        return False
    set_user_password(connection, user.team_id, user.user_id, password_hash, at, expired=False)
    return True
