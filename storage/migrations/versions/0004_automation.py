"""Automation: report templates, reports, triggers and what they deliver."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TeamId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _where(text: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(text), "postgresql_where": sa.text(text)}


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("trigger_id", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("report_id", sa.Text(), nullable=True),
        sa.Column("wait_until", sa.BigInteger(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "delivery_id", name=op.f("pk_deliveries")),
    )
    op.create_index("ix_deliveries_created", "deliveries", ["created_at"], unique=False)
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["team_id", "trigger_id", "next_at"],
        unique=False,
        **_where("state = 'due'"),
    )
    op.create_index("ix_deliveries_event", "deliveries", ["team_id", "trigger_id", "event_id"], unique=True)
    op.create_index(
        "ix_deliveries_listed", "deliveries", ["team_id", "trigger_id", "delivery_id"], unique=False
    )
    op.create_index(
        "ix_deliveries_preparing",
        "deliveries",
        ["team_id", "job_id"],
        unique=False,
        **_where("state = 'preparing'"),
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("duration_us", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "delivery_id", "number", name=op.f("pk_delivery_attempts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "report_template_versions",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("body_key", sa.Text(), nullable=False),
        sa.Column("header_key", sa.Text(), nullable=False),
        sa.Column("options", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("uploaded_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "version_id", name=op.f("pk_report_template_versions")),
    )
    op.create_index(
        "ix_report_template_versions_template",
        "report_template_versions",
        ["team_id", "template_id", "number"],
        unique=True,
    )
    op.create_table(
        "report_templates",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("template_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("metadata", sa.LargeBinary(), nullable=False),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("version_id", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "template_id", name=op.f("pk_report_templates")),
    )
    op.create_table(
        "reports",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("report_id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("client_job_id", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("rev", sa.BigInteger(), nullable=False),
        sa.Column("template_id", sa.Text(), nullable=True),
        sa.Column("version_id", sa.Text(), nullable=True),
        sa.Column("template_name", sa.Text(), nullable=False),
        sa.Column("images", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("log", sa.LargeBinary(), nullable=True),
        sa.Column("blob_key", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("pages", sa.Integer(), nullable=True),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("generated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "report_id", name=op.f("pk_reports")),
    )
    op.create_index("ix_reports_fingerprint", "reports", ["team_id", "job_id", "fingerprint"], unique=True)
    op.create_index("ix_reports_job", "reports", ["team_id", "job_id", "report_id"], unique=False)
    op.create_index("ix_reports_requested", "reports", ["requested_at"], unique=False)
    op.create_table(
        "triggers",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("trigger_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("template_tags", sa.LargeBinary(), nullable=False),
        sa.Column("object_ids", sa.LargeBinary(), nullable=False),
        sa.Column("template_ids", sa.LargeBinary(), nullable=False),
        sa.Column("trigger_type", sa.Text(), nullable=False),
        sa.Column("options", sa.LargeBinary(), nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("report_template_id", sa.Text(), nullable=True),
        sa.Column("pdf_requirement", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("archived", sa.Boolean(), nullable=False),
        sa.Column("failing_since", sa.BigInteger(), nullable=True),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "trigger_id", name=op.f("pk_triggers")),
    )
    # One kind's backlog hides no other's, and what may be taken is found in one statement.
    waiting = _where("state IN ('ready', 'retry')")
    op.drop_index("ix_tasks_due", table_name="tasks")
    op.create_index("ix_tasks_due", "tasks", ["kind", "run_at"], unique=False, **waiting)
    op.create_index("ix_tasks_teams", "tasks", ["kind", "team_id", "run_at"], unique=False, **waiting)
    op.create_index(
        "ix_tasks_running",
        "tasks",
        ["team_id", "kind", "subject"],
        unique=False,
        **_where("state = 'running'"),
    )
    op.add_column("teams", sa.Column("wanted_events", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("teams", "wanted_events")
    op.drop_index("ix_tasks_running", table_name="tasks")
    op.drop_index("ix_tasks_teams", table_name="tasks")
    op.drop_index("ix_tasks_due", table_name="tasks")
    op.create_index(
        "ix_tasks_due", "tasks", ["run_at"], unique=False, **_where("state IN ('ready', 'retry')")
    )
    for table in (
        "triggers",
        "reports",
        "report_templates",
        "report_template_versions",
        "delivery_attempts",
        "deliveries",
    ):
        op.drop_table(table)
