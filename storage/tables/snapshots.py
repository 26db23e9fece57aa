"""Snapshots: the history. Every distinct body of a job, once, as the tablet sent it."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

snapshots = Table(
    "snapshots",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("job_id", Text, primary_key=True),
    # Over canonical JSON without `sync`: this key is what makes "once" true.
    Column("body_hash", LargeBinary, primary_key=True),
    Column("snapshot_id", Text, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("install_id", Text, nullable=False),
    Column("push_seq", BigInteger),
    Column("received_at", BigInteger, nullable=False),
    Column("clock_offset", BigInteger, nullable=False),
    Column("size", Integer, nullable=False),
    # zstd; fewer WAL bytes for each push.
    Column("body", LargeBinary, nullable=False),
)
