"""Photos and snapshots find each other, whatever comes first (docs/protocol.md, "Files")."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from storage.database import Connection
from storage.queries import attachments as queries
from storage.tables import attachment_references, attachments, events
from sync.errors import Gone
from sync.items import Applied, Caller, ChangeItem, PushItem
from sync.snapshot import parse
from tests.sync.pushing import SECOND, START, snapshot, step
from tests.sync.servers import Site

_numbers = count(1)
PHOTOS = ("p1", "p2", "p3")


class Visit:
    """Jobs of a new team with photos; time passes by a second with everything that happens."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.caller: Caller = site.team()
        self.install = f"00000000-0000-4000-9100-{next(_numbers):012}"
        self.seq = 0
        self.last: dict[str, Applied] = {}

    @property
    def now(self) -> int:
        self.seq += 1
        return START + (1000 + self.seq) * SECOND

    def push(self, *photos: Any, job: str = "job", **head: Any) -> Applied:
        """A snapshot whose one step refers to ``photos``, knowing all that was answered before."""
        now = self.now
        base = self.last.get(job)
        body = snapshot(
            self.install,
            seq=self.seq,
            base=f'"{base.incarnation}.{base.rev}"' if base else None,
            job=job,
            completed=(step("a", self.seq, photos=list(photos)),),
            **head,
        )
        (result,) = self.site.submit(PushItem(self.caller, parse(body), now))
        assert isinstance(result, Applied), result
        self.last[job] = result
        return result

    def change(self, kind: Any, job: str = "job") -> Applied:
        (result,) = self.site.submit(ChangeItem(self.caller, job, self.now, kind))
        assert isinstance(result, Applied), result
        self.last[job] = result
        return result

    def arrive(self, photo: str, content: bytes = b"x", bind: bool = True) -> str:
        file = queries.NewFile(
            photo,
            f"key-{photo}-{self.seq}",
            len(content),
            content * 32,
            None,
            None,
            "image/jpeg",
            "u",
            self.now,
        )
        stored: str = self.site.write(queries.store, self.caller.team_id, file)
        if bind:
            self.bind(photo)
        return stored

    def take_away(self, photo: str) -> None:
        self.site.write(queries.delete, self.caller.team_id, photo, self.now)
        self.bind(photo)

    def bind(self, photo: str) -> None:
        """What the task does that storing a file leaves behind."""
        for _, job in self.site.read(queries.jobs_of, self.caller.team_id, photo):
            self.change("files", job)

    def state(self, photo: str) -> Any:
        row = self.site.read(queries.one, self.caller.team_id, photo)
        return row and row.state

    def orphaned(self, photo: str) -> bool:
        return self.site.read(queries.one, self.caller.team_id, photo).orphaned_at is not None

    def fired(self, kind: str = "job.mediaComplete") -> int:
        found: list[str] = self.site.read(_types, self.caller.team_id)
        return found.count(kind)


def _types(connection: Connection, team_id: int) -> list[str]:
    return list(connection.execute(select(events.c.type).where(events.c.team_id == team_id)).scalars())


def _references(connection: Connection, team_id: int) -> set[tuple[str, str]]:
    query = select(attachment_references.c.attachment_id, attachment_references.c.job_id)
    return {tuple(row) for row in connection.execute(query.where(attachment_references.c.team_id == team_id))}


@pytest.fixture
def visit(site: Site) -> Visit:
    return Visit(site)


def complete(applied: Applied) -> bool:
    assert applied.job is not None
    shown = b'"attachmentsComplete":true' in applied.job.view
    assert shown == (not applied.job.missing)
    return shown


def missing(applied: Applied) -> tuple[str, ...]:
    assert applied.job is not None
    return applied.job.missing


def test_a_file_that_has_not_arrived_is_missing(visit: Visit) -> None:
    answer = visit.push("p1", "p2")
    assert missing(answer) == ("p1", "p2")
    assert not complete(answer)
    assert visit.state("p1") == "missing"


def test_a_file_that_came_before_its_snapshot_is_not_missing(visit: Visit) -> None:
    visit.arrive("p1")
    assert missing(visit.push("p1", "p2")) == ("p2",)


def test_the_arrival_of_the_last_file_is_a_revision_and_an_earlier_one_is_none(visit: Visit) -> None:
    pushed = visit.push("p1", "p2")
    visit.arrive("p1")
    assert (missing(visit.last["job"]), visit.last["job"].rev) == (("p2",), pushed.rev)
    visit.arrive("p2")
    assert complete(visit.last["job"])
    assert visit.last["job"].rev == pushed.rev + 1


def test_a_push_after_the_arrival_answers_what_is_still_missing(visit: Visit) -> None:
    visit.push("p1", "p2")
    visit.arrive("p1")
    assert missing(visit.push("p1", "p2", "p3")) == ("p2", "p3")


def test_every_job_that_refers_to_a_file_hears_of_it(visit: Visit) -> None:
    visit.push("p1", job="one")
    visit.push("p1", job="two")
    visit.arrive("p1")
    assert complete(visit.last["one"])
    assert complete(visit.last["two"])


def test_a_file_of_another_team_is_not_ours(site: Site, visit: Visit) -> None:
    Visit(site).arrive("p1")
    assert missing(visit.push("p1")) == ("p1",)


def test_media_complete_is_fired_once_when_a_completed_job_has_all_its_files(visit: Visit) -> None:
    visit.push("p1", status="InProgress")
    visit.arrive("p1")
    assert visit.fired() == 0
    visit.push("p1", "p2", status="Completed")
    assert visit.fired() == 0
    visit.arrive("p2")
    assert visit.fired() == 1
    visit.push("p1", "p2", "p3", status="Completed")
    visit.arrive("p3")
    assert visit.fired() == 1


def test_a_completed_job_without_files_has_all_of_them(visit: Visit) -> None:
    visit.push(status="Completed")
    assert visit.fired() == 1


def test_a_file_that_is_taken_away_is_missing_again(visit: Visit) -> None:
    visit.push("p1")
    visit.arrive("p1")
    visit.take_away("p1")
    assert missing(visit.last["job"]) == ("p1",)
    assert not complete(visit.last["job"])


def test_a_file_that_no_step_refers_to_any_more_is_an_orphan(visit: Visit) -> None:
    visit.push("p1")
    visit.arrive("p1")
    assert not visit.orphaned("p1")
    visit.push("p2")
    assert visit.orphaned("p1")
    visit.push("p1")
    assert not visit.orphaned("p1")
    assert visit.state("p2") is None


def test_the_files_of_a_deleted_job_are_orphans_unless_another_refers_to_them(visit: Visit) -> None:
    visit.push("p1", "p2", job="one")
    visit.push("p2", job="two")
    for photo in ("p1", "p2"):
        visit.arrive(photo)
    visit.change("delete", "one")
    assert visit.orphaned("p1")
    assert not visit.orphaned("p2")


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a\nb", "a\0b", "x" * 256, {"no": "text"}])
def test_what_cannot_name_a_file_harms_nothing(visit: Visit, name: Any) -> None:
    answer = visit.push(name, "p1")
    visit.arrive("p1")
    assert "p1" not in missing(visit.last["job"])
    assert answer.job is not None


def test_many_devices_at_once_bring_up_the_same_file(site: Site, visit: Visit) -> None:
    items = [
        PushItem(
            visit.caller,
            parse(snapshot(visit.install, seq=n, job=f"job-{n}", completed=(step("a", 1, photos=["p1"]),))),
            visit.now,
        )
        for n in range(1, 20)
    ]
    assert all(isinstance(result, Applied) for result in site.submit(*items))
    visit.arrive("p1")
    assert all(complete(visit.last[f"job-{n}"]) for n in range(1, 20))


def test_a_replay_of_what_the_job_has_dropped_keeps_no_file(visit: Visit) -> None:
    seq = visit.seq + 1
    visit.push("p1", "never came")
    visit.arrive("p1")
    dropped = snapshot(
        visit.install, seq=seq, job="job", completed=(step("a", seq, photos=["p1", "never came"]),)
    )
    visit.push("p2")
    assert visit.orphaned("p1")
    (again,) = visit.site.submit(PushItem(visit.caller, parse(dropped), visit.now))
    assert isinstance(again, Applied)
    assert again.replayed
    assert visit.orphaned("p1")
    assert visit.state("never came") is None


def test_a_refused_push_brings_up_no_file(visit: Visit) -> None:
    visit.push()
    visit.arrive("p1")
    visit.change("delete")
    body = snapshot(visit.install, seq=99, job="job", completed=(step("a", 1, photos=["p1", "other"]),))
    (refused,) = visit.site.submit(PushItem(visit.caller, parse(body), visit.now))
    assert isinstance(refused, Gone)
    assert visit.orphaned("p1")
    assert visit.state("other") is None


deeds = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sets(st.sampled_from(PHOTOS)), st.booleans()),
        st.tuples(st.just("arrive"), st.sampled_from(PHOTOS)),
        st.tuples(st.just("take away"), st.sampled_from(PHOTOS)),
        st.tuples(st.just("bind"), st.sampled_from(PHOTOS)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(deeds=deeds)
def test_in_whatever_order_snapshots_and_files_come_the_job_says_what_is_missing(
    site: Site, deeds: Any
) -> None:
    visit = Visit(site)
    shown: set[str] = set()
    here: set[str] = set()
    visit.push()
    for deed, *what in deeds:
        if deed == "push":
            shown = set(what[0])
            visit.push(*sorted(shown), status="Completed" if what[1] else "InProgress")
        elif deed == "arrive":
            assert visit.arrive(what[0], bind=False) == ("same" if what[0] in here else "stored")
            here.add(what[0])
        elif deed == "take away":
            visit.take_away(what[0])
            here.discard(what[0])
        else:
            visit.bind(what[0])
    for photo in PHOTOS:
        visit.bind(photo)
    last = visit.change("files")
    assert set(missing(last)) == shown - here
    assert complete(last) == (shown <= here)
    assert visit.fired() <= 1
    assert {photo for photo, _ in site.read(_references, visit.caller.team_id)} == shown
    kept = select(attachments.c.attachment_id).where(attachments.c.team_id == visit.caller.team_id)
    assert set(site.read(lambda connection: connection.execute(kept).scalars().all())) == shown | here
