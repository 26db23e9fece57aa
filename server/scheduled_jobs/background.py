"""Reminders of scheduled jobs."""

from collections.abc import Mapping

from server.mail import Mailer
from server.worker import Handler
from storage.database import Database


def handlers(database: Database, mailer: Mailer) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}


async def enqueue_reminders(database: Database, now: int, ahead_us: int) -> int:
    """Enqueue a reminder for each job that is due within ``ahead_us`` or overdue; answers how many."""
    return 0
