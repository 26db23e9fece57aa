"""Queries: completed jobs in the order of their completion, and the keys of teams."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TeamId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_BLOCK = 1000
_AT_ONCE = 500
_TIMES = ("created", "updated", "modified")
_SEARCHED = ("workflow_id", "workflow_title", "user_id", "user_name", "job_title")


class _Head(msgspec.Struct):
    """What of a job's view it is found by."""

    status: Any = None
    workflowId: Any = None
    workflowName: Any = None
    userId: Any = None
    username: Any = None
    jobTitle: Any = None
    created: Any = None
    updated: Any = None


class _View(msgspec.Struct):
    metadata: _Head = msgspec.field(default_factory=_Head)
    excluded: Any = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("status", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("excluded", sa.Boolean(), server_default=sa.false(), nullable=False))
    _fill_statuses()
    listed: dict[str, Any] = {
        f"{database}_where": sa.text("deleted_at IS NULL") for database in ("sqlite", "postgresql")
    }
    op.create_index("ix_jobs_status", "jobs", ["team_id", "status", "job_id"], unique=False, **listed)
    op.add_column("feeds", sa.Column("completions", sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "query_keys",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("key_hash", sa.LargeBinary(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("team_id", "slot", name=op.f("pk_query_keys")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_query_keys_hash", "query_keys", ["key_hash"], unique=True)
    completed_jobs = op.create_table(
        "completed_jobs",
        sa.Column("team_id", TeamId, autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("block", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("listed", sa.Boolean(), nullable=False),
        sa.Column("completed", sa.Boolean(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=True) for name in _SEARCHED),
        sa.Column("created_at", sa.BigInteger(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("team_id", "seq", name=op.f("pk_completed_jobs")),
        sqlite_with_rowid=False,
    )
    for team_id in (
        op.get_bind().execute(sa.text("SELECT team_id FROM feeds ORDER BY team_id")).scalars().all()
    ):
        _fill(team_id, completed_jobs)
    # Made at the end: rows are inserted faster without them.
    op.create_index("ix_completed_jobs_job", "completed_jobs", ["team_id", "job_id"], unique=True)
    for name in _SEARCHED:
        op.create_index(f"ix_completed_jobs_{name}", "completed_jobs", ["team_id", name, "seq"])
    for name in _TIMES:
        op.create_index(f"ix_completed_jobs_{name}", "completed_jobs", ["team_id", "block", f"{name}_at"])


def _fill_statuses() -> None:
    """Say of each job that is not deleted which status it shows, and whether it is excluded."""
    bind = op.get_bind()
    names = ("team_id", "job_id", "view", "status", "excluded", "deleted_at")
    jobs = sa.table("jobs", *(sa.column(name) for name in names))
    decode = msgspec.json.Decoder(_View).decode
    place: tuple[int, str] = (-1, "")
    while True:
        page = (
            sa.select(jobs.c.team_id, jobs.c.job_id, jobs.c.view)
            .where(
                sa.or_(
                    jobs.c.team_id > place[0], sa.and_(jobs.c.team_id == place[0], jobs.c.job_id > place[1])
                ),
                jobs.c.deleted_at.is_(None),
            )
            .order_by(jobs.c.team_id, jobs.c.job_id)
            .limit(_AT_ONCE)
        )
        rows = bind.execute(page).all()
        if not rows:
            return
        place = (rows[-1].team_id, rows[-1].job_id)
        for row in rows:
            view = decode(row.view)
            status = _searched(view.metadata.status)
            bind.execute(
                jobs.update()
                .where(jobs.c.team_id == row.team_id, jobs.c.job_id == row.job_id)
                .values(
                    status=None if status is None else status.casefold()[:500], excluded=view.excluded is True
                )
            )


def _fill(team_id: int, completed_jobs: sa.Table) -> None:
    """Number the jobs that are completed, in the order of their last change."""
    bind = op.get_bind()
    page = sa.text(
        "SELECT f.seq, j.job_id, j.modified_at, j.view FROM feed_entries f "
        "JOIN jobs j ON j.team_id = f.team_id AND j.job_id = f.job_id "
        "WHERE f.team_id = :team_id AND f.seq > :after AND j.finished AND j.deleted_at IS NULL "
        "ORDER BY f.seq LIMIT :limit"
    )
    decode = msgspec.json.Decoder(_View).decode
    after = number = 0
    while rows := bind.execute(page, {"team_id": team_id, "after": after, "limit": _AT_ONCE}).all():
        after = rows[-1].seq
        written = []
        for row in rows:
            view = decode(row.view)
            if str(view.metadata.status).casefold() not in ("completed", "abandoned"):
                continue
            number += 1
            head = view.metadata
            said = (head.workflowId, head.workflowName, head.userId, head.username, head.jobTitle)
            written.append(
                {
                    "team_id": team_id,
                    "seq": number,
                    "block": number // _BLOCK,
                    "job_id": row.job_id,
                    "listed": view.excluded is not True,
                    "completed": True,
                    **{name: _searched(value) for name, value in zip(_SEARCHED, said, strict=True)},
                    "created_at": _time(head.created),
                    "updated_at": _time(head.updated),
                    "modified_at": row.modified_at,
                }
            )
        if written:
            bind.execute(completed_jobs.insert(), written)
    bind.execute(
        sa.text("UPDATE feeds SET completions = :number WHERE team_id = :team_id"),
        {"team_id": team_id, "number": number},
    )


def _searched(value: Any) -> str | None:
    return value.replace("\0", "\ufffd")[:500] if isinstance(value, str) else None


def _time(text: Any) -> int | None:
    if not isinstance(text, str):
        return None
    if "/" in text[:10]:
        text = text[:10].replace("/", "-") + text[10:]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    delta = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def downgrade() -> None:
    op.drop_index("ix_jobs_status", table_name="jobs")
    op.drop_column("jobs", "excluded")
    op.drop_column("jobs", "status")
    op.drop_table("completed_jobs")
    op.drop_table("query_keys")
    op.drop_column("feeds", "completions")
