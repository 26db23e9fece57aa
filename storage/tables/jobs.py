"""Jobs: one row per (team, clientJobId), holding the merged document and the edits it was merged from."""

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, SmallInteger, Table, Text, false, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_listed = text("deleted_at IS NULL")
_open = text("deleted_at IS NULL AND NOT finished")

jobs = Table(
    "jobs",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by the time of creation: "newest first" is the key read backwards.
    Column("job_id", Text, primary_key=True),
    Column("client_job_id", Text, nullable=False),
    Column("rev", BigInteger, nullable=False),
    # Whose job it is: the user the view names, else who created it. Executors see these alone.
    Column("owner_id", Text),
    Column("workflow_id", Text),
    # Completed, Abandoned or Aborted.
    Column("finished", Boolean, nullable=False),
    # As it is shown, folded, and cut like whatever is searched by; NULL where the job says none.
    Column("status", Text),
    # Taken out of what is evaluated.
    Column("excluded", Boolean, nullable=False, server_default=false()),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    # A tombstone keeps its row and loses its bodies.
    Column("deleted_at", BigInteger),
    # How `view` and `edits` are encoded; see sync/edits.py.
    Column("format", SmallInteger, nullable=False),
    # BLOB and BYTEA, never JSON types: 2.50 must stay 2.50, and jsonb refuses \u0000.
    Column("view", LargeBinary, nullable=False),
    Column("edits", LargeBinary, nullable=False),
    Index("ix_jobs_client_job_id", "team_id", "client_job_id", unique=True),
    Index("ix_jobs_listed", "team_id", "job_id", sqlite_where=_listed, postgresql_where=_listed),
    Index("ix_jobs_owner", "team_id", "owner_id", "job_id", sqlite_where=_listed, postgresql_where=_listed),
    Index(
        "ix_jobs_workflow", "team_id", "workflow_id", "job_id", sqlite_where=_listed, postgresql_where=_listed
    ),
    Index("ix_jobs_status", "team_id", "status", "job_id", sqlite_where=_listed, postgresql_where=_listed),
    Index("ix_jobs_open", "team_id", "owner_id", "job_id", sqlite_where=_open, postgresql_where=_open),
)
