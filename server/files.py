"""Signed addresses of files in the folder: what S3 does itself, done here for a store that is a folder.

Who has the address may read the file, or store exactly what was signed, until it expires. An address is a
secret: it is in no log line of ours, and the server writes no access log.
"""

import re
from collections.abc import AsyncIterator
from typing import Any, Literal, NamedTuple

from litestar import HttpMethod, Request, Response, put, route
from litestar.di import NamedDependency
from litestar.exceptions import InternalServerException
from litestar.params import FromPath
from litestar.response import Stream

from server.auth.policies import PUBLIC
from server.errors import Problem
from storage.blobs import (
    Address,
    AddressExpired,
    AddressInvalid,
    BlobInfo,
    BlobNotFound,
    BlobSizeDiffers,
    BlobStore,
    FolderBlobs,
    content_disposition,
)
from sync.etag import matches

_PATH = "/files/v1/{token:str}"
_TAGS = ["Files"]
#: What a file may do in a browser: nothing. Its content is whatever somebody uploaded.
_HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cache-Control": "private",
    "Referrer-Policy": "no-referrer",
}
_ONE_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{0,18})|-\s*(\d{1,18}))\s*", re.ASCII)
_PRINTABLE = re.compile(r"[\x20-\x7e]+")

FileRequest = Request[Any, Any, Any]


class _Range(NamedTuple):
    """Half-open, within the file, not empty."""

    start: int
    stop: int


def _address(blobs: BlobStore, token: str, method: Literal["GET", "PUT"]) -> tuple[FolderBlobs, Address]:
    """What the token allows, if it allows ``method``.

    Raises:
        Problem: 403 ``address-invalid`` or ``address-expired``; 404 where S3 answers the addresses.
    """
    if not isinstance(blobs, FolderBlobs):
        raise Problem(404, "no-such-route", "Files are not served here. See /schema/openapi.json.")
    try:
        address = blobs.address(token)
    except AddressInvalid:
        raise _invalid() from None
    except AddressExpired:
        raise Problem(403, "address-expired", "The address has expired. Ask for a new one.") from None
    if address.method != method:
        raise _invalid()
    return blobs, address


def _invalid() -> Problem:
    return Problem(403, "address-invalid", "The address is not one of ours, or was made for something else.")


@route(
    _PATH,
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    status_code=200,
    opt={"policy": PUBLIC},
    tags=_TAGS,
    summary="Read a file at its signed address",
    description="With Range, If-Range and If-None-Match. The address is a `downloadUrl` of another answer.",
)
async def read_file(
    request: FileRequest, token: FromPath[str], blobs: NamedDependency[BlobStore]
) -> Response[bytes] | Stream:
    """GET and HEAD (RFC 9110, sections 13 and 14)."""
    folder, address = _address(blobs, token, "GET")
    info = await folder.info(address.key)
    if info is None:
        raise Problem(404, "file-not-found", "The file was deleted.")
    etag = f'"{info.version}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", **_HARMLESS}
    known = request.headers.get("if-none-match")
    if known is not None and matches(known, etag):
        return Response(b"", status_code=304, headers=headers)
    part = _wanted(request, info, etag)
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{info.size}"
    start, stop = part or (0, info.size)
    # A type that cannot stand in a header was never signed by us; other text in it may not end the header.
    content_type = address.content_type
    headers |= {
        "Content-Type": content_type if _PRINTABLE.fullmatch(content_type) else "application/octet-stream",
        "Content-Disposition": content_disposition(address.file_name, address.inline),
        "Content-Length": str(stop - start),
    }
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(b"", status_code=status, headers=headers)
    chunks = folder.get(address.key, start, stop)
    # Opened before the answer begins: what goes wrong up to here is said with a status.
    try:
        first = await anext(chunks, b"")
    except BlobNotFound:
        raise Problem(404, "file-not-found", "The file was deleted.") from None

    async def content() -> AsyncIterator[bytes]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    return Stream(content(), status_code=status, headers=headers)


def _wanted(request: FileRequest, info: BlobInfo, etag: str) -> _Range | None:
    """The one range that is asked for; None for the whole file.

    Several ranges, other units and what is no range are ignored, as RFC 9110, 14.2 allows.

    Raises:
        Problem: 416 ``range-not-satisfiable`` if nothing of the file is in it.
    """
    header = request.headers.get("range")
    condition = request.headers.get("if-range")
    # Ours are no dates, so an If-Range with one never matches. It compares strongly: RFC 9110, 13.1.5.
    if header is None or request.method != "GET" or (condition is not None and condition.strip() != etag):
        return None
    found = _ONE_RANGE.fullmatch(header.strip())
    if found is None:
        return None
    first, last, suffix = found.groups()
    if suffix is not None:
        part = _Range(max(0, info.size - int(suffix)), info.size)
    else:
        if last and int(last) < int(first):
            return None
        part = _Range(int(first), min(int(last) + 1, info.size) if last else info.size)
    if part.start >= part.stop:
        raise Problem(
            416,
            "range-not-satisfiable",
            f"The file has {info.size} bytes.",
            headers={"Content-Range": f"bytes */{info.size}", "ETag": etag},
        )
    return part


@put(
    _PATH,
    status_code=200,
    opt={"policy": PUBLIC},
    tags=_TAGS,
    summary="Store a file at its signed address",
    description="The body's Content-Type and Content-Length must be the ones the address was made for.",
    # The size that was signed is the limit.
    request_max_body_size=None,
)
async def store_file(
    request: FileRequest, token: FromPath[str], blobs: NamedDependency[BlobStore]
) -> Response[bytes]:
    """PUT, as S3 takes it: nothing in the body, the ETag in a header."""
    folder, address = _address(blobs, token, "PUT")
    length = request.headers.get("content-length")
    if length is None:
        raise Problem(411, "length-required", "The request needs a Content-Length.")
    if not (length.isascii() and length.isdigit()) or len(length) > 18 or int(length) < address.size:
        raise _invalid()
    if int(length) > address.size:
        raise Problem(413, "too-large", f"The address takes exactly {address.size} bytes.")
    if request.headers.get("content-type") != address.content_type:
        raise _invalid()
    try:
        await folder.put(address.key, request.stream(), content_type=address.content_type, size=address.size)
    except BlobSizeDiffers as error:
        raise Problem(400, "bad-request", f"{error}.") from None
    except InternalServerException:
        # So the framework calls a client that hung up. Nobody reads this; it is no error of ours.
        raise Problem(400, "bad-request", "The body ended too early.") from None
    info = await folder.info(address.key)
    return Response(b"", headers={"ETag": f'"{info.version if info else ""}"'})


route_handlers = [read_file, store_file]
