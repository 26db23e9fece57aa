"""Reminders of scheduled jobs.

The clock marks what is due and enqueues a task for each; that one makes a task for each of its people, so that
a mail that fails is tried again without mailing those who have theirs.
"""

from collections.abc import Mapping
from typing import NamedTuple

from server.clock import now
from server.local_time import local, span
from server.mail import Mail, Mailer, MailFailed
from server.worker import GiveUp, Handler
from storage import schedule
from storage.database import Connection, Database
from storage.queries import scheduled_jobs as queries
from storage.queries.scheduled_jobs import ScheduledJob
from storage.queries.team_settings import default_timezone
from storage.queries.users import UserRow, user_by_id
from storage.queue import Task

_AT_ONCE = 200


class _Reminder(NamedTuple):
    """What one person is told."""

    job: ScheduledJob
    user: UserRow
    zone: str


def handlers(database: Database, mailer: Mailer) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""

    async def remind(task: Task) -> None:
        """Enqueue a mail to each of the people of a scheduled job."""
        await database.write(_enqueue_mails, task.team_id, task.subject, now())

    async def remind_user(task: Task) -> None:
        """Mail one of them."""
        scheduled_job_id, level, user_id = task.subject.split(":")
        reminder = await database.read(_reminder, task.team_id, scheduled_job_id, int(level), user_id)
        if reminder is None:
            return
        mail = _mail(reminder, now())
        due_at = reminder.job.row.due_at
        try:
            await mailer.send(mail, f"reminder-{scheduled_job_id}-{level}-{due_at}-{user_id}")
        except MailFailed as error:
            if error.permanent:
                raise GiveUp(str(error)) from error
            raise

    return {queries.REMIND: remind, queries.REMIND_USER: remind_user}


async def enqueue_reminders(database: Database, now: int, ahead_us: int) -> int:
    """Enqueue a reminder for each job that is due within ``ahead_us`` or overdue; answers how many."""
    enqueued = 0
    while found := await database.write(queries.enqueue_reminders, now, ahead_us, _AT_ONCE):
        enqueued += found
        if found < _AT_ONCE:
            break
    return enqueued


def _enqueue_mails(connection: Connection, team_id: int, subject: str, moment: int) -> None:
    scheduled_job_id, level = subject.split(":")
    job = _current(connection, team_id, scheduled_job_id, int(level))
    if job is not None:
        queries.enqueue_mails(connection, team_id, subject, job.user_ids, moment)


def _current(connection: Connection, team_id: int, scheduled_job_id: str, level: int) -> ScheduledJob | None:
    """The scheduled job, if there is still something to remind of and no later reminder has taken over."""
    job = queries.one(connection, team_id, scheduled_job_id)
    if job is None or job.row.due_at is None or job.row.state == schedule.DONE or job.row.reminded > level:
        return None
    return job


def _reminder(
    connection: Connection, team_id: int, scheduled_job_id: str, level: int, user_id: str
) -> _Reminder | None:
    job = _current(connection, team_id, scheduled_job_id, level)
    if job is None or user_id not in job.user_ids:
        return None
    user = user_by_id(connection, team_id, user_id)
    if user is None or user.locked:
        return None
    return _Reminder(job, user, default_timezone(connection, team_id))


def _mail(reminder: _Reminder, moment: int) -> Mail:
    job, user = reminder.job, reminder.user
    row = job.row
    assert row.due_at is not None
    left = row.due_at - moment
    how_long = f"overdue by {span(-left)}" if left <= 0 else f"due in {span(left)}"
    done = sum(task.state == schedule.COMPLETED for task in job.tasks)
    lines = [
        f"{row.name} is {how_long}.",
        "",
        f"Due: {local(row.due_at, reminder.zone)}",
        f"Tasks: {len(job.tasks) - done} of {len(job.tasks)} open",
    ]
    if row.priority:
        lines.append("Priority: yes")
    if row.description:
        lines += ["", row.description]
    lines += ["", f"You get this mail because the scheduled job is assigned to you in team {user.team_name}."]
    subject = f"Overdue: {row.name}" if left <= 0 else f"Due soon: {row.name}"
    return Mail(to=user.email_address, subject=subject, text="\n".join(lines) + "\n", name=user.name)
