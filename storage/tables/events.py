"""Events: the outbox. A reaction's cause is written in the transaction of the change itself."""

from sqlalchemy import BigInteger, Column, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

events = Table(
    "events",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time.
    Column("event_id", Text, primary_key=True),
    # job.created, job.updated, job.completed, job.aborted, job.deleted, job.mediaComplete
    Column("type", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("client_job_id", Text, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
