"""Triggers that disable themselves: their receiver is gone, or has failed for days. Their owner is told by mail."""

from collections.abc import Iterable

from server.mail import Mail, Mailer, MailFailed
from server.worker import GiveUp, Handler
from storage.database import Connection, Database
from storage.queries import tasks, triggers
from storage.queries.teams import lock_team
from storage.queries.triggers import TriggerRow
from storage.queries.users import UserRow, owner_ids, user_by_id
from storage.queue import Task

#: Tells one person of a disabled trigger. Subject: the trigger's id and the user's, with a colon between them.
TELL = "trigger.disabled"

GONE = "The receiver answered 410 Gone: it wants no more webhooks."

_TEXT = """Hello,

the trigger "{name}" of team {team} was disabled.

Why: {reason}

Nothing is sent until somebody enables it again. What it has yet to deliver is kept for 30 days after the event and
is sent then.
"""


def disable(connection: Connection, team_id: int, trigger_id: str, reason: str, at: int) -> bool:
    """Let a trigger fire no more, and have its owner told; answers whether it did until now.

    Nothing else of triggers may have been changed in this transaction: the team is locked first.
    """
    lock_team(connection, team_id)
    trigger = triggers.one(connection, team_id, trigger_id, lock=True)
    if trigger is None or not trigger.live:
        return False
    triggers.change(connection, team_id, trigger_id, disabled=True, disabled_reason=reason, updated_at=at)
    triggers.note_wants(connection, team_id)
    for user_id in _owners(connection, team_id, trigger):
        tasks.enqueue(connection, team_id, TELL, f"{trigger_id}:{user_id}", now=at)
    return True


def _owners(connection: Connection, team_id: int, trigger: TriggerRow) -> Iterable[str]:
    """Who made it; if that was a client, or somebody who has left, the owners of the team."""
    user = user_by_id(connection, team_id, trigger.created_by)
    return [user.user_id] if user is not None and not user.locked else owner_ids(connection, team_id)


def teller(database: Database, mailer: Mailer) -> Handler:
    """What does the tasks :data:`TELL`."""

    async def tell(task: Task) -> None:
        found = await database.read(_disabled, task)
        if found is None:
            return  # enabled again meanwhile, or there is nobody to tell
        trigger, user = found
        # The names are theirs; in the text they must not make lines or links of their own.
        name, team = (
            " ".join(each.split()).replace("://", ": //") for each in (trigger.name, user.team_name)
        )
        mail = Mail(
            user.email_address,
            f"Trigger disabled: {name}",
            _TEXT.format(name=name, team=team, reason=trigger.disabled_reason),
            name=user.name,
        )
        try:
            await mailer.send(
                mail, f"trigger-disabled-{trigger.trigger_id}-{trigger.updated_at}-{user.user_id}"
            )
        except MailFailed as failure:
            if failure.permanent:
                raise GiveUp(str(failure)) from None
            raise

    return tell


def _disabled(connection: Connection, task: Task) -> tuple[TriggerRow, UserRow] | None:
    trigger_id, _, user_id = task.subject.partition(":")
    trigger = triggers.one(connection, task.team_id, trigger_id)
    user = user_by_id(connection, task.team_id, user_id)
    if trigger is None or trigger.live or trigger.disabled_reason is None or user is None or user.locked:
        return None
    return trigger, user
