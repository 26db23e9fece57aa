"""Quarantine: what an authenticated client sent and could not be applied, verbatim, once per body."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

quarantine = Table(
    "quarantine",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("quarantine_id", Text, primary_key=True),
    # SHA-256 of the bytes as they came.
    Column("body_hash", LargeBinary, nullable=False),
    Column("code", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("field", Text),
    Column("client_job_id", Text),
    Column("subject_id", Text, nullable=False),
    Column("install_id", Text),
    Column("received_at", BigInteger, nullable=False),
    Column("last_received_at", BigInteger, nullable=False),
    Column("times", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("ix_quarantine_body", "team_id", "body_hash", unique=True),
)
