"""Triggers, what they have sent or are to send, and each attempt at that."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_preparing = text("state = 'preparing'")
_due = text("state = 'due'")

triggers = Table(
    "triggers",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits.
    Column("trigger_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    # JSON arrays of texts: tags of workflows, ids of users and groups, ids of workflows. Empty: all.
    Column("template_tags", LargeBinary, nullable=False),
    Column("object_ids", LargeBinary, nullable=False),
    Column("template_ids", LargeBinary, nullable=False),
    # Email, Http
    Column("trigger_type", Text, nullable=False),
    # JSON object, without the secrets.
    Column("options", LargeBinary, nullable=False),
    # JSON array of {secret, until}: the one in use first, then one that was rotated out; null for mails.
    Column("secrets", LargeBinary),
    Column("report_template_id", Text),
    # NotRequired, FullImages, Thumbnails, WithoutImages
    Column("pdf_requirement", Text, nullable=False),
    Column("disabled", Boolean, nullable=False),
    # Why we disabled it; null if a person did.
    Column("disabled_reason", Text),
    Column("archived", Boolean, nullable=False),
    # Since when every attempt has failed, and when the last of them did; null after a success.
    Column("failing_since", BigInteger),
    Column("failed_at", BigInteger),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time; the webhook-id and the Message-ID are made of it.
    Column("delivery_id", Text, primary_key=True),
    Column("trigger_id", Text, nullable=False),
    # The event it tells of; of one made by hand, its own id.
    Column("event_id", Text, nullable=False),
    # job.completed, job.updated
    Column("type", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("client_job_id", Text, nullable=False),
    Column("rev", BigInteger, nullable=False),
    # preparing (its report is waited for or made), due, delivered, failed (for good, until it is replayed)
    Column("state", Text, nullable=False),
    # JSON: the job as it was when the event happened.
    Column("payload", LargeBinary, nullable=False),
    Column("report_id", Text),
    # While it is preparing: until when it waits for the job's files.
    Column("wait_until", BigInteger),
    # What the recipient is told beside the job: that files were missing, say.
    Column("note", Text),
    Column("attempts", Integer, nullable=False),
    # When the next attempt is due.
    Column("next_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    # An event is matched at least once, and told once.
    Index("ix_deliveries_event", "team_id", "trigger_id", "event_id", unique=True),
    Index("ix_deliveries_listed", "team_id", "trigger_id", "delivery_id"),
    Index(
        "ix_deliveries_preparing",
        "team_id",
        "job_id",
        sqlite_where=_preparing,
        postgresql_where=_preparing,
    ),
    Index("ix_deliveries_due", "team_id", "trigger_id", "next_at", sqlite_where=_due, postgresql_where=_due),
    Index("ix_deliveries_created", "created_at"),
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("delivery_id", Text, primary_key=True),
    # 1, 2, 3, …
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
    # Of the answer; null if there was none.
    Column("status", Integer),
    Column("error", Text),
    # The first 4 KB of the answer's body.
    Column("answer", LargeBinary),
    sqlite_with_rowid=False,
)
