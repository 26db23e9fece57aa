"""What a session of an upload is: its state as plain data, its ranges, and how it refuses."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from storage.blobs import new_key
from storage.queries.uploads import Block, UploadRow


class UploadProblem(Exception):
    """A refusal; nothing that was received before is changed by it, unless it says so.

    Args:
        detail: what is wrong and what to do about it.
        field: the header or member at fault.
    """

    code = "upload-refused"

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class BadRange(UploadProblem):
    """Bytes that do not fit into the file or into what was announced."""

    code = "invalid-range"


class Differs(UploadProblem):
    """Other bytes were received at this place."""

    code = "range-differs"


class HashMismatch(UploadProblem):
    """The file is not the declared one; in a session, all that was received is forgotten."""

    code = "hash-mismatch"


class TooLarge(UploadProblem):
    """More bytes than are taken."""

    code = "too-large"


class NoSuchUpload(UploadProblem):
    """No session of this id, not the team's, or given up."""

    code = "upload-not-found"


class Expired(UploadProblem):
    """The session ended before the file was complete."""

    code = "upload-expired"


class Upload(msgspec.Struct, frozen=True, kw_only=True):
    """One session as it was when it was looked at.

    Attributes:
        block_size: the most bytes of one write; 0: any number.
        sha256: as declared.
        expires_at: moves on with every block.
        received: what is there, ascending, half-open, neighbours merged; empty again once it is finished.
        blocks: in how many rows it is kept.
    """

    upload_id: str
    team_id: int
    kind: str
    target: str
    file_name: str | None
    content_type: str | None
    block_size: int
    file_size: int
    sha256: bytes | None
    subject_id: str
    created_at: int
    expires_at: int
    finished: bool
    received: tuple[tuple[int, int], ...]
    blocks: int

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived."""
        return self.finished or self.file_size == 0 or self.received == ((0, self.file_size),)


class Assembled(NamedTuple):
    """A file in one blob, which nothing refers to yet. ``first_bytes``: enough to tell its type."""

    blob_key: str
    size: int
    sha256: bytes
    first_bytes: bytes


def usable(row: UploadRow | None, now: int) -> UploadRow:
    """The session, if it can still be used.

    Raises:
        NoSuchUpload: there is none, or it was given up.
        Expired: it ended.
    """
    if row is None or row.expires_at == 0:
        raise gone()
    if row.expires_at <= now:
        raise Expired("The session has expired; open a new one and send the file again.")
    return row


def gone() -> NoSuchUpload:
    """The refusal of a session that is none."""
    return NoSuchUpload("There is no such upload.")


def upload_of(row: UploadRow, blocks: Sequence[Block]) -> Upload:
    """A row and its blocks as a session."""
    return Upload(
        upload_id=row.upload_id,
        team_id=row.team_id,
        kind=row.kind,
        target=row.target,
        file_name=row.file_name,
        content_type=row.content_type,
        block_size=row.block_size,
        file_size=row.file_size,
        sha256=row.sha256,
        subject_id=row.subject_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        finished=row.finished_at is not None,
        received=merged(blocks),
        blocks=len(blocks),
    )


def merged(blocks: Sequence[Block]) -> tuple[tuple[int, int], ...]:
    """Ranges of blocks, neighbours as one."""
    ranges: list[tuple[int, int]] = []
    for start, stop, _ in blocks:
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    return tuple(ranges)


def assembled_key(team_id: int, created_at: int, upload_id: str) -> str:
    """Where the whole file of a session goes: one place, whoever puts it together and how often."""
    return f"{new_key(team_id, created_at).rpartition('/')[0]}/{upload_id}"


def check_range(upload: Upload, start: int, length: int | None) -> None:
    """Raise :class:`BadRange` unless these bytes fit into the file and the block size."""
    stop = start + (length or 0)
    if start < 0 or stop > upload.file_size:
        raise BadRange(f"The file has {upload.file_size:,} bytes; this goes to {stop:,}.", "Content-Range")
    if upload.block_size and length is not None and length > upload.block_size:
        raise BadRange(
            f"A block has at most {upload.block_size:,} bytes; this one has {length:,}.", "Content-Range"
        )
