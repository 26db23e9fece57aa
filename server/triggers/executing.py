"""Running a trigger by hand, for a job that somebody names: to try it, or to send again what went astray."""

from typing import NamedTuple

import msgspec
from litestar import Response, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response
from server.jobs.reading import not_found as job_not_found
from server.triggers import deliveries, shapes
from server.triggers.matching import add_for, frozen
from server.triggers.shapes import TAGS, TriggerRequest
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import jobs
from storage.queries import triggers as queries
from storage.queries.deliveries import BY_HAND
from storage.queries.jobs import JobView
from storage.queries.triggers import TriggerRow


@post(
    "/trigger/v2/{trigger_id:str}/execute",
    status_code=200,
    opt={"policy": "Trigger_Execute"},
    tags=TAGS,
    summary="Execute a trigger by hand",
    description="For the job of `clientJobId`, or of `jobId`, whatever its status and whether or not the trigger "
    "matches it. A disabled trigger does it as well, so that it can be tried; an archived one does not.",
)
async def execute_trigger(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Answers the delivery, which is sent in the background."""
    user = request.user
    named = [request.query_params.get(name) or None for name in ("clientJobId", "jobId")]
    event = await database.read(_event, user, trigger_id, *named)
    # Such deliveries are sent although their trigger is disabled.
    event_id, at = BY_HAND + new_id(), now()
    delivery_id = await database.settle(
        add_for, user.team_id, event.trigger, event_id, "job.completed", *event.job, event.payload, at
    )
    found = await database.read(deliveries.load, user.team_id, trigger_id, delivery_id)
    return json_response(msgspec.json.encode(deliveries.printed(found, user)))


class _Event(NamedTuple):
    """What is to be told: of which job (jobId, clientJobId, revision), and what of it."""

    trigger: TriggerRow
    job: tuple[str, str, int]
    payload: bytes


def _event(
    connection: Connection, user: Principal, trigger_id: str, client_job_id: str | None, job_id: str | None
) -> _Event:
    """Once it is known that it can be told.

    Raises:
        Problem: as :func:`_job`; 404 ``no-such-trigger``, 409 ``trigger-archived`` or ``trigger-incomplete``.
    """
    trigger = queries.one(connection, user.team_id, trigger_id)
    if trigger is None:
        raise shapes.not_found()
    job = _job(connection, user, client_job_id, job_id)
    if trigger.archived:
        raise shapes.archived()
    lacking = shapes.lack(trigger.trigger_type, trigger.settings)
    if lacking is not None:
        raise Problem(409, "trigger-incomplete", lacking[1], field=lacking[0])
    payload = frozen(connection, user.team_id, msgspec.json.decode(job.view))
    return _Event(trigger, (job.job_id, job.client_job_id, job.rev), payload)


def _job(connection: Connection, user: Principal, client_job_id: str | None, job_id: str | None) -> JobView:
    """The job that a request names.

    Raises:
        Problem: 400 ``invalid-parameter``, 404 ``job-not-found``.
    """
    if (client_job_id is None) == (job_id is None):
        raise Problem(
            400, "invalid-parameter", "Name the job: clientJobId=… or jobId=….", field="clientJobId"
        )
    if client_job_id is not None:
        row = jobs.by_client_job_id(connection, user.team_id, client_job_id)
    else:
        row = jobs.by_job_id(connection, user.team_id, job_id or "")
    if row is None or (user.own_work_only and row.owner_id != user.subject_id):
        raise job_not_found()
    return row


route_handlers = [execute_trigger]
