"""A job as it is merged: the edits of every scope, and their stored form.

A job row holds two blobs. ``view`` is the merged document as clients read it. ``edits`` is everything
else that merging needs; where an edit's value stands in the view, it holds the place instead of a second
copy (fewer WAL bytes for each push, measured in docs/performance.md).

Most scopes of most jobs were said once, by the push that made the job. Their edits differ in nothing but
the value, so they are kept as the parts that were sent and one :class:`Ground`, and become edits only when
somebody says something else there.
"""

from collections.abc import Mapping

import msgspec

from sync.rules import NO_RULES, Rules
from sync.snapshot import NO_REFS, Part, Refs

FORMAT = 1
SERVER = "server"
#: How many former values of a scope an echo is recognised by. An echo of an older one becomes a false
#: conflict, never a loss.
MAX_FORMER_VALUES = 256


class Edit(msgspec.Struct, frozen=True, array_like=True, gc=False):
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


class Former(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The last superseded edit of an install in a scope: what it is remembered to have written."""

    install: str
    seq: int
    rev: int
    ts: int
    phase: int
    digest: bytes


class Ground(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the parts of a job's first push have in common, as long as nothing else was said there.

    Attributes:
        install, seq, base, rev: as of an :class:`Edit`.
        ts: corrected time of the parts without a time of their own.
        times: scope -> corrected time of the others.
    """

    install: str
    seq: int
    base: int
    rev: int
    ts: int
    times: dict[str, int]

    def edit(self, name: str, part: Part) -> Edit:
        """The edit that ``part`` stands for."""
        ts = self.times.get(name, self.ts)
        return Edit(self.install, self.seq, self.base, self.rev, ts, part.phase, part.value, part.refs)


class Scope(msgspec.Struct, frozen=True, array_like=True, tag=1):
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


class Mark(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The abort mark. ``value`` holds the raw status and abandonReason that set it."""

    ts: int
    install: str
    value: bytes


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A merged job: plain data, never changed in place.

    Attributes:
        rev: the revision; rises with every recorded edit and every change of the view.
        scopes: scope -> what was said there; a part as it was sent stands for the one edit of the ``ground``.
        created, updated: (corrected time, raw text) of the snapshot with the least and the greatest.
        aborted: the abort mark.
        reopened: the revision of the last reopen; 0: never.
        legacy_status: legacy install -> digest of the status it last sent.
        pushed: install -> the greatest pushSeq applied to this job.
        writers: users who created the job or were ever assigned it.
        modified_at: when the view last changed.
        view: the document shown. ``spans`` says where in it the values of shown steps stand, ``modified``
            where its own `modified` stands.
        resources: ids of the photos and files that the view refers to.
        missing: those of them that have not arrived.
        arrived: ids of files that are known to be stored; what rendering takes ``missing`` from.
        media_complete: whether the event of that name was written.
        rules: what the team's settings ask of it, for rendering; not stored.
    """

    job_id: str
    client_job_id: str
    team: str
    created_by: str
    rev: int
    scopes: Mapping[str, Part | Scope]
    ground: Ground | None = None
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
    modified: tuple[int, int] = (0, 0)
    resources: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    arrived: frozenset[str] = frozenset()
    media_complete: bool = False
    rules: Rules = NO_RULES

    def scope(self, name: str) -> Scope | None:
        """What was said in a scope, with its edits; None if nothing was."""
        found = self.scopes.get(name)
        if isinstance(found, Part):
            assert self.ground is not None
            return Scope((self.ground.edit(name, found),), self.ground.rev)
        return found

    def shown_in(self, name: str) -> Part | Edit | None:
        """What is shown of a scope that shows no sibling's ids; None if nothing was said there."""
        found = self.scopes.get(name)
        return found.live[0] if isinstance(found, Scope) else found


class _Stored(msgspec.Struct, array_like=True, gc=False):
    """Everything of a job that neither its row's columns nor its view hold."""

    team: str
    created_by: str
    created: tuple[int, str] | None
    updated: tuple[int, str] | None
    aborted: Mark | None
    reopened: int
    legacy_status: dict[str, bytes]
    pushed: dict[str, int]
    writers: tuple[str, ...]
    ground: Ground | None
    scopes: dict[str, Part | Scope]
    spans: dict[str, tuple[int, int]]
    resources: tuple[str, ...]
    missing: tuple[str, ...]
    media_complete: bool


_packer = msgspec.msgpack.Encoder()
_stored = msgspec.msgpack.Decoder(_Stored)


def pack(job: Job) -> bytes:
    """The stored form of everything but the view."""
    scopes = dict(job.scopes)
    for name in job.spans:
        scopes[name] = _with_value(scopes[name], b"")
    return _packer.encode(
        _Stored(
            job.team,
            job.created_by,
            job.created,
            job.updated,
            job.aborted,
            job.reopened,
            job.legacy_status,
            job.pushed,
            job.writers,
            job.ground,
            scopes,
            job.spans,
            job.resources,
            job.missing,
            job.media_complete,
        )
    )


def unpack(
    edits: bytes, view: bytes, *, job_id: str, client_job_id: str, rev: int, created_at: int, modified_at: int
) -> Job:
    """The job of a stored row."""
    stored = _stored.decode(edits)
    scopes = stored.scopes
    for name, (start, end) in stored.spans.items():
        scopes[name] = _with_value(scopes[name], view[start:end])
    return Job(
        job_id=job_id,
        client_job_id=client_job_id,
        team=stored.team,
        created_by=stored.created_by,
        rev=rev,
        scopes=scopes,
        ground=stored.ground,
        created=stored.created,
        updated=stored.updated,
        aborted=stored.aborted,
        reopened=stored.reopened,
        legacy_status=stored.legacy_status,
        pushed=stored.pushed,
        writers=stored.writers,
        created_at=created_at,
        modified_at=modified_at,
        view=view,
        spans=stored.spans,
        resources=stored.resources,
        missing=stored.missing,
        arrived=frozenset(stored.resources).difference(stored.missing) if stored.resources else frozenset(),
        media_complete=stored.media_complete,
    )


def _with_value(said: Part | Scope, value: bytes) -> Part | Scope:
    """``said`` with another value shown."""
    if isinstance(said, Part):
        return Part(value, said.phase, None, said.refs)
    shown = said.live[0]
    edit = Edit(shown.install, shown.seq, shown.base, shown.rev, shown.ts, shown.phase, value, shown.refs)
    return Scope((edit, *said.live[1:]), said.changed, said.formers, said.shown, said.unshown)
