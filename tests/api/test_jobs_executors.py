"""A field worker's own work: what an EXECUTOR sees and writes, before and after a hand-over."""

import pytest

from tests.support.app import Account, Document, Team, edited, keys_of, problem, snapshot, step


@pytest.fixture
def worker(team: Team) -> Account:
    return team.executor()


@pytest.fixture
def colleague(team: Team) -> Account:
    return team.executor()


def id_of(document: Document) -> str:
    return str(document["metadata"]["clientJobId"])


def hand_over(team: Team, document: Document, to: Account) -> None:
    response = team.post(f"/jobs/v1/{id_of(document)}/assign/{to.subject_id}")
    assert response.status_code == 200, response.text


def test_a_field_worker_sees_the_jobs_it_made(team: Team, worker: Account, colleague: Account) -> None:
    document = snapshot()
    job_id = team.synced(document, by=worker)["jobId"]
    for path in (f"/jobs/v1/{id_of(document)}", f"/jobs/v1/bson/{job_id}"):
        assert team.get(path, by=worker).status_code == 200
        problem(team.get(path, by=colleague), 404, "job-not-found")
    assert [id_of(job) for job in team.get("/jobs/v1/my", by=worker).json()] == [id_of(document)]
    assert team.get("/jobs/v1/my", by=colleague).json() == []


def test_a_field_worker_sees_a_job_once_it_is_assigned(team: Team, worker: Account) -> None:
    document = snapshot()
    team.synced(document)
    problem(team.get(f"/jobs/v1/{id_of(document)}", by=worker), 404, "job-not-found")
    hand_over(team, document, worker)
    assert team.job(id_of(document), by=worker)["metadata"]["userId"] == worker.subject_id
    assert team.get("/jobs/v1/my", by=worker).json()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/v1"),
        ("GET", "/jobs/v1/workflow/w"),
        ("GET", "/jobs/v1/snapshots/{id}"),
        ("PUT", "/jobs/v1/abort"),
        ("PUT", "/jobs/v1/{id}"),
        ("POST", "/jobs/v1/{id}"),
        ("POST", "/jobs/v1/{id}/metadata"),
        ("POST", "/jobs/v1/{id}/reopen"),
        ("POST", "/jobs/v1/reopen"),
        ("DELETE", "/jobs/v1/{id}"),
        ("GET", "/sync/v1/quarantine"),
    ],
)
def test_a_field_worker_has_no_part_in_team_wide_work(
    team: Team, worker: Account, method: str, path: str
) -> None:
    document = snapshot()
    team.synced(document, by=worker)
    response = team.request(method, path.format(id=id_of(document)), by=worker, json={})
    problem(response, 403, "insufficient-permission")


def test_a_field_worker_pushes_to_a_job_that_was_assigned_to_it(team: Team, worker: Account) -> None:
    document = snapshot()
    team.synced(document)
    hand_over(team, document, worker)
    answer = team.synced(
        edited({**document, "completedSteps": [step("mine")]}, 1, jobTitle="renamed"), by=worker
    )
    assert keys_of(answer["completedSteps"]) == {"mine"}
    assert answer["metadata"]["jobTitle"] == "renamed"


def test_after_a_hand_over_the_former_workers_steps_merge_and_its_header_does_not(
    team: Team, worker: Account, colleague: Account
) -> None:
    document = snapshot(status="InProgress")
    team.synced(document, by=worker)
    hand_over(team, document, colleague)
    late = edited({**document, "completedSteps": [step("late")]}, 1, jobTitle="late", status="Completed")
    late["metadata"]["metadata"] = {"late": True}
    response = team.sync(late, by=worker)
    assert response.status_code == 200
    job = team.job(id_of(document))
    assert keys_of(job["completedSteps"]) == {"late"}
    assert job["metadata"]["jobTitle"] == document["metadata"]["jobTitle"]
    assert job["metadata"]["status"] == "InProgress"
    assert "late" not in job["metadata"]["metadata"]
    assert job["metadata"]["userId"] == colleague.subject_id
    newest = team.get(f"/jobs/v1/snapshots/{id_of(document)}").json()[0]
    assert newest["job"] == late


def test_after_a_hand_over_an_abort_of_the_former_worker_is_recorded_only(
    team: Team, worker: Account, colleague: Account
) -> None:
    document = snapshot(status="InProgress")
    team.synced(document, by=worker)
    hand_over(team, document, colleague)
    answer = team.synced(edited(document, 1, status="Aborted"), by=worker)
    assert answer["sync"]["action"] == "recorded"
    assert team.job(id_of(document))["metadata"]["status"] == "InProgress"


def test_after_a_hand_over_the_job_is_out_of_the_former_workers_sight(
    team: Team, worker: Account, colleague: Account
) -> None:
    document = snapshot()
    team.synced(document, by=worker)
    hand_over(team, document, colleague)
    problem(team.get(f"/jobs/v1/{id_of(document)}", by=worker), 404, "job-not-found")
    problem(team.post(f"/jobs/v1/{id_of(document)}/abort", by=worker), 404, "job-not-found")
    assert team.get("/jobs/v1/my", by=worker).json() == []
    assert team.job(id_of(document), by=colleague)


def test_a_strangers_push_is_refused_and_kept(team: Team, worker: Account, colleague: Account) -> None:
    document = snapshot()
    team.synced(document, by=worker)
    before = team.get(f"/jobs/v1/{id_of(document)}").content
    stranger = edited({**document, "completedSteps": [step("x")]}, 1)
    for times in (1, 2):
        body = problem(team.sync(stranger, by=colleague), 403, "not-your-job")
        assert (body["quarantined"], body["retry"]) == (True, "never")
        (entry,) = team.quarantine()
        assert (entry["times"], entry["code"]) == (times, "not-your-job")
        assert (entry["subjectId"], entry["clientJobId"]) == (colleague.subject_id, id_of(document))
    assert team.get(f"/jobs/v1/{id_of(document)}").content == before


def test_a_field_worker_aborts_and_hands_over_its_own_job(
    team: Team, worker: Account, colleague: Account
) -> None:
    document, other = snapshot(), snapshot()
    team.synced(document, by=worker)
    team.synced(other, by=colleague)
    problem(team.post(f"/jobs/v1/{id_of(other)}/abort", by=worker), 404, "job-not-found")
    path = f"/jobs/v1/{id_of(other)}/assign/{worker.subject_id}"
    problem(team.post(path, by=worker), 404, "job-not-found")
    assigned = team.post(f"/jobs/v1/{id_of(document)}/assign/{colleague.subject_id}", by=worker)
    assert assigned.json()["metadata"]["userId"] == colleague.subject_id
    aborted = team.post(f"/jobs/v1/{id_of(document)}/abort", by=colleague)
    assert aborted.json()["metadata"]["status"] == "Aborted"


def test_an_assignment_by_an_operator_beats_a_push_that_has_not_seen_it(
    team: Team, worker: Account, colleague: Account
) -> None:
    document = snapshot(userId=worker.subject_id, username=worker.username)
    team.synced(document, by=worker)
    hand_over(team, document, colleague)
    changed = edited(document, 1, jobTitle="x", username="still mine")
    job = team.synced(changed, by=worker)
    assert job["metadata"]["userId"] == colleague.subject_id


def test_a_modifier_changes_any_job_of_the_team(team: Team) -> None:
    modifier = team.user("MODIFIER")
    document = snapshot()
    team.synced(document)
    problem(team.get(f"/jobs/v1/{id_of(document)}", by=modifier), 403, "insufficient-permission")
    response = team.post(f"/jobs/v1/{id_of(document)}/metadata", by=modifier, json={"Order": "7"})
    assert response.status_code == 200, response.text
    assert team.job(id_of(document))["metadata"]["metadata"]["Order"] == "7"


def test_a_viewer_reads_every_job_of_the_team_and_changes_none(team: Team) -> None:
    viewer = team.user("DATAVIEWER")
    document = snapshot()
    team.synced(document)
    assert [id_of(job) for job in team.get("/jobs/v1", by=viewer).json()] == [id_of(document)]
    problem(team.sync(edited(document, 1), by=viewer), 403, "insufficient-permission")
