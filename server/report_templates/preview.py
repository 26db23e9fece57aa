"""Previews: what a template makes of a job, without keeping anything."""

import asyncio
from typing import Literal

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
from server.report_templates.slots import Slots
from server.reports.context import local_files, report_context
from server.reports.loading import Contents, Options, stored_options, template_of
from server.reports.pictures import first, needed
from storage.blobs import BlobStore, content_disposition
from storage.database import Connection, Database
from storage.queries import jobs as job_queries
from storage.queries import report_templates as queries
from storage.queries.jobs import JobView
from storage.queries.report_templates import VersionRow

Images = Literal["large", "small", "none"]

_slots = Slots()
#: What a preview takes of a job's pictures, and of their bytes; a report takes all. Forty photos of 1280 pixels.
MOST_PICTURES, MOST_PICTURE_BYTES = 500, 16_000_000
_MOST_PDF_BYTES = 60_000_000

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
    with _slots.place(request.user.team_id):
        printed = await _printed(request.user, asked, wanted, database, blobs, printing)
        return await asyncio.to_thread(_answer, printed, wanted)  # megabytes


async def _printed(
    user: Principal,
    asked: AskedPreview,
    wanted: str,
    database: Database,
    blobs: BlobStore,
    printing: Sandbox,
) -> Printed:
    job, version = await database.read(_found, user, asked)
    template = await _template(blobs, asked, version)
    material = await report_context(database, blobs, user.team_id, job, asked.images)
    pictures = needed(material, template)
    shown = first(pictures, material.sizes, MOST_PICTURES, MOST_PICTURE_BYTES)
    async with local_files(blobs, shown) as files:
        as_pdf, with_html = wanted != "html", wanted != "pdf"
        arguments = (template, material.context, files, as_pdf, with_html, _MOST_PDF_BYTES)
        printed = await in_sandbox(printing, print_report, *arguments)
    if len(shown) == len(pictures):
        return printed
    note = f"the preview has {len(shown):,} of {len(pictures):,} pictures; a report has all of them"
    return printed._replace(log=(note, *printed.log))


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


def _answer(printed: Printed, wanted: str) -> Response[bytes]:
    headers = {**NO_STORE, **_NOSNIFF}
    if wanted == "html":
        return Response(printed.html, media_type="text/html", headers={**headers, **_HARMLESS})
    if wanted == "pdf":
        headers["Content-Disposition"] = content_disposition("preview.pdf", inline=True)
        return Response(printed.pdf, media_type="application/pdf", headers=headers)
    body = {
        "html": printed.html.decode(),
        "pages": printed.pages,
        "log": printed.log,
        "pdf": printed.pdf,  # msgspec writes bytes as Base64
    }
    return Response(msgspec.json.encode(body), media_type=JSON, headers=headers)


route_handlers = [preview_template]
