"""What operators do to jobs: rows 6.7 to 6.11, 6.13 and 6.15 of the specification, and reopening."""

import json
import uuid
from typing import Any

import pytest

from tests.support.app import (
    Document,
    Team,
    edited,
    finished_snapshot,
    keys_of,
    problem,
    snapshot,
    step,
)


def id_of(document: Document) -> str:
    return str(document["metadata"]["clientJobId"])


@pytest.fixture
def document(team: Team) -> Document:
    """A job in progress that the team has."""
    created = snapshot(status="InProgress", metadata={"Order": "1", "Site": "A"})
    team.synced(created)
    return created


@pytest.fixture
def path(document: Document) -> str:
    return f"/jobs/v1/{id_of(document)}"


def status_of(team: Team, client_job_id: str) -> Any:
    return team.job(client_job_id)["metadata"]["status"]


# 6.7


@pytest.mark.parametrize("slash", ["", "/"])
def test_aborting_answers_the_aborted_job(team: Team, path: str, slash: str) -> None:
    response = team.post(f"{path}/abort{slash}")
    assert response.status_code == 200
    assert response.json()["metadata"]["status"] == "Aborted"
    assert response.json()["metadata"]["currentStep"] is None
    assert response.headers["etag"] == response.json()["sync"]["etag"]
    assert response.json() == team.get(path).json()


def test_aborting_twice_changes_nothing_more(team: Team, path: str) -> None:
    once = team.post(f"{path}/abort").json()
    assert team.post(f"{path}/abort").json()["sync"]["rev"] == once["sync"]["rev"]


@pytest.mark.parametrize("status", ["Completed", "Abandoned", "completed"])
def test_only_incomplete_jobs_can_be_aborted(team: Team, status: str) -> None:
    finished = finished_snapshot(status=status)
    team.synced(finished)
    problem(team.post(f"/jobs/v1/{id_of(finished)}/abort"), 409, "job-finished")
    assert status_of(team, id_of(finished)) == status


def test_a_tablet_that_completes_an_aborted_job_is_recorded_and_the_abort_stands(
    team: Team, document: Document, path: str
) -> None:
    team.post(f"{path}/abort")
    answer = team.synced(edited({**document, "completedSteps": [step("late")]}, 1, status="Completed"))
    assert answer["sync"]["action"] == "recorded"
    assert answer["metadata"]["status"] == "Aborted"
    assert keys_of(answer["completedSteps"]) == {"late"}


# 6.8


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_deleted_job_is_gone_and_its_late_snapshot_is_kept_for_an_administrator(
    team: Team, document: Document, path: str, slash: str
) -> None:
    job_id = team.get(path).json()["jobId"]
    response = team.delete(path + slash)
    assert (response.status_code, response.content) == (200, b"")
    for address in (path, f"/jobs/v1/bson/{job_id}", f"/jobs/v1/snapshots/{id_of(document)}"):
        problem(team.get(address), 404, "job-not-found")
    assert team.get("/jobs/v1").json() == []
    late = json.dumps(edited(document, 1, jobTitle="late")).encode()
    body = problem(team.sync(late), 410, "job-deleted")
    assert (body["quarantined"], body["retry"]) == (True, "never")
    (entry,) = team.quarantine()
    assert team.quarantined_body(entry["quarantineId"]) == late
    problem(team.delete(path), 404, "job-not-found")


def test_a_replay_to_a_deleted_job_is_answered_as_applied(team: Team) -> None:
    first = {**snapshot(), "sync": {"installId": str(uuid.uuid4()), "pushSeq": 1}}
    team.synced(first)
    team.delete(f"/jobs/v1/{id_of(first)}")
    said = team.synced(first)
    assert set(said) == {"sync"}
    assert (said["sync"]["deleted"], said["sync"]["replayed"]) == (True, True)


# 6.9


@pytest.mark.parametrize("slash", ["", "/"])
def test_assigning_shows_the_user_and_its_name(team: Team, path: str, slash: str) -> None:
    worker = team.executor()
    response = team.post(f"{path}/assign/{worker.subject_id}{slash}")
    assert response.status_code == 200
    header = response.json()["metadata"]
    assert (header["userId"], header["username"]) == (worker.subject_id, worker.username)
    again = team.post(f"{path}/assign/{worker.subject_id}").json()
    assert again["sync"]["rev"] == response.json()["sync"]["rev"]


def test_only_users_of_the_team_can_be_assigned(team: Team, path: str) -> None:
    problem(team.post(f"{path}/assign/nobody"), 404, "no-such-user", "user_id")
    problem(team.post(f"{path}/assign/{team.owner.subject_id}"), 404, "no-such-user")


@pytest.mark.parametrize("status", ["Completed", "Abandoned", "Aborted"])
def test_a_finished_job_cannot_be_assigned(team: Team, status: str) -> None:
    finished = snapshot(status=status)
    team.synced(finished)
    worker = team.executor()
    problem(team.post(f"/jobs/v1/{id_of(finished)}/assign/{worker.subject_id}"), 409, "job-finished")


# 6.10


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("said", ["true", True, "True"])
def test_excluding_is_recorded_with_who_why_and_when(team: Team, path: str, said: object, slash: str) -> None:
    body = {"userId": "someone", "reason": "a test job", "isExcluded": said}
    answer = team.put(path + slash, json=body).json()
    assert answer["excluded"] is True
    (entry,) = answer["jobExclusion"]
    assert list(entry) == ["userId", "reason", "isExcluded", "time"]
    assert (entry["userId"], entry["reason"], entry["isExcluded"]) == ("someone", "a test job", True)


@pytest.mark.parametrize("said", ["false", False])
def test_an_excluded_job_can_be_taken_in_again(team: Team, path: str, said: object) -> None:
    team.put(path, json={"reason": "a", "isExcluded": True})
    answer = team.put(path, json={"reason": "b", "isExcluded": said}).json()
    assert answer["excluded"] is False
    assert [entry["reason"] for entry in answer["jobExclusion"]] == ["a", "b"]
    assert {entry["userId"] for entry in answer["jobExclusion"]} == {team.owner.subject_id}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "isExcluded"),
        ({"isExcluded": "perhaps"}, "isExcluded"),
        ({"isExcluded": True, "reason": 1}, "reason"),
    ],
)
def test_an_exclusion_that_says_nothing_clear_is_refused(
    team: Team, path: str, body: object, field: str
) -> None:
    problem(team.put(path, json=body), 422, "invalid-body", field)


# 6.11


@pytest.mark.parametrize("slash", ["", "/"])
def test_metadata_is_merged_key_by_key(team: Team, path: str, slash: str) -> None:
    body = b'{"Order": 2.50, "New": {"b":1, "a":2}, "Site": null}'
    response = team.post(f"{path}/metadata{slash}", content=body)
    assert response.json()["metadata"]["metadata"] == {"Order": 2.5, "New": {"b": 1, "a": 2}}
    assert b'"Order":2.50' in response.content
    assert b'{"b":1, "a":2}' in response.content


def test_metadata_added_by_an_operator_survives_a_push_that_has_not_seen_it(
    team: Team, document: Document, path: str
) -> None:
    team.post(f"{path}/metadata", json={"Order": "99"})
    answer = team.synced(edited(document, 1, jobTitle="x"))
    assert answer["metadata"]["metadata"]["Order"] == "99"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-json"),
        (b"[]", 422, "invalid-body"),
        (b'{"a": 1e400}', 400, "malformed-json"),
        (b'{"a": "\xff"}', 400, "malformed-json"),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b"}", 400, "too-deep"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused(
    team: Team, path: str, body: bytes, status: int, code: str
) -> None:
    before = team.get(path).content
    problem(team.post(f"{path}/metadata", content=body), status, code)
    assert team.get(path).content == before


# 6.13


@pytest.mark.parametrize("query", ["", "?all=true"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_every_incomplete_job_of_the_team_is_aborted(
    team: Team, document: Document, query: str, slash: str
) -> None:
    finished, aborted = finished_snapshot(), snapshot(status="Aborted")
    team.push_many([finished, aborted, snapshot()])
    assert team.put(f"/jobs/v1/abort{slash}{query}").json() == {"aborted": 2}
    assert status_of(team, id_of(document)) == "Aborted"
    assert status_of(team, id_of(finished)) == "Completed"
    assert team.put("/jobs/v1/abort").json() == {"aborted": 0}


def test_aborting_for_a_user_leaves_the_others_alone(team: Team, document: Document) -> None:
    worker = team.executor()
    mine, given = snapshot(), snapshot(userId=worker.subject_id)
    team.synced(mine, by=worker)
    team.synced(given)
    assert team.put(f"/jobs/v1/abort?userId={worker.subject_id}").json() == {"aborted": 2}
    assert [status_of(team, id_of(job)) for job in (mine, given)] == ["Aborted", "Aborted"]
    assert status_of(team, id_of(document)) == "InProgress"
    assert team.put("/jobs/v1/abort?userId=nobody").json() == {"aborted": 0}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("userId=", "userId"),
        ("userid=a", "userid"),
        ("userId=a&x=1", "x"),
        ("userId=a&userId=b", "userId"),
        ("all=false", "all"),
        ("all=", "all"),
        ("all=true&userId=a", "all"),
        ("anything", "anything"),
    ],
)
def test_a_misspelt_parameter_does_not_abort_the_team(
    team: Team, document: Document, query: str, field: str
) -> None:
    problem(team.put(f"/jobs/v1/abort?{query}"), 422, "invalid-parameter", field)
    assert status_of(team, id_of(document)) == "InProgress"


def test_more_jobs_than_one_round_takes_are_all_aborted(team: Team) -> None:
    team.push_many([snapshot() for _ in range(205)])
    assert team.put("/jobs/v1/abort").json() == {"aborted": 205}


# 6.15


@pytest.mark.parametrize("slash", ["", "/"])
def test_an_update_sets_what_it_holds_and_leaves_the_rest(
    team: Team, document: Document, path: str, slash: str
) -> None:
    body = {"metadata": {"jobTitle": "renamed", "metadata": {"Order": "2"}}}
    response = team.post(path + slash, json=body)
    header = response.json()["metadata"]
    assert (header["jobTitle"], header["status"]) == ("renamed", "InProgress")
    assert header["metadata"] == {"Order": "2", "Site": "A"}
    assert header["currentStep"] == document["metadata"]["currentStep"]
    assert response.headers["etag"] == response.json()["sync"]["etag"]


def test_an_update_may_name_the_job_of_the_address_and_no_other(
    team: Team, document: Document, path: str
) -> None:
    assert team.post(path, json={"metadata": {"clientJobId": id_of(document)}}).status_code == 200
    other = team.post(path, json={"metadata": {"clientJobId": "other"}})
    problem(other, 422, "client-job-id-differs", "metadata.clientJobId")


def test_an_update_that_aborts_shows_its_reason(team: Team, document: Document, path: str) -> None:
    header = {"status": "Aborted", "abandonReason": "The lift is gone"}
    shown = team.post(path, json={"metadata": header}).json()["metadata"]
    assert (shown["status"], shown["abandonReason"]) == ("Aborted", "The lift is gone")


def test_an_update_may_abort_and_complete(team: Team, document: Document, path: str) -> None:
    completed = team.post(path, json={"metadata": {"status": "Completed"}}).json()
    assert completed["metadata"]["status"] == "Completed"
    problem(team.post(path, json={"metadata": {"status": "Aborted"}}), 409, "job-finished")
    other = snapshot()
    team.synced(other)
    aborted = team.post(f"/jobs/v1/{id_of(other)}", json={"metadata": {"status": "Aborted"}}).json()
    assert aborted["metadata"]["status"] == "Aborted"


def test_the_status_of_an_aborted_job_changes_by_reopening_only(team: Team, path: str) -> None:
    team.post(f"{path}/abort")
    problem(team.post(path, json={"metadata": {"status": "InProgress"}}), 409, "job-aborted")
    assert team.post(path, json={"metadata": {"jobTitle": "still"}}).status_code == 200


# Every change


CHANGES = [
    ("POST", "/abort", None),
    ("DELETE", "", None),
    ("POST", "/assign/{user}", None),
    ("PUT", "", {"isExcluded": True}),
    ("POST", "/metadata", {"a": 1}),
    ("POST", "", {"metadata": {"jobTitle": "new"}}),
    ("POST", "/reopen", None),
]


@pytest.mark.parametrize(("method", "suffix", "body"), CHANGES)
def test_a_change_to_a_job_that_is_not_there_is_404(
    team: Team, method: str, suffix: str, body: object
) -> None:
    suffix = suffix.format(user=team.executor().subject_id)
    problem(team.request(method, f"/jobs/v1/nothing{suffix}", json=body), 404, "job-not-found")


@pytest.mark.parametrize(("method", "suffix", "body"), CHANGES)
def test_a_change_with_a_stale_if_match_is_412_with_the_current_job(
    team: Team, document: Document, path: str, method: str, suffix: str, body: object
) -> None:
    stale = team.get(path).headers["etag"]
    current = team.synced(edited(document, 1, jobTitle="newer"))["sync"]["etag"]
    address = path + suffix.format(user=team.executor().subject_id)
    refused = problem(team.request(method, address, json=body, headers={"If-Match": stale}), 412)
    assert (refused["code"], refused["job"]) == ("precondition-failed", team.get(path).json())
    changed = team.request(method, address, json=body, headers={"If-Match": current})
    assert changed.status_code == 200


# Reopening


def test_reopening_shows_the_status_merged_underneath(team: Team, document: Document, path: str) -> None:
    team.post(f"{path}/abort")
    team.synced(edited(document, 1, status="Completed"))
    reopened = team.post(f"{path}/reopen").json()
    assert reopened["metadata"]["status"] == "Completed"


def test_a_job_aborted_before_it_was_known_is_reopened_in_progress(team: Team) -> None:
    aborted = snapshot(status="Aborted")
    team.synced(aborted)
    reopened = team.post(f"/jobs/v1/{id_of(aborted)}/reopen").json()
    assert reopened["metadata"]["status"] == "InProgress"
    assert reopened["metadata"]["currentStep"] == aborted["metadata"]["currentStep"]


def test_reopening_a_job_that_is_not_aborted_changes_nothing(team: Team, path: str) -> None:
    before = team.get(path)
    assert team.post(f"{path}/reopen/").json() == before.json()


def test_a_tablet_that_has_not_seen_the_reopening_does_not_abort_again(
    team: Team, document: Document, path: str
) -> None:
    install = str(uuid.uuid4())
    team.post(f"{path}/abort")
    team.post(f"{path}/reopen")
    late = edited(document, 1, status="Aborted") | {"sync": {"installId": install, "pushSeq": 1}}
    assert team.synced(late)["metadata"]["status"] == "InProgress"


@pytest.mark.parametrize("slash", ["", "/"])
def test_many_jobs_are_reopened_at_once(team: Team, document: Document, slash: str) -> None:
    others = [snapshot(status="Aborted") for _ in range(3)]
    team.push_many(others)
    ids = [id_of(job) for job in others]
    response = team.post(f"/jobs/v1/reopen{slash}", json={"clientJobIds": [*ids, id_of(document), "nothing"]})
    assert response.json() == {"reopened": 3, "notFound": ["nothing"]}
    assert {status_of(team, client_job_id) for client_job_id in ids} == {"InProgress"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "clientJobIds"),
        ({"clientJobIds": "a"}, "clientJobIds"),
        ({"clientJobIds": ["a", 1]}, "clientJobIds[1]"),
        ({"clientJobIds": ["a"] * 1001}, "clientJobIds"),
    ],
)
def test_a_list_of_jobs_to_reopen_that_is_none_is_refused(team: Team, body: object, field: str) -> None:
    problem(team.post("/jobs/v1/reopen", json=body), 422, "invalid-body", field)
