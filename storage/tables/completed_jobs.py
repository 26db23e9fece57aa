"""Completed jobs: what queries find them by, in the order in which they were completed.

Written in the transaction that completes a job, so that whoever follows the sequence misses none and meets none twice.
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

completed_jobs = Table(
    "completed_jobs",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # The how-manieth completion of the team this was; a job that is completed once more keeps its first number.
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    # seq // 1,000; with it the indexes of the times tell in which thousands of the sequence there are jobs of a time.
    Column("block", BigInteger, nullable=False),
    Column("job_id", Text, nullable=False),
    # Completed or Abandoned now, and not excluded: what queries show unless they are asked for more.
    Column("listed", Boolean, nullable=False),
    # Completed or Abandoned now. A job that was taken up again is not, and keeps its place.
    Column("completed", Boolean, nullable=False),
    # As the job says them, cut to what an index takes (`storage.queries.completed_jobs.cut`).
    Column("workflow_id", Text),
    Column("workflow_title", Text),
    Column("user_id", Text),
    Column("user_name", Text),
    Column("job_title", Text),
    # The document's own times; the tablet's clock. NULL where the job says none.
    Column("created_at", BigInteger),
    Column("updated_at", BigInteger),
    # Ours.
    Column("modified_at", BigInteger, nullable=False),
    Index("ix_completed_jobs_job", "team_id", "job_id", unique=True),
    Index("ix_completed_jobs_workflow_id", "team_id", "workflow_id", "seq"),
    Index("ix_completed_jobs_workflow_title", "team_id", "workflow_title", "seq"),
    Index("ix_completed_jobs_user_id", "team_id", "user_id", "seq"),
    Index("ix_completed_jobs_user_name", "team_id", "user_name", "seq"),
    Index("ix_completed_jobs_job_title", "team_id", "job_title", "seq"),
    Index("ix_completed_jobs_created", "team_id", "block", "created_at"),
    Index("ix_completed_jobs_updated", "team_id", "block", "updated_at"),
    Index("ix_completed_jobs_modified", "team_id", "block", "modified_at"),
    sqlite_with_rowid=False,
)
