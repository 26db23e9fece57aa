"""A small world: tablets with skewed clocks, a client without the envelope, a bad network, an operator.

The tablets are the simulated ones of :mod:`fixtures.tablet`; this world gives them work, decides what the
network does to each request, and tells the oracle what truly happened.
"""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal

import msgspec

from fixtures.jobs import Document, rfc3339
from fixtures.local_job import LocalJob, StepInWork, body_of, comparable
from fixtures.network import Lost
from fixtures.network import Reply as WireReply
from fixtures.tablet import Answer, Tablet, UnsentEdits
from sync.snapshot import Part
from tests.sync.oracle import (
    CURRENT,
    RANKS,
    Knowledge,
    Oracle,
    Request,
    Statement,
    Write,
    microseconds,
    statements,
    step_statement,
)
from tests.sync.servers import Change, Reply, Server

Fate = Literal["arrives", "lost request", "lost reply", "delayed", "late reply", "twice"]
FATES: tuple[Fate, ...] = ("arrives", "lost request", "lost reply", "delayed", "late reply", "twice")
JOB = "job-1"
MORNING = datetime(2025, 6, 2, 8, tzinfo=UTC)


def step_of(key: str, value: int) -> Document:
    """A step with no more members than the merge reads."""
    return {
        "singleStep": {"uniqueStepId": key, "values": [value], "valueResourceIds": None, "note": None},
        "reportStep": None,
    }


def held_by(job: LocalJob) -> dict[str, Statement]:
    """What a tablet's job says, the open steps beside the current one included."""
    steps = {
        f"step:{body_of(step)['uniqueStepId']}": step_statement(step, CURRENT)
        for step in job.sync.get("openSteps") or []
    }
    return steps | statements(job.document)


def respelled(body: Document) -> Document:
    """The same JSON as another library writes it: members turned round, 1 as 1.0, no nulls, times with +00:00."""
    return {key: value if key == "sync" else _respelled(value) for key, value in reversed(body.items())}


def _respelled(value: Any, keeps_nulls: bool = False) -> Any:
    if isinstance(value, dict):
        return {
            key: _respelled(item, key == "metadata")
            for key, item in reversed(value.items())
            if item is not None or keeps_nulls
        }
    if isinstance(value, list):
        return [_respelled(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and value.startswith("2025-") and value.endswith("Z"):
        return value.removesuffix("Z") + "+00:00"
    return value


class Line:
    """One device's network. ``fate`` is what becomes of the next request."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.device: Device
        self.fate: Fate = "arrives"
        #: What the writer of the last whole answer had seen; None if no whole answer came.
        self.offered: Knowledge | None = None

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> WireReply:
        self.offered = None
        world, fate = self.world, self.fate
        if method == "GET":
            if fate != "arrives":
                raise Lost(fate)
            reply = world.server.read()
            self.offered = world.oracle.knowledge({}) if reply.status == 200 else None
            return reply.status, {}, reply.body
        request = self.device.request(body, "Prefer" in headers)
        key = (request.install, request.seq)
        if fate == "lost request":
            raise Lost(fate)
        if fate == "delayed":
            world.under_way.append(request)
            raise Lost(fate)
        if fate == "late reply" and key in world.late_replies:
            reply, self.offered = world.late_replies.pop(key)
            return reply.status, {}, reply.body
        ((reply, offered),) = world.deliver([request])
        if fate == "twice":
            world.deliver([request])
        if fate == "lost reply":
            raise Lost(fate)
        self.offered = offered
        return reply.status, {}, reply.body


class Device:
    """A tablet, its worker, and what it truly decided and had seen."""

    def __init__(self, world: "World", name: str, skew: timedelta, tells_time: bool, respells: bool) -> None:
        self.world = world
        self.tells_time, self.respells = tells_time, respells
        self.line = Line(world)
        self.line.device = self
        self.tablet = Tablet(
            name,
            self.line,
            random=Random(name),
            skew=skew,
            clock=lambda: world.now,
            sleep=lambda _seconds: None,
        )
        self.knowledge = Knowledge()
        #: Decisions that no replaced job has swept away yet, by scope.
        self.decided: dict[str, Write] = {}
        self._requests: dict[tuple[str, int], Request] = {}

    @property
    def job(self) -> LocalJob | None:
        return self.tablet.jobs.get(JOB)

    # Work.

    def start(self) -> None:
        """Create the job here, perhaps as another device did."""
        if self.job is None:
            self.tablet.start_job({"metadata": {"clientJobId": JOB, "metadata": {}}})

    def decide(self, work: Any, *arguments: Any) -> None:
        """Do ``work`` on the local job and note what it changed."""
        self.start()
        assert self.job is not None
        before = held_by(self.job)
        with suppress(StepInWork):
            work(*arguments)
        for scope, statement in statements(self.job.document).items():
            if not statement.says(before.get(scope)):
                self._note(scope, statement)

    def _note(self, scope: str, statement: Statement) -> Write:
        number = self.world.oracle.next_number()
        write = Write(number, self.tablet.install_id, scope, statement, self.knowledge.writes)
        self.decided[scope] = write
        if scope in ("abort", "status"):
            self.decided.pop("status" if scope == "abort" else "abort", None)
        return write

    def work_on(self, key: str, phase: int, value: int, photo: bool) -> None:
        """Answer a step anew and leave it current, completed or cancelled."""

        def work() -> None:
            members: Document = {"values": [value]}
            step: Document | str = step_of(key, value)
            with suppress(KeyError):
                self.tablet.step(JOB, key)
                step = key
            if photo:
                held = self._photos(key)
                members["valueResourceIds"] = [*held, f"photo-{value}"]
            does = (self.tablet.open_step, self.tablet.complete_step, self.tablet.cancel_step)[phase]
            does(JOB, step, **members)

        self.decide(work)

    def _photos(self, key: str) -> list[str]:
        try:
            return body_of(self.tablet.step(JOB, key)).get("valueResourceIds") or []
        except KeyError:
            return []

    def move(self, key: str, name: str) -> None:
        """Put a step into another list without touching the step itself."""

        def work() -> None:
            job = self.tablet.jobs[JOB]
            with suppress(KeyError):
                job.move_to(name, job.find(key))
                self.tablet._edited(JOB, key)

        self.decide(work)

    def confirm(self, which: int) -> None:
        """Settle one of the known conflicts in favour of what is shown."""
        conflicts = (self.job.sync.get("conflicts") or []) if self.job else []
        if conflicts:
            self.tablet.confirm(JOB, conflicts[which % len(conflicts)]["scope"])

    # Network.

    def push(self, fate: Fate, minimal: bool) -> None:
        if self.job is not None:
            self.line.fate = fate
            self._after(self.tablet.push(JOB, minimal=minimal))
            assert self.tablet.counts["reinstalled"] == 0, "nobody else has this identity"
            assert self.tablet.counts["refused"] == 0

    def pull(self, fate: Fate = "arrives") -> None:
        self.line.fate = fate
        with suppress(UnsentEdits):
            self._after(self.tablet.pull(JOB))

    def _after(self, answer: Answer) -> None:
        if answer.applied and self.line.offered is not None:
            assert self.job is not None
            swept = {write.number for write in self.decided.values()}
            assert swept <= self.world.oracle.heard, "a replaced local job held decisions that nobody heard"
            self.knowledge = dataclasses.replace(self.line.offered, held=held_by(self.job))
            self.decided.clear()

    def request(self, body: bytes, minimal: bool) -> Request:
        """What leaves the device, and what it means. A repeated number means what it meant first."""
        document = msgspec.json.decode(body)
        envelope = document["sync"]
        if not self.tells_time:
            del envelope["clientSentAt"]
        key = (envelope["installId"], envelope["pushSeq"])
        if key not in self._requests:
            stated = statements(document)
            confirmed = frozenset(envelope.get("confirm") or ()) & stated.keys()
            for scope in confirmed:
                self._note(scope, stated[scope])
            self._requests[key] = Request(
                *key,
                body,
                "user",
                {
                    scope: write
                    for scope, write in self.decided.items()
                    if scope in stated and write.statement.says(stated[scope])
                },
                self.knowledge,
                microseconds(datetime.fromisoformat(document["metadata"]["updated"])),
                None,
                confirmed,
                "abort" in stated,
            )
        sent_at = envelope.get("clientSentAt")
        return dataclasses.replace(
            self._requests[key],
            body=msgspec.json.encode(respelled(document) if self.respells else document),
            sent_at=microseconds(datetime.fromisoformat(sent_at)) if sent_at else None,
            minimal=minimal,
        )


class LegacyClient:
    """A client that posts the specification's plain body: no envelope, and never a status."""

    def __init__(self, world: "World", name: str, slow: timedelta) -> None:
        self.world, self.name, self.slow = world, name, slow
        self.document: Document = {"metadata": {"clientJobId": JOB, "metadata": {}}}
        self.sent: list[Request] = []
        self._decided: dict[str, Write] = {}

    def set_metadata(self, key: str, value: Any) -> None:
        self.document["metadata"]["metadata"] = {**(self.document["metadata"]["metadata"] or {}), key: value}
        self._note(f"meta:{key}")

    def complete_step(self, key: str, value: int) -> None:
        steps = [
            step for step in self.document.get("completedSteps") or [] if body_of(step)["uniqueStepId"] != key
        ]
        step = step_of(key, value)
        step["singleStep"]["updated"] = self._now()
        self.document["completedSteps"] = [*steps, step]
        self.document["cancelledSteps"] = None
        self.document["metadata"]["currentStep"] = None
        self._note(f"step:{key}")

    def _now(self) -> str:
        return rfc3339(self.world.now - self.slow)

    def _note(self, scope: str) -> None:
        self.document["metadata"]["updated"] = self._now()
        write = Write(
            self.world.oracle.next_number(),
            f"legacy:{self.name}",
            scope,
            statements(self.document)[scope],
            frozenset(),
        )
        self._decided[scope] = write

    def push(self, adopts: bool) -> None:
        """Post the document; ``adopts``: go on with the answered one."""
        if "updated" not in self.document["metadata"]:
            return
        request = Request(
            f"legacy:{self.name}",
            0,
            msgspec.json.encode(self.document),
            self.name,
            dict(self._decided),
            Knowledge(),
            microseconds(datetime.fromisoformat(self.document["metadata"]["updated"])),
            None,
        )
        self.sent.append(request)
        ((reply, _),) = self.world.deliver([request])
        if adopts:
            self.document = reply.document()
            del self.document["sync"]
            self.document["metadata"].update(status=None, abandonReason=None)


class World:
    """Everybody and everything around one job."""

    def __init__(
        self,
        server: Server,
        skews: tuple[timedelta, ...],
        silent: int | None = None,
        respelling: int | None = None,
    ) -> None:
        self.server = server
        self.now = MORNING
        self.oracle = Oracle()
        self.devices = [
            Device(self, f"device-{index}", skew, index != silent, index == respelling)
            for index, skew in enumerate(skews)
        ]
        self.legacy = LegacyClient(self, "old", timedelta(minutes=3))
        self.under_way: list[Request] = []
        self.late_replies: dict[tuple[str, int], tuple[Reply, Knowledge | None]] = {}
        self.accepted: list[Request] = []
        self._rev = 0
        self._versions: dict[int, Document] = {}
        self._values = 0

    def value(self) -> int:
        """A value that nobody else ever writes."""
        self._values += 1
        return self._values

    def tick(self) -> None:
        self.now += timedelta(seconds=1)

    # The network.

    def deliver(self, requests: list[Request]) -> list[tuple[Reply, Knowledge | None]]:
        """Hand requests to the server together; what each answer's reader then has seen."""
        received_at = microseconds(self.now)
        known = self.server.read()
        delivered: list[tuple[Reply, Knowledge | None]] = []
        for request, reply in zip(requests, self.server.push(requests, received_at), strict=True):
            assert reply.status == 200, reply.body
            if reply.replayed:
                assert reply.rev == self._rev, "a replay changes nothing"
                assert len(requests) > 1 or self.server.read() == known
            else:
                edits = self.oracle.accept(request, received_at)
                self.accepted.append(request)
                assert reply.rev - self._rev in ((1,) if edits else (0, 1)), "one revision per push"
            self._rev = reply.rev
            said = reply.document()
            whole = not request.minimal
            if whole:
                self._see_version(reply.rev, said)
            elif said["sync"]["inSync"]:
                self._check_in_sync(request)
                whole = True
            delivered.append((reply, self.oracle.knowledge({}) if whole else None))
        self.check()
        return delivered

    def deliver_delayed(self) -> None:
        """What is still under way arrives at once, newest first; the answers are slow."""
        if self.under_way:
            requests = self.under_way[::-1]
            self.under_way = []
            for request, (reply, offered) in zip(requests, self.deliver(requests), strict=True):
                if not reply.replayed:
                    self.late_replies[request.install, request.seq] = reply, offered

    def repeat(self, index: int) -> None:
        """An old request arrives once more."""
        if self.accepted:
            request = self.accepted[index % len(self.accepted)]
            ((reply, _),) = self.deliver([request])
            assert reply.replayed, "a request known before is a replay"

    def _see_version(self, rev: int, document: Document) -> None:
        seen = comparable(document)
        seen["sync"].pop("etag")
        assert self._versions.setdefault(rev, seen) == seen, "one revision shows one job"

    def _check_in_sync(self, request: Request) -> None:
        said, holds = statements(msgspec.json.decode(request.body)), statements(self.server.read().document())
        assert {scope: item.token for scope, item in said.items() if item.token is not None} == {
            scope: item.token for scope, item in holds.items()
        }, "in sync means that the merged job equals the snapshot sent"

    # The operator.

    def operate(self, kind: Change, scope: str | None = None, value: int = 0) -> None:
        """The operator sets a metadata key or the status, aborts or reopens the job."""
        received_at = microseconds(self.now)
        parts: dict[str, Part] = {}
        if scope is not None and scope.startswith("meta:"):
            statement = Statement(value, value)
            parts[scope] = Part(msgspec.json.encode(value))
        elif scope is not None:
            pair = ("InProgress", str(value))
            statement = Statement(pair, pair, RANKS["InProgress"])
            parts[scope] = Part(
                msgspec.json.encode({"status": pair[0], "abandonReason": pair[1]}), statement.phase
            )
        accepted = self.server.change(kind, parts, received_at)
        if not accepted:
            return
        assert not (self.oracle.aborted and "status" in parts), "the mark guards the status"
        if kind == "reopen":
            self.oracle.reopen(received_at)
        elif kind == "abort":
            self.oracle.aborted = True
        elif scope is not None:
            self.oracle.operate(scope, statement, received_at)
        rev = self.server.read().rev
        assert rev > self._rev or kind != "edit"
        self._rev = rev
        self.check()

    # What must hold.

    def check(self) -> None:
        """The server shows what true causality demands."""
        reply = self.server.read()
        if reply.status == 200:
            assert reply.rev == self._rev
            document = reply.document()
            self._see_version(reply.rev, document)
            self.oracle.check(document)

    def quiesce(self) -> None:
        """The network recovers, everybody pushes and pulls: all devices hold the server's job."""
        self.deliver_delayed()
        for device in self.devices * 2:
            for _ in range(3):
                self.tick()
                if device.job is not None and device.job.unsent:
                    device.push("arrives", minimal=False)
            assert device.job is None or not device.job.unsent, "retry loops end"
        reply = self.server.read()
        for device in self.devices if reply.status == 200 else ():
            if device.job is not None:
                device.job.base = None  # a full pull: no 304
            device.pull()
            assert device.tablet.view(JOB) == comparable(reply.document())
