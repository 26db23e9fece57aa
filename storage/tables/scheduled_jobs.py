"""Scheduled jobs: work planned for people, its tasks, and the jobs that do them."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, SmallInteger, Table, Text, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_due = text("due_at IS NOT NULL AND deleted_at IS NULL AND state <> 'Completed' AND reminded < 2")
_listed = text("deleted_at IS NULL")

scheduled_jobs = Table(
    "scheduled_jobs",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time. The document calls it jobId.
    Column("scheduled_job_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # Scheduled or Completed.
    Column("state", Text, nullable=False),
    Column("priority", Boolean, nullable=False),
    Column("due_at", BigInteger),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # How far reminding has come: 0 not yet, 1 due soon, 2 overdue.
    Column("reminded", SmallInteger, nullable=False),
    Column("deleted_at", BigInteger),
    Index(
        "ix_scheduled_jobs_listed",
        "team_id",
        "scheduled_job_id",
        sqlite_where=_listed,
        postgresql_where=_listed,
    ),
    Index("ix_scheduled_jobs_due", "due_at", sqlite_where=_due, postgresql_where=_due),
)

scheduled_job_users = Table(
    "scheduled_job_users",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("scheduled_job_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    # In the order in which they were named.
    Column("position", Integer, nullable=False),
    Index("ix_scheduled_job_users_user", "team_id", "user_id"),
)

scheduled_job_tasks = Table(
    "scheduled_job_tasks",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("scheduled_job_id", Text, primary_key=True),
    # A UUID.
    Column("task_id", Text, primary_key=True),
    Column("position", Integer, nullable=False),
    Column("task_type", Text, nullable=False),
    # The workflow's id.
    Column("artifact_id", Text),
    # What follows stands here as the rows of scheduled_job_works have it: the one that counts.
    Column("job_id", Text),
    Column("client_job_id", Text),
    # 0 not started, 1 active, 2 paused, 3 completed, 4 abandoned.
    Column("state", SmallInteger, nullable=False),
    # The device's time of the state; ours of the last change.
    Column("updated_at", BigInteger),
    Column("modified_at", BigInteger),
)

#: The jobs that name a task, one row each. Which of them counts follows from the rows alone, so that it does
#: not matter in which order they came.
scheduled_job_works = Table(
    "scheduled_job_works",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("scheduled_job_id", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("client_job_id", Text, primary_key=True),
    # As the merged job has it; null before it was synced, and once it is deleted or names another task.
    Column("job_id", Text),
    Column("job_state", SmallInteger),
    Column("job_updated_at", BigInteger),
    # As said with section 10.4; null if nothing was.
    Column("said_state", SmallInteger),
    Column("said_updated_at", BigInteger),
    Index("ix_scheduled_job_works_job", "team_id", "client_job_id"),
)
