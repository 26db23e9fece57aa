"""Making reports in the background."""

from collections.abc import Mapping

from media.sandbox import Sandbox
from server.settings import Settings
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Database


def handlers(
    database: Database, blobs: BlobStore, printing: Sandbox, settings: Settings
) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}
