"""Giving up files: the row first, then the blobs, which a task sees to if they cannot go at once."""

import logging
from typing import Any

from media.details import Details, decode_details
from server.worker import Handler, Retry
from storage.blobs import BlobStore, BlobsUnavailable
from storage.database import Connection
from storage.queries import attachments as queries
from storage.queries import tasks
from storage.queries.attachments import AttachmentRow
from storage.queue import Task

log = logging.getLogger("fieldsync.attachments")

DELETE_BLOBS = queries.DELETE_BLOBS
_RETRY_SECONDS = 60


def forget(
    connection: Connection, team_id: int, attachment_id: str, now: int, orphaned_before: int | None = None
) -> list[str] | None:
    """Give up a file; see :func:`storage.queries.attachments.delete`.

    Returns:
        The keys of its blobs, which a task of this transaction deletes unless somebody is faster; None if
        there was no file.
    """
    row = queries.delete(connection, team_id, attachment_id, now, orphaned_before)
    if row is None or row.blob_key is None:
        return None
    keys = blobs_of(row)
    # Whatever happens after the commit, a file that somebody deleted does not stay in the store.
    tasks.enqueue(connection, team_id, DELETE_BLOBS, row.blob_key, {"keys": keys}, now=now)
    return keys


def blobs_of(row: AttachmentRow) -> list[str]:
    """The keys of a file and its thumbnails."""
    keys = [] if row.blob_key is None else [row.blob_key]
    return keys + [thumbnail.key for thumbnail in details_of(row).thumbnails]


def details_of(row: AttachmentRow) -> Details:
    """What is known of the picture or video; empty before anybody has looked."""
    return decode_details(row.details)


async def delete_now(blobs: BlobStore, keys: list[str]) -> None:
    """Delete blobs whose task waits already: if the store is down, the task does it later."""
    try:
        await blobs.delete(keys)
    except BlobsUnavailable as error:
        log.warning("blobs to be deleted later: %s", error)


def handler(blobs: BlobStore) -> Handler:
    """What does tasks of the kind ``blobs.delete``."""

    async def delete_blobs(task: Task) -> None:
        payload: Any = task.payload
        try:
            await blobs.delete(payload["keys"])
        except BlobsUnavailable:
            raise Retry(_RETRY_SECONDS) from None

    return delete_blobs
