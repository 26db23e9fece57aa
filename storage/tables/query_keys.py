"""Query keys: the primary and the secondary key of a team (section 3.3.2)."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

query_keys = Table(
    "query_keys",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # primary or secondary
    Column("slot", Text, primary_key=True),
    # SHA-256: what a request's key is found by. Null: revoked. The row stays, so that no key is made in its place.
    Column("key_hash", LargeBinary, nullable=True),
    # The key itself, encrypted: administrators may see it again. Null: revoked.
    Column("sealed", LargeBinary, nullable=True),
    Column("created_at", BigInteger, nullable=False),
    # The user or client who made it.
    Column("created_by", Text, nullable=False),
    Column("revoked_at", BigInteger, nullable=True),
    Index("ix_query_keys_hash", "key_hash", unique=True),
    sqlite_with_rowid=False,
)
