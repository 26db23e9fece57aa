"""Users: people who sign in."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text, false, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_present = text("deleted_at IS NULL")
_linked = text("oidc_subject IS NOT NULL AND deleted_at IS NULL")

users = Table(
    "users",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("user_id", Text, primary_key=True),
    Column("username", Text, nullable=False),
    # Case-folded: usernames are unique over the installation, whatever the case.
    Column("username_key", Text, nullable=False),
    Column("email_address", Text, nullable=False),
    # Folded as the username: people are found by it who forgot their password, or come from a provider.
    Column("email_key", Text, nullable=False, server_default=""),
    Column("name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    # Space-separated permission names in upper case, e.g. "DATAVIEWER EXECUTOR".
    Column("permissions", Text, nullable=False, server_default=""),
    Column("locked", Boolean, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Somebody else knows the password: it was reset. It is good for nothing but choosing another.
    Column("password_expired", Boolean, nullable=False, server_default=false()),
    # Rises whenever all sign-ins end: access tokens carry the number they were issued under.
    Column("sign_ins", Integer, nullable=False, server_default="0"),
    # Who this is at the OpenID Connect provider: issuer and subject, with a blank between.
    Column("oidc_subject", Text),
    # A deleted user's row stays, so that the history says who it was; the name is free again.
    Column("deleted_at", BigInteger),
    Index("ix_users_username", "username_key", unique=True, sqlite_where=_present, postgresql_where=_present),
    Index("ix_users_email", "email_key", sqlite_where=_present, postgresql_where=_present),
    Index("ix_users_user_id", "user_id", unique=True),
    Index("ix_users_oidc", "oidc_subject", unique=True, sqlite_where=_linked, postgresql_where=_linked),
)
