"""The visited steps of a job, named: what the tablet did not say of a step, its workflow says.

Tablets send titles and types with their steps, or not, and never the tag. What they sent is not altered: the job
itself stays as it is, and this list is made beside it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.http import json_response
from server.jobs.intake import JobRequest
from server.jobs.reading import not_found
from storage.database import Connection, Database
from storage.queries import jobs as queries
from storage.queries import workflows as workflow_queries
from storage.queries.jobs import JobView

#: title, tag, type
StepName = tuple[str | None, str | None, str | None]
#: By stepId.
Names = Mapping[str, StepName]

#: Where in a job's document its steps stand, and the phase that means.
_LISTS = (("completedSteps", "completed"), ("cancelledSteps", "cancelled"))
_TIMES = ("started", "completed", "cancelled", "updated")
_UNKNOWN: StepName = (None, None, None)

#: Compressed names, bytes: more is not unpacked on the event loop.
_MUCH = 16 * 1024
#: What the names that are kept may take: those of one workflow of the largest size, or of hundreds of usual ones.
KEPT_BYTES = 64 * 1024 * 1024
#: What a step takes beside the bytes of its JSON: strings, a tuple, a place in the dictionary.
_STEP_BYTES = 300

_names = msgspec.json.Decoder(dict[str, StepName])


class KeptNames:
    """The names that were used last, of all teams; those of a version never change.

    Args:
        most: bytes, about.
    """

    def __init__(self, most: int = KEPT_BYTES) -> None:
        self._most = most
        self._kept: OrderedDict[tuple[int, str], tuple[Names, int]] = OrderedDict()
        self.bytes = 0

    def get(self, team_id: int, version_id: str) -> Names | None:
        found = self._kept.get((team_id, version_id))
        if found is None:
            return None
        self._kept.move_to_end((team_id, version_id))
        return found[0]

    def keep(self, team_id: int, version_id: str, names: Names, size: int) -> None:
        """Keep names whose JSON has ``size`` bytes; those that were not used for longest go."""
        size += _STEP_BYTES * len(names)
        if size > self._most or (team_id, version_id) in self._kept:
            return
        self._kept[team_id, version_id] = names, size
        self.bytes += size
        while self.bytes > self._most:
            _, (_, freed) = self._kept.popitem(last=False)
            self.bytes -= freed


#: Of the whole process: ids of versions are different in all databases.
_kept = KeptNames()


def named_steps(document: Mapping[str, Any], known: Names) -> list[dict[str, Any]]:
    """Every visit of a step in a job, a form before its children: completed, cancelled, open, current ones.

    Args:
        document: the job as it is read.
        known: of its workflow's version.

    Returns:
        Of each: uniqueStepId, stepId, parentUniqueStepId, phase, title, tag, type, and the times it has.
        ``fromWorkflow`` names those of the three that the tablet had not sent.
    """
    head = document.get("metadata") or {}
    sync = document.get("sync") or {}
    groups = [(document.get(key), phase) for key, phase in _LISTS]
    groups += [(sync.get("openSteps"), "open"), ([head.get("currentStep")], "current")]
    return [
        _named(step, phase, known)
        for steps, phase in groups
        for wrapped in (steps if isinstance(steps, list) else ())
        for step in _visits(wrapped)
    ]


def _visits(wrapped: Any) -> Iterator[Mapping[str, Any]]:
    """The step in its wrapper, and what is nested in a form."""
    if not isinstance(wrapped, dict):
        return
    for kind in ("singleStep", "reportStep"):
        step = wrapped.get(kind)
        if isinstance(step, dict):
            yield step
            for child in step.get("steps") or () if isinstance(step.get("steps"), list) else ():
                if isinstance(child, dict) and ("singleStep" in child or "reportStep" in child):
                    yield from _visits(child)
                elif isinstance(child, dict):
                    yield child


def _named(step: Mapping[str, Any], phase: str, known: Names) -> dict[str, Any]:
    step_id = step.get("stepId")
    title, tag, kind = known.get(step_id, _UNKNOWN) if isinstance(step_id, str) else _UNKNOWN
    metadata = step.get("metadata")
    sent = {
        "title": step.get("stepTitle"),
        "tag": metadata.get("tags") if isinstance(metadata, dict) else None,
        "type": step.get("stepType"),
    }
    defined = {"title": title, "tag": tag, "type": kind}
    filled = [name for name, value in sent.items() if _blank(value) and not _blank(defined[name])]
    return {
        "uniqueStepId": step.get("uniqueStepId"),
        "stepId": step_id,
        "parentUniqueStepId": step.get("parentUniqueStepId"),
        "phase": phase,
        **{name: defined[name] if name in filled else value for name, value in sent.items()},
        "fromWorkflow": filled,
        **{name: step[name] for name in _TIMES if not _blank(step.get(name))},
    }


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


class _Visited(NamedTuple):
    """A job, and the version of a workflow that names its steps, if there is one."""

    row: JobView
    document: dict[str, Any]
    version_id: str | None


def _load(connection: Connection, team_id: int, client_job_id: str) -> _Visited | None:
    row = queries.by_client_job_id(connection, team_id, client_job_id)
    if row is None:
        return None
    document: dict[str, Any] = msgspec.json.decode(row.view)
    head = document["metadata"]
    workflow_id, version_id = head.get("workflowId"), head.get("workflowVersionId")
    if not isinstance(workflow_id, str) or "\0" in workflow_id:
        return _Visited(row, document, None)
    wanted = version_id if isinstance(version_id, str) and version_id and "\0" not in version_id else None
    found = workflow_queries.naming_version(connection, team_id, workflow_id, wanted)
    return _Visited(row, document, found)


async def _names_of(database: Database, team_id: int, version_id: str) -> Names | None:
    """The names of a version; None if nobody could read it."""
    known = _kept.get(team_id, version_id)
    if known is not None:
        return known
    packed = await database.read(workflow_queries.step_names, team_id, version_id)
    if packed is None:
        return None
    names, size = await asyncio.to_thread(_unpacked, packed) if len(packed) > _MUCH else _unpacked(packed)
    _kept.keep(team_id, version_id, names, size)
    return names


def _unpacked(packed: bytes) -> tuple[Names, int]:
    """Names, and how many bytes their JSON has."""
    json = workflow_queries.decompressed(packed)
    return _names.decode(json), len(json)


@get(
    "/jobs/v1/{client_job_id:str}/steps",
    opt={"policy": "Job_Read"},
    tags=["Jobs"],
    summary="Get the named steps of a job",
    description=(
        "Every visit of a step with title, tag and type: as the tablet sent them, else as the job's version of "
        "the workflow (else its active one) defines them. `fromWorkflow` names what was filled in."
    ),
)
async def get_steps(
    request: JobRequest, client_job_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """Beyond the specification."""
    user = request.user
    found = await database.read(_load, user.team_id, client_job_id)
    if found is None or (user.own_work_only and found.row.owner_id != user.subject_id):
        raise not_found()
    names = None
    if found.version_id is not None:
        names = await _names_of(database, user.team_id, found.version_id)
    head = found.document["metadata"]
    answer = {
        "clientJobId": found.row.client_job_id,
        "workflowId": head.get("workflowId"),
        "workflowVersionId": head.get("workflowVersionId"),
        "workflowKnown": names is not None,
        "steps": named_steps(found.document, names or {}),
    }
    return json_response(msgspec.json.encode(answer))


route_handlers = [get_steps]
