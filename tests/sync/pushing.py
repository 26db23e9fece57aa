"""Pushes one at a time, written as short as the rules they are examples of."""

from typing import Any

import msgspec

from fixtures.jobs import Document
from sync.edits import Job
from sync.snapshot import Part
from tests.sync.model import JOB, MORNING, step_of
from tests.sync.oracle import Knowledge, Request, microseconds
from tests.sync.servers import INCARNATION, Change, PureServer, at

A, B, C = (f"00000000-0000-4000-8000-00000000000{digit}" for digit in "abc")
SECOND = 1_000_000
START = microseconds(MORNING)


def moment(seconds: float) -> str:
    """So many seconds after the morning, as a client writes it."""
    return at(START + int(seconds * SECOND))


def step(
    key: str | None, value: Any, time: float | None = None, photos: list[Any] | None = None, **members: Any
) -> Document:
    """A step; ``time`` is its `updated`, seconds after the morning by its writer's clock."""
    made = step_of(key or "", value)
    made["singleStep"].update(valueResourceIds=photos, **members)
    if key is None:
        del made["singleStep"]["uniqueStepId"]
    if time is not None:
        made["singleStep"]["updated"] = moment(time)
    return made


def snapshot(
    install: str | None = None,
    *,
    seq: int = 1,
    base: int | str | None = None,
    sent: float | None = None,
    confirm: tuple[str, ...] = (),
    completed: tuple[Document, ...] = (),
    cancelled: tuple[Document, ...] = (),
    top: Document | None = None,
    time: float | None = None,
    job: str = JOB,
    **head: Any,
) -> bytes:
    """A body. ``base`` is a revision of the pure server or a whole ETag; ``time`` the header's `updated`."""
    document: Document = {"metadata": {"clientJobId": job, **head}, **(top or {})}
    if time is not None:
        document["metadata"]["updated"] = moment(time)
    if completed:
        document["completedSteps"] = list(completed)
    if cancelled:
        document["cancelledSteps"] = list(cancelled)
    if install is not None:
        envelope: Document = {"installId": install, "pushSeq": seq}
        if base is not None:
            envelope["base"] = base if isinstance(base, str) else f'"{INCARNATION}.{base}"'
        if sent is not None:
            envelope["clientSentAt"] = moment(sent)
        if confirm:
            envelope["confirm"] = list(confirm)
        document["sync"] = envelope
    return msgspec.json.encode(document)


class Office:
    """A pure server that one pushes to. Time passes by a second with every push."""

    def __init__(self) -> None:
        self.server = PureServer(JOB)
        self.now = 1000.0
        self._seqs: dict[str, int] = {}

    @property
    def job(self) -> Job:
        return self.server.job

    def push(
        self,
        install: str | None,
        *,
        body: bytes | None = None,
        user: str = "user",
        minimal: bool = False,
        seq: int | None = None,
        **said: Any,
    ) -> Document:
        """Push as ``install`` (None: a legacy client of ``user``) under its next number; the answer."""
        if install is not None:
            self._seqs[install] = seq or self._seqs.get(install, 0) + 1
        content = body or snapshot(install, seq=self._seqs.get(install or "", 1), **said)
        self.now += 1
        request = Request("", 0, content, user, {}, Knowledge(), 0, None, minimal=minimal)
        (reply,) = self.server.push([request], START + int(self.now * SECOND))
        document: Document = reply.document()
        assert reply.status == 200, document
        return document

    def operate(self, kind: Change = "edit", **parts: bytes) -> bool:
        """An operator's change; scopes are written ``meta_k`` for ``meta:k``."""
        self.now += 1
        scopes = {
            name.replace("_", ":"): Part(value, 2 if b"Completed" in value else 1 if name == "status" else 0)
            for name, value in parts.items()
        }
        return self.server.change(kind, scopes, START + int(self.now * SECOND))

    def view(self) -> Document:
        document: Document = self.server.read().document()
        return document

    def times(self, scope: str) -> list[float]:
        """Corrected times of the live edits, seconds after the morning, greatest first."""
        said = self.job.scope(scope)
        assert said is not None
        return [(edit.ts - START) / SECOND for edit in said.live]


def values(document: Document, name: str = "completedSteps") -> dict[str, Any]:
    """Key -> value of the steps in a list."""
    return {
        item["singleStep"]["uniqueStepId"]: item["singleStep"]["values"][0] for item in document[name] or []
    }


def conflict(document: Document, scope: str) -> list[Any]:
    """The values that stand against a scope's shown one."""
    return [
        other["value"]
        for entry in document["sync"]["conflicts"]
        if entry["scope"] == scope
        for other in entry["values"]
    ]
