"""Uploads: files on their way in, block by block."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

uploads = Table(
    "uploads",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time.
    Column("upload_id", Text, primary_key=True),
    # What becomes of the file: `attachment`; workflows and collections follow.
    Column("kind", Text, nullable=False),
    # What it becomes: the id of the attachment.
    Column("target", Text, nullable=False),
    Column("file_name", Text),
    Column("content_type", Text),
    # The largest block that is taken, bytes; 0: of any size (tus).
    Column("block_size", Integer, nullable=False),
    Column("file_size", BigInteger, nullable=False),
    # As declared; null if it was not.
    Column("sha256", LargeBinary),
    Column("subject_id", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # When the file was taken over; its blocks are gone then.
    Column("finished_at", BigInteger),
    Index("ix_uploads_target", "team_id", "kind", "target"),
    Index("ix_uploads_expires", "expires_at"),
)

upload_blocks = Table(
    "upload_blocks",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("upload_id", Text, primary_key=True),
    # The block holds the bytes from `start` up to and without `stop`.
    Column("start", BigInteger, primary_key=True),
    Column("stop", BigInteger, nullable=False),
    Column("blob_key", Text, nullable=False),
)
