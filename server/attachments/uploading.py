"""Sending files: in one request, or in blocks in the idiom of section 14.4 of the specification."""

import hashlib
import re
from collections.abc import AsyncIterator

import msgspec
from litestar import Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from media.sniff import HEAD_BYTES
from media.uploads import (
    MAX_BLOCKS,
    Assembled,
    BadRange,
    HashMismatch,
    NoSuchUpload,
    TooLarge,
    Upload,
    Uploads,
)
from server.attachments.intake import (
    MAX_FILE_BYTES,
    MAX_PUT_BYTES,
    AttachmentRequest,
    checked_attachment_id,
    clean_content_type,
    declared_file_name,
    declared_sha256,
    sha256_of_hex,
)
from server.attachments.taking import UPLOAD_KIND, Taking, content_differs
from server.bodies import clean_file_name, decode, invalid
from server.clock import now
from server.http import body_of, content_length, json_response
from storage.blobs import BlobStore, new_key
from storage.database import Database
from storage.queries import attachments as queries

_TAGS = ["Attachments"]
_POLICY = {"policy": "Workflow_Execute"}

#: A photo goes in a few blocks, and a cut on a slow line costs seconds.
DEFAULT_BLOCK_BYTES = 1024 * 1024
#: A block is recorded whole or not at all, so a larger one only loses more to a cut.
MAX_BLOCK_BYTES = 8 * 1024 * 1024
#: A session is described in a few hundred bytes.
_MAX_SESSION_BYTES = 64 * 1024

_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


class NewUpload(msgspec.Struct, rename="camel"):
    """The body that opens a session; ``sha256`` in hex."""

    attachment_id: str
    file_size: int
    file_name: str | None = None
    content_type: str | None = None
    block_size: int | None = None
    sha256: str | None = None


class _Incoming:
    """A body on its way into a blob, with what is learnt on the way."""

    def __init__(self, request: AttachmentRequest, expected: bytes | None) -> None:
        self._request = request
        self._expected = expected
        self._hash = hashlib.sha256()
        self.head = bytearray()
        self.size = 0

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    async def content(self) -> AsyncIterator[bytes]:
        """The body; whatever it raises, the blob store keeps nothing."""
        async for chunk in body_of(self._request):
            self.size += len(chunk)
            if self.size > MAX_PUT_BYTES:
                raise _too_large()
            if len(self.head) < HEAD_BYTES:
                self.head += chunk[: HEAD_BYTES - len(self.head)]
            self._hash.update(chunk)
            yield chunk
        if self._expected is not None and self.digest != self._expected:
            raise HashMismatch("The body's SHA-256 is not the declared one; nothing was kept.")


@put(
    "/attachments/v1/{attachment_id:str}",
    status_code=201,
    opt=_POLICY,
    tags=_TAGS,
    summary="Send a file",
    description=(
        "The body is the file, at most 100 MB. `X-Content-SHA256` (hex) or `Repr-Digest` is checked; the file "
        "name is taken from Content-Disposition or `fileName`. 201 if it is new, 200 if the same was there."
    ),
    request_max_body_size=None,
)
async def put_attachment(
    request: AttachmentRequest,
    attachment_id: FromPath[str],
    blobs: NamedDependency[BlobStore],
    taking: NamedDependency[Taking],
) -> Response[bytes]:
    """One request, streamed into the blob store."""
    user = request.user
    checked_attachment_id(attachment_id)
    announced = content_length(request)
    if announced is not None and announced > MAX_PUT_BYTES:
        raise _too_large()
    incoming = _Incoming(request, declared_sha256(request))
    key = new_key(user.team_id, now())
    await blobs.put(key, incoming.content(), content_type="application/octet-stream", size=announced)
    taken = await taking.take_file(
        user.team_id,
        attachment_id,
        Assembled(key, incoming.size, incoming.digest, bytes(incoming.head)),
        file_name=declared_file_name(request),
        declared_type=clean_content_type(request.headers.get("content-type")),
        subject_id=user.subject_id,
    )
    body = {
        "attachmentId": attachment_id,
        "state": taken.state,
        "size": taken.size,
        "sha256": taken.sha256.hex(),
    }
    return Response(
        msgspec.json.encode(body), media_type="application/json", status_code=201 if taken.is_new else 200
    )


@post(
    "/attachments/v1/upload",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Open an upload in blocks",
    description=(
        "Asked again for the same file, the open session is answered. `complete: true` means that there is "
        "nothing to send."
    ),
    request_max_body_size=_MAX_SESSION_BYTES,
)
async def open_upload(
    request: AttachmentRequest,
    database: NamedDependency[Database],
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
) -> Response[bytes]:
    """As section 14.4.3, for attachments."""
    user = request.user
    asked = decode(await request.body(), NewUpload)
    checked_attachment_id(asked.attachment_id)
    sha256 = sha256_of_hex(asked.sha256, "sha256") if asked.sha256 is not None else None
    block_size = _block_size(asked)
    row = await database.read(queries.one, user.team_id, asked.attachment_id)
    if row is not None and row.sha256 is not None and sha256 is not None:
        if (row.sha256, row.size) != (sha256, asked.file_size):
            raise content_differs()
        return _answer(
            None, asked.attachment_id, block_size, asked.file_size, ((0, asked.file_size),), row.state
        )
    upload = await uploads.open(
        user.team_id,
        user.subject_id,
        UPLOAD_KIND,
        asked.attachment_id,
        asked.file_size,
        block_size=block_size,
        file_name=clean_file_name(asked.file_name),
        content_type=clean_content_type(asked.content_type),
        sha256=sha256,
        now=now(),
    )
    if upload.complete:
        # An empty file, or one whose last block was recorded and not answered.
        await taking.complete(upload)
        upload = await uploads.find(user.team_id, upload.upload_id)
    return _session(upload)


def _block_size(asked: NewUpload) -> int:
    if not 0 <= asked.file_size <= MAX_FILE_BYTES:
        if asked.file_size > MAX_FILE_BYTES:
            raise TooLarge(f"No file may have more than {MAX_FILE_BYTES:,} bytes.", field="fileSize")
        raise invalid("fileSize", "fileSize must not be negative.")
    block_size = DEFAULT_BLOCK_BYTES if asked.block_size is None else asked.block_size
    if not 1 <= block_size <= MAX_BLOCK_BYTES:
        raise invalid("blockSize", f"blockSize must be 1 to {MAX_BLOCK_BYTES:,}.")
    if block_size * MAX_BLOCKS < asked.file_size:
        raise invalid("blockSize", f"blockSize is too small: a file goes in at most {MAX_BLOCKS:,} blocks.")
    return block_size


@post(
    "/attachments/v1/upload/{upload_id:str}",
    status_code=202,
    opt=_POLICY,
    tags=_TAGS,
    summary="Send a block",
    description=(
        "`Content-Range: bytes 0-99999/1234567`. Blocks may come in any order, in parallel and again. 202 while "
        "bytes are missing, 204 once the file is complete and taken over."
    ),
    request_max_body_size=None,
)
async def send_block(
    request: AttachmentRequest,
    upload_id: FromPath[str],
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
) -> Response[bytes]:
    """As section 14.4.4."""
    upload = await _load(request, uploads, upload_id)
    start, stop = _content_range(request, upload)
    if upload.finished:
        # The last answer was lost. What is left of the body is read, so that the connection stays usable.
        async for _ in _limited(request, stop - start):
            pass
        return Response(b"", status_code=204)
    upload = await uploads.write(upload, start, body_of(request), length=stop - start)
    if upload.complete:
        await taking.complete(upload)
        upload = await uploads.find(upload.team_id, upload.upload_id)
    return Response(b"", status_code=204 if upload.finished else 202)


async def _limited(request: AttachmentRequest, most: int) -> AsyncIterator[bytes]:
    came = 0
    async for chunk in body_of(request):
        came += len(chunk)
        if came > most:
            raise BadRange("The body is longer than its range.", field="Content-Range")
        yield chunk
    if came < most:
        raise BadRange("The body is shorter than its range.", field="Content-Range")


@get(
    "/attachments/v1/upload/{upload_id:str}",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get an upload in blocks",
    description="Which bytes have arrived: `received` has ranges whose ends belong to them.",
)
async def get_upload(
    request: AttachmentRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> Response[bytes]:
    """Where to go on after a cut."""
    return _session(await _load(request, uploads, upload_id))


@delete(
    "/attachments/v1/upload/{upload_id:str}",
    status_code=204,
    opt=_POLICY,
    tags=_TAGS,
    summary="Cancel an upload in blocks",
)
async def cancel_upload(
    request: AttachmentRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> None:
    """Forget what has arrived. A file that is complete stays."""
    await uploads.cancel(await _load(request, uploads, upload_id))


async def _load(request: AttachmentRequest, uploads: Uploads, upload_id: str) -> Upload:
    """The caller's session in blocks; those who see the whole team see its sessions too."""
    user = request.user
    upload = await uploads.find(user.team_id, upload_id)
    if (
        upload.kind != UPLOAD_KIND
        or not upload.block_size
        or (user.own_work_only and upload.subject_id != user.subject_id)
    ):
        raise NoSuchUpload("There is no such upload.")
    return upload


def _content_range(request: AttachmentRequest, upload: Upload) -> tuple[int, int]:
    """Start and stop of the block, half-open, once it fits into the file and the body into it."""
    text = request.headers.get("content-range", "")
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        raise _bad_range("Content-Range must be like: bytes 0-99999/1234567.")
    first, last, total = map(int, found.groups())
    if total != upload.file_size:
        raise _bad_range(f"The session is for a file of {upload.file_size:,} bytes, not {total:,}.")
    if not first <= last < total:
        raise _bad_range(f"{first:,} to {last:,} is no range of a file of {total:,} bytes.")
    length = last + 1 - first
    if length > upload.block_size:
        raise _bad_range(f"A block has at most {upload.block_size:,} bytes; this one has {length:,}.")
    announced = content_length(request)
    if announced is not None and announced != length:
        raise _bad_range(f"The range has {length:,} bytes and the body {announced:,}.")
    return first, last + 1


def _bad_range(detail: str) -> BadRange:
    return BadRange(detail, field="Content-Range")


def _too_large() -> TooLarge:
    return TooLarge(f"One request takes {MAX_PUT_BYTES:,} bytes; send larger files in blocks or with tus.")


def _session(upload: Upload) -> Response[bytes]:
    received = ((0, upload.file_size),) if upload.finished else upload.received
    return _answer(
        upload.upload_id,
        upload.target,
        upload.block_size,
        upload.file_size,
        received,
        "stored" if upload.finished else "receiving",
    )


def _answer(
    upload_id: str | None,
    attachment_id: str,
    block_size: int,
    file_size: int,
    received: tuple[tuple[int, int], ...],
    state: str,
) -> Response[bytes]:
    body = {
        "id": upload_id,
        "attachmentId": attachment_id,
        "state": state,
        "blockSize": block_size,
        "fileSize": file_size,
        "received": [{"start": start, "end": stop - 1} for start, stop in received if stop > start],
        "complete": state != "receiving",
    }
    return json_response(msgspec.json.encode(body))


route_handlers = [put_attachment, open_upload, send_block, get_upload, cancel_upload]
