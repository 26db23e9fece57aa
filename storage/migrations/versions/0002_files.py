"""Files: attachments with their references, uploads, the task queue."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TeamId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(text: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(text), "postgresql_where": sa.text(text)}


def upgrade() -> None:
    op.create_table(
        "attachments",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("attachment_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("stored_at", sa.BigInteger(), nullable=True),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("declared_type", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("uploaded_by", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("details", sa.LargeBinary(), nullable=True),
        sa.Column("orphaned_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "attachment_id", name=op.f("pk_attachments")),
    )
    op.create_index(
        "ix_attachments_orphans",
        "attachments",
        ["orphaned_at"],
        unique=False,
        **_where("orphaned_at IS NOT NULL"),
    )
    op.create_table(
        "attachment_references",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("attachment_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "attachment_id", "job_id", name=op.f("pk_attachment_references")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_attachment_references_job", "attachment_references", ["team_id", "job_id"], unique=False
    )
    op.create_table(
        "uploads",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=True),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("block_size", sa.Integer(), nullable=False),
        sa.Column("file_size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("subject_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "upload_id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_target", "uploads", ["team_id", "kind", "target"], unique=False)
    op.create_index("ix_uploads_expires", "uploads", ["expires_at"], unique=False)
    op.create_table(
        "upload_blocks",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("upload_id", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("stop", sa.BigInteger(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "upload_id", "start", name=op.f("pk_upload_blocks")),
    )
    op.create_table(
        "tasks",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("run_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease", sa.Text(), nullable=True),
        sa.Column("leased_until", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "task_id", name=op.f("pk_tasks")),
    )
    waiting = _where("state IN ('ready', 'retry')")
    op.create_index("ix_tasks_due", "tasks", ["run_at"], unique=False, **waiting)
    op.create_index("ix_tasks_leased", "tasks", ["leased_until"], unique=False, **_where("state = 'running'"))
    op.create_index("ix_tasks_waiting", "tasks", ["team_id", "kind", "subject"], unique=True, **waiting)
    op.create_index("ix_tasks_state", "tasks", ["team_id", "state", "task_id"], unique=False)
    op.create_table(
        "server_secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_server_secrets")),
    )


def downgrade() -> None:
    for table in (
        "server_secrets",
        "tasks",
        "upload_blocks",
        "uploads",
        "attachment_references",
        "attachments",
    ):
        op.drop_table(table)
