"""The rules of reconciliation, one example each, against the merge. The sections are those of docs/protocol.md."""

from typing import Any

import pytest

from sync.merge import events
from tests.sync.pushing import A, B, C, Office, conflict, moment, step, values


@pytest.fixture
def office() -> Office:
    return Office()


def rev(document: Any) -> int:
    number: int = document["sync"]["rev"]
    return number


# Echo or edit?


def test_what_the_view_showed_at_the_base_is_an_echo(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1, 10),), status="Paused", metadata={"k": 1}, time=10)
    again = office.push(
        B, base=rev(seen), completed=(step("a", 1, 10),), status="Paused", metadata={"k": 1}, time=10
    )
    assert rev(again) == rev(seen)


def test_what_the_view_showed_at_an_older_base_stays_an_echo(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1, 10),), metadata={"k": 1})
    office.push(A, base=rev(seen), completed=(step("a", 2, 20),))
    merged = office.push(B, base=rev(seen), completed=(step("a", 1, 10),), metadata={"k": 2})
    assert values(merged) == {"a": 2}
    assert merged["sync"]["conflicts"] == []


@pytest.mark.parametrize(
    "respelled",
    [
        b'{"reportStep":null,"singleStep":{"values":[1],"uniqueStepId":"a","started":"2025-06-02T08:00:00Z"}}',
        b'{"singleStep":{"uniqueStepId":"a","values":[1.0],"started":"2025-06-02T08:00:00Z"}}',
        b'{"singleStep":{"uniqueStepId":"a","values":[1e0],"started":"2025-06-02T10:00:00.000+02:00"}}',
        b'{"singleStep":{"uniqueStepId":"a","values":[1],"started":"2025-06-02T08:00:00Z","note":null}}',
    ],
    ids=["members in another order", "1.0 for 1", "times spelled differently", "null members"],
)
def test_an_echo_stays_one_when_it_is_serialised_anew(office: Office, respelled: bytes) -> None:
    first = b'{"singleStep":{"uniqueStepId":"a","values":[1],"started":"2025-06-02T08:00:00Z"}}'
    frame = b'{"metadata":{"clientJobId":"job-1"},"completedSteps":[%s],"sync":%s}'
    envelope = b'{"installId":"%s","pushSeq":%d,"base":"0a1b2c3d.%d"}'
    office.push(None, body=frame % (first, envelope % (A.encode(), 1, 0)))
    before = office.job
    for seq, install in enumerate((A, B), start=2):
        office.push(None, body=frame % (respelled, envelope % (install.encode(), seq, 1)))
    assert office.job.rev == before.rev
    assert office.job.view == before.view


def test_true_is_not_1(office: Office) -> None:
    seen = office.push(A, metadata={"k": 1})
    assert office.push(A, base=rev(seen), metadata={"k": True})["metadata"]["metadata"] == {"k": True}


def test_a_step_in_another_phase_is_an_edit_though_its_bytes_are_the_same(office: Office) -> None:
    seen = office.push(A, currentStep=step("a", 1, 10))
    merged = office.push(A, base=rev(seen), completed=(step("a", 1, 10),))
    assert (merged["metadata"]["currentStep"], values(merged)) == (None, {"a": 1})
    # What another install knew of it is the old phase, also after the change.
    merged = office.push(B, base=rev(seen), currentStep=step("a", 1, 10), metadata={"k": 1})
    assert (values(merged), merged["sync"]["conflicts"]) == ({"a": 1}, [])


def test_what_an_install_wrote_after_it_last_looked_is_what_it_knows(office: Office) -> None:
    seen = office.push(A, metadata={"k": 0})
    wrote = office.push(B, base=rev(seen), metadata={"k": 1})
    office.push(A, base=rev(wrote), metadata={"k": 2})
    # The answer to B's push was lost; it says its own value again beside something new.
    merged = office.push(B, base=rev(seen), metadata={"k": 1, "other": 1})
    assert merged["metadata"]["metadata"] == {"k": 2, "other": 1}
    assert merged["sync"]["conflicts"] == []


def test_taking_an_edit_back_after_a_lost_reply_is_an_edit(office: Office) -> None:
    seen = office.push(A, metadata={"k": 0})
    office.push(B, base=rev(seen), metadata={"k": 1})
    assert office.push(B, base=rev(seen), metadata={"k": 0})["metadata"]["metadata"] == {"k": 0}


def test_a_confirmed_scope_is_an_edit_though_it_looks_like_an_echo(office: Office) -> None:
    office.push(A, metadata={"k": 1}, time=10)
    seen = office.push(B, metadata={"k": 2}, time=20)
    assert conflict(seen, "meta:k") == [1]
    settled = office.push(B, base=rev(seen), metadata={"k": 2}, confirm=("meta:k",))
    assert settled["metadata"]["metadata"] == {"k": 2}
    assert settled["sync"]["conflicts"] == []


def test_an_older_push_that_comes_late_overwrites_nothing_and_brings_what_the_newer_one_lacks(
    office: Office,
) -> None:
    office.push(A, seq=2, metadata={"k": 2}, completed=(step("a", 2, 20),), time=20)
    merged = office.push(A, seq=1, metadata={"k": 1, "other": 1}, completed=(step("a", 1, 90),), time=90)
    assert merged["metadata"]["metadata"] == {"k": 2, "other": 1}
    assert values(merged) == {"a": 2}
    assert merged["sync"]["conflicts"] == []


def test_a_late_push_passes_over_what_a_later_one_stated_even_as_an_echo(office: Office) -> None:
    seen = office.push(B, metadata={"k": 0})
    office.push(A, seq=2, base=rev(seen), metadata={"k": 0, "other": 1})
    assert office.push(A, seq=1, metadata={"k": 1})["metadata"]["metadata"] == {"k": 0, "other": 1}


# Time


def test_a_slow_clock_is_set_right_by_the_time_of_sending(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 100),), sent=1001)  # a right clock: edited long ago
    merged = office.push(B, completed=(step("a", 2, -5000),), sent=-4000)  # edited 1,000 s before sending
    assert office.times("step:a") == [100, 2]
    merged = office.push(C, completed=(step("a", 3, -4500),), sent=-4497)
    assert values(merged) == {"a": 3}
    assert office.times("step:a") == [1000, 100, 2]


def test_without_a_time_of_sending_a_fast_clock_is_set_back_and_a_slow_one_is_believed(
    office: Office,
) -> None:
    office.push(A, completed=(step("a", 1, 9000), step("b", 1, 8990)), time=9000)
    assert office.times("step:a") == [1001]
    assert office.times("step:b") == [991]
    office.push(B, completed=(step("c", 1, 500),), time=500)
    assert office.times("step:c") == [500]


def test_the_offset_is_taken_over_this_pushs_edits_only(office: Office) -> None:
    # The first writer's clock is hours ahead, and its step keeps the time it was sent with.
    seen = office.push(A, completed=(step("a", 1, 90_000),), sent=90_001)
    office.push(B, base=rev(seen), completed=(step("a", 1, 90_000), step("b", 1, 900)))
    assert office.times("step:b") == [900]


def test_no_edit_is_later_than_its_receipt(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 5000),), sent=1001)
    assert office.times("step:a") == [1001]


def test_a_scope_without_a_time_takes_the_headers_else_the_newest_steps_else_the_receipts(
    office: Office,
) -> None:
    office.push(A, metadata={"k": 1}, completed=(step("a", 1, 100),), time=200)
    office.push(B, metadata={"l": 1}, completed=(step("b", 1, 300), step("c", 1, 250)))
    office.push(C, metadata={"m": 1})
    assert [office.times(f"meta:{key}") for key in "klm"] == [[200], [300], [1003]]


@pytest.mark.parametrize("first", ["updated", "cancelled", "completed", "started"])
def test_a_steps_own_time_is_updated_else_cancelled_completed_started(office: Office, first: str) -> None:
    names = ["updated", "cancelled", "completed", "started"]
    times = {name: moment(10 * index) for index, name in enumerate(names, start=1)}
    times = {name: time for name, time in times.items() if names.index(name) >= names.index(first)}
    office.push(A, completed=(step("a", 1, **times),), time=500)
    assert office.times("step:a") == [10 * (names.index(first) + 1)]


def test_created_is_the_earliest_pushs_and_updated_the_latest_ones(office: Office) -> None:
    office.push(A, created=moment(50), time=60)
    office.push(B, created=moment(40), time=55)
    header = office.push(C, created=moment(45), time=70)["metadata"]
    assert (header["created"], header["updated"]) == (moment(40), moment(70))


def test_an_echoed_header_time_moves_nothing_however_it_is_spelled(office: Office) -> None:
    seen = office.push(A, created=moment(50), time=60, sent=1001)
    spelled = moment(50).replace("+00:00", "Z")
    again = office.push(B, base=rev(seen), created=spelled, updated=moment(60).replace("+00:00", "Z"))
    assert rev(again) == rev(seen)
    assert again["metadata"]["created"] == moment(50)


# Recording: supersession and siblings


def test_an_edit_supersedes_what_its_install_had_seen_whatever_the_clocks(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1, 900),), time=900)
    merged = office.push(B, base=rev(seen), completed=(step("a", 2, -(10**6)),), time=-(10**6))
    assert (values(merged), merged["sync"]["conflicts"]) == ({"a": 2}, [])


def test_edits_that_have_not_seen_each_other_are_siblings_and_the_later_one_is_shown(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 20),))
    merged = office.push(B, completed=(step("a", 2, 10),))
    assert values(merged) == {"a": 1}
    (entry,) = merged["sync"]["conflicts"]
    (other,) = entry["values"]
    assert (entry["scope"], entry["installId"]) == ("step:a", A)
    assert (other["installId"], other["phase"], other["rev"]) == (B, "completed", 2)
    assert other["value"]["singleStep"]["values"] == [2]


def test_siblings_of_one_time_are_ordered_by_phase_and_then_by_install(office: Office) -> None:
    office.push(B, completed=(step("a", 1, 10), step("b", 1, 10)))
    merged = office.push(A, cancelled=(step("a", 2, 10),), completed=(step("b", 2, 10),))
    assert values(merged, "cancelledSteps") == {"a": 2}
    assert values(merged) == {"b": 1}


def test_equal_values_stand_in_the_conflicts_once_and_the_rest_beyond_eight_is_counted(
    office: Office,
) -> None:
    for index in range(11):
        office.push(A[:-2] + f"{index:02}", metadata={"k": index}, time=index)
    office.push(A[:-2] + "11", metadata={"k": 10}, time=0)
    merged = office.push(A[:-2] + "12", metadata={"k": 9}, time=0)
    assert merged["metadata"]["metadata"] == {"k": 10}
    assert conflict(merged, "meta:k") == [9, 8, 7, 6, 5, 4, 3, 2]
    assert merged["sync"]["conflicts"][0]["conflictsMore"] == 2


def test_equal_siblings_are_no_conflict(office: Office) -> None:
    office.push(A, metadata={"k": 1})
    assert office.push(B, metadata={"k": 1.0})["sync"]["conflicts"] == []


def test_a_step_in_conflict_shows_every_siblings_photos_and_notes(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 20, ["p1", "p2"], noteResourceFilenames=["n1"]),))
    merged = office.push(B, completed=(step("a", 2, 10, ["p2", "p3"], noteResourceFilenames=["n2"]),))
    shown = merged["completedSteps"][0]["singleStep"]
    assert shown["values"] == [1]
    assert shown["valueResourceIds"] == ["p1", "p2", "p3"]
    assert shown["noteResourceFilenames"] == ["n1", "n2"]
    # What is shown in conflict is known to whoever saw it.
    again = office.push(C, base=rev(merged), completed=tuple(merged["completedSteps"]))
    assert rev(again) == rev(merged)


def test_a_photo_goes_only_when_every_edit_that_holds_it_is_superseded(office: Office) -> None:
    office.push(A, completed=(step("a", 1, 20, ["p1"]),))
    seen = office.push(B, completed=(step("a", 2, 10, ["p1", "p2"]),))
    only_a = office.push(A, base=1, completed=(step("a", 3, 30, []),))
    assert only_a["completedSteps"][0]["singleStep"]["valueResourceIds"] == ["p1", "p2"]
    both = office.push(C, base=rev(only_a), completed=(step("a", 4, 40, []),))
    assert both["completedSteps"][0]["singleStep"]["valueResourceIds"] == []
    assert rev(seen) == 2


def test_the_revision_rises_once_per_push_that_recorded_something(office: Office) -> None:
    assert rev(office.push(A, metadata={"k": 1, "l": 1}, status="Paused")) == 1
    assert rev(office.push(B, metadata={"k": 1})) == 2  # an edit, though the view stays
    assert rev(office.push(B, base=2, metadata={"k": 1})) == 2


# Absence and nulls


def test_absence_never_deletes(office: Office) -> None:
    seen = office.push(
        A,
        completed=(step("a", 1),),
        metadata={"k": 1},
        jobTitle="Title",
        status="Paused",
        userId="u",
        top={"packetIds": [1]},
    )
    merged = office.push(A, base=rev(seen), metadata={"l": 1})
    assert values(merged) == {"a": 1}
    assert merged["metadata"]["metadata"] == {"k": 1, "l": 1}
    header = merged["metadata"]
    assert (header["jobTitle"], header["status"], header["userId"]) == ("Title", "Paused", "u")
    assert merged["packetIds"] == [1]


def test_a_metadata_key_goes_by_an_explicit_null(office: Office) -> None:
    seen = office.push(A, metadata={"k": 1, "l": 1})
    merged = office.push(B, base=rev(seen), metadata={"k": None})
    assert merged["metadata"]["metadata"] == {"l": 1}
    assert rev(office.push(C, base=rev(merged), metadata={"k": None})) == rev(merged)


def test_a_step_leaves_only_by_being_cancelled(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1, 10),))
    merged = office.push(A, base=rev(seen), cancelled=(step("a", 1, 10),))
    assert (merged["completedSteps"], values(merged, "cancelledSteps")) == (None, {"a": 1})


def test_the_nulls_that_a_reply_shows_for_missing_members_are_echoes(office: Office) -> None:
    seen = office.push(A, completed=(step("a", 1),))
    assert seen["metadata"]["jobTitle"] is None
    assert seen["packetIds"] is None
    shown = {key: value for key, value in seen["metadata"].items() if key != "clientJobId"}
    again = office.push(
        B, base=rev(seen), completed=(step("a", 1),), top={"packetIds": None, "hierarchyStack": None}, **shown
    )
    assert rev(again) == rev(seen)


# Steps


def test_a_steps_key_is_the_single_steps_id_else_the_report_steps_else_its_content(office: Office) -> None:
    nested = {"singleStep": None, "reportStep": {"uniqueStepId": "r", "values": [1], "steps": []}}
    office.push(A, completed=(step("a", 1), nested, step(None, 1), step(None, 2)))
    names = {name for name in office.job.scopes if name.startswith("step:")}
    assert {"step:a", "step:r"} < names
    assert len([name for name in names if name.startswith("step:#")]) == 2


def test_a_step_held_twice_counts_in_its_most_advanced_phase(office: Office) -> None:
    merged = office.push(
        A, currentStep=step("a", 1), completed=(step("a", 2), step("b", 2)), cancelled=(step("b", 3),)
    )
    assert merged["metadata"]["currentStep"] is None
    assert (values(merged), values(merged, "cancelledSteps")) == ({"a": 2}, {"b": 3})


def test_photos_of_steps_nested_in_a_form_are_known(office: Office) -> None:
    child = {"singleStep": {"uniqueStepId": "c", "valueResourceIds": ["p"]}}
    form = {"singleStep": None, "reportStep": {"uniqueStepId": "r", "steps": [child]}}
    answer = office.push(A, completed=(form,))
    assert answer["sync"]["missingResources"] == ["p"]
    assert answer["sync"]["attachmentsComplete"] is False


def test_the_current_step_is_the_latest_open_one_and_the_others_are_open_steps(office: Office) -> None:
    office.push(A, currentStep=step("a", 1, 20))
    merged = office.push(B, currentStep=step("b", 1, 10))
    assert merged["metadata"]["currentStep"]["singleStep"]["uniqueStepId"] == "a"
    assert [item["singleStep"]["uniqueStepId"] for item in merged["sync"]["openSteps"]] == ["b"]


def test_a_finished_job_has_no_current_step_and_its_open_ones_are_open_steps(office: Office) -> None:
    office.push(A, currentStep=step("a", 1, 20))
    merged = office.push(B, status="Abandoned")
    assert merged["metadata"]["currentStep"] is None
    assert [item["singleStep"]["uniqueStepId"] for item in merged["sync"]["openSteps"]] == ["a"]


def test_steps_stand_in_the_order_of_their_corrected_times_and_then_of_their_keys(office: Office) -> None:
    merged = office.push(
        A, completed=(step("z", 1, 10), step("y", 1, 30), step("x", 1, 20), step("w", 1, 20))
    )
    assert list(values(merged)) == ["z", "w", "x", "y"]


def test_unknown_members_survive_byte_for_byte(office: Office) -> None:
    body = (
        b'{"z":[1.50,{"b":1,"a":2.0}],"metadata":{"clientJobId":"job-1","size":2.50,"metadata":{"k":1e2}},'
        b'"completedSteps":[{"singleStep":{"zz":{"y":1.10,"x":null},"uniqueStepId":"a","n":1.00}}]}'
    )
    office.push(None, body=body)
    for kept in (
        b'"z":[1.50,{"b":1,"a":2.0}]',
        b'"size":2.50',
        b'{"k":1e2}',
        b'[{"singleStep":{"zz":{"y":1.10,"x":null},"uniqueStepId":"a","n":1.00}}]',
    ):
        assert kept in office.job.view


def test_server_owned_members_are_ignored_when_sent(office: Office) -> None:
    said = {"jobId": "mine", "team": "mine", "excluded": True, "jobExclusion": [{"reason": "mine"}]}
    view = office.push(A, top=said, modified=moment(1))
    assert (view["jobId"], view["team"], view["excluded"], view["jobExclusion"]) == (
        "0" * 24,
        "north",
        False,
        [],
    )
    assert view["metadata"]["modified"].startswith("2025-06-02T08:16:41")


# Answers and events


def test_a_minimal_answer_says_in_sync_exactly_when_the_job_is_the_snapshot_sent(office: Office) -> None:
    first = office.push(A, completed=(step("a", 1, 10),), status="Paused", time=10, minimal=True)
    assert first["sync"]["inSync"] is True
    second = office.push(B, completed=(step("b", 1, 10),), status="Paused", time=10, minimal=True)
    assert second["sync"]["inSync"] is False


def test_a_snapshot_whose_open_step_is_no_longer_current_is_not_in_sync(office: Office) -> None:
    said = {"currentStep": step("a", 1, 10), "status": "Completed", "time": 10}
    assert office.push(A, minimal=True, **said)["sync"]["inSync"] is False


def test_events_tell_of_creation_change_completion_and_abort_once() -> None:
    office = Office()
    fired = []
    for status in ("Paused", "Completed", "Abandoned", "Aborted", "Aborted"):
        before = office.job
        office.push(A, base=before.rev, status=status, abandonReason=status)
        fired.append(events(before, office.job, office.job.view != before.view))
    assert fired == [
        ["job.created"],
        ["job.updated", "job.completed"],
        ["job.updated"],
        ["job.updated", "job.aborted"],
        [],
    ]
