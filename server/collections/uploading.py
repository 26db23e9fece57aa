"""Sending the file of a collection in blocks (section 4.6)."""

import asyncio
import contextlib

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from media.uploads import NoSuchUpload, Upload, Uploads
from server.blocks import (
    MAX_SESSION_BYTES,
    BlockRequest,
    NewSession,
    find_session,
    open_session,
    receive_block,
)
from server.bodies import decode
from server.clock import now
from server.collections.routes import no_such_collection
from server.http import json_response
from server.joined import Joined
from storage.blobs import BlobsUnavailable
from storage.database import Connection, Database
from storage.queries import collections as queries
from storage.queries import uploads as upload_queries
from storage.queries.collections import IMPORTING, FileRow

_POLICY = {"policy": "Workflow_Create"}
_TAGS = ["Collections"]

KIND = "collection"
#: Section 4.6.2, with the MB of its section 4.6.4.7.
MAX_FILE_BYTES = 50 * 1024 * 1024
#: So long the last block waits for its file to be read: a small one is there when the answer arrives.
WAIT_SECONDS = 3.0
#: A larger file takes longer than that anyway.
_WAITED_FOR = 8 * 1024 * 1024
_LOOK_SECONDS = (0.02, 0.04, 0.08, 0.15)


class NewCollectionSession(NewSession, rename="camel", kw_only=True):
    """The body of section 4.6.3."""

    collection_id: str


class Receiving:
    """Takes complete files over, one at a time for each upload, whether the caller waits for it or not."""

    def __init__(self, database: Database, uploads: Uploads) -> None:
        self._database = database
        self._uploads = uploads
        self._running: Joined[tuple[int, str], None] = Joined()

    async def complete(self, upload: Upload) -> None:
        """Make the file of a session that has all its bytes the newest of its collection.

        Raises:
            Problem: 404, the collection was deleted.
            NoSuchUpload: the session was given up.
        """
        await self._running.run((upload.team_id, upload.upload_id), lambda: self._take(upload))

    async def close(self) -> None:
        """Let what is under way end."""
        await self._running.close()

    async def _take(self, upload: Upload) -> None:
        moment = now()
        file = await self._uploads.assemble(upload, moment)
        if file is None:
            return
        row = FileRow(
            file_id=upload.upload_id,
            collection_id=upload.target,
            number=0,
            state=IMPORTING,
            file_name=upload.file_name,
            file_size=file.size,
            blob_key=file.blob_key,
            uploaded_by=upload.subject_id,
            uploaded_at=moment,
            imported_at=None,
            record_count=0,
            details=b"",
            records_key=None,
        )
        found = await self._database.settle(_record, upload.team_id, row)
        if not found:
            await self._uploads.discard(file)
            if found is None:
                raise no_such_collection()
            raise NoSuchUpload("There is no such upload.")
        # What is left of the blocks the clock removes.
        with contextlib.suppress(BlobsUnavailable):
            await self._uploads.finish(upload)


@post(
    "/collections/v1/upload",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Create collection upload session",
    description="For a CSV file of at most 50 MB, in blocks of at most 100 KB.",
    request_max_body_size=MAX_SESSION_BYTES,
)
async def open_upload(
    request: BlockRequest, database: NamedDependency[Database], uploads: NamedDependency[Uploads]
) -> dict[str, str]:
    """Section 4.6.3."""
    asked = decode(await request.body(), NewCollectionSession)
    if await database.read(queries.one, request.user.team_id, asked.collection_id) is None:
        raise no_such_collection("collectionId")
    upload = await open_session(request, uploads, asked, KIND, asked.collection_id, MAX_FILE_BYTES)
    return {"id": upload.upload_id}


@post(
    "/collections/v1/upload/{upload_id:str}",
    status_code=202,
    opt=_POLICY,
    tags=_TAGS,
    summary="Upload collection file",
    description=(
        "A block: `Content-Range: bytes 0-102399/153600`. In any order, in parallel and again. 202 while bytes "
        "are missing, 204 once the file is complete; then it is read, which the collection's `state` tells."
    ),
    request_max_body_size=None,
)
async def send_block(
    request: BlockRequest,
    upload_id: FromPath[str],
    uploads: NamedDependency[Uploads],
    database: NamedDependency[Database],
    receiving: NamedDependency[Receiving],
) -> Response[bytes]:
    """Section 4.6.4."""
    upload = await find_session(request, uploads, upload_id, KIND)
    upload = await receive_block(request, uploads, upload)
    if upload.complete and not upload.finished:
        await receiving.complete(upload)
        upload = await uploads.find(upload.team_id, upload.upload_id)
        if upload.finished and upload.file_size <= _WAITED_FOR:
            await _wait(database, upload)
    return Response(b"", status_code=204 if upload.finished else 202)


@get(
    "/collections/v1/upload/{upload_id:str}",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get a collection's upload",
    description="Which bytes have arrived: `received` has ranges whose ends belong to them.",
)
async def get_upload(
    request: BlockRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> Response[bytes]:
    """Where to go on after a cut."""
    upload = await find_session(request, uploads, upload_id, KIND)
    received = ((0, upload.file_size),) if upload.finished else upload.received
    body = {
        "id": upload.upload_id,
        "collectionId": upload.target,
        "blockSize": upload.block_size,
        "fileSize": upload.file_size,
        "received": [{"start": start, "end": stop - 1} for start, stop in received],
        "complete": upload.finished,
    }
    return json_response(msgspec.json.encode(body))


@delete(
    "/collections/v1/upload/{upload_id:str}",
    status_code=204,
    opt=_POLICY,
    tags=_TAGS,
    summary="Cancel a collection's upload",
)
async def cancel_upload(
    request: BlockRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> None:
    """Forget what has arrived. A file that is complete stays."""
    await uploads.cancel(await find_session(request, uploads, upload_id, KIND))


def _record(connection: Connection, team_id: int, row: FileRow) -> bool | None:
    """Make the file the collection's newest. None: the collection is gone; False: the session is."""
    if queries.one(connection, team_id, row.collection_id, lock=True) is None:
        return None
    if queries.file(connection, team_id, row.file_id) is not None:
        return True
    if not upload_queries.finish(connection, team_id, row.file_id, row.uploaded_at):
        return False
    return queries.add_file(connection, team_id, row)


async def _wait(database: Database, upload: Upload) -> None:
    """Wait a little for the file to be read, whichever process does it."""
    until = asyncio.get_running_loop().time() + WAIT_SECONDS
    looks = 0
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_LOOK_SECONDS[min(looks, len(_LOOK_SECONDS) - 1)])
        looks += 1
        row = await database.read(queries.file, upload.team_id, upload.upload_id)
        if row is None or row.state != IMPORTING:
            return


route_handlers = [open_upload, send_block, get_upload, cancel_upload]
