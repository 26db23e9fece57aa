"""How far scheduled jobs and their tasks are, as devices and people say it (sections 10.4 and 10.5)."""

from typing import Any

import httpx
import pytest

from server.clock import now
from storage.queries import scheduled_jobs as queries
from sync.values import parse_time
from tests.api.test_scheduled_jobs import SCHEDULE, scheduled
from tests.support.app import Document, Team, problem

TIME = "2021-10-06T07:24:52.44"


def say(team: Team, job: Document, state: Any, at: str | None = TIME, **rest: Any) -> httpx.Response:
    """Section 10.4, of the first task."""
    body = {"clientJobId": "c0bda7f7", "state": state, "updated": at} | rest.pop("changes", {})
    task_id = rest.pop("task", job["tasks"][0])["taskId"]
    return team.put(f"{SCHEDULE}/{job['jobId']}/tasks/{task_id}/status", json=body, **rest)


def set_state(team: Team, job: Document, state: str, **rest: Any) -> httpx.Response:
    """Section 10.5."""
    body = {"state": state, "updated": TIME}
    return team.put(f"{SCHEDULE}/{job['jobId']}/status", json=body, **rest)


def read(team: Team, job: Document) -> Document:
    return dict(team.get(f"{SCHEDULE}/{job['jobId']}").json())


# Tasks


def test_a_task_shows_what_was_said_of_it(team: Team) -> None:
    user = team.executor()
    job = scheduled(team, user.subject_id)
    answer = say(team, job, "Paused", by=user).json()
    task = answer["tasks"][0]
    assert (task["state"], task["clientJobId"], task["jobId"]) == (2, "c0bda7f7", None)
    assert task["updated"] == "2021-10-06T07:24:52.440Z"
    assert task["modified"] == answer["updated"] >= job["updated"]
    assert answer["state"] == "Scheduled"
    assert read(team, job) == answer


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("NotStarted", 0), ("Not started", 0), ("notstarted", 0), ("ACTIVE", 1), ("paused", 2)),
        *(("Completed", 3), ("Abandoned", 4), (0, 0), (4, 4), ("3", 3)),
    ],
)
def test_states_come_by_name_or_number_and_go_by_number(
    sqlite_team: Team, name: str | int, number: int
) -> None:
    job = scheduled(sqlite_team)
    assert say(sqlite_team, job, name).json()["tasks"][0]["state"] == number


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"state": value}, "state") for value in ("Done", "", 5, -1, True, None, "33", "²")),
        ({"clientJobId": None}, "clientJobId"),
        ({"clientJobId": ""}, "clientJobId"),
        ({"clientJobId": "a/b"}, "clientJobId"),
        ({"updated": "yesterday"}, "updated"),
    ],
)
def test_a_status_that_cannot_be_taken_is_named(sqlite_team: Team, changes: Document, field: str) -> None:
    job = scheduled(sqlite_team)
    problem(say(sqlite_team, job, "Active", changes=changes), 422, field=field)
    assert read(sqlite_team, job) == job


def test_a_status_of_a_task_that_is_not_there_is_404(team: Team) -> None:
    job, other = scheduled(team), scheduled(team)
    problem(say(team, job, "Active", task=other["tasks"][0]), 404, "no-such-scheduled-task")
    problem(say(team, {**job, "jobId": "f" * 24}, "Active"), 404, "no-such-scheduled-job")


def test_of_what_is_said_of_one_job_the_later_counts(team: Team) -> None:
    job = scheduled(team)
    assert say(team, job, "Completed", "2021-10-06T10:00:00").json()["tasks"][0]["state"] == 3
    later = say(team, job, "Paused", "2021-10-06T11:00:00").json()
    assert (later["tasks"][0]["state"], later["state"]) == (2, "Scheduled")
    late = say(team, job, "Completed", "2021-10-06T10:30:00").json()
    assert late == later


def test_of_several_jobs_for_a_task_the_farthest_counts(team: Team) -> None:
    job = scheduled(team)
    say(team, job, "Completed", "2021-10-06T10:00:00")
    answer = say(team, job, "Active", "2021-10-06T11:00:00", changes={"clientJobId": "another"}).json()
    assert (answer["tasks"][0]["state"], answer["tasks"][0]["clientJobId"]) == (3, "c0bda7f7")


def test_of_a_task_that_very_many_jobs_are_said_to_do_no_further_one_is_taken(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MAX_WORKS", 2)
    job = scheduled(team)
    for number in range(2):
        assert say(team, job, "Active", changes={"clientJobId": f"job-{number}"}).status_code == 200
    refused = say(team, job, "Completed", changes={"clientJobId": "job-2"})
    problem(refused, 409, "too-many-jobs", "clientJobId")
    # One that is known goes on.
    later = say(team, job, "Completed", at="2021-10-07T00:00:00Z", changes={"clientJobId": "job-1"})
    assert later.json()["tasks"][0]["state"] == 3


def test_a_clock_that_is_ahead_says_nothing_later_than_now(team: Team) -> None:
    job = scheduled(team)
    before = now()
    printed = say(team, job, "Active", "2099-01-01T00:00:00Z").json()["tasks"][0]["updated"]
    moment = parse_time(printed)
    assert moment is not None
    assert before // 1000 <= moment // 1000 <= now() // 1000
    assert say(team, job, "Paused", None).json()["tasks"][0]["state"] == 2


def test_the_same_status_again_changes_nothing(team: Team) -> None:
    job = scheduled(team)
    answer = say(team, job, "Active").json()
    assert say(team, job, "Active").json() == answer


# Scheduled jobs


def test_a_scheduled_job_is_completed_with_its_last_task_and_reopened_with_any(team: Team) -> None:
    job = scheduled(team, tasks=[{"taskType": "Workflow"}] * 2)
    first, second = job["tasks"]
    assert say(team, job, "Completed", task=first).json()["state"] == "Scheduled"
    assert say(team, job, "Completed", task=second).json()["state"] == "Completed"
    reopened = say(team, job, "Active", "2021-10-07T00:00:00", task=first).json()
    assert reopened["state"] == "Scheduled"
    assert [task["state"] for task in reopened["tasks"]] == [1, 3]


def test_completing_names_the_tasks_that_are_open(team: Team) -> None:
    user = team.executor()
    job = scheduled(team, user.subject_id, tasks=[{"taskType": "Workflow"}] * 3)
    say(team, job, "Completed", task=job["tasks"][1], by=user)
    say(team, job, "Abandoned", task=job["tasks"][2], by=user)
    before = read(team, job)
    refused = problem(set_state(team, job, "Completed", by=user), 409, "tasks-open", "state")
    assert refused["tasks"] == [job["tasks"][0]["taskId"], job["tasks"][2]["taskId"]]
    assert read(team, job) == before


def test_a_scheduled_job_without_tasks_is_completed_by_word(team: Team) -> None:
    job = scheduled(team, tasks=[])
    answer = set_state(team, job, "completed").json()
    assert answer["state"] == "Completed"
    assert set_state(team, job, "Completed").json() == read(team, job) == answer


def test_a_reopened_scheduled_job_stays_so_until_a_task_changes(team: Team) -> None:
    job = scheduled(team)
    say(team, job, "Completed")
    assert set_state(team, job, "Scheduled").json()["state"] == "Scheduled"
    assert say(team, job, "Completed").json()["state"] == "Scheduled"
    assert set_state(team, job, "Completed").json()["state"] == "Completed"
    set_state(team, job, "Scheduled")
    assert say(team, job, "Completed", "2021-10-08T00:00:00").json()["state"] == "Completed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"state": "Done"}, "state"),
        ({"state": 3}, "state"),
        ({}, "state"),
        ({"state": "Completed", "updated": "soon"}, "updated"),
    ],
)
def test_a_scheduled_jobs_state_is_one_of_two(sqlite_team: Team, body: Document, field: str) -> None:
    job = scheduled(sqlite_team, tasks=[])
    refused = problem(sqlite_team.put(f"{SCHEDULE}/{job['jobId']}/status", json=body), 422, field=field)
    if body == {"state": "Done"}:
        assert "Scheduled or Completed" in refused["detail"]
    assert read(sqlite_team, job) == job
