"""What reconciliation refuses, and why. Plain errors with a stable code; HTTP is the server's business."""

import dataclasses
from typing import Any


@dataclasses.dataclass
class SyncError(Exception):
    """A push or a server edit that was not applied.

    Attributes:
        code: stable and documented (docs/protocol.md).
        detail: what is wrong and what to do about it, for a person.
        field: path of the member at fault, e.g. ``completedSteps[3].singleStep.updated``.
        quarantine: whether the payload is to be kept verbatim for an administrator.
        extra: further members of the answer.
    """

    code: str
    detail: str
    field: str | None = None
    quarantine: bool = True
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class InvalidSnapshot(SyncError):
    """Valid JSON, but not a snapshot: a wrong type, a missing or reserved clientJobId, a bad envelope."""


class MalformedSnapshot(SyncError):
    """Not JSON, or JSON beyond what can be kept: NaN, lone surrogates, too deep."""


class TooLarge(SyncError):
    """A body over the limit."""


class NotFound(SyncError):
    """No such job, for this caller."""


class Gone(SyncError):
    """The job was deleted."""


class Forbidden(SyncError):
    """The job is not this caller's to write."""


class Conflict(SyncError):
    """The state of the job, or of the install, does not allow it."""


class PreconditionFailed(SyncError):
    """If-Match does not name the current revision. ``extra["job"]`` holds the current job's bytes."""


class Busy(SyncError):
    """The storage did not take it; nothing was kept. Try later."""
