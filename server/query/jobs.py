"""The root field ``jobs``: a page of jobs, and what stands around them, shaped as it was asked for."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from server.jobs.names import names_of, naming_versions, searchable
from server.query.asking import Asking
from server.query.job_arguments import JobsWanted, by_tags, job_id_of, open_cursor_of, seq_of, wanted
from server.query.job_fields import Around, JobShape
from server.query.selecting import Field
from storage.database import Connection
from storage.queries import attachments, completed_jobs, feed, reports, workflows
from storage.queries import jobs as job_queries
from storage.queries.attachments import AttachmentRow
from storage.queries.completed_jobs import Wanted
from storage.queries.reports import ReportRow
from sync.cursor import format_cursor
from sync.facts import Json, Names

#: Statuses that mean every job.
_ANY = "any"


class Row(NamedTuple):
    """A job that was found, with where a query goes on after it."""

    job_id: str
    cursor: str | None
    view: bytes


class _Page(NamedTuple):
    """Jobs, with what else is shown of them."""

    rows: list[Row]
    files: Mapping[str, list[AttachmentRow]]
    reports: Mapping[str, list[ReportRow]]


class _Workflows(NamedTuple):
    """What workflows say of jobs. ``naming``: job id -> the version that names its steps."""

    tags: Mapping[str, list[str]] = {}
    naming: Mapping[str, str] = {}


class _Head(msgspec.Struct):
    """What of a job's document is compared with long texts."""

    workflowId: Any = None
    workflowName: Any = None
    userId: Any = None
    username: Any = None
    jobTitle: Any = None


class _Heads(msgspec.Struct):
    metadata: _Head = msgspec.field(default_factory=_Head)


_heads = msgspec.json.Decoder(_Heads)


async def jobs(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Jobs as ``field`` asks for them.

    Raises:
        QueryProblem: ``invalid-argument``, ``invalid-cursor``.
    """
    asked = wanted(field)
    shape = JobShape(field.fields)
    page = await asking.database.read(_load, asking.team_id, field, asked, shape)
    # Opening and shaping a hundred jobs takes some milliseconds: other requests go on meanwhile.
    documents = await asyncio.to_thread(lambda: [shape.open(row.view) for row in page.rows])
    said, names = _Workflows(), dict[str, Names]()
    if shape.needs_tags or shape.needs_names:
        heads = {
            row.job_id: document.get("metadata") or {}
            for row, document in zip(page.rows, documents, strict=True)
        }
        said = await asking.database.read(_workflows, asking.team_id, heads, shape)
        for version_id in sorted(set(said.naming.values())):
            names[version_id] = await names_of(asking.database, asking.team_id, version_id) or {}

    def shaped() -> list[dict[str, Any]]:
        return [
            shape.job(document, _around(row, page, said, names, asking))
            for row, document in zip(page.rows, documents, strict=True)
        ]

    return await asyncio.to_thread(shaped)


def _around(row: Row, page: _Page, said: _Workflows, names: Mapping[str, Names], asking: Asking) -> Around:
    return Around(
        cursor=row.cursor,
        tags=said.tags.get(row.job_id, []),
        names=names.get(said.naming.get(row.job_id, ""), {}),
        files=page.files.get(row.job_id, []),
        reports=page.reports.get(row.job_id, []),
        blobs=asking.blobs,
    )


def _load(connection: Connection, team_id: int, field: Field, asked: JobsWanted, shape: JobShape) -> _Page:
    find = _of_any_status if asked.is_open else _of_completed
    rows = find(connection, team_id, field, asked)
    job_ids = [row.job_id for row in rows]
    return _Page(
        rows=rows,
        files=attachments.of_jobs(connection, team_id, job_ids) if shape.needs_files and job_ids else {},
        reports=reports.of_jobs(connection, team_id, job_ids) if shape.needs_reports and job_ids else {},
    )


def _workflows(
    connection: Connection, team_id: int, heads: Mapping[str, Json], shape: JobShape
) -> _Workflows:
    return _Workflows(
        tags=_tags(connection, team_id, heads) if shape.needs_tags else {},
        naming=naming_versions(connection, team_id, heads) if shape.needs_names else {},
    )


def _of_completed(connection: Connection, team_id: int, field: Field, asked: JobsWanted) -> list[Row]:
    incarnation = feed.incarnation(connection, team_id)
    search = asked.completed
    if asked.tags:
        known = {key: _decoded(tags) for key, tags in workflows.tags_of(connection, team_id, None).items()}
        found = by_tags(known, asked.tags, asked.every)
        if not found:
            return []
        search = search._replace(texts={**search.texts, "workflow_id": found})
    if asked.cursor is not None:
        search = search._replace(after=seq_of(field, asked.cursor, incarnation))
    cut = search._replace(
        texts={name: _searched(values) for name, values in search.texts.items()},
        job_ids=None if search.job_ids is None else _searched(search.job_ids),
    )
    return [
        Row(found.job_id, format_cursor(incarnation, found.seq), found.view)
        for found in completed_jobs.page(connection, team_id, cut, asked.limit)
        if _is_exact(found.view, search)
    ]


def _searched(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(completed_jobs.cut(value) for value in values))


_MEMBERS = {
    "workflow_id": "workflowId",
    "workflow_title": "workflowName",
    "user_id": "userId",
    "user_name": "username",
    "job_title": "jobTitle",
}


def _is_exact(view: bytes, search: Wanted) -> bool:
    """Whether a job is what was searched for: of long texts only the beginning was compared."""
    for column, values in search.texts.items():
        if any(len(value) >= completed_jobs.MAX_CHARACTERS or "\0" in value for value in values):
            said = getattr(_heads.decode(view).metadata, _MEMBERS[column])
            if said not in values:
                return False
    return True


def _of_any_status(connection: Connection, team_id: int, field: Field, asked: JobsWanted) -> list[Row]:
    search = asked.completed
    rows = job_queries.by_status(
        connection,
        team_id,
        statuses=None if _ANY in asked.statuses else sorted(asked.statuses),
        workflow_ids=_clean(search.texts.get("workflow_id")),
        owner_ids=_clean(search.texts.get("user_id")),
        job_ids=_clean(search.job_ids),
        after=job_id_of(field, asked.cursor) if asked.cursor is not None else None,
        descending=search.descending,
        excluded=search.excluded,
        limit=asked.limit,
    )
    return [Row(row.job_id, open_cursor_of(row.job_id), row.view) for row in rows]


def _clean(values: Sequence[str] | None) -> list[str] | None:
    # PostgreSQL's text has no NUL.
    return None if values is None else [value.replace("\0", "\ufffd") for value in values]


def _decoded(tags: bytes) -> list[str]:
    decoded: list[str] = msgspec.json.decode(tags)
    return decoded


def _tags(connection: Connection, team_id: int, heads: Mapping[str, Json]) -> dict[str, list[str]]:
    ids = {
        job_id: workflow_id
        for job_id, head in heads.items()
        if (workflow_id := searchable(head.get("workflowId")))
    }
    found = workflows.tags_of(connection, team_id, sorted(set(ids.values())))
    return {job_id: _decoded(found[key]) for job_id, key in ids.items() if key in found}
