"""The ingest keeps the same promises over real databases, and those that only a database can break.

The numbers in the names are those of the properties in docs/protocol.md.
"""

from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import func, select

from storage.database import Connection
from storage.queries import jobs as job_queries
from storage.tables import completed_jobs, feed_entries, feeds, jobs, metadata, quarantine, snapshots
from sync.errors import Conflict, Forbidden, Gone, MalformedSnapshot, PreconditionFailed, SyncError
from sync.etag import format_etag
from sync.items import Applied, Caller, ChangeItem, PushItem, RefusedItem, Result
from sync.snapshot import parse
from tests.sync.machine import REPEATABLE, Fleet
from tests.sync.model import JOB
from tests.sync.pushing import SECOND, START, A, B, snapshot, step
from tests.sync.servers import IngestServer, Site

_numbers = count(1)


def new_install() -> str:
    """An installId that no other test uses."""
    return f"00000000-0000-4000-9000-{next(_numbers):012}"


def item(caller: Caller, body: bytes, second: int = 1000, if_match: str | None = None) -> PushItem:
    return PushItem(caller, parse(body), START + second * SECOND, if_match)


def applied(result: Result) -> Applied:
    assert isinstance(result, Applied), result
    return result


def edit(caller: Caller, kind: Any, job: str = JOB, second: int = 1000) -> ChangeItem:
    return ChangeItem(caller, job, START + second * SECOND, kind, scopes=lambda _job: {}, body=b"{}")


# What a database holds.


def rows(connection: Connection, team_id: int, but: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Every row of a team, table by table."""
    return {
        table.name: sorted(map(repr, connection.execute(select(table).where(table.c.team_id == team_id))))
        for table in metadata.sorted_tables
        if "team_id" in table.c and table.name not in but
    }


def completed_now(connection: Connection, team_id: int) -> int:
    """How many jobs queries find as completed."""
    query = select(func.count()).select_from(completed_jobs)
    return int(
        connection.execute(
            query.where(completed_jobs.c.team_id == team_id, completed_jobs.c.completed)
        ).scalar_one()
    )


def kept_bodies(connection: Connection, team_id: int) -> int:
    """How many bodies the history holds; those of a deleted job are emptied."""
    query = select(func.count()).select_from(snapshots)
    return connection.execute(
        query.where(snapshots.c.team_id == team_id, func.length(snapshots.c.body) > 0)
    ).scalar_one()


def quarantined(connection: Connection, team_id: int) -> list[tuple[str, int]]:
    """(code, times) of what is kept in quarantine, in the order of its coming."""
    query = select(quarantine.c.code, quarantine.c.times).where(quarantine.c.team_id == team_id)
    return [tuple(row) for row in connection.execute(query.order_by(quarantine.c.quarantine_id))]


def sequence(connection: Connection, team_id: int) -> tuple[int, dict[str, int]]:
    """The feed's head, and the seq of each job."""
    head = connection.execute(select(feeds.c.head).where(feeds.c.team_id == team_id)).scalar_one()
    query = (
        select(jobs.c.client_job_id, feed_entries.c.seq)
        .join(
            feed_entries,
            (feed_entries.c.team_id == jobs.c.team_id) & (feed_entries.c.job_id == jobs.c.job_id),
        )
        .where(jobs.c.team_id == team_id)
    )
    return head, {row.client_job_id: row.seq for row in connection.execute(query)}


# The world of the merge's properties, on a database.


def test_whatever_happens_the_job_is_what_causality_makes_it(site: Site) -> None:
    class IngestingFleet(Fleet):
        def server(self) -> IngestServer:
            return IngestServer(site, JOB)

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "world"):
                server = self.world.server
                assert isinstance(server, IngestServer)
                head, seqs = site.read(sequence, server.caller.team_id)
                assert seqs == {JOB: head}, "property 10: the latest change has the latest number"

    run_state_machine_as_test(
        IngestingFleet,
        settings=settings(
            REPEATABLE, max_examples=60 if site.database.is_sqlite else 30, stateful_step_count=30
        ),
    )


# One transaction.

saying = st.fixed_dictionaries(
    {
        "install": st.sampled_from(["a", "b", None]),
        "job": st.sampled_from(["j1", "j1", "j2"]),
        "key": st.sampled_from(["x", "y"]),
        "value": st.integers(0, 3),
        "status": st.sampled_from([None, "Paused", "Completed", "Aborted"]),
        "informed": st.booleans(),
        "repeats": st.booleans(),
    }
)


def bodies(said: list[dict[str, Any]], incarnation: str, revs: dict[str, int]) -> list[bytes]:
    """The bodies of pushes; ``revs`` bounds what an informed one may have seen."""
    seqs = {"a": 0, "b": 0}
    made: list[bytes] = []
    for index, push in enumerate(said):
        if push["repeats"] and made:
            made.append(made[-1])
            continue
        install = {"a": A, "b": B, None: None}[push["install"]]
        if push["install"]:
            seqs[push["install"]] += 1
        base = format_etag(incarnation, revs[push["job"]]) if push["informed"] else None
        made.append(
            snapshot(
                install,
                seq=seqs.get(push["install"], 1),
                base=base,
                job=push["job"],
                completed=(step(push["key"], push["value"], 10 * index + 10),),
                status=push["status"],
                time=10 * index + 10,
            )
        )
    return made


def outcome(result: Result) -> Any:
    """What an answer says, without what names a server's own rows."""
    if isinstance(result, SyncError):
        return type(result), result.code
    view = None
    if result.job is not None:
        view = result.job.view.replace(result.job.job_id.encode(), b"").replace(result.job.team.encode(), b"")
    return result.action, result.rev, result.replayed, result.offset, view


@given(st.lists(saying, min_size=2, max_size=8))
@settings(REPEATABLE, max_examples=25)
def test_9_a_batch_equals_the_same_pushes_one_by_one_but_for_seq(
    site: Site, said: list[dict[str, Any]]
) -> None:
    together, single = site.team(), site.team()
    outcomes, stored = [], []
    for caller, at_once in ((together, True), (single, False)):
        incarnation = None
        first = [item(caller, snapshot(None, job=job, metadata={"first": 1})) for job in ("j1", "j2")]
        for result in site.submit(*first):
            incarnation = applied(result).incarnation
        assert incarnation is not None
        items = [item(caller, body, 2000) for body in bodies(said, incarnation, {"j1": 1, "j2": 1})]
        results = site.batch(*items) if at_once else [site.batch(each)[0] for each in items]
        outcomes.append([outcome(result) for result in results])
        # A job that is completed and taken up again in one transaction was completed for nobody: it gets no place.
        found = site.read(rows, caller.team_id, ("completed_jobs",))
        counts = {name: len(stored_rows) for name, stored_rows in found.items()}
        counts["completed_jobs"] = site.read(completed_now, caller.team_id)
        stored.append(counts)
    assert outcomes[0] == outcomes[1]
    assert stored[0] == stored[1]


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=4), max_size=5)
)
@settings(REPEATABLE, max_examples=20)
def test_10_seq_is_unique_and_in_commit_order_and_rises_only_with_a_change(
    site: Site, commits: list[list[tuple[int, int]]]
) -> None:
    caller = site.team()
    head, seqs = site.read(sequence, caller.team_id)
    for second, pushes in enumerate(commits, start=1000):
        before = {job: site.read(view_of, caller.team_id, job) for job in seqs}
        site.batch(
            *[
                item(caller, snapshot(None, job=f"j{job}", metadata={"k": value}, time=second), second)
                for job, value in pushes
            ]
        )
        new_head, new = site.read(sequence, caller.team_id)
        changed = {job for job in new if before.get(job) != site.read(view_of, caller.team_id, job)}
        assert {job for job in new if new[job] != seqs.get(job)} == changed
        assert all(head < new[job] <= new_head for job in changed)
        assert len(set(new.values())) == len(new)
        assert new_head == max(new.values())
        head, seqs = new_head, new


def view_of(connection: Connection, team_id: int, job: str) -> bytes | None:
    row = job_queries.by_client_job_id(connection, team_id, job)
    return row.view if row else None


# Refusals.


@pytest.mark.parametrize("case", ["malformed", "cloned", "deleted", "not yours", "If-Match"])
def test_8_a_refusal_leaves_no_trace_but_quarantine(site: Site, case: str) -> None:
    caller = site.team()
    install = new_install()
    for body in (snapshot(install, metadata={"k": 1}), snapshot(None, job="gone")):
        applied(site.submit(item(caller, body))[0])
    applied(site.submit(edit(caller, "delete", "gone"))[0])
    before = site.read(rows, caller.team_id, ("quarantine",))
    stranger = Caller(caller.team_id, caller.team_name, "stranger", own_work_only=True)
    refused, error, code = {
        "malformed": (
            RefusedItem(caller, b"{", START, MalformedSnapshot("malformed-json", "no JSON")),
            MalformedSnapshot,
            "malformed-json",
        ),
        "cloned": (item(caller, snapshot(install, metadata={"k": 2})), Conflict, "install-cloned"),
        "deleted": (item(caller, snapshot(new_install(), job="gone")), Gone, "job-deleted"),
        "not yours": (item(stranger, snapshot(new_install())), Forbidden, "not-your-job"),
        "If-Match": (
            item(caller, snapshot(new_install()), if_match='"x.1"'),
            PreconditionFailed,
            "precondition-failed",
        ),
    }[case]
    for times in (1, 2):
        (result,) = site.submit(refused)
        assert isinstance(result, error)
        assert result.code == code
        assert site.read(rows, caller.team_id, ("quarantine",)) == before
        kept = [] if case == "If-Match" else [(code, times)]
        assert site.read(quarantined, caller.team_id) == kept


def test_one_refused_push_harms_no_neighbour_of_its_commit(site: Site) -> None:
    caller = site.team()
    install = new_install()
    results = site.batch(
        item(caller, snapshot(install, metadata={"k": 1})),
        item(caller, snapshot(install, metadata={"k": 2})),
        item(caller, snapshot(install, seq=2, metadata={"k": 3})),
    )
    assert isinstance(results[1], Conflict)
    assert (applied(results[0]).rev, applied(results[2]).rev) == (1, 2)


@given(st.lists(st.sampled_from(["push", "push", "delete", "repeat", "legacy"]), min_size=3, max_size=10))
@settings(REPEATABLE, max_examples=15)
def test_14_a_deleted_job_stays_deleted_and_late_payloads_are_in_quarantine_once(
    site: Site, events: list[str]
) -> None:
    caller, deleted, late = site.team(), False, 0
    known: list[PushItem] = []
    for second, event in enumerate([*events, "delete", "push", "repeat"], start=1000):
        if event == "delete":
            deleted = isinstance(site.submit(edit(caller, "delete", second=second))[0], Applied) or deleted
            assert not deleted or site.read(view_of, caller.team_id, JOB) is None
            continue
        if event == "repeat":
            for each in known[-1:]:
                assert applied(site.submit(each)[0]).replayed
            continue
        install = None if event == "legacy" else new_install()
        push = item(caller, snapshot(install, metadata={"k": second}, time=second), second)
        result = site.submit(push)[0]
        assert isinstance(result, Gone) == deleted
        late += deleted
        if not deleted and install is not None:
            known.append(push)
        if deleted:
            site.submit(push)
    assert site.read(quarantined, caller.team_id) == [("job-deleted", 2)] * late
    assert site.read(kept_bodies, caller.team_id) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(["current", "former", "none"]), st.booleans(), st.booleans()),
        min_size=2,
        max_size=8,
    )
)
@settings(REPEATABLE, max_examples=20)
def test_16_an_if_match_succeeds_only_without_an_intervening_revision_and_never_hides_a_replay(
    site: Site, pushes: list[tuple[str, bool, bool]]
) -> None:
    caller, seen = site.team(), [""]
    last: PushItem | None = None
    for second, (condition, changes, repeats) in enumerate(pushes, start=1000):
        body = snapshot(new_install(), metadata={"k": second if changes else "same"}, time=second)
        tag = {"current": seen[-1], "former": seen[0], "none": None}[condition]
        push = item(caller, body, second, tag or None)
        (result,) = site.submit(push)
        if push.if_match is None or push.if_match == seen[-1]:
            merged = applied(result)
            etag = format_etag(merged.incarnation, merged.rev)
            last = push
            seen = [etag, etag] if seen == [""] else [seen[0], etag]
        else:
            assert isinstance(result, PreconditionFailed)
        if repeats and last is not None:
            assert applied(site.submit(last)[0]).replayed, "a replay comes before its precondition"


def test_17_no_team_sees_or_changes_anothers_rows(site: Site) -> None:
    north, south = site.team(), site.team()
    install = new_install()
    applied(site.submit(item(north, snapshot(install, metadata={"k": 1})))[0])
    before = site.read(rows, north.team_id)
    # The same job, install and number: another team's are other ones.
    results = site.batch(
        item(south, snapshot(install, metadata={"k": 2})), item(south, snapshot(install, seq=2, job="other"))
    )
    assert [applied(result).action for result in results] == ["created", "created"]
    site.submit(edit(south, "abort"))
    site.submit(edit(south, "delete"))
    assert isinstance(site.submit(item(south, snapshot(new_install())))[0], Gone)
    assert site.read(rows, north.team_id) == before
    job = applied(site.submit(item(north, snapshot(new_install(), metadata={"l": 1})))[0]).job
    assert job is not None
    assert msgspec.json.decode(job.view)["metadata"]["metadata"] == {"k": 1, "l": 1}


@given(st.integers(0, 3), st.integers(0, 3), st.booleans())
@settings(REPEATABLE, max_examples=20)
def test_18_two_bodies_under_one_number_are_detected_and_one_body_twice_is_a_replay(
    site: Site, first: int, second: int, together: bool
) -> None:
    caller, install = site.team(), new_install()
    items = [
        item(caller, snapshot(install, metadata={"k": value}, sent=time), time)
        for value, time in ((first, 1000), (second, 1001))
    ]
    results = site.batch(*items) if together else [site.batch(each)[0] for each in items]
    assert applied(results[0]).action == "created"
    if first == second:
        assert applied(results[1]).replayed
    else:
        assert isinstance(results[1], Conflict)


@given(st.integers(1, 50), st.booleans())
@settings(REPEATABLE, max_examples=15)
def test_a_base_that_is_not_ours_counts_as_none_and_loses_nothing(
    site: Site, beyond: int, foreign: bool
) -> None:
    caller = site.team()
    first = applied(site.submit(item(caller, snapshot(new_install(), metadata={"k": 1}, time=10)))[0])
    base = format_etag("ffffffff" if foreign else first.incarnation, first.rev + (0 if foreign else beyond))
    merged = applied(
        site.submit(item(caller, snapshot(new_install(), base=base, metadata={"k": 2}, time=5)))[0]
    )
    assert merged.reset
    assert merged.job is not None
    view = msgspec.json.decode(merged.job.view)
    assert view["metadata"]["metadata"] == {"k": 1}
    assert [other["value"] for other in view["sync"]["conflicts"][0]["values"]] == [2]
