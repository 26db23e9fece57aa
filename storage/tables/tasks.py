"""Tasks: work that follows from something, written in the transaction of its cause."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_waiting = text("state IN ('ready', 'retry')")
_running = text("state = 'running'")

tasks = Table(
    "tasks",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time.
    Column("task_id", Text, primary_key=True),
    # Which handler takes it, and what it is about: an attachment's id, say.
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    # JSON for the handler.
    Column("payload", LargeBinary, nullable=False),
    # ready, running, retry, done, dead
    Column("state", Text, nullable=False),
    Column("run_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    # Who runs it, and until when it is not given to another.
    Column("lease", Text),
    Column("leased_until", BigInteger),
    # Why the last attempt failed.
    Column("error", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Index("ix_tasks_due", "kind", "run_at", sqlite_where=_waiting, postgresql_where=_waiting),
    Index("ix_tasks_teams", "kind", "team_id", "run_at", sqlite_where=_waiting, postgresql_where=_waiting),
    Index("ix_tasks_leased", "leased_until", sqlite_where=_running, postgresql_where=_running),
    Index("ix_tasks_running", "team_id", "kind", "subject", sqlite_where=_running, postgresql_where=_running),
    # One waiting task for one thing to do; a second cause while it runs makes another.
    Index(
        "ix_tasks_waiting",
        "team_id",
        "kind",
        "subject",
        unique=True,
        sqlite_where=_waiting,
        postgresql_where=_waiting,
    ),
    Index("ix_tasks_state", "team_id", "state", "task_id"),
)
