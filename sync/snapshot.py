"""The wire form: one posted body becomes a :class:`Snapshot`, taken apart into scopes.

Only what merging needs is decoded; every value stays the slice of bytes that was sent, so that unknown
members, member order and spellings such as 2.50 survive (section 6.14 of the primary specification shows
the document; scopes are explained in docs/protocol.md).
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from sync.errors import InvalidSnapshot, MalformedSnapshot, SyncError
from sync.values import TOO_DEEP, TooDeep, body_hash, check_depth, check_values, decode, digest, parse_time

MAX_ID_LENGTH = 128
#: Last segments of addresses beside ``/jobs/v1/{clientJobId}``; a job of that name could not be read.
RESERVED_IDS = frozenset(
    {"my", "workflow", "snapshots", "bson", "abort", "basicsync", "batchsync", "changes", "reopen"}
)

CURRENT, COMPLETED, CANCELLED = 0, 1, 2

#: Ranks of the known statuses; a name not listed here ranks with InProgress.
STATUS_RANK = {"created": 0, "inprogress": 1, "active": 1, "paused": 1, "completed": 2, "abandoned": 2}
FINISHED_RANK = 2
ABORTED = "aborted"

_SERVER_OWNED_TOP = frozenset({"jobId", "team", "excluded", "jobExclusion", "sync"})
_NO_SCOPE_TOP = _SERVER_OWNED_TOP | {"metadata", "completedSteps", "cancelledSteps"}
#: A step's own time is the first of these that it has.
_STEP_TIMES = ("updated", "cancelled", "completed", "started")
_STRUCTURE_HEAD = frozenset(
    {
        *("clientJobId", "metadata", "created", "updated", "modified", "currentStep"),
        *("status", "abandonReason", "userId", "username"),
    }
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)


class Refs(NamedTuple):
    """What a step refers to, each item as JSON text: photo ids, and names of files attached to its note."""

    values: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


NO_REFS = Refs()


class Part(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """One scope of a snapshot.

    Attributes:
        value: the bytes sent.
        phase: of a step CURRENT, COMPLETED or CANCELLED; of ``status`` its rank; else 0.
        time: a step's own time as sent (updated, else cancelled, completed, started).
        refs: the resources a step refers to.
    """

    value: bytes
    phase: int = 0
    time: str | None = None
    refs: Refs = NO_REFS


class Envelope(msgspec.Struct, frozen=True):
    """The optional top-level ``sync`` of a push. Members that only replies have are ignored."""

    installId: str | None = None
    pushSeq: int | None = None
    base: str | None = None
    clientSentAt: str | None = None
    confirm: list[str] | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One valid snapshot.

    Attributes:
        body: the bytes as they came.
        body_hash: names the content as it is spelled; see :func:`sync.values.body_hash`.
        scopes: scope -> part. ``aborted`` says that the status was Aborted, which is no scope.
        created, updated: the header's times, raw JSON strings, or None.
        install_id, push_seq, base, sent_at, confirm: the envelope; install_id is None for a legacy snapshot.
    """

    client_job_id: str
    body: bytes
    body_hash: bytes
    scopes: dict[str, Part]
    aborted: bool
    abort_value: bytes
    created: str | None
    updated: str | None
    install_id: str | None = None
    push_seq: int = 0
    base: str | None = None
    sent_at: int | None = None
    confirm: frozenset[str] = frozenset()

    def resources(self) -> tuple[str, ...]:
        """Ids of the photos and files that the steps refer to."""
        referring = [part.refs for part in self.scopes.values() if part.refs is not NO_REFS]
        return resource_ids(referring) if referring else ()


class _Body(msgspec.Struct, gc=False):
    uniqueStepId: str | None = None
    updated: str | None = None
    cancelled: str | None = None
    completed: str | None = None
    started: str | None = None
    valueResourceIds: list[Any] | None = None
    noteResourceFilenames: list[Any] | None = None


class _Step(msgspec.Struct, gc=False):
    singleStep: _Body | None = None
    reportStep: _Body | None = None


class _Header(msgspec.Struct, gc=False):
    clientJobId: Any = None
    workflowId: str | None = None
    workflowVersionId: str | None = None
    jobTitle: str | None = None
    workflowName: str | None = None
    created: str | None = None
    updated: str | None = None
    status: str | None = None
    abandonReason: str | None = None
    userId: str | None = None
    username: str | None = None
    metadata: dict[str, msgspec.Raw] | None = None
    currentStep: _Step | None = None


class _Document(msgspec.Struct, gc=False):
    metadata: _Header
    completedSteps: list[_Step] | None = None
    cancelledSteps: list[_Step] | None = None


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_document = msgspec.json.Decoder(_Document)
_step = msgspec.json.Decoder(_Step)
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_envelope = msgspec.json.Decoder(Envelope | None)
_sorted_encode = msgspec.json.Encoder(order="sorted").encode


def resource_ids(referring: Iterable[tuple[tuple[str, ...], tuple[str, ...]]]) -> tuple[str, ...]:
    """The ids among references, in order, once each. What is no string names no file."""
    texts: dict[str, None] = {}
    for values, notes in referring:
        texts.update(dict.fromkeys(values))
        texts.update(dict.fromkeys(notes))
    return tuple(msgspec.json.decode(text) for text in texts if text[0] == '"')


def parse(body: bytes, expected_id: str | None = None) -> Snapshot:
    """Take a posted body apart.

    Args:
        body: JSON, the whole job document.
        expected_id: the clientJobId of the address; the body may then leave it out, but not contradict it.

    Raises:
        MalformedSnapshot: no JSON that can be kept.
        InvalidSnapshot: JSON, but not a snapshot; ``field`` says where.
    """
    try:
        check_values(body)
        top = _members.decode(body)
        return _parse(body, top, expected_id)
    except (TooDeep, RecursionError):
        raise MalformedSnapshot("too-deep", f"The body is {TOO_DEEP}.", field="$") from None
    except msgspec.ValidationError as error:
        if "Expected `object`" in str(error):
            raise InvalidSnapshot("invalid-snapshot", "A snapshot is a JSON object.", field="$") from None
        raise _malformed(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _malformed(error) from None


def _parse(body: bytes, top: dict[str, msgspec.Raw], expected_id: str | None) -> Snapshot:
    # The typed form says what is there; the raw members, which bytes it stands for.
    typed = _typed(body, top)
    header = typed.metadata
    head = _members.decode(top["metadata"])
    client_job_id = _client_job_id(header.clientJobId, expected_id)

    scopes: dict[str, Part] = {}
    aborted = _status(header, head, scopes)
    if header.userId is not None or header.username is not None:
        scopes["assignee"] = Part(_pair(head, "userId", "username"))
    check_depth(bytes(top["metadata"]), 1)
    for key, raw in head.items():
        if key not in _STRUCTURE_HEAD:
            scopes["head:" + key] = Part(bytes(raw))
    if header.metadata:
        for key, raw in header.metadata.items():
            scopes["meta:" + key] = Part(bytes(raw))
    if header.currentStep is not None:
        _add_step(scopes, CURRENT, header.currentStep, bytes(head["currentStep"]))
    for key, raw in top.items():
        if key == "completedSteps" and typed.completedSteps:
            _add_steps(scopes, COMPLETED, typed.completedSteps, raw)
        elif key == "cancelledSteps" and typed.cancelledSteps:
            _add_steps(scopes, CANCELLED, typed.cancelledSteps, raw)
        elif key != "metadata":
            value = bytes(raw)
            check_depth(value, 1)
            if key not in _NO_SCOPE_TOP:
                scopes["top:" + key] = Part(value)

    return Snapshot(
        client_job_id=client_job_id,
        body=body,
        body_hash=body_hash(body, bytes(top["sync"]) if "sync" in top else None),
        scopes=scopes,
        aborted=aborted,
        abort_value=_pair(head, "status", "abandonReason") if aborted else b"",
        created=header.created,
        updated=header.updated,
        **_read_envelope(top),
    )


def _malformed(error: Exception) -> SyncError:
    return MalformedSnapshot("malformed-json", f"The body is not JSON that can be kept: {error}.")


def check_client_job_id(value: Any, field: str = "metadata.clientJobId") -> str:
    """``value`` if it can name a job: 1 to 128 printable characters, no slash, not reserved."""
    if value is None:
        raise InvalidSnapshot("invalid-client-job-id", "A snapshot needs a clientJobId.", field=field)
    if not isinstance(value, str):
        raise InvalidSnapshot("invalid-client-job-id", "A clientJobId is a string.", field=field)
    if not 1 <= len(value) <= MAX_ID_LENGTH or not value.isprintable() or "/" in value:
        raise InvalidSnapshot(
            "invalid-client-job-id",
            f"A clientJobId is 1 to {MAX_ID_LENGTH} printable characters without a slash.",
            field=field,
        )
    if value.casefold() in RESERVED_IDS:
        raise InvalidSnapshot("invalid-client-job-id", f"{value!r} is reserved for an address.", field=field)
    return value


def _client_job_id(value: Any, expected: str | None) -> str:
    if expected is None:
        return check_client_job_id(value)
    if value is not None and value != expected:
        raise InvalidSnapshot(
            "client-job-id-differs",
            "The clientJobId of the body is not that of the address.",
            field="metadata.clientJobId",
        )
    return expected


def _typed(body: bytes, top: dict[str, msgspec.Raw]) -> _Document:
    """The members that merging reads, with their types checked."""
    try:
        return _document.decode(body)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise _invalid(message, _with_index(where.rstrip("`").lstrip("."), top)) from None


def _with_index(path: str, top: dict[str, msgspec.Raw]) -> str:
    """``path`` with the place in the array, which the decoder leaves out."""
    key, dots, _ = path.partition("[...]")
    if not dots:
        return path or "metadata"
    for index, raw in enumerate(_raws.decode(top[key]) if key in top else ()):
        try:
            _step.decode(raw)
        except msgspec.ValidationError as error:
            return f"{key}[{index}]" + str(error).partition(" - at `$")[2].rstrip("`")
    return path


def _invalid(message: str, field: str, code: str = "invalid-snapshot") -> InvalidSnapshot:
    return InvalidSnapshot(code, f"{field}: {message}.", field=field)


def _pair(head: dict[str, msgspec.Raw], first: str, second: str) -> bytes:
    """Two members of the header as an object of their own."""
    if first in head and second in head:
        return b'{"%s":%s,"%s":%s}' % (
            first.encode(),
            bytes(head[first]),
            second.encode(),
            bytes(head[second]),
        )
    key = first if first in head else second
    return b'{"%s":%s}' % (key.encode(), bytes(head[key]))


def _status(header: _Header, head: dict[str, msgspec.Raw], scopes: dict[str, Part]) -> bool:
    """Add the scope ``status``; answer whether the status is Aborted, which is a mark and no scope."""
    if header.status is None:
        # Without a status its reason stands for itself, so that it is not lost.
        if header.abandonReason is not None:
            scopes["head:abandonReason"] = Part(bytes(head["abandonReason"]))
        return False
    folded = header.status.casefold()
    if folded == ABORTED:
        return True
    scopes["status"] = Part(_pair(head, "status", "abandonReason"), STATUS_RANK.get(folded, 1))
    return False


def _add_steps(scopes: dict[str, Part], phase: int, steps: list[_Step], array: msgspec.Raw) -> None:
    for step, raw in zip(steps, _raws.decode(array), strict=True):
        value = bytes(raw)
        check_depth(value, 2)
        _add_step(scopes, phase, step, value)


def _add_step(scopes: dict[str, Part], phase: int, step: _Step, value: bytes) -> None:
    """Add a step under its key: uniqueStepId of singleStep, else of reportStep, else its own content."""
    single, report = step.singleStep, step.reportStep
    key = (single and single.uniqueStepId) or (report and report.uniqueStepId)
    scope = "step:" + key if key else "step:#" + digest(0, value).hex()
    body = single or report
    time = None
    refs = NO_REFS
    if body is not None:
        time = body.updated or body.cancelled or body.completed or body.started
        if report is not None:
            refs = _refs_within(decode(value))
        elif body.valueResourceIds or body.noteResourceFilenames:
            refs = Refs(_ref_items(body.valueResourceIds), _ref_items(body.noteResourceFilenames))
    known = scopes.get(scope)
    if known is None or known.phase <= phase:
        scopes[scope] = Part(value, phase, time, refs)


def _ref_items(items: Any) -> tuple[str, ...]:
    """Items as canonical JSON text; empty objects (the specification's examples show them) say nothing."""
    if not items or not isinstance(items, list):
        return ()
    texts = [_sorted_encode(item).decode() for item in items if item not in (None, {})]
    return tuple(texts) if len(texts) < 2 else tuple(dict.fromkeys(texts))


def _refs_within(value: Any) -> Refs:
    """References of a step and of everything nested in it: children of a form may stand in reportStep."""
    values: dict[str, None] = {}
    notes: dict[str, None] = {}
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if item.get("valueResourceIds"):
                values.update(dict.fromkeys(_ref_items(item["valueResourceIds"])))
            if item.get("noteResourceFilenames"):
                notes.update(dict.fromkeys(_ref_items(item["noteResourceFilenames"])))
            item = item.values()
        pending.extend([inner for inner in reversed(item) if type(inner) in _NESTING])
    return Refs(tuple(values), tuple(notes))


_NESTING = (dict, list)


def _read_envelope(top: dict[str, msgspec.Raw]) -> dict[str, Any]:
    raw = top.get("sync")
    if raw is None:
        return {}
    try:
        envelope = _envelope.decode(raw)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise _invalid(message, "sync" + where.rstrip("`"), "invalid-envelope") from None
    if envelope is None or (envelope.installId is None and envelope.pushSeq is None):
        return {}
    if envelope.installId is None or not _UUID.fullmatch(envelope.installId):
        raise InvalidSnapshot("invalid-envelope", "sync.installId must be a UUID.", field="sync.installId")
    if envelope.pushSeq is None or not 1 <= envelope.pushSeq < 2**63:
        raise InvalidSnapshot(
            "invalid-envelope", "sync.pushSeq must be an integer from 1.", field="sync.pushSeq"
        )
    sent_at = None
    if envelope.clientSentAt is not None:
        sent_at = parse_time(envelope.clientSentAt)
        if sent_at is None:
            raise InvalidSnapshot(
                "invalid-envelope", "sync.clientSentAt must be an RFC 3339 time.", field="sync.clientSentAt"
            )
    return {
        "install_id": envelope.installId.lower(),
        "push_seq": envelope.pushSeq,
        "base": envelope.base,
        "sent_at": sent_at,
        "confirm": frozenset(envelope.confirm or ()),
    }
