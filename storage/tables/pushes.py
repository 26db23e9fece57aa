"""Pushes: which (install, pushSeq) carried which body. What makes a replay recognisable."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

pushes = Table(
    "pushes",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("install_id", Text, primary_key=True),
    Column("push_seq", BigInteger, primary_key=True),
    Column("client_job_id", Text, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("rev", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    # What was added to the device's times, in microseconds; sync health shows it beyond two minutes.
    Column("clock_offset", BigInteger, nullable=False),
    # Narrow and appended per install: here the clustered form is the faster one.
    sqlite_with_rowid=False,
)
