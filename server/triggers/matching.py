"""Which triggers an event concerns, and what is delivered for them."""

from collections.abc import Mapping

from server.settings import Settings
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Database


def handlers(database: Database, blobs: BlobStore, settings: Settings) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}
