"""The view: the merged job that everybody is shown, a pure function of the edits.

Its members stand in the order of the specification's examples; unknown ones follow. Raw values are
copied, never decoded and encoded again, but for the two id lists of a step in conflict.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from sync.edits import SERVER, Edit, Job, Scope
from sync.rules import NO_RULES, flags
from sync.snapshot import CANCELLED, COMPLETED, CURRENT, FINISHED_RANK, NO_REFS, Part, resource_ids
from sync.values import digest, format_time

PHASE_NAMES = ("current", "completed", "cancelled")
MAX_CONFLICTS = 8

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


def _refs(said: Part | Scope) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return said.refs if isinstance(said, Part) else shown_refs(said)


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


def status_value(job: Job) -> bytes:
    """The raw object of status and abandonReason as shown, or ``null``."""
    if job.aborted is not None:
        return job.aborted.value
    return _shown(job.scopes, "status")


def finished(job: Job) -> bool:
    """Completed, Abandoned or Aborted."""
    return job.aborted is not None or completed(job)


def completed(job: Job) -> bool:
    """Completed or Abandoned, and not Aborted."""
    if job.aborted is not None:
        return False
    status = job.shown_in("status")
    return status is not None and status.phase >= FINISHED_RANK


def is_excluded(job: Job) -> bool:
    """Whether a supervisor took the job out of what is evaluated (section 6.10)."""
    return _raw_members(_shown(job.scopes, "exclusion")).get("excluded") == b"true"


def text_of(job: Job, scope_name: str, member: str | None = None) -> str | None:
    """The string shown in a scope other than a step's (or in one member of it), or None."""
    shown = job.shown_in(scope_name)
    if shown is None:
        return None
    value = msgspec.json.decode(shown.value)
    if member is not None:
        value = value.get(member)
    return value if isinstance(value, str) else None


_HEAD_FIRST = ("workflowId", "workflowVersionId", "jobTitle")
_TOP_FIRST = ("hierarchyStack", "packetIds")
#: Scopes whose place in the document is fixed.
_PLACED = frozenset(
    (
        *(f"head:{key}" for key in (*_HEAD_FIRST, "workflowName", "abandonReason")),
        *(f"top:{key}" for key in _TOP_FIRST),
        *("status", "assignee", "exclusion"),
    )
)

#: (corrected time, scope, what was said there): the order of steps in a list.
_Step = tuple[int, str, Part | Scope]


def render(job: Job) -> Job:
    """``job`` with its view made anew. ``modified_at`` is shown as it is given."""
    ground, scopes = job.ground, job.scopes
    meta: list[bytes] = []
    head: list[bytes] = []
    top: list[bytes] = []
    lists: tuple[list[_Step], list[_Step], list[_Step]] = ([], [], [])
    contested: list[tuple[str, Scope]] = []
    referring: list[Part | Scope] = []
    for name, said in scopes.items():
        shown: Part | Edit
        if isinstance(said, Part):
            shown = said
        else:
            shown = said.live[0]
            if len(said.live) > 1:
                contested.append((name, said))
        if name.startswith("step:"):
            if isinstance(shown, Edit):
                ts = shown.ts
            else:
                assert ground is not None
                ts = ground.times.get(name, ground.ts)
            lists[shown.phase].append((ts, name, said))
            if shown.refs != NO_REFS or isinstance(said, Scope):
                referring.append(said)
        elif name not in _PLACED:
            kind, key = _member(name)
            if kind == "top":
                top.append(b",%s:%s" % (key, shown.value))
            elif kind == "head":
                head.append(b",%s:%s" % (key, shown.value))
            elif shown.value != b"null":  # an explicit null takes a metadata key away
                meta.append(b"%s:%s" % (key, shown.value))
    for steps in lists:
        if len(steps) > 1:
            steps.sort()  # a scope stands in one list once, so that what was said is never compared
    status = _raw_members(status_value(job))
    assignee = _raw_members(_shown(scopes, "assignee"))
    exclusion = _raw_members(_shown(scopes, "exclusion"))
    opened = lists[CURRENT]
    current = opened.pop() if opened and not finished(job) else None
    reason = status.get("abandonReason", b"null")
    if reason == b"null":
        reason = _shown(scopes, "head:abandonReason")
    resources = resource_ids(map(_refs, referring)) if referring else ()
    missing = tuple(item for item in resources if item not in job.arrived)

    out = _Out()
    out.add(
        b'{"jobId":"%s","metadata":{"clientJobId":%s,"workflowId":%s,"workflowVersionId":%s,"jobTitle":%s,'
        b'"metadata":{%s},"created":%s,"updated":%s,"modified":'
        % (
            job.job_id.encode(),
            _encode(job.client_job_id),
            _shown(scopes, "head:workflowId"),
            _shown(scopes, "head:workflowVersionId"),
            _shown(scopes, "head:jobTitle"),
            b",".join(meta),
            _encode(job.created[1]) if job.created else b"null",
            _encode(job.updated[1]) if job.updated else b"null",
        )
    )
    stamp = b'"%s"' % format_time(job.modified_at).encode()
    modified = (out.size, out.size + len(stamp))
    out.add(
        b'%s,"status":%s,"userId":%s,"currentStep":'
        % (
            stamp,
            status.get("status", b"null"),
            assignee.get("userId", b"null"),
        )
    )
    if current is None:
        out.add(b"null")
    else:
        out.add_step(current)
    out.add(
        b',"abandonReason":%s,"username":%s,"workflowName":%s%s},"completedSteps":'
        % (
            reason,
            assignee.get("username", b"null"),
            _shown(scopes, "head:workflowName"),
            b"".join(head),
        )
    )
    out.add_steps(lists[COMPLETED], b"null")
    out.add(b',"cancelledSteps":')
    out.add_steps(lists[CANCELLED], b"null")
    # `sync` stands last, and is closed by the last two bytes: an answer adds its own members before them.
    out.add(
        b',"team":%s,"hierarchyStack":%s,"packetIds":%s,"jobExclusion":%s,"excluded":%s%s'
        b',"sync":{"conflicts":%s,"openSteps":'
        % (
            _encode(job.team),
            _shown(scopes, "top:hierarchyStack"),
            _shown(scopes, "top:packetIds"),
            exclusion.get("jobExclusion", b"[]"),
            exclusion.get("excluded", b"false"),
            b"".join(top),
            _conflicts(contested) if contested else b"[]",
        )
    )
    out.add_steps(opened, b"[]")
    if job.rules is not NO_RULES:
        title = _shown(scopes, "head:jobTitle")
        flagged = flags(job.rules, status.get("status", b"null"), reason, title, _restarted(job))
        if flagged:
            out.add(b',"flags":%s' % _encode(flagged))
    out.add(b',"attachmentsComplete":false}}' if missing else b',"attachmentsComplete":true}}')
    return replace(
        job,
        view=b"".join(out.pieces),
        spans=out.spans,
        modified=modified,
        resources=resources,
        missing=missing,
    )


def _restarted(job: Job) -> bool:
    """Whether an incomplete status has superseded a finished one."""
    status = job.scopes.get("status")
    return (
        isinstance(status, Scope)
        and status.live[0].phase < FINISHED_RANK
        and any(former.phase >= FINISHED_RANK for former in status.formers)
    )


@lru_cache(maxsize=4096)
def _member(name: str) -> tuple[str, bytes]:
    """The kind of a scope that is a member of its own, and its key as JSON."""
    kind, _, key = name.partition(":")
    return kind, _encode(key)


class _Out:
    """Collects the document, and where the values stand that are kept nowhere else."""

    __slots__ = ("pieces", "size", "spans")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.spans: dict[str, tuple[int, int]] = {}

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.size += len(piece)

    def add_step(self, step: _Step) -> None:
        _, name, said = step
        if isinstance(said, Part):
            value = kept = said.value
        else:
            value, kept = shown_value(said), said.live[0].value
        if value is kept:
            self.spans[name] = (self.size, self.size + len(value))
        self.add(value)

    def add_steps(self, steps: list[_Step], empty: bytes) -> None:
        if not steps:
            self.add(empty)
            return
        separator = b"["
        for step in steps:
            self.add(separator)
            self.add_step(step)
            separator = b","
        self.add(b"]")


def _shown(scopes: Mapping[str, Part | Scope], name: str) -> bytes:
    said = scopes.get(name)
    if said is None:
        return b"null"
    return said.value if isinstance(said, Part) else said.live[0].value


def same_view(rendered: Job, other: Job) -> bool:
    """Whether a job just rendered shows the same as another, ``modified`` aside."""
    start, end = rendered.modified
    mine, theirs = rendered.view, other.view
    return len(mine) == len(theirs) and mine[:start] == theirs[:start] and mine[end:] == theirs[end:]


@lru_cache(maxsize=1024)
def _raw_members(value: bytes) -> Mapping[str, bytes]:
    if value == b"null":
        return {}
    return {key: bytes(raw) for key, raw in _members.decode(value).items()}


def _conflicts(contested: list[tuple[str, Scope]]) -> bytes:
    entries = [entry for name, scope in contested if (entry := _conflict(name, scope)) is not None]
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
