"""tus 1.0.0 for stock mobile libraries: a session by POST, its bytes by PATCH, where to go on by HEAD.

Extensions: creation, creation-with-upload, checksum, expiration, termination. The bytes go to the same engine
(media/uploads.py) and the finished file to the same place (taking.py) as in the block upload; a session of
tus is one without a block size.
"""

from typing import NoReturn
from urllib.parse import urlsplit

from litestar import Response, delete, head, patch, post, route
from litestar.di import NamedDependency
from litestar.enums import HttpMethod
from litestar.params import FromPath
from litestar.types import Message, Scope

from media.uploads import BadRange, NoSuchUpload, TooLarge, Upload, UploadProblem, Uploads
from server.attachments.intake import (
    MAX_FILE_BYTES,
    AttachmentRequest,
    checked_attachment_id,
    clean_content_type,
    sha256_of_hex,
)
from server.attachments.taking import UPLOAD_KIND, Taking
from server.attachments.tus_bodies import Body, Turn, Turns, checked
from server.attachments.tus_headers import (
    ALGORITHMS,
    CONTENT_TYPE,
    EXTENSIONS,
    VERSION,
    Checksum,
    check_version,
    format_date,
    format_metadata,
    invalid,
    parse_checksum,
    parse_metadata,
    whole_number,
)
from server.auth.policies import PUBLIC
from server.bodies import clean_file_name
from server.clock import now
from server.errors import Problem
from server.http import content_length
from server.settings import Settings

PATH = "/attachments/v1/tus"
_ONE = PATH + "/{tus_id:str}"
_POLICY = {"policy": "Workflow_Execute"}
_TAGS = ["Attachments"]

#: What a page of another origin may send and see (server/app.py).
REQUEST_HEADERS = (
    "Tus-Resumable",
    "Upload-Checksum",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "X-HTTP-Method-Override",
    "X-Request-ID",
)
ANSWER_HEADERS = (
    "Location",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
)

#: Of this process: what it orders are its own requests.
_turns = Turns()


async def say_version(message: Message, scope: Scope) -> None:
    """Put Tus-Resumable on every answer of these addresses, refusals of guard and router included."""
    if message["type"] == "http.response.start" and scope["path"].startswith(PATH):
        message["headers"] = [*message["headers"], (b"tus-resumable", VERSION.encode())]


@route(
    [PATH, _ONE],
    http_method=[HttpMethod.OPTIONS],
    status_code=204,
    opt={"policy": PUBLIC},
    tags=_TAGS,
    summary="tus: what is offered",
    sync_to_thread=False,
)
def offer() -> Response[None]:
    """Version, extensions and limits."""
    return _answer(
        204,
        {
            "Allow": "DELETE, HEAD, OPTIONS, PATCH, POST",
            "Tus-Version": VERSION,
            "Tus-Extension": EXTENSIONS,
            "Tus-Max-Size": str(MAX_FILE_BYTES),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


@post(
    PATH,
    status_code=201,
    opt=_POLICY,
    tags=_TAGS,
    summary="tus: begin an upload",
    description=(
        "Upload-Metadata must have `attachmentId`; `filename`, `filetype` and `sha256` (hex) are optional. The "
        "body may hold the first bytes."
    ),
    request_max_body_size=None,
)
async def begin(
    request: AttachmentRequest,
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
    settings: NamedDependency[Settings],
) -> Response[None]:
    """The extensions creation and creation-with-upload."""
    check_version(request.headers)
    size = _announced_size(request)
    values = parse_metadata(request.headers.get("upload-metadata", ""))
    attachment_id = checked_attachment_id(values.get("attachmentId") or values.get("id") or "")
    sha256 = values.get("sha256")
    with_bytes = request.headers.get("content-type") == CONTENT_TYPE
    if not with_bytes and content_length(request):
        raise _other_content_type()
    checksum = parse_checksum(request.headers.get("upload-checksum"))
    upload = await uploads.open(
        request.user.team_id,
        request.user.subject_id,
        UPLOAD_KIND,
        attachment_id,
        size,
        block_size=0,
        file_name=clean_file_name(values.get("filename") or values.get("name")),
        content_type=clean_content_type(values.get("filetype") or values.get("type")),
        sha256=sha256_of_hex(sha256, "sha256") if sha256 else None,
        now=now(),
    )
    try:
        if with_bytes:
            async with _turns.take((upload.team_id, upload.upload_id)) as turn:
                upload = await _append(request, uploads, settings, turn, upload, 0, checksum)
        upload = await _completed(upload, uploads, taking)
    except (Problem, UploadProblem):
        # The caller does not learn where the session is, so nobody would go on with it.
        await uploads.cancel(upload)
        raise
    headers = _expiry(upload)
    # A path works behind every proxy; a public address may have one of its own before it.
    headers["Location"] = f"{urlsplit(settings.base_url).path}{PATH}/{upload.upload_id}"
    if with_bytes:
        headers["Upload-Offset"] = str(_offset(upload))
    return _answer(201, headers)


@head(_ONE, opt=_POLICY, tags=_TAGS, summary="tus: where to go on")
async def show(
    request: AttachmentRequest,
    tus_id: FromPath[str],
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
) -> Response[None]:
    """How many bytes there are, once a request that is still at work on the upload has come to its end."""
    return await _show(request, tus_id, uploads, taking)


@patch(
    _ONE,
    status_code=204,
    opt=_POLICY,
    tags=_TAGS,
    summary="tus: go on",
    description="The next bytes. What arrives before a cut is kept, unless they come with a checksum.",
    request_max_body_size=None,
)
async def go_on(
    request: AttachmentRequest,
    tus_id: FromPath[str],
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
    settings: NamedDependency[Settings],
) -> Response[None]:
    """The core protocol and the extension checksum."""
    return await _go_on(request, tus_id, uploads, taking, settings)


@delete(_ONE, status_code=204, opt=_POLICY, tags=_TAGS, summary="tus: give an upload up")
async def give_up(
    request: AttachmentRequest, tus_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> Response[None]:
    """The extension termination. A file that is complete stays."""
    return await _give_up(request, tus_id, uploads)


@post(
    _ONE,
    status_code=204,
    opt=_POLICY,
    tags=_TAGS,
    summary="tus: another method",
    description="X-HTTP-Method-Override: PATCH, HEAD or DELETE, for clients that can send none of them.",
    request_max_body_size=None,
)
async def override(
    request: AttachmentRequest,
    tus_id: FromPath[str],
    uploads: NamedDependency[Uploads],
    taking: NamedDependency[Taking],
    settings: NamedDependency[Settings],
) -> Response[None]:
    """What the core protocol says of X-HTTP-Method-Override."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        return await _go_on(request, tus_id, uploads, taking, settings)
    if method == "HEAD":
        return await _show(request, tus_id, uploads, taking)
    if method == "DELETE":
        return await _give_up(request, tus_id, uploads)
    raise Problem(
        405,
        "method-not-allowed",
        "A POST to an upload needs X-HTTP-Method-Override: PATCH, HEAD or DELETE.",
        headers={"Allow": "DELETE, HEAD, OPTIONS, PATCH, POST"},
    )


async def _show(
    request: AttachmentRequest, upload_id: str, uploads: Uploads, taking: Taking
) -> Response[None]:
    check_version(request.headers)
    await _load(request, uploads, upload_id)  # who may not see it may not interrupt it either
    async with _turns.take((request.user.team_id, upload_id)):
        upload = await _load(request, uploads, upload_id)
        # Clients take the last offset for success: it is not told before the file is taken over.
        upload = await _completed(upload, uploads, taking)
    headers = _expiry(upload) | {
        "Cache-Control": "no-store",
        "Upload-Length": str(upload.file_size),
        "Upload-Offset": str(_offset(upload)),
        "Upload-Metadata": format_metadata(
            {
                "attachmentId": upload.target,
                "filename": upload.file_name,
                "filetype": upload.content_type,
                "sha256": upload.sha256.hex() if upload.sha256 else None,
            }
        ),
    }
    return _answer(200, headers)


async def _go_on(
    request: AttachmentRequest, upload_id: str, uploads: Uploads, taking: Taking, settings: Settings
) -> Response[None]:
    check_version(request.headers)
    if request.headers.get("content-type") != CONTENT_TYPE:
        raise _other_content_type()
    offset = whole_number(request.headers, "Upload-Offset")
    checksum = parse_checksum(request.headers.get("upload-checksum"))
    await _load(request, uploads, upload_id)  # who may not see it may not interrupt it either
    async with _turns.take((request.user.team_id, upload_id)) as turn:
        upload = await _load(request, uploads, upload_id)
        if offset != _offset(upload):
            _refuse_offset(upload)
        upload = await _append(request, uploads, settings, turn, upload, offset, checksum)
        upload = await _completed(upload, uploads, taking)
    return _answer(204, _expiry(upload) | {"Upload-Offset": str(_offset(upload))})


async def _give_up(request: AttachmentRequest, upload_id: str, uploads: Uploads) -> Response[None]:
    check_version(request.headers)
    await _load(request, uploads, upload_id)
    async with _turns.take((request.user.team_id, upload_id)):
        await uploads.cancel(await _load(request, uploads, upload_id))
    return _answer(204, {})


async def _load(request: AttachmentRequest, uploads: Uploads, upload_id: str) -> Upload:
    """The caller's session of tus; those who see the whole team see its sessions too."""
    user = request.user
    upload = await uploads.find(user.team_id, upload_id)
    if (
        upload.kind != UPLOAD_KIND
        or upload.block_size
        or (user.own_work_only and upload.subject_id != user.subject_id)
    ):
        raise NoSuchUpload("There is no such upload.")
    return upload


async def _append(
    request: AttachmentRequest,
    uploads: Uploads,
    settings: Settings,
    turn: Turn,
    upload: Upload,
    offset: int,
    checksum: Checksum | None,
) -> Upload:
    """Store the request's body at ``offset``.

    Raises:
        BadRange: it is longer than what is missing.
        Problem: 460 ``checksum-mismatch``; 409 ``offset-differs`` if a newer request took over.
    """
    left = upload.file_size - offset
    if (content_length(request) or 0) > left:
        raise BadRange(f"{left:,} bytes are missing; this is more.", field="Content-Length")
    body = Body(request.receive, turn)
    if checksum is None:
        upload = await uploads.write(upload, offset, body.chunks(), keep_partial=True)
    else:
        async with checked(body, checksum, settings.data, left) as chunks:
            upload = await uploads.write(upload, offset, chunks)
    if body.stopped:
        _refuse_offset(upload)
    return upload


async def _completed(upload: Upload, uploads: Uploads, taking: Taking) -> Upload:
    """The session after its file was taken over, if all of it is there."""
    if upload.complete and not upload.finished:
        await taking.complete(upload)
        upload = await uploads.find(upload.team_id, upload.upload_id)
    return upload


def _announced_size(request: AttachmentRequest) -> int:
    """Upload-Length.

    Raises:
        Problem: 400 ``invalid-tus-header``; 413 ``too-large``.
    """
    if "upload-defer-length" in request.headers:
        raise invalid("Upload-Defer-Length", "The length must be known when an upload begins: Upload-Length.")
    size = whole_number(request.headers, "Upload-Length")
    if size > MAX_FILE_BYTES:
        raise TooLarge(f"No file may have more than {MAX_FILE_BYTES:,} bytes.", field="Upload-Length")
    return size


def _offset(upload: Upload) -> int:
    """How far the file is there without a gap."""
    if upload.finished:
        return upload.file_size
    return upload.received[0][1] if upload.received and upload.received[0][0] == 0 else 0


def _refuse_offset(upload: Upload) -> NoReturn:
    raise Problem(
        409,
        "offset-differs",
        f"The upload goes on at {_offset(upload)}. Ask with HEAD where to go on.",
        field="Upload-Offset",
        headers={"Upload-Offset": str(_offset(upload))},
    )


def _other_content_type() -> Problem:
    return Problem(
        415, "unsupported-media-type", f"The bytes of a file come as {CONTENT_TYPE}.", field="Content-Type"
    )


def _expiry(upload: Upload) -> dict[str, str]:
    return {} if upload.finished else {"Upload-Expires": format_date(upload.expires_at)}


def _answer(status: int, headers: dict[str, str]) -> Response[None]:
    return Response(None, status_code=status, headers=headers)


route_handlers = [offer, begin, show, go_on, give_up, override]
