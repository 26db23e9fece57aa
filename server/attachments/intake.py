"""What every way of sending a file reads from a request: ids, names, types, hashes, the body as a stream."""

import base64
import binascii
import contextlib
import re
from email.message import Message
from typing import Any

from litestar import Request

from server.auth.principal import Principal
from server.bodies import clean_file_name
from server.errors import Problem
from storage.ids import MAX_ATTACHMENT_ID, is_attachment_id

AttachmentRequest = Request[Principal, Any, Any]

#: Largest file of one request. Beyond it a cut costs too much: blocks and tus go on where they were cut.
MAX_PUT_BYTES = 100_000_000
#: Largest file altogether.
MAX_FILE_BYTES = 2 * 1024**3
_MAX_TYPE = 255

#: Addresses of their own under /attachments/v1.
_RESERVED = frozenset({"upload", "tus"})
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
_DIGEST = re.compile(r"(?:^|[,\s])sha-256=:?([A-Za-z0-9+/]{43}=):?(?:[,;\s]|$)", re.IGNORECASE)
_SHA256_HEX = re.compile(r"[0-9a-fA-F]{64}")


def checked_attachment_id(text: str, field: str = "attachmentId") -> str:
    """``text`` as the id of a file.

    Raises:
        Problem: 422 ``invalid-attachment-id``.
    """
    if not is_attachment_id(text) or text.lower() in _RESERVED:
        raise Problem(
            422,
            "invalid-attachment-id",
            f"An attachment's id is 1 to {MAX_ATTACHMENT_ID} printable characters without slashes, and "
            "neither upload nor tus.",
            field=field,
        )
    return text


def clean_content_type(text: str | None) -> str | None:
    """A declared content type without its parameters; None if it is none."""
    kind = (text or "").partition(";")[0].strip().lower()
    return kind if len(kind) <= _MAX_TYPE and _TYPE.fullmatch(kind) else None


def sha256_of_hex(text: str, field: str) -> bytes:
    """A SHA-256 as 64 hex digits.

    Raises:
        Problem: 400 ``invalid-digest``.
    """
    if not _SHA256_HEX.fullmatch(text.strip()):
        raise Problem(400, "invalid-digest", f"{field} must be a SHA-256: 64 hex digits.", field=field)
    return bytes.fromhex(text.strip())


def declared_sha256(request: AttachmentRequest) -> bytes | None:
    """The hash in X-Content-SHA256 (hex), Repr-Digest, Content-Digest (RFC 9530) or Digest (RFC 3230).

    Other algorithms in the latter are passed over.

    Raises:
        Problem: 400 ``invalid-digest``.
    """
    text = request.headers.get("x-content-sha256")
    if text is not None:
        return sha256_of_hex(text, "X-Content-SHA256")
    for name in ("Repr-Digest", "Content-Digest", "Digest"):
        text = request.headers.get(name)
        if text is None or "sha-256" not in text.lower():
            continue
        found = _DIGEST.search(text)
        try:
            digest = base64.b64decode(found[1], validate=True) if found else b""
        except binascii.Error:
            digest = b""
        if len(digest) != 32:
            raise Problem(400, "invalid-digest", f"{name} must be like sha-256=:…:, in Base64.", field=name)
        return digest
    return None


def declared_file_name(request: AttachmentRequest) -> str | None:
    """The file name in Content-Disposition (RFC 6266), else in the parameter ``fileName``; cleaned."""
    header = request.headers.get("content-disposition")
    name: str | None = None
    if header is not None:
        message = Message()
        try:
            message["Content-Disposition"] = header.replace("\r", "").replace("\n", "")
            name = message.get_filename()
        except (ValueError, LookupError):  # a charset that does not exist
            name = None
    if name is not None:
        # Many send UTF-8 although headers are Latin-1.
        with contextlib.suppress(UnicodeError):
            name = name.encode("latin-1").decode("utf-8")
    return clean_file_name(name or request.query_params.get("fileName"))
