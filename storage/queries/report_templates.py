"""Report templates (section 9) and their versions.

Whoever changes a template locks the team's settings first (:func:`storage.queries.team_settings.settings`), which
also hold the default template: changes of one team's templates come one after the other.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, insert, select, update

from storage.queries import team_settings
from storage.tables import report_template_versions, report_templates


class TemplateRow(NamedTuple):
    """A template as stored; ``metadata`` is a JSON object, ``version_id`` its latest version."""

    template_id: str
    name: str
    description: str | None
    metadata: bytes
    archived: bool
    version_id: str
    created_by: str
    created_at: int
    updated_at: int


class VersionRow(NamedTuple):
    """A version as stored; ``options`` is a JSON object with all four of them, the keys are those of blobs."""

    version_id: str
    template_id: str
    number: int
    body_key: str
    header_key: str
    options: bytes
    user_id: str
    uploaded_at: int


_template = [report_templates.c[name] for name in TemplateRow._fields]
_version = [report_template_versions.c[name] for name in VersionRow._fields]
_with_latest = (
    select(*_template, *_version)
    .join(
        report_template_versions,
        and_(
            report_template_versions.c.team_id == report_templates.c.team_id,
            report_template_versions.c.version_id == report_templates.c.version_id,
        ),
    )
    .order_by(report_templates.c.template_id.desc())
)


def listed(
    connection: Connection,
    team_id: int,
    archived: bool | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> list[tuple[TemplateRow, VersionRow]]:
    """Templates with their latest versions, newest first.

    Args:
        archived: only those that are, or are not; None: both.
        limit: None: all.
    """
    query = _with_latest.where(report_templates.c.team_id == team_id)
    if archived is not None:
        query = query.where(report_templates.c.archived.is_(archived))
    return [_split(row) for row in connection.execute(query.offset(skip).limit(limit))]


def current(connection: Connection, team_id: int, template_id: str) -> tuple[TemplateRow, VersionRow] | None:
    """A template with its latest version; archived ones too."""
    query = _with_latest.where(
        report_templates.c.team_id == team_id, report_templates.c.template_id == template_id
    )
    row = connection.execute(query).one_or_none()
    return _split(row) if row else None


def default_id(connection: Connection, team_id: int) -> str | None:
    """The team's default template: the setting ``Reports.DefaultReport``, if there is such a live template."""
    template_id = team_settings.default_report(team_settings.settings(connection, team_id))
    return template_id if template_id is not None and is_live(connection, team_id, template_id) else None


def is_live(connection: Connection, team_id: int, template_id: str) -> bool:
    """Whether the team has this template, and it is not archived."""
    query = select(report_templates.c.template_id).where(
        report_templates.c.team_id == team_id,
        report_templates.c.template_id == template_id,
        report_templates.c.archived.is_(False),
    )
    return connection.execute(query).one_or_none() is not None


def versions(connection: Connection, team_id: int, template_id: str) -> list[VersionRow]:
    """Every version of a template, newest first."""
    query = (
        select(*_version)
        .where(
            report_template_versions.c.team_id == team_id,
            report_template_versions.c.template_id == template_id,
        )
        .order_by(report_template_versions.c.number.desc())
    )
    return [VersionRow(*row) for row in connection.execute(query)]


def version(connection: Connection, team_id: int, template_id: str, version_id: str) -> VersionRow | None:
    """One version of a template."""
    query = select(*_version).where(
        report_template_versions.c.team_id == team_id,
        report_template_versions.c.version_id == version_id,
        report_template_versions.c.template_id == template_id,
    )
    row = connection.execute(query).one_or_none()
    return VersionRow(*row) if row else None


def add(connection: Connection, team_id: int, row: TemplateRow) -> None:
    """Add a template; :func:`add_version` adds its first version."""
    connection.execute(insert(report_templates).values(team_id=team_id, **row._asdict()))


def add_version(connection: Connection, team_id: int, row: VersionRow) -> None:
    """Add a version. It is the template's latest once :func:`save` says so."""
    connection.execute(insert(report_template_versions).values(team_id=team_id, **row._asdict()))


def save(connection: Connection, team_id: int, row: TemplateRow) -> None:
    """Store a changed template."""
    values = row._asdict()
    connection.execute(
        update(report_templates)
        .where(
            report_templates.c.team_id == team_id,
            report_templates.c.template_id == values.pop("template_id"),
        )
        .values(**values)
    )


def _split(row: Any) -> tuple[TemplateRow, VersionRow]:
    width = len(TemplateRow._fields)
    return TemplateRow(*row[:width]), VersionRow(*row[width:])
