"""What goes into a transaction and what comes out of it: pushes, operators' changes, refusals, results."""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from sync.edits import Job
from sync.errors import SyncError
from sync.merge import Push
from sync.snapshot import Part, Snapshot

Action = Literal["created", "merged", "unchanged", "recorded"]


class Caller(Struct, frozen=True):
    """Who pushes: a user or a client of a team. ``own_work_only``: a field worker, who writes its own jobs."""

    team_id: int
    team_name: str
    subject_id: str
    own_work_only: bool


class PushItem(Struct, frozen=True):
    """A snapshot to apply. ``received_at`` in microseconds; ``if_match`` as in the header."""

    caller: Caller
    snapshot: Snapshot
    received_at: int
    if_match: str | None = None

    @property
    def client_job_id(self) -> str:
        return self.snapshot.client_job_id


class ChangeItem(Struct, frozen=True):
    """An operator's change to one job.

    Attributes:
        kind: what is done; ``edit`` covers metadata, exclusion and updates; ``files``: files that the job
            refers to have come or gone.
        scopes: the scopes to change, given the job.
        abort_value: the raw status and abandonReason that an abort shows.
        body: what is kept of it in the history.
        skip_finished: finished jobs are passed over in silence (bulk abort).
    """

    caller: Caller
    client_job_id: str
    received_at: int
    kind: Literal["edit", "assign", "abort", "reopen", "delete", "files"]
    scopes: Callable[[Job], Mapping[str, Part]] | None = None
    created: str | None = None
    updated: str | None = None
    abort_value: bytes = b'{"status":"Aborted","abandonReason":null}'
    body: bytes = b""
    if_match: str | None = None
    skip_finished: bool = False


class RefusedItem(Struct, frozen=True):
    """A payload that did not even parse, for quarantine."""

    caller: Caller
    body: bytes
    received_at: int
    error: SyncError
    client_job_id: str = ""


Item = PushItem | ChangeItem | RefusedItem


class Applied(Struct, frozen=True):
    """What became of an item; answers are built from it after the commit.

    Attributes:
        job: the job of exactly the revision answered; None of a deleted job.
        warnings: what the device is told beside.
    """

    action: Action
    job: Job | None
    rev: int
    incarnation: str
    received_at: int
    offset: int = 0
    replayed: bool = False
    reset: bool = False
    push: Push | None = None
    warnings: tuple[str, ...] = ()


Result = Applied | SyncError
