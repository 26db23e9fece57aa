"""The headers of tus 1.0.0 (https://tus.io/protocols/resumable-upload), read and written.

Nothing here knows of requests or of storage: text in, values or a refusal out.
"""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, NamedTuple

from server.errors import Problem

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,checksum,expiration,termination"
ALGORITHMS = ("sha1", "sha256", "md5")
CONTENT_TYPE = "application/offset+octet-stream"

#: The protocol's own status for a chunk whose checksum differs.
CHECKSUM_MISMATCH = 460

#: Longest Upload-Metadata that is read; servers before us may cut headers earlier.
_MAX_METADATA = 8192
#: 18 digits fit into every integer of a database.
_MAX_DIGITS = 18


def check_version(headers: Mapping[str, str]) -> None:
    """Refuse a request of another version of the protocol, or of none.

    Raises:
        Problem: 412 ``unsupported-tus-version`` with the version we speak.
    """
    if headers.get("tus-resumable") != VERSION:
        raise Problem(
            412,
            "unsupported-tus-version",
            f"This address speaks tus {VERSION}: send Tus-Resumable: {VERSION}.",
            headers={"Tus-Version": VERSION},
        )


def whole_number(headers: Mapping[str, str], name: str) -> int:
    """The header ``name``, a whole number that is not negative.

    Raises:
        Problem: 400 ``invalid-tus-header`` if it is missing or anything else.
    """
    text = headers.get(name.lower(), "")
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        raise invalid(name, f"{name} must be a whole number of bytes.")
    return int(text)


def invalid(name: str, detail: str) -> Problem:
    """The refusal of a header of the protocol."""
    return Problem(400, "invalid-tus-header", detail, field=name)


def parse_metadata(text: str) -> dict[str, str]:
    """Upload-Metadata: pairs of a key and a value in base64, separated by commas.

    A key alone has the empty value.

    Raises:
        Problem: 400 ``invalid-tus-header``: a key twice, no base64, no UTF-8, or too long.
    """
    if len(text) > _MAX_METADATA:
        raise invalid("Upload-Metadata", f"Upload-Metadata may have {_MAX_METADATA:,} characters.")
    found: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not key or not key.isascii() or key in found:
            raise invalid("Upload-Metadata", "Each key of Upload-Metadata must be ASCII and stand once.")
        try:
            found[key] = base64.b64decode(value.strip(), validate=True).decode()
        except (binascii.Error, UnicodeError):
            raise invalid(
                "Upload-Metadata", f"The value of {key} in Upload-Metadata must be UTF-8 in base64."
            ) from None
    return found


def format_metadata(values: Mapping[str, str | None]) -> str:
    """Upload-Metadata with the values that are there."""
    return ",".join(
        f"{key} {base64.b64encode(value.encode()).decode()}"
        for key, value in values.items()
        if value is not None
    )


class Checksum(NamedTuple):
    """What Upload-Checksum says the bytes of one request hash to."""

    algorithm: str
    digest: bytes

    def new(self) -> Any:
        """An empty hash of the algorithm. Integrity in transit is all it is for."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def parse_checksum(text: str | None) -> Checksum | None:
    """Upload-Checksum, None if it was not sent.

    Raises:
        Problem: 400 ``invalid-tus-header``: another algorithm, or no digest of it in base64.
    """
    if text is None:
        return None
    algorithm, _, encoded = text.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise invalid("Upload-Checksum", f"Upload-Checksum takes {', '.join(ALGORITHMS)}.")
    try:
        checksum = Checksum(algorithm, base64.b64decode(encoded.strip(), validate=True))
    except binascii.Error:
        raise invalid("Upload-Checksum", "The digest of Upload-Checksum must be base64.") from None
    if len(checksum.digest) != checksum.new().digest_size:
        raise invalid("Upload-Checksum", f"That is no digest of {algorithm}.")
    return checksum


def format_date(microseconds: int) -> str:
    """A point in time for Upload-Expires: RFC 9110, 5.6.7, in whole seconds."""
    return format_datetime(datetime.fromtimestamp(microseconds // 1_000_000, UTC), usegmt=True)
