"""The view: the merged job that everybody is shown, a pure function of the edits.

Its members stand in the order of the specification's examples; unknown ones follow. Raw values are
copied, never decoded and encoded again, but for the two id lists of a step in conflict.
"""

from typing import Any

import msgspec

from sync.edits import SERVER, Edit, Job, Scope
from sync.snapshot import CURRENT, FINISHED_RANK
from sync.values import digest, format_time

PHASE_NAMES = ("current", "completed", "cancelled")
MAX_CONFLICTS = 8
#: `"2021-10-01T12:48:13.824Z"` with its quotes: `modified` always takes this much room.
_TIME_SIZE = 26

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[msgspec.Raw] | None)
_encode = msgspec.json.encode


def order(scope: str, edit: Edit) -> tuple[Any, ...]:
    """How siblings are ordered; the greatest is shown."""
    if scope == "status":
        return (edit.phase, edit.ts, edit.install)
    if scope == "assignee":
        # What an operator assigned beats every edit that has not seen it.
        return (edit.install == SERVER, edit.ts, edit.install)
    return (edit.ts, edit.phase, edit.install)


def shown_value(scope: Scope) -> bytes:
    """What is shown of a scope: the greatest edit's value; of a step in conflict with every sibling's ids."""
    winner = scope.live[0]
    if len(scope.live) == 1:
        return winner.value
    values, notes = shown_refs(scope)
    extra_values, extra_notes = values[len(winner.refs.values) :], notes[len(winner.refs.notes) :]
    if not extra_values and not extra_notes:
        return winner.value
    return _with_refs(winner.value, extra_values, extra_notes)


def shown_refs(scope: Scope) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The resource ids and note files of a step as shown: those of the greatest edit first."""
    if len(scope.live) == 1:
        return scope.live[0].refs
    values = dict.fromkeys(item for edit in scope.live for item in edit.refs.values)
    notes = dict.fromkeys(item for edit in scope.live for item in edit.refs.notes)
    return tuple(values), tuple(notes)


def _with_refs(value: bytes, values: tuple[str, ...], notes: tuple[str, ...]) -> bytes:
    step = _members.decode(value)
    for kind in ("singleStep", "reportStep"):
        if kind in step and bytes(step[kind]) != b"null":
            inner = _members.decode(step[kind])
            for key, extra in (("valueResourceIds", values), ("noteResourceFilenames", notes)):
                if extra:
                    present = _items.decode(inner[key]) or [] if key in inner else []
                    inner[key] = msgspec.Raw(
                        _encode([*present, *(msgspec.Raw(item.encode()) for item in extra)])
                    )
            step[kind] = msgspec.Raw(_encode(inner))
            break
    return _encode(step)


def resource_ids(job: Job) -> list[str]:
    """Ids of the photos and files that the shown steps refer to, in order, once each."""
    texts = dict.fromkeys(
        item
        for name, scope in job.scopes.items()
        if name.startswith("step:")
        for items in shown_refs(scope)
        for item in items
        if item.startswith('"')
    )
    return [msgspec.json.decode(text) for text in texts]


def status_value(job: Job) -> bytes | None:
    """The raw object of status and abandonReason as shown."""
    if job.aborted is not None:
        return job.aborted.value
    scope = job.scopes.get("status")
    return scope.live[0].value if scope else None


def status_name(job: Job) -> str | None:
    value = status_value(job)
    name = msgspec.json.decode(value).get("status") if value else None
    return name if isinstance(name, str) else None


def finished(job: Job) -> bool:
    """Completed, Abandoned or Aborted."""
    return job.aborted is not None or completed(job)


def completed(job: Job) -> bool:
    """Completed or Abandoned, and not Aborted."""
    scope = job.scopes.get("status")
    return job.aborted is None and scope is not None and scope.live[0].phase >= FINISHED_RANK


def text_of(job: Job, scope_name: str, member: str | None = None) -> str | None:
    """The string shown in a scope (or in one member of it), or None."""
    scope = job.scopes.get(scope_name)
    if scope is None:
        return None
    value = msgspec.json.decode(shown_value(scope))
    if member is not None:
        value = value.get(member)
    return value if isinstance(value, str) else None


class _Out:
    """Collects pieces of the document and where scopes' values stand in it."""

    __slots__ = ("pieces", "size", "spans")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.spans: dict[str, tuple[int, int]] = {}

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def add_scope(self, name: str, scope: Scope) -> None:
        value = shown_value(scope)
        if value is scope.live[0].value:
            self.spans[name] = (self.size, self.size + len(value))
        self.add(value)


_HEAD_FIRST = ("workflowId", "workflowVersionId", "jobTitle")
_HEAD_LAST = ("workflowName",)
_TOP_FIRST = ("hierarchyStack", "packetIds")
_KNOWN_HEAD = frozenset(f"head:{key}" for key in (*_HEAD_FIRST, *_HEAD_LAST, "abandonReason"))
_KNOWN_TOP = frozenset(f"top:{key}" for key in _TOP_FIRST)


def render(job: Job) -> Job:
    """``job`` with its view made anew. ``modified_at`` is shown as it is given."""
    out = _Out()
    scopes = job.scopes
    status = _raw_members(status_value(job))
    assignee = _raw_members(scopes["assignee"].live[0].value if "assignee" in scopes else None)
    current, others, completed_steps, cancelled_steps = _arrange(job)

    out.add(b'{"jobId":%s,"metadata":{"clientJobId":%s' % (_encode(job.job_id), _encode(job.client_job_id)))
    for key in _HEAD_FIRST:
        _named(out, scopes, f"head:{key}", key)
    out.add(b',"metadata":{')
    _unknown(out, scopes, "meta:", frozenset(), first=True)
    out.add(b'},"created":%s' % _encode(job.created[1] if job.created else None))
    out.add(b',"updated":%s' % _encode(job.updated[1] if job.updated else None))
    out.add(b',"modified":')
    out.spans["modified"] = (out.size, out.size + _TIME_SIZE)
    out.add(b'"%s"' % format_time(job.modified_at).encode())
    out.add(b',"status":%s,"userId":%s' % (status.get("status", b"null"), assignee.get("userId", b"null")))
    out.add(b',"currentStep":')
    if current is None:
        out.add(b"null")
    else:
        out.add_scope(*current)
    reason = status.get("abandonReason")
    if reason in (None, b"null") and "head:abandonReason" in scopes:
        _named(out, scopes, "head:abandonReason", "abandonReason")
    else:
        out.add(b',"abandonReason":%s' % (reason or b"null"))
    out.add(b',"username":%s' % assignee.get("username", b"null"))
    for key in _HEAD_LAST:
        _named(out, scopes, f"head:{key}", key)
    _unknown(out, scopes, "head:", _KNOWN_HEAD)
    out.add(b'},"completedSteps":')
    _steps(out, completed_steps)
    out.add(b',"cancelledSteps":')
    _steps(out, cancelled_steps)
    out.add(b',"team":%s' % _encode(job.team))
    for key in _TOP_FIRST:
        _named(out, scopes, f"top:{key}", key)
    exclusion = _raw_members(scopes["exclusion"].live[0].value if "exclusion" in scopes else None)
    out.add(
        b',"jobExclusion":%s,"excluded":%s'
        % (exclusion.get("jobExclusion", b"[]"), exclusion.get("excluded", b"false"))
    )
    _unknown(out, scopes, "top:", _KNOWN_TOP)
    # Last, and closed by the last two bytes: an answer adds members of its own before them.
    out.add(b',"sync":{"conflicts":%s,"openSteps":' % _conflicts(job))
    _steps(out, others, empty=b"[]")
    out.add(b',"attachmentsComplete":%s}}' % (b"false" if resource_ids(job) else b"true"))
    return msgspec.structs.replace(job, view=b"".join(out.pieces), spans=out.spans)


def same_view(rendered: Job, other: Job) -> bool:
    """Whether a job just rendered shows the same as another, ``modified`` aside."""
    start, end = rendered.spans["modified"]
    mine, theirs = rendered.view, other.view
    return len(mine) == len(theirs) and mine[:start] == theirs[:start] and mine[end:] == theirs[end:]


def _raw_members(value: bytes | None) -> dict[str, bytes]:
    if value is None:
        return {}
    return {key: bytes(raw) for key, raw in _members.decode(value).items()}


def _named(out: _Out, scopes: dict[str, Scope], name: str, key: str) -> None:
    scope = scopes.get(name)
    if scope is None:
        out.add(b',"%s":null' % key.encode())
    else:
        out.add(b',"%s":' % key.encode())
        out.add_scope(name, scope)


def _unknown(
    out: _Out, scopes: dict[str, Scope], prefix: str, known: frozenset[str], first: bool = False
) -> None:
    for name, scope in scopes.items():
        if not name.startswith(prefix) or name in known:
            continue
        if prefix == "meta:" and scope.live[0].value == b"null":
            continue  # an explicit null takes a metadata key away
        out.add((b"" if first else b",") + _encode(name[len(prefix) :]) + b":")
        out.add_scope(name, scope)
        first = False


def _steps(out: _Out, steps: list[tuple[str, Scope]], empty: bytes = b"null") -> None:
    if not steps:
        out.add(empty)
        return
    separator = b"["
    for name, scope in steps:
        out.add(separator)
        out.add_scope(name, scope)
        separator = b","
    out.add(b"]")


_Steps = list[tuple[str, Scope]]


def _arrange(job: Job) -> tuple[tuple[str, Scope] | None, _Steps, _Steps, _Steps]:
    """The current step, the other open ones, the completed and the cancelled steps, each by (ts, key)."""
    phases: tuple[_Steps, _Steps, _Steps] = ([], [], [])
    for item in job.scopes.items():
        if item[0].startswith("step:"):
            phases[item[1].live[0].phase].append(item)
    for steps in phases:
        if len(steps) > 1:
            steps.sort(key=lambda item: (item[1].live[0].ts, item[0]))
    opened = phases[CURRENT]
    if opened and not finished(job):
        return opened[-1], opened[:-1], phases[1], phases[2]
    return None, opened, phases[1], phases[2]


def _conflicts(job: Job) -> bytes:
    entries = [
        entry
        for name, scope in job.scopes.items()
        if len(scope.live) > 1 and (entry := _conflict(name, scope)) is not None
    ]
    return _encode(entries) if entries else b"[]"


def _conflict(name: str, scope: Scope) -> dict[str, Any] | None:
    """What stands against the shown value, in full: equal values once, the greatest first."""
    seen = {digest(scope.live[0].phase, scope.live[0].value)}
    others: list[dict[str, Any]] = []
    more = 0
    for edit in scope.live[1:]:
        mark = digest(edit.phase, edit.value)
        if mark in seen:
            continue
        seen.add(mark)
        if len(others) == MAX_CONFLICTS:
            more += 1
            continue
        other: dict[str, Any] = {"value": msgspec.Raw(edit.value)}
        if name.startswith("step:"):
            other["phase"] = PHASE_NAMES[edit.phase]
        others.append({**other, "installId": edit.install, "time": format_time(edit.ts), "rev": edit.rev})
    if not others:
        return None
    entry: dict[str, Any] = {"scope": name, "installId": scope.live[0].install, "values": others}
    if more:
        entry["conflictsMore"] = more
    return entry
