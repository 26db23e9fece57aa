"""What a template is given: a job with its steps and files as plain dictionaries, lists, texts and numbers.

Described for authors of templates in docs/reports.md.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from media.formats import PICTURES, VIDEOS
from server.attachments.archive import file_name_of
from server.attachments.forgetting import details_of
from server.clock import now
from server.jobs.names import names_of, naming_version
from server.reports.requesting import MOST_FILES
from storage.blobs import BlobNotFound, BlobStore
from storage.database import Connection, Database
from storage.queries import attachments, team_settings, users, workflows
from storage.queries.attachment_references import MISSING
from storage.queries.attachments import AttachmentRow
from storage.queries.jobs import JobView
from storage.queries.users import UserRow
from storage.queries.workflows import VersionRow, WorkflowRow
from sync.facts import Names, job_facts, number, spelled_out, step_facts, text

#: ``images`` -> the thumbnail in ``src``: 1,280 pixels fill the width of a page at 170 dpi, 640 a third of it.
_SIZES = {"large": "large", "small": "medium"}
#: Taken in place of one that there is not.
_INSTEAD = ("medium", "large", "small")
#: A map with a pin; nothing is fetched from it.
_MAP = "https://www.openstreetmap.org/?mlat={latitude:.6f}&mlon={longitude:.6f}#map=17/{latitude:.6f}/{longitude:.6f}"
#: How a scheduled job marks its jobs (section 6.1.5): ids, which say nothing to people.
_MARKS = ("ScheduledJobId", "ScheduledTaskId")
_COPIES_AT_ONCE = 8

#: A job's view; its fractions remember how they were written.
decode_job = msgspec.json.Decoder(float_hook=number).decode


class ReportMaterial(NamedTuple):
    """``context``: for the template. ``keys``: the blobs of pictures, by ``<attachmentId>/<size>``."""

    context: dict[str, Any]
    keys: dict[str, str]


class Around(NamedTuple):
    """What stands around a job."""

    zone: str
    user: UserRow | None
    workflow: WorkflowRow | None
    version: VersionRow | None
    naming: str | None
    files: list[AttachmentRow]


async def report_context(
    database: Database, blobs: BlobStore, team_id: int, job: JobView, images: str
) -> ReportMaterial:
    """Everything a report of this job may show.

    Args:
        blobs: where the pictures are.
        images: ``large``, ``small`` or ``none``: which picture ``src`` of an attachment means.
    """
    del blobs  # the keys say which; whoever prints takes them from there
    document: dict[str, Any] = decode_job(job.view)
    around = await database.read(_around, team_id, job, document)
    known = await names_of(database, team_id, around.naming) if around.naming is not None else None
    return material_of(document, job.rev, around, known, images, now())


def material_of(
    document: Mapping[str, Any], rev: int, around: Around, known: Names | None, images: str, moment: int
) -> ReportMaterial:
    """The same, of what was read.

    Args:
        document: the job as :func:`decode_job` reads it.
        known: what the workflow calls its steps.
        moment: when the report is made.
    """
    facts, steps = job_facts(document), step_facts(document, known)
    keys: dict[str, str] = {}
    files = _Files(around.files, images, keys)
    others = _contradictions(document)
    shown: dict[str, dict[str, Any]] = {}
    for position, step in enumerate(steps, start=1):
        step["number"] = str(position)
        for place, each in enumerate([step, *step["substeps"]]):
            if place:
                each["number"] = f"{position}.{place}"
            each["otherValues"] = others.get(f"step:{each['uniqueStepId']}", [])
            each["attachments"] = files.of_step(each)
            shown.update({file["id"]: file for file in each["attachments"]})
    head = document["metadata"]
    context = {
        "job": {
            **facts,
            "metadata": (metadata := _metadata(head)),
            "meta": {item["name"]: item["value"] for item in metadata},
            "abandonReason": text(head.get("abandonReason")),
            "coordinates": (spot := _place(facts)),
            "mapLink": None if spot is None else _MAP.format(**spot),
            "rev": rev,
        },
        "steps": steps,
        "attachments": list(shown.values()),
        "team": {"name": facts["teamName"], "timeZone": around.zone},
        "user": _user(around.user, facts),
        "workflow": _workflow(around, facts),
        "generated": _local(moment, around.zone),
        "zone": around.zone,
        "images": images,
    }
    return ReportMaterial(context, keys)


@asynccontextmanager
async def local_files(blobs: BlobStore, keys: Mapping[str, str]) -> AsyncIterator[dict[str, str]]:
    """The pictures on this machine, until the end of the block: paths by the names of ``keys``. One that was
    deleted meanwhile is left out.

    Raises:
        BlobsUnavailable: the store does not give them now.
    """
    limit = asyncio.Semaphore(_COPIES_AT_ONCE)
    paths: dict[str, str] = {}
    async with AsyncExitStack() as opened:

        async def fetch(name: str, key: str) -> None:
            async with limit:
                with suppress(BlobNotFound):
                    paths[name] = str(await opened.enter_async_context(blobs.local_path(key)))

        # All of them are waited for: what is copied after the end of the block would not be removed.
        ends = await asyncio.gather(*(fetch(*pair) for pair in keys.items()), return_exceptions=True)
        for failure in filter(None, ends):
            raise failure
        yield paths


def _around(connection: Connection, team_id: int, job: JobView, document: Mapping[str, Any]) -> Around:
    head = document["metadata"]
    user_id, workflow_id, version_id = (
        _searchable(head.get(name)) for name in ("userId", "workflowId", "workflowVersionId")
    )
    return Around(
        zone=team_settings.default_timezone(connection, team_id),
        user=users.user_by_id(connection, team_id, user_id) if user_id else None,
        workflow=workflows.by_id(connection, team_id, workflow_id, True) if workflow_id else None,
        version=workflows.version(connection, team_id, version_id) if version_id else None,
        naming=naming_version(connection, team_id, document),
        files=attachments.of_job(connection, team_id, job.job_id, "", MOST_FILES),
    )


def _searchable(value: Any) -> str | None:
    return value if isinstance(value, str) and value and "\0" not in value else None


class _Files:
    """The files of a job as templates see them.

    Args:
        keys: where the keys of the pictures are put that are handed out.
    """

    def __init__(self, rows: Iterable[AttachmentRow], images: str, keys: dict[str, str]) -> None:
        self._rows = {row.attachment_id: row for row in rows}
        self._images = images
        self._keys = keys

    def of_step(self, step: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self._told(attachment_id, step) for attachment_id in step["attachmentIds"]]

    def _told(self, attachment_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
        row = self._rows.get(attachment_id)
        stored = row is not None and row.blob_key is not None
        details = details_of(row) if row is not None else None
        made = details.thumbnails if details is not None and self._images != "none" else ()
        sizes = {thumbnail.size: f"{attachment_id}/{thumbnail.size}" for thumbnail in made}
        self._keys.update({sizes[thumbnail.size]: thumbnail.key for thumbnail in made})
        wanted = (_SIZES.get(self._images, ""), *_INSTEAD)
        chosen = next((sizes[size] for size in wanted if size in sizes), None)
        kind = row.content_type if row is not None else None
        return {
            "id": attachment_id,
            "fileName": file_name_of(row) if row is not None and stored else attachment_id,
            "contentType": kind,
            "size": row.size if row is not None else None,
            "state": row.state if row is not None else MISSING,
            "isImage": kind in PICTURES,
            "isVideo": kind in VIDEOS,
            "takenAt": details.takenAt if details is not None else None,
            "latitude": details.latitude if details is not None else None,
            "longitude": details.longitude if details is not None else None,
            "width": details.width if details is not None else None,
            "height": details.height if details is not None else None,
            "src": f"att:{quote(chosen)}" if chosen else None,
            "thumbnails": {size: f"att:{quote(name)}" for size, name in sizes.items()},
            "stepTitle": step["stepTitle"],
            "stepNumber": step["number"],
        }


def _metadata(head: Mapping[str, Any]) -> list[dict[str, str]]:
    own = head.get("metadata")
    items = own.items() if isinstance(own, dict) else ()
    return [{"name": name, "value": spelled_out(value)} for name, value in items if name not in _MARKS]


def _contradictions(document: Mapping[str, Any]) -> dict[str, list[str]]:
    """Scope of a step -> what else was answered there, where tablets contradict each other."""
    found: dict[str, list[str]] = {}
    for conflict in document["sync"]["conflicts"]:
        answers: list[str] = []
        for other in conflict["values"]:
            wrapped = {"completedSteps": [other["value"]]}
            answers += [step["value"] for step in step_facts(wrapped)[:1] if step["value"]]
        found[conflict["scope"]] = answers
    return found


def _place(facts: Mapping[str, Any]) -> dict[str, float] | None:
    latitude, longitude = facts["geoLatAverage"], facts["geoLongAverage"]
    return None if latitude is None else {"latitude": latitude, "longitude": longitude}


def _user(user: UserRow | None, facts: Mapping[str, Any]) -> dict[str, str | None]:
    if user is None:
        # Somebody who was deleted, or whom only the tablet knew.
        return {"id": text(facts["userId"]), "name": text(facts["userName"]), "email": None}
    return {"id": user.user_id, "name": user.name or user.username, "email": user.email_address}


def _workflow(around: Around, facts: Mapping[str, Any]) -> dict[str, Any]:
    workflow, version = around.workflow, around.version
    return {
        "id": text(facts["workflowId"]),
        "name": workflow.name if workflow is not None else text(facts["workflowTitle"]),
        "description": workflow.description if workflow is not None else None,
        "tags": msgspec.json.decode(workflow.tags) if workflow is not None else [],
        "version": version.number if version is not None else None,
    }


def _local(moment: int, zone: str) -> str:
    try:
        there: Any = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        there = UTC
    return datetime.fromtimestamp(moment // 1_000_000, there).isoformat()
