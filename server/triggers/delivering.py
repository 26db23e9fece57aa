"""Delivering: mails and signed webhooks, each tried until it succeeds or its time is over."""

from collections.abc import Mapping

from server.mail import Mailer
from server.settings import Settings
from server.timetable import Entry
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Database


def handlers(
    database: Database, blobs: BlobStore, mailer: Mailer, settings: Settings
) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}


def entries(database: Database) -> list[Entry]:
    """What the clock does about deliveries."""
    return []
