"""Secrets of the installation that its processes share: what signs the addresses of files."""

from sqlalchemy import BigInteger, Column, LargeBinary, Table, Text

from storage.tables.metadata import metadata

#: Belongs to the installation, not to a team.
server_secrets = Table(
    "server_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
