"""What becomes of deliveries and of their trigger once attempts have been made: noted in one transaction.

While attempts were under way, people may have changed the trigger, enabled it or replayed a delivery. They knew more
than those attempts: what fails under a trigger that has changed says nothing about the trigger as it is now.
"""

from collections.abc import Sequence
from random import SystemRandom
from typing import NamedTuple

from server.triggers import disabling
from storage.database import Connection
from storage.queries import deliveries as queries
from storage.queries import triggers
from storage.queries.deliveries import Attempted, DeliveryRow
from storage.queries.teams import lock_team
from storage.queries.triggers import TriggerRow
from sync.values import format_time

#: Seconds after the first, second, … failed attempt; after the one that follows the last of them, it has failed.
GAPS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.2
#: Failed attempts over so many days disable a trigger, if between two of them there are never more than so many.
#: The gaps between the attempts at one delivery are shorter.
FAILING_DAYS, QUIET_DAYS = 5, 2

_SECOND = 1_000_000
_DAY_US = 24 * 3600 * _SECOND
_MAX_ERROR = 500
_GONE = 410
#: Not the module's own generator: whoever seeds that decides for everything in the process.
_random = SystemRandom()


class Outcome(NamedTuple):
    """How one attempt went.

    Attributes:
        wait_seconds: how long the receiver wants to be left alone.
        final: no further attempt can succeed.
        hung: it took all the time there is.
        counts: it says something about the receiver, and not about this server, its mail server or one mail.
    """

    delivered: bool
    status: int | None = None
    error: str | None = None
    answer: bytes | None = None
    wait_seconds: float = 0
    final: bool = False
    hung: bool = False
    counts: bool = True

    @property
    def gone(self) -> bool:
        """The receiver wants nothing any more."""
        return self.status == _GONE


class Made(NamedTuple):
    """An attempt that was made, and when it began and ended."""

    delivery: DeliveryRow
    outcome: Outcome
    began: int
    ended: int


class _Streak(NamedTuple):
    """Since when every attempt has failed, and when the last one did."""

    since: int | None
    last: int | None


def note(
    connection: Connection, team_id: int, seen: TriggerRow, made: Sequence[Made], over: bool, at: int
) -> None:
    """Write down how attempts went.

    Args:
        seen: the trigger that they were made for, as it was before them.
        over: whoever sends makes no more: the next delivery is sent by another task, when it is due.
    """
    gone = any(each.outcome.gone for each in made)
    may_end = gone or _is_long(_after(_Streak(seen.failing_since, seen.failed_at), made))
    # In the order in which changes of triggers lock: team, trigger, deliveries.
    if may_end:
        lock_team(connection, team_id)
    trigger = triggers.one(connection, team_id, seen.trigger_id, lock=True)
    if trigger is None:
        return
    changed = (trigger.updated_at, trigger.options) != (seen.updated_at, seen.options)
    ended = may_end and not changed and _end(connection, team_id, trigger, made, gone, at)
    if not changed:
        before = _Streak(trigger.failing_since, trigger.failed_at)
        after = _after(before, made)
        if after != before:
            triggers.change(
                connection, team_id, trigger.trigger_id, failing_since=after.since, failed_at=after.last
            )
    retry_at = at if changed else None
    queries.record(connection, team_id, [attempted(each, retry_at) for each in made])
    if over and not trigger.archived:
        queries.enqueue_next(connection, team_id, trigger.trigger_id, at, by_hand=trigger.disabled or ended)


def _end(
    connection: Connection, team_id: int, trigger: TriggerRow, made: Sequence[Made], gone: bool, at: int
) -> bool:
    """Disable the trigger if its receiver is gone or has failed for days; answers whether it was."""
    streak = _after(_Streak(trigger.failing_since, trigger.failed_at), made)
    if gone:
        reason = disabling.GONE
    elif streak.since is not None and _is_long(streak):
        reason = f"Every attempt has failed since {format_time(streak.since)}."
    else:
        return False
    return disabling.disable(connection, team_id, trigger.trigger_id, reason, at)


def _after(streak: _Streak, made: Sequence[Made]) -> _Streak:
    """The attempts that have failed without a success between them, once these were made too."""
    since, last = streak
    for each in made:
        if each.outcome.delivered:
            since = last = None
        elif each.outcome.counts:
            if since is None or last is None or each.ended - last > QUIET_DAYS * _DAY_US:
                since = each.ended
            last = each.ended
    return _Streak(since, last)


def _is_long(streak: _Streak) -> bool:
    if streak.since is None or streak.last is None:
        return False
    return streak.last - streak.since >= FAILING_DAYS * _DAY_US


def attempted(made: Made, retry_at: int | None = None) -> Attempted:
    """What becomes of a delivery. ``retry_at``: when it is tried again if it failed; None: by the rules."""
    delivery, outcome, began, ended = made
    state, next_at = queries.DELIVERED, None
    if not outcome.delivered and retry_at is not None:
        state, next_at = queries.DUE, retry_at
    elif not outcome.delivered:
        gap = None if outcome.final else gap_after(delivery.attempts + 1)
        state = queries.FAILED if gap is None else queries.DUE
        next_at = None if gap is None else ended + int(max(gap, outcome.wait_seconds) * _SECOND)
    error = outcome.error[:_MAX_ERROR].replace("\0", "") if outcome.error is not None else None
    return Attempted(
        delivery.delivery_id,
        began,
        ended - began,
        outcome.status,
        error,
        outcome.answer,
        state,
        next_at,
        seen=(delivery.attempts, delivery.next_at),
    )


def gap_after(failures: int) -> float | None:
    """Seconds until the next attempt after so many that failed; None if there is no other."""
    if failures > len(GAPS):
        return None
    return GAPS[failures - 1] * _random.uniform(1 - JITTER, 1 + JITTER)
