"""Reading the files of collections."""

from collections.abc import Mapping

from media.sandbox import Sandbox
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Database


def handlers(database: Database, blobs: BlobStore, sandbox: Sandbox) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {}
