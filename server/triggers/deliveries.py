"""The delivery log: what a trigger has sent and is to send, each attempt at it, and sending again."""

from typing import Any, NamedTuple

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import UNSET, UnsetType

from server.auth.policies import allows
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.http import json_response, skip_and_limit
from server.triggers import shapes
from server.triggers.payload import message_id
from server.triggers.shapes import ADMIN, READ, TAGS, TriggerRequest
from storage.database import Connection, Database
from storage.queries import deliveries as queries
from storage.queries import triggers
from storage.queries.deliveries import DELIVERED, DUE, FAILED, PREPARING, AttemptRow, DeliveryRow
from sync.values import format_time, parse_time

_STATES = (PREPARING, DUE, DELIVERED, FAILED)
#: In lists; a delivery alone comes with all of them.
_LISTED_ATTEMPTS = 20


class Attempt(msgspec.Struct, rename="camel"):
    """One attempt. ``answer``: what the receiver said, for administrators of triggers only, and not in lists."""

    number: int
    at: str
    duration_ms: int
    status: int | None
    error: str | None
    answer: str | UnsetType | None


class Delivery(msgspec.Struct, rename="camel"):
    """A delivery as it is answered. ``attempts`` are those since it was last replayed, ``log`` has all,
    in lists the latest 20.

    ``payload`` is the job as it was when the event happened, for administrators of triggers only, and not in lists.
    """

    delivery_id: str
    webhook_id: str
    trigger_id: str
    type: str
    job_id: str
    client_job_id: str
    rev: int
    state: str
    attempts: int
    next_attempt: str | None
    created: str
    finished: str | None
    note: str | None
    report_id: str | None
    log: list[Attempt]
    payload: msgspec.Raw | UnsetType = UNSET


class Found(NamedTuple):
    """A delivery with its attempts, first to last. ``has_answers``: with what receivers answered."""

    row: DeliveryRow
    log: list[AttemptRow]
    has_answers: bool = True


@get(
    "/trigger/v2/{trigger_id:str}/deliveries",
    opt=READ,
    tags=TAGS,
    summary="List a trigger's deliveries",
    description="Newest first, of the last 30 days. Query parameters: `state` (preparing, due, delivered or failed), "
    "`clientJobId`, `skip` (0), `limit` (20, at most 1,000). `log` has the latest 20 attempts at each, without answers.",
)
async def list_deliveries(
    request: TriggerRequest, trigger_id: FromPath[str], database: NamedDependency[Database]
) -> Response[bytes]:
    """With the latest attempts."""
    state = request.query_params.get("state") or None
    client_job_id = request.query_params.get("clientJobId") or None
    page = skip_and_limit(request)
    found = await database.read(_page, request.user.team_id, trigger_id, state, client_job_id, *page)
    return json_response(msgspec.json.encode([printed(each, request.user) for each in found]))


@get(
    "/trigger/v2/{trigger_id:str}/deliveries/{delivery_id:str}",
    opt=READ,
    tags=TAGS,
    summary="Get a delivery",
    description="With all attempts. For callers who satisfy Trigger_Admin with `payload`, what it tells of the job, and "
    "with `answer`, what the receiver said to each attempt.",
)
async def get_delivery(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    delivery_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """One, with every attempt."""
    sees_all = _sees_all(request.user)
    found = await database.read(load, request.user.team_id, trigger_id, delivery_id, sees_all)
    answer = printed(found, request.user)
    if sees_all:
        answer.payload = msgspec.Raw(found.row.payload)
    return json_response(msgspec.json.encode(answer))


@post(
    "/trigger/v2/{trigger_id:str}/deliveries/{delivery_id:str}/replay",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Replay a delivery",
    description="Sends it now, with the same webhook-id and all attempts before it, whatever became of it; one that "
    "waits for its next attempt does not wait longer. Of a disabled trigger it is sent once that is enabled.",
)
async def replay_delivery(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    delivery_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Answers the delivery as it is now."""
    found = await database.settle(_replay, request.user.team_id, trigger_id, delivery_id, now())
    return json_response(msgspec.json.encode(printed(found, request.user)))


@post(
    "/trigger/v2/{trigger_id:str}/deliveries/replay",
    status_code=200,
    opt=ADMIN,
    tags=TAGS,
    summary="Replay a trigger's failed deliveries",
    description="All that were made at `since` (a time) or later and have failed for good.",
)
async def replay_failed(
    request: TriggerRequest,
    trigger_id: FromPath[str],
    database: NamedDependency[Database],
) -> Response[bytes]:
    """Answers how many."""
    since = request.query_params.get("since")
    replayed = await database.settle(_replay_failed, request.user.team_id, trigger_id, since, now())
    return json_response(msgspec.json.encode({"replayed": replayed}))


def load(
    connection: Connection, team_id: int, trigger_id: str, delivery_id: str, answers: bool = True
) -> Found:
    """A delivery of this trigger with all attempts; ``answers``: with what receivers answered.

    Raises:
        Problem: 404 ``no-such-delivery``.
    """
    row = queries.one(connection, team_id, delivery_id)
    if row is None or row.trigger_id != trigger_id:
        raise Problem(404, "no-such-delivery", "The trigger has no such delivery. They are kept for 30 days.")
    log = queries.attempts_of(connection, team_id, [delivery_id], answers=answers)
    return Found(row, log.get(delivery_id, []), answers)


def printed(found: Found, user: Principal) -> Delivery:
    """A delivery as ``user`` may see it, without its payload."""
    row, answers = found.row, found.has_answers and _sees_all(user)
    return Delivery(
        delivery_id=row.delivery_id,
        webhook_id=message_id(row.delivery_id),
        trigger_id=row.trigger_id,
        type=row.type,
        job_id=row.job_id,
        client_job_id=row.client_job_id,
        rev=row.rev,
        state=row.state,
        attempts=row.attempts,
        next_attempt=_time(row.next_at),
        created=format_time(row.created_at),
        finished=_time(row.finished_at),
        note=row.note,
        report_id=row.report_id,
        log=[_attempt(each, answers) for each in found.log],
    )


def _attempt(row: AttemptRow, with_answer: bool) -> Attempt:
    answer: Any = UNSET
    if with_answer:
        answer = None if row.answer is None else row.answer.decode("utf-8", "replace")
    return Attempt(
        number=row.number,
        at=format_time(row.at),
        duration_ms=round(row.duration_us / 1000),
        status=row.status,
        error=row.error,
        answer=answer,
    )


def _sees_all(user: Principal) -> bool:
    """Whether the caller sees what receivers answered, and what they are told of jobs: somebody who could make
    a trigger that sends it to them.
    """
    return allows("Trigger_Admin", user.scopes, user.permissions)


def _time(at: int | None) -> str | None:
    return None if at is None else format_time(at)


def _page(
    connection: Connection,
    team_id: int,
    trigger_id: str,
    state: str | None,
    client_job_id: str | None,
    skip: int,
    limit: int,
) -> list[Found]:
    _load_trigger(connection, team_id, trigger_id)
    if state is not None and state not in _STATES:
        raise Problem(400, "invalid-parameter", f"state must be one of {', '.join(_STATES)}.", field="state")
    rows = queries.page(connection, team_id, trigger_id, state, skip, limit, client_job_id)
    ids = [row.delivery_id for row in rows]
    log = queries.attempts_of(connection, team_id, ids, answers=False, latest=_LISTED_ATTEMPTS)
    return [Found(row, log.get(row.delivery_id, []), has_answers=False) for row in rows]


def _replay(connection: Connection, team_id: int, trigger_id: str, delivery_id: str, at: int) -> Found:
    trigger = _load_trigger(connection, team_id, trigger_id, lock=True)
    load(connection, team_id, trigger_id, delivery_id)
    if trigger.archived:
        raise shapes.archived()
    if not queries.replay(connection, team_id, trigger_id, delivery_id, at):
        raise Problem(
            409, "delivery-preparing", "It is not ready yet: its report is made first. Then it is sent."
        )
    return load(connection, team_id, trigger_id, delivery_id)


def _replay_failed(connection: Connection, team_id: int, trigger_id: str, since: str | None, at: int) -> int:
    trigger = _load_trigger(connection, team_id, trigger_id, lock=True)
    moment = parse_time((since or "").strip())
    if moment is None:
        raise Problem(
            400,
            "invalid-parameter",
            "since must be a time, such as 2026-11-22T09:00:00Z. Write a + of its zone as %2B.",
            field="since",
        )
    if trigger.archived:
        raise shapes.archived()
    return queries.replay_failed(connection, team_id, trigger_id, moment, at)


def _load_trigger(
    connection: Connection, team_id: int, trigger_id: str, lock: bool = False
) -> triggers.TriggerRow:
    # Whoever writes to many deliveries locks their trigger first, as the engine does: so nobody locks another out.
    row = triggers.one(connection, team_id, trigger_id, lock)
    if row is None:
        raise shapes.not_found()
    return row


route_handlers = [list_deliveries, get_delivery, replay_delivery, replay_failed]
