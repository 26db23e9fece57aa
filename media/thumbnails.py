"""Thumbnails of a stored file: read in the limited pool, written beside the file, with what was learnt of it."""

from typing import NamedTuple

from media.details import Details, Thumbnail
from media.formats import PICTURES, SIZES, VIDEOS, Made, Refused
from media.sandbox import Sandbox
from storage.blobs import BlobStore

__all__ = ["Outcome", "make"]

_PICTURE_SECONDS, _VIDEO_SECONDS = 20.0, 30.0


class Outcome(NamedTuple):
    """``state``: ready or failed, with the reason in ``failure``."""

    state: str
    details: Details
    failure: str | None = None


def read(path: str, content_type: str) -> Made:
    """In a worker: the thumbnails of the file at ``path``. The libraries are loaded here, not in the server."""
    if content_type in VIDEOS:
        from media.video import poster

        return poster(path, content_type)
    from media.images import thumbnails

    return thumbnails(path, content_type)


async def make(blobs: BlobStore, sandbox: Sandbox, blob_key: str, content_type: str) -> Outcome:
    """Make and store the thumbnails of a file; doing it again writes the same keys.

    A file that is neither picture nor video is ready as it is.

    Raises:
        BlobNotFound, BlobsUnavailable: the file cannot be had.
        Interrupted: reading it was ended from outside; another time it may be read.
    """
    if content_type not in PICTURES and content_type not in VIDEOS:
        return Outcome("ready", Details())
    seconds = _VIDEO_SECONDS if content_type in VIDEOS else _PICTURE_SECONDS
    try:
        async with blobs.local_path(blob_key) as path:
            made = await sandbox.run(read, str(path), content_type, seconds=seconds)
    except Refused as refusal:
        return Outcome("failed", Details(), str(refusal))
    kept = []
    for name in reversed(SIZES):
        jpeg, width, height = made.jpegs[name]
        key = f"{blob_key}.{name}.jpg"
        await blobs.put(key, jpeg, content_type="image/jpeg", size=len(jpeg))
        kept.append(Thumbnail(name, key, width, height, len(jpeg)))
    return Outcome(
        "ready",
        Details(
            width=made.width,
            height=made.height,
            takenAt=made.taken_at,
            latitude=made.latitude,
            longitude=made.longitude,
            durationSeconds=made.duration_seconds,
            thumbnails=tuple(kept),
        ),
    )
