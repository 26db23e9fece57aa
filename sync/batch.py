"""One transaction: a batch of pushes and operators' changes, applied in the order they came.

In this order: lock and read the jobs touched; merge in memory; write history, jobs, replay rows, events
and quarantine; last, bump the team's feed head and stamp each changed job once. Written against the
synchronous Core connection, so that SQLite (in its writer thread) and PostgreSQL share it.
"""

import hashlib
from collections.abc import Mapping
from itertools import groupby

from msgspec.structs import replace

from storage.database import Connection
from storage.ids import is_attachment_id, new_id
from storage.queries import attachment_references as reference_queries
from storage.queries import feed as feed_queries
from storage.queries import jobs as job_queries
from storage.queries import pushes as push_queries
from storage.queries import snapshots as snapshot_queries
from storage.queries.pushes import PushWrite
from storage.queries.snapshots import SnapshotWrite
from sync import merge
from sync.bodies import decompress
from sync.edits import SERVER, Job, unpack
from sync.errors import Conflict, Forbidden, Gone, NotFound, PreconditionFailed, SyncError
from sync.etag import format_etag, matches, parse_etag
from sync.items import Action, Applied, ChangeItem, Item, PushItem, RefusedItem, Result
from sync.rules import NO_RULES, rules_of
from sync.snapshot import Part, Snapshot, parse
from sync.values import same_document
from sync.view import completed, finished, text_of
from sync.writes import Working, Writes, does_task


def apply_batch(connection: Connection, items: list[Item]) -> list[Result]:
    """Apply ``items`` in one transaction; answer each one's result in the same order.

    A refusal is a result, not an exception: it leaves no trace but quarantine, and its neighbours are
    applied. An exception is the whole transaction's.
    """
    results: dict[int, Result] = {}
    numbered = sorted(enumerate(items), key=lambda pair: pair[1].caller.team_id)
    for team_id, group in groupby(numbered, key=lambda pair: pair[1].caller.team_id):
        batch = _TeamBatch(connection, team_id)
        results.update(batch.run(list(group)))
    return [results[index] for index in range(len(items))]


class _TeamBatch:
    def __init__(self, connection: Connection, team_id: int) -> None:
        self.connection = connection
        self.team_id = team_id
        self.incarnation, settings, wanted = feed_queries.team(connection, team_id)
        self.rules = rules_of(settings)
        self.jobs: dict[str, Working] = {}
        self.known_pushes: dict[tuple[str, int], tuple[bytes, str]] = {}
        self.known_bodies: set[tuple[str, bytes]] = set()
        self.expected: set[str] = set()
        self.arrived: frozenset[str] = frozenset()
        self.writes = Writes(team_id, wanted)

    def run(self, numbered: list[tuple[int, Item]]) -> dict[int, Result]:
        items = [item for _, item in numbered]
        self._read(items)
        results: dict[int, Result] = {}
        for index, item in numbered:
            try:
                if isinstance(item, PushItem):
                    results[index] = self._push(item)
                elif isinstance(item, ChangeItem):
                    results[index] = self._change(item)
                else:
                    raise item.error
            except SyncError as error:
                if error.quarantine and not isinstance(item, ChangeItem):
                    self.writes.refuse(item, error)
                    error.extra.setdefault("quarantined", True)
                results[index] = error
        self.writes.write(self.connection, self.jobs, self.expected)
        return results

    # Reading

    def _read(self, items: list[Item]) -> None:
        wanted = sorted({item.client_job_id for item in items if not isinstance(item, RefusedItem)})
        if not wanted:
            return
        for row in job_queries.lock(self.connection, self.team_id, wanted):
            job = None
            if row.deleted_at is None:
                job = unpack(
                    row.edits,
                    row.view,
                    job_id=row.job_id,
                    client_job_id=row.client_job_id,
                    rev=row.rev,
                    created_at=row.created_at,
                    modified_at=row.modified_at,
                )
                if self.rules is not NO_RULES:
                    job = replace(job, rules=self.rules)
            self.jobs[row.client_job_id] = Working(
                job,
                owner_id=row.owner_id,
                deleted_at=row.deleted_at,
                tombstone_rev=row.rev,
                job_id=row.job_id,
                created_at=row.created_at,
            )
        self.writes.received_at = max(item.received_at for item in items)
        pushes = [item.snapshot for item in items if isinstance(item, PushItem)]
        self._expect_files(pushes)
        numbers = [
            (snapshot.install_id, snapshot.push_seq) for snapshot in pushes if snapshot.install_id is not None
        ]
        if numbers:
            for push in push_queries.known(self.connection, self.team_id, numbers):
                self.known_pushes[push.install_id, push.push_seq] = (
                    bytes(push.body_hash),
                    push.client_job_id,
                )
        legacy = [
            (self.jobs[snapshot.client_job_id].job_id, snapshot.body_hash)
            for snapshot in pushes
            if snapshot.install_id is None and snapshot.client_job_id in self.jobs
        ]
        if legacy:
            self.known_bodies = snapshot_queries.known(
                self.connection, self.team_id, [job_id for job_id, _ in legacy], [name for _, name in legacy]
            )

    def _expect_files(self, pushes: list[Snapshot]) -> None:
        """Make known which files the pushes bring up, and find which of them are here already."""
        for snapshot in pushes:
            resources = snapshot.resources()
            if resources:
                working = self.jobs.get(snapshot.client_job_id)
                known = working.job.resources if working and working.job else ()
                self.expected.update(filter(is_attachment_id, set(resources).difference(known)))
        if self.expected:
            self.arrived = frozenset(
                reference_queries.expect(
                    self.connection, self.team_id, list(self.expected), self.writes.received_at
                )
            )

    # Pushes

    def _push(self, item: PushItem) -> Applied:
        snapshot, caller = item.snapshot, item.caller
        working = self.jobs.get(snapshot.client_job_id)
        job = working.job if working else None
        if job is not None and caller.own_work_only and caller.subject_id not in job.writers:
            raise Forbidden(
                "not-your-job", "This job was never yours: you did not create it and were never assigned it."
            )
        replayed = self._replay(item, working)
        if replayed is not None:
            return replayed
        if item.if_match is not None:
            self._check_match(item.if_match, job)
        if working is not None and working.deleted_at is not None:
            raise Gone("job-deleted", "This job was deleted. The snapshot is kept for an administrator.")
        base, reset = self._base(snapshot, job)
        if job is None:
            job = self._new_job(item)
            working = self.jobs[snapshot.client_job_id] = Working(
                job, owner_id=caller.subject_id, job_id=job.job_id, created_at=item.received_at
            )
        assert working is not None
        legacy = snapshot.install_id is None
        push = merge.Push(
            install=snapshot.install_id or f"legacy:{caller.subject_id}",
            seq=job.rev + 1 if legacy else snapshot.push_seq,
            base=base,
            received_at=item.received_at,
            scopes=snapshot.scopes,
            legacy=legacy,
            created=snapshot.created,
            updated=snapshot.updated,
            aborted=snapshot.aborted,
            abort_value=snapshot.abort_value,
            sent_at=snapshot.sent_at,
            confirm=snapshot.confirm,
            stated=self._stated(snapshot, working, job),
            # After a hand-over a field worker's steps still merge, and nothing else.
            header=not (caller.own_work_only and job.rev and working.owner_id != caller.subject_id),
        )
        if self.arrived:
            job = replace(job, arrived=job.arrived | self.arrived)
        merged = merge.apply(job, push)
        if not legacy and job.pushed.get(push.install, 0) < push.seq:
            # Known even of a push that changed nothing, so that one it overtook is known to be late.
            pushed = {**merged.job.pushed, push.install: push.seq}
            merged = merged._replace(job=replace(merged.job, pushed=pushed), stored=True)
        self._take(working, job, merged, item.received_at)
        after = working.job
        assert after is not None
        self._keep_body(working, push, snapshot.body, snapshot.body_hash, merged.offset)
        if not legacy:
            self.known_pushes[push.install, push.seq] = (snapshot.body_hash, snapshot.client_job_id)
            self.writes.pushes.append(
                PushWrite(
                    self.team_id,
                    push.install,
                    push.seq,
                    snapshot.client_job_id,
                    snapshot.body_hash,
                    after.rev,
                    item.received_at,
                    merged.offset,
                )
            )
        else:
            self.known_bodies.add((working.job_id, snapshot.body_hash))
        return Applied(
            _action(job, push, merged),
            after,
            after.rev,
            self.incarnation,
            item.received_at,
            offset=merged.offset,
            reset=reset,
            push=push,
            warnings=self.rules.warnings(merged.offset),
        )

    def _replay(self, item: PushItem, working: Working | None) -> Applied | None:
        """The answer to a body known before; comes before preconditions and before the 410 of a deleted job."""
        snapshot = item.snapshot
        if snapshot.install_id is not None:
            known = self.known_pushes.get((snapshot.install_id, snapshot.push_seq))
            if known is None:
                return None
            if known != (snapshot.body_hash, snapshot.client_job_id) and not self._respelled(
                snapshot, working, known
            ):
                raise Conflict(
                    "install-cloned",
                    "Another body came under this installId and pushSeq: two devices share an identity. "
                    "Make a new installId and push again.",
                    field="sync.installId",
                )
        elif working is None or (working.job_id, snapshot.body_hash) not in self.known_bodies:
            return None
        job = working.job if working else None
        rev = job.rev if job else working.tombstone_rev if working else 0
        return Applied("unchanged", job, rev, self.incarnation, item.received_at, replayed=True)

    def _respelled(self, snapshot: Snapshot, working: Working | None, known: tuple[bytes, str]) -> bool:
        """Whether this is the body kept under that hash, its JSON spelled otherwise."""
        if working is None or known[1] != snapshot.client_job_id:
            return False
        body = self._body(working.job_id, known[0])
        return body is not None and same_document(body, snapshot.body)

    def _base(self, snapshot: Snapshot, job: Job | None) -> tuple[int, bool]:
        """The revision the install had seen, and whether its base is not one of ours."""
        if snapshot.base is None:
            return 0, False
        parsed = parse_etag(snapshot.base)
        if parsed is None or parsed[0] != self.incarnation or parsed[1] > (job.rev if job else 0):
            return 0, True
        return parsed[1], False

    def _new_job(self, item: PushItem) -> Job:
        caller = item.caller
        return Job(
            job_id=new_id(),
            client_job_id=item.client_job_id,
            team=caller.team_name,
            created_by=caller.subject_id,
            rev=0,
            scopes={},
            writers=(caller.subject_id,),
            created_at=item.received_at,
            rules=self.rules,
        )

    def _stated(self, snapshot: Snapshot, working: Working, job: Job) -> frozenset[str]:
        """Scopes that later pushes of this install, which overtook this one, have stated."""
        install, seq = snapshot.install_id, snapshot.push_seq
        if install is None or job.pushed.get(install, 0) <= seq:
            return frozenset()
        hashes = {
            bytes(row.body_hash)
            for row in push_queries.later(self.connection, self.team_id, install, seq, snapshot.client_job_id)
        }
        hashes |= {
            row.body_hash
            for row in self.writes.pushes
            if row.install_id == install
            and row.push_seq > seq
            and row.client_job_id == snapshot.client_job_id
        }
        bodies = (self._body(working.job_id, body_hash) for body_hash in hashes)
        return frozenset().union(*(parse(body).scopes for body in bodies if body))

    def _body(self, job_id: str, body_hash: bytes) -> bytes | None:
        for row in self.writes.snapshots:
            if row.job_id == job_id and row.body_hash == body_hash:
                return row.body
        kept = snapshot_queries.body(self.connection, self.team_id, job_id, body_hash)
        return decompress(kept) if kept else None

    # Operators' changes

    def _change(self, item: ChangeItem) -> Applied:
        working = self.jobs.get(item.client_job_id)
        job = working.job if working else None
        if (
            working is None
            or job is None
            or (item.caller.own_work_only and working.owner_id != item.caller.subject_id)
        ):
            raise NotFound("job-not-found", "There is no such job.", quarantine=False)
        if item.if_match is not None:
            self._check_match(item.if_match, job)
        if item.kind == "delete":
            return self._delete(item, working, job)
        if item.kind == "files":
            names = [item for item in job.resources if is_attachment_id(item)]
            stored = reference_queries.stored_among(self.connection, self.team_id, names)
            merged = merge.files_arrived(job, stored, item.received_at)
        elif item.kind == "reopen":
            if self.rules.restart_disabled and finished(job):
                raise Conflict(
                    "restart-disabled",
                    "The team setting DisableJobRestart keeps finished jobs from being reopened.",
                    quarantine=False,
                )
            merged = merge.reopen(job, item.received_at)
        else:
            refused = _refusal(item, job)
            if refused is not None:
                if item.skip_finished:
                    return Applied("unchanged", job, job.rev, self.incarnation, item.received_at)
                raise refused
            merged = merge.apply(job, _server_push(job, item, item.scopes(job) if item.scopes else {}))
        self._take(working, job, merged, item.received_at)
        after = working.job
        assert after is not None
        if merged.stored and item.body:
            body_hash = hashlib.blake2b(b"%d:%s" % (after.rev, item.body), digest_size=16).digest()
            self._keep_body(working, _server_push(job, item, {}), item.body, body_hash, 0)
        action: Action = "merged" if merged.changed else "recorded" if merged.edits else "unchanged"
        return Applied(action, after, after.rev, self.incarnation, item.received_at)

    def _delete(self, item: ChangeItem, working: Working, job: Job) -> Applied:
        working.job = None
        working.did_task = does_task(job)
        working.deleted_at = item.received_at
        working.tombstone_rev = job.rev + 1
        working.stored = working.stamped = True
        self.writes.event("job.deleted", job, working.tombstone_rev, item.received_at)
        self.writes.snapshots = [
            row._replace(body=b"") if row.job_id == job.job_id else row for row in self.writes.snapshots
        ]
        return Applied("merged", None, working.tombstone_rev, self.incarnation, item.received_at)

    # Both

    def _check_match(self, if_match: str, job: Job | None) -> None:
        if job is None:
            raise PreconditionFailed("precondition-failed", "There is no such job.", quarantine=False)
        if not matches(if_match, format_etag(self.incarnation, job.rev)):
            raise PreconditionFailed(
                "precondition-failed",
                "The job has changed since; its current revision is in `job`.",
                quarantine=False,
                extra={"job": job, "incarnation": self.incarnation},
            )

    def _take(self, working: Working, before: Job, merged: merge.Merged, received_at: int) -> None:
        after = merged.job
        if after.scopes.get("assignee") is not before.scopes.get("assignee"):
            assigned = text_of(after, "assignee", "userId")
            working.owner_id = assigned or after.created_by
            if assigned is not None and assigned not in after.writers:
                after = replace(after, writers=(*after.writers, assigned))
        complete = merge.media_completed(after)
        if complete:
            after = replace(after, media_complete=True)
        if after.resources != before.resources:
            self._refer(after.job_id, frozenset(before.resources), frozenset(after.resources))
        working.job = after
        working.stored = working.stored or merged.stored or complete
        working.stamped = working.stamped or merged.changed
        for kind in merge.events(before, after, merged.changed):
            self.writes.event(kind, after, after.rev, received_at)
        if complete:
            self.writes.event("job.mediaComplete", after, after.rev, received_at)

    def _refer(self, job_id: str, before: frozenset[str], after: frozenset[str]) -> None:
        new = {(item, job_id) for item in after - before if is_attachment_id(item)}
        gone = {(item, job_id) for item in before - after if is_attachment_id(item)}
        # A batch may take back what it has just noted.
        self.writes.referred = [pair for pair in self.writes.referred if pair not in gone] + sorted(new)
        self.writes.released = [pair for pair in self.writes.released if pair not in new] + sorted(gone)

    def _keep_body(
        self, working: Working, push: merge.Push, body: bytes, body_hash: bytes, offset: int
    ) -> None:
        assert working.job is not None
        self.writes.snapshots.append(
            SnapshotWrite(
                self.team_id,
                working.job_id,
                body_hash,
                new_id(),
                working.job.rev,
                push.install,
                None if push.legacy else push.seq,
                push.received_at,
                offset,
                len(body),
                body,
            )
        )


def _server_push(job: Job, item: ChangeItem, scopes: Mapping[str, Part]) -> merge.Push:
    """What an operator does, as a push of the install ``server`` that has seen the current revision."""
    return merge.Push(
        install=SERVER,
        seq=job.rev + 1,
        base=job.rev,
        received_at=item.received_at,
        scopes=scopes,
        created=item.created,
        updated=item.updated,
        aborted=item.kind == "abort",
        abort_value=item.abort_value if item.kind == "abort" else b"",
    )


def _refusal(item: ChangeItem, job: Job) -> SyncError | None:
    """Why an operator's change is not for a job in this state."""
    if item.kind == "assign" and finished(job):
        return Conflict("job-finished", "A completed or aborted job cannot be assigned.", quarantine=False)
    if item.kind == "abort" and completed(job):
        return Conflict(
            "job-finished", "The job is complete; only incomplete jobs can be aborted.", quarantine=False
        )
    if item.kind == "edit" and job.aborted is not None and item.scopes and "status" in item.scopes(job):
        return Conflict(
            "job-aborted", "The job is aborted; reopen it before changing its status.", quarantine=False
        )
    return None


def _action(before: Job, push: merge.Push, merged: merge.Merged) -> Action:
    if before.rev == 0:
        return "created"
    if before.aborted is not None and (merged.edits or merged.changed):
        return "recorded"
    if merged.changed:
        return "merged"
    return "recorded" if merged.edits or not push.header else "unchanged"
