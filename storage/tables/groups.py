"""Groups of users, who have its permissions beside their own."""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

groups = Table(
    "groups",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits, ordered by time.
    Column("group_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    # Case-folded: unique in the team.
    Column("name_key", Text, nullable=False),
    # As of a user.
    Column("permissions", Text, nullable=False, server_default=""),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_groups_name", "team_id", "name_key", unique=True),
)

group_members = Table(
    "group_members",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("group_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Index("ix_group_members_user", "team_id", "user_id"),
    sqlite_with_rowid=False,
)
