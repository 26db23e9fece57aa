"""Facts of a job: what reports, webhooks and queries say of it beside its own members.

Pure functions of the document that is shown (``sync/view.py``), in the terms of section 3.5.3 of the specification.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from statistics import median
from typing import Any, NamedTuple, TypeGuard

Json = Mapping[str, Any]
#: title, tag, type
StepName = tuple[str | None, str | None, str | None]
#: What a version of a workflow calls its steps, by stepId.
Names = Mapping[str, StepName]

_FORM = "reportStep"
_WRAPPERS = ("singleStep", _FORM)
_UNNAMED: StepName = (None, None, None)
#: Where a job's document has its steps, and the phase that means.
_LISTS = (("completedSteps", "completed"), ("cancelledSteps", "cancelled"))
#: What answers and notes of a step refer to as files.
_FILES = ("valueResourceIds", "noteResourceFilenames")
#: Answers inside answers that are spelled out; what lies deeper is left out of the text.
_DEPTH = 3
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


class _Visit(NamedTuple):
    """One visit of a step, with those inside it."""

    step: Json
    phase: str
    is_form: bool
    inside: "list[_Visit]"


def step_facts(document: Json, known: Names | None = None) -> list[dict[str, Any]]:
    """The visited steps of a job (section 3.5.3.2) in the order of time, each with its ``substeps``.

    A form's children count as its substeps whether the tablet sent them inside the form or beside it. Numbers
    keep the spelling they came with in ``value`` if the document was decoded with :func:`number`.

    Args:
        document: the job as it is read.
        known: of its workflow's version: title, tag and type where the tablet sent none.

    Returns:
        The fields of the specification, and of ours: ``phase`` (completed, cancelled or open), ``stepNumber``,
        ``attachmentIds`` (what answer and note refer to) and ``substeps``, which have none themselves.
    """
    tops = _arranged(document)
    rounds: Counter[str] = Counter()
    told = []
    for visit in tops:
        form = bool(visit.is_form or visit.inside)
        iteration = None
        if form:
            key = text(visit.step.get("stepId")) or ""
            rounds[key] += 1
            iteration = _whole(visit.step.get("formLoopIteration")) or (rounds[key] if key else None)
        facts = _facts(visit, form, iteration, known or {})
        facts["substeps"] = [_facts(inner, inner.is_form, iteration, known or {}) for inner in visit.inside]
        told.append(facts)
    return told


def named(step: Json, known: Names) -> tuple[dict[str, Any], list[str]]:
    """title, tag and type of a visit: as the tablet sent them, else as its workflow has them; and which of the
    three are the workflow's.
    """
    step_id = step.get("stepId")
    defined = known.get(step_id, _UNNAMED) if isinstance(step_id, str) else _UNNAMED
    sent = (step.get("stepTitle"), _object(step.get("metadata")).get("tags"), step.get("stepType"))
    said: dict[str, Any] = {}
    filled: list[str] = []
    for name, own, other in zip(("title", "tag", "type"), sent, defined, strict=True):
        if is_blank(own) and not is_blank(other):
            filled.append(name)
        said[name] = other if name in filled else own
    return said, filled


def is_blank(value: Any) -> bool:
    """Whether this says nothing: null, or a text of spaces."""
    return value is None or (isinstance(value, str) and not value.strip())


def number(spelled: str) -> Decimal:
    """For a JSON decoder: a fraction that remembers how it was written, 2.50 as 2.50."""
    try:
        return Decimal(spelled)
    except ArithmeticError:  # an exponent of twenty digits
        return Decimal(0) if "e-" in spelled.lower() else Decimal("Infinity")


def text(value: Any) -> str | None:
    """A text or number as text; None for whatever else, and for a text of spaces."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    # Beyond 4,300 digits Python refuses to write a whole number out.
    return f"{Decimal(value):.6e}" if isinstance(value, int) and value.bit_length() > 4096 else str(value)


def spelled_out(value: Any, depth: int = _DEPTH) -> str:
    """Any answer as people read it: yes and no, the items of a list after each other, members with their names."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, list):
        if not depth:
            return "…" if value else ""
        return ", ".join(filter(None, (spelled_out(item, depth - 1) for item in value)))
    if isinstance(value, dict):
        if not depth:
            return "…" if value else ""
        pairs = ((name, spelled_out(item, depth - 1)) for name, item in value.items())
        return ", ".join(f"{name}: {said}" for name, said in pairs if said)
    return (text(value) or "").strip()


def _arranged(document: Json) -> list[_Visit]:
    """The visits that lie in no other, in the order of time."""
    found: list[tuple[_Visit, Json]] = []
    for phase, wrapped in _phases(document):
        for outer in wrapped if isinstance(wrapped, list) else ():
            for kind in _WRAPPERS if isinstance(outer, dict) else ():
                step = outer.get(kind)
                if isinstance(step, dict):
                    is_form = kind == _FORM or isinstance(step.get("steps"), list)
                    inside = [_Visit(child, phase, "steps" in child, []) for child in children(step)]
                    found.append((_Visit(step, phase, is_form, inside), step))
    forms = _outermost(
        {key: visit for visit, step in found if (key := text(step.get("uniqueStepId"))) is not None}
    )
    tops: list[_Visit] = []
    #: By form: what lies in it, by its digest.
    known: dict[int, dict[int, Json]] = {}
    digests: dict[int, int] = {}
    for visit, step in found:
        form = forms.get(text(step.get("parentUniqueStepId")))
        if form is None:
            tops.append(visit)
            continue
        if id(form) not in known:
            known[id(form)] = {_digest(inner.step, digests): inner.step for inner in form.inside}
        # Some tablets send a child both inside its form and beside it.
        if known[id(form)].get(_digest(step, digests)) != step:
            more = [visit._replace(inside=[]), *visit.inside]
            form.inside.extend(more)
            known[id(form)].update({_digest(inner.step, digests): inner.step for inner in more})
    for top in tops:
        top.inside[:] = _in_time(top.inside)
    return _in_time(tops)


def _outermost(by_key: Mapping[str, _Visit]) -> dict[str | None, _Visit | None]:
    """For each visit, by its key, the outermost in which it was made: itself where it names no parent of this job.
    Forms that name each other as their parents are in none, and what is in them neither.
    """
    found: dict[str | None, _Visit | None] = {}
    for start in by_key:
        # Whoever is passed on the way has the same end, so that nobody's way is gone twice.
        passed: dict[str, None] = {}
        key, last = start, None
        while key not in found and key not in passed:
            passed[key] = None
            last = by_key[key]
            parent = text(last.step.get("parentUniqueStepId"))
            if parent is None or parent not in by_key:
                break
            key = parent
        else:
            last = found.get(key)
        found.update(dict.fromkeys(passed, last))
    return found


def _digest(value: Any, known: dict[int, int]) -> int:
    """The same of equal values, and hardly ever of others.

    Args:
        known: of the objects of this document, by their ``id``: those inside others are looked at once.
    """
    if isinstance(value, dict):
        if id(value) not in known:
            members = ((name, _digest(inner, known)) for name, inner in value.items())
            known[id(value)] = hash(frozenset(members))
        return known[id(value)]
    if isinstance(value, list):
        return hash(tuple(_digest(item, known) for item in value))
    return hash(value)


def _in_time(visits: Iterable[_Visit]) -> list[_Visit]:
    """By their begin; one without a time follows the one it came after."""
    last = datetime.min.replace(tzinfo=UTC)
    timed = []
    for visit in visits:
        times = (moment(visit.step.get(name)) for name in ("started", "completed", "cancelled", "updated"))
        last = next((at for at in times if at is not None), last)
        timed.append((last, visit))
    return [visit for _, visit in sorted(timed, key=lambda pair: pair[0])]


def _phases(document: Json) -> list[tuple[str, Any]]:
    lists = [(phase, document.get(name)) for name, phase in _LISTS]
    opened = _object(document.get("sync")).get("openSteps")
    return [*lists, ("open", opened), ("open", [_object(document.get("metadata")).get("currentStep")])]


def _facts(visit: _Visit, is_form: bool, iteration: int | None, known: Names) -> dict[str, Any]:
    step = visit.step
    said, _ = named(step, known)
    started = moment(step.get("started"))
    ended = moment(step.get("completed")) or moment(step.get("cancelled")) or moment(step.get("updated"))
    paused = pauses([step, *(inner.step for inner in visit.inside)], ended)
    place = coordinates(step)
    values = step.get("values")
    if not isinstance(values, list):
        values = [] if is_blank(step.get("value")) else [step["value"]]
    return {
        "stepId": text(step.get("stepId")),
        "uniqueStepId": text(step.get("uniqueStepId")),
        "stepTitle": text(said["title"]),
        "stepDescription": text(step.get("stepDescription")),
        "stepType": text(said["type"]),
        "stepTag": text(said["tag"]),
        "stepNumber": _whole(step.get("stepNumber")),
        "started": text(step.get("started")),
        "completed": text(step.get("completed")),
        "cancelled": text(step.get("cancelled")),
        "isCancelled": visit.phase == "cancelled",
        "isFormStep": is_form,
        "phase": visit.phase,
        "totalDuration": whole_seconds(started, ended),
        "activeDuration": active_seconds(started, ended, paused),
        "userId": text(step.get("userId")),
        "userName": text(step.get("userName")),
        "geoLat": place[0] if place else None,
        "geoLong": place[1] if place else None,
        "formLoopIteration": iteration,
        "note": text(step.get("note")),
        "values": [_encodable(value) for value in values],
        "value": spelled_out(values) or None,
        "attachmentIds": file_ids(step),
    }


def file_ids(step: Json) -> list[str]:
    """What the answer and the note of a visit refer to as files, in order, once each."""
    lists = (step.get(name) for name in _FILES)
    items = chain.from_iterable(items for items in lists if isinstance(items, list))
    return list(dict.fromkeys(item for item in items if isinstance(item, str) and item))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


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
            yield from children(child)


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
    inside = abs(latitude) <= 90 and abs(longitude) <= 180
    return (float(latitude), float(longitude)) if inside else None


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
    if isinstance(value, Decimal):
        return float(value)
    return text(value) if isinstance(value, int) and value.bit_length() > 63 else value


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
