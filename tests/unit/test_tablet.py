"""The simulated tablet keeps the client's side of the protocol, so that the tests built on it mean something."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from fixtures.jobs import Document, paused_snapshot, specification_snapshot
from fixtures.local_job import StepInWork, key_of
from fixtures.network import FaultyTransport, Lost, Reply
from fixtures.tablet import Tablet, UnsentEdits

NOON = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)


def problem(status: int, code: str, retry: str = "never", **headers: str) -> Reply:
    return status, headers, msgspec.json.encode({"status": status, "code": code, "retry": retry})


class Office:
    """A server that keeps the last snapshot of each job, and does to the next requests what a test asks for.

    ``next`` holds one entry per coming request: "lose reply", "lose request", a reply to give instead, or a
    function to call before working.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Document] = {}
        self.revs: dict[str, int] = {}
        self.requests: list[tuple[str, str, Mapping[str, str], Document]] = []
        self.next: list[str | Reply | Callable[[], None]] = []

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.requests.append((method, path, headers, msgspec.json.decode(body) if body else {}))
        fault = self.next.pop(0) if self.next else None
        if fault == "lose request":
            raise Lost("request")
        if isinstance(fault, tuple):
            return fault
        if callable(fault):
            fault()
        reply = self._work(method, path, headers, body)
        if fault == "lose reply":
            raise Lost("reply")
        return reply

    def _work(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if method == "GET":
            client_job_id = path.rpartition("/")[2]
            if headers.get("If-None-Match") == self.etag(client_job_id):
                return 304, {}, b""
            return 200, {}, msgspec.json.encode(self.shown(client_job_id))
        document = msgspec.json.decode(body)
        document.pop("sync")
        client_job_id = document["metadata"]["clientJobId"]
        self.put(document)
        answered = self.shown(client_job_id, action="merged", replayed=False)
        if "Prefer" in headers:
            answered = {"sync": answered["sync"] | {"inSync": False}}
        return 200, {}, msgspec.json.encode(answered)

    def put(self, document: Document) -> None:
        client_job_id = document["metadata"]["clientJobId"]
        self.jobs[client_job_id] = document
        self.revs[client_job_id] = self.revs.get(client_job_id, 0) + 1

    def etag(self, client_job_id: str) -> str:
        return f'"office.{self.revs.get(client_job_id, 0)}"'

    def shown(self, client_job_id: str, **more: Any) -> Document:
        said = {
            "rev": self.revs[client_job_id],
            "etag": self.etag(client_job_id),
            "conflicts": [],
            "openSteps": [],
        }
        return {**self.jobs[client_job_id], "jobId": "j", "sync": said | more | {"serverTime": "now"}}

    def envelopes(self) -> list[Document]:
        return [body["sync"] for method, _, _, body in self.requests if method == "POST"]

    def contents(self) -> list[Document]:
        """The pushed documents without their envelopes."""
        posts = (body for method, _, _, body in self.requests if method == "POST")
        return [{key: value for key, value in body.items() if key != "sync"} for body in posts]


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def clock() -> list[datetime]:
    return [NOON]


@pytest.fixture
def tablet(office: Office, clock: list[datetime]) -> Tablet:
    def ticking() -> datetime:
        clock[0] += timedelta(seconds=1)
        return clock[0]

    return Tablet("A", office, random=random.Random(1), clock=ticking, sleep=lambda _seconds: None)


def test_a_push_carries_the_envelope_and_no_member_that_only_replies_have(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(specification_snapshot() | {"sync": {"rev": 7}})
    assert tablet.push(job).applied
    tablet.set_status(job, "Paused")
    tablet.push(job)
    first, second = office.envelopes()
    assert first.keys() == {"installId", "pushSeq", "clientSentAt"}
    assert second.keys() == {"installId", "pushSeq", "clientSentAt", "base"}
    assert (first["pushSeq"], second["pushSeq"]) == (1, 2)
    assert second["base"] == '"office.1"'
    assert "sync" not in office.jobs[job]


def test_a_retry_after_a_lost_reply_repeats_number_and_body_but_renews_the_time(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = ["lose reply", "lose request"]
    assert tablet.sync_job(job)
    envelopes, contents = office.envelopes(), office.contents()
    assert [envelope["pushSeq"] for envelope in envelopes] == [1, 1, 1]
    assert contents[0] == contents[1] == contents[2]
    assert len({envelope["clientSentAt"] for envelope in envelopes}) == 3
    assert tablet.push_seq == 1


def test_an_edit_after_a_lost_reply_goes_out_under_a_new_number(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = ["lose reply"]
    assert tablet.push(job).status is None
    tablet.set_metadata(job, "Order", "WO-1")
    tablet.push(job)
    assert [envelope["pushSeq"] for envelope in office.envelopes()] == [1, 2]
    assert "base" not in office.envelopes()[1]


def test_the_push_number_is_on_disk_before_the_request_leaves(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    disks: list[dict[str, bytes]] = []
    office.next = [lambda: disks.append(dict(tablet.disk))]
    tablet.push(job)
    restarted = Tablet("A", office, random=random.Random(2), disk=disks[0])
    assert (restarted.install_id, restarted.push_seq) == (tablet.install_id, 1)
    restarted.push(job)
    assert [envelope["pushSeq"] for envelope in office.envelopes()] == [1, 1]
    assert office.contents()[0] == office.contents()[1]


def test_a_backup_restored_to_a_new_installation_keeps_jobs_and_base_but_not_the_identity(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(specification_snapshot())
    tablet.push(job)
    tablet.set_status(job, "Paused")
    backup = {name: raw for name, raw in tablet.disk.items() if name != "install"}
    restored = Tablet("B", office, random=random.Random(2), disk=backup)
    restored.push(job)
    first, second = office.envelopes()
    assert second["installId"] != first["installId"]
    assert (second["pushSeq"], second["base"]) == (1, '"office.1"')


def test_a_pull_is_refused_while_edits_are_unsent(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    with pytest.raises(UnsentEdits):
        tablet.pull(job)
    assert office.requests == []
    tablet.push(job)
    assert tablet.pull(job).status == 304


def test_a_pull_whose_answer_meets_a_newer_edit_changes_nothing(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    tablet.push(job)
    office.put(paused_snapshot() | {"metadata": specification_snapshot()["metadata"] | {"jobTitle": "Other"}})
    office.next = [lambda: tablet.set_metadata(job, "Order", "WO-2")]
    assert not tablet.pull(job).applied
    assert tablet.jobs[job].base == '"office.1"'
    assert tablet.jobs[job].document["metadata"]["metadata"]["Order"] == "WO-2"


def test_the_base_rises_only_when_the_whole_job_is_replaced(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = [lambda: tablet.set_metadata(job, "Order", "WO-3")]
    assert not tablet.push(job).applied
    assert tablet.jobs[job].base is None, "an edit was made while the answer was under way"
    assert tablet.jobs[job].unsent
    assert tablet.push(job).applied
    assert tablet.jobs[job].base == '"office.2"'
    tablet.set_status(job, "Paused")
    assert not tablet.push(job, minimal=True).applied
    assert tablet.jobs[job].base == '"office.2"', "a minimal answer holds no job"
    assert tablet.sync_job(job)
    assert tablet.jobs[job].base == '"office.3"'


def test_a_minimal_answer_that_says_in_sync_raises_the_base(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    said = {"rev": 1, "etag": '"office.1"', "action": "created", "replayed": False, "inSync": True}
    office.next = [(200, {}, msgspec.json.encode({"sync": said}))]
    assert tablet.push(job, minimal=True).applied
    assert tablet.jobs[job].base == '"office.1"'


def test_a_cloned_install_becomes_a_new_one_and_pushes_again(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    before = tablet.install_id
    office.next = [problem(409, "install-cloned")]
    assert tablet.push(job).applied
    first, second = office.envelopes()
    assert first["installId"] == before
    assert second["installId"] == tablet.install_id != before
    assert second["pushSeq"] == 1
    assert tablet.counts["reinstalled"] == 1


def test_a_server_that_always_says_cloned_does_not_make_an_endless_loop(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = [problem(409, "install-cloned")] * 100
    assert not tablet.sync_job(job)
    assert len(office.requests) < 25


def test_a_deleted_job_is_dropped_and_remembered_over_a_restart(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = [problem(410, "job-deleted")]
    assert tablet.sync_all() == []
    assert tablet.jobs == {}
    restarted = Tablet("A", office, random=random.Random(2), disk=tablet.disk)
    assert not restarted.jobs
    assert restarted.deleted == {job}
    with pytest.raises(ValueError, match="already knows"):
        restarted.start_job(specification_snapshot())


def test_later_is_retried_with_the_same_number_after_the_named_time(tablet: Tablet, office: Office) -> None:
    waits: list[float] = []
    patient = Tablet("P", office, random=random.Random(3), clock=lambda: NOON, sleep=waits.append)
    job = patient.start_job(specification_snapshot())
    office.next = [problem(503, "storage-unavailable", "later", **{"retry-after": "3"}), (502, {}, b"<html>")]
    assert patient.sync_job(job)
    assert [envelope["pushSeq"] for envelope in office.envelopes()] == [1, 1, 1]
    assert waits == [3.0, 2.0]


def test_retries_end(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = ["lose request"] * 100
    assert tablet.sync_all(attempts=7) == [job]
    assert len(office.requests) == 7
    assert tablet.jobs[job].unsent


def test_one_refused_job_does_not_hold_up_the_others_and_keeps_its_edits(
    tablet: Tablet, office: Office
) -> None:
    bad, good = tablet.start_job(specification_snapshot()), tablet.start_job(paused_snapshot())
    office.next = [problem(422, "invalid-snapshot")]
    assert tablet.sync_all() == [bad]
    assert good in office.jobs
    assert tablet.jobs[bad].unsent
    assert tablet.sync_all() == [bad]
    assert len(office.contents()) == 2, "what was refused for good is not sent again"
    tablet.set_status(bad, "Paused")
    assert tablet.sync_all() == []


def test_an_expired_token_is_not_held_against_the_job(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    office.next = [problem(401, "invalid-token")]
    assert tablet.sync_all() == [job]
    assert tablet.sync_all() == []
    assert [envelope["pushSeq"] for envelope in office.envelopes()] == [1, 1]


def test_the_clock_of_the_device_stamps_everything_it_writes(office: Office) -> None:
    late = Tablet("C", office, random=random.Random(4), skew=timedelta(days=3653), clock=lambda: NOON)
    job = late.start_job(paused_snapshot())
    key = key_of(late.jobs[job].steps()[0])
    late.complete_step(job, key, values=["done"])
    late.push(job)
    [step] = office.jobs[job]["completedSteps"]
    times = (
        step["singleStep"]["completed"],
        office.jobs[job]["metadata"]["updated"],
        office.envelopes()[0]["clientSentAt"],
    )
    assert all(moment.startswith("2035-06-02") for moment in times)


def test_an_own_open_step_is_found_among_the_open_steps_and_becomes_current_again(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(paused_snapshot())
    [mine] = tablet.jobs[job].steps()
    merged = paused_snapshot()
    merged["metadata"]["currentStep"]["singleStep"]["uniqueStepId"] = "other"
    merged["sync"] = {
        "rev": 2,
        "etag": '"office.2"',
        "openSteps": [mine],
        "action": "merged",
        "replayed": False,
    }
    office.next = [(200, {}, msgspec.json.encode(merged))]
    assert tablet.push(job).applied
    tablet.edit_step(job, key_of(mine), values=["mine"])
    tablet.push(job)
    pushed = office.contents()[-1]["metadata"]["currentStep"]
    assert (key_of(pushed), pushed["singleStep"]["values"]) == (key_of(mine), ["mine"])


def test_an_open_step_with_unsent_edits_is_not_displaced(tablet: Tablet) -> None:
    job = tablet.start_job(paused_snapshot())
    other = paused_snapshot()["metadata"]["currentStep"]
    other["singleStep"]["uniqueStepId"] = "other"
    with pytest.raises(StepInWork):
        tablet.open_step(job, other)
    tablet.push(job)
    tablet.open_step(job, other)
    assert {key_of(step) for step in tablet.jobs[job].steps()} >= {"other"}


def test_a_step_moves_between_the_phases_and_stands_in_one_place(tablet: Tablet) -> None:
    job = tablet.start_job(paused_snapshot())
    key = key_of(tablet.jobs[job].steps()[0])
    document = tablet.jobs[job].document
    tablet.complete_step(job, key, values=["yes"])
    assert document["metadata"]["currentStep"] is None
    assert [key_of(step) for step in document["completedSteps"]] == [key]
    photo = tablet.take_photo(job, key)
    tablet.cancel_step(job, key)
    assert document["completedSteps"] == []
    [cancelled] = document["cancelledSteps"]
    assert cancelled["singleStep"]["valueResourceIds"] == [photo]
    assert cancelled["singleStep"]["cancelled"] is not None


def test_a_confirmed_scope_is_named_until_it_is_acknowledged(tablet: Tablet, office: Office) -> None:
    job = tablet.start_job(specification_snapshot())
    tablet.push(job)
    tablet.confirm(job, "status")
    office.next = ["lose reply"]
    tablet.push(job)
    tablet.push(job)
    tablet.set_status(job, "Paused")
    tablet.push(job)
    assert [envelope.get("confirm") for envelope in office.envelopes()] == [
        None,
        ["status"],
        ["status"],
        None,
    ]


def test_a_faulty_network_counts_what_it_did_and_recovers(office: Office) -> None:
    network = FaultyTransport(office, random.Random(5), lose_request=0.2, lose_reply=0.2, duplicate=0.3)
    tablet = Tablet("A", network, random=random.Random(6), sleep=lambda _seconds: None)
    job = tablet.start_job(specification_snapshot())
    for number in range(40):
        tablet.set_metadata(job, "Round", number)
        assert tablet.sync_job(job, attempts=30)
    assert all(network.counts[name] > 3 for name in ("lost requests", "lost replies", "duplicates"))
    lost = network.counts["lost requests"] + network.counts["lost replies"]
    assert tablet.counts["unanswered"] == lost
    network.recover()
    assert (
        len(office.contents())
        == tablet.counts["sent"] - network.counts["lost requests"] + network.counts["duplicates"]
    )
    before = tablet.counts["unanswered"]
    for number in range(40):
        tablet.set_metadata(job, "Round", number)
        assert tablet.sync_job(job, attempts=1)
    assert tablet.counts["unanswered"] == before


def test_a_tablet_owes_what_the_last_answer_says_is_missing_until_it_is_paid(
    tablet: Tablet, office: Office
) -> None:
    job = tablet.start_job(specification_snapshot())
    office.put(specification_snapshot())
    office.next = [
        (
            200,
            {},
            msgspec.json.encode(
                office.shown(job, missingResources=["p", "q"], action="merged", replayed=False)
            ),
        )
    ]
    tablet.push(job)
    assert tablet.owed == ["p", "q"]
    assert Tablet("A", office, random=random.Random(2), disk=tablet.disk).owed == ["p", "q"]
    tablet.paid("p")
    assert tablet.owed == ["q"]
    assert Tablet("A", office, random=random.Random(2), disk=tablet.disk).owed == ["q"]
    office.revs[job] += 1
    office.next = [(200, {}, msgspec.json.encode(office.shown(job, attachmentsComplete=True)))]
    tablet.pull(job)
    assert tablet.owed == [], "another device has sent the rest"
