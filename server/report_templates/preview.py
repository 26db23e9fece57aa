"""Previews: what a template makes of a job, without keeping anything."""

import asyncio
import base64
from typing import Literal, NamedTuple

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency

from media.pdf import Printed, Template, print_report
from media.sandbox import Sandbox
from server import bodies
from server.auth.principal import Principal
from server.errors import Problem
from server.http import JSON
from server.jobs.reading import not_found as job_not_found
from server.report_templates.loading import in_sandbox, readable
from server.report_templates.shapes import (
    NO_STORE,
    POLICY,
    TAGS,
    AskedOptions,
    TemplateRequest,
    check_contents,
    check_options,
    default_options,
    not_found,
)
from server.reports.context import local_files, report_context
from server.reports.loading import Contents, Options, stored_options, template_of
from storage.blobs import BlobStore, content_disposition
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import report_templates as queries
from storage.queries.jobs import JobView
from storage.queries.report_templates import VersionRow

Images = Literal["large", "small", "none"]

#: Previews of one process at once. Each waits for a worker that reports need as well, with a job and a template of a
#: megabyte in memory.
AT_ONCE = 4
_slots = asyncio.Semaphore(AT_ONCE)

_FORMATS = ("json", "html", "pdf")
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}
#: A page of a stranger at our address: no scripts, no origin, nothing loaded, nothing sent.
_HARMLESS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",
}


class AskedPreview(msgspec.Struct, rename="camel"):
    """The body. What is null was not sent."""

    client_job_id: str | None = None
    job_id: str | None = None
    report_template_id: str | None = None
    header_content: str | None = None
    body_content: str | None = None
    options: AskedOptions | None = None
    images: Images = "large"


class _Preview(NamedTuple):
    """The HTML, the PDF, or both, whatever was asked for."""

    page: Printed | None
    document: Printed | None


@post(
    "/reporttemplates/v1/preview",
    status_code=200,
    opt=POLICY,
    tags=TAGS,
    summary="Preview a report template",
    description="What a template makes of a job; nothing is kept. `clientJobId` or `jobId`; `headerContent`, "
    "`bodyContent` and `options`, and for what is not sent a stored template's (`reportTemplateId`); `images`: "
    "`large` (as without it), `small` or `none`. `format=json` answers `html`, `pdf` (Base64), `pages` and `log`, "
    "`format=html` and `format=pdf` one of them as it is.",
)
async def preview_template(
    request: TemplateRequest,
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
    printing: NamedDependency[Sandbox],
) -> Response[bytes]:
    """Ours; the document has none."""
    wanted = request.query_params.get("format") or "json"
    if wanted not in _FORMATS:
        raise Problem(
            400, "invalid-parameter", f"format must be one of {', '.join(_FORMATS)}.", field="format"
        )
    asked = _checked(await request.body())
    if _slots.locked():
        raise Problem(503, "busy", f"{AT_ONCE} previews are being made. Try again in a moment.")
    async with _slots:
        made = await _preview(request.user, asked, wanted, database, blobs, printing)
    return _answer(made)


async def _preview(
    user: Principal,
    asked: AskedPreview,
    wanted: str,
    database: Database,
    blobs: BlobStore,
    printing: Sandbox,
) -> _Preview:
    job, version = await database.read(_found, user, asked)
    template = await _template(blobs, asked, version)
    material = await report_context(database, blobs, user.team_id, job, asked.images)
    async with local_files(blobs, material.keys) as files:

        async def made(as_pdf: bool) -> Printed:
            return await in_sandbox(printing, print_report, template, material.context, files, as_pdf)

        page = None if wanted == "pdf" else await made(as_pdf=False)
        document = None if wanted == "html" else await made(as_pdf=True)
    return _Preview(page, document)


def _checked(body: bytes) -> AskedPreview:
    asked = bodies.decode(body, AskedPreview)
    if (asked.client_job_id is None) == (asked.job_id is None):
        raise bodies.invalid("clientJobId", "A preview takes either a clientJobId or a jobId.")
    if asked.body_content is None and asked.report_template_id is None:
        raise bodies.invalid("bodyContent", "A preview takes a bodyContent or a reportTemplateId.")
    for field, value in (
        ("clientJobId", asked.client_job_id),
        ("jobId", asked.job_id),
        ("reportTemplateId", asked.report_template_id),
    ):
        if value is not None and "\0" in value:
            raise bodies.invalid(field, f"{field} must not hold a NUL.")
    check_contents(asked.header_content, asked.body_content)
    check_options(asked.options)
    return asked


def _found(connection: Connection, user: Principal, asked: AskedPreview) -> tuple[JobView, VersionRow | None]:
    if asked.client_job_id is not None:
        job = job_queries.by_client_job_id(connection, user.team_id, asked.client_job_id)
    else:
        job = job_queries.by_job_id(connection, user.team_id, asked.job_id or "")
    if job is None or (user.own_work_only and job.owner_id != user.subject_id):
        raise job_not_found()
    if asked.report_template_id is None:
        return job, None
    found = queries.current(connection, user.team_id, asked.report_template_id)
    if found is None:
        raise not_found()
    return job, found[1]


async def _template(blobs: BlobStore, asked: AskedPreview, version: VersionRow | None) -> Template:
    """What was sent, over what is stored."""
    below: Options = default_options("") if version is None else stored_options(version)
    stored = Contents("", "") if version is None else await readable(blobs, version)
    contents = Contents(
        stored.header if asked.header_content is None else asked.header_content,
        stored.body if asked.body_content is None else asked.body_content,
    )
    return template_of(contents, below if asked.options is None else asked.options.over(below))


def _answer(made: _Preview) -> Response[bytes]:
    page, document = made
    headers = {**NO_STORE, **_NOSNIFF}
    if page is not None and document is not None:
        body = {
            "html": page.html,
            "pages": document.pages,
            "log": list(dict.fromkeys((*page.log, *document.log))),
            "pdf": base64.b64encode(document.pdf).decode(),
        }
        return Response(msgspec.json.encode(body), media_type=JSON, headers=headers)
    if document is not None:
        headers["Content-Disposition"] = content_disposition("preview.pdf", inline=True)
        return Response(document.pdf, media_type="application/pdf", headers=headers)
    assert page is not None
    return Response(page.html.encode(), media_type="text/html", headers={**headers, **_HARMLESS})


route_handlers = [preview_template]
