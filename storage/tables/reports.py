"""Reports: PDFs of jobs, each made once for what it shows."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

reports = Table(
    "reports",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits.
    Column("report_id", Text, primary_key=True),
    Column("job_id", Text, nullable=False),
    Column("client_job_id", Text, nullable=False),
    # What it shows, hashed: the revision, the version of the template, the images, and what stands around the job:
    # files, people, workflow, time zone.
    # The same is not made twice.
    Column("fingerprint", LargeBinary, nullable=False),
    Column("rev", BigInteger, nullable=False),
    # Null: the built-in template.
    Column("template_id", Text),
    Column("version_id", Text),
    Column("template_name", Text, nullable=False),
    # large, small, none
    Column("images", Text, nullable=False),
    # pending, ready, failed
    Column("state", Text, nullable=False),
    # Why it failed; what was refused or missing while it was made, as a JSON array of texts.
    Column("failure", Text),
    Column("log", LargeBinary),
    Column("blob_key", Text),
    Column("size", BigInteger),
    Column("pages", Integer),
    Column("requested_at", BigInteger, nullable=False),
    Column("generated_at", BigInteger),
    Index("ix_reports_fingerprint", "team_id", "job_id", "fingerprint", unique=True),
    Index("ix_reports_job", "team_id", "job_id", "report_id"),
    # What is old is looked for in all teams.
    Index("ix_reports_requested", "requested_at"),
)
