"""Reports with templates of the team, that fail, that take long."""

from typing import Any

import pytest

from media.pdf import Printed
from media.sandbox import Interrupted, Refused, Sandbox
from server.reports import background, routes
from server.reports.requesting import NoSuchTemplate, request_report
from storage.blobs import BlobsUnavailable
from tests.support.app import Team, problem
from tests.support.attachments import job_with, store_of
from tests.support.reports import completed_job, generated, hold, listed, pdf_of, photos, release, text_of

# Templates


def template(team: Team, body: str, **more: Any) -> str:
    response = team.post("/reporttemplates/v1/content", json={"name": "Our own", "bodyContent": body, **more})
    assert response.status_code == 200, response.text
    return str(response.json()["reportTemplateId"])


def test_a_report_is_made_with_the_template_that_is_named(team: Team) -> None:
    photo = photos(team, 1)[0]
    job = job_with(team, photo, jobTitle="Pump 7", metadata={"Order": "WO-1"})
    body = (
        "<p>{{ job.jobTitle }}/{{ job.meta.Order }}/{{ steps[0].number }}/{{ team.name }}</p>"
        "{% for file in attachments %}<img src='{{ file.src }}'><img src='{{ file.thumbnails.small }}'>{% endfor %}"
    )
    made = generated(team, job, f"/{template(team, body, headerContent='<b>Head</b>')}")
    assert made["status"] == "Completed"
    pdf = team.app.http.get(made["reportUrl"]).content
    shown = text_of(pdf)
    assert f"Pump 7/WO-1/1/{team.name}" in shown
    assert "Head" in shown
    (report,) = listed(team, job)
    assert (report["templateName"], report["log"]) == ("Our own", [])


def test_the_default_template_is_taken_where_none_is_named(team: Team) -> None:
    job = completed_job(team)
    own = template(team, "<p>by default</p>")
    assert "by default" not in text_of(pdf_of(team, job))
    assert team.put(f"/reporttemplates/v1/default/{own}").status_code == 200
    assert text_of(pdf_of(team, job)).startswith("by default")
    changed = {"bodyContent": "<p>changed since</p>"}
    assert team.put(f"/reporttemplates/v1/content/{own}", json=changed).status_code == 200
    assert text_of(pdf_of(team, job)).startswith("changed since")
    assert team.delete(f"/reporttemplates/v1/{own}").status_code == 200
    assert "Harbour" not in text_of(pdf_of(team, job))
    path = f"/reportgenerator/v1/generate/{own}?jobId={job}"
    problem(team.post(path), 404, "report-template-not-found")


def test_a_template_that_fails_with_a_job_says_where(team: Team) -> None:
    job = completed_job(team)
    own = template(team, "<p>\n{{ steps[0].values | length }}{{ 1 / 0 }}</p>")
    answer = generated(team, job, f"/{own}")
    assert answer["status"] == "Failed"
    assert answer["failure"].startswith("The template's body fails in line 2:")
    assert "division by zero" in answer["failure"]


# Failing and waiting


def test_a_store_that_is_down_makes_a_report_late_and_not_fail(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed_job(team)
    store = store_of(team)

    async def down(*_: Any, **__: Any) -> int:
        raise BlobsUnavailable("down")

    monkeypatch.setattr(routes, "WAIT_SECONDS", 1.5)
    monkeypatch.setattr(type(store), "put", down)
    assert generated(team, job)["status"] == "Pending"
    monkeypatch.undo()
    release(team)
    assert generated(team, job)["status"] == "Completed"


def test_a_printer_that_is_ended_from_outside_prints_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed_job(team)

    async def ended(*_: Any) -> Printed:
        raise Interrupted("ended")

    monkeypatch.setattr(routes, "WAIT_SECONDS", 1.5)
    monkeypatch.setattr(Sandbox, "run", ended)
    assert generated(team, job)["status"] == "Pending"
    monkeypatch.undo()
    release(team)
    assert generated(team, job)["status"] == "Completed"


def test_a_report_that_fails_says_why_and_is_tried_again_when_asked_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed_job(team)
    monkeypatch.setattr(background, "print_report", fail)
    answer = generated(team, job)
    assert (answer["status"], answer["reportUrl"]) == ("Failed", None)
    assert answer["failure"] == "The report was given up. It took longer than 20 seconds."
    refused = problem(team.get(f"/reports/v1/generate/{job}"), 422, "report-failed")
    assert refused["detail"] == answer["failure"]
    (report,) = listed(team, job)
    assert (report["state"], report["generated"], report["downloadUrl"]) == ("failed", None, None)
    monkeypatch.undo()
    again = generated(team, job)
    assert (again["status"], again["generatedReportId"]) == ("Completed", answer["generatedReportId"])


def fail(*_: object) -> Printed:
    """In a worker, by its name."""
    raise Refused("It took longer than 20 seconds.")


def test_who_asks_again_and_again_learns_of_a_failure(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    job = completed_job(team)
    monkeypatch.setattr(background, "print_report", fail)
    generated(team, job)
    row = team.app.call(request_report, team.app.database, team.team_id, job, None, "large")
    assert row is not None
    assert row.state == "failed"


def test_a_report_that_takes_long_is_pending(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    job = completed_job(team)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    hold(team, monkeypatch)
    answer = generated(team, job)
    assert (answer["status"], answer["reportUrl"], answer["failure"]) == ("Pending", None, None)
    response = team.get(f"/reports/v1/generate/{job}")
    problem(response, 503, "report-pending")
    assert response.headers["retry-after"] == "5"
    assert [report["state"] for report in listed(team, job)] == ["pending"]
    monkeypatch.undo()
    release(team)
    assert generated(team, job)["status"] == "Completed"


def test_an_unknown_template_is_said_to_whoever_asks(team: Team) -> None:
    job = completed_job(team)
    with pytest.raises(NoSuchTemplate):
        team.app.call(request_report, team.app.database, team.team_id, job, "0" * 24, "large")
    assert team.app.call(request_report, team.app.database, team.team_id, "nothing", None, "large") is None
