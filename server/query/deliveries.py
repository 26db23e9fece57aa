"""The root field ``triggers``, with what they deliver. Where to, and with which secret, is not told here."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from server.query.asking import Asking
from server.query.selecting import Field
from server.query.shaping import (
    Tellers,
    limit_of,
    refused,
    shaped,
    skip_and_limit,
    time_or_none,
    told,
)
from storage.database import Connection
from storage.queries import deliveries as delivery_queries
from storage.queries import triggers as trigger_queries
from storage.queries.deliveries import DeliveryRow
from storage.queries.triggers import TriggerRow
from sync.values import format_time

MAX_LIMIT = 100
USUAL_DELIVERIES = 50
_DELIVERY_ID = re.compile(r"[0-9a-f]{24}")

TRIGGER_FIELDS: Tellers[TriggerRow] = {
    "triggerId": lambda row: row.trigger_id,
    "name": lambda row: row.name,
    "description": lambda row: row.description,
    "triggerType": lambda row: row.trigger_type,
    "disabled": lambda row: row.disabled,
    "disabledReason": lambda row: row.disabled_reason,
    "archived": lambda row: row.archived,
    "created": lambda row: format_time(row.created_at),
    "updated": lambda row: format_time(row.updated_at),
    "failingSince": lambda row: time_or_none(row.failing_since),
}
DELIVERY_FIELDS: Tellers[DeliveryRow] = {
    "deliveryId": lambda row: row.delivery_id,
    "type": lambda row: row.type,
    "jobId": lambda row: row.job_id,
    "clientJobId": lambda row: row.client_job_id,
    "state": lambda row: row.state,
    "attempts": lambda row: row.attempts,
    "nextAttempt": lambda row: time_or_none(row.next_at),
    "created": lambda row: format_time(row.created_at),
    "finished": lambda row: time_or_none(row.finished_at),
    "note": lambda row: row.note,
    "reportId": lambda row: row.report_id,
}


class _Newest(NamedTuple):
    """Which deliveries of each trigger are asked for."""

    limit: int
    before: str | None


class _Page(NamedTuple):
    """Triggers; ``deliveries``: field -> trigger id -> deliveries."""

    rows: Sequence[TriggerRow]
    deliveries: Mapping[str, Mapping[str, Sequence[DeliveryRow]]]


async def triggers(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Triggers as ``field`` asks for them, newest first.

    Raises:
        QueryProblem: ``invalid-argument``.
    """
    page = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    asked = {inner.key: _newest(inner) for inner in field.fields if inner.name == "deliveries"}
    found = await asking.database.read(_load, asking.team_id, asked, *page)
    # A hundred triggers with a hundred deliveries each take some time: other requests go on meanwhile.
    return await asyncio.to_thread(_shaped, field.fields, found)


def _newest(field: Field) -> _Newest:
    before = field.arguments.get("before")
    if before is not None and not _DELIVERY_ID.fullmatch(before):
        raise refused(field, "before must be the deliveryId of a delivery.")
    return _Newest(limit_of(field, USUAL_DELIVERIES, MAX_LIMIT), before)


def _load(connection: Connection, team_id: int, asked: Mapping[str, _Newest], skip: int, limit: int) -> _Page:
    rows = trigger_queries.page(connection, team_id, skip, limit)
    ids = [row.trigger_id for row in rows]
    return _Page(
        rows,
        {
            key: delivery_queries.newest_of(connection, team_id, ids, newest.limit, newest.before)
            for key, newest in asked.items()
        },
    )


def _shaped(fields: Sequence[Field], page: _Page) -> list[dict[str, Any]]:
    def trigger(row: TriggerRow) -> dict[str, Any]:
        def tell(field: Field) -> Any:
            if field.name == "deliveries":
                found = page.deliveries[field.key].get(row.trigger_id, ())
                return [told(field.fields, DELIVERY_FIELDS, each) for each in found]
            return TRIGGER_FIELDS[field.name](row)

        return shaped(fields, tell)

    return [trigger(row) for row in page.rows]
