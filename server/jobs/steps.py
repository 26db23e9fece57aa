"""The visited steps of a job, named: what the tablet did not say of a step, its workflow says.

Tablets send titles and types with their steps, or not, and never the tag. What they sent is not altered: the job
itself stays as it is, and this list is made beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.http import json_response
from server.jobs.intake import JobRequest
from server.jobs.reading import not_found
from storage.database import Connection, Database
from storage.queries import jobs as queries
from storage.queries.jobs import JobView
from storage.queries.workflows import step_lists

Definitions = Mapping[str, Mapping[str, Any]]

#: Where in a job's document its steps stand, and the phase that means.
_LISTS = (("completedSteps", "completed"), ("cancelledSteps", "cancelled"))
_TIMES = ("started", "completed", "cancelled", "updated")


def definitions(step_list: bytes | None) -> Definitions:
    """stepId -> the definition of the step, nested ones included; empty if the workflow is not known."""
    if step_list is None:
        return {}
    return {step["stepId"]: step for step in _nested(msgspec.json.decode(step_list).get("steps"))}


def _nested(steps: Any) -> Iterator[dict[str, Any]]:
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict):
            if isinstance(step.get("stepId"), str):
                yield step
            yield from _nested(step.get("steps"))


def named_steps(document: Mapping[str, Any], known: Definitions) -> list[dict[str, Any]]:
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


def _named(step: Mapping[str, Any], phase: str, known: Definitions) -> dict[str, Any]:
    step_id = step.get("stepId")
    definition = known.get(step_id, {}) if isinstance(step_id, str) else {}
    metadata = step.get("metadata")
    sent = {
        "title": step.get("stepTitle"),
        "tag": metadata.get("tags") if isinstance(metadata, dict) else None,
        "type": step.get("stepType"),
    }
    defined = {
        "title": definition.get("title"),
        "tag": definition.get("tag"),
        "type": definition.get("inputType") or definition.get("type"),
    }
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


def _load(
    connection: Connection, team_id: int, client_job_id: str
) -> tuple[JobView | None, dict[str, Any], bytes | None]:
    row = queries.by_client_job_id(connection, team_id, client_job_id)
    if row is None:
        return None, {}, None
    document: dict[str, Any] = msgspec.json.decode(row.view)
    head = document["metadata"]
    workflow_id, version_id = head.get("workflowId"), head.get("workflowVersionId")
    if not isinstance(workflow_id, str) or "\0" in workflow_id:
        return row, document, None
    if isinstance(version_id, str) and version_id and "\0" not in version_id:
        steps = step_lists(connection, team_id, workflow_id, version_id)
        if steps is not None:
            return row, document, steps
    return row, document, step_lists(connection, team_id, workflow_id, None)


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
    row, document, step_list = await database.read(_load, user.team_id, client_job_id)
    if row is None or (user.own_work_only and row.owner_id != user.subject_id):
        raise not_found()
    head = document["metadata"]
    answer = {
        "clientJobId": row.client_job_id,
        "workflowId": head.get("workflowId"),
        "workflowVersionId": head.get("workflowVersionId"),
        "workflowKnown": step_list is not None,
        "steps": named_steps(document, definitions(step_list)),
    }
    return json_response(msgspec.json.encode(answer))


route_handlers = [get_steps]
