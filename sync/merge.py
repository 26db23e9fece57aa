"""The merge: edits and one push in, edits, view and outcome out. Plain data, no clock, no database, no HTTP.

The rules are those of docs/protocol.md, "How snapshots are reconciled". In short: what a push says about
a scope is an echo of something its install already knew, or an edit. An edit supersedes the edits its
install had seen (causality, not clocks). What nothing supersedes is live; of several live edits the
greatest is shown and the others stand in ``sync.conflicts``.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sync.edits import MAX_FORMER_VALUES, SERVER, Edit, Former, Ground, Job, Mark, Scope
from sync.snapshot import CURRENT, Part
from sync.values import digest, equal, parse_time
from sync.view import completed, finished, order, render, same_view, shown_value

#: Stands for the rank of Aborted in digests: it is no rank of a status.
_ABORTED = -1
#: The status of a reopened job that never had another one than Aborted.
_RESUMED = Part(b'{"status":"InProgress","abandonReason":null}', 1)


class Push(Struct, frozen=True):
    """One push, its envelope read and its base settled.

    Attributes:
        install: the install's id, ``legacy:<userId>`` without an envelope, ``server`` for operators.
        seq: the install's counter; for legacy installs and the server any number that rises.
        base: the revision the install had seen; 0 for none.
        legacy: no envelope.
        sent_at: the device's clock at sending, microseconds.
        confirm: scopes that are edits even if they look like echoes.
        stated: scopes that this install has stated in a later push, which came first.
        header: whether header and status may change; False after a hand-over.
    """

    install: str
    seq: int
    base: int
    received_at: int
    scopes: Mapping[str, Part]
    legacy: bool = False
    created: str | None = None
    updated: str | None = None
    aborted: bool = False
    abort_value: bytes = b""
    sent_at: int | None = None
    confirm: frozenset[str] = frozenset()
    stated: frozenset[str] = frozenset()
    header: bool = True


class Merged(NamedTuple):
    """What a push did.

    Attributes:
        job: the job afterwards, rendered.
        edits: how many edits were recorded.
        changed: whether the view changed.
        stored: whether anything of the job changed, view or not, so that it must be written.
        offset: what was added to the push's times, microseconds.
    """

    job: Job
    edits: int
    changed: bool
    stored: bool
    offset: int


def apply(job: Job, push: Push) -> Merged:
    """Apply one push. A job not known before comes as one of revision 0 without scopes."""
    base = push.base
    rev = job.rev + 1
    if not job.scopes and not job.rev:
        # All of it is new. What it says alike of all scopes is said once.
        recorded = len(push.scopes)
        offset, ts, times = _times(push, push.scopes)
        ground = Ground(push.install, push.seq, base, rev, ts, times)
        after = replace(job, scopes=push.scopes, ground=ground)
    else:
        candidates = _edits(job, push)
        offset, ts, times = _times(push, candidates)
        recorded = 0
        scopes = dict(job.scopes)
        for name, part in candidates.items():
            edit = Edit(
                push.install, push.seq, base, rev, times.get(name, ts), part.phase, part.value, part.refs
            )
            scope = job.scope(name)
            if scope is None:
                scopes[name] = Scope((edit,), rev)
            elif push.legacy and not _newer_than_own(name, scope, edit):
                continue
            else:
                scopes[name] = _record(name, scope, edit, hidden=name == "status" and job.aborted is not None)
            recorded += 1
        after = replace(job, scopes=scopes) if recorded else job

    if push.header:
        after = _header_times(after, push, offset)
        after = _abort(after, push, offset, rev)
        after = _remember_legacy_status(after, push)
    if after is job and job.rev:
        return Merged(job, 0, False, False, offset)
    shown = (
        recorded
        or not job.rev
        or after.aborted is not job.aborted
        or (after.created, after.updated) != (job.created, job.updated)
    )
    if not shown:
        return Merged(after, 0, False, True, offset)
    rendered = render(replace(after, rev=rev, modified_at=push.received_at))
    if job.rev and same_view(rendered, job):
        if not recorded:
            return Merged(replace(after, rev=job.rev), 0, False, True, offset)
        # The view keeps its bytes, and so its `modified`.
        kept = replace(after, rev=rev, spans=rendered.spans, resources=rendered.resources)
        return Merged(replace(kept, missing=rendered.missing), recorded, False, True, offset)
    return Merged(rendered, recorded, True, True, offset)


def reopen(job: Job, received_at: int) -> Merged:
    """Clear the abort mark. Only this does; pushes that have not seen it cannot set it again."""
    if job.aborted is None:
        return Merged(job, 0, False, False, 0)
    rev = job.rev + 1
    after = replace(job, aborted=None, reopened=rev, rev=rev, modified_at=received_at)
    status = after.scope("status")
    if status is not None:
        status = _changed(status, rev, digest(_ABORTED, job.aborted.value))
    else:
        # Aborted before it was known: there is no status to go back to.
        edit = Edit(SERVER, rev, job.rev, rev, received_at, _RESUMED.phase, _RESUMED.value)
        status = Scope((edit,), rev)
    return Merged(render(replace(after, scopes={**after.scopes, "status": status})), 0, True, True, 0)


def files_arrived(job: Job, arrived: frozenset[str], received_at: int) -> Merged:
    """What the job refers to is stored as far as ``arrived`` says. A revision only where the view changes."""
    missing = tuple(item for item in job.resources if item not in arrived)
    if missing == job.missing:
        return Merged(job, 0, False, False, 0)
    after = replace(job, arrived=arrived, missing=missing)
    if bool(missing) == bool(job.missing):
        return Merged(after, 0, False, True, 0)
    return Merged(render(replace(after, rev=job.rev + 1, modified_at=received_at)), 0, True, True, 0)


def in_sync(job: Job, push: Push) -> bool:
    """Whether the merged job equals the snapshot sent, so that the install may raise its base without a body."""
    if push.aborted != (job.aborted is not None):
        return False
    for name in job.scopes:
        scope, part = job.scope(name), push.scopes.get(name)
        assert scope is not None
        if len(scope.live) > 1:
            return False
        if name == "exclusion" and scope.changed > push.base:
            return False  # no snapshot says it, so only one who has pulled since knows it
        if name == "exclusion" or (name == "status" and push.aborted):
            continue
        edit = scope.live[0]
        if name.startswith("step:") and edit.phase == CURRENT and finished(job):
            return False  # an open step of a finished job is not shown as the current one
        if part is None:
            if name.startswith("meta:") and edit.value == b"null":
                continue
            return False
        if not equal(edit.phase, edit.value, part.phase, part.value):
            return False
    known = (job.created and job.created[1], job.updated and job.updated[1])
    return known == (push.created, push.updated)


# Echo or edit?


def _edits(job: Job, push: Push) -> Mapping[str, Part]:
    """What of a push is no echo."""
    ground, said = job.ground, job.scopes
    # Where nobody else spoke since its base, saying the same bytes again is an echo: most of most pushes.
    repeats = (
        ground is not None
        and not push.legacy
        and not push.confirm
        and (ground.rev <= push.base or ground.install == push.install)
    )
    is_edit = _is_legacy_edit if push.legacy else _is_edit
    result: dict[str, Part] = {}
    for name, part in push.scopes.items():
        if repeats:
            known = said.get(name)
            if (
                isinstance(known, Part)
                and known.value == part.value
                and known.phase == part.phase
                and name != "status"
            ):
                continue
        if (push.header or name.startswith("step:")) and is_edit(job, push, name, part):
            result[name] = part
    return result


def _is_edit(job: Job, push: Push, name: str, part: Part) -> bool:
    """Whether an enveloped push (or an operator) changes a scope, or only repeats what it knew."""
    if name == "status" and push.install != SERVER and push.base < job.reopened:
        return False
    scope = job.scope(name)
    if scope is None:
        # What nobody has said is shown as null or not at all; saying that again is an echo.
        return push.base == 0 or part.value != b"null" or name.startswith("meta:")
    own = scope.written_by(push.install)
    if own is not None and own.seq >= push.seq:
        return False
    if name in push.stated:
        return False
    if name in push.confirm:
        return True
    if own is not None and own.rev > push.base:
        # It wrote here after it last looked: what it wrote is what it knows.
        if isinstance(own, Edit):
            return not equal(own.phase, own.value, part.phase, part.value)
        return own.digest != digest(part.phase, part.value)
    if scope.changed > push.base:
        return scope.shown_at(push.base) != digest(part.phase, part.value)
    if name == "status" and job.aborted is not None:
        return True  # the view showed Aborted, and this says otherwise
    return not equal(scope.live[0].phase, shown_value(scope), part.phase, part.value)


def _is_legacy_edit(job: Job, push: Push, name: str, part: Part) -> bool:
    """Whether a snapshot without an envelope may change a scope: not with anything ever seen there."""
    if name == "status":
        return job.legacy_status.get(push.install) != digest(part.phase, part.value)
    scope = job.scope(name)
    if scope is None:
        return True
    if any(equal(edit.phase, edit.value, part.phase, part.value) for edit in scope.live):
        return False
    if len(scope.live) > 1 and equal(scope.live[0].phase, shown_value(scope), part.phase, part.value):
        return False  # shown with its siblings' ids
    if not scope.shown and not scope.unshown:
        return True
    mark = digest(part.phase, part.value)
    return mark not in scope.unshown and all(mark != former for _, former in scope.shown)


def _newer_than_own(name: str, scope: Scope, edit: Edit) -> bool:
    """A legacy edit counts only if greater than the greatest this legacy install ever had there."""
    own = scope.written_by(edit.install)
    if own is None:
        return True
    if name == "status":
        return (edit.phase, edit.ts) > (own.phase, own.ts)
    return (edit.ts, edit.phase) > (own.ts, own.phase)


# Time


def _times(push: Push, edits: Mapping[str, Part]) -> tuple[int, int, dict[str, int]]:
    """The offset of the device's clock; the corrected time of edits without one of their own, and of the others.

    Over this push's edits only: echoes carry other devices' times. Never later than the receipt.
    """
    received = push.received_at
    if push.install == SERVER:
        return 0, received, {}
    raw: dict[str, int] = {}
    for name, part in edits.items():
        if part.time is not None:
            time = parse_time(part.time)
            if time is not None:
                raw[name] = time
    newest = max(raw.values(), default=None)
    fallback = _time(push.updated)
    if fallback is None:
        fallback = newest
    elif len(raw) < len(edits) and (newest is None or fallback > newest):
        newest = fallback
    if push.sent_at is not None:
        offset = received - push.sent_at
    else:
        offset = 0 if newest is None else min(0, received - newest)
    ts = received if fallback is None else min(fallback + offset, received)
    return offset, ts, {name: min(time + offset, received) for name, time in raw.items()}


def _time(text: str | None) -> int | None:
    return None if text is None else parse_time(text)


def _header_times(job: Job, push: Push, offset: int) -> Job:
    """``created`` of the push with the least corrected time, ``updated`` of the one with the greatest."""
    created, updated = job.created, job.updated
    for text, is_created in ((push.created, True), (push.updated, False)):
        raw = _time(text)
        known = created if is_created else updated
        if text is None or raw is None:
            continue
        if known is not None and push.base and raw == _time(known[1]):
            continue  # an echo of what it was shown; its time is another device's
        value = (min(raw + offset, push.received_at), text)
        if known is None or (value < known if is_created else value > known):
            if is_created:
                created = value
            else:
                updated = value
    if created == job.created and updated == job.updated:
        return job
    return replace(job, created=created, updated=updated)


# Recording


def _record(name: str, scope: Scope, edit: Edit, hidden: bool) -> Scope:
    """``scope`` with ``edit``, less what it supersedes. ``hidden``: the abort mark stands before it."""
    live = [edit]
    formers = scope.formers
    unshown = scope.unshown
    winner, was = scope.live[0], shown_value(scope)
    for other in scope.live:
        if (other.install == edit.install and other.seq < edit.seq) or other.rev <= edit.base:
            mark = digest(other.phase, other.value)
            known = next((former for former in formers if former.install == other.install), None)
            if known is None or known.seq < other.seq:
                formers = (
                    *(former for former in formers if former is not known),
                    Former(other.install, other.seq, other.rev, other.ts, other.phase, mark),
                )
            if other is not winner or other.value is not was:
                unshown = (*unshown, mark)[-MAX_FORMER_VALUES:]
        else:
            live.append(other)
    if len(live) > 1:
        live.sort(key=lambda item: order(name, item), reverse=True)
    after = Scope(tuple(live), scope.changed, formers, scope.shown, unshown)
    if hidden or equal(winner.phase, was, live[0].phase, shown_value(after)):
        return after
    return _changed(after, edit.rev, digest(winner.phase, was))


def _changed(scope: Scope, rev: int, was: bytes) -> Scope:
    """``scope`` showing something else from ``rev`` on than the value of the digest ``was``."""
    return replace(scope, changed=rev, shown=(*scope.shown, (scope.changed, was))[-MAX_FORMER_VALUES:])


def _abort(job: Job, push: Push, offset: int, rev: int) -> Job:
    """Set the abort mark: by any accepted Aborted, also before the job is known."""
    if not push.aborted:
        return job
    if push.legacy:
        if job.legacy_status.get(push.install) == digest(_ABORTED, push.abort_value):
            return job
    elif push.install != SERVER and push.base < job.reopened:
        return job
    raw = _time(push.updated)
    ts = push.received_at if raw is None else min(raw + offset, push.received_at)
    mark = Mark(ts, push.install, push.abort_value)
    known = job.aborted
    if known is not None and (
        equal(0, known.value, 0, mark.value) or (known.ts, known.install) >= (mark.ts, mark.install)
    ):
        return job
    job = replace(job, aborted=mark)
    status = job.scope("status")
    if known is None and status is not None:
        was = digest(status.live[0].phase, status.live[0].value)
        job = replace(job, scopes={**job.scopes, "status": _changed(status, rev, was)})
    return job


def _remember_legacy_status(job: Job, push: Push) -> Job:
    if not push.legacy:
        return job
    part = push.scopes.get("status")
    if push.aborted:
        mark = digest(_ABORTED, push.abort_value)
    elif part is not None:
        mark = digest(part.phase, part.value)
    else:
        return job
    if job.legacy_status.get(push.install) == mark:
        return job
    return replace(job, legacy_status={**job.legacy_status, push.install: mark})


# What happened


def events(before: Job | None, after: Job, changed: bool) -> list[str]:
    """The types of the events that a change of the view fires."""
    if not changed:
        return []
    result = ["job.created" if before is None or before.rev == 0 else "job.updated"]
    was_completed = before is not None and completed(before)
    if completed(after) and not was_completed:
        result.append("job.completed")
    if after.aborted is not None and (before is None or before.aborted is None):
        result.append("job.aborted")
    return result


def media_completed(job: Job) -> bool:
    """Whether it is time for ``job.mediaComplete``: completed, every file there, and not said before."""
    return not job.media_complete and not job.missing and completed(job)
