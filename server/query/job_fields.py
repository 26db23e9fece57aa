"""Jobs and their steps in the shape in which a query asks for them.

Of a job's document only those members are decoded that the selected fields are made of: a hundred jobs have megabytes,
and a query seldom asks for more than a few members of each step.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

import msgspec

from server.query.files import ATTACHMENT_FIELDS, REPORT_FIELDS, FileOfStep, attachment, report
from server.query.searching import search_of
from server.query.selecting import Field
from storage.blobs import BlobStore
from storage.queries.attachments import AttachmentRow
from storage.queries.reports import ReportRow
from sync.facts import (
    JOB_FIELDS,
    OWN_TEXTS,
    STEP_FIELDS,
    Json,
    Names,
    Visit,
    file_ids,
    job_field,
    number,
    text,
    visited,
)


class Around(NamedTuple):
    """What is shown of a job that it does not say itself.

    Attributes:
        cursor: its ``completedJobCursor``.
        tags: of its workflow.
        names: what its workflow's version calls the steps.
        files: those that its steps refer to.
        reports: oldest first.
    """

    cursor: str | None
    tags: Sequence[str]
    names: Names
    files: Sequence[AttachmentRow]
    reports: Sequence[ReportRow]
    blobs: BlobStore


#: What every step is arranged by.
_ARRANGING = (
    *("stepId", "uniqueStepId", "parentUniqueStepId", "formLoopIteration"),
    *("started", "completed", "cancelled", "updated"),
)
#: Field -> members of a step that it is made of, where these are others than the one of its own name.
_MEMBERS = {
    "stepTag": ("metadata",),
    "isCancelled": (),
    "isFormStep": (),
    "phase": (),
    "totalDuration": (),
    "activeDuration": ("timeEvents",),
    "geoLat": ("coordinates",),
    "geoLong": ("coordinates",),
    "value": ("value", "values"),
    "values": ("value", "values"),
    "attachments": ("valueResourceIds", "noteResourceFilenames"),
    "substeps": (),
    "__typename": (),
}
#: Fields of a job that its steps are looked at for -> members of the steps.
_OF_STEPS = {
    "activeDuration": ("timeEvents",),
    "geoLongAverage": ("coordinates",),
    "geoLatAverage": ("coordinates",),
}
#: Fields of a step that its workflow may say.
_NAMED = frozenset({"stepTitle", "stepTag", "stepType"})
_full = msgspec.json.Decoder(dict[str, Any], float_hook=number)

_Job = Callable[["_Opened"], Any]
_Step = Callable[[Visit, "_Opened"], Any]


class JobShape:
    """What is selected of jobs.

    Attributes:
        needs_names, needs_tags, needs_files, needs_reports: what is shown beside the job.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        names = {field.name for field in fields}
        steps = [field for field in fields if field.name in ("steps", "step")]
        selected = {inner.name for field in steps for inner in _with_substeps(field.fields)}
        self.needs_tags = "workflowTags" in names
        self.needs_reports = "reports" in names
        self.needs_files = "attachments" in names or "attachments" in selected
        wants_titles = any(
            inner.name == "stepTitle"
            for field in fields
            if field.name == "attachments"
            for inner in field.fields
        )
        self.needs_names = wants_titles or "step" in names or not selected.isdisjoint(_NAMED)
        self._fields = [(field.key, _job_field(field)) for field in fields]
        self._decode = self._decoder(names, steps, selected)

    @property
    def needs_workflow(self) -> bool:
        return self.needs_tags or self.needs_names

    def job(self, view: bytes, around: Around) -> dict[str, Any]:
        """A job, from its document."""
        opened = _Opened(self._opened(view), around)
        return {key: field(opened) for key, field in self._fields}

    def _opened(self, view: bytes) -> Json:
        try:
            return self._decode(view)
        except msgspec.ValidationError:
            # Some member is of another kind than members of its name are.
            return _full.decode(view)

    def _decoder(
        self, names: set[str], steps: Sequence[Field], selected: set[str]
    ) -> Callable[[bytes], Json]:
        members = {member for name in names & _OF_STEPS.keys() for member in _OF_STEPS[name]}
        for name in selected:
            members.update(_MEMBERS.get(name, (name,)))
        if steps:
            members.update(("stepTitle", "stepType", "metadata") if self._searches(steps) else ())
        if "attachments" in names:
            members.update(("stepTitle", "stepType", "metadata", *_MEMBERS["attachments"]))
        if selected & _NAMED:
            members.update(("stepTitle", "stepType", "metadata"))
        looks = bool(steps) or "attachments" in names or not names.isdisjoint(_OF_STEPS)
        return _limited(frozenset(members) if looks else None)

    @staticmethod
    def _searches(steps: Iterable[Field]) -> bool:
        return any(field.name == "step" for field in steps)


def _with_substeps(fields: Iterable[Field]) -> Iterable[Field]:
    for field in fields:
        yield field
        if field.name == "substeps":
            yield from _with_substeps(field.fields)


@lru_cache(maxsize=256)
def _limited(members: frozenset[str] | None) -> Callable[[bytes], Json]:
    """A decoder of documents that reads these members of each step; None: no steps at all."""
    if members is None:
        return msgspec.json.Decoder(_HeadOnly, float_hook=number).decode
    known: dict[str, Any] = dict.fromkeys((*_ARRANGING, *members), Any)
    step: Any = _typed_dict("Step", known | {"steps": Any})
    wrapper: Any = _typed_dict("Wrapper", {"singleStep": step | None, "reportStep": step | None})
    wrappers: Any = list[wrapper] | None
    head = _typed_dict("Head", dict.fromkeys(_HEAD, Any) | {"currentStep": wrapper | None})
    sync = _typed_dict("Sync", {"openSteps": wrappers})
    document = _typed_dict(
        "Document",
        {
            **dict.fromkeys(("jobId", "team", "excluded"), Any),
            "metadata": head,
            "completedSteps": wrappers,
            "cancelledSteps": wrappers,
            "sync": sync,
        },
    )
    decode: Callable[[bytes], Json] = msgspec.json.Decoder(document, float_hook=number).decode
    return decode


_HEAD = (
    *("clientJobId", "workflowId", "workflowVersionId", "workflowName", "jobTitle", "metadata"),
    *("created", "updated", "modified", "status", "userId", "username"),
)


def _typed_dict(name: str, members: Mapping[str, Any]) -> Any:
    return TypedDict(name, dict(members), total=False)  # type: ignore[operator]  # made of what is selected


_HeadOnly: Any = _typed_dict(
    "HeadOnly",
    {
        **dict.fromkeys(("jobId", "team", "excluded"), Any),
        "metadata": _typed_dict("OnlyHead", dict.fromkeys(_HEAD, Any)),
    },
)


class _Opened:
    """A job of which fields are made. Its steps are arranged once, and only if they are looked at."""

    __slots__ = ("_files", "_steps", "around", "document")

    def __init__(self, document: Json, around: Around) -> None:
        self.document = document
        self.around = around
        self._steps: list[Visit] | None = None
        self._files: dict[str, FileOfStep] | None = None

    @property
    def steps(self) -> list[Visit]:
        if self._steps is None:
            self._steps = visited(self.document)
        return self._steps

    @property
    def files(self) -> dict[str, FileOfStep]:
        """By id, each with the first visit that refers to it."""
        if self._files is None:
            first: dict[str, Visit] = {}
            for visit in self.steps:
                for each in (visit, *visit.inside):
                    for file_id in file_ids(each.step):
                        first.setdefault(file_id, each)
            self._files = {
                row.attachment_id: FileOfStep(row, first.get(row.attachment_id))
                for row in self.around.files
                if row.blob_key is not None
            }
        return self._files


def _job_field(field: Field) -> _Job:
    name = field.name
    if name in _COMPUTED:
        return _COMPUTED[name](field)
    if name in JOB_FIELDS:
        if name == "metadata":
            return _metadata(field)
        return lambda job: job_field(job.document, name)
    raise LookupError(f"nothing makes the field {name} of jobs")


def _metadata(field: Field) -> _Job:
    inner = [(each.key, each.name) for each in field.fields]

    def pairs(job: _Opened) -> list[dict[str, Any]]:
        return [
            {key: "NameValue" if name == "__typename" else pair[name] for key, name in inner}
            for pair in job_field(job.document, "metadata")
        ]

    return pairs


def _steps(field: Field) -> _Job:
    shape = _step_shape(field.fields)
    return lambda job: [shape(visit, job) for visit in job.steps]


def _step(field: Field) -> _Job:
    shape, search = _step_shape(field.fields), search_of(field)

    def found(job: _Opened) -> dict[str, Any] | None:
        visit = search(job.steps, job.around.names)
        return None if visit is None else shape(visit, job)

    return found


def _step_shape(fields: Sequence[Field]) -> Callable[[Visit, _Opened], dict[str, Any]]:
    """What shapes a visit. Most fields are members of the step as they are: for those no function is called."""
    blank: dict[str, Any] = dict.fromkeys(field.key for field in fields)
    own = [(field.key, field.name) for field in fields if field.name in OWN_TEXTS]
    makers = [(field.key, _step_field(field)) for field in fields if field.name not in OWN_TEXTS]

    def shape(visit: Visit, job: _Opened) -> dict[str, Any]:
        told, step = blank.copy(), visit.step
        for key, name in own:
            said = step.get(name)
            if said is not None:
                told[key] = text(said)
        for key, make in makers:
            told[key] = make(visit, job)
        return told

    return shape


def _step_field(field: Field) -> _Step:
    name = field.name
    if name == "__typename":
        return lambda visit, job: "Step"
    if name == "substeps":
        shape = _step_shape(field.fields)
        return lambda visit, job: [shape(inner, job) for inner in visit.inside]
    if name == "attachments":
        show = attachment(field)
        return lambda visit, job: [
            show(job.files[file_id], job.around.names, job.around.blobs)
            for file_id in file_ids(visit.step)
            if file_id in job.files
        ]
    make = STEP_FIELDS[name]
    return lambda visit, job: make(visit, job.around.names)


def _attachments(field: Field) -> _Job:
    show = attachment(field)
    return lambda job: [show(file, job.around.names, job.around.blobs) for file in job.files.values()]


def _reports(field: Field) -> _Job:
    show = report(field)
    return lambda job: [show(row, job.document, job.around.blobs) for row in job.around.reports]


_COMPUTED: dict[str, Callable[[Field], _Job]] = {
    "__typename": lambda field: lambda job: "Job",
    "completedJobCursor": lambda field: lambda job: job.around.cursor,
    "workflowTags": lambda field: lambda job: list(job.around.tags),
    "completed": lambda field: lambda job: job_field(job.document, "updated"),
    "modified": lambda field: lambda job: (job.document.get("metadata") or {}).get("modified"),
    "excluded": lambda field: lambda job: job.document.get("excluded") is True,
    "steps": _steps,
    "step": _step,
    "attachments": _attachments,
    "reports": _reports,
}

#: What can be told of each type, for the test that the schema promises nothing else.
TOLD = {
    "Job": frozenset(_COMPUTED) | frozenset(JOB_FIELDS),
    "Step": frozenset(STEP_FIELDS) | {"substeps", "attachments"},
    "Attachment": frozenset(ATTACHMENT_FIELDS),
    "Report": frozenset(REPORT_FIELDS),
}
