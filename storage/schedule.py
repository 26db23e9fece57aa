"""Where the tasks of scheduled jobs stand: pure rules, the same result in whatever order things became known.

Two sources tell how far a task is: the merged job that names it, and what a device says with section 10.4. Both
are kept for each job, so that what counts follows from the rows alone.
"""

from collections.abc import Iterable
from typing import NamedTuple

NOT_STARTED, ACTIVE, PAUSED, COMPLETED, ABANDONED = range(5)
#: The states of a scheduled job.
SCHEDULED, DONE = "Scheduled", "Completed"

#: Of several jobs for one task the one that got farthest counts; giving up is more than not having begun.
_RANK = {COMPLETED: 4, ACTIVE: 3, PAUSED: 2, ABANDONED: 1, NOT_STARTED: 0}
#: Below every time.
_NEVER = -(2**63)


class Heard(NamedTuple):
    """What is known of one job that is done for a task.

    Attributes:
        job_id: as the merged job has it, like the next two; all are None before it was synced.
        job_updated_at: the job's own time.
        said_state: as said with section 10.4; None if nothing was.
    """

    client_job_id: str
    job_id: str | None = None
    job_state: int | None = None
    job_updated_at: int | None = None
    said_state: int | None = None
    said_updated_at: int | None = None


class Standing(NamedTuple):
    """Where a task stands, and the job that brought it there."""

    state: int
    client_job_id: str | None
    job_id: str | None
    updated_at: int | None


#: No job is done for the task yet.
UNTOUCHED = Standing(NOT_STARTED, None, None, None)


def said(work: Heard, state: int, updated_at: int) -> Heard:
    """``work`` after a device said a state. Of two the later counts; at the same time the one that is farther."""
    if work.said_state is not None:
        known = (_time(work.said_updated_at), _RANK[work.said_state])
        if known >= (updated_at, _RANK[state]):
            return work
    return work._replace(said_state=state, said_updated_at=updated_at)


def effective(work: Heard) -> Standing | None:
    """How far one job is: what was said counts if it is later than the merged job. None: nothing is known."""
    if work.said_state is not None and (
        work.job_state is None or _time(work.said_updated_at) > _time(work.job_updated_at)
    ):
        return Standing(work.said_state, work.client_job_id, work.job_id, work.said_updated_at)
    if work.job_state is None:
        return None
    return Standing(work.job_state, work.client_job_id, work.job_id, work.job_updated_at)


def counting(works: Iterable[Heard]) -> Standing:
    """Where a task stands, of all jobs done for it: the farthest, then the latest, then the greatest id."""
    known = [standing for work in works if (standing := effective(work)) is not None]
    return max(known, key=_order, default=UNTOUCHED)


def job_state(states: Iterable[int]) -> str:
    """The state of a scheduled job whose tasks have ``states``: Completed if there are any, and all are."""
    listed = list(states)
    return DONE if listed and all(state == COMPLETED for state in listed) else SCHEDULED


def _order(standing: Standing) -> tuple[int, int, str]:
    return _RANK[standing.state], _time(standing.updated_at), standing.client_job_id or ""


def _time(moment: int | None) -> int:
    return _NEVER if moment is None else moment
