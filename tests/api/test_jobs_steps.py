"""The named steps of a job over HTTP: which version of which workflow names them, and who may see them."""

import uuid

from fixtures.workflow_packages import chained, package, procedure, question
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


def test_naming_takes_two_statements(team: Team) -> None:
    made = uploaded(team, "gauge")
    document = visited(made["workflowId"], made["versionId"])
    team.synced(document)
    with counted(team.app) as counter:
        steps_of(team, document)
    assert counter.count == 2, counter.texts
