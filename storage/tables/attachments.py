"""Attachments: files of jobs, under the ids that devices chose, and which jobs refer to them."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_orphaned = text("orphaned_at IS NOT NULL")

attachments = Table(
    "attachments",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # The resource id that the device wrote into the step.
    Column("attachment_id", Text, primary_key=True),
    # missing (known by reference only), stored, ready (thumbnails made, or none to make), failed (no
    # thumbnails; the original can be downloaded). `receiving` is what an open upload makes of missing.
    Column("state", Text, nullable=False),
    # When it was first heard of.
    Column("created_at", BigInteger, nullable=False),
    # What follows is null until the file has arrived.
    Column("stored_at", BigInteger),
    Column("blob_key", Text),
    Column("size", BigInteger),
    Column("sha256", LargeBinary),
    Column("file_name", Text),
    # As the device declared it, and as the bytes say.
    Column("declared_type", Text),
    Column("content_type", Text),
    Column("uploaded_by", Text),
    # Why there are no thumbnails.
    Column("failure", Text),
    # JSON, see media/details.py: size and time of the picture, place, thumbnails.
    Column("details", LargeBinary),
    # Since when no job refers to it; null while one does.
    Column("orphaned_at", BigInteger),
    Index("ix_attachments_orphans", "orphaned_at", sqlite_where=_orphaned, postgresql_where=_orphaned),
)

attachment_references = Table(
    "attachment_references",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("attachment_id", Text, primary_key=True),
    Column("job_id", Text, primary_key=True),
    Index("ix_attachment_references_job", "team_id", "job_id"),
    sqlite_with_rowid=False,
)
