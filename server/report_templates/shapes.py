"""Report templates on the wire: bodies, answers, refusals."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request

from server import bodies
from server.auth.principal import Principal
from server.errors import Problem
from server.report_templates.loading import CONTENT_TYPE
from server.reports.loading import Contents, Options
from server.workflows.intake import Truth, truth
from storage.blobs import BlobStore
from storage.queries.report_templates import TemplateRow, VersionRow
from sync.values import format_time

TemplateRequest = Request[Principal, Any, Any]

TAGS = ["Report templates"]
POLICY = {"policy": "Reports_Create"}
#: Addresses in it expire, and whoever has one needs no token.
NO_STORE = {"Cache-Control": "private, no-store"}

#: Of the header and of the body, bytes in UTF-8.
MAX_CONTENT = 1024 * 1024
#: Of all metadata, bytes as JSON.
MAX_METADATA = 20 * 1024
MAX_DESCRIPTION = 10_000
#: CSS pixels; a page of A4 in landscape is 794 high.
MAX_HEADER_HEIGHT = 400
DEFAULT_HEADER_HEIGHT = 48


class AskedOptions(msgspec.Struct, rename="camel"):
    """``options`` of a body. What is null was not sent."""

    is_landscape: Truth | None = None
    title: str | None = None
    header_height: int | None = None
    hide_footer: Truth | None = None

    def over(self, below: Options) -> Options:
        """``below`` with what was sent; a blank title was not."""
        title = (self.title or "").strip()
        return Options(
            below.is_landscape if self.is_landscape is None else truth(self.is_landscape),
            title or below.title,
            below.header_height if self.header_height is None else self.header_height,
            below.hide_footer if self.hide_footer is None else truth(self.hide_footer),
        )


class AskedTemplate(msgspec.Struct, rename="camel"):
    """The body of sections 9.8 and 9.10. What is null was not sent; what else the document prints is not looked
    at, so that an answer can be sent back."""

    name: str | None = None
    description: str | None = None
    header_content: str | None = None
    body_content: str | None = None
    options: AskedOptions | None = None
    metadata: dict[str, Any] | None = None
    is_archived: Truth | None = None


def default_options(title: str) -> Options:
    """The options of a template that says nothing of them."""
    return Options(False, title, DEFAULT_HEADER_HEIGHT, False)


def checked_template(body: bytes) -> AskedTemplate:
    """What to make of a template.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    asked = bodies.decode(body, AskedTemplate)
    if asked.name is not None:
        asked.name = bodies.name(asked.name, "name")
    if asked.description is not None:
        _check_text(asked.description, "description", MAX_DESCRIPTION)
    check_contents(asked.header_content, asked.body_content)
    check_options(asked.options)
    return asked


def check_contents(header: str | None, body: str | None) -> None:
    """Refuse contents that are too large or no text, and a body with nothing in it."""
    for field, content in (("headerContent", header), ("bodyContent", body)):
        if content is not None:
            _check_text(content, field, MAX_CONTENT)
            if len(content.encode()) > MAX_CONTENT:
                raise bodies.invalid(
                    field, f"{field} must not be larger than {MAX_CONTENT // 1024:,} KB in UTF-8."
                )
    if body is not None and not body.strip():
        raise bodies.invalid("bodyContent", "bodyContent must not be empty.")


def check_options(asked: AskedOptions | None) -> None:
    """Refuse options that cannot be."""
    if asked is None:
        return
    if asked.title is not None and (len(asked.title) > bodies.MAX_NAME or not asked.title.isprintable()):
        raise bodies.invalid(
            "options.title", f"options.title has at most {bodies.MAX_NAME} characters, all of them printable."
        )
    if asked.header_height is not None and not 0 <= asked.header_height <= MAX_HEADER_HEIGHT:
        raise bodies.invalid(
            "options.headerHeight",
            f"options.headerHeight is a number of pixels from 0 to {MAX_HEADER_HEIGHT}.",
        )


def with_metadata(below: Mapping[str, Any], asked: Mapping[str, Any]) -> bytes:
    """Metadata with members set, or taken away by a null; as JSON.

    Raises:
        Problem: 422 ``invalid-body`` if it becomes too much.
    """
    values = {**below, **asked}
    kept = msgspec.json.encode({name: value for name, value in values.items() if value is not None})
    if len(kept) > MAX_METADATA:
        raise bodies.invalid("metadata", f"The metadata may have {MAX_METADATA // 1024} KB together.")
    return kept


def _check_text(value: str, field: str, most: int) -> None:
    if len(value) > most:
        raise bodies.invalid(field, f"{field} must not be longer than {most:,} characters.")
    if "\0" in value:
        raise bodies.invalid(field, f"{field} must not hold a NUL.")


# Answers


def printed(row: TemplateRow, version: VersionRow, contents: Contents, is_default: bool) -> bytes:
    """A template as section 9.2 prints it."""
    return msgspec.json.encode(
        {
            "reportTemplateId": row.template_id,
            "name": row.name,
            "description": row.description,
            "headerContent": contents.header,
            "bodyContent": contents.body,
            "lastUpdated": format_time(row.updated_at),
            "userId": version.user_id,
            "options": msgspec.Raw(version.options),
            "isDefault": is_default,
            "isArchived": row.archived,
            "metadata": msgspec.Raw(row.metadata),
        }
    )


def listed(row: TemplateRow, version: VersionRow, is_default: bool, blobs: BlobStore) -> dict[str, Any]:
    """A template as section 9.1 prints it; there the braces of the two files are not closed."""
    return {
        "reportTemplateId": row.template_id,
        "name": row.name,
        "description": row.description,
        "template": {
            "templateId": version.version_id,
            "templateBodyFile": _file(blobs, row, version.body_key, "Body template"),
            "templateHeaderFile": _file(blobs, row, version.header_key, "Header template"),
            "uploadedDate": format_time(version.uploaded_at),
            "userId": version.user_id,
        },
        "lastUpdated": format_time(row.updated_at),
        "options": msgspec.Raw(version.options),
        "isDefault": is_default,
        "isArchived": row.archived,
        "metadata": msgspec.Raw(row.metadata),
    }


def named(row: TemplateRow) -> dict[str, Any]:
    """A template as section 9.3 prints it: most of it is null there, whatever the template has."""
    return {
        "reportTemplateId": row.template_id,
        "name": row.name,
        "description": row.description,
        "templateVersions": None,
        "teamName": None,
        "lastUpdated": format_time(row.updated_at),
        "template": None,
        "options": None,
        "isArchived": row.archived,
        "metadata": msgspec.Raw(row.metadata),
    }


def version_document(row: TemplateRow, version: VersionRow) -> dict[str, Any]:
    """A version, without its contents."""
    return {
        "versionId": version.version_id,
        "number": version.number,
        "uploaded": format_time(version.uploaded_at),
        "userId": version.user_id,
        "isCurrent": version.version_id == row.version_id,
        "options": msgspec.Raw(version.options),
    }


def _file(blobs: BlobStore, row: TemplateRow, key: str, name: str) -> dict[str, Any]:
    return {
        "name": name,
        # The last part of a key is a UUID: it says which file it is, and neither the team nor the place.
        "uri": str(UUID(hex=key.rpartition("/")[2])),
        "contentType": CONTENT_TYPE,
        # To be saved, never shown: what is in it would run as a page of the store's.
        "downloadUrl": blobs.get_url(
            key, content_type=f"{CONTENT_TYPE}; charset=utf-8", file_name=_file_name(row.name, name)
        ),
    }


def _file_name(template: str, part: str) -> str:
    return bodies.clean_file_name(f"{template} - {part}.html".replace("/", "-").replace("\\", "-")) or part


# Refusals


def not_found() -> Problem:
    """The answer for a template that is not there, or not the team's."""
    return Problem(404, "report-template-not-found", "There is no such report template.")


def version_not_found() -> Problem:
    """The answer for a version that is not there, or not of this template."""
    return Problem(
        404, "report-template-version-not-found", "There is no such version of the report template."
    )
