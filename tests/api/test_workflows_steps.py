"""The steps of workflows, as devices and reports read them."""

import threading
from typing import Any

import pytest

from fixtures.workflow_packages import SAMPLES, decision, inspection, package, procedure, question
from server.workflows import reading
from storage.queries import workflows as queries
from tests.support.app import Document, Team, problem
from tests.support.workflows import made


def steps_of(team: Team, item: Document, version: str | int | None = None) -> Document:
    params = {} if version is None else {"version": version}
    response = team.get(f"/workflows/v2/{item['workflowId']}/steps", params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize("name", SAMPLES)
def test_steps_are_served_as_the_designer_wrote_them(team: Team, name: str) -> None:
    document = SAMPLES[name]()
    first = made(team, package(document))
    assert steps_of(team, first) == {
        "workflowId": first["workflowId"],
        "versionId": first["versionId"],
        "version": 1,
        "opaque": False,
        "problem": None,
        **document,
    }


def test_the_active_version_is_meant_unless_one_is_named(team: Team) -> None:
    first = made(team, package(inspection()))
    second = made(team, package(decision()), workflowId=first["workflowId"])
    team.post(f"/workflows/v2/{first['versionId']}/activate")
    assert steps_of(team, first)["versionId"] == first["versionId"]
    assert steps_of(team, first, 2)["title"] == "Oil"
    assert steps_of(team, first, second["versionId"])["version"] == 2
    for unknown in ("3", "x", "99999999999", "0"):
        response = team.get(f"/workflows/v2/{first['workflowId']}/steps", params={"version": unknown})
        problem(response, 404, "workflow-version-not-found")
    problem(team.get("/workflows/v2/nothing/steps"), 404, "workflow-not-found")
    other = made(team)
    response = team.get(f"/workflows/v2/{other['workflowId']}/steps", params={"version": second["versionId"]})
    problem(response, 404, "workflow-version-not-found")


def test_without_an_active_version_the_newest_is_meant(team: Team) -> None:
    team.post("/teamsettings/v1", json={"WorkflowApproverMode": 1})
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    assert steps_of(team, first)["versionId"] == second["versionId"]
    team.delete(f"/workflows/v2/{first['workflowId']}/{second['versionId']}")
    assert steps_of(team, first)["versionId"] == first["versionId"]


def test_steps_that_are_known_are_not_sent_again(team: Team) -> None:
    first = made(team)
    address = f"/workflows/v2/{first['workflowId']}/steps"
    etag = team.get(address).headers["etag"]
    assert team.get(address, headers={"If-None-Match": etag}).status_code == 304
    made(team, workflowId=first["workflowId"])
    assert team.get(address, headers={"If-None-Match": etag}).status_code == 200
    named = team.get(address, params={"version": 1}, headers={"If-None-Match": etag})
    assert named.status_code == 304


def test_steps_that_are_known_are_not_unpacked_and_many_not_on_the_event_loop(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    real = reading._steps

    def watched(*args: Any) -> bytes:
        threads.append(threading.get_ident())
        return real(*args)

    monkeypatch.setattr(reading, "_steps", watched)
    few = made(sqlite_team)
    many = made(
        sqlite_team, package(procedure([question("Text", f"Step {number}") for number in range(1_500)]))
    )
    for item in (few, many):
        address = f"/workflows/v2/{item['workflowId']}/steps"
        etag = sqlite_team.get(address).headers["etag"]
        assert sqlite_team.get(address, headers={"If-None-Match": etag}).status_code == 304
        assert sqlite_team.get(address, headers={"If-None-Match": "*"}).status_code == 304
    loop = sqlite_team.app.call(thread_of_the_loop)
    assert [thread == loop for thread in threads] == [True, False]


async def thread_of_the_loop() -> int:
    return threading.get_ident()


def test_steps_stay_for_the_jobs_of_deleted_workflows(team: Team) -> None:
    first = made(team, package(inspection()))
    second = made(team, package(decision()), workflowId=first["workflowId"])
    kept = team.app.read(queries.step_lists, team.team_id, first["workflowId"], first["versionId"])
    assert b"Serial number" in kept
    assert b"oil" in team.app.read(queries.step_lists, team.team_id, first["workflowId"], None)
    assert team.delete(f"/workflows/v2/{first['workflowId']}").status_code == 200
    assert kept == team.app.read(queries.step_lists, team.team_id, first["workflowId"], first["versionId"])
    newest = team.app.read(queries.step_lists, team.team_id, second["workflowId"], None)
    assert b"oil" in newest
    opaque = made(team, package(None))
    assert team.app.read(queries.step_lists, team.team_id, opaque["workflowId"], None) is None
    assert team.app.read(queries.step_lists, team.team_id, "nothing", None) is None
