"""Teams: the tenants of an installation."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Table, Text, UniqueConstraint

from storage.tables.metadata import metadata

#: SQLite gives rowid tables a fast integer key only for a column of exactly this type.
TeamId = BigInteger().with_variant(Integer, "sqlite")

teams = Table(
    "teams",
    metadata,
    Column("team_id", TeamId, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The team settings that are not at their defaults, as a JSON object; null: none.
    Column("settings", LargeBinary),
    # Which events its triggers want, bits as in storage/queries/triggers.py: what no trigger wants costs a push
    # nothing.
    Column("wanted_events", Integer, nullable=False, server_default="0"),
    UniqueConstraint("name"),
)
