"""Uploads in blocks as sections 4.6 and 14.4 of the specification describe them: workflows, collections.

The document prints the end of a block's Content-Range in three ways: belonging to the block, one beyond it, and
past the end of the file. So the start and the length of the body decide, and the printed end is not looked at.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Request

from media.uploads import BadRange, NoSuchUpload, TooLarge, Upload, Uploads
from server.auth.principal import Principal
from server.bodies import clean_file_name, decode, invalid
from server.clock import now
from server.http import body_of, content_length

BlockRequest = Request[Principal, Any, Any]

#: Sections 4.6.2 and 14.4.4.5. KB are of 1,024 bytes, as in section 14.4.2.
MAX_BLOCK_BYTES = 100 * 1024
#: A session is described in a few hundred bytes.
MAX_SESSION_BYTES = 64 * 1024

_RANGE = re.compile(r"bytes\s+(\d{1,18})\s*-\s*(\d{1,18})\s*/\s*(\d{1,18})", re.ASCII)


class NewSession(msgspec.Struct, rename="camel"):
    """The body that opens a session (sections 4.6.3, 14.4.3)."""

    file_size: int
    friendly_file_name: str | None = None
    block_size: int = MAX_BLOCK_BYTES


async def open_session(
    request: BlockRequest, uploads: Uploads, asked: NewSession, kind: str, target: str, most: int
) -> Upload:
    """A new session of the caller for one file.

    Args:
        target: what the file is for; need not be unique.
        most: the largest file of this kind, bytes.

    Raises:
        TooLarge: the file is.
        Problem: 422 ``invalid-body``.
    """
    if asked.file_size > most:
        raise TooLarge(f"A file may have at most {most:,} bytes.", field="fileSize")
    if asked.file_size < 1:
        raise invalid("fileSize", "fileSize must be the length of the file in bytes; an empty one is none.")
    if not 1 <= asked.block_size <= MAX_BLOCK_BYTES:
        raise invalid("blockSize", f"blockSize must be 1 to {MAX_BLOCK_BYTES:,} bytes.")
    return await uploads.open(
        request.user.team_id,
        request.user.subject_id,
        kind,
        target,
        asked.file_size,
        block_size=asked.block_size,
        file_name=clean_file_name(asked.friendly_file_name),
        content_type=None,
        sha256=None,
        now=now(),
        anew=True,
    )


async def new_session(request: BlockRequest) -> NewSession:
    """The request's body."""
    return decode(await request.body(), NewSession)


async def find_session(request: BlockRequest, uploads: Uploads, upload_id: str, kind: str) -> Upload:
    """The session of this kind: the caller's own, or one of the team's for whoever sees the team's work.

    Raises:
        NoSuchUpload, Expired: see :meth:`Uploads.find`; it is somebody else's.
    """
    user = request.user
    upload = await uploads.find(user.team_id, upload_id)
    if upload.kind != kind or (user.own_work_only and upload.subject_id != user.subject_id):
        raise NoSuchUpload("There is no such upload.")
    return upload


async def receive_block(request: BlockRequest, uploads: Uploads, upload: Upload) -> Upload:
    """Store the request's body at its place; durable when this returns. Answers the session afterwards.

    A block of a finished session is read and dropped: the answer to the last one was lost.

    Raises:
        BadRange: 400, the block does not fit into the file.
        Differs: 409, other bytes were received there.
    """
    start, length = _place(request, upload)
    if upload.finished:
        async for _ in _limited(request, upload.block_size):
            pass
        return upload
    if length is not None:
        return await uploads.write(upload, start, body_of(request), length=length)
    # Chunked: its length shows at its end.
    return await uploads.write(upload, start, _limited(request, upload.block_size))


def _place(request: BlockRequest, upload: Upload) -> tuple[int, int | None]:
    """Where the block begins, and its length if the request says it."""
    found = _RANGE.fullmatch(request.headers.get("content-range", "").strip())
    if found is None:
        raise _bad_range("Content-Range must be like: bytes 0-102399/153600.")
    start, _, total = map(int, found.groups())
    if total != upload.file_size:
        raise _bad_range(f"The session is for a file of {upload.file_size:,} bytes, not {total:,}.")
    length = content_length(request)
    if length is not None and length > upload.block_size:
        raise _bad_range(f"A block has at most {upload.block_size:,} bytes; this one has {length:,}.")
    if length == 0 or start + (length or 1) > total:
        raise _bad_range(f"{length or 0:,} bytes from {start:,} do not fit into {total:,}.")
    return start, length


async def _limited(request: BlockRequest, most: int) -> AsyncIterator[bytes]:
    came = 0
    async for chunk in body_of(request):
        came += len(chunk)
        if came > most:
            raise _bad_range(f"A block has at most {most:,} bytes.")
        yield chunk


def _bad_range(detail: str) -> BadRange:
    return BadRange(detail, field="Content-Range")
