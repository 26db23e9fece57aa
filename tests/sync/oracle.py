"""A causality oracle: what a job must show, worked out from who had seen what and from nothing else.

It knows no revisions, no digests and no bases. Every write carries the set of writes its writer had seen;
a write is superseded if an accepted one had seen it, or comes later from the same install. What is left is
live, and must be shown or stand in the conflicts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fixtures.jobs import Document
from fixtures.local_job import body_of, key_of

CURRENT, COMPLETED, CANCELLED = 0, 1, 2
RANKS = {"Created": 0, "InProgress": 1, "Active": 1, "Paused": 1, "Completed": 2, "Abandoned": 2}
OPERATOR = "server"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


@dataclass(frozen=True)
class Statement:
    """What a document says about one scope.

    Attributes:
        token: what tells the value from every other one; of a step its first value and its phase.
        value: the whole value, parsed.
        photos: the photo ids of a step.
        raw: the time a step gives itself, by its writer's clock; None for the header's `updated`.
    """

    token: Any
    value: Any
    phase: int = 0
    photos: frozenset[str] = frozenset()
    raw: int | None = None

    def says(self, other: "Statement | None") -> bool:
        """Whether both say the same."""
        return other is not None and (self.phase, self.value) == (other.phase, other.value)


def statements(document: Document) -> dict[str, Statement]:
    """What a document says, scope by scope. An Aborted status is the scope ``abort``."""
    header = document["metadata"]
    found: dict[str, Statement] = {}
    for key, value in (header.get("metadata") or {}).items():
        found[f"meta:{key}"] = Statement(value, value)
    status = header.get("status")
    if status == "Aborted":
        found["abort"] = Statement(status, header.get("abandonReason"))
    elif status is not None:
        pair = (status, header.get("abandonReason"))
        found["status"] = Statement(pair, pair, RANKS[status])
    current = header.get("currentStep")
    for phase, steps in (
        (CURRENT, [current] if current else []),
        (COMPLETED, document.get("completedSteps") or []),
        (CANCELLED, document.get("cancelledSteps") or []),
    ):
        for step in steps:
            found[f"step:{key_of(step)}"] = step_statement(step, phase)
    return found


def step_statement(step: Document, phase: int) -> Statement:
    """What one step says."""
    body = body_of(step)
    updated = body.get("updated")
    return Statement(
        (body["values"][0], phase),
        step,
        phase,
        frozenset(body.get("valueResourceIds") or ()),
        microseconds(datetime.fromisoformat(updated)) if updated else None,
    )


@dataclass(frozen=True)
class Shown:
    """What a reply shows: the statement of each scope, and the tokens that stand in its conflicts."""

    statements: dict[str, Statement]
    conflicts: dict[str, set[Any]]


def shown(reply: Document) -> Shown:
    """Read a merged job as a device reads it."""
    found = statements(reply)
    for step in reply["sync"]["openSteps"]:
        found[f"step:{key_of(step)}"] = step_statement(step, CURRENT)
    conflicts: dict[str, set[Any]] = {}
    for entry in reply["sync"]["conflicts"]:
        scope = entry["scope"]
        tokens = [_conflict_token(scope, other) for other in entry["values"]]
        assert len(tokens) == len(set(tokens)), f"{scope}: equal values stand in the conflicts once"
        conflicts[scope] = set(tokens)
    return Shown(found, conflicts)


def _conflict_token(scope: str, other: Document) -> Any:
    value = other["value"]
    if scope.startswith("step:"):
        return (body_of(value)["values"][0], ("current", "completed", "cancelled").index(other["phase"]))
    if scope == "status":
        return (value["status"], value.get("abandonReason"))
    return value


@dataclass(frozen=True)
class Knowledge:
    """What an install had seen when it last replaced its local job: writes, reopens, and what it holds."""

    writes: frozenset[int] = frozenset()
    reopens: int = 0
    held: Mapping[str, Statement] = field(default_factory=dict)


@dataclass(frozen=True)
class Write:
    """What one install decided about one scope. Numbers rise in the order of deciding."""

    number: int
    install: str
    scope: str
    statement: Statement
    seen: frozenset[int]


@dataclass(frozen=True)
class Request:
    """One push on its way, with what it truly means beside its bytes.

    Attributes:
        writes: the install's own writes among what the body states.
        header_time: the header's `updated` by the device's clock.
        sent_at: the device's clock at sending, if it tells.
    """

    install: str
    seq: int
    body: bytes
    user: str
    writes: Mapping[str, Write]
    knowledge: Knowledge
    header_time: int
    sent_at: int | None
    confirm: frozenset[str] = frozenset()
    aborts: bool = False
    minimal: bool = False


class Oracle:
    """True causality of one job.

    Attributes:
        heard: numbers of all writes that arrived in an accepted push, whatever became of them.
    """

    def __init__(self) -> None:
        self.heard: set[int] = set()
        self.aborted = False
        self.reopens = 0
        self._accepted: dict[str, dict[int, tuple[Write, int]]] = {}
        self._numbers = 0

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def knowledge(self, held: Mapping[str, Statement]) -> Knowledge:
        """Of somebody who sees the job as it is now."""
        writes = frozenset(number for scope in self._accepted.values() for number in scope)
        return Knowledge(writes, self.reopens, held)

    def accept(self, request: Request, received_at: int) -> int:
        """A push was accepted for the first time; answers how many true edits it held."""
        fresh: list[Write] = []
        for scope, write in request.writes.items():
            self.heard.add(write.number)
            if scope != "abort" and self._is_edit(request, scope, write):
                fresh.append(write)
        raws = {
            write.number: request.header_time if write.statement.raw is None else write.statement.raw
            for write in fresh
        }
        if request.sent_at is not None:
            offset = received_at - request.sent_at
        else:
            offset = min(0, received_at - max(raws.values(), default=received_at))
        for write in fresh:
            ts = min(raws[write.number] + offset, received_at)
            self._accepted.setdefault(write.scope, {})[write.number] = (write, ts)
        if request.aborts and request.knowledge.reopens >= self.reopens:
            self.aborted = True
        return len(fresh)

    def _is_edit(self, request: Request, scope: str, write: Write) -> bool:
        accepted = self._accepted.get(scope, {})
        if write.number in accepted:
            return False
        mine = [number for number, (other, _) in accepted.items() if other.install == request.install]
        if mine and max(mine) > write.number:
            return False  # a later push came first
        if scope == "status" and request.knowledge.reopens < self.reopens:
            return False
        if scope in request.confirm:
            return True
        unseen = [number for number in mine if number not in request.knowledge.writes]
        known = accepted[max(unseen)][0].statement if unseen else request.knowledge.held.get(scope)
        if known is None and write.statement.value is None and accepted.keys() & request.knowledge.writes:
            return False  # it was gone already when this install looked
        return not write.statement.says(known)

    def operate(self, scope: str, statement: Statement, received_at: int) -> None:
        """An operator wrote, having seen everything."""
        number = self.next_number()
        seen = frozenset(self._accepted.get(scope, {}))
        write = Write(number, OPERATOR, scope, statement, seen)
        self._accepted.setdefault(scope, {})[number] = (write, received_at)

    def reopen(self, received_at: int) -> None:
        """An operator cleared the abort mark; a job without a status is in progress again."""
        if self.aborted:
            self.aborted = False
            self.reopens += 1
            if not self._accepted.get("status"):
                self.operate("status", Statement(("InProgress", None), ("InProgress", None), 1), received_at)

    def live(self, scope: str) -> list[tuple[Write, int]]:
        """The writes that nothing supersedes, with their corrected times, greatest first."""
        accepted = list(self._accepted.get(scope, {}).values())
        seen = {number for write, _ in accepted for number in write.seen}
        last: dict[str, int] = {}
        for write, _ in accepted:
            last[write.install] = max(write.number, last.get(write.install, 0))
        live = [
            (write, ts)
            for write, ts in accepted
            if write.number not in seen and last[write.install] == write.number
        ]
        return sorted(live, key=lambda item: _order(scope, *item), reverse=True)

    def scopes(self) -> Iterable[str]:
        return self._accepted

    def check(self, reply: Document) -> None:
        """Assert that a merged job is what true causality makes it."""
        view = shown(reply)
        assert ("abort" in view.statements) == self.aborted, "Aborted is shown exactly while the mark is set"
        for scope in self.scopes():
            live = self.live(scope)
            tokens = {write.statement.token for write, _ in live}
            if scope == "status" and self.aborted:
                continue
            winner = live[0][0].statement
            statement = view.statements.get(scope)
            token = statement.token if statement else None
            assert token == winner.token, f"{scope} shows {token}, not {winner.token}, the greatest of {live}"
            others = view.conflicts.get(scope, set())
            assert others == tokens - {token}, f"{scope} has {others} in conflict; live are {live}"
            if scope.startswith("step:"):
                photos = frozenset().union(*(write.statement.photos for write, _ in live))
                assert statement is not None
                assert statement.photos == photos, f"{scope} shows photos {statement.photos} of {photos}"


def _order(scope: str, write: Write, ts: int) -> tuple[Any, ...]:
    if scope == "status":
        return (write.statement.phase, ts, write.install)
    return (ts, write.statement.phase, write.install)
