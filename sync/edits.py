"""A job as it is merged: the edits of every scope, and their stored form.

A job row holds two blobs. ``view`` is the merged document as clients read it. ``edits`` is everything
else that merging needs; where an edit's value stands in the view, it holds the place instead of a second
copy (fewer WAL bytes for each push, measured in docs/performance.md).
"""

from typing import Any

import msgspec

from sync.snapshot import NO_REFS, Refs

FORMAT = 1
SERVER = "server"
#: How many former values of a scope an echo is recognised by. An echo of an older one becomes a false
#: conflict, never a loss.
MAX_FORMER_VALUES = 256
#: Shorter values are kept in place: a reference would not be smaller.
_MIN_SPAN = 16

_packer = msgspec.msgpack.Encoder()
_unpack = msgspec.msgpack.Decoder().decode


class Edit(msgspec.Struct, frozen=True, gc=False):
    """What one install said about one scope in one push.

    Attributes:
        seq: the push's number, counted by the install.
        base: the revision that the install had seen.
        rev: the revision that recorded it.
        ts: corrected time, microseconds.
        phase: of a step its phase, of ``status`` its rank.
    """

    install: str
    seq: int
    base: int
    rev: int
    ts: int
    phase: int
    value: bytes
    refs: Refs = NO_REFS


class Former(msgspec.Struct, frozen=True, gc=False):
    """The last superseded edit of an install in a scope: what it is remembered to have written."""

    install: str
    seq: int
    rev: int
    ts: int
    phase: int
    digest: bytes


class Scope(msgspec.Struct, frozen=True):
    """One independently merged part of a job.

    Attributes:
        live: edits that no other supersedes, greatest first: the first one is shown.
        changed: the revision at which what the view shows of it last changed.
        formers: of each install its last superseded edit.
        shown: (revision, digest) of what was shown before, from that revision on; oldest first.
        unshown: digests of superseded values that were written here and never shown.
    """

    live: tuple[Edit, ...]
    changed: int
    formers: tuple[Former, ...] = ()
    shown: tuple[tuple[int, bytes], ...] = ()
    unshown: tuple[bytes, ...] = ()

    def shown_at(self, rev: int) -> bytes | None:
        """The digest of what was shown at ``rev``, before the present value; None if nothing was."""
        for since, mark in reversed(self.shown):
            if since <= rev:
                return mark
        return None

    def written_by(self, install: str) -> Edit | Former | None:
        """What ``install`` last wrote here, live or superseded."""
        for edit in self.live:
            if edit.install == install:
                return edit
        for former in self.formers:
            if former.install == install:
                return former
        return None


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The abort mark. ``value`` holds the raw status and abandonReason that set it."""

    ts: int
    install: str
    value: bytes


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A merged job: plain data, never changed in place.

    Attributes:
        rev: the revision; rises with every recorded edit and every change of the view.
        created, updated: (corrected time, raw text) of the snapshot with the least and the greatest.
        aborted: the abort mark.
        reopened: the revision of the last reopen; 0: never.
        legacy_status: legacy install -> digest of the status it last sent.
        pushed: install -> the greatest pushSeq applied to this job.
        writers: users who created the job or were ever assigned it.
        modified_at: when the view last changed.
        view: the document shown; ``spans`` says where shown values stand in it, ``resources`` which
            photos and files it refers to (None: not looked up yet).
    """

    job_id: str
    client_job_id: str
    team: str
    created_by: str
    rev: int
    scopes: dict[str, Scope]
    created: tuple[int, str] | None = None
    updated: tuple[int, str] | None = None
    aborted: Mark | None = None
    reopened: int = 0
    legacy_status: dict[str, bytes] = {}
    pushed: dict[str, int] = {}
    writers: tuple[str, ...] = ()
    created_at: int = 0
    modified_at: int = 0
    view: bytes = b""
    spans: dict[str, tuple[int, int]] = {}
    resources: tuple[str, ...] | None = None


def pack(job: Job) -> bytes:
    """The stored form of everything but the view."""
    installs: dict[str, int] = {}
    stamps: dict[tuple[str, int, int, int], int] = {}
    rows: list[Any] = []
    spans = job.spans
    for name, scope in job.scopes.items():
        live: list[Any] = []
        for edit in scope.live:
            stamp = (edit.install, edit.seq, edit.base, edit.rev)
            place = stamps.get(stamp)
            if place is None:
                place = stamps[stamp] = len(stamps)
                installs.setdefault(edit.install, len(installs))
            value: Any = edit.value
            if not live and len(value) >= _MIN_SPAN:
                value = spans.get(name, value)
            live.append((place, edit.ts, edit.phase, value, None if edit.refs is NO_REFS else edit.refs))
        if not scope.formers:
            rows.append((name, scope.changed, live, None, scope.shown or None, None))
            continue
        former = [
            (
                installs.setdefault(last.install, len(installs)),
                last.seq,
                last.rev,
                last.ts,
                last.phase,
                last.digest,
            )
            for last in scope.formers
        ]
        rows.append((name, scope.changed, live, former, scope.shown or None, scope.unshown or None))
    mark = job.aborted
    return _packer.encode(
        (
            (job.team, job.created_by, job.created, job.updated),
            (
                job.reopened,
                (mark.ts, mark.install, mark.value) if mark else None,
                job.legacy_status,
                job.writers,
                job.pushed,
            ),
            tuple(installs),
            [(installs[install], seq, base, rev) for install, seq, base, rev in stamps],
            rows,
        )
    )


def unpack(
    edits: bytes, view: bytes, *, job_id: str, client_job_id: str, rev: int, created_at: int, modified_at: int
) -> Job:
    """The job of a stored row."""
    (
        (team, created_by, created, updated),
        (reopened, mark, legacy, writers, pushed),
        installs,
        stamps,
        rows,
    ) = _unpack(edits)
    spans: dict[str, tuple[int, int]] = {}
    scopes: dict[str, Scope] = {}
    for name, changed, live_rows, former_rows, shown, unshown in rows:
        live = []
        for place, ts, phase, value, refs in live_rows:
            install, seq, base, edit_rev = stamps[place]
            if type(value) is list:
                start, end = value
                spans[name] = (start, end)
                value = view[start:end]
            live.append(
                Edit(
                    installs[install],
                    seq,
                    base,
                    edit_rev,
                    ts,
                    phase,
                    value,
                    Refs(tuple(refs[0]), tuple(refs[1])) if refs else NO_REFS,
                )
            )
        formers = tuple(
            Former(installs[install], seq, former_rev, ts, phase, digest)
            for install, seq, former_rev, ts, phase, digest in former_rows or ()
        )
        scopes[name] = Scope(
            tuple(live),
            changed,
            formers,
            tuple((since, mark) for since, mark in shown or ()),
            tuple(unshown or ()),
        )
    return Job(
        job_id=job_id,
        client_job_id=client_job_id,
        team=team,
        created_by=created_by,
        rev=rev,
        scopes=scopes,
        created=tuple(created) if created else None,
        updated=tuple(updated) if updated else None,
        aborted=Mark(*mark) if mark else None,
        reopened=reopened,
        legacy_status=legacy,
        pushed=pushed,
        writers=tuple(writers),
        created_at=created_at,
        modified_at=modified_at,
        view=view,
        spans=spans,
    )
