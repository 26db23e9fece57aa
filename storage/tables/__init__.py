"""The tables, one file per noun.

Every primary key begins with ``team_id``: tenant isolation, and the distribution key if a PostgreSQL
cluster is put underneath. Times are microseconds since the epoch, UTC, in BIGINT columns: exact on
every database, and nobody has to think about zones.
"""

from storage.tables.attachments import attachment_references, attachments
from storage.tables.clients import client_secrets, clients
from storage.tables.events import events
from storage.tables.feed import feed_entries, feeds
from storage.tables.jobs import jobs
from storage.tables.metadata import metadata
from storage.tables.pushes import pushes
from storage.tables.quarantine import quarantine
from storage.tables.secrets import server_secrets
from storage.tables.snapshots import snapshots
from storage.tables.tasks import tasks
from storage.tables.teams import teams
from storage.tables.tokens import refresh_tokens, signing_keys
from storage.tables.uploads import upload_blocks, uploads
from storage.tables.users import users

__all__ = [
    "attachment_references",
    "attachments",
    "client_secrets",
    "clients",
    "events",
    "feed_entries",
    "feeds",
    "jobs",
    "metadata",
    "pushes",
    "quarantine",
    "refresh_tokens",
    "server_secrets",
    "signing_keys",
    "snapshots",
    "tasks",
    "teams",
    "upload_blocks",
    "uploads",
    "users",
]
