"""The rows of one transaction: what a batch has decided, gathered and then written in one order.

Jobs, files they refer to, history, replay rows, events, quarantine, the scheduled tasks that jobs do; last the
team's feed head, which every other transaction of the team waits for.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from storage.database import Connection
from storage.ids import new_id
from storage.queries import attachment_references as reference_queries
from storage.queries import completed_jobs as completed_queries
from storage.queries import events as event_queries
from storage.queries import feed as feed_queries
from storage.queries import jobs as job_queries
from storage.queries import pushes as push_queries
from storage.queries import quarantine as quarantine_queries
from storage.queries import reports as report_queries
from storage.queries import scheduled_jobs as schedule_queries
from storage.queries import snapshots as snapshot_queries
from storage.queries import triggers as trigger_queries
from storage.queries.completed_jobs import CompletedWrite, cut
from storage.queries.events import EventWrite
from storage.queries.jobs import JobWrite
from storage.queries.pushes import PushWrite
from storage.queries.scheduled_jobs import Work
from storage.queries.snapshots import SnapshotWrite
from storage.schedule import ABANDONED, ACTIVE, COMPLETED, NOT_STARTED, PAUSED
from sync.bodies import compress, compress_all
from sync.edits import FORMAT, Job, pack
from sync.errors import SyncError
from sync.facts import job_facts
from sync.fitting import MAX_FACTS, fitted
from sync.items import PushItem, RefusedItem
from sync.snapshot import ABORTED
from sync.values import parse_time
from sync.view import completed, finished, is_excluded, text_of

#: Scopes in which a job names the task of a scheduled job that it does (section 6.1.5).
_SCHEDULED_JOB, _SCHEDULED_TASK = "meta:ScheduledJobId", "meta:ScheduledTaskId"
#: Status, folded -> the state of the task (section 10.2); any other status is one of an active job.
_TASK_STATES = {"created": NOT_STARTED, "paused": PAUSED, "completed": COMPLETED, "abandoned": ABANDONED}


@dataclass(slots=True)
class Working:
    """A job while the batch runs.

    Attributes:
        did_task: it was deleted, and had named the task of a scheduled job.
        was_completed: it was, before the batch.
    """

    job: Job | None
    owner_id: str | None = None
    deleted_at: int | None = None
    tombstone_rev: int = 0
    job_id: str = ""
    created_at: int = 0
    stored: bool = False
    stamped: bool = False
    did_task: bool = False
    was_completed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.was_completed = self.job is not None and completed(self.job)


@dataclass(slots=True)
class Writes:
    """Rows to write at the end; the bodies of snapshots are not compressed yet.

    Attributes:
        wanted: which events the team's triggers want (``storage.queries.triggers``).
    """

    team_id: int
    wanted: int = 0
    snapshots: list[SnapshotWrite] = field(default_factory=list)
    pushes: list[PushWrite] = field(default_factory=list)
    events: list[EventWrite] = field(default_factory=list)
    #: Events that triggers want, each with the view of its job at that moment.
    told: list[tuple[EventWrite, bytes]] = field(default_factory=list)
    #: (attachment id, job id), and when.
    referred: list[tuple[str, str]] = field(default_factory=list)
    released: list[tuple[str, str]] = field(default_factory=list)
    received_at: int = 0
    quarantine: list[dict[str, Any]] = field(default_factory=list)

    def event(self, kind: str, job: Job, rev: int, received_at: int) -> None:
        """Note that something happened to a job."""
        event = EventWrite(self.team_id, new_id(), kind, job.job_id, job.client_job_id, rev, received_at)
        self.events.append(event)
        if self.wanted and trigger_queries.is_wanted(kind, self.wanted):
            self.told.append((event, job.view))

    def refuse(self, item: PushItem | RefusedItem, error: SyncError) -> None:
        """Keep what was refused."""
        pushed = isinstance(item, PushItem)
        body = item.snapshot.body if isinstance(item, PushItem) else item.body
        self.quarantine.append(
            {
                "team_id": self.team_id,
                "quarantine_id": new_id(),
                "body_hash": hashlib.sha256(body).digest(),
                "code": error.code,
                "detail": _clean(error.detail),
                "field": _clean(error.field) if error.field else None,
                "client_job_id": item.client_job_id if pushed else None,
                "subject_id": item.caller.subject_id,
                "install_id": item.snapshot.install_id if isinstance(item, PushItem) else None,
                "received_at": item.received_at,
                "last_received_at": item.received_at,
                "times": 1,
                "size": len(body),
                "body": compress(body),
            }
        )

    def write(self, connection: Connection, jobs: Mapping[str, Working], expected: set[str]) -> None:
        """Write everything.

        Args:
            jobs: by clientJobId.
            expected: files that were made known for these pushes.
        """
        team_id = self.team_id
        # In the order of their ids, as they were locked: two transactions never wait for each other.
        stored = sorted(
            ((name, working) for name, working in jobs.items() if working.stored), key=lambda pair: pair[0]
        )
        if stored:
            job_queries.write(connection, [_row(team_id, name, working) for name, working in stored])
        deleted = [working.job_id for _, working in stored if working.deleted_at is not None]
        if deleted:
            snapshot_queries.drop_bodies(connection, team_id, deleted)
        if self.referred:
            reference_queries.refer(connection, team_id, self.referred)
        if self.released:
            reference_queries.release(connection, team_id, self.released, self.received_at)
        # A replay, a refused push or a value that does not show brings up files that no job comes to refer to.
        unused = expected.difference(item for item, _ in self.referred)
        if unused:
            reference_queries.forget_unreferred(connection, team_id, sorted(unused), self.received_at)
        if deleted:
            reference_queries.release_jobs(connection, team_id, deleted, self.received_at)
            report_queries.forget_jobs(connection, team_id, deleted, self.received_at)
        if self.snapshots:
            bodies = compress_all([row.body for row in self.snapshots])
            snapshot_queries.insert(
                connection,
                [row._replace(body=body) for row, body in zip(self.snapshots, bodies, strict=True)],
            )
        if self.pushes:
            push_queries.insert(connection, sorted(self.pushes))
        if self.events:
            event_queries.insert(connection, self.events)
        self._tell(connection)
        if self.quarantine:
            quarantine_queries.put(connection, self.quarantine)
        self._follow(connection, stored)
        if deleted:
            completed_queries.forget(connection, team_id, deleted)
        stamped = [working.job_id for _, working in stored if working.stamped]
        rows = [
            _completed(working.job)
            for _, working in stored
            if working.job is not None and completed(working.job)
        ]
        again = [
            working.job_id
            for _, working in stored
            if working.was_completed and working.job is not None and not completed(working.job)
        ]
        if again:
            completed_queries.retire(connection, team_id, again)
        numbers = completed_queries.known(connection, team_id, [row.job_id for row in rows])
        if stamped:
            fresh = len(rows) - len(numbers)
            _, completions = feed_queries.stamp(connection, team_id, stamped, fresh)
            # Who is completed for the first time gets the next numbers; the others keep theirs.
            following = iter(range(completions - fresh + 1, completions + 1))
            numbered = [(numbers.get(row.job_id) or next(following), row) for row in rows]
            if numbered:
                completed_queries.write(connection, team_id, numbered)

    def _tell(self, connection: Connection) -> None:
        """Have triggers matched. Of a job that was completed by a change, the update is not told as well."""
        completed = {(event.job_id, event.rev) for event, _ in self.told if event.type == "job.completed"}
        for event, view in self.told:
            if event.type == "job.updated" and (event.job_id, event.rev) in completed:
                continue
            # Of a job's media nothing is delivered: what waits for it is found by the job.
            facts: Mapping[str, Any] = {"jobId": event.job_id}
            if event.type != "job.mediaComplete":
                facts = fitted(job_facts(msgspec.json.decode(view)), MAX_FACTS)
            trigger_queries.match(
                connection, self.team_id, event.event_id, event.type, event.rev, facts, event.created_at
            )

    def _follow(self, connection: Connection, stored: Sequence[tuple[str, Working]]) -> None:
        """Let the tasks of scheduled jobs follow the jobs that do them, as they are merged now."""
        works: list[Work] = []
        gone: list[str] = []
        for client_job_id, working in stored:
            job = working.job
            if job is None:
                if working.did_task:
                    gone.append(client_job_id)
            elif _SCHEDULED_TASK in job.scopes:
                scheduled, task = text_of(job, _SCHEDULED_JOB), text_of(job, _SCHEDULED_TASK)
                if scheduled and task:
                    updated = job.updated[0] if job.updated else None
                    works.append(Work(scheduled, task, client_job_id, job.job_id, _task_state(job), updated))
                else:
                    gone.append(client_job_id)
        if works or gone:
            schedule_queries.follow(connection, self.team_id, works, gone, self.received_at)


def does_task(job: Job) -> bool:
    """Whether a job names the task of a scheduled job, or has named one."""
    return _SCHEDULED_TASK in job.scopes


def _task_state(job: Job) -> int:
    if job.aborted is not None:
        return ABANDONED
    return _TASK_STATES.get((text_of(job, "status", "status") or "").casefold(), ACTIVE)


def _row(team_id: int, client_job_id: str, working: Working) -> JobWrite:
    job = working.job
    if job is None:
        deleted_at = working.deleted_at or 0
        rev = working.tombstone_rev
        return JobWrite(
            *(team_id, working.job_id, client_job_id, rev, working.owner_id, None, True, None, False),
            *(working.created_at, deleted_at, deleted_at, FORMAT, b"", b""),
        )
    return JobWrite(
        team_id,
        working.job_id,
        client_job_id,
        job.rev,
        _clean(working.owner_id) if working.owner_id else None,
        _clean(text_of(job, "head:workflowId") or "") or None,
        finished(job),
        _status(job),
        is_excluded(job),
        working.created_at,
        job.modified_at,
        None,
        FORMAT,
        job.view,
        pack(job),
    )


def _status(job: Job) -> str | None:
    if job.aborted is not None:
        return ABORTED
    status = text_of(job, "status", "status")
    return None if status is None else cut(status.casefold())


def _completed(job: Job) -> CompletedWrite:
    return CompletedWrite(
        job_id=job.job_id,
        listed=not is_excluded(job),
        workflow_id=_searched(text_of(job, "head:workflowId")),
        workflow_title=_searched(text_of(job, "head:workflowName")),
        user_id=_searched(text_of(job, "assignee", "userId")),
        user_name=_searched(text_of(job, "assignee", "username")),
        job_title=_searched(text_of(job, "head:jobTitle")),
        created_at=parse_time(job.created[1]) if job.created else None,
        updated_at=parse_time(job.updated[1]) if job.updated else None,
        modified_at=job.modified_at,
    )


def _searched(text: str | None) -> str | None:
    return None if text is None else cut(text)


def _clean(text: str) -> str:
    """``text`` without NUL, which PostgreSQL's text type does not take; only for columns we search by."""
    return text.replace("\0", "\ufffd")
