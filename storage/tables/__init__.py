"""The tables, one file per noun.

Every primary key begins with ``team_id``: tenant isolation, and the distribution key if a PostgreSQL
cluster is put underneath. Times are microseconds since the epoch, UTC, in BIGINT columns: exact on
every database, and nobody has to think about zones.
"""

from storage.tables.accounts import authorization_codes, password_links
from storage.tables.attachments import attachment_references, attachments
from storage.tables.clients import client_secrets, clients
from storage.tables.collections import collection_files, collections
from storage.tables.completed_jobs import completed_jobs
from storage.tables.events import events
from storage.tables.feed import feed_entries, feeds
from storage.tables.groups import group_members, groups
from storage.tables.jobs import jobs
from storage.tables.metadata import metadata
from storage.tables.pushes import pushes
from storage.tables.quarantine import quarantine
from storage.tables.query_keys import query_keys
from storage.tables.report_templates import report_template_versions, report_templates
from storage.tables.reports import reports
from storage.tables.scheduled_jobs import (
    scheduled_job_tasks,
    scheduled_job_users,
    scheduled_job_works,
    scheduled_jobs,
)
from storage.tables.secrets import server_secrets
from storage.tables.snapshots import snapshots
from storage.tables.tasks import tasks
from storage.tables.teams import teams
from storage.tables.tokens import refresh_tokens, signing_keys
from storage.tables.triggers import deliveries, delivery_attempts, triggers
from storage.tables.uploads import upload_blocks, uploads
from storage.tables.users import users
from storage.tables.workflows import workflow_feeds, workflow_versions, workflows

__all__ = [
    "attachment_references",
    "attachments",
    "authorization_codes",
    "client_secrets",
    "clients",
    "collection_files",
    "collections",
    "completed_jobs",
    "deliveries",
    "delivery_attempts",
    "events",
    "feed_entries",
    "feeds",
    "group_members",
    "groups",
    "jobs",
    "metadata",
    "password_links",
    "pushes",
    "quarantine",
    "query_keys",
    "refresh_tokens",
    "report_template_versions",
    "report_templates",
    "reports",
    "scheduled_job_tasks",
    "scheduled_job_users",
    "scheduled_job_works",
    "scheduled_jobs",
    "server_secrets",
    "signing_keys",
    "snapshots",
    "tasks",
    "teams",
    "triggers",
    "upload_blocks",
    "uploads",
    "users",
    "workflow_feeds",
    "workflow_versions",
    "workflows",
]
