"""Changing report templates: create (9.8), new versions (9.10), metadata (9.9), archiving (9.5), the default (9.6, 9.7)."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from litestar import Response, delete, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from media.sandbox import Sandbox
from server import bodies
from server.attachments.forgetting import delete_now
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response
from server.report_templates.loading import CONTENT_TYPE, check, readable
from server.report_templates.shapes import (
    POLICY,
    TAGS,
    AskedOptions,
    AskedTemplate,
    TemplateRequest,
    checked_template,
    default_options,
    not_found,
    printed,
    with_metadata,
)
from server.reports.loading import Contents, Options, stored_options
from server.workflows.intake import truth
from storage.blobs import BlobStore, new_key
from storage.database import Connection, Database, Unavailable
from storage.ids import new_id
from storage.queries import report_templates as queries
from storage.queries import team_settings
from storage.queries.report_templates import TemplateRow, VersionRow


class _Held(NamedTuple):
    """A template that nobody else changes until the transaction ends."""

    settings: Mapping[str, Any]
    row: TemplateRow
    version: VersionRow

    @property
    def is_default(self) -> bool:
        return team_settings.default_report(self.settings) == self.row.template_id and not self.row.archived


@post(
    "/reporttemplates/v1/content",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Create a report template",
    description="`name` and `bodyContent`; `headerContent`, `description`, `options` and `metadata` if wanted. Header "
    "and body are templates of up to 1 MB each. The title is the name unless `options.title` says another.",
)
async def create_template(
    request: TemplateRequest,
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
    printing: NamedDependency[Sandbox],
) -> Response[bytes]:
    """Section 9.8."""
    asked = checked_template(await request.body())
    if asked.name is None:
        raise bodies.invalid("name", "A new template needs a name.")
    if asked.body_content is None:
        raise bodies.invalid("bodyContent", "A new template needs its bodyContent.")
    contents = Contents(asked.header_content or "", asked.body_content)
    options = (asked.options or AskedOptions()).over(default_options(asked.name))
    user, at, template_id = request.user, now(), new_id()
    metadata = with_metadata({}, asked.metadata or {})
    await check(printing, user.team_id, contents)
    row = TemplateRow(
        template_id=template_id,
        name=asked.name,
        description=asked.description or None,
        metadata=metadata,
        archived=False,
        version_id=new_id(),
        created_by=user.subject_id,
        created_at=at,
        updated_at=at,
    )
    async with _stored(blobs, user, at, header_key=contents.header, body_key=contents.body) as keys:
        version = VersionRow(
            **keys,
            version_id=row.version_id,
            template_id=template_id,
            number=1,
            options=msgspec.json.encode(options),
            user_id=user.subject_id,
            uploaded_at=at,
        )
        await database.settle(_create, user, row, version)
    return json_response(printed(row, version, contents, False))


@put(
    "/reporttemplates/v1/content/{report_template_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Update a report template",
    description="`name`, `description`, `headerContent`, `bodyContent`, `options`, `metadata` (as its own address "
    "takes it) and `isArchived` (false takes it out of the archive); what is not sent stays. Content or options make "
    "a new version, and the earlier ones are kept.",
)
async def update_template(
    request: TemplateRequest,
    report_template_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
    printing: NamedDependency[Sandbox],
) -> Response[bytes]:
    """Section 9.10. The document's other members (``isDefault``, times) are not looked at."""
    asked = checked_template(await request.body())
    user, at = request.user, now()
    if await database.read(queries.current, user.team_id, report_template_id) is None:
        raise not_found()
    header, body = asked.header_content, asked.body_content
    if header is not None or body is not None:
        await check(printing, user.team_id, Contents(header or "", body or ""))
    async with _stored(blobs, user, at, header_key=header, body_key=body) as keys:
        held = await database.settle(_update, user, report_template_id, asked, keys, at)
    return await _answer(blobs, held)


@put(
    "/reporttemplates/v1/metadata/{report_template_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Update a report template's metadata",
    description="Sets the members of the body; null takes one away. What is not sent stays. Up to 20 KB together.",
)
async def update_metadata(
    request: TemplateRequest,
    report_template_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 9.9; answers the template."""
    asked = AskedTemplate(metadata=bodies.decode(await request.body(), dict[str, Any]))
    held = await database.settle(_update, request.user, report_template_id, asked, {}, now())
    return await _answer(blobs, held)


@delete(
    "/reporttemplates/v1/{report_template_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Delete a report template",
    description="It goes into the archive: still listed and readable, no longer printed with, and no longer the "
    "default. Doing it again is no error.",
)
async def delete_template(
    request: TemplateRequest, report_template_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Section 9.5. Reports that were made, and triggers, go on naming it."""
    await database.settle(
        _update, request.user, report_template_id, AskedTemplate(is_archived=True), {}, now()
    )
    return Response(b"", status_code=200)


@put(
    "/reporttemplates/v1/default/{report_template_id:str}",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Set the default report template",
    description="The template of reports that name none; the same value as the team setting `Reports.DefaultReport`.",
)
async def set_default(
    request: TemplateRequest,
    report_template_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 9.6; answers the template."""
    return await _answer(blobs, await database.settle(_set_default, request.user.team_id, report_template_id))


@put(
    "/reporttemplates/v1/default/unset",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Unset the default report template",
    description="Reports that name no template are made with the built-in one. Answers the template that was the "
    "default, or null.",
)
async def unset_default(
    request: TemplateRequest, database: NamedDependency[Database], blobs: NamedDependency[BlobStore]
) -> Response[bytes]:
    """Section 9.7."""
    held = await database.settle(_unset_default, request.user.team_id)
    return json_response(b"null") if held is None else await _answer(blobs, held)


@asynccontextmanager
async def _stored(
    blobs: BlobStore, user: Principal, at: int, **contents: str | None
) -> AsyncIterator[dict[str, str]]:
    """Put contents into the store; their keys by the same names, without those that are null. If the block fails they
    are deleted again."""
    keys: dict[str, str] = {}
    try:
        for name, content in contents.items():
            if content is not None:
                keys[name] = new_key(user.team_id, at)
                data = content.encode()
                await blobs.put(keys[name], data, content_type=CONTENT_TYPE, size=len(data))
        yield keys
    except Unavailable:
        raise  # recorded or not, nobody knows
    except Exception:
        await delete_now(blobs, list(keys.values()))
        raise


async def _answer(blobs: BlobStore, held: _Held) -> Response[bytes]:
    contents = await readable(blobs, held.version)
    return json_response(printed(held.row, held.version, contents, held.is_default))


def _hold(connection: Connection, team_id: int, template_id: str) -> _Held:
    # First: see storage/queries/report_templates.py.
    settings = team_settings.settings(connection, team_id, lock=True)
    found = queries.current(connection, team_id, template_id)
    if found is None:
        raise not_found()
    return _Held(settings, *found)


def _create(connection: Connection, user: Principal, row: TemplateRow, version: VersionRow) -> None:
    queries.add(connection, user.team_id, row)
    queries.add_version(connection, user.team_id, version)


def _update(
    connection: Connection,
    user: Principal,
    template_id: str,
    asked: AskedTemplate,
    keys: Mapping[str, str],
    at: int,
) -> _Held:
    held = _hold(connection, user.team_id, template_id)
    row, version = held.row, held.version
    if asked.name is not None:
        row = row._replace(name=asked.name)
    if asked.description is not None:
        row = row._replace(description=asked.description or None)
    if asked.metadata is not None:
        row = row._replace(metadata=with_metadata(msgspec.json.decode(row.metadata), asked.metadata))
    if asked.is_archived is not None:
        row = row._replace(archived=truth(asked.is_archived))
    if keys or asked.options is not None:
        options = _options(version, asked.options)
        version = version._replace(
            version_id=new_id(),
            number=version.number + 1,
            options=msgspec.json.encode(options),
            user_id=user.subject_id,
            uploaded_at=at,
            **keys,
        )
        row = row._replace(version_id=version.version_id)
        queries.add_version(connection, user.team_id, version)
    if row != held.row:
        row = row._replace(updated_at=at)
        queries.save(connection, user.team_id, row)
    held = held._replace(row=row, version=version)
    if row.archived and team_settings.default_report(held.settings) == template_id:
        held = held._replace(settings=_keep_default(connection, user.team_id, held.settings, None))
    return held


def _options(version: VersionRow, asked: AskedOptions | None) -> Options:
    below = stored_options(version)
    return below if asked is None else asked.over(below)


def _set_default(connection: Connection, team_id: int, template_id: str) -> _Held:
    held = _hold(connection, team_id, template_id)
    if held.row.archived:
        raise Problem(
            409,
            "report-template-archived",
            "The template is archived. Take it out of the archive first, with isArchived false.",
        )
    return held._replace(settings=_keep_default(connection, team_id, held.settings, template_id))


def _unset_default(connection: Connection, team_id: int) -> _Held | None:
    settings = team_settings.settings(connection, team_id, lock=True)
    template_id = team_settings.default_report(settings)
    if template_id is None:
        return None
    unset = _keep_default(connection, team_id, settings, None)
    found = queries.current(connection, team_id, template_id)
    return None if found is None else _Held(unset, *found)


def _keep_default(
    connection: Connection, team_id: int, settings: Mapping[str, Any], template_id: str | None
) -> Mapping[str, Any]:
    values = team_settings.merged(settings, {"Reports": {"DefaultReport": template_id}})
    team_settings.set_settings(connection, team_id, values)
    return values


route_handlers = [
    create_template,
    update_template,
    update_metadata,
    delete_template,
    unset_default,
    set_default,
]
