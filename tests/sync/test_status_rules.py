"""The rules of the status, the abort mark, the assignee and of clients without the envelope, one example each."""

import msgspec
import pytest

from tests.sync.pushing import A, B, C, Office, conflict, step, values


@pytest.fixture
def office() -> Office:
    return Office()


# Status


def test_the_greater_rank_wins_over_the_later_time(office: Office) -> None:
    office.push(A, status="Completed", time=10)
    merged = office.push(B, status="InProgress", time=900)
    assert merged["metadata"]["status"] == "Completed"
    assert conflict(merged, "status") == [{"status": "InProgress"}]


@pytest.mark.parametrize("status", ["Completed", "Abandoned"])
def test_a_push_that_has_seen_the_end_may_reopen_it(office: Office, status: str) -> None:
    seen = office.push(A, status=status, time=900)
    merged = office.push(B, base=seen["sync"]["rev"], status="InProgress", time=10)
    assert merged["metadata"]["status"] == "InProgress"
    assert merged["sync"]["conflicts"] == []


@pytest.mark.parametrize(
    ("lower", "higher"), [("Created", "Paused"), ("Whatever", "Abandoned"), ("created", "Odd")]
)
def test_ranks_know_names_without_case_and_unknown_names_rank_with_in_progress(
    office: Office, lower: str, higher: str
) -> None:
    office.push(A, status=higher, time=10)
    assert office.push(B, status=lower, time=900)["metadata"]["status"] == higher


@pytest.mark.parametrize("status", ["COMPLETED", "odd", "inProgress"])
def test_a_status_is_kept_as_it_was_sent(office: Office, status: str) -> None:
    assert office.push(A, status=status)["metadata"]["status"] == status


def test_the_reason_belongs_to_the_status(office: Office) -> None:
    office.push(A, status="Abandoned", abandonReason="no access", time=10)
    merged = office.push(B, status="Abandoned", abandonReason="rain", time=20)
    assert merged["metadata"]["abandonReason"] == "rain"
    assert conflict(merged, "status") == [{"status": "Abandoned", "abandonReason": "no access"}]


# The abort mark


def test_aborted_stands_over_a_completion_and_over_later_pushes_that_have_seen_it(office: Office) -> None:
    seen = office.push(A, status="Completed", time=900)
    seen = office.push(B, status="Aborted", abandonReason="storm", time=10)
    assert (seen["metadata"]["status"], seen["metadata"]["abandonReason"]) == ("Aborted", "storm")
    later = office.push(A, base=seen["sync"]["rev"], status="InProgress", time=990)
    assert later["metadata"]["status"] == "Aborted"


def test_aborted_before_the_create_absorbs_what_comes(office: Office) -> None:
    office.push(A, status="Aborted")
    merged = office.push(B, status="Completed", completed=(step("a", 1),))
    assert merged["metadata"]["status"] == "Aborted"
    assert values(merged) == {"a": 1}


def test_steps_of_an_aborted_job_still_merge(office: Office) -> None:
    seen = office.push(A, status="Aborted", completed=(step("a", 1, 10),))
    merged = office.push(B, base=seen["sync"]["rev"], completed=(step("a", 2, 20),), status="Aborted")
    assert values(merged) == {"a": 2}


def test_only_a_reopen_clears_the_mark_and_what_merged_underneath_is_shown(office: Office) -> None:
    seen = office.push(A, status="Paused")
    seen = office.push(A, base=seen["sync"]["rev"], status="Aborted")
    office.push(B, base=seen["sync"]["rev"], status="Completed")
    assert office.operate("reopen")
    assert office.view()["metadata"]["status"] == "Completed"


def test_below_a_reopen_the_status_is_ignored_and_everything_else_merges(office: Office) -> None:
    seen = office.push(A, status="Paused")["sync"]["rev"]
    office.operate("abort")
    office.operate("reopen")
    for status in ("Aborted", "Completed"):
        merged = office.push(B, base=seen, status=status, metadata={"k": status})
        assert merged["metadata"]["status"] == "Paused"
        assert merged["metadata"]["metadata"] == {"k": status}
        assert conflict(merged, "status") == []
    informed = office.push(B, base=merged["sync"]["rev"], status="Completed")
    assert informed["metadata"]["status"] == "Completed"
    assert office.push(C, base=informed["sync"]["rev"], status="Aborted")["metadata"]["status"] == "Aborted"


def test_a_reopened_job_that_was_aborted_before_it_had_a_status_is_in_progress(office: Office) -> None:
    office.push(A, status="Aborted")
    office.operate("reopen")
    seen = office.view()
    assert seen["metadata"]["status"] == "InProgress"
    again = office.push(B, base=seen["sync"]["rev"], status="InProgress", abandonReason=None)
    assert again["sync"]["rev"] == seen["sync"]["rev"], "what the reopened job shows is an echo"
    merged = office.push(B, base=seen["sync"]["rev"], status="Paused")
    assert merged["metadata"]["status"] == "Paused"
    assert merged["sync"]["conflicts"] == []


def test_an_aborted_job_pushed_back_is_an_echo(office: Office) -> None:
    seen = office.push(A, status="Aborted", abandonReason="storm", time=10)["sync"]["rev"]
    again = office.push(B, base=seen, status="Aborted", abandonReason="storm", time=10)
    assert again["sync"]["rev"] == seen


# The assignee


def test_an_assignment_beats_every_edit_that_has_not_seen_it(office: Office) -> None:
    seen = office.push(A, userId="u1", username="one", time=10)["sync"]["rev"]
    office.operate(assignee=b'{"userId":"u2","username":"two"}')
    office.now += 1000
    merged = office.push(B, base=seen, userId="u3", username="three", sent=2004, time=2003)
    assert merged["metadata"]["userId"] == "u2"
    assert conflict(merged, "assignee") == [{"userId": "u3", "username": "three"}]
    informed = office.push(
        B, base=merged["sync"]["rev"], userId="u3", username="three", confirm=("assignee",)
    )
    assert informed["metadata"]["userId"] == "u3"


# Clients without the envelope


def test_a_legacy_edit_has_seen_nothing_and_stands_beside_the_others(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 10),))
    merged = office.push(None, completed=(step("a", 2, 20),))
    assert values(merged) == {"a": 2}
    assert [other["singleStep"]["values"] for other in conflict(merged, "step:a")] == [[1]]


def test_a_legacy_edit_supersedes_the_same_clients_earlier_one(office: Office) -> None:
    office.push(None, completed=(step("a", 1, 10),))
    merged = office.push(None, completed=(step("a", 2, 20),))
    assert (values(merged), merged["sync"]["conflicts"]) == ({"a": 2}, [])


def test_an_older_legacy_snapshot_that_comes_late_changes_nothing(office: Office) -> None:
    office.push(None, completed=(step("a", 2, 20),), time=20)
    merged = office.push(None, completed=(step("a", 1, 10), step("b", 1, 10)), time=10)
    assert values(merged) == {"b": 1, "a": 2}
    assert merged["sync"]["conflicts"] == []


def test_a_value_ever_written_is_a_legacy_echo(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1, 10),))["sync"]["rev"]
    now = office.push(A, base=seen, completed=(step("a", 2, 20),))["sync"]["rev"]
    merged = office.push(None, completed=(step("a", 1, 10),))
    assert (values(merged), merged["sync"]["rev"]) == ({"a": 2}, now)


def test_a_value_written_and_never_shown_is_a_legacy_echo(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 20),))
    seen = office.push(B, completed=(step("a", 2, 10),))["sync"]["rev"]
    now = office.push(C, base=seen, completed=(step("a", 3, 30),))["sync"]["rev"]
    assert office.push(None, completed=(step("a", 2, 10),))["sync"]["rev"] == now


def test_a_union_of_photos_ever_shown_is_a_legacy_echo(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 20, ["p1"]),))
    shown = office.push(B, completed=(step("a", 2, 10, ["p2"]),))
    echoed = office.push(None, completed=tuple(shown["completedSteps"]))
    assert echoed["sync"]["rev"] == shown["sync"]["rev"]
    now = office.push(C, base=echoed["sync"]["rev"], completed=(step("a", 3, 30),))["sync"]["rev"]
    assert office.push(None, completed=tuple(shown["completedSteps"]), metadata={})["sync"]["rev"] == now


def test_a_legacy_status_equal_to_the_last_one_sent_is_an_echo(office: Office) -> None:
    seen = office.push(None, status="Paused", time=10)["sync"]["rev"]
    office.push(A, base=seen, status="InProgress", time=20)
    merged = office.push(None, status="Paused", time=30, metadata={"k": 1})
    assert merged["metadata"]["status"] == "InProgress"
    assert conflict(merged, "status") == []


def test_a_legacy_status_may_come_back_to_a_value_that_was_shown_before(office: Office) -> None:
    office.push(None, status="Paused", time=10)
    office.push(None, status="InProgress", time=20)
    assert office.push(None, status="Paused", time=30)["metadata"]["status"] == "Paused"


def test_a_legacy_status_of_a_lower_rank_than_its_clients_last_does_not_count(office: Office) -> None:
    office.push(None, status="Completed", time=10)
    assert office.push(None, status="InProgress", time=20)["metadata"]["status"] == "Completed"


def test_legacy_clients_of_two_users_are_two_installs(office: Office) -> None:
    office.push(None, user="one", metadata={"k": 1}, time=10)
    merged = office.push(None, user="two", metadata={"k": 2}, time=20)
    assert merged["metadata"]["metadata"] == {"k": 2}
    assert conflict(merged, "meta:k") == [1]


def test_a_legacy_client_aborts_too_and_does_not_abort_again_after_a_reopen(office: Office) -> None:
    office.push(None, status="Aborted", time=10)
    assert office.view()["metadata"]["status"] == "Aborted"
    office.operate("reopen")
    merged = office.push(None, status="Aborted", time=20, metadata={"k": 1})
    assert merged["metadata"]["status"] == "InProgress"
    assert msgspec.json.decode(office.job.view)["metadata"]["metadata"] == {"k": 1}
