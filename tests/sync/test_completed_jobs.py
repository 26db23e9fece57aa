"""Completed jobs have a place in the order of their first completion, and keep it (docs/queries.md, "Following what is completed")."""

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from storage.database import Connection
from storage.queries import completed_jobs as queries
from storage.queries import jobs as job_queries
from storage.queries.completed_jobs import Wanted
from storage.tables import completed_jobs, feeds
from sync.items import Applied, Caller, ChangeItem, PushItem
from sync.snapshot import Part, parse
from sync.values import parse_time
from tests.sync.pushing import SECOND, START, snapshot
from tests.sync.servers import Site

_numbers = itertools.count(1)


class Work:
    """Jobs of a new team; time passes by a second with everything that happens."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.caller: Caller = site.team()
        self.install = f"00000000-0000-4000-9200-{next(_numbers):012}"
        self.seq = 0
        self.last: dict[str, Applied] = {}

    @property
    def now(self) -> int:
        self.seq += 1
        return START + (1000 + self.seq) * SECOND

    def pushed(self, job: str, status: str | None = None, *, known: bool = True, **head: Any) -> PushItem:
        """A push that knows all that was answered before."""
        now, base = self.now, self.last.get(job) if known else None
        if status is not None:
            head["status"] = status
        etag = f'"{base.incarnation}.{base.rev}"' if base else None
        body = snapshot(self.install, seq=self.seq, base=etag, job=job, **head)
        return PushItem(self.caller, parse(body), now)

    def changed(self, job: str, kind: Any, excluded: bool | None = None) -> ChangeItem:
        if excluded is None:
            return ChangeItem(self.caller, job, self.now, kind)
        part = Part(b'{"jobExclusion":[],"excluded":%s}' % (b"true" if excluded else b"false"))
        return ChangeItem(self.caller, job, self.now, kind, scopes=lambda _job: {"exclusion": part})

    def together(self, *items: PushItem | ChangeItem) -> None:
        """What comes at the same moment: one transaction."""
        results = self.site.submit(*items)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Applied):
                self.last[item.client_job_id] = result

    def push(self, job: str, status: str | None = None, **head: Any) -> None:
        self.together(self.pushed(job, status, **head))

    def change(self, job: str, kind: Any, excluded: bool | None = None) -> None:
        self.together(self.changed(job, kind, excluded))

    def found(self, **wanted: Any) -> list[tuple[int, str]]:
        """Number and name of each job that is found."""
        page = self.site.read(queries.page, self.caller.team_id, Wanted(**wanted), 100)
        return [(row.seq, msgspec.json.decode(row.view)["metadata"]["clientJobId"]) for row in page]

    def rows(self) -> list[Any]:
        query = select(completed_jobs).where(completed_jobs.c.team_id == self.caller.team_id)
        return self.site.read(_all, query.order_by(completed_jobs.c.seq))  # type: ignore[no-any-return]

    def completions(self) -> int:
        query = select(feeds.c.completions).where(feeds.c.team_id == self.caller.team_id)
        (row,) = self.site.read(_all, query)
        return int(row[0])

    def job(self, name: str) -> tuple[str, Any] | None:
        """Id and document of a job that there is."""
        row = self.site.read(job_queries.by_client_job_id, self.caller.team_id, name)
        return None if row is None else (row.job_id, msgspec.json.decode(row.view))


def _all(connection: Connection, query: Any) -> Sequence[Any]:
    return connection.execute(query).all()


@pytest.fixture
def work(site: Site) -> Work:
    return Work(site)


def test_jobs_are_found_in_the_order_in_which_they_were_completed(work: Work) -> None:
    for name in ("a", "b", "c", "d"):
        work.push(name, "InProgress")
    for name, status in (("c", "Completed"), ("a", "Abandoned"), ("b", "completed")):
        work.push(name, status)
    assert work.found() == [(1, "c"), (2, "a"), (3, "b")]
    assert work.found(descending=True) == [(3, "b"), (2, "a"), (1, "c")]
    assert work.found(after=1) == [(2, "a"), (3, "b")]


def test_a_job_that_is_completed_at_once_is_found(work: Work) -> None:
    work.push("a", "Completed")
    assert work.found() == [(1, "a")]


def test_jobs_completed_in_one_transaction_have_numbers_one_after_the_other(work: Work) -> None:
    work.push("b", "Completed")
    work.together(*(work.pushed(name, "Completed") for name in ("d", "b", "a", "c")))
    assert work.found() == [(1, "b"), (2, "a"), (3, "c"), (4, "d")]
    assert work.completions() == 4


def test_an_aborted_job_is_not_found(work: Work) -> None:
    work.push("a", "InProgress")
    work.change("a", "abort")
    work.push("b", "Aborted")
    assert work.found(excluded=True) == []
    assert work.rows() == []


def test_a_completed_job_that_a_device_aborts_is_not_found_until_it_is_reopened(work: Work) -> None:
    work.push("a", "Completed")
    work.push("b", "Completed")
    work.push("a", "Aborted")
    assert work.found(excluded=True) == [(2, "b")]
    work.change("a", "reopen")
    assert work.found() == [(1, "a"), (2, "b")]


def test_a_job_that_is_taken_up_again_is_not_found_and_keeps_its_number(work: Work) -> None:
    work.push("a", "Completed")
    work.push("b", "Completed")
    work.push("a", "InProgress")
    assert work.found(excluded=True) == [(2, "b")]
    work.push("a", jobTitle="still at it")
    assert work.found(excluded=True) == [(2, "b")]
    work.push("a", "Abandoned")
    assert work.found() == [(1, "a"), (2, "b")]
    assert work.completions() == 2


def test_a_completed_job_is_found_by_what_it_says_now_under_the_number_of_then(work: Work) -> None:
    work.push("a", "Completed", jobTitle="old", workflowId="w", created="2025-01-01T00:00:00Z")
    work.push("b", "Completed")
    work.push("a", "Completed", jobTitle="new", workflowId="w", updated="2025-02-02T00:00:00Z")
    assert work.found(texts={"job_title": ["old"]}) == []
    assert work.found(texts={"job_title": ["new"]}) == [(1, "a")]
    february = parse_time("2025-02-01T00:00:00Z")
    assert work.found(since={"updated": february}) == [(1, "a")]
    assert work.found(before={"created": february}) == [(1, "a")]
    assert work.found(since={"modified": START}, job_ids=[work.rows()[1].job_id]) == [(2, "b")]


def test_an_excluded_job_is_found_only_by_who_asks_for_those_too(work: Work) -> None:
    work.push("a", "Completed")
    work.change("a", "edit", excluded=True)
    assert work.found() == []
    assert work.found(excluded=True) == [(1, "a")]
    work.change("a", "edit", excluded=False)
    assert work.found() == [(1, "a")]


def test_a_job_excluded_before_it_is_completed_has_its_number_from_then(work: Work) -> None:
    work.push("a", "InProgress")
    work.change("a", "edit", excluded=True)
    work.push("a", "Completed")
    work.push("b", "Completed")
    assert work.found() == [(2, "b")]
    work.change("a", "edit", excluded=False)
    assert work.found() == [(1, "a"), (2, "b")]


def test_a_deleted_job_leaves_nothing_and_its_number_is_nobodys(work: Work) -> None:
    work.push("a", "Completed")
    work.push("b", "Completed")
    work.change("b", "delete")
    assert [row.seq for row in work.rows()] == [1]
    work.push("c", "Completed")
    assert work.found(excluded=True) == [(1, "a"), (3, "c")]


def test_a_push_that_came_before_counts_no_completion(work: Work) -> None:
    item = work.pushed("a", "Completed")
    for _ in range(3):
        work.together(item, item)
    assert (work.found(), work.completions()) == ([(1, "a")], 1)


def test_what_is_completed_and_taken_up_again_in_one_transaction_was_not_completed(work: Work) -> None:
    work.push("a", "InProgress")
    first = work.pushed("a", "Completed")
    work.together(first, work.pushed("a", "Paused"), work.pushed("b", "Completed"))
    expected = work.job("a")
    assert expected is not None
    completed = expected[1]["metadata"]["status"] == "Completed"
    assert work.found() == ([(1, "a"), (2, "b")] if completed else [(1, "b")])


def test_a_job_of_another_team_has_numbers_of_its_own(site: Site, work: Work) -> None:
    other = Work(site)
    work.push("a", "Completed")
    other.push("a", "Completed")
    other.push("b", "Completed")
    assert (work.found(), other.found()) == ([(1, "a")], [(1, "a"), (2, "b")])


@pytest.mark.parametrize("title", ["x" * 5000, "\U0001f6a7" * 600, "nul\0", "", None])
def test_whatever_a_title_is_the_job_is_completed(work: Work, title: Any) -> None:
    work.push("a", "Completed", jobTitle=title)
    (row,) = work.rows()
    assert row.job_title == _searched(title)
    if isinstance(title, str):
        assert work.found(texts={"job_title": [queries.cut(title)]}) == [(1, "a")]


def test_a_push_of_an_open_job_asks_nothing_of_the_completed_ones(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.push("done", "Completed")
    for name in ("_known", "_retire", "_write"):
        monkeypatch.setattr(queries, name, None)
    work.push("a", "InProgress")
    work.push("a", "Paused", jobTitle="new")
    work.change("a", "edit", excluded=True)
    work.change("a", "abort")
    assert work.last["a"].rev == 4
    monkeypatch.undo()
    assert work.found() == [(1, "done")]


# Whatever happens

JOBS = ("a", "b", "c", "d")
_TITLES = ["pump", "x" * 600, "nul\0", None]
_WHEN = ["2025-06-02T09:00:00Z", "2025/06/02 10:00:00", "1970-01-01T00:00:00Z", "no time", None]

pushes = st.fixed_dictionaries(
    {
        "status": st.sampled_from(
            ["InProgress", "Completed", "Completed", "Abandoned", "Aborted", "odd", None]
        )
    },
    optional={
        "known": st.booleans(),
        "jobTitle": st.sampled_from(_TITLES),
        "workflowName": st.sampled_from(_TITLES),
        "workflowId": st.sampled_from(["w", "v"]),
        "userId": st.sampled_from(["u", "v"]),
        "username": st.sampled_from(["U", "V"]),
        "created": st.sampled_from(_WHEN),
        "updated": st.sampled_from(_WHEN),
    },
)
deeds = st.one_of(
    st.tuples(st.just("push"), pushes),
    st.tuples(st.just("push"), pushes),
    st.tuples(st.sampled_from(["abort", "reopen", "delete"]), st.none()),
    st.tuples(st.just("edit"), st.booleans()),
)
batches = st.lists(st.tuples(st.sampled_from(JOBS), deeds), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(story=st.lists(batches, min_size=1, max_size=8))
def test_after_everything_that_happens_the_table_says_what_the_documents_say(site: Site, story: Any) -> None:
    work = Work(site)
    places: dict[str, int] = {}
    given_out = 0
    for batch in story:
        items: list[PushItem | ChangeItem] = []
        for job, (deed, what) in batch:
            if deed == "push":
                items.append(work.pushed(job, **what))
            else:
                items.append(work.changed(job, deed, what))
        work.together(*items)
        expected = []
        for name in JOBS:
            found = work.job(name)
            if found is None:
                places.pop(name, None)
            elif _is_completed(found[1]) and name not in places:
                given_out += 1
                places[name] = given_out
            if found is not None and name in places:
                expected.append(_row(places[name], *found))
        assert [_told(row) for row in work.rows()] == sorted(expected, key=lambda row: int(row["seq"]))
        assert all(row.block == row.seq // queries.BLOCK for row in work.rows())
        assert work.completions() == given_out
        assert [seq for seq, _ in work.found()] == sorted(row["seq"] for row in expected if row.get("listed"))
        assert [seq for seq, _ in work.found(excluded=True)] == sorted(
            row["seq"] for row in expected if row["completed"]
        )


def _is_completed(document: Any) -> bool:
    status = document["metadata"]["status"]
    return isinstance(status, str) and status.casefold() in ("completed", "abandoned")


def _row(seq: int, job_id: str, document: Any) -> dict[str, Any]:
    """What the table says of a job; of one that is not completed only that."""
    head = document["metadata"]
    if not _is_completed(document):
        return {"seq": seq, "job_id": job_id, "listed": False, "completed": False}
    return {
        "seq": seq,
        "job_id": job_id,
        "listed": not document["excluded"],
        "completed": True,
        "workflow_id": _searched(head["workflowId"]),
        "workflow_title": _searched(head["workflowName"]),
        "user_id": _searched(head["userId"]),
        "user_name": _searched(head["username"]),
        "job_title": _searched(head["jobTitle"]),
        "created_at": parse_time(head["created"]) if head["created"] else None,
        "updated_at": parse_time(head["updated"]) if head["updated"] else None,
        "modified_at": parse_time(head["modified"]),
    }


def _told(row: Any) -> dict[str, Any]:
    told = {key: value for key, value in row._mapping.items() if key not in ("team_id", "block")}
    if not told["completed"]:
        return {key: told[key] for key in ("seq", "job_id", "listed", "completed")}
    return told


def _searched(value: Any) -> str | None:
    return value.replace("\0", "\ufffd")[:500] if isinstance(value, str) else None
