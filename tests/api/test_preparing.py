"""How a delivery gets its job's files and its report; and a mail, its mail server."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from media.details import Details
from server.clock import now
from server.mail import Mailer
from server.settings import Settings
from server.triggers import delivering, matching
from storage.ids import new_id
from storage.queries import deliveries as delivery_queries
from storage.queries import reports as report_queries
from storage.queries.deliveries import DeliveryRow
from storage.queries.reports import ReportRow
from storage.queries.tasks import enqueue
from storage.queue import Task
from storage.tables import attachments, reports, triggers
from tests.support.app import PUBLIC_URL, Document, Team, edited, finished_snapshot
from tests.support.app import step as step_of
from tests.support.attachments import put_file, store_of
from tests.support.idle import idle_app
from tests.support.process import free_port
from tests.support.smtp import mail_server
from tests.support.triggers import (
    HOUR,
    MINUTE,
    NOBODY,
    SECOND,
    Clock,
    add_trigger,
    facts,
    sent,
    waiting,
    work,
    write,
)

app = idle_app


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("matching", "preparing", "delivering"):
        monkeypatch.setattr(f"server.triggers.{module}.now", clock)
    return clock


# Reports


def with_files(*attachment_ids: str, **header: Any) -> Document:
    document = finished_snapshot(**header)
    document["completedSteps"] = [step_of("photos", valueResourceIds=list(attachment_ids))]
    return document


def asked(team: Team) -> list[ReportRow]:
    """The team's reports."""

    def read(connection: Connection) -> list[ReportRow]:
        ids = connection.scalars(select(reports.c.report_id).where(reports.c.team_id == team.team_id)).all()
        found = [report_queries.one(connection, team.team_id, each) for each in ids]
        return [row for row in found if row is not None]

    return team.app.read(read)


def make_reports(team: Team, failing: str | None = None) -> None:
    """What the printing leaves in the database, without printing."""

    def end(connection: Connection, report: ReportRow) -> None:
        which = (connection, team.team_id, report.report_id)
        if failing is not None:
            assert report_queries.failed(*which, failing, now())
            return
        made = report_queries.made(*which, blob_key="key", rev=1, size=1, pages=1, log=(), now=now())
        assert made

    for report in asked(team):
        team.app.write(end, report)


def prepare(team: Team, payload: Any = None, attempts: int = 1) -> None:
    """Do the only delivery's task as if it had this payload and were tried so often."""
    handlers = matching.handlers(team.app.database)
    kind = delivery_queries.PREPARE
    task = Task(team.team_id, "t", kind, the_delivery(team).delivery_id, payload, attempts, now())
    team.app.call(handlers[kind], task)


def the_delivery(team: Team) -> DeliveryRow:
    (row,) = sent(team)
    return row


def test_full_images_wait_for_the_files_and_go_on_when_the_last_has_arrived(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="FullImages")
    first, second = new_id(), new_id()
    team.synced(with_files(first, second))
    put_file(team, attachment_id=first, details=Details())
    work(team, clock)
    assert (the_delivery(team).state, asked(team)) == ("preparing", [])
    put_file(team, attachment_id=second, details=Details())
    done = work(team, clock)
    assert done[-1] == "delivery.prepare"
    (report,) = asked(team)
    assert (report.images, report.state) == ("large", "pending")
    make_reports(team)
    work(team, clock)
    row = the_delivery(team)
    assert (row.state, row.report_id, row.note) == ("due", report.report_id, None)


def test_after_an_hour_full_images_go_with_what_is_there_and_say_so(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="FullImages")
    here, missing = new_id(), new_id()
    team.synced(with_files(here, missing))
    put_file(team, attachment_id=here, details=Details())
    work(team, clock)
    for _ in range(59):
        clock.ahead += MINUTE
        work(team, clock)
    assert (the_delivery(team).state, asked(team)) == ("preparing", [])
    clock.ahead += 2 * MINUTE
    work(team, clock)
    make_reports(team)
    work(team, clock)
    row = the_delivery(team)
    assert row.state == "due"
    assert row.report_id is not None
    assert row.note == "1 of 2 photos and files had not arrived when the report was made."


def test_files_of_photos_added_after_the_first_completion_are_waited_for_too(
    team: Team, clock: Clock
) -> None:
    """job.mediaComplete happens once in a job's life: later files are found without it."""
    document = with_files()
    team.synced(document)
    trigger_id = add_trigger(
        team, trigger_type="Http", pdf_requirement="FullImages", options={"onUpdate": True}
    )
    late = new_id()
    document["completedSteps"] = [step_of("photos", valueResourceIds=[late], updated="2025-03-04T10:00:00Z")]
    team.synced(edited(document, 1))
    work(team, clock)
    # That the file arrives would be another update.
    write(team, update(triggers).where(triggers.c.trigger_id == trigger_id).values(disabled=True))
    put_file(team, attachment_id=late, details=Details())
    work(team, clock)
    assert asked(team) == []
    clock.ahead += MINUTE
    work(team, clock)
    make_reports(team)
    work(team, clock)
    assert (the_delivery(team).state, the_delivery(team).note) == ("due", None)


@pytest.mark.parametrize(("requirement", "images"), [("Thumbnails", "small"), ("WithoutImages", "none")])
def test_other_reports_do_not_wait_for_missing_files(
    team: Team, clock: Clock, requirement: str, images: str
) -> None:
    add_trigger(team, pdf_requirement=requirement)
    team.synced(with_files(new_id()))
    work(team, clock)
    assert [report.images for report in asked(team)] == [images]


def test_thumbnails_in_the_making_are_waited_for_a_while(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="Thumbnails")
    file = new_id()
    team.synced(with_files(file))
    put_file(team, attachment_id=file)
    for _ in range(5):
        work(team, clock)
        assert asked(team) == []
        clock.ahead += 20 * SECOND
    clock.ahead += MINUTE
    work(team, clock)
    assert len(asked(team)) == 1


@pytest.mark.parametrize(("requirement", "minutes"), [("Thumbnails", 2), ("FullImages", 62)])
def test_files_that_keep_arriving_do_not_prolong_the_wait_for_thumbnails(
    team: Team, clock: Clock, requirement: str, minutes: int
) -> None:
    add_trigger(team, pdf_requirement=requirement)
    file = new_id()
    team.synced(with_files(file))
    put_file(team, attachment_id=file)
    work(team, clock)
    stored = update(attachments).where(attachments.c.team_id == team.team_id)
    for _ in range(minutes - 1):
        clock.ahead += MINUTE
        write(team, stored.values(stored_at=clock()))
        work(team, clock)
    assert asked(team) == []
    clock.ahead += MINUTE
    write(team, stored.values(stored_at=clock()))
    work(team, clock)
    assert len(asked(team)) == 1


def test_a_report_that_fails_is_left_out_with_the_reason(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="WithoutImages")
    team.synced(finished_snapshot())
    work(team, clock)
    make_reports(team, failing="The template took too long.")
    work(team, clock)
    row = the_delivery(team)
    assert (row.state, row.report_id) == ("due", None)
    assert row.note == "There is no report, it could not be made: The template took too long."


@pytest.mark.parametrize("failing", [None, "The template took too long."])
def test_what_waits_for_a_report_is_looked_at_when_it_is_made_or_has_failed(
    team: Team, clock: Clock, failing: str | None
) -> None:
    add_trigger(team, pdf_requirement="WithoutImages")
    add_trigger(team, pdf_requirement="WithoutImages")
    team.synced(finished_snapshot())
    work(team, clock)
    team.synced(finished_snapshot())
    work(team, clock)
    assert work(team, clock) == []
    of_both_jobs = asked(team)
    assert len(of_both_jobs) == 2
    make_reports(team, failing=failing)
    assert work(team, clock) == ["delivery.prepare"] * 4
    assert {row.state for row in sent(team)} == {"due"}


def test_while_a_report_is_made_it_is_looked_for_less_and_less_often(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="WithoutImages")
    team.synced(finished_snapshot())
    for gap in (5, 15, 30, 60, 60):
        before = clock()
        assert "delivery.prepare" in work(team, clock)
        ((_, run_at),) = waiting(team, "delivery.prepare")
        assert before + gap * SECOND <= run_at <= clock() + gap * SECOND
        clock.ahead += run_at - clock() + SECOND


def test_a_report_that_is_never_made_is_given_up_after_360_looks_of_a_minute(
    team: Team, clock: Clock
) -> None:
    add_trigger(team, pdf_requirement="WithoutImages")
    team.synced(finished_snapshot())
    work(team, clock)
    (report,) = asked(team)
    prepare(team, {"report": report.report_id, "looks": 359})
    assert the_delivery(team).state == "preparing"
    prepare(team, {"report": report.report_id, "looks": 360})
    assert (the_delivery(team).state, the_delivery(team).note) == (
        "due",
        "There is no report: it was not made in time.",
    )


def test_while_a_report_is_made_a_change_of_the_job_asks_for_no_other(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="WithoutImages")
    document = finished_snapshot()
    team.synced(document)
    work(team, clock)
    team.synced(edited(document, 1, jobTitle="Pump 8"))
    clock.ahead += 6 * SECOND
    assert "delivery.prepare" in work(team, clock)
    assert len(asked(team)) == 1


def test_a_defect_in_asking_for_reports_does_not_keep_the_rest_from_being_sent(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ValueError("a defect")

    add_trigger(team, pdf_requirement="WithoutImages")
    team.synced(finished_snapshot())
    monkeypatch.setattr("server.triggers.preparing.request_report", broken)
    with pytest.raises(ValueError, match="a defect"):
        work(team)
    prepare(team, attempts=5)
    row = the_delivery(team)
    assert (row.state, row.report_id) == ("due", None)
    assert row.note == "There is no report: an error of this server, which its log tells of."


def test_an_archived_template_means_no_report_and_a_note(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="WithoutImages", report_template_id=NOBODY)
    team.synced(finished_snapshot())
    work(team, clock)
    row = the_delivery(team)
    assert (row.state, row.report_id) == ("due", None)
    assert row.note == "There is no report: its template was archived."


def test_of_a_job_deleted_meanwhile_only_the_facts_are_told(team: Team, clock: Clock) -> None:
    add_trigger(team, pdf_requirement="FullImages")
    document = with_files(new_id())
    team.synced(document)
    work(team, clock)
    assert team.delete(f"/jobs/v1/{document['metadata']['clientJobId']}").status_code < 300
    clock.ahead += HOUR + MINUTE
    work(team, clock)
    row = the_delivery(team)
    assert (row.state, row.report_id) == ("due", None)
    assert row.note == "There is no report: the job was deleted."
    assert facts(row)["status"] == "Completed"


def test_preparing_what_is_prepared_does_nothing(team: Team, clock: Clock) -> None:
    add_trigger(team)
    team.synced(finished_snapshot())
    work(team, clock)
    before = the_delivery(team)

    def again(connection: Connection) -> None:
        enqueue(connection, team.team_id, delivery_queries.PREPARE, before.delivery_id, now=now())

    team.app.write(again)
    assert work(team, clock) == ["delivery.prepare"]
    assert the_delivery(team) == before


# To the mail server


def test_a_mail_server_that_is_down_is_seen_in_the_attempts_and_gets_the_mail_later(
    team: Team, clock: Clock, tmp_path: Path
) -> None:
    trigger_id = add_trigger(team, options={"recipients": "ada@customer.example"})
    team.synced(finished_snapshot(jobTitle="Pump 7"))
    work(team, clock)

    def deliver(port: int) -> None:
        settings = Settings(data=tmp_path, public_url=PUBLIC_URL, smtp_url=f"smtp://127.0.0.1:{port}")
        sending = delivering.handlers(team.app.database, store_of(team), Mailer(settings), settings)
        task = Task(team.team_id, "t", delivery_queries.DELIVER_MAILS, trigger_id, None, 1, clock())
        team.app.call(sending[delivery_queries.DELIVER_MAILS], task)

    def attempts() -> list[str | None]:
        rows = team.app.read(delivery_queries.attempts_of, team.team_id, [the_delivery(team).delivery_id])
        return [attempt.error for each in rows.values() for attempt in each]

    deliver(free_port())
    assert the_delivery(team).state == "due"
    assert attempts() == ["the mail server cannot be reached: SMTPConnectError"]
    clock.ahead += MINUTE
    with mail_server(tmp_path) as server:
        deliver(server.port)
        deliver(server.port)
    assert the_delivery(team).state == "delivered"
    assert len(attempts()) == 2
    (received,) = server.received
    assert received.message["Subject"] == "Pump 7: Completed"
