"""What reports show beside their job: people, workflows, files beyond the limit."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from server.reports import context, surroundings
from storage.tables import users, workflow_versions, workflows
from tests.support.app import Document, Team, snapshot
from tests.support.attachments import job_with, put_file
from tests.support.reports import generated, pdf_of, text_of
from tests.support.workflows import made


def job_of_workflow(team: Team, version: Document, **header: Any) -> str:
    document = snapshot(workflowId=version["workflowId"], **header)
    team.synced(document)
    return str(document["metadata"]["clientJobId"])


@pytest.mark.parametrize(
    ("table", "values"),
    [
        (users, {"name": "Zoë Other"}),
        (users, {"email_address": "zoe@example.org"}),
        (workflows, {"name": "Renamed"}),
        (workflows, {"description": "Described anew"}),
        (workflows, {"tags": b'["new tag"]'}),
        (workflow_versions, {"number": 70}),
    ],
)
def test_a_report_is_made_anew_when_people_or_the_workflow_have_changed(
    team: Team, table: Any, values: Document
) -> None:
    version = made(team)
    who = team.user()
    job = job_of_workflow(team, version, workflowVersionId=version["versionId"], userId=who.subject_id)
    first = generated(team, job)["generatedReportId"]
    assert generated(team, job)["generatedReportId"] == first
    statement = update(table).where(table.c.team_id == team.team_id)
    if table is users:
        statement = statement.where(users.c.user_id == who.subject_id)
    team.app.write(lambda connection: connection.execute(statement.values(values)))
    assert generated(team, job)["generatedReportId"] != first


def test_a_report_is_made_anew_when_another_version_names_the_steps(team: Team) -> None:
    first = made(team)
    job = job_of_workflow(team, first)
    report = generated(team, job)["generatedReportId"]
    made(team, workflowId=first["workflowId"])
    assert generated(team, job)["generatedReportId"] != report


def test_files_beyond_the_limit_are_not_said_to_be_missing(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "MOST_FILES", 2)
    ids = [f"{letter}-{team.team_id}" for letter in "abcd"]
    for attachment_id in (ids[1], ids[3]):
        put_file(team, b"a,b", attachment_id=attachment_id, content_type="text/csv")
    shown = text_of(pdf_of(team, job_with(team, *ids)))
    assert "1 file not received yet" in shown
    assert shown.count("2 further files are not shown") == 2
    assert ids[2] not in shown
    assert ids[3] not in shown


def test_a_large_job_is_read_beside_the_event_loop(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread has no loop."""
    loops: list[bool] = []

    def spied(name: str) -> None:
        real = getattr(context, name)

        def spy(*arguments: Any) -> Any:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                loops.append(False)
            else:
                loops.append(True)
            return real(*arguments)

        monkeypatch.setattr(context, name, spy)

    spied("decode_job")
    spied("material_of")
    assert generated(team, job_with(team))["status"] == "Completed"
    assert loops == [False, False]
