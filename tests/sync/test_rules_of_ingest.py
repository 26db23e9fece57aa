"""The rules of reconciliation that need a history, a caller or an operator, one example each, over SQLite."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from storage.database import Connection, sqlite_url
from storage.queries.snapshots import of_job
from storage.tables import events
from sync.answers import push_answer
from sync.bodies import decompress
from sync.errors import Conflict, Forbidden, Gone, NotFound, PreconditionFailed, SyncError
from sync.etag import format_etag
from sync.items import Applied, Caller, ChangeItem, PushItem, Result
from sync.snapshot import Part, parse
from tests.sync.model import JOB
from tests.sync.pushing import SECOND, START, A, B, C, snapshot, step, values
from tests.sync.servers import Site


class Desk:
    """One team's side of an ingest, seen from one caller; time passes by a second with every item."""

    def __init__(self, site: Site, caller: Caller | None = None) -> None:
        self.site = site
        self.caller = caller or site.team()
        self.second = 1000

    def worker(self, subject: str) -> "Desk":
        """A field worker of the same team, who writes its own jobs."""
        desk = Desk(
            self.site, Caller(self.caller.team_id, self.caller.team_name, subject, own_work_only=True)
        )
        desk.second = self.second + 100
        return desk

    def item(self, body: bytes, if_match: str | None = None) -> PushItem:
        self.second += 1
        return PushItem(self.caller, parse(body), START + self.second * SECOND, if_match)

    def push(self, install: str | None, if_match: str | None = None, **said: Any) -> Applied:
        return done(self.site.batch(self.item(snapshot(install, **said), if_match))[0])

    def refused(self, install: str | None, if_match: str | None = None, **said: Any) -> SyncError:
        result = self.site.batch(self.item(snapshot(install, **said), if_match))[0]
        assert isinstance(result, SyncError)
        return result

    def change(self, kind: Any, if_match: str | None = None, **parts: tuple[bytes, int]) -> Result:
        """An operator's change; scopes are written ``meta_k`` for ``meta:k``."""
        self.second += 1
        scopes = {name.replace("_", ":"): Part(*part) for name, part in parts.items()}
        at = START + self.second * SECOND
        return self.site.batch(
            ChangeItem(self.caller, JOB, at, kind, scopes=lambda _job: scopes, body=b"{}", if_match=if_match)
        )[0]

    def history(self) -> list[bytes]:
        """The kept bodies, oldest first."""
        kept = self.site.read(of_job, self.caller.team_id, JOB, 0, 100) or []
        return [decompress(row.body) for row in reversed(kept)]

    def fired(self) -> list[str]:
        found: list[str] = self.site.read(event_types, self.caller.team_id)
        return found


def event_types(connection: Connection, team_id: int) -> list[str]:
    query = select(events.c.type).where(events.c.team_id == team_id).order_by(events.c.event_id)
    return list(connection.execute(query).scalars())


def done(result: Result) -> Applied:
    assert isinstance(result, Applied), result
    return result


def view(result: Applied) -> Any:
    assert result.job is not None
    return msgspec.json.decode(result.job.view)


def etag(result: Applied) -> str:
    return format_etag(result.incarnation, result.rev)


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("rules")
    site = Site(sqlite_url(folder / "fieldsync.db"))
    yield site
    site.close()


@pytest.fixture
def desk(open_site: Site) -> Desk:
    return Desk(open_site)


STATUS = (b'{"status":"Paused","abandonReason":null}', 1)
COMPLETED = (b'{"status":"Completed","abandonReason":null}', 2)


# Replays


def test_a_retry_is_a_replay_though_its_envelope_is_new(desk: Desk) -> None:
    first = desk.push(A, sent=1000, metadata={"k": 1})
    again = desk.push(A, sent=1005, base=etag(first), metadata={"k": 1})
    assert (first.action, first.replayed) == ("created", False)
    assert (again.action, again.replayed, again.rev) == ("unchanged", True, first.rev)


def test_a_retry_respelled_on_the_way_is_a_replay(desk: Desk) -> None:
    desk.push(A, metadata={"k": 1, "l": 2})
    assert desk.push(A, metadata={"l": 2.0, "k": 1}).replayed


def test_another_body_under_a_known_number_is_a_cloned_install(desk: Desk) -> None:
    desk.push(A, metadata={"k": 1})
    assert desk.refused(A, metadata={"k": 2}).code == "install-cloned"
    assert desk.refused(A, metadata={"k": 1}, job="another").code == "install-cloned"


def test_a_replay_comes_before_its_precondition(desk: Desk) -> None:
    first = desk.push(A, metadata={"k": 1})
    second = desk.push(B, if_match=etag(first), base=etag(first), metadata={"k": 2})
    assert desk.push(B, if_match=etag(first), base=etag(first), metadata={"k": 2}).replayed
    assert second.rev == 2


def test_a_replay_comes_before_the_410_of_a_deleted_job(desk: Desk) -> None:
    desk.push(A, metadata={"k": 1})
    done(desk.change("delete"))
    again = desk.push(A, metadata={"k": 1})
    assert (again.replayed, again.job) == (True, None)
    assert isinstance(desk.refused(A, seq=2, metadata={"k": 2}), Gone)
    assert isinstance(desk.change("abort"), NotFound)


def test_an_equal_legacy_body_is_merged_once(desk: Desk) -> None:
    desk.push(None, metadata={"k": 1}, time=10)
    desk.push(A, metadata={"k": 2}, time=900)
    again = desk.push(None, metadata={"k": 1}, time=10)
    assert (again.action, again.replayed) == ("unchanged", True)


def test_every_distinct_body_enters_the_history_once_as_it_came(desk: Desk) -> None:
    bodies = [snapshot(A, seq=1, metadata={"k": 1.50}), snapshot(A, seq=2, metadata={"k": 2})]
    for body in (*bodies, bodies[0]):
        done(desk.site.batch(desk.item(body))[0])
    assert desk.history() == bodies


# Base and revisions


@pytest.mark.parametrize("base", ["beyond", "foreign", "nonsense"])
def test_a_base_that_is_not_ours_counts_as_none_and_the_answer_says_reset(desk: Desk, base: str) -> None:
    first = desk.push(A, metadata={"k": 1}, time=900)
    given = {"beyond": format_etag(first.incarnation, 99), "foreign": '"ffffffff.1"', "nonsense": "x"}[base]
    merged = desk.push(B, base=given, metadata={"k": 2}, time=10)
    assert merged.reset
    assert view(merged)["metadata"]["metadata"] == {"k": 1}
    assert len(view(merged)["sync"]["conflicts"]) == 1


def test_each_push_of_a_group_commit_has_its_own_revision_and_body(desk: Desk) -> None:
    items = [desk.item(snapshot(install, metadata={install[-1]: 1})) for install in (A, B, C)]
    results = [done(result) for result in desk.site.submit(*items)]
    assert [result.rev for result in results] == [1, 2, 3]
    assert [len(view(result)["metadata"]["metadata"]) for result in results] == [1, 2, 3]
    # Whoever was shown an intermediate version has seen no more than that.
    merged = desk.push(A, seq=2, base=etag(results[0]), metadata={"c": 2}, time=1)
    assert len(view(merged)["sync"]["conflicts"]) == 1


def test_an_edit_that_changes_no_view_raises_the_revision_and_fires_nothing(desk: Desk) -> None:
    desk.push(A, metadata={"k": 1})
    fired = desk.fired()
    recorded = desk.push(B, metadata={"k": 1})
    assert (recorded.action, recorded.rev) == ("recorded", 2)
    assert desk.fired() == fired


def test_if_match_must_name_the_current_revision(desk: Desk) -> None:
    first = desk.push(A, metadata={"k": 1})
    second = desk.push(A, seq=2, if_match=etag(first), metadata={"k": 2})
    refused = desk.refused(A, seq=3, if_match=etag(first), metadata={"k": 3})
    assert isinstance(refused, PreconditionFailed)
    assert refused.extra["job"].rev == second.rev
    assert isinstance(desk.refused(B, if_match="*", job="unknown"), PreconditionFailed)
    assert isinstance(desk.change("edit", if_match=etag(first), meta_k=(b"4", 0)), PreconditionFailed)


def test_out_of_order_pushes_of_one_install_lose_and_overwrite_nothing(desk: Desk) -> None:
    seen = desk.push(B, metadata={"k": 0})
    desk.push(A, seq=3, base=etag(seen), metadata={"k": 0, "l": 3})
    late = desk.push(A, seq=2, metadata={"k": 2, "l": 2, "m": 2})
    assert view(late)["metadata"]["metadata"] == {"k": 0, "l": 3, "m": 2}
    together = [
        desk.item(snapshot(C, seq=seq, metadata={"k": seq, f"only{seq}": seq}), None) for seq in (2, 1)
    ]
    merged = done(desk.site.batch(*together)[1])
    assert view(merged)["metadata"]["metadata"] == {"k": 2, "l": 3, "m": 2, "only1": 1, "only2": 2}


# The abort mark and operators


def test_pushes_to_an_aborted_job_are_recorded(desk: Desk) -> None:
    desk.push(A, status="Paused")
    done(desk.change("abort"))
    result = desk.push(B, status="Completed", completed=(step("a", 1),))
    assert result.action == "recorded"
    assert view(result)["metadata"]["status"] == "Aborted"
    assert values(view(result)) == {"a": 1}


def test_an_operator_cannot_change_the_status_of_an_aborted_job(desk: Desk) -> None:
    desk.push(A, status="Aborted")
    refused = desk.change("edit", status=STATUS)
    assert isinstance(refused, Conflict)
    assert refused.code == "job-aborted"
    done(desk.change("edit", meta_k=(b"1", 0)))
    done(desk.change("reopen"))
    assert view(done(desk.change("edit", status=STATUS)))["metadata"]["status"] == "Paused"


def test_a_completed_job_is_neither_aborted_nor_assigned_by_an_operator(desk: Desk) -> None:
    desk.push(A, status="Completed")
    for kind in ("abort", "assign"):
        refused = desk.change(kind)
        assert isinstance(refused, Conflict)
        assert refused.code == "job-finished"


def test_a_reopened_job_without_a_status_takes_an_informed_one_without_conflict(desk: Desk) -> None:
    desk.push(A, status="Aborted")
    reopened = done(desk.change("reopen"))
    assert view(reopened)["metadata"]["status"] == "InProgress"
    merged = desk.push(B, base=etag(reopened), status="Paused", time=1)
    assert view(merged)["metadata"]["status"] == "Paused"
    assert view(merged)["sync"]["conflicts"] == []


def test_an_operators_edit_has_seen_everything(desk: Desk) -> None:
    desk.push(A, metadata={"k": 1}, time=900)
    desk.push(B, metadata={"k": 2}, time=800)
    edited = done(desk.change("edit", meta_k=(b"3", 0)))
    assert view(edited)["metadata"]["metadata"] == {"k": 3}
    assert view(edited)["sync"]["conflicts"] == []


def test_excluded_jobs_are_no_news_to_who_has_pulled_since_and_are_to_everybody_else(desk: Desk) -> None:
    first = desk.push(A, time=10, metadata={"k": 1})
    excluded = done(desk.change("edit", exclusion=(b'{"jobExclusion":[{"a":1}],"excluded":true}', 0)))
    assert view(excluded)["excluded"] is True
    for seq, base, in_sync in ((2, first, False), (3, excluded, True)):
        said = {"head": seq} | dict.fromkeys(("workflowId", "workflowVersionId", "jobTitle"))
        result = desk.push(A, seq=seq, base=etag(base), time=10, metadata={"k": 1}, **said)
        assert msgspec.json.decode(push_answer(result, minimal=True))["sync"]["inSync"] is in_sync


# Hand-over


def test_after_a_hand_over_a_workers_steps_merge_and_nothing_else(desk: Desk) -> None:
    one = desk.worker("one")
    first = one.push(A, status="Paused", metadata={"k": 1}, completed=(step("a", 1, 10),))
    done(desk.change("assign", assignee=(b'{"userId":"two","username":"two"}', 0)))
    late = one.push(
        A, seq=2, base=etag(first), status="Completed", metadata={"k": 2}, completed=(step("a", 2, 20),)
    )
    assert values(view(late)) == {"a": 2}
    assert view(late)["metadata"]["status"] == "Paused"
    assert view(late)["metadata"]["metadata"] == {"k": 1}
    assert len(desk.history()) == 3
    assert view(desk.worker("two").push(B, base=etag(late), status="Completed"))["metadata"]["status"] == (
        "Completed"
    )
    assert isinstance(desk.worker("three").refused(C, metadata={"k": 3}), Forbidden)


# Events


def test_each_change_of_the_view_fires_its_events_in_order(desk: Desk) -> None:
    desk.push(A, status="Paused")
    desk.push(A, seq=2, status="Completed")
    desk.push(A, seq=2, status="Completed")
    desk.push(A, seq=3, status="Aborted")
    done(desk.change("reopen"))
    done(desk.change("delete"))
    assert desk.fired() == [
        "job.created",
        *("job.updated", "job.completed", "job.mediaComplete"),
        *("job.updated", "job.aborted"),
        *("job.updated", "job.completed"),
        "job.deleted",
    ]
