"""What a webhook says: the job as it was when the event happened, in less than 20 KB.

The shape is that of section 3.3.3 of the specification, with the members of Standard Webhooks beside ``data``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from storage.queries.deliveries import DeliveryRow
from sync.fitting import fitted, shortened
from sync.values import format_time

#: Standard Webhooks asks for less than 20 KB.
MAX_BODY = 20_000
VERSION = "1"

_MAX_NOTE = 500


def message_id(delivery_id: str) -> str:
    """The ``webhook-id`` of a delivery, the same at each attempt."""
    return f"msg_{delivery_id}"


def event_time(delivery: DeliveryRow) -> int:
    """When the event happened, in microseconds: its id says so."""
    try:
        return int(delivery.event_id[:12], 16) * 1000
    except ValueError:
        return delivery.created_at


def webhook_body(delivery: DeliveryRow, key: tuple[str, str], reports: Sequence[Mapping[str, Any]]) -> bytes:
    """The body of one attempt: JSON of less than 20 KB, whatever the job holds.

    Args:
        delivery: its payload is the job.
        key: a temporary query key, and when it ends.
        reports: links to reports of the job; some KB at most.
    """
    facts: dict[str, Any] = msgspec.json.decode(delivery.payload)
    beside = {"reports": list(reports), "key": {"value": key[0], "expiry": key[1]}}
    body: dict[str, Any] = {
        "data": {"jobs": [beside]},
        "id": message_id(delivery.delivery_id),
        "type": delivery.type,
        "version": VERSION,
        "timestamp": format_time(event_time(delivery)),
    }
    if delivery.note is not None:
        body["note"] = shortened(delivery.note, _MAX_NOTE)
    room = MAX_BODY - 1 - len(msgspec.json.encode(body))
    body["data"] = {"jobs": [{**fitted(facts, room), **beside}]}
    return msgspec.json.encode(body)
