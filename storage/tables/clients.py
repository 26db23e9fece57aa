"""Machine-to-machine clients and their secrets (section 2.3)."""

from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Index, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

clients = Table(
    "clients",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("client_id", Text, primary_key=True),
    Column("display_name", Text, nullable=False),
    # Both space-separated; scopes as they were asked for, permissions in upper case.
    Column("scopes", Text, nullable=False),
    Column("permissions", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Index("ix_clients_client_id", "client_id", unique=True),
)

client_secrets = Table(
    "client_secrets",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("client_id", Text, primary_key=True),
    Column("secret_id", Text, primary_key=True),
    # SHA-256 of a generated 256-bit secret: nothing to guess, so nothing to slow down.
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["team_id", "client_id"], ["clients.team_id", "clients.client_id"], ondelete="CASCADE"
    ),
)
