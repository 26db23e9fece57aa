"""Reading files: what is known of one, its content and thumbnails, the files of a job, all of them as a ZIP.

Contents are not sent by these routes, the ZIP apart: they answer addresses that work for 65 minutes without
a token (section 3.5.4), so that browsers and image views can use them.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import msgspec
from litestar import HttpMethod, Response, delete, get, route
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response import Stream

from media.details import Thumbnail
from server.attachments.archive import archive, file_name_of, safe_name
from server.attachments.forgetting import delete_now, details_of, forget
from server.clock import now
from server.errors import Problem
from server.http import json_response, skip_and_limit
from server.jobs.intake import JobRequest
from server.jobs.reading import not_found as job_not_found
from storage.blobs import BlobNotFound, BlobSizeDiffers, BlobStore, content_disposition
from storage.database import Connection, Database
from storage.queries import attachments as queries
from storage.queries.attachment_references import MISSING
from storage.queries.attachments import AttachmentRow
from storage.queries.jobs import JobView, by_client_job_id
from sync.values import format_time

_TAGS = ["Attachments"]
#: Rows fetched at a time for an archive.
_PAGE = 200
#: Addresses in it expire, and whoever has one needs no token.
_NO_STORE = {"Cache-Control": "private, no-store"}
THUMBNAIL_TYPE = "image/jpeg"
RECEIVING = "receiving"


class Found(NamedTuple):
    """An attachment as one caller sees it."""

    row: AttachmentRow
    arriving: bool
    # The clientJobIds of the jobs that refer to it: of the caller's own, if it sees no others.
    jobs: list[str]


def not_found() -> Problem:
    """The one answer for an attachment that is not there, not the team's, or not the caller's to see."""
    return Problem(404, "attachment-not-found", "There is no such attachment.")


def _one(
    connection: Connection, team_id: int, attachment_id: str, own_of: str | None, at: int
) -> Found | None:
    row = queries.one(connection, team_id, attachment_id)
    if row is None:
        return None
    jobs = [job for _, job in queries.jobs_of(connection, team_id, attachment_id, own_of)]
    if own_of is not None and row.uploaded_by != own_of and not jobs:
        return None
    return Found(row, bool(queries.arriving(connection, team_id, [attachment_id], at)), jobs)


async def _load(request: JobRequest, database: Database, attachment_id: str) -> Found:
    user = request.user
    own_of = user.subject_id if user.own_work_only else None
    found = await database.read(_one, user.team_id, attachment_id, own_of, now())
    if found is None:
        raise not_found()
    return found


def address(blobs: BlobStore, row: AttachmentRow, thumbnail: Thumbnail | None = None) -> str | None:
    """Where the file or one of its thumbnails can be read for 65 minutes; None while there is no file."""
    if row.blob_key is None:
        return None
    name = file_name_of(row)
    if thumbnail is None:
        kind = row.content_type or "application/octet-stream"
        return blobs.get_url(row.blob_key, content_type=kind, file_name=name)
    name = f"{name.rpartition('.')[0] or name} {thumbnail.size}.jpg"
    return blobs.get_url(thumbnail.key, content_type=THUMBNAIL_TYPE, file_name=name)


def _time(microseconds: int | None) -> str | None:
    return None if microseconds is None else format_time(microseconds)


def _document(row: AttachmentRow, arriving: bool, blobs: BlobStore) -> dict[str, Any]:
    details = details_of(row)
    return {
        "attachmentId": row.attachment_id,
        "state": RECEIVING if arriving and row.state == MISSING else row.state,
        "fileName": row.file_name,
        "contentType": row.content_type,
        "declaredType": row.declared_type,
        "size": row.size,
        "sha256": None if row.sha256 is None else row.sha256.hex(),
        "created": format_time(row.created_at),
        "stored": _time(row.stored_at),
        "uploadedBy": row.uploaded_by,
        "failure": row.failure,
        "downloadUrl": address(blobs, row),
        "width": details.width,
        "height": details.height,
        "takenAt": details.takenAt,
        "latitude": details.latitude,
        "longitude": details.longitude,
        "durationSeconds": details.durationSeconds,
        "thumbnails": [
            {
                "size": thumbnail.size,
                "width": thumbnail.width,
                "height": thumbnail.height,
                "downloadUrl": address(blobs, row, thumbnail),
            }
            for thumbnail in details.thumbnails
        ],
    }


@get(
    "/attachments/v1/{attachment_id:str}",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get an attachment",
    description="State, size, hash, where and when a picture was taken, and addresses of the file and its "
    "thumbnails that work for 65 minutes. Field workers see what they uploaded and the files of their jobs.",
)
async def get_attachment(
    request: JobRequest,
    attachment_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """What is known of one file."""
    found = await _load(request, database, attachment_id)
    document = {**_document(found.row, found.arriving, blobs), "jobs": found.jobs}
    return json_response(msgspec.json.encode(document), _NO_STORE)


@route(
    "/attachments/v1/{attachment_id:str}/content",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=302,
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get an attachment's content",
    description="Redirects to an address that works for 65 minutes. "
    "`?size=small`, `medium` or `large`: to that thumbnail.",
)
async def get_content(
    request: JobRequest,
    attachment_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """The file, by one more request."""
    row = (await _load(request, database, attachment_id)).row
    size = request.query_params.get("size")
    if size:
        made = {thumbnail.size: thumbnail for thumbnail in details_of(row).thumbnails}
        if size not in made:
            raise Problem(
                404,
                "thumbnail-not-found",
                "There is no such thumbnail of this file, or not yet.",
                field="size",
            )
        place = address(blobs, row, made[size])
    else:
        place = address(blobs, row)
    if place is None:
        raise Problem(404, "attachment-missing", "The file has not arrived yet.")
    return Response(b"", status_code=302, headers={"Location": place, **_NO_STORE})


@delete(
    "/attachments/v1/{attachment_id:str}",
    status_code=204,
    opt={"policy": "Job_Modify"},
    tags=_TAGS,
    summary="Delete an attachment",
    description="Deletes the file and its thumbnails. Where jobs refer to it, it is missing again, and any "
    "content may be sent under its id.",
)
async def delete_attachment(
    request: JobRequest,
    attachment_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> None:
    """Give up a file."""

    def work(connection: Connection) -> list[str] | None:
        keys = forget(connection, request.user.team_id, attachment_id, now())
        if keys is None and queries.one(connection, request.user.team_id, attachment_id) is None:
            raise not_found()
        return keys

    keys = await database.write(work)
    if keys:
        await delete_now(blobs, keys)


def _job(connection: Connection, team_id: int, client_job_id: str, own_of: str | None) -> JobView:
    job = by_client_job_id(connection, team_id, client_job_id)
    if job is None or (own_of is not None and job.owner_id != own_of):
        raise job_not_found()
    return job


def _listed(
    connection: Connection, request: JobRequest, client_job_id: str, skip: int, limit: int, at: int
) -> tuple[list[AttachmentRow], set[str]]:
    user = request.user
    job = _job(connection, user.team_id, client_job_id, user.subject_id if user.own_work_only else None)
    rows = queries.of_job(connection, user.team_id, job.job_id, "", limit, skip)
    missing = [row.attachment_id for row in rows if row.state == MISSING]
    return rows, queries.arriving(connection, user.team_id, missing, at)


@get(
    "/jobs/v1/{client_job_id:str}/attachments",
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get the attachments of a job",
    description="Every file that the job refers to, those that have not arrived included, in the order of "
    "their ids. Query parameters: `skip` (0), `limit` (20, at most 1,000).",
)
async def get_attachments_of_job(
    request: JobRequest,
    client_job_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """The files of a job, in pages."""
    skip, limit = skip_and_limit(request)
    rows, arriving = await database.read(_listed, request, client_job_id, skip, limit, now())
    documents = [_document(row, row.attachment_id in arriving, blobs) for row in rows]
    return json_response(msgspec.json.encode(documents), _NO_STORE)


class _Header(msgspec.Struct):
    jobTitle: Any = None


class _Job(msgspec.Struct):
    metadata: _Header = msgspec.field(default_factory=_Header)


_title = msgspec.json.Decoder(_Job)


def _archive_name(job: JobView) -> str:
    title = _title.decode(job.view).metadata.jobTitle
    name = safe_name(title.replace("/", "-").replace("\\", "-")) if isinstance(title, str) else ""
    return f"{name or safe_name(job.client_job_id) or 'job'}.zip"


async def _pages(database: Database, team_id: int, job_id: str) -> AsyncIterator[list[AttachmentRow]]:
    after = ""
    while True:
        rows = await database.read(queries.of_job, team_id, job_id, after, _PAGE)
        yield rows
        if len(rows) < _PAGE:
            return
        after = rows[-1].attachment_id


@route(
    "/jobs/v1/{client_job_id:str}/attachments.zip",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    opt={"policy": "Job_Read"},
    tags=_TAGS,
    summary="Get all attachments of a job as a ZIP",
    description="Every file of the job that has arrived, uncompressed, and `manifest.json` with hashes and what "
    "is missing. If a file cannot be read half-way, the connection breaks off and the archive is incomplete.",
)
async def get_archive(
    request: JobRequest,
    client_job_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[Any]:
    """All files of a job in one."""
    user = request.user
    own_of = user.subject_id if user.own_work_only else None
    job = await database.read(_job, user.team_id, client_job_id, own_of)
    headers = {
        "Content-Disposition": content_disposition(_archive_name(job), inline=False),
        "X-Content-Type-Options": "nosniff",
        **_NO_STORE,
    }
    if request.method == "HEAD":
        return Stream(_nothing(), media_type="application/zip", headers=headers)
    parts = archive(_pages(database, user.team_id, job.job_id), blobs)
    try:
        # Whatever fails before the first part is sent can still be answered properly.
        first = await anext(parts)
    except (BlobNotFound, BlobSizeDiffers):
        raise Problem(
            503, "archive-interrupted", "A file was deleted while the archive was made. Ask again."
        ) from None
    return Stream(_resumed(first, parts), media_type="application/zip", headers=headers)


async def _resumed(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for part in rest:
            yield part


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


route_handlers = [
    get_attachment,
    get_content,
    delete_attachment,
    get_attachments_of_job,
    get_archive,
]
