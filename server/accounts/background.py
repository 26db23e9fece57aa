"""Mails of accounts, and the end of what is good once."""

from collections.abc import Mapping
from functools import partial

from server.auth.grants import hash_secret
from server.clock import now
from server.mail import Mail, Mailer, MailFailed
from server.settings import Settings
from server.worker import GiveUp, Handler
from storage.database import Connection, Database
from storage.ids import new_secret
from storage.queries import accounts as queries
from storage.queries.users import UserRow, user_by_id
from storage.queue import Task

_SECOND = 1_000_000
LINK_SECONDS = 3600
_LINK = LINK_SECONDS * _SECOND
#: Links of one account that may be good at a time, which is also how many are mailed in an hour.
LINKS_AT_ONCE = 3
#: Codes are kept this long after their end: a second use of one is noticed and ends what it began.
_CODES_KEPT_SECONDS = 24 * 3600
_AT_ONCE = 200

_TEXT = """Hello,

somebody, probably you, asked for a new password for the Fieldsync account "{username}".
Choose one here within an hour:

{address}#{token}

If the page asks for a code, it is this:

{token}

If it was not you, do nothing: the password stays as it is.
"""


def handlers(database: Database, mailer: Mailer, settings: Settings) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {queries.PASSWORD_LINK: partial(mail_link, database, mailer, settings)}


async def mail_link(database: Database, mailer: Mailer, settings: Settings, task: Task) -> None:
    """Make a link, keep its hash, mail it. Another attempt makes another link, since nobody knows the first.

    Raises:
        GiveUp: the address takes no mail, or it is so late that nobody waits for it any more.
        MailFailed: not this time.
    """
    at = now()
    user_id, waited_for_until = _parsed(task)
    if at > waited_for_until:
        raise GiveUp("nobody waits for this mail any more")
    token = new_secret()
    user = await database.write(_add_link, task, user_id, hash_secret(token), at)
    if user is None:
        return
    # The name is theirs; in the text it must not make lines or links of its own.
    text = _TEXT.format(
        username=" ".join(user.username.split()).replace("://", ": //"),
        address=f"{settings.base_url}/account/new-password",
        token=token,
    )
    mail = Mail(user.email_address, "Choose a new password", text, name=user.name)
    try:
        await mailer.send(mail, f"password-link-{task.task_id}-{task.attempts}")
    except MailFailed as failure:
        if failure.permanent:
            raise GiveUp(str(failure)) from None
        raise


async def delete_expired(database: Database, now: int) -> int:
    """Delete links and codes whose time is over; answers how many."""
    deleted = 0
    codes_before = now - _CODES_KEPT_SECONDS * _SECOND
    while found := await database.write(queries.delete_expired, now, codes_before, _AT_ONCE):
        deleted += found
    return deleted


def link_subject(user_id: str, at: int) -> str:
    """The subject of the task for a request at ``at``. One task serves the requests of an hour: it knows from
    this when the last of them may have come, also of those that came while it waited for another attempt.
    """
    return f"{user_id}:{at // _LINK}"


def _parsed(task: Task) -> tuple[str, int]:
    """The user's id, and until when somebody may wait for the mail."""
    user_id, _, hour = task.subject.partition(":")
    return user_id, (int(hour) + 2) * _LINK


def _add_link(connection: Connection, task: Task, user_id: str, token_hash: bytes, at: int) -> UserRow | None:
    """The user to write to; None if there is none, or it has enough links."""
    user = user_by_id(connection, task.team_id, user_id)
    if user is None or user.locked:
        return None
    good = queries.password_links_of(connection, task.team_id, user.user_id, at)
    if task.attempts == 1 and good >= LINKS_AT_ONCE:
        return None
    queries.insert_password_link(connection, task.team_id, token_hash, user.user_id, at + _LINK)
    return user
