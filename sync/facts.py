"""Facts of a job: what reports, webhooks and queries say of it beside its own members.

Pure functions of the document that is shown (``sync/view.py``), in the terms of section 3.5.3 of the specification.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from statistics import median
from typing import Any, TypeGuard

Json = Mapping[str, Any]

_WRAPPERS = ("singleStep", "reportStep")
#: In ``timeEvents``. The document prints the numbers and does not explain them; tablets write a 0 first.
_PAUSE, _RESUME = 0, 1


def job_facts(document: Json) -> dict[str, Any]:
    """The fields of the job level (section 3.5.3.1) that the job itself knows.

    ``workflowTitle`` is the name that the tablet sent; tags and the team's own name of the workflow are not the
    job's. Times are the job's own texts; durations are whole seconds, coordinates medians in degrees.
    """
    head = _object(document.get("metadata"))
    steps = list(visits(document.get("completedSteps")))
    everything = [*steps, *visits(document.get("cancelledSteps")), *_open(document)]
    created, updated = moment(head.get("created")), moment(head.get("updated"))
    places = [place for step in steps if (place := coordinates(step)) is not None]
    facts = {
        "jobId": document.get("jobId"),
        "clientJobId": head.get("clientJobId"),
        "teamName": document.get("team"),
        "workflowId": head.get("workflowId"),
        "workflowVersionId": head.get("workflowVersionId"),
        "workflowTitle": head.get("workflowName"),
        "jobTitle": head.get("jobTitle"),
        "created": head.get("created"),
        "updated": head.get("updated"),
        "totalDuration": whole_seconds(created, updated),
        "activeDuration": active_seconds(created, updated, pauses(everything, updated)),
        "status": head.get("status"),
        "userId": head.get("userId"),
        "userName": head.get("username"),
        "geoLongAverage": median(longitude for _, longitude in places) if places else None,
        "geoLatAverage": median(latitude for latitude, _ in places) if places else None,
        "metadata": [{"name": name, "value": value} for name, value in _object(head.get("metadata")).items()],
    }
    return {name: _encodable(value) for name, value in facts.items()}


def visits(wrapped: Any) -> Iterator[Json]:
    """Each visit of a step in a list of a job's document, a form before its children."""
    for outer in wrapped if isinstance(wrapped, list) else ():
        if not isinstance(outer, dict):
            continue
        for kind in _WRAPPERS:
            step = outer.get(kind)
            if isinstance(step, dict):
                yield step
                yield from children(step)


def children(step: Json) -> Iterator[Json]:
    """The visits inside a form, whether they are wrapped or not."""
    nested = step.get("steps")
    for child in nested if isinstance(nested, list) else ():
        if isinstance(child, dict) and any(kind in child for kind in _WRAPPERS):
            yield from visits([child])
        elif isinstance(child, dict):
            yield child


def moment(text: Any) -> datetime | None:
    """A time as tablets write it; None for what is none, or has no zone."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


def coordinates(step: Json) -> tuple[float, float] | None:
    """Latitude and longitude of a visit in degrees (WGS 84)."""
    place = _object(step.get("coordinates"))
    latitude, longitude = place.get("latitude"), place.get("longitude")
    if not _is_number(latitude) or not _is_number(longitude):
        return None
    return (latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def whole_seconds(start: datetime | None, end: datetime | None) -> int | None:
    """How long something took, rounded down; never negative."""
    if start is None or end is None:
        return None
    return max(int((end - start).total_seconds()), 0)


def pauses(steps: Iterable[Json], end: datetime | None) -> list[tuple[datetime, datetime]]:
    """The pauses in these visits, in the order of time and without overlap. One that was not resumed lasts
    until the visit's end, or ``end``.
    """
    found: list[tuple[datetime, datetime]] = []
    for step in steps:
        marks = ((moment(at), what) for at, what in _object(step.get("timeEvents")).items())
        known = sorted((at, what) for at, what in marks if at is not None and what in (_PAUSE, _RESUME))
        since: datetime | None = None
        for at, what in known:
            if what == _PAUSE:
                since = since or at
            elif since is not None:
                found.append((since, at))
                since = None
        until = moment(step.get("completed")) or moment(step.get("cancelled")) or end
        if since is not None and until is not None:
            found.append((since, until))
    merged: list[tuple[datetime, datetime]] = []
    for start, stop in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        elif stop > start:
            merged.append((start, stop))
    return merged


def active_seconds(
    start: datetime | None, end: datetime | None, paused: Iterable[tuple[datetime, datetime]]
) -> int | None:
    """Seconds between two times, without the pauses between them."""
    if start is None or end is None:
        return None
    total = (end - start).total_seconds()
    for begin, stop in paused:
        total -= max((min(stop, end) - max(begin, start)).total_seconds(), 0.0)
    return max(int(total), 0)


def _open(document: Json) -> Iterator[Json]:
    yield from visits(_object(document.get("sync")).get("openSteps"))
    yield from visits([_object(document.get("metadata")).get("currentStep")])


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _encodable(value: Any) -> Any:
    """``value``, with whole numbers as texts that have more than 64 bits: they can be read, but not written again."""
    if isinstance(value, dict):
        return {name: _encodable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_encodable(inner) for inner in value]
    return str(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
