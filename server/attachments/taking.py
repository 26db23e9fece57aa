"""Taking a file over: whichever way it came, it becomes an attachment here, or is removed again."""

import contextlib
from typing import NamedTuple

from media.sniff import sniff
from media.uploads import Assembled, NoSuchUpload, Upload, Uploads
from server.clock import now
from server.errors import Problem
from server.joined import Joined
from storage.blobs import BlobStore, BlobsUnavailable
from storage.database import Connection, Contended, Database
from storage.queries import attachments as queries
from storage.queries import uploads as upload_queries
from storage.queries.attachments import UPLOAD_KIND, NewFile, Stored

__all__ = ["UPLOAD_KIND", "Taken", "Taking"]


class Taken(NamedTuple):
    """What became of a file. ``is_new``: it was not there before."""

    is_new: bool
    state: str
    size: int
    sha256: bytes


class Taking:
    """Takes files over, one at a time for each upload."""

    def __init__(self, database: Database, blobs: BlobStore, uploads: Uploads) -> None:
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._running: Joined[tuple[int, str], None] = Joined()

    async def take_file(
        self,
        team_id: int,
        attachment_id: str,
        file: Assembled,
        *,
        file_name: str | None,
        declared_type: str | None,
        subject_id: str,
        upload: Upload | None = None,
    ) -> Taken:
        """Make a durable blob the content of an attachment.

        If the same content is there already, or the file is refused, the blob is removed.

        Args:
            upload: the session it came by; it ends in the same transaction.

        Raises:
            Problem: 409 ``content-differs``.
            NoSuchUpload: the session was given up meanwhile.
        """
        new = NewFile(
            attachment_id=attachment_id,
            blob_key=file.blob_key,
            size=file.size,
            sha256=file.sha256,
            file_name=file_name,
            declared_type=declared_type,
            content_type=sniff(file.first_bytes, declared_type),
            uploaded_by=subject_id,
            stored_at=now(),
        )
        try:
            stored, state, blob_key = await self._database.settle(_store, team_id, new, upload)
        except (NoSuchUpload, Contended):
            # Surely not recorded. After Unavailable nobody knows.
            await self._uploads.discard(file)
            raise
        if blob_key != file.blob_key:
            # Of two who assemble the same upload at once, both have the same blob: it is not in the way.
            await self._uploads.discard(file)
        if stored == "differs":
            raise content_differs()
        return Taken(stored == "stored", state, file.size, file.sha256)

    async def complete(self, upload: Upload) -> None:
        """Take over the file of a session that has all its bytes; call it again if it failed.

        Goes on when the caller is gone: the next one who asks for it gets the outcome. If the blob store has
        lost something, the session is not finished afterwards; :meth:`Uploads.find` tells what is missing.

        Raises:
            HashMismatch, NoSuchUpload, BlobsUnavailable: see :meth:`Uploads.assemble`.
            Problem: 409 ``content-differs``; the session stays as it is.
        """
        await self._running.run((upload.team_id, upload.upload_id), lambda: self._complete(upload))

    async def close(self) -> None:
        """Let what is under way end."""
        await self._running.close()

    async def _complete(self, upload: Upload) -> None:
        if not upload.finished:
            file = await self._uploads.assemble(upload, now())
            if file is None:
                return
            await self.take_file(
                upload.team_id,
                upload.target,
                file,
                file_name=upload.file_name,
                declared_type=upload.content_type,
                subject_id=upload.subject_id,
                upload=upload,
            )
        # The file is taken over; what is left of the blocks the clock removes.
        with contextlib.suppress(BlobsUnavailable):
            await self._uploads.finish(upload)


def content_differs() -> Problem:
    """The refusal of a second content for one id."""
    return Problem(
        409,
        "content-differs",
        "Another content is stored under this id and stays. Send this one under an id of its own.",
    )


def _store(
    connection: Connection, team_id: int, new: NewFile, upload: Upload | None
) -> tuple[Stored, str, str | None]:
    """What happened, and state and blob of the attachment as it is then."""
    stored = queries.store(connection, team_id, new)
    if upload is not None and stored != "differs":
        open_still = upload_queries.finish(connection, team_id, upload.upload_id, new.stored_at)
        if stored == "stored" and not open_still:
            raise NoSuchUpload("There is no such upload.")
    row = queries.one(connection, team_id, new.attachment_id)
    assert row is not None
    return stored, row.state, row.blob_key
