"""What the token issuer keeps: its signing keys, and refresh tokens by family."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

#: Belongs to the installation, not to a team: the one issuer signs for all of them.
signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("private_pem", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("token_hash", LargeBinary, primary_key=True),
    # One sign-in is one family; a token used twice ends the whole family (RFC 9700, 4.14.2).
    Column("family_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("revoked_at", BigInteger),
    Index("ix_refresh_tokens_token_hash", "token_hash", unique=True),
    Index("ix_refresh_tokens_family", "team_id", "family_id"),
    Index("ix_refresh_tokens_user", "team_id", "user_id"),
)
