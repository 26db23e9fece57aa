"""The facts of a job, cut to a size: what is told of a job is small, whatever a tablet has put into it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

#: What is kept of a job with a delivery. Leaves room in a body for what is said beside the job.
MAX_FACTS = 15_000
#: No value is cut below this, in bytes of JSON; all that are not in lists then take some 2 KB together.
_SHORTEST = 100
_LONGEST = 8_000
#: Lists, whose entries are left out where cutting texts is not enough; the last entries first.
_LISTS = ("metadata", "workflowTags")
#: The order of section 3.5.3.1, with the clientJobId, which every other operation calls the job by.
_ORDER = (
    *("jobId", "clientJobId", "completedJobCursor", "teamName"),
    *("workflowId", "workflowVersionId", "workflowTitle", "workflowTags"),
    *("jobTitle", "created", "updated", "totalDuration", "activeDuration", "status", "userId", "userName"),
    *("geoLongAverage", "geoLatAverage", "metadata"),
)


def fitted(facts: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """The facts of a job (``sync.facts.job_facts``, ``workflowTags``, ``completedJobCursor``) as JSON of at most
    ``limit`` bytes, which must be 4,000 or more.

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
