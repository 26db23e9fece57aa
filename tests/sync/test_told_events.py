"""What a push tells the team's triggers, in its own transaction."""

import json
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select

from storage.queries.triggers import COMPLETED, MATCH, UPDATED, want
from storage.tables import tasks
from tests.support.app import Document, RunningApp, Team, snapshot
from tests.support.statements import counted


def told(connection: Connection, team_id: int) -> list[dict[str, Any]]:
    """The payloads of the tasks that match triggers, oldest first."""
    query = (
        select(tasks.c.payload)
        .where(tasks.c.team_id == team_id, tasks.c.kind == MATCH)
        .order_by(tasks.c.task_id)
    )
    return [msgspec.json.decode(row.payload) for row in connection.execute(query)]


def telling(app: RunningApp, team: Team, *wanted: int) -> Team:
    app.write(want, team.team_id, wanted)
    return team


def later(document: Document, second: int, **header: Any) -> Document:
    updated = f"2025-03-04T10:00:{second:02}.000Z"
    return {**document, "metadata": {**document["metadata"], "updated": updated, **header}}


def types(app: RunningApp, team: Team) -> list[str]:
    return [each["type"] for each in app.read(told, team.team_id)]


def test_a_push_in_a_team_without_triggers_tells_nobody(app: RunningApp) -> None:
    team = app.team()
    team.synced(snapshot(status="Completed"))
    assert types(app, team) == []


def test_what_no_trigger_wants_is_not_told(app: RunningApp) -> None:
    team = telling(app, app.team(), COMPLETED)
    job = snapshot(status="InProgress")
    team.synced(job)
    team.synced(later(job, 1, status="Paused"))
    assert types(app, team) == []


@pytest.mark.parametrize("status", ["Completed", "Abandoned"])
def test_a_job_that_is_completed_or_abandoned_is_told_as_it_is_at_that_moment(
    app: RunningApp, status: str
) -> None:
    team = telling(app, app.team(), COMPLETED)
    job = snapshot(status=status, jobTitle="Pump 4")
    synced = team.synced(job)
    team.synced(later(job, 30, jobTitle="Pump 5"))
    completed = app.read(told, team.team_id)[0]
    assert completed["type"] == "job.completed"
    assert completed["rev"] == 1
    assert completed["job"]["jobId"] == synced["jobId"]
    assert completed["job"]["status"] == status
    assert completed["job"]["jobTitle"] == "Pump 4"


def test_a_completed_job_without_missing_files_is_told_to_have_all_its_media(app: RunningApp) -> None:
    team = telling(app, app.team(), COMPLETED)
    team.synced(snapshot(status="Completed"))
    assert types(app, team) == ["job.completed", "job.mediaComplete"]


def test_a_change_that_completes_a_job_is_not_told_as_an_update_as_well(app: RunningApp) -> None:
    team = telling(app, app.team(), COMPLETED, UPDATED)
    job = snapshot(status="InProgress")
    team.synced(job)
    team.synced(later(job, 1, status="Paused"))
    team.synced(later(job, 2, status="Completed"))
    assert types(app, team) == ["job.updated", "job.completed", "job.mediaComplete"]


def test_a_push_that_changes_nothing_or_comes_twice_is_told_once(app: RunningApp) -> None:
    team = telling(app, app.team(), COMPLETED, UPDATED)
    job = snapshot(status="Completed")
    for _ in range(3):
        team.synced(job)
    assert types(app, team).count("job.completed") == 1


@pytest.mark.parametrize(
    "value",
    [10**300, -(2**70), [{"deep": [10**200]}], 1.5, None, "\u2028\x7f", True],
    ids=["huge", "negative", "nested", "fraction", "null", "controls", "boolean"],
)
def test_no_value_that_a_tablet_may_send_keeps_its_job_from_being_told(app: RunningApp, value: Any) -> None:
    team = telling(app, app.team(), COMPLETED)
    job = snapshot(status="Completed", jobTitle=value, metadata={"odd": value})
    step = {"uniqueStepId": "a", "coordinates": {"latitude": value, "longitude": value}, "timeEvents": value}
    job["completedSteps"] = [
        {"singleStep": {**step, "started": value, "completed": value}, "reportStep": None}
    ]
    response = team.sync(json.dumps(job).encode())
    if response.status_code == 200:
        assert types(app, team)[0] == "job.completed"
    else:
        assert response.status_code == 422  # it was refused as a snapshot, and kept
        assert len(team.quarantine()) == 1


def test_what_is_told_is_small_however_large_the_job_is(app: RunningApp) -> None:
    team = telling(app, app.team(), COMPLETED)
    team.synced(snapshot(status="Completed", jobTitle="x" * 200_000, metadata={"log": "y" * 3_000_000}))
    completed, media = app.read(told, team.team_id)
    assert len(msgspec.json.encode(completed)) < 16_000
    assert completed["job"]["truncated"] is True
    assert list(media["job"]) == ["jobId"]


def test_telling_costs_a_push_no_statement_but_those_that_write_its_tasks(app: RunningApp) -> None:
    silent, team = app.team(), telling(app, app.team(), COMPLETED)
    with counted(app) as without:
        silent.synced(snapshot(status="Completed"))
    with counted(app) as with_triggers:
        team.synced(snapshot(status="Completed"))
    assert with_triggers.count == without.count  # those of tasks are not counted
