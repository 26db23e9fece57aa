"""Uploads: sessions and the blocks that have arrived. A block is durable in the blob store before its row."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, delete, exists, insert, select, update

from storage.queries.statements import padded
from storage.tables import upload_blocks, uploads

#: The longest block there is, bytes. Longer ones are stored as several, so that a process needs no more
#: memory than this for one, and the blocks that overlap a range are found by looking this far back.
MAX_BLOCK = 4 * 1024 * 1024


class UploadRow(NamedTuple):
    """One session. ``expires_at`` 0: given up; what is left of it is being removed."""

    team_id: int
    upload_id: str
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
    finished_at: int | None


class Block(NamedTuple):
    """The bytes from ``start`` up to and without ``stop``: the whole of a blob."""

    start: int
    stop: int
    blob_key: str


_columns = [uploads.c[name] for name in UploadRow._fields]
_block_columns = [upload_blocks.c[name] for name in Block._fields]


def add(connection: Connection, row: UploadRow) -> None:
    """A new session."""
    connection.execute(insert(uploads), row._asdict())


def one(connection: Connection, team_id: int, upload_id: str, lock: bool = False) -> UploadRow | None:
    """A session; ``lock``: until the transaction ends nobody else changes it or its blocks."""
    query = select(*_columns).where(uploads.c.team_id == team_id, uploads.c.upload_id == upload_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return UploadRow(*row) if row else None


def open_one(connection: Connection, like: UploadRow, now: int) -> UploadRow | None:
    """The newest open session of the same subject for the same file, sent in blocks."""
    query = (
        select(*_columns)
        .where(
            uploads.c.team_id == like.team_id,
            uploads.c.kind == like.kind,
            uploads.c.target == like.target,
            uploads.c.subject_id == like.subject_id,
            uploads.c.file_size == like.file_size,
            uploads.c.sha256.is_(None) if like.sha256 is None else uploads.c.sha256 == like.sha256,
            uploads.c.block_size > 0,
            uploads.c.finished_at.is_(None),
            uploads.c.expires_at > now,
        )
        .order_by(uploads.c.upload_id.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return UploadRow(*row) if row else None


def blocks(connection: Connection, team_id: int, upload_id: str) -> list[Block]:
    """What has arrived, ascending. No two blocks overlap."""
    query = (
        select(*_block_columns)
        .where(upload_blocks.c.team_id == team_id, upload_blocks.c.upload_id == upload_id)
        .order_by(upload_blocks.c.start)
    )
    return [Block(*row) for row in connection.execute(query)]


def overlapping(connection: Connection, team_id: int, upload_id: str, start: int, stop: int) -> list[Block]:
    """The blocks that hold bytes of a range, ascending."""
    query = (
        select(*_block_columns)
        .where(
            upload_blocks.c.team_id == team_id,
            upload_blocks.c.upload_id == upload_id,
            upload_blocks.c.start > start - MAX_BLOCK,
            upload_blocks.c.start < stop,
            upload_blocks.c.stop > start,
        )
        .order_by(upload_blocks.c.start)
    )
    return [Block(*row) for row in connection.execute(query)]


def add_blocks(connection: Connection, team_id: int, upload_id: str, rows: Sequence[Block]) -> None:
    """Record blocks; the caller holds the session's lock and has seen that they overlap none."""
    connection.execute(
        insert(upload_blocks),
        [{"team_id": team_id, "upload_id": upload_id, **row._asdict()} for row in rows],
    )


def remove_blocks(connection: Connection, team_id: int, upload_id: str, keys: Sequence[str]) -> None:
    """Forget the blocks that these blobs hold."""
    for index in range(0, len(keys), 256):
        connection.execute(
            delete(upload_blocks).where(
                upload_blocks.c.team_id == team_id,
                upload_blocks.c.upload_id == upload_id,
                upload_blocks.c.blob_key.in_(padded(keys[index : index + 256])),
            )
        )


def extend(connection: Connection, team_id: int, upload_id: str, expires_at: int) -> None:
    """Let a session live until then, at least."""
    connection.execute(
        update(uploads)
        .where(
            uploads.c.team_id == team_id,
            uploads.c.upload_id == upload_id,
            uploads.c.expires_at < expires_at,
        )
        .values(expires_at=expires_at)
    )


def finish(connection: Connection, team_id: int, upload_id: str, now: int) -> bool:
    """Mark a session as taken over, in the transaction that records what became of it.

    Answers False if it was given up or has expired: its blobs may be on their way out.
    """
    row = one(connection, team_id, upload_id, lock=True)
    if row is None or row.expires_at <= now:
        return False
    if row.finished_at is None:
        connection.execute(
            update(uploads)
            .where(uploads.c.team_id == team_id, uploads.c.upload_id == upload_id)
            .values(finished_at=now)
        )
    return True


def give_up(connection: Connection, team_id: int, upload_id: str) -> UploadRow | None:
    """End a session before its time; answers it as it was."""
    row = one(connection, team_id, upload_id, lock=True)
    if row is not None:
        connection.execute(
            update(uploads)
            .where(uploads.c.team_id == team_id, uploads.c.upload_id == upload_id)
            .values(expires_at=0)
        )
    return row


def expired_with_blocks(connection: Connection, before: int, limit: int) -> list[UploadRow]:
    """Sessions that ended before then and still have blocks."""
    has_blocks = exists().where(
        upload_blocks.c.team_id == uploads.c.team_id, upload_blocks.c.upload_id == uploads.c.upload_id
    )
    query = select(*_columns).where(uploads.c.expires_at < before, has_blocks).limit(limit)
    return [UploadRow(*row) for row in connection.execute(query)]


def purge(connection: Connection, before: int) -> int:
    """Remove sessions without blocks that ended before then; answers how many."""
    has_blocks = exists().where(
        upload_blocks.c.team_id == uploads.c.team_id, upload_blocks.c.upload_id == uploads.c.upload_id
    )
    return connection.execute(delete(uploads).where(uploads.c.expires_at < before, ~has_blocks)).rowcount
