"""Mails of accounts, and the end of what is good once."""

from collections.abc import Mapping

from server.mail import Mailer
from server.settings import Settings
from server.worker import Handler
from storage.database import Database


def handlers(database: Database, mailer: Mailer, settings: Settings) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}


async def delete_expired(database: Database, now: int) -> int:
    """Delete links and codes whose time is over; answers how many."""
    return 0
