"""What a template is given: a job with its steps and files as plain dictionaries, lists, texts and numbers.

Described for authors of templates in docs/reports.md.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
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
from server.jobs.names import names_of
from server.reports.surroundings import Around, decode_head, read_around
from server.reports.surroundings import shown as shown_around
from storage.blobs import BlobNotFound, BlobStore
from storage.database import Database
from storage.queries.attachment_references import MISSING
from storage.queries.jobs import JobView
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
#: State of the files that a job has beyond those that are looked at.
NOT_SHOWN = "not-shown"

#: A job's view; its fractions remember how they were written.
decode_job = msgspec.json.Decoder(float_hook=number).decode


class ReportMaterial(NamedTuple):
    """``context``: for the template. ``keys``: the blobs of pictures, by ``<attachmentId>/<size>``; ``sizes``: their
    bytes."""

    context: dict[str, Any]
    keys: dict[str, str]
    sizes: dict[str, int]


async def report_context(
    database: Database, blobs: BlobStore, team_id: int, job: JobView, images: str
) -> ReportMaterial:
    """Everything a report of this job may show.

    Args:
        blobs: where the pictures are.
        images: ``large``, ``small`` or ``none``: which picture ``src`` of an attachment means.
    """
    del blobs  # the keys say which; whoever prints takes them from there
    around = await database.read(
        lambda connection: read_around(connection, team_id, job, decode_head(job.view))
    )
    known = await names_of(database, team_id, around.naming) if around.naming is not None else None

    def work() -> ReportMaterial:
        return material_of(decode_job(job.view), job.rev, around, known, images, now())

    # A job has up to 10 MB: whoever else is served does not wait for that.
    return await asyncio.to_thread(work)


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
    sizes: dict[str, int] = {}
    files = _Files(around, images, keys, sizes)
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
        **shown_around(around, head, document.get("team")),
        "generated": _local(moment, around.zone),
        "images": images,
    }
    return ReportMaterial(context, keys, sizes)


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


class _Files:
    """The files of a job as templates see them.

    Args:
        keys, sizes: where the keys of the pictures are put that are handed out, and their bytes.
    """

    def __init__(self, around: Around, images: str, keys: dict[str, str], sizes: dict[str, int]) -> None:
        self._rows = {row.attachment_id: row for row in around.files}
        #: Of what is not among them.
        self._unknown = NOT_SHOWN if around.has_more else MISSING
        self._images = images
        self._keys = keys
        self._sizes = sizes

    def of_step(self, step: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [self._told(attachment_id, step) for attachment_id in step["attachmentIds"]]

    def _told(self, attachment_id: str, step: Mapping[str, Any]) -> dict[str, Any]:
        row = self._rows.get(attachment_id)
        stored = row is not None and row.blob_key is not None
        details = details_of(row) if row is not None else None
        made = details.thumbnails if details is not None and self._images != "none" else ()
        sizes = {thumbnail.size: f"{attachment_id}/{thumbnail.size}" for thumbnail in made}
        self._keys.update({sizes[thumbnail.size]: thumbnail.key for thumbnail in made})
        self._sizes.update({sizes[thumbnail.size]: thumbnail.bytes for thumbnail in made})
        wanted = (_SIZES.get(self._images, ""), *_INSTEAD)
        chosen = next((sizes[size] for size in wanted if size in sizes), None)
        kind = row.content_type if row is not None else None
        return {
            "id": attachment_id,
            "fileName": file_name_of(row) if row is not None and stored else attachment_id,
            "contentType": kind,
            "size": row.size if row is not None else None,
            "state": row.state if row is not None else self._unknown,
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


def _local(moment: int, zone: str) -> str:
    try:
        there: Any = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        there = UTC
    return datetime.fromtimestamp(moment // 1_000_000, there).isoformat()
