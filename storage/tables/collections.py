"""Collections: tables that the field looks things up in. Their records are files; see storage/records.py."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

collections = Table(
    "collections",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time.
    Column("collection_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    # Who made it.
    Column("user_id", Text, nullable=False),
    Column("user_name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # The file whose records are served; null before the first one.
    Column("current_file_id", Text),
    Index("ix_collections_name", "team_id", "name"),
)

collection_files = Table(
    "collection_files",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits: the upload it came by.
    Column("file_id", Text, primary_key=True),
    Column("collection_id", Text, nullable=False),
    # 1, 2, 3, … in the order in which the files of the collection were complete: of two, the later counts.
    Column("number", Integer, nullable=False),
    # importing, ready, failed, replaced (a later file came first).
    Column("state", Text, nullable=False),
    Column("file_name", Text),
    Column("file_size", BigInteger, nullable=False),
    Column("blob_key", Text, nullable=False),
    Column("uploaded_by", Text, nullable=False),
    Column("uploaded_at", BigInteger, nullable=False),
    Column("imported_at", BigInteger),
    # What was read: see server/collections.
    Column("record_count", Integer, nullable=False),
    # JSON: columns with name and type; encoding and separator; problems by line; why it failed.
    Column("details", LargeBinary, nullable=False),
    # The records with their indexes: a SQLite file in the blob store; null before they were read.
    Column("records_key", Text),
    Index("ix_collection_files_collection", "team_id", "collection_id", "number", unique=True),
)
