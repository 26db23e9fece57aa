"""The visited steps of a job, named: what the tablet did not say of a step, its workflow says.

Tablets send titles and types with their steps, or not, and never the tag. What they sent is not altered: the job
itself stays as it is, and this list is made beside it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.http import json_response
from server.jobs.intake import JobRequest
from server.jobs.names import names_of, naming_version
from server.jobs.reading import not_found
from storage.database import Connection, Database
from storage.queries import jobs as queries
from storage.queries.jobs import JobView
from sync.facts import Names, is_blank, named, visits

#: Where in a job's document its steps stand, and the phase that means.
_LISTS = (("completedSteps", "completed"), ("cancelledSteps", "cancelled"))
_TIMES = ("started", "completed", "cancelled", "updated")


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
    return [_named(step, phase, known) for steps, phase in groups for step in visits(steps)]


def _named(step: Mapping[str, Any], phase: str, known: Names) -> dict[str, Any]:
    said, filled = named(step, known)
    return {
        "uniqueStepId": step.get("uniqueStepId"),
        "stepId": step.get("stepId"),
        "parentUniqueStepId": step.get("parentUniqueStepId"),
        "phase": phase,
        **said,
        "fromWorkflow": filled,
        **{name: step[name] for name in _TIMES if not is_blank(step.get(name))},
    }


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
    return _Visited(row, document, naming_version(connection, team_id, document))


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
        names = await names_of(database, user.team_id, found.version_id)
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
