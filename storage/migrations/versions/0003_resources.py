"""Resources: groups, accounts, team settings, workflows, collections, scheduled jobs."""

import unicodedata
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TeamId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(text: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(text), "postgresql_where": sa.text(text)}


def _fold() -> None:
    """Give users that are there the keys by which they are found, as storage/queries/users.py makes them.

    A username whose new key another one has keeps the one it had.
    """
    names = ("team_id", "user_id", "username", "username_key", "email_address", "email_key")
    users = sa.table("users", *(sa.column(name) for name in names))
    rows = op.get_bind().execute(sa.select(users)).all()
    taken = {row.username_key for row in rows}
    for row in rows:
        key = _key(row.username)
        if key in taken:
            key = row.username_key
        taken.add(key)
        op.execute(
            users.update()
            .where(users.c.team_id == row.team_id, users.c.user_id == row.user_id)
            .values(username_key=key, email_key=_key(row.email_address))
        )


def _key(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text.strip()).casefold())


def upgrade() -> None:

    op.create_table(
        "authorization_codes",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("family_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "code_hash", name=op.f("pk_authorization_codes")),
    )
    op.create_index("ix_authorization_codes_expires", "authorization_codes", ["expires_at"], unique=False)
    op.create_index("ix_authorization_codes_hash", "authorization_codes", ["code_hash"], unique=True)
    op.create_table(
        "collection_files",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("file_id", sa.Text(), nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.Column("uploaded_by", sa.Text(), nullable=False),
        sa.Column("uploaded_at", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", sa.BigInteger(), nullable=True),
        sa.Column("record_count", sa.Integer(), nullable=False),
        sa.Column("details", sa.LargeBinary(), nullable=False),
        sa.Column("records_key", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "file_id", name=op.f("pk_collection_files")),
    )
    op.create_index(
        "ix_collection_files_collection",
        "collection_files",
        ["team_id", "collection_id", "number"],
        unique=True,
    )
    op.create_table(
        "collections",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("collection_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("current_file_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "collection_id", name=op.f("pk_collections")),
    )
    op.create_index("ix_collections_name", "collections", ["team_id", "name"], unique=False)
    op.create_table(
        "group_members",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "group_id", "user_id", name=op.f("pk_group_members")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_group_members_user", "group_members", ["team_id", "user_id"], unique=False)
    op.create_table(
        "groups",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("permissions", sa.Text(), server_default="", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "group_id", name=op.f("pk_groups")),
    )
    op.create_index("ix_groups_name", "groups", ["team_id", "name_key"], unique=True)
    op.create_table(
        "password_links",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "token_hash", name=op.f("pk_password_links")),
    )
    op.create_index("ix_password_links_expires", "password_links", ["expires_at"], unique=False)
    op.create_index("ix_password_links_token_hash", "password_links", ["token_hash"], unique=True)
    op.create_index("ix_password_links_user", "password_links", ["team_id", "user_id"], unique=False)
    op.create_table(
        "scheduled_job_tasks",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("scheduled_job_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("artifact_id", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("client_job_id", sa.Text(), nullable=True),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("modified_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint(
            "team_id", "scheduled_job_id", "task_id", name=op.f("pk_scheduled_job_tasks")
        ),
    )
    op.create_table(
        "scheduled_job_users",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("scheduled_job_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "team_id", "scheduled_job_id", "user_id", name=op.f("pk_scheduled_job_users")
        ),
    )
    op.create_index(
        "ix_scheduled_job_users_user", "scheduled_job_users", ["team_id", "user_id"], unique=False
    )
    op.create_table(
        "scheduled_job_works",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("scheduled_job_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("job_state", sa.SmallInteger(), nullable=True),
        sa.Column("job_updated_at", sa.BigInteger(), nullable=True),
        sa.Column("said_state", sa.SmallInteger(), nullable=True),
        sa.Column("said_updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint(
            "team_id", "scheduled_job_id", "task_id", "client_job_id", name=op.f("pk_scheduled_job_works")
        ),
    )
    op.create_index(
        "ix_scheduled_job_works_job", "scheduled_job_works", ["team_id", "client_job_id"], unique=False
    )
    op.create_table(
        "scheduled_jobs",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("scheduled_job_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("priority", sa.Boolean(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("reminded", sa.SmallInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "scheduled_job_id", name=op.f("pk_scheduled_jobs")),
    )
    op.create_index(
        "ix_scheduled_jobs_due",
        "scheduled_jobs",
        ["due_at"],
        unique=False,
        **_where("due_at IS NOT NULL AND deleted_at IS NULL AND state <> 'Completed' AND reminded < 2"),
    )
    op.create_index(
        "ix_scheduled_jobs_listed",
        "scheduled_jobs",
        ["team_id", "scheduled_job_id"],
        unique=False,
        **_where("deleted_at IS NULL"),
    )
    op.create_table(
        "workflow_feeds",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", name=op.f("pk_workflow_feeds")),
    )
    op.create_table(
        "workflow_versions",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("file_reference", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Text(), nullable=False),
        sa.Column("author_name", sa.Text(), nullable=False),
        sa.Column("uploaded_at", sa.BigInteger(), nullable=False),
        sa.Column("archived", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("approved_by", sa.Text(), nullable=True),
        sa.Column("approved_at", sa.BigInteger(), nullable=True),
        sa.Column("opaque", sa.Boolean(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("steps", sa.LargeBinary(), nullable=False),
        sa.Column("step_names", sa.LargeBinary(), nullable=True),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "version_id", name=op.f("pk_workflow_versions")),
    )
    op.create_index(
        "ix_workflow_versions_file", "workflow_versions", ["team_id", "file_reference"], unique=True
    )
    op.create_index(
        "ix_workflow_versions_workflow",
        "workflow_versions",
        ["team_id", "workflow_id", "number"],
        unique=True,
    )
    op.create_table(
        "workflows",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("workflow_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.LargeBinary(), nullable=False),
        sa.Column("live_object_ids", sa.LargeBinary(), nullable=False),
        sa.Column("active_version_id", sa.Text(), nullable=True),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "workflow_id", name=op.f("pk_workflows")),
    )
    op.create_index(
        "ix_workflows_listed",
        "workflows",
        ["team_id", "workflow_id"],
        unique=False,
        **_where("deleted_at IS NULL"),
    )
    op.create_index("ix_workflows_seq", "workflows", ["team_id", "seq"], unique=True)
    op.add_column("teams", sa.Column("settings", sa.LargeBinary(), nullable=True))
    op.add_column(
        "users", sa.Column("password_expired", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("users", sa.Column("oidc_subject", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    op.add_column("users", sa.Column("sign_ins", sa.Integer(), server_default="0", nullable=False))
    op.add_column("users", sa.Column("email_key", sa.Text(), server_default="", nullable=False))
    _fold()
    op.create_index("ix_users_email", "users", ["email_key"], unique=False, **_where("deleted_at IS NULL"))
    op.drop_index("ix_users_username", table_name="users")
    op.create_index(
        "ix_users_username", "users", ["username_key"], unique=True, **_where("deleted_at IS NULL")
    )
    op.create_index(
        "ix_users_oidc",
        "users",
        ["oidc_subject"],
        unique=True,
        **_where("oidc_subject IS NOT NULL AND deleted_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_users_oidc", table_name="users")
    op.drop_index("ix_users_email", table_name="users")
    op.drop_index("ix_users_username", table_name="users")
    op.create_index("ix_users_username", "users", ["username_key"], unique=True)
    for column in ("deleted_at", "oidc_subject", "password_expired", "email_key", "sign_ins"):
        op.drop_column("users", column)
    op.drop_column("teams", "settings")
    for table in (
        "workflows",
        "workflow_versions",
        "workflow_feeds",
        "scheduled_jobs",
        "scheduled_job_works",
        "scheduled_job_users",
        "scheduled_job_tasks",
        "password_links",
        "groups",
        "group_members",
        "collections",
        "collection_files",
        "authorization_codes",
    ):
        op.drop_table(table)
