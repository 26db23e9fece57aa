"""The named steps of a job over HTTP: which version of which workflow names them, and who may see them."""

import threading
import uuid

import pytest

from fixtures.workflow_packages import chained, package, procedure, question, step
from server.jobs import names
from storage.database import Connection
from storage.queries.workflows import change_version
from sync.facts import Names
from tests.support.app import Document, Team, problem, snapshot
from tests.support.statements import counted
from tests.support.workflows import finalized, sent

GAUGE, SEAL = str(uuid.uuid4()), str(uuid.uuid4())


def uploaded(team: Team, tag: str, **more: str) -> Document:
    """A version of a workflow in which the gauge has this tag."""
    steps = chained(
        question("Numeric", "Read the gauge", stepId=GAUGE, tag=tag), question("Photo", "Seal", stepId=SEAL)
    )
    return finalized(team, sent(team, package(procedure(steps))), **more)


def visited(workflow_id: str | None, version_id: str | None = None) -> Document:
    """A job with one visit of the gauge, of which the tablet sent the title alone."""
    visit = {
        "uniqueStepId": "v1",
        "stepId": GAUGE,
        "stepTitle": "Manometer",
        "updated": "2025-03-03T09:20:00Z",
    }
    document = snapshot(workflowId=workflow_id, workflowVersionId=version_id)
    document["completedSteps"] = [{"singleStep": visit, "reportStep": None}]
    document["metadata"]["currentStep"] = None
    return document


def steps_of(team: Team, document: Document) -> Document:
    response = team.get(f"/jobs/v1/{document['metadata']['clientJobId']}/steps")
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_steps_are_named_by_the_version_that_the_job_names_and_the_job_stays_as_it_was_sent(
    team: Team,
) -> None:
    first = uploaded(team, "old")
    uploaded(team, "new", workflowId=first["workflowId"])
    document = visited(first["workflowId"], first["versionId"])
    synced = team.synced(document)
    answer = steps_of(team, document)
    assert answer["workflowKnown"] is True
    assert answer["steps"] == [
        {
            "uniqueStepId": "v1",
            "stepId": GAUGE,
            "parentUniqueStepId": None,
            "phase": "completed",
            "title": "Manometer",
            "tag": "old",
            "type": "Numeric",
            "fromWorkflow": ["tag", "type"],
            "updated": "2025-03-03T09:20:00Z",
        }
    ]
    assert synced["completedSteps"] == document["completedSteps"]
    assert team.job(document["metadata"]["clientJobId"])["completedSteps"] == document["completedSteps"]


def test_a_version_that_is_not_known_leaves_the_naming_to_the_active_one(team: Team) -> None:
    first = uploaded(team, "old")
    uploaded(team, "new", workflowId=first["workflowId"])
    for version in (None, "", "unknown", str(uuid.uuid4())):
        document = visited(first["workflowId"], version)
        team.synced(document)
        assert steps_of(team, document)["steps"][0]["tag"] == "new"


def test_a_deleted_workflow_still_names_the_steps_of_its_jobs(team: Team) -> None:
    made = uploaded(team, "kept")
    document = visited(made["workflowId"], made["versionId"])
    team.synced(document)
    assert team.delete(f"/workflows/v2/{made['workflowId']}").status_code == 200
    assert steps_of(team, document)["steps"][0]["tag"] == "kept"


def test_without_a_known_workflow_steps_have_what_the_tablet_sent(team: Team) -> None:
    other = uploaded(team.app.team(), "theirs")
    for workflow_id in (None, "unknown", other["workflowId"]):
        document = visited(workflow_id, other["versionId"])
        team.synced(document)
        answer = steps_of(team, document)
        assert answer["workflowKnown"] is False
        assert (answer["steps"][0]["title"], answer["steps"][0]["tag"]) == ("Manometer", None)


def test_a_field_worker_sees_the_steps_of_its_own_jobs_only(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    document = visited(None)
    team.synced(document, by=ann)
    path = f"/jobs/v1/{document['metadata']['clientJobId']}/steps"
    assert team.get(path, by=ann).status_code == 200
    problem(team.get(path, by=bob), 404, "job-not-found")
    problem(team.get("/jobs/v1/nothing/steps"), 404, "job-not-found")


def test_naming_takes_three_statements_and_two_once_the_names_are_known(team: Team) -> None:
    made = uploaded(team, "gauge")
    document = visited(made["workflowId"], made["versionId"])
    team.synced(document)
    answers = []
    for statements in (3, 2, 2):
        with counted(team.app) as counter:
            answers.append(steps_of(team, document))
        assert counter.count == statements, counter.texts
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["steps"][0]["tag"] == "gauge"


def test_a_version_that_could_not_be_read_leaves_the_naming_to_the_active_one(team: Team) -> None:
    opaque = finalized(team, sent(team, package(None)))
    document = visited(opaque["workflowId"], opaque["versionId"])
    team.synced(document)
    assert steps_of(team, document)["workflowKnown"] is False
    uploaded(team, "readable", workflowId=opaque["workflowId"])
    assert steps_of(team, document)["steps"][0]["tag"] == "readable"


def test_versions_of_before_there_were_names_leave_the_steps_as_they_were_sent(team: Team) -> None:
    made = uploaded(team, "gauge")
    team.app.write(forget_names, team.team_id, made["versionId"])
    document = visited(made["workflowId"], made["versionId"])
    team.synced(document)
    answer = steps_of(team, document)
    assert (answer["workflowKnown"], answer["steps"][0]["tag"]) == (False, None)


def forget_names(connection: Connection, team_id: int, version_id: str) -> None:
    change_version(connection, team_id, version_id, step_names=None)


def test_the_steps_inside_others_are_named_too(team: Team) -> None:
    inner = question("Photo", "Seal", stepId=GAUGE, tag="inside")
    made = finalized(team, sent(team, package(procedure([step("GroupStep", "Checks", inner)]))))
    document = visited(made["workflowId"], made["versionId"])
    team.synced(document)
    assert steps_of(team, document)["steps"][0]["tag"] == "inside"


def test_many_names_are_not_unpacked_on_the_event_loop(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    real = names._unpacked

    def watched(packed: bytes) -> tuple[Names, int]:
        threads.append(threading.get_ident())
        return real(packed)

    monkeypatch.setattr(names, "_unpacked", watched)
    loop = sqlite_team.app.call(thread_of_the_loop)
    few = uploaded(sqlite_team, "few")
    many = procedure([question("Text", f"Step {number}") for number in range(1_500)])
    made = finalized(sqlite_team, sent(sqlite_team, package(many)))
    for item in (few, made):
        document = visited(item["workflowId"], item["versionId"])
        sqlite_team.synced(document)
        assert steps_of(sqlite_team, document)["workflowKnown"] is True
    assert [thread == loop for thread in threads] == [True, False]


async def thread_of_the_loop() -> int:
    return threading.get_ident()
