"""Accounts: what is good once, for signing in or for choosing a password. Hashes, never the secrets."""

from sqlalchemy import BigInteger, Column, Index, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

#: Links of "forgotten password" mails.
password_links = Table(
    "password_links",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("token_hash", LargeBinary, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_password_links_token_hash", "token_hash", unique=True),
    Index("ix_password_links_user", "team_id", "user_id"),
    Index("ix_password_links_expires", "expires_at"),
)

#: Authorization codes (RFC 6749, 4.1): who signed in on our page, for the client that asked to be told.
authorization_codes = Table(
    "authorization_codes",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("code_hash", LargeBinary, primary_key=True),
    Column("user_id", Text, nullable=False),
    # As asked for, separated by blanks; empty: whatever the permissions allow.
    Column("scopes", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    # S256 (RFC 7636).
    Column("code_challenge", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # The family of refresh tokens it was exchanged for: a second exchange ends that (RFC 6749, 4.1.2).
    Column("family_id", Text),
    Index("ix_authorization_codes_hash", "code_hash", unique=True),
    Index("ix_authorization_codes_expires", "expires_at"),
)
