"""Workflows and their versions."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text, false, text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

_listed = text("deleted_at IS NULL")

workflows = Table(
    "workflows",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # A UUID, as the specification prints it; what the jobs' `workflowId` refers to.
    Column("workflow_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    # JSON arrays of strings.
    Column("tags", LargeBinary, nullable=False),
    # Users and groups who may use it; empty: everybody. Ids of deleted ones stay: a workflow that was kept to
    # one group must not be open to everybody when the group is gone.
    Column("live_object_ids", LargeBinary, nullable=False),
    Column("active_version_id", Text),
    Column("archived", Boolean, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    # Place in the team's sequence of changes; see workflow_feeds.
    Column("seq", BigInteger, nullable=False),
    # The workflow with its versions as section 14.1 prints it: a list costs one row for each.
    Column("document", LargeBinary, nullable=False),
    # A deleted workflow keeps its row, so that tablets learn of it and its jobs keep their titles.
    Column("deleted_at", BigInteger),
    Index("ix_workflows_listed", "team_id", "workflow_id", sqlite_where=_listed, postgresql_where=_listed),
    Index("ix_workflows_seq", "team_id", "seq", unique=True),
)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # A UUID; what the jobs' `workflowVersionId` refers to.
    Column("version_id", Text, primary_key=True),
    Column("workflow_id", Text, nullable=False),
    # 1, 2, 3, … within the workflow; numbers of deleted versions are not given again.
    Column("number", Integer, nullable=False),
    # 24 hex digits: the upload it came by. Finalizing an upload twice finds it here.
    Column("file_reference", Text, nullable=False),
    Column("file_name", Text),
    Column("file_size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    # Null: deleted.
    Column("blob_key", Text),
    Column("notes", Text, nullable=False),
    Column("author_id", Text, nullable=False),
    Column("author_name", Text, nullable=False),
    Column("uploaded_at", BigInteger, nullable=False),
    Column("archived", Boolean, nullable=False, server_default=false()),
    Column("approved_by", Text),
    Column("approved_at", BigInteger),
    # The package has no workflow.xml, or one that nobody can read; `problem` says why.
    Column("opaque", Boolean, nullable=False),
    Column("problem", Text),
    # The step graph as JSON, compressed with zstandard; empty of an opaque one. Stays when it is deleted.
    Column("steps", LargeBinary, nullable=False),
    # stepId -> [title, tag, type] as JSON, compressed: what naming the steps of a job takes; null of an opaque one.
    Column("step_names", LargeBinary),
    Column("deleted_at", BigInteger),
    Index("ix_workflow_versions_workflow", "team_id", "workflow_id", "number", unique=True),
    Index("ix_workflow_versions_file", "team_id", "file_reference", unique=True),
)

#: The last place given in each team's sequence of changes. Whoever changes a workflow takes the next one and
#: holds the row until the commit, so that places become visible in their order.
workflow_feeds = Table(
    "workflow_feeds",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    Column("head", BigInteger, nullable=False),
)
