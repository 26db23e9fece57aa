"""The merge keeps its promises whatever happens: tablets offline, clocks wrong, requests lost, twice or late.

The numbers in the names are those of the properties in docs/protocol.md.
"""

from datetime import timedelta
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.jobs import inspection_jobs
from sync import merge
from sync.edits import Job
from sync.snapshot import parse
from tests.sync.machine import REPEATABLE, STEPS, Fleet
from tests.sync.model import JOB, MORNING, World, respelled, step_of
from tests.sync.oracle import CANCELLED, COMPLETED, CURRENT, Request, microseconds
from tests.sync.servers import PureServer, at, stored


class MergingFleet(Fleet):
    """The world against the pure merge."""

    def server(self) -> PureServer:
        return PureServer(JOB)


MergingFleet.TestCase.settings = settings(REPEATABLE, max_examples=350, stateful_step_count=30)


class TestWhateverHappensTheJobIsWhatCausalityMakesIt(MergingFleet.TestCase):
    """Properties 2 to 7, 10 and 15, by the oracle, after every event and at the end."""


def ordered(job: Job) -> Any:
    """Everything that decides what is shown: times, winners, order, conflicts."""
    return {
        scope: [(edit.install, edit.seq, edit.base, edit.rev, edit.ts, edit.phase) for edit in kept.live]
        for scope in job.scopes
        if (kept := job.scope(scope)) is not None
    }, (
        job.created and job.created[0],
        job.updated and job.updated[0],
        job.rev,
        job.aborted and job.aborted.ts,
    )


deeds = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["step a", "step b", "step a", "status", "push", "push", "sync"]),
        st.sampled_from([CURRENT, COMPLETED, CANCELLED]),
    ),
    min_size=6,
    max_size=30,
)


def do(world: World, device: int, deed: str, choice: int) -> None:
    """One deed of one device."""
    world.tick()
    who = world.devices[device]
    if deed.startswith("step"):
        who.work_on(deed[-1], choice, world.value(), photo=choice == CANCELLED)
    elif deed == "status":
        status = ("InProgress", "Paused", "Completed")[choice]
        who.decide(lambda: who.tablet.set_status(JOB, status, str(world.value())))
    else:
        who.push("lost reply" if choice == CURRENT else "arrives", minimal=False)
        if deed == "sync":
            who.pull()


@given(deeds, st.integers(-100_000, 100_000))
@settings(REPEATABLE, max_examples=60)
def test_19_shifting_a_clock_changes_no_time_winner_order_or_conflict(
    events: list[tuple[int, str, int]], shift: int
) -> None:
    skews = (timedelta(hours=-3), timedelta(), timedelta(days=1))
    worlds = [World(PureServer(JOB), (skew, *skews[1:])) for skew in (skews[0], timedelta(seconds=shift))]
    for event in events:
        for world in worlds:
            do(world, *event)
        left, right = (world.server for world in worlds)
        assert isinstance(left, PureServer)
        assert isinstance(right, PureServer)
        assert ordered(left.job) == ordered(right.job)


# What single devices push, without a world around.


def body(
    steps: dict[str, tuple[int, int]],
    *,
    install: int | None = None,
    seq: int = 1,
    base: int | None = None,
    status: str | None = None,
    meta: dict[str, Any] | None = None,
    time: int = 0,
    sent: int | None = None,
) -> bytes:
    """A snapshot; ``steps``: key -> (value, time in seconds after the morning). Times are the device's."""
    document: dict[str, Any] = {
        "metadata": {"clientJobId": JOB, "metadata": meta or {}, "updated": moment(time)},
        "completedSteps": [],
    }
    if status is not None:
        document["metadata"].update(status=status, abandonReason=f"{install}.{seq}")
    for key, (value, when) in steps.items():
        step = step_of(key, value)
        step["singleStep"]["updated"] = moment(when)
        document["completedSteps"].append(step)
    if install is not None:
        document["sync"] = {"installId": f"00000000-0000-4000-8000-{install:012}", "pushSeq": seq}
        if base is not None:
            document["sync"]["base"] = f'"0a1b2c3d.{base}"'
        if sent is not None:
            document["sync"]["clientSentAt"] = moment(sent)
    return msgspec.json.encode(document)


def moment(seconds: int) -> str:
    return at(microseconds(MORNING) + seconds * 1_000_000)


def send(server: PureServer, content: bytes, now: int, user: str = "user") -> Any:
    """Push one body at ``now`` (seconds after the morning); answers the merged job."""
    request = Request("", 0, content, user, {}, None, 0, None)  # type: ignore[arg-type]
    (reply,) = server.push([request], microseconds(MORNING) + now * 1_000_000)
    assert reply.status == 200
    return reply.document()


def one_view(document: Any) -> Any:
    """What two servers that took the same pushes in another order must agree on."""
    document["metadata"].pop("modified")
    sync = document.pop("sync")
    conflicts = {entry["scope"]: entry for entry in sync["conflicts"]}
    for entry in conflicts.values():
        for value in entry["values"]:
            value.pop("rev")
    return document, conflicts, sync["openSteps"]


pushes = st.lists(
    st.fixed_dictionaries(
        {
            "keys": st.sets(st.sampled_from(STEPS), min_size=1),
            "status": st.sampled_from([None, "Paused", "Completed", "Aborted"]),
            "meta": st.booleans(),
        }
    ),
    min_size=1,
    max_size=3,
)


@given(st.lists(pushes, min_size=2, max_size=3), st.booleans(), st.data())
@settings(REPEATABLE, max_examples=150)
def test_1_unpulled_devices_give_one_view_in_any_interleaving(
    fleets: list[list[dict[str, Any]]], with_legacy: bool, data: st.DataObject
) -> None:
    turns = list(chain.from_iterable([device] * len(sent) for device, sent in enumerate(fleets)))
    views = []
    for order in (turns, data.draw(st.permutations(turns))):
        server, done = PureServer(JOB), [0] * len(fleets)
        document: Any = None
        for now, device in enumerate(order, start=1000):
            legacy = with_legacy and device == 0
            skew = 0 if legacy else 50_000 * (device - 1)
            done[device] += 1
            said: dict[str, tuple[int, int]] = {}
            meta: dict[str, Any] = {}
            status = None
            # A device says all that it has said before, and what is new.
            for seq, push in enumerate(fleets[device][: done[device]], start=1):
                made = 100 * device + 10 * seq
                said |= dict.fromkeys(push["keys"], (made, made + skew))
                if push["meta"]:
                    meta["k"] = made
                if not legacy:
                    status = push["status"] or status
            content = body(
                said,
                install=None if legacy else device,
                seq=done[device],
                status=status,
                meta=meta,
                time=100 * device + 10 * done[device] + skew,
                sent=None if legacy else now + skew,
            )
            document = send(server, content, now)
        views.append(one_view(document))
    assert views[0] == views[1]


@given(
    st.lists(st.sets(st.sampled_from(["a", "b", "c"]), min_size=1), min_size=2, max_size=5).flatmap(
        lambda said: st.tuples(st.just(said), st.permutations(range(len(said))))
    )
)
@settings(REPEATABLE, max_examples=150)
def test_3_an_older_push_overwrites_nothing_newer_and_loses_nothing_the_newer_lacks(
    case: tuple[list[set[str]], list[int]],
) -> None:
    said, order = case
    server = PureServer(JOB)
    document: Any = None
    for now, index in enumerate(order, start=100):
        steps = dict.fromkeys(said[index], (index, index))
        document = send(server, body(steps, install=1, seq=index + 1, time=index, sent=now), now)
    shown = {
        step["singleStep"]["uniqueStepId"]: step["singleStep"]["values"][0]
        for step in document["completedSteps"]
    }
    assert shown == {
        key: max(index for index, keys in enumerate(said) if key in keys) for key in set().union(*said)
    }
    assert document["sync"]["conflicts"] == []


@given(st.integers(-(10**7), 10**7), st.integers(-(10**7), 10**7), st.booleans())
@settings(REPEATABLE, max_examples=60)
def test_4_an_informed_edit_wins_without_conflict_whatever_the_clocks(
    first: int, second: int, tells_time: bool
) -> None:
    server = PureServer(JOB)
    clock = {"sent": first} if tells_time else {}
    seen = send(server, body({"a": (1, first)}, install=1, time=first, **clock), 100)
    clock = {"sent": second} if tells_time else {}
    informed = body({"a": (2, second)}, install=2, base=seen["sync"]["rev"], time=second, **clock)
    merged = send(server, informed, 101)
    assert merged["completedSteps"][0]["singleStep"]["values"] == [2]
    assert merged["sync"]["conflicts"] == []


@given(st.permutations(["Aborted", "Completed", "Paused", None]), st.booleans())
@settings(REPEATABLE, max_examples=50)
def test_6_aborted_absorbs_in_any_order_and_steps_still_merge(
    statuses: list[str | None], informed: bool
) -> None:
    server = PureServer(JOB)
    base = None
    aborted = False
    for index, status in enumerate(statuses):
        content = body(
            {f"s{index}": (index, index)}, install=index, status=status, base=base, time=index, sent=index
        )
        document = send(server, content, 100 + index)
        aborted = aborted or status == "Aborted"
        assert (document["metadata"]["status"] == "Aborted") == aborted
        assert len(document["completedSteps"]) == index + 1
        base = document["sync"]["rev"] if informed else None


@pytest.mark.parametrize("document", inspection_jobs(12), ids=lambda item: item["metadata"]["jobTitle"])
def test_7_a_pulled_job_sent_back_respelled_is_an_echo(document: dict[str, Any]) -> None:
    server = PureServer(document["metadata"]["clientJobId"])
    pulled = send(server, msgspec.json.encode(document), 10**8)
    envelope = {"installId": "00000000-0000-4000-8000-000000000001", "pushSeq": 1}
    envelope["base"] = pulled.pop("sync")["etag"]
    before = server.job
    again = send(server, msgspec.json.encode(respelled({**pulled, "sync": envelope})), 10**8 + 1)
    assert again["sync"]["rev"] == before.rev
    assert server.job == stored(before)


@given(st.integers(1, 4), st.integers(0, 10**6))
@settings(REPEATABLE, max_examples=30)
def test_2_applying_the_same_push_again_changes_nothing_even_in_the_merge(base: int, later: int) -> None:
    job = PureServer(JOB).job
    snapshot = parse(body({"a": (1, 1)}, install=1, status="Paused", meta={"k": 1}, time=1))
    push = merge.Push("i", 1, 0, microseconds(MORNING), snapshot.scopes, updated=snapshot.updated)
    merged = merge.apply(job, push).job
    repeated = merge.Push(
        "i", base, 0, push.received_at + later * 1_000_000, snapshot.scopes, updated=snapshot.updated
    )
    again = merge.apply(merged, repeated)
    assert (again.edits, again.changed) == (0, False)
    assert again.job.rev == merged.rev
