"""The change feed: a head per team, and for each job the sequence number of its latest change."""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

feeds = Table(
    "feeds",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # Part of every ETag. A server restored from a backup gets a new one, so that no device
    # mistakes a revision it saw before the loss for one made after it.
    Column("incarnation", Text, nullable=False),
    Column("head", BigInteger, nullable=False),
    # How many jobs were completed for the first time: the last number of `completed_jobs`.
    Column("completions", BigInteger, nullable=False, server_default="0"),
)

#: Apart from `jobs`, because it is written last in every transaction and must be cheap to rewrite.
feed_entries = Table(
    "feed_entries",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("job_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Index("ix_feed_entries_seq", "team_id", "seq", unique=True),
    sqlite_with_rowid=False,
)
