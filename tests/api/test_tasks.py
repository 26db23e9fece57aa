"""Background tasks as administrators see them."""

import pytest

from tests.support.app import Team, problem
from tests.support.tasks import KIND, put


def test_dead_tasks_are_listed_with_their_reason(team: Team) -> None:
    put(team, "fine", "done")
    dead = put(team, "photo", "dead")
    put(team, "waits")
    (entry,) = team.get("/tasks/v1?state=dead").json()
    assert (
        entry.items()
        >= {
            "taskId": dead,
            "kind": KIND,
            "subject": "photo",
            "state": "dead",
            "attempts": 1,
            "error": "the reason",
        }.items()
    )
    assert entry["created"] <= entry["finished"]
    assert [each["subject"] for each in team.get("/tasks/v1").json()] == ["waits", "photo", "fine"]
    assert [each["subject"] for each in team.get("/tasks/v1?skip=1&limit=1").json()] == ["photo"]
    assert team.app.team().get("/tasks/v1").json() == []


def test_a_state_that_is_none_is_refused(team: Team) -> None:
    problem(team.get("/tasks/v1?state=ded"), 400, "invalid-parameter", "state")


def test_a_dead_task_can_be_run_again(team: Team) -> None:
    dead = put(team, "photo", "dead")
    answer = team.post(f"/tasks/v1/{dead}/replay")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["taskId"], answer.json()["state"], answer.json()["attempts"]) == (dead, "ready", 0)
    assert team.get("/tasks/v1?state=dead").json() == []


@pytest.mark.parametrize("state", ["ready", "done"])
def test_only_a_dead_task_can_be_run_again(team: Team, state: str) -> None:
    task_id = put(team, "photo", state)
    problem(team.post(f"/tasks/v1/{task_id}/replay"), 409, "task-not-dead")


def test_a_task_that_does_not_exist_or_is_another_teams_is_not_found(team: Team) -> None:
    theirs = put(team.app.team(), "photo", "dead")
    problem(team.post("/tasks/v1/nothing/replay"), 404, "task-not-found")
    problem(team.post(f"/tasks/v1/{theirs}/replay"), 404, "task-not-found")
