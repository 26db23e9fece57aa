"""Jobs and their steps in the shape in which a query asks for them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from server.query.files import ATTACHMENT_FIELDS, REPORT_FIELDS, FileOfStep, attachment, report
from server.query.opening import opener, steps_in, visited
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
    active_of_job,
    file_ids,
    job_field,
    median_place,
    text,
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
    "steps": (),
    # What it searches.
    "step": ("stepTitle", "metadata"),
    "attachments": _MEMBERS["attachments"],
}
#: Fields of a step that its workflow may say.
_NAMED = frozenset({"stepTitle", "stepTag", "stepType"})
#: Those of them that are the step's own member of the same name, if it says something.
_OWN_FIRST = frozenset({"stepTitle", "stepType"})

_JobField = Callable[["_Job"], Any]
_StepField = Callable[[Visit, "_Job"], Any]


class JobShape:
    """What is selected of jobs.

    Attributes:
        open: opens documents as far as they are looked at.
        needs_names, needs_tags, needs_files, needs_reports: what is shown beside the job.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        names = {of: frozenset(field.name for field in _every(fields) if field.of == of) for of in _TYPES}
        of_job, of_step, of_file = (names[of] for of in _TYPES)
        self.needs_tags = "workflowTags" in of_job
        self.needs_reports = "reports" in of_job
        self.needs_files = "attachments" in of_job | of_step
        self.needs_names = "step" in of_job or not of_step.isdisjoint(_NAMED) or "stepTitle" in of_file
        self._fields = [(field.key, _job_field(field)) for field in fields]
        self.open = opener(_looked_at(of_job, of_step, of_file))

    def job(self, document: Json, around: Around) -> dict[str, Any]:
        """A job, from its document as :attr:`open` opens it."""
        job = _Job(document, around)
        return {key: field(job) for key, field in self._fields}


_TYPES = ("Job", "Step", "Attachment")


def _every(fields: Iterable[Field]) -> Iterator[Field]:
    for field in fields:
        yield field
        yield from _every(field.fields)


def _looked_at(
    of_job: frozenset[str], of_step: frozenset[str], of_file: frozenset[str]
) -> frozenset[str] | None:
    """Members of the steps that these fields of jobs, steps and attachments are made of; None: of no steps at all."""
    if of_job.isdisjoint(_OF_STEPS):
        return None
    members = {member for name in of_job for member in _OF_STEPS.get(name, ())}
    members.update(member for name in of_step for member in _MEMBERS.get(name, (name,)))
    return frozenset(members | of_file & {"stepTitle"})


class _Job:
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


def _job_field(field: Field) -> _JobField:
    name = field.name
    if name in _COMPUTED:
        return _COMPUTED[name](field)
    if name in JOB_FIELDS:
        if name == "metadata":
            return _metadata(field)
        return lambda job: job_field(job.document, name)
    raise LookupError(f"nothing makes the field {name} of jobs")


def _metadata(field: Field) -> _JobField:
    inner = [(each.key, each.name) for each in field.fields]

    def pairs(job: _Job) -> list[dict[str, Any]]:
        return [
            {key: "NameValue" if name == "__typename" else pair[name] for key, name in inner}
            for pair in job_field(job.document, "metadata")
        ]

    return pairs


def _steps(field: Field) -> _JobField:
    shape = _step_shape(field.fields)
    return lambda job: [shape(visit, job) for visit in job.steps]


def _step(field: Field) -> _JobField:
    shape, search = _step_shape(field.fields), search_of(field)

    def found(job: _Job) -> dict[str, Any] | None:
        visit = search(job.steps, job.around.names)
        return None if visit is None else shape(visit, job)

    return found


def _step_shape(fields: Sequence[Field]) -> Callable[[Visit, _Job], dict[str, Any]]:
    """What shapes a visit. Most fields are members of the step as they are: for those no function is called."""
    blank: dict[str, Any] = dict.fromkeys(field.key for field in fields)
    own = [field for field in fields if field.name in OWN_TEXTS or field.name in _OWN_FIRST]
    keys = [field.key for field in own]
    # With others, which are not used, they always come as a tuple: one alone would not.
    members = attrgetter(*(field.name for field in own), "stepId", "stepId")
    if_none = [(field.key, _step_field(field)) for field in own if field.name in _OWN_FIRST]
    makers = [(field.key, _step_field(field)) for field in fields if field not in own]

    def shape(visit: Visit, job: _Job) -> dict[str, Any]:
        told = blank.copy()
        for key, said in zip(keys, members(visit.step), strict=False):
            if said is not None:
                told[key] = said if type(said) is str and said and not said.isspace() else text(said)
        for key, make in if_none:
            if told[key] is None:
                told[key] = make(visit, job)
        for key, make in makers:
            told[key] = make(visit, job)
        return told

    return shape


def _step_field(field: Field) -> _StepField:
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


def _attachments(field: Field) -> _JobField:
    show = attachment(field)
    return lambda job: [show(file, job.around.names, job.around.blobs) for file in job.files.values()]


def _reports(field: Field) -> _JobField:
    show = report(field)
    return lambda job: [show(row, job.document, job.around.blobs) for row in job.around.reports]


_COMPUTED: dict[str, Callable[[Field], _JobField]] = {
    "__typename": lambda field: lambda job: "Job",
    "completedJobCursor": lambda field: lambda job: job.around.cursor,
    "workflowTags": lambda field: lambda job: list(job.around.tags),
    "completed": lambda field: lambda job: job_field(job.document, "updated"),
    "activeDuration": lambda field: lambda job: active_of_job(job.document, steps_in(job.document)),
    "geoLatAverage": lambda field: lambda job: median_place(steps_in(job.document, "completed"), 0),
    "geoLongAverage": lambda field: lambda job: median_place(steps_in(job.document, "completed"), 1),
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
