"""Files and reports as queries show them (section 3.5.4), with addresses that work for 65 minutes."""

from collections.abc import Callable
from typing import Any, NamedTuple

from media.details import Thumbnail
from server.attachments.forgetting import details_of
from server.attachments.reading import THUMBNAIL_TYPE, address
from server.query.selecting import Field
from server.reports.links import file_name_of, link
from storage.blobs import BlobStore
from storage.queries.attachments import AttachmentRow
from storage.queries.reports import ReportRow
from sync.facts import STEP_FIELDS, Json, Names, Visit
from sync.values import format_time


class FileOfStep(NamedTuple):
    """A file that has arrived, and the first visit that refers to it."""

    row: AttachmentRow
    visit: Visit | None


_Attachment = Callable[[FileOfStep, Names, BlobStore], Any]


def _of_step(name: str) -> _Attachment:
    told = STEP_FIELDS[name]
    return lambda file, names, blobs: None if file.visit is None else told(file.visit, names)


ATTACHMENT_FIELDS: dict[str, _Attachment] = {
    "attachmentId": lambda file, names, blobs: file.row.attachment_id,
    "stepId": _of_step("stepId"),
    "uniqueStepId": _of_step("uniqueStepId"),
    "stepTitle": _of_step("stepTitle"),
    "fileName": lambda file, names, blobs: file.row.file_name,
    "mimeType": lambda file, names, blobs: file.row.content_type,
    "fileSize": lambda file, names, blobs: file.row.size,
    "downloadUrl": lambda file, names, blobs: address(blobs, file.row),
    "thumbnails": lambda file, names, blobs: list(details_of(file.row).thumbnails),
    "__typename": lambda file, names, blobs: "Attachment",
}

_Shown = Callable[[FileOfStep, Thumbnail, BlobStore], Any]
THUMBNAIL_FIELDS: dict[str, _Shown] = {
    "name": lambda file, thumbnail, blobs: thumbnail.size,
    # They are made when the file has come; nothing notes the moment.
    "created": lambda file, thumbnail, blobs: (
        None if file.row.stored_at is None else format_time(file.row.stored_at)
    ),
    "mimeType": lambda file, thumbnail, blobs: THUMBNAIL_TYPE,
    "fileSize": lambda file, thumbnail, blobs: thumbnail.bytes,
    "width": lambda file, thumbnail, blobs: thumbnail.width,
    "height": lambda file, thumbnail, blobs: thumbnail.height,
    "downloadUrl": lambda file, thumbnail, blobs: address(blobs, file.row, thumbnail),
    "__typename": lambda file, thumbnail, blobs: "Thumbnail",
}

REPORT_FIELDS = ("generatedReportId", "generated", "templateName", "mimeType", "downloadUrl", "__typename")


def attachment(field: Field) -> Callable[[FileOfStep, Names, BlobStore], dict[str, Any]]:
    """What shows an attachment as it is selected."""
    makers: list[tuple[str, _Attachment]] = []
    for each in field.fields:
        make = ATTACHMENT_FIELDS[each.name]
        makers.append((each.key, _thumbnails(each) if each.name == "thumbnails" else make))
    return lambda file, names, blobs: {key: make(file, names, blobs) for key, make in makers}


def _thumbnails(field: Field) -> _Attachment:
    makers = [(each.key, THUMBNAIL_FIELDS[each.name]) for each in field.fields]
    return lambda file, names, blobs: [
        {key: make(file, thumbnail, blobs) for key, make in makers}
        for thumbnail in details_of(file.row).thumbnails
    ]


def report(field: Field) -> Callable[[ReportRow, Json, BlobStore], dict[str, Any]]:
    """What shows a report as it is selected."""
    keys = [(each.key, each.name) for each in field.fields]

    def show(row: ReportRow, document: Json, blobs: BlobStore) -> dict[str, Any]:
        head = document.get("metadata") or {}
        name = file_name_of(head.get("jobTitle"), row.client_job_id)
        told = {**link(blobs, row, name), "__typename": "Report"}
        return {key: told[each] for key, each in keys}

    return show
