"""What a webhook says: the job as it was when the event happened, in less than 20 KB.

The shape is that of section 3.3.3 of the specification, with the members of Standard Webhooks beside ``data``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from storage.queries.deliveries import DeliveryRow
from sync.values import format_time

#: Standard Webhooks asks for less than 20 KB.
MAX_BODY = 20_000
#: What is kept of a job with a delivery. Leaves room in a body for what is said beside the job.
MAX_FACTS = 15_000
VERSION = "1"

_MAX_NOTE = 500
#: No value is cut below this, in bytes of JSON; all that are not in lists then take some 2 KB together.
_SHORTEST = 100
_LONGEST = 8_000
#: Lists, whose entries are left out where cutting texts is not enough; the last entries first.
_LISTS = ("metadata", "workflowTags")
#: The order of section 3.5.3.1, with the clientJobId, which every other operation calls the job by.
_ORDER = (
    *("jobId", "clientJobId", "teamName", "workflowId", "workflowVersionId", "workflowTitle", "workflowTags"),
    *("jobTitle", "created", "updated", "totalDuration", "activeDuration", "status", "userId", "userName"),
    *("geoLongAverage", "geoLatAverage", "metadata"),
)


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


def fitted(facts: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The facts of a job (``sync.facts.job_facts``, ``workflowTags``) as JSON of at most ``limit`` bytes, which must
    be 4,000 or more.

    The longest values are cut first; if all are short and there are still too many, the last entries of
    ``metadata`` and ``workflowTags`` are left out. ``truncated`` is true if anything was.
    """
    known = {name: facts[name] for name in _ORDER if name in facts}
    if facts.get("truncated") is True:
        known["truncated"] = True
    if _size(known) <= limit:
        return known
    most = _LONGEST
    while True:
        result = {name: _cut(name, value, most) for name, value in known.items()} | {"truncated": True}
        if _size(result) <= limit:
            return result
        if most == _SHORTEST:
            break
        most = max(most // 2, _SHORTEST)
    for name in _LISTS:
        if isinstance(result.get(name), list):
            result[name] = _first(result[name], limit - _size({**result, name: []}))
    return result


def shortened(text: str, most: int) -> str:
    """``text``, or as much of its beginning as takes at most ``most`` bytes as JSON, and an ellipsis."""
    if len(text) <= most and _size(text) <= most:
        return text
    kept = text[:most]
    while (size := _size(f"{kept}…")) > most:
        kept = kept[: min(len(kept) - 1, len(kept) * most // size)]
    return f"{kept}…"


def _cut(name: str, value: Any, most: int) -> Any:
    """``value`` with each text, and each entry of a list, of at most ``most`` bytes."""
    if name not in _LISTS or not isinstance(value, list):
        return _short(value, most)
    return [
        {part: _short(inner, most) for part, inner in entry.items()}
        if _is_pair(entry)
        else _short(entry, most)
        for entry in value
    ]


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.keys() == {"name", "value"}


def _short(value: Any, most: int) -> Any:
    """``value`` if it is short; else as much of it as a text."""
    if isinstance(value, str):
        return shortened(value, most)
    encoded = msgspec.json.encode(value)
    return value if len(encoded) <= most else shortened(encoded.decode(), most)


def _first(entries: Sequence[Any], room: int) -> list[Any]:
    """As many of the first entries as fit into ``room`` bytes, with their commas."""
    taken = []
    for entry in entries:
        room -= _size(entry) + 1
        if room < 0:
            break
        taken.append(entry)
    return taken


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
