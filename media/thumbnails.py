"""Thumbnails of a stored file: read in the limited pool, written beside the file, with what was learnt of it."""

from typing import NamedTuple

from media import images, video
from media.details import Details, Thumbnail
from media.sandbox import Refused, Sandbox
from storage.blobs import BlobStore

__all__ = ["Outcome", "make"]

_VIDEO_SECONDS = 30.0


class Outcome(NamedTuple):
    """``state``: ready or failed, with the reason in ``failure``."""

    state: str
    details: Details
    failure: str | None = None


async def make(blobs: BlobStore, sandbox: Sandbox, blob_key: str, content_type: str) -> Outcome:
    """Make and store the thumbnails of a file; doing it again writes the same keys.

    A file that is neither picture nor video is ready as it is.

    Raises:
        BlobNotFound, BlobsUnavailable: the file cannot be had.
    """
    if content_type not in images.PICTURES and content_type not in video.VIDEOS:
        return Outcome("ready", Details())
    try:
        async with blobs.local_path(blob_key) as path:
            if content_type in images.PICTURES:
                made = await sandbox.run(images.thumbnails, str(path), content_type)
            else:
                made = await sandbox.run(video.poster, str(path), content_type, seconds=_VIDEO_SECONDS)
    except Refused as refusal:
        return Outcome("failed", Details(), str(refusal))
    kept = []
    for name in reversed(images.SIZES):
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
