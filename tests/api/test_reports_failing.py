"""Reports with templates of the team, that fail, that take long."""

import asyncio
from typing import Any

import pytest

from media.pdf import Printed, TemplateProblem
from media.sandbox import Interrupted, Refused, Sandbox
from server.clock import now
from server.reports import background, routes
from server.reports.requesting import NoSuchTemplate, request_report
from storage.blobs import BlobStore, BlobsUnavailable, new_key
from storage.database import Connection
from storage.queries import reports as queries
from storage.queries.reports import ReportRow
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task
from tests.support.app import Team, problem
from tests.support.attachments import job_with, store_of
from tests.support.reports import (
    age,
    completed_job,
    generated,
    hold,
    is_kept,
    listed,
    pdf_of,
    photos,
    release,
    rows_of,
    text_of,
)

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


def test_a_report_that_fails_says_why_and_is_tried_again_a_minute_later(
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
    assert generated(team, job)["status"] == "Failed"
    age(team, 61)
    (failed,) = rows_of(team)
    again = generated(team, job)
    assert (again["status"], again["generatedReportId"]) == ("Completed", answer["generatedReportId"])
    (made,) = rows_of(team)
    assert made.requested_at > failed.requested_at + 60_000_000


def fail(*_: object) -> Printed:
    """In a worker, by its name."""
    raise Refused("It took longer than 20 seconds.")


def test_who_asks_again_and_again_learns_of_a_failure(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    job = completed_job(team)
    monkeypatch.setattr(background, "print_report", fail)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    problem(team.get(f"/reports/v1/generate/{job}"), 503, "report-pending")
    ended(team)
    problem(team.get(f"/reports/v1/generate/{job}"), 422, "report-failed")


def ended(team: Team) -> ReportRow:
    """The team's report, made or failed; waiting tasks are not waited for."""
    for _ in range(200):
        (row,) = rows_of(team)
        if row.state != "pending":
            return row
        team.app.call(asyncio.sleep, 0.1)
        release(team)
    raise AssertionError("the report is still pending")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            OSError("cannot load library 'libpango-1.0-0'"),
            "The printer's libraries are missing; `fieldsync doctor` says which.",
        ),
        (
            ImportError("no weasyprint"),
            "The printer's libraries are missing; `fieldsync doctor` says which.",
        ),
        (OSError(11, "Too many processes"), "The printer does not work: Too many processes."),
        (Interrupted("ended"), "The printer was ended each time before it was ready."),
    ],
)
def test_a_printer_that_is_not_there_is_tried_three_times(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    team, attempts = sqlite_team, []

    async def none(*_: Any) -> Printed:
        attempts.append(None)
        raise error

    job = completed_job(team)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(Sandbox, "run", none)
    generated(team, job)
    row = ended(team)
    assert (row.state, row.failure) == ("failed", reason)
    assert len(attempts) == 3


@pytest.mark.parametrize(
    ("error", "attempts", "state", "is_raised"),
    [
        (TemplateProblem("bodyContent", "nothing", 3, 1), 1, "failed", False),
        (Refused("It took longer than 20 seconds."), 1, "failed", False),
        (Interrupted("ended"), 2, "pending", True),
        (Interrupted("ended"), 3, "failed", False),
        (ZeroDivisionError(), MAX_ATTEMPTS - 1, "pending", True),
        (ZeroDivisionError(), MAX_ATTEMPTS, "failed", True),
    ],
)
def test_the_last_attempt_fails_the_report_and_an_error_of_ours_leaves_a_dead_task(
    sqlite_team: Team,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    attempts: int,
    state: str,
    is_raised: bool,
) -> None:
    class Failing:
        async def run(self, *_: Any) -> Printed:
            raise error

    team = sqlite_team
    printing: Any = Failing()
    hold(team, monkeypatch)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    generated(team, completed_job(team))
    (row,) = rows_of(team)
    generate = background.handlers(team.app.database, store_of(team), printing)[queries.GENERATE]

    async def attempt() -> bool:
        try:
            await generate(Task(team.team_id, "t", queries.GENERATE, row.report_id, None, attempts, now()))
        except Exception:
            return True
        return False

    assert team.app.call(attempt) == is_raised
    assert rows_of(team)[0].state == state
    # Of a printer that is not there nobody hears otherwise: there is no dead task.
    assert ("given up after 3 attempts" in caplog.text) == (
        state == "failed" and isinstance(error, Interrupted)
    )


def print_oddly(*_: object) -> Printed:
    """In a worker, by its name."""
    return Printed("", b"%PDF-", 1, ("half \udc00, nothing \0",))


def fail_oddly(*_: object) -> Printed:
    """In a worker, by its name."""
    raise TemplateProblem("bodyContent", "half \udc00, nothing \0", 3, 1)


def test_what_no_database_holds_is_left_out_of_reasons_and_logs(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "print_report", print_oddly)
    job = completed_job(team)
    assert generated(team, job)["status"] == "Completed"
    assert listed(team, job)[0]["log"] == ["half ?, nothing \N{REPLACEMENT CHARACTER}"]
    monkeypatch.setattr(background, "print_report", fail_oddly)
    answer = generated(team, completed_job(team))
    assert (
        answer["failure"] == "The template's body fails in line 3: half ?, nothing \N{REPLACEMENT CHARACTER}"
    )


def test_an_error_on_writing_down_a_report_is_tried_again_and_then_fails_it(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = sqlite_team

    def defect(*_: Any, **__: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(background, "print_report", print_oddly)
    monkeypatch.setattr(background, "MAX_ATTEMPTS", 2)
    monkeypatch.setattr(background.queries, "made", defect)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    generated(team, completed_job(team))
    assert ended(team).failure == "An error on our side; it was logged."


# Files of reports


def test_of_two_attempts_at_once_the_slower_takes_nothing_away(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, store = completed_job(team), store_of(team)
    put, keys = type(store).put, []

    async def faster(self: BlobStore, key: str, source: Any, **rest: Any) -> int:
        """Meanwhile another attempt, which began before, comes to its end."""
        other = new_key(team.team_id, now())
        for each in (key, other):
            await put(self, each, source, **rest)
            keys.append(each)

        def done(connection: Connection) -> bool:
            (row,) = queries.of_job(connection, team.team_id, job_id)
            seen = {"rev": row.rev, "size": rest["size"], "pages": 1, "log": (), "now": now()}
            return queries.made(connection, team.team_id, row.report_id, blob_key=other, **seen)

        assert await team.app.database.write(done)
        return int(rest["size"])

    job_id = team.job(job)["jobId"]
    monkeypatch.setattr(type(store), "put", faster)
    answer = generated(team, job)
    assert answer["status"] == "Completed"
    team.app.call(asyncio.sleep, 0.5)
    slower, made = keys[:2]
    assert [row.blob_key for row in rows_of(team)] == [made]
    assert (is_kept(team, made), is_kept(team, slower)) == (True, False)


def test_a_report_whose_file_is_gone_is_made_anew(team: Team) -> None:
    job = completed_job(team)
    pdf_of(team, job)
    (row,) = rows_of(team)
    assert row.blob_key is not None
    team.app.call(store_of(team).delete, [row.blob_key])
    problem(team.get(f"/reports/v1/generate/{job}"), 503, "report-pending")
    assert pdf_of(team, job).startswith(b"%PDF-")
    (again,) = rows_of(team)
    assert again.report_id == row.report_id
    assert again.blob_key != row.blob_key


def test_what_is_of_use_again_is_not_removed(team: Team) -> None:
    job = completed_job(team)
    generated(team, job)
    (row,) = rows_of(team)

    def work(connection: Connection) -> list[int]:
        arguments = (connection, team.team_id, [row.report_id], now())
        return [queries.forget_outdated(*arguments, now()) for _ in range(2)]

    assert team.app.write(work) == [0, 0]
    assert is_kept(team, row.blob_key or "")
    assert team.delete(f"/jobs/v1/{job}").status_code == 200


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
