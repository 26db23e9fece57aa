"""Reading report templates: the lists (9.1, 9.3), one (9.2), the default (9.4), versions."""

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.errors import Problem
from server.http import json_response, optional_page
from server.report_templates.loading import readable
from server.report_templates.shapes import (
    NO_STORE,
    POLICY,
    TAGS,
    TemplateRequest,
    listed,
    named,
    not_found,
    printed,
    version_document,
    version_not_found,
)
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import report_templates as queries
from storage.queries.report_templates import TemplateRow, VersionRow

_LIST = "Newest first, all of them unless `limit` or `skip` says otherwise. `archived`: only those that are (`true`) or "
_LIST += "are not (`false`)."


@get(
    "/reporttemplates/v1",
    opt=POLICY,
    tags=TAGS,
    summary="Get all report templates",
    description=f"{_LIST} The addresses of their files work for 65 minutes.",
)
async def get_templates(
    request: TemplateRequest, database: NamedDependency[Database], blobs: NamedDependency[BlobStore]
) -> Response[bytes]:
    """Section 9.1."""
    default, rows = await database.read(_list, request.user.team_id, *_filter(request))
    documents = [listed(row, version, row.template_id == default, blobs) for row, version in rows]
    return json_response(msgspec.json.encode(documents), NO_STORE)


@get(
    "/reporttemplates/v1/names",
    opt=POLICY,
    tags=TAGS,
    summary="Get the names of report templates",
    description=_LIST,
)
async def get_names(request: TemplateRequest, database: NamedDependency[Database]) -> Response[bytes]:
    """Section 9.3."""
    rows = await database.read(queries.listed, request.user.team_id, *_filter(request))
    return json_response(msgspec.json.encode([named(row) for row, _ in rows]))


@get(
    "/reporttemplates/v1/content/{report_template_id:str}",
    opt=POLICY,
    tags=TAGS,
    summary="Get a report template",
)
async def get_template(
    request: TemplateRequest,
    report_template_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 9.2."""
    default, row, version = await database.read(_one, request.user.team_id, report_template_id)
    contents = await readable(blobs, version)
    return json_response(printed(row, version, contents, row.template_id == default))


@get(
    "/reporttemplates/v1/default",
    opt=POLICY,
    tags=TAGS,
    summary="Get the default report template",
    description="404 `no-default-template` while reports that name no template are made with the built-in one.",
)
async def get_default(
    request: TemplateRequest, database: NamedDependency[Database], blobs: NamedDependency[BlobStore]
) -> Response[bytes]:
    """Section 9.4, whose answer the document leaves blank: as section 9.2."""
    row, version = await database.read(_default, request.user.team_id)
    return json_response(printed(row, version, await readable(blobs, version), True))


@get(
    "/reporttemplates/v1/{report_template_id:str}/versions",
    opt=POLICY,
    tags=TAGS,
    summary="Get the versions of a report template",
    description="Newest first, without their contents.",
)
async def get_versions(
    request: TemplateRequest, report_template_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Every version there was."""
    row, versions = await database.read(_versions, request.user.team_id, report_template_id)
    return json_response(msgspec.json.encode([version_document(row, version) for version in versions]))


@get(
    "/reporttemplates/v1/{report_template_id:str}/versions/{version_id:str}",
    opt=POLICY,
    tags=TAGS,
    summary="Get a version of a report template",
    description="With its contents: sent to the template again, they are its newest version.",
)
async def get_version(
    request: TemplateRequest,
    report_template_id: FromPath[str],
    version_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """One version."""
    row, version = await database.read(_version, request.user.team_id, report_template_id, version_id)
    contents = await readable(blobs, version)
    return json_response(
        msgspec.json.encode(
            {
                "reportTemplateId": row.template_id,
                **version_document(row, version),
                "headerContent": contents.header,
                "bodyContent": contents.body,
            }
        )
    )


def _filter(request: TemplateRequest) -> tuple[bool | None, int, int | None]:
    archived = (request.query_params.get("archived") or "").lower()
    if archived not in ("", "true", "false"):
        raise Problem(400, "invalid-parameter", "archived must be true or false.", field="archived")
    return {"true": True, "false": False}.get(archived), *optional_page(request)


def _list(
    connection: Connection, team_id: int, archived: bool | None, skip: int, limit: int | None
) -> tuple[str | None, list[tuple[TemplateRow, VersionRow]]]:
    rows = queries.listed(connection, team_id, archived, skip, limit)
    return queries.default_id(connection, team_id), rows


def _one(
    connection: Connection, team_id: int, template_id: str
) -> tuple[str | None, TemplateRow, VersionRow]:
    found = queries.current(connection, team_id, template_id)
    if found is None:
        raise not_found()
    return queries.default_id(connection, team_id), *found


def _default(connection: Connection, team_id: int) -> tuple[TemplateRow, VersionRow]:
    template_id = queries.default_id(connection, team_id)
    found = None if template_id is None else queries.current(connection, team_id, template_id)
    if found is None:
        raise Problem(
            404, "no-default-template", "No template is the default: reports are made with the built-in one."
        )
    return found


def _versions(connection: Connection, team_id: int, template_id: str) -> tuple[TemplateRow, list[VersionRow]]:
    found = queries.current(connection, team_id, template_id)
    if found is None:
        raise not_found()
    return found[0], queries.versions(connection, team_id, template_id)


def _version(
    connection: Connection, team_id: int, template_id: str, version_id: str
) -> tuple[TemplateRow, VersionRow]:
    found = queries.current(connection, team_id, template_id)
    if found is None:
        raise not_found()
    version = queries.version(connection, team_id, template_id, version_id)
    if version is None:
        raise version_not_found()
    return found[0], version


route_handlers = [get_templates, get_names, get_template, get_default, get_versions, get_version]
