"""Mails of triggers: who gets them, what they say, and what comes with them."""

import email
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from server.clock import now
from server.mail import Mailer, MailFailed
from server.settings import Settings
from server.triggers import mails
from server.triggers.mails import file_name, recipients, send_mail
from storage.blobs import BlobStore, BlobsUnavailable, new_key
from storage.ids import new_id
from storage.queries.deliveries import DeliveryRow
from storage.queries.team_settings import set_settings
from storage.queries.triggers import TriggerRow
from storage.queries.users import delete_user, set_user_locked
from storage.tables import reports
from sync.facts import job_facts
from tests.support.app import PUBLIC_URL, Account, Document, Team, finished_snapshot
from tests.support.attachments import store_of
from tests.support.process import free_port
from tests.support.smtp import mail_server

PDF = b"%PDF-1.7 " + bytes(range(256)) * 40
ADA = {"recipients": "ada@customer.example"}


def facts(**header: Any) -> Document:
    """What is frozen of a job."""
    metadata = {
        "clientJobId": "pump-7",
        "jobTitle": "Pump 7",
        "workflowName": "Pump round",
        "status": "Completed",
        "created": "2025-03-03T07:00:00Z",
        "updated": "2025-03-03T08:21:00Z",
        "metadata": {"Site": "Harbour", "Pressure": 2.5, "ScheduledJobId": "67c56a0d0000000000000009"},
        **header,
    }
    place = {"singleStep": {"coordinates": {"latitude": 53.344, "longitude": -6.2675}}}
    view = {"jobId": "67c56a0d0000000000000001", "team": "Harbour inspections", "metadata": metadata}
    return {**job_facts({**view, "completedSteps": [place]}), "workflowTags": ["pumps"]}


def trigger(**options: Any) -> TriggerRow:
    empty = msgspec.json.encode([])
    return TriggerRow(
        trigger_id="67c56a0d0000000000000004",
        name="Tell the customer",
        description=None,
        template_tags=empty,
        object_ids=empty,
        template_ids=empty,
        trigger_type="Email",
        options=msgspec.json.encode(options),
        secrets=None,
        report_template_id=None,
        pdf_requirement="FullImages",
        disabled=False,
        disabled_reason=None,
        archived=False,
        failing_since=None,
        created_by="somebody",
        created_at=0,
        updated_at=0,
    )


def delivery(payload: Document, report_id: str | None = None, note: str | None = None) -> DeliveryRow:
    return DeliveryRow(
        delivery_id="67c56a0d0000000000000003",
        trigger_id="67c56a0d0000000000000004",
        event_id="67c56a0d0000000000000002",
        type="job.completed",
        job_id="67c56a0d0000000000000001",
        client_job_id="pump-7",
        rev=3,
        state="due",
        payload=msgspec.json.encode(payload),
        report_id=report_id,
        wait_until=None,
        note=note,
        attempts=0,
        next_at=0,
        created_at=0,
        finished_at=None,
    )


def report(team: Team, content: bytes = PDF, size: int | None = None) -> str:
    """A report that is ready; answers its id."""
    key, report_id = new_key(team.team_id, now()), new_id()

    async def put() -> None:
        await store_of(team).put(key, content, content_type="application/pdf")

    row = {
        "team_id": team.team_id,
        "report_id": report_id,
        "job_id": "67c56a0d0000000000000001",
        "client_job_id": "pump-7",
        "fingerprint": report_id.encode(),
        "rev": 3,
        "template_name": "Standard report",
        "images": "large",
        "state": "ready",
        "blob_key": key,
        "size": len(content) if size is None else size,
        "pages": 7,
        "requested_at": now(),
        "generated_at": now(),
    }

    def note(connection: Connection) -> None:
        connection.execute(insert(reports).values(row))

    team.app.call(put)
    team.app.write(note)
    return report_id


class Post:
    """The mails of one test, in a folder."""

    def __init__(self, team: Team, folder: Path) -> None:
        self.team = team
        self.folder = folder

    def send(
        self,
        payload: Document,
        options: Document = ADA,
        *,
        smtp_url: str = "",
        blobs: BlobStore | None = None,
        report_id: str | None = None,
        note: str | None = None,
    ) -> str | None:
        team = self.team
        settings = Settings(data=self.folder, public_url=PUBLIC_URL, smtp_url=smtp_url)

        async def sending() -> str | None:
            return await send_mail(
                team.app.database,
                blobs or store_of(team),
                Mailer(settings),
                settings,
                team.team_id,
                trigger(**options),
                delivery(payload, report_id, note),
            )

        return team.app.call(sending)

    def one(self, payload: Document, options: Document = ADA, **rest: Any) -> EmailMessage:
        """The only mail, once it is sent."""
        self.send(payload, options, **rest)
        (file,) = (self.folder / "mail").glob("*.eml")
        message = email.message_from_bytes(file.read_bytes(), policy=default)
        assert isinstance(message, EmailMessage)
        return message


@pytest.fixture
def post(team: Team, tmp_path: Path) -> Post:
    return Post(team, tmp_path)


def body(message: EmailMessage, kind: str = "plain") -> str:
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def to(message: EmailMessage) -> list[str]:
    return [address.addr_spec for address in message["To"].addresses]


# What it says


def test_a_mail_says_what_was_done_where_when_and_by_whom(team: Team, post: Post) -> None:
    ada = team.executor()
    team.app.write(set_settings, team.team_id, {"DefaultTimezone": "Europe/Dublin"})
    message = post.one(facts(userId=ada.subject_id, username="somebody"))
    assert message["Subject"] == "Pump 7: Completed"
    assert body(message) == (
        "Pump 7\nCompleted\n\n"
        "Workflow: Pump round\n"
        f"By: {ada.username} ({ada.username})\n"
        "Started: 2025-03-03 07:00 (Europe/Dublin)\n"
        "Completed: 2025-03-03 08:21 (Europe/Dublin)\n"
        "Duration: 1 hour 21 minutes\n"
        "Site: Harbour\n"
        "Pressure: 2.5\n"
        "Place: https://www.openstreetmap.org/?mlat=53.344000&mlon=-6.267500\n\n"
        "-- \nYou get this mail because of the trigger Tell the customer of team Harbour inspections.\n"
    )
    html = body(message, "html")
    assert '<a href="https://www.openstreetmap.org/?mlat=53.344000&amp;mlon=-6.267500">' in html
    for said in ("Pump 7", "Completed", "Europe/Dublin", "Harbour", ada.username):
        assert said in html
    assert "ScheduledJobId" not in html


def test_a_job_of_which_little_is_known_makes_a_mail_too(post: Post) -> None:
    bare = dict.fromkeys(facts()) | {"jobId": "67c56a0d0000000000000001", "metadata": []}
    message = post.one(bare)
    assert message["Subject"] == "pump-7"
    assert body(message).startswith("pump-7\n\n")


@pytest.mark.parametrize("zone", ["Europe/Dublin", "Pacific/Kiritimati", "America/Los_Angeles"])
@pytest.mark.parametrize(
    "edge", ["0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
)
def test_a_time_beyond_the_calendar_stands_there_as_the_tablet_sent_it(
    team: Team, post: Post, zone: str, edge: str
) -> None:
    team.app.write(set_settings, team.team_id, {"DefaultTimezone": zone})
    message = post.one(facts(created=edge, updated=edge))
    assert f"Started: {edge}\nCompleted: {edge}\n" in body(message)


@given(
    moment=st.datetimes(), offset=st.integers(-1439, 1439), zone=st.sampled_from(["Asia/Tokyo", "No/Where"])
)
def test_whatever_time_a_tablet_sends_something_is_said(moment: datetime, offset: int, zone: str) -> None:
    text = moment.replace(tzinfo=timezone(timedelta(minutes=offset))).isoformat()
    said = mails._time(text, zone)
    assert said == text or re.fullmatch(r"\d+-\d\d-\d\d \d\d:\d\d \(\S+\)", said)


def test_pauses_are_told_apart(post: Post) -> None:
    message = post.one({**facts(), "activeDuration": 600})
    assert "Duration: 1 hour 21 minutes (10 minutes without pauses)" in body(message)


def test_what_people_typed_is_neither_markup_nor_a_line_or_header_of_its_own(post: Post) -> None:
    evil = "<img src=x>\r\nBcc: eve@example.com\u2028Report: \x00https://evil.example"
    message = post.one(
        facts(jobTitle=evil, status=evil, workflowName=evil, metadata={evil: evil, "Object": {"a": "<b>"}})
    )
    assert message["Bcc"] is None
    html = body(message, "html")
    assert "<img" not in html
    assert "<b>" not in html
    assert 'evil.example"' not in html
    assert not re.search(r"^(Bcc|Report):", body(message), re.MULTILINE)


@given(text=st.text(max_size=400))
def test_any_title_makes_a_subject_of_one_line(text: str) -> None:
    made = mails._title(facts(jobTitle=text), delivery(facts()))
    assert made == " ".join(made.split())
    assert 0 < len(made) <= 140


def test_a_long_title_leaves_room_for_the_status(post: Post) -> None:
    message = post.one(facts(jobTitle="Pump " * 100))
    assert message["Subject"].endswith("…: Completed")


def test_the_message_id_is_the_same_at_each_attempt(post: Post) -> None:
    message = post.one(facts())
    assert message["Message-ID"] == "<trigger-67c56a0d0000000000000003@sync.example.com>"


# The report


def test_a_report_is_attached_under_the_title_of_the_job(team: Team, post: Post) -> None:
    message = post.one(facts(jobTitle="Pumpe 7/b: Prüfung"), report_id=report(team))
    (file,) = message.iter_attachments()
    assert (file.get_filename(), file.get_content_type()) == ("Pumpe 7 b Prüfung.pdf", "application/pdf")
    assert file.get_content() == PDF
    assert "The report is attached." in body(message)
    assert "The report is attached." in body(message, "html")


def test_a_report_too_large_for_mails_is_a_link_that_says_until_when_it_works(team: Team, post: Post) -> None:
    message = post.one(facts(), report_id=report(team, size=10_000_001))
    assert list(message.iter_attachments()) == []
    said = re.search(
        r"Download the report \(PDF, 10 MB, 7 pages\) until (\S+ \S+) \(Etc/UTC\):\n(\S+)\n", body(message)
    )
    assert said is not None
    address = said[2]
    assert address.startswith(PUBLIC_URL)
    answer = team.app.http.get(address.removeprefix(PUBLIC_URL))
    assert (answer.status_code, answer.content) == (200, PDF)
    assert answer.headers["content-type"] == "application/pdf"
    assert "Pump%207.pdf" in answer.headers["content-disposition"]
    assert "until" in body(message, "html")


def test_what_is_missing_is_said(post: Post) -> None:
    message = post.one(facts(), note="3 of 40 photos and files had not arrived when the report was made.")
    for kind in ("plain", "html"):
        assert "3 of 40 photos" in body(message, kind)


@pytest.mark.parametrize("gone", ["row", "file"])
def test_a_report_that_is_gone_is_said_to_be(team: Team, post: Post, gone: str) -> None:
    report_id = report(team) if gone == "file" else "67c56a0d0000000000000005"
    if gone == "file":
        row = team.app.read(mails.reports.one, team.team_id, report_id)
        assert row is not None
        assert row.blob_key is not None
        team.app.call(store_of(team).delete, [row.blob_key])
    message = post.one(facts(), report_id=report_id)
    assert "The report is not there any more." in body(message)


def test_a_store_that_does_not_answer_is_tried_again(
    team: Team, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_args: Any) -> Any:
        raise BlobsUnavailable("away")
        yield b""

    report_id = report(team)
    monkeypatch.setattr(store_of(team), "get", unavailable)
    with pytest.raises(MailFailed) as caught:
        post.send(facts(), report_id=report_id)
    assert not caught.value.permanent


@given(title=st.text(max_size=200))
def test_any_title_makes_a_file_name_that_every_system_takes(title: str) -> None:
    name = file_name(title)
    assert re.fullmatch(r"[\w ()+.-]+\.pdf", name)
    assert not name.startswith((".", " "))
    assert len(name) <= 84


# Who gets it


def test_recipients_are_one_text_with_commas_or_semicolons_and_each_gets_one_mail(post: Post) -> None:
    options = {"recipients": " ada@customer.example ; bob@customer.example,ADA@Customer.example;; "}
    assert to(post.one(facts(), options)) == ["ada@customer.example", "bob@customer.example"]


def test_an_address_is_the_same_however_its_domain_is_written(post: Post) -> None:
    options = {
        "recipients": "ada@bücher.example; Ada@XN--BCHER-KVA.example; o'brien@bücher.example; ada@BÜCHER.example"
    }
    assert to(post.one(facts(), options)) == ["ada@xn--bcher-kva.example", "o'brien@xn--bcher-kva.example"]


@pytest.mark.parametrize("wish", [True, "true", "True", "TRUE "])
def test_the_jobs_user_gets_a_copy_if_that_is_wished(team: Team, post: Post, wish: object) -> None:
    ada = team.executor()
    options = {**ADA, "sendCopyToUser": wish}
    assert to(post.one(facts(userId=ada.subject_id), options)) == ["ada@customer.example", ada.username]


@pytest.mark.parametrize("wish", [False, "false", "", None, "yes"])
def test_and_not_otherwise(team: Team, post: Post, wish: object) -> None:
    ada = team.executor()
    message = post.one(facts(userId=ada.subject_id), {**ADA, "sendCopyToUser": wish})
    assert to(message) == ["ada@customer.example"]


def _locked(connection: Connection, team: Team, user: Account) -> None:
    set_user_locked(connection, team.team_id, user.subject_id, True)


def _deleted(connection: Connection, team: Team, user: Account) -> None:
    delete_user(connection, team.team_id, user.subject_id, now())


@pytest.mark.parametrize("left", [_locked, _deleted])
def test_somebody_who_has_left_gets_no_copy(team: Team, post: Post, left: Callable[..., None]) -> None:
    ada = team.executor()
    team.app.write(left, team, ada)
    message = post.one(facts(userId=ada.subject_id), {**ADA, "sendCopyToUser": True})
    assert to(message) == ["ada@customer.example"]


def test_a_copy_for_nobody_but_somebody_locked_is_not_tried_again(team: Team, post: Post) -> None:
    ada = team.executor()
    team.app.write(_locked, team, ada)
    with pytest.raises(MailFailed, match="no recipients") as caught:
        post.send(facts(userId=ada.subject_id), {"sendCopyToUser": True})
    assert caught.value.permanent


def test_a_user_of_another_team_gets_no_copy(team: Team, post: Post) -> None:
    stranger = team.app.team().executor()
    message = post.one(facts(userId=stranger.subject_id), {**ADA, "sendCopyToUser": True})
    assert to(message) == ["ada@customer.example"]


def test_where_the_tablet_named_nobody_the_copy_goes_to_whoever_pushed_the_job(
    team: Team, post: Post
) -> None:
    ada = team.executor()
    job = team.synced(finished_snapshot(), by=ada)
    message = post.one({**facts(), "jobId": job["jobId"]}, {"sendCopyToUser": True})
    assert to(message) == [ada.username]


@pytest.mark.parametrize("options", [{}, {"recipients": " ; "}, {"recipients": None}, {"recipients": "ada"}])
def test_without_a_recipient_nothing_is_tried_again(post: Post, options: Document) -> None:
    with pytest.raises(MailFailed) as caught:
        post.send(facts(), options)
    assert caught.value.permanent
    assert not (post.folder / "mail").exists()


def test_an_address_that_is_none_does_not_keep_the_mail_from_the_others(post: Post) -> None:
    said = post.send(facts(), {"recipients": "ada@customer.example, office, Eve <eve@example.com>"})
    assert said == "2 of the trigger's recipients are not an e-mail address"


@given(
    given=st.lists(st.sampled_from(["a@b.example", "A@B.example", "c@d.example", "no", "", " e@f.example "])),
    separators=st.lists(st.sampled_from([",", ";", "\n"]), min_size=12, max_size=12),
)
def test_each_recipient_is_counted_once(given: list[str], separators: list[str]) -> None:
    text = "".join(address + separators[number % 12] for number, address in enumerate(given))
    fit, unfit = recipients({"recipients": text}, None)
    wanted = {address.strip().casefold() for address in given} - {""}
    assert sorted(address.casefold() for address in fit) == sorted(wanted - {"no"})
    assert unfit == len(wanted & {"no"})


# Through a mail server


def test_of_several_recipients_those_whom_the_server_refuses_are_noted(post: Post, tmp_path: Path) -> None:
    options = {"recipients": "ada@customer.example;bob@customer.example;eve@customer.example"}
    with mail_server(tmp_path) as server:
        server.refused = {"bob@customer.example": "550 who is that"}
        said = post.send(facts(), options, smtp_url=f"smtp://127.0.0.1:{server.port}")
    assert said == "the mail server refused 1 of 3 recipients: 550"
    (received,) = server.received
    assert received.recipients == ["ada@customer.example", "eve@customer.example"]


def test_of_addresses_beyond_ascii_a_server_that_knows_none_gets_nothing_and_the_others_have_their_mail(
    post: Post, tmp_path: Path
) -> None:
    options = {"recipients": "ada@customer.example;zoë@customer.example;eve@customer.example"}
    with mail_server(tmp_path, utf8=False) as server:
        said = post.send(facts(jobTitle="Prüfung"), options, smtp_url=f"smtp://127.0.0.1:{server.port}")
    assert said == "the mail server refused 1 of 3 recipients: 553"
    (received,) = server.received
    assert received.recipients == ["ada@customer.example", "eve@customer.example"]


def test_a_mail_with_a_report_arrives_whole_and_only_once(team: Team, post: Post, tmp_path: Path) -> None:
    content = PDF * 300  # 3 MB
    with mail_server(tmp_path) as server:
        post.send(facts(), report_id=report(team, content), smtp_url=f"smtp://127.0.0.1:{server.port}")
    (received,) = server.received
    (file,) = received.message.iter_attachments()
    assert file.get_content() == content


def test_a_mail_server_that_is_down_is_tried_again(post: Post) -> None:
    with pytest.raises(MailFailed) as caught:
        post.send(facts(), smtp_url=f"smtp://127.0.0.1:{free_port()}")
    assert not caught.value.permanent


def test_a_mail_that_everybody_refuses_for_good_is_not_tried_again(post: Post, tmp_path: Path) -> None:
    with mail_server(tmp_path) as server:
        server.on_recipient = "550 no"
        with pytest.raises(MailFailed) as caught:
            post.send(facts(), smtp_url=f"smtp://127.0.0.1:{server.port}")
    assert caught.value.permanent
