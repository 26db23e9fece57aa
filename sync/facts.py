"""Facts of a job: what reports, webhooks and queries say of it beside its own members.

Pure functions of the document that is shown (``sync/view.py``), in the terms of section 3.5.3 of the specification.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from statistics import median
from typing import Any, Protocol, TypeGuard

import msgspec

Json = Mapping[str, Any]


class Step(Protocol):
    """One visit of a step as its document has it: a JSON object, or whatever has its members."""

    def get(self, name: str, /) -> Any:
        """A member; None if it has none."""


#: title, tag, type
StepName = tuple[str | None, str | None, str | None]
#: What a version of a workflow calls its steps, by stepId.
Names = Mapping[str, StepName]

_FORM = "reportStep"
WRAPPERS = ("singleStep", _FORM)
#: A tuple, made once: a union would be made anew at every use.
_NUMBERS = (int, float, Decimal)
_NO_TIME = datetime.min.replace(tzinfo=UTC)
_UNNAMED: StepName = (None, None, None)
#: Where a job's document has its steps, and the phase that means.
LISTS = (("completedSteps", "completed"), ("cancelledSteps", "cancelled"))
#: What answers and notes of a step refer to as files.
_FILES = ("valueResourceIds", "noteResourceFilenames")
#: Answers inside answers that are spelled out; what lies deeper is left out of the text.
_DEPTH = 3
#: In ``timeEvents``. The document prints the numbers and does not explain them; tablets write a 0 first.
_PAUSE, _RESUME = 0, 1


def job_facts(document: Json) -> dict[str, Any]:
    """The fields of the job level (section 3.5.3.1) that the job itself knows: those of :data:`JOB_FIELDS`.

    ``workflowTitle`` is the name that the tablet sent; tags and the team's own name of the workflow are not the
    job's. Times are the job's own texts; durations are whole seconds, coordinates medians in degrees.
    """
    return {name: _encodable(field(document)) for name, field in JOB_FIELDS.items()}


def job_field(document: Json, name: str) -> Any:
    """One of them."""
    return _encodable(JOB_FIELDS[name](document))


def _head(name: str) -> "JobField":
    return lambda document: _object(document.get("metadata")).get(name)


def _times(document: Json) -> tuple[datetime | None, datetime | None]:
    head = _object(document.get("metadata"))
    return moment(head.get("created")), moment(head.get("updated"))


def active_of_job(document: Json, steps: Iterable[Step]) -> int | None:
    """Seconds from the job's begin to its last change, without the pauses of ``steps``: all of the job."""
    created, updated = _times(document)
    return active_seconds(created, updated, pauses(steps, updated))


def median_place(steps: Iterable[Step], index: int) -> float | None:
    """The median of latitudes (0) or longitudes (1); of a job those of its completed steps."""
    known = [place[index] for step in steps if (place := coordinates(step)) is not None]
    return median(known) if known else None


def _all_steps(document: Json) -> Iterator[Json]:
    return chain.from_iterable(visits(wrapped) for _, wrapped in _phases(document))


def _pairs(document: Json) -> list[dict[str, Any]]:
    pairs = _object(_object(document.get("metadata")).get("metadata"))
    return [{"name": name, "value": value} for name, value in pairs.items()]


JobField = Callable[[Json], Any]

JOB_FIELDS: dict[str, JobField] = {
    "jobId": lambda document: document.get("jobId"),
    "clientJobId": _head("clientJobId"),
    "teamName": lambda document: document.get("team"),
    "workflowId": _head("workflowId"),
    "workflowVersionId": _head("workflowVersionId"),
    "workflowTitle": _head("workflowName"),
    "jobTitle": _head("jobTitle"),
    "created": _head("created"),
    "updated": _head("updated"),
    "totalDuration": lambda document: whole_seconds(*_times(document)),
    "activeDuration": lambda document: active_of_job(document, _all_steps(document)),
    "status": _head("status"),
    "userId": _head("userId"),
    "userName": _head("username"),
    "geoLongAverage": lambda document: median_place(visits(document.get("completedSteps")), 1),
    "geoLatAverage": lambda document: median_place(visits(document.get("completedSteps")), 0),
    "metadata": _pairs,
}


class Visit(msgspec.Struct, gc=False):
    """One visit of a step, with those inside it.

    Attributes:
        phase: completed, cancelled or open.
        started, parent: ``started`` and ``parentUniqueStepId`` of the step, by which it is arranged.
        inside: of a form the visits of its steps, in the order of time.
        iteration: the how-manieth visit of its form this is, or lies in.
    """

    step: Step
    phase: str
    is_form: bool
    started: Any
    parent: Any
    inside: "list[Visit]" = []
    iteration: int | None = None


def step_facts(document: Json, known: Names | None = None) -> list[dict[str, Any]]:
    """The visited steps of a job (section 3.5.3.2) in the order of time, each with its ``substeps``.

    Args:
        document: the job as it is read.
        known: of its workflow's version: title, tag and type where the tablet sent none.

    Returns:
        The fields of :data:`STEP_FIELDS`, and ``substeps``, which have none themselves.
    """
    names = known or {}
    told = []
    for visit in visited(document):
        facts = {name: field(visit, names) for name, field in STEP_FIELDS.items()}
        facts["substeps"] = [
            {name: field(inner, names) for name, field in STEP_FIELDS.items()} for inner in visit.inside
        ]
        told.append(facts)
    return told


def visited(document: Json) -> list[Visit]:
    """The visits that lie in no other, in the order of time.

    A form's children count as its own whether the tablet sent them inside the form or beside it. Numbers keep the
    spelling they came with in ``value`` if the document was decoded with :func:`number`.
    """
    return arranged(found_in(document))


def found_in(document: Json) -> list[Visit]:
    """The visits as they stand in the document, for :func:`arranged`."""
    found: list[Visit] = []
    for phase, wrapped in _phases(document):
        for outer in wrapped if isinstance(wrapped, list) else ():
            for kind in WRAPPERS if isinstance(outer, dict) else ():
                step = outer.get(kind)
                if isinstance(step, dict):
                    nested = isinstance(step.get("steps"), list)
                    visit = _visit(step, phase, nested or kind == _FORM)
                    if nested:
                        visit.inside = [_visit(child, phase, "steps" in child) for child in children(step)]
                    found.append(visit)
    return found


def _visit(step: Json, phase: str, is_form: bool) -> Visit:
    return Visit(step, phase, is_form, step.get("started"), step.get("parentUniqueStepId"))


def repeated_in(document: Json) -> set[int]:
    """The places of those of :func:`found_in` that a tablet sent twice: inside their form and beside it."""
    found = found_in(document)
    tops = arranged(found)
    kept = {id(visit) for top in tops for visit in (top, *top.inside)}
    return {place for place, visit in enumerate(found) if id(visit) not in kept}


def arranged(found: list[Visit], once: bool = False) -> list[Visit]:
    """The same of visits as they stand in a document, in its order; they are changed. Unless each is there ``once``
    they are compared, for which their steps must be whole.
    """
    tops = _in_time(_within_forms(found, once) if any(visit.parent for visit in found) else found)
    rounds: Counter[str] = Counter()
    for visit in tops:
        if len(visit.inside) > 1:
            visit.inside = _in_time(visit.inside)
        if visit.is_form or visit.inside:
            key = text(visit.step.get("stepId")) or ""
            rounds[key] += 1
            visit.is_form = True
            visit.iteration = _whole(visit.step.get("formLoopIteration")) or (rounds[key] if key else None)
            for inner in visit.inside:
                inner.iteration = visit.iteration
    return tops


def named(step: Step, known: Names) -> tuple[dict[str, Any], list[str]]:
    """title, tag and type of a visit: as the tablet sent them, else as its workflow has them; and which of the
    three are the workflow's.
    """
    step_id = step.get("stepId")
    defined = known.get(step_id, _UNNAMED) if isinstance(step_id, str) else _UNNAMED
    sent = (_sent(step, 0), _sent(step, 1), _sent(step, 2))
    said: dict[str, Any] = {}
    filled: list[str] = []
    for name, own, other in zip(("title", "tag", "type"), sent, defined, strict=True):
        if is_blank(own) and not is_blank(other):
            filled.append(name)
        said[name] = other if name in filled else own
    return said, filled


def _sent(step: Step, position: int) -> Any:
    """What the tablet sent of a :data:`StepName`."""
    if position == 1:
        return _object(step.get("metadata")).get("tags")
    return step.get("stepType" if position else "stepTitle")


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
        return value if value and not value.isspace() else None
    if value is None or isinstance(value, bool) or not isinstance(value, _NUMBERS):
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


def _within_forms(found: list[Visit], once: bool) -> list[Visit]:
    """Those that lie in no other, with the others inside them."""
    forms = _outermost(
        {key: visit for visit in found if (key := text(visit.step.get("uniqueStepId"))) is not None},
        {text(visit.parent) for visit in found if visit.parent},
    )
    tops: list[Visit] = []
    #: By form: what lies in it.
    known: dict[int, _Alike] = {}
    digests: dict[int, int] = {}
    for visit in found:
        form = forms.get(text(visit.parent))
        if form is None:
            tops.append(visit)
            continue
        if not once:
            if id(form) not in known:
                known[id(form)] = _Alike(digests, (inner.step for inner in form.inside))
            if known[id(form)].holds(visit.step):
                continue
            for inner in visit.inside:
                known[id(form)].holds(inner.step)
        inside, visit.inside = visit.inside, []
        form.inside.extend((visit, *inside))
    return tops


class _Alike:
    """Visits, among which equal ones are found. Only those with the same ids are looked at closely."""

    def __init__(self, digests: dict[int, int], steps: Iterable[Step]) -> None:
        self._digests = digests
        #: By ids: the first visit with these, and where there are several all of them by their digests.
        self._first: dict[tuple[str | None, str | None], Step] = {}
        self._all: dict[tuple[str | None, str | None], dict[int, Step]] = {}
        for step in steps:
            self.holds(step)

    def holds(self, step: Step) -> bool:
        """Whether there is an equal one; if not, there is from now on."""
        ids = (text(step.get("uniqueStepId")), text(step.get("stepId")))
        if ids not in self._first:
            self._first[ids] = step
            return False
        if ids not in self._all:
            first = self._first[ids]
            self._all[ids] = {_digest(first, self._digests): first}
        alike = self._all[ids]
        digest = _digest(step, self._digests)
        if alike.get(digest) == step:
            return True
        alike[digest] = step
        return False


def _outermost(
    by_key: Mapping[str | None, Visit], parents: Iterable[str | None]
) -> dict[str | None, Visit | None]:
    """For each of the parents, by its key, the outermost in which it was made: itself where it names no parent of this job.
    Forms that name each other as their parents are in none, and what is in them neither.
    """
    found: dict[str | None, Visit | None] = {}
    for start in parents:
        if start not in by_key:
            continue
        # Whoever is passed on the way has the same end, so that nobody's way is gone twice.
        passed: dict[str | None, None] = {}
        key, last = start, None
        while key not in found and key not in passed:
            passed[key] = None
            last = by_key[key]
            parent = text(last.parent)
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


def _in_time(visits: list[Visit]) -> list[Visit]:
    """By their begin; one without a time follows the one it came after."""
    last = _NO_TIME
    keys: list[datetime] = []
    is_sorted = True
    for visit in visits:
        at = moment(visit.started)
        if at is None:
            others = (moment(visit.step.get(name)) for name in ("completed", "cancelled", "updated"))
            at = next((other for other in others if other is not None), last)
        is_sorted = is_sorted and last <= at
        keys.append(at)
        last = at
    if is_sorted:
        return visits
    return [visits[index] for index in sorted(range(len(visits)), key=keys.__getitem__)]


def _phases(document: Json) -> list[tuple[str, Any]]:
    lists = [(phase, document.get(name)) for name, phase in LISTS]
    opened = _object(document.get("sync")).get("openSteps")
    return [*lists, ("open", opened), ("open", [_object(document.get("metadata")).get("currentStep")])]


def _ended(visit: Visit) -> datetime | None:
    step = visit.step
    return moment(step.get("completed")) or moment(step.get("cancelled")) or moment(step.get("updated"))


def _active(visit: Visit) -> int | None:
    ended = _ended(visit)
    paused = pauses([visit.step, *(inner.step for inner in visit.inside)], ended)
    return active_seconds(moment(visit.started), ended, paused)


def _values(visit: Visit) -> list[Any]:
    step = visit.step
    values = step.get("values")
    if isinstance(values, list):
        return values
    value = step.get("value")
    return [] if is_blank(value) else [value]


def _value(visit: Visit) -> str | None:
    values = _values(visit)
    if len(values) == 1 and isinstance(values[0], str):
        # Nearly always, and spelling it out takes three times as long.
        return values[0].strip() or None
    return spelled_out(values) or None


def _place(visit: Visit, index: int) -> float | None:
    place = coordinates(visit.step)
    return place[index] if place else None


def _own(name: str) -> "StepField":
    return lambda visit, known: text(visit.step.get(name))


def _named(position: int) -> "StepField":
    def said(visit: Visit, known: Names) -> str | None:
        step = visit.step
        own = _sent(step, position)
        if is_blank(own) and known:
            step_id = step.get("stepId")
            own = known.get(step_id, _UNNAMED)[position] if isinstance(step_id, str) else None
        return text(own)

    return said


StepField = Callable[[Visit, Names], Any]

#: Fields that are texts of the step itself.
OWN_TEXTS = (
    *("stepId", "uniqueStepId", "stepDescription", "started", "completed", "cancelled"),
    *("userId", "userName", "note"),
)

#: What is told of a visit: the fields of section 3.5.3.2, and of ours ``phase``, ``stepNumber`` and ``attachmentIds``
#: (what answer and note refer to).
STEP_FIELDS: dict[str, StepField] = {
    "stepId": _own("stepId"),
    "uniqueStepId": _own("uniqueStepId"),
    "stepTitle": _named(0),
    "stepDescription": _own("stepDescription"),
    "stepType": _named(2),
    "stepTag": _named(1),
    "stepNumber": lambda visit, known: _whole(visit.step.get("stepNumber")),
    "started": _own("started"),
    "completed": _own("completed"),
    "cancelled": _own("cancelled"),
    "isCancelled": lambda visit, known: visit.phase == "cancelled",
    "isFormStep": lambda visit, known: visit.is_form,
    "phase": lambda visit, known: visit.phase,
    "totalDuration": lambda visit, known: whole_seconds(moment(visit.started), _ended(visit)),
    "activeDuration": lambda visit, known: _active(visit),
    "userId": _own("userId"),
    "userName": _own("userName"),
    "geoLat": lambda visit, known: _place(visit, 0),
    "geoLong": lambda visit, known: _place(visit, 1),
    "formLoopIteration": lambda visit, known: visit.iteration,
    "note": _own("note"),
    "values": lambda visit, known: [_encodable(value) for value in _values(visit)],
    "value": lambda visit, known: _value(visit),
    "attachmentIds": lambda visit, known: file_ids(visit.step),
}


def file_ids(step: Step) -> list[str]:
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
        for kind in WRAPPERS:
            step = outer.get(kind)
            if isinstance(step, dict):
                yield step
                yield from children(step)


def children(step: Json) -> Iterator[Json]:
    """The visits inside a form, whether they are wrapped or not."""
    nested = step.get("steps")
    for child in nested if isinstance(nested, list) else ():
        if isinstance(child, dict) and any(kind in child for kind in WRAPPERS):
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


def coordinates(step: Step) -> tuple[float, float] | None:
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


def pauses(steps: Iterable[Step], end: datetime | None) -> list[tuple[datetime, datetime]]:
    """The pauses in these visits, in the order of time and without overlap. One that was not resumed lasts
    until the visit's end, or ``end``.
    """
    found: list[tuple[datetime, datetime]] = []
    for step in steps:
        events = step.get("timeEvents")
        if not events or not isinstance(events, dict):
            continue
        marks = ((moment(at), what) for at, what in events.items())
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
    return isinstance(value, _NUMBERS) and not isinstance(value, bool)
