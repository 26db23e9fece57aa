"""Users: people who sign in."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

users = Table(
    "users",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("user_id", Text, primary_key=True),
    Column("username", Text, nullable=False),
    # Case-folded: usernames are unique over the installation, whatever the case.
    Column("username_key", Text, nullable=False),
    Column("email_address", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    # Space-separated permission names in upper case, e.g. "DATAVIEWER EXECUTOR".
    Column("permissions", Text, nullable=False, server_default=""),
    Column("locked", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_users_username", "username_key", unique=True),
    Index("ix_users_user_id", "user_id", unique=True),
)
