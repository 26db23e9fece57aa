"""The foundation: teams, sign-in, jobs with their history, feed, outbox and quarantine."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TeamId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "clients",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "client_id", name=op.f("pk_clients")),
    )
    op.create_index("ix_clients_client_id", "clients", ["client_id"], unique=True)
    op.create_table(
        "events",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "event_id", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "feed_entries",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "job_id", name=op.f("pk_feed_entries")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_feed_entries_seq", "feed_entries", ["team_id", "seq"], unique=True)
    op.create_table(
        "feeds",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("incarnation", sa.Text(), nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_feeds")),
    )
    op.create_table(
        "jobs",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=True),
        sa.Column("workflow_id", sa.Text(), nullable=True),
        sa.Column("finished", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("format", sa.SmallInteger(), nullable=False),
        sa.Column("view", sa.LargeBinary(), nullable=False),
        sa.Column("edits", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "job_id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_client_job_id", "jobs", ["team_id", "client_job_id"], unique=True)
    op.create_index(
        "ix_jobs_listed",
        "jobs",
        ["team_id", "job_id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_jobs_open",
        "jobs",
        ["team_id", "owner_id", "job_id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL AND NOT finished"),
        postgresql_where=sa.text("deleted_at IS NULL AND NOT finished"),
    )
    op.create_index(
        "ix_jobs_owner",
        "jobs",
        ["team_id", "owner_id", "job_id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "ix_jobs_workflow",
        "jobs",
        ["team_id", "workflow_id", "job_id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "pushes",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("install_id", sa.Text(), nullable=False),
        sa.Column("push_seq", sa.BigInteger(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "install_id", "push_seq", name=op.f("pk_pushes")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "quarantine",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("quarantine_id", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("field", sa.Text(), nullable=True),
        sa.Column("client_job_id", sa.Text(), nullable=True),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("install_id", sa.Text(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("last_received_at", sa.BigInteger(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "quarantine_id", name=op.f("pk_quarantine")),
    )
    op.create_index("ix_quarantine_body", "quarantine", ["team_id", "body_hash"], unique=True)
    op.create_table(
        "refresh_tokens",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("family_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "token_hash", name=op.f("pk_refresh_tokens")),
    )
    op.create_index("ix_refresh_tokens_family", "refresh_tokens", ["team_id", "family_id"], unique=False)
    op.create_index("ix_refresh_tokens_token_hash", "refresh_tokens", ["token_hash"], unique=True)
    op.create_index("ix_refresh_tokens_user", "refresh_tokens", ["team_id", "user_id"], unique=False)
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("private_pem", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_signing_keys")),
    )
    op.create_table(
        "snapshots",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("snapshot_id", sa.Text(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("install_id", sa.Text(), nullable=False),
        sa.Column("push_seq", sa.BigInteger(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("clock_offset", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "job_id", "body_hash", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "teams",
        sa.Column("team_id", TeamId, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_teams")),
        sa.UniqueConstraint("name", name=op.f("uq_teams_name")),
    )
    op.create_table(
        "users",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("username_key", sa.Text(), nullable=False),
        sa.Column("email_address", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), server_default="", nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "user_id", name=op.f("pk_users")),
    )
    op.create_index("ix_users_user_id", "users", ["user_id"], unique=True)
    op.create_index("ix_users_username", "users", ["username_key"], unique=True)
    op.create_table(
        "client_secrets",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("secret_id", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id", "client_id"],
            ["clients.team_id", "clients.client_id"],
            name=op.f("fk_client_secrets_team_id_client_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("team_id", "client_id", "secret_id", name=op.f("pk_client_secrets")),
    )


def downgrade() -> None:
    op.drop_table("client_secrets")
    op.drop_index("ix_users_username", table_name="users")
    op.drop_index("ix_users_user_id", table_name="users")
    op.drop_table("users")
    op.drop_table("teams")
    op.drop_table("snapshots")
    op.drop_table("signing_keys")
    op.drop_index("ix_refresh_tokens_user", table_name="refresh_tokens")
    op.drop_index("ix_refresh_tokens_token_hash", table_name="refresh_tokens")
    op.drop_index("ix_refresh_tokens_family", table_name="refresh_tokens")
    op.drop_table("refresh_tokens")
    op.drop_index("ix_quarantine_body", table_name="quarantine")
    op.drop_table("quarantine")
    op.drop_table("pushes")
    op.drop_index(
        "ix_jobs_workflow",
        table_name="jobs",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index(
        "ix_jobs_owner",
        table_name="jobs",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index(
        "ix_jobs_open",
        table_name="jobs",
        sqlite_where=sa.text("deleted_at IS NULL AND NOT finished"),
        postgresql_where=sa.text("deleted_at IS NULL AND NOT finished"),
    )
    op.drop_index(
        "ix_jobs_listed",
        table_name="jobs",
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.drop_index("ix_jobs_client_job_id", table_name="jobs")
    op.drop_table("jobs")
    op.drop_table("feeds")
    op.drop_index("ix_feed_entries_seq", table_name="feed_entries")
    op.drop_table("feed_entries")
    op.drop_table("events")
    op.drop_index("ix_clients_client_id", table_name="clients")
    op.drop_table("clients")
