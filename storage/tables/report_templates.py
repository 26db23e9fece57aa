"""Report templates and their versions. A version never changes; a template points to its latest."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, Table, Text

from storage.tables.metadata import metadata
from storage.tables.teams import TeamId

report_templates = Table(
    "report_templates",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits.
    Column("template_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    # JSON object of whatever clients keep there.
    Column("metadata", LargeBinary, nullable=False),
    Column("archived", Boolean, nullable=False),
    # Its latest version.
    Column("version_id", Text, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

report_template_versions = Table(
    "report_template_versions",
    metadata,
    Column("team_id", TeamId, primary_key=True, autoincrement=False),
    # 24 hex digits; section 9.1 calls it `templateId`.
    Column("version_id", Text, primary_key=True),
    Column("template_id", Text, nullable=False),
    # 1, 2, 3, … within the template.
    Column("number", Integer, nullable=False),
    # Blobs: a version is a file or two, and lists hand out addresses of them.
    Column("body_key", Text, nullable=False),
    Column("header_key", Text, nullable=False),
    # JSON: isLandscape, title, headerHeight, hideFooter.
    Column("options", LargeBinary, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("uploaded_at", BigInteger, nullable=False),
    Index("ix_report_template_versions_template", "team_id", "template_id", "number", unique=True),
)
