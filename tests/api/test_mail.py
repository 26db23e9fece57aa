"""Mails: to a mail server, whatever it does, or into a folder."""

import asyncio
import email
import gc
import logging
import re
import stat
import sys
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.mail import Attachment, Mail, Mailer, MailFailed, is_address, mailbox, to_html
from server.settings import Settings
from tests.support.process import free_port
from tests.support.smtp import mail_server

MAIL = Mail("ada@example.com", "Your link", "Hello,\n\nsee https://sync.example.com/a?b=1&c=2 now.\n")
PUBLIC = "https://sync.example.com"


def mailer(folder: Path, smtp_url: str = "", **more: float) -> Mailer:
    return Mailer(Settings(data=folder, public_url=PUBLIC, smtp_url=smtp_url), **more)


def send(to: Mailer, mail: Mail = MAIL, message_id: str = "task-1") -> tuple[int, ...]:
    return asyncio.run(to.send(mail, message_id))


def failure(to: Mailer, mail: Mail = MAIL) -> MailFailed:
    with pytest.raises(MailFailed) as caught:
        send(to, mail)
    return caught.value


def files(folder: Path) -> list[Path]:
    return sorted((folder / "mail").glob("*.eml"))


def composed(mail: Mail, message_id: str = "task-1", mail_from: str = "") -> EmailMessage:
    """What arrives, as a program of the other side reads it."""
    sent = Mailer(Settings(public_url=PUBLIC, mail_from=mail_from)).compose(mail, message_id)
    message = email.message_from_bytes(bytes(sent), policy=default)
    assert isinstance(message, EmailMessage)
    return message


# Into a folder


def test_without_a_server_a_mail_becomes_a_file_that_only_the_server_can_read(tmp_path: Path) -> None:
    send(mailer(tmp_path))
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert re.fullmatch(r"\d{8}T\d{6}\.\d{6}-task-1-sync\.example\.com\.eml", file.name)
    message = email.message_from_bytes(file.read_bytes(), policy=default)
    assert (message["To"], message["Subject"]) == ("ada@example.com", "Your link")
    assert list(file.parent.iterdir()) == [file]


def test_a_folder_that_cannot_be_written_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail").rmdir()
    (tmp_path / "mail").write_text("in the way")
    with pytest.raises((MailFailed, FileExistsError)) as caught:
        send(mailer(tmp_path))
    assert isinstance(caught.value, MailFailed)
    assert not caught.value.permanent


# What a mail consists of


def test_a_mail_has_text_html_a_date_and_says_that_no_person_wrote_it() -> None:
    message = composed(MAIL)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == MAIL.text
    assert '<a href="https://sync.example.com/a?b=1&amp;c=2">' in html.get_content()
    assert message["Date"].datetime.tzinfo is not None
    assert message["Auto-Submitted"] == "auto-generated"
    assert str(message["From"]) == "Fieldsync <fieldsync@sync.example.com>"


def test_a_resend_has_the_same_message_id() -> None:
    assert composed(MAIL, "task-7")["Message-ID"] == "<task-7@sync.example.com>"
    assert composed(MAIL, "task-7")["Message-ID"] == composed(MAIL, "task-7")["Message-ID"]
    odd = composed(MAIL, "a b\r\nBcc: c@d")["Message-ID"]
    assert re.fullmatch(r"<[0-9a-f]{64}@sync\.example\.com>", odd)
    assert odd != composed(MAIL, "a b")["Message-ID"]


def test_names_and_titles_beyond_ascii_arrive_as_they_are() -> None:
    mail = MAIL._replace(subject="Prüfung Nº 7 – 検査", name="Zoë Ångström, Ltd.")
    message = composed(mail, mail_from="Außendienst <dienst@example.com>")
    assert message["Subject"] == mail.subject
    assert message["To"].addresses[0].display_name == mail.name
    assert message["From"].addresses[0].display_name == "Außendienst"
    assert message["From"].addresses[0].addr_spec == "dienst@example.com"


def test_a_domain_beyond_ascii_goes_over_the_wire_in_ascii() -> None:
    assert (
        composed(MAIL._replace(to="ada@bücher.example"))["To"].addresses[0].domain == "xn--bcher-kva.example"
    )


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\0", "\r\n "])
def test_a_line_end_in_a_name_or_title_never_makes_a_header(end: str) -> None:
    evil = f"x{end}Bcc: evil@example.com{end}{end}body"
    message = composed(MAIL._replace(subject=evil, name=evil), mail_from=f"{evil} <a@example.com>")
    assert message["Bcc"] is None
    assert "body" in message["Subject"]
    assert sorted(message.keys()) == sorted(composed(MAIL).keys())
    with pytest.raises(MailFailed) as caught:
        composed(MAIL._replace(to=f"ada@example.com{end}Bcc: evil@example.com"))
    assert caught.value.permanent


@settings(deadline=None)
@given(subject=st.text(), name=st.text(), text=st.text())
def test_whatever_people_type_the_headers_are_ours(subject: str, name: str, text: str) -> None:
    message = composed(MAIL._replace(subject=subject, name=name, text=text))
    assert sorted(message.keys()) == sorted(composed(MAIL).keys())
    assert [str(one.addr_spec) for one in message["To"].addresses] == ["ada@example.com"]


@pytest.mark.parametrize(
    "to",
    ["", "ada", "@example.com", "ada@", "a@b@c", "ada@ex ample.com", "Ada <ada@example.com>", "a,b@example.com",
     "ada@example.com, eve@example.com", "\"a\"@example.com", "ada@[127.0.0.1]", "ada@" + "x" * 80 + ".example"],
)  # fmt: skip
def test_what_is_no_address_is_refused_for_good(tmp_path: Path, to: str) -> None:
    assert failure(mailer(tmp_path), MAIL._replace(to=to)).permanent
    assert files(tmp_path) == []
    assert not is_address(to)
    assert is_address("ada@example.com")


@pytest.mark.parametrize(
    "to", ["o'brien@example.com", "a!#$%&'*+/?=^_`{|}~-.b@example.com", "'@example.com", "zoë'x@example.com"]
)
def test_every_character_of_an_address_goes_over_the_wire(tmp_path: Path, to: str) -> None:
    assert is_address(to)
    with mail_server(tmp_path) as server:
        send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), MAIL._replace(to=to))
    assert server.received[0].recipients == [to]


@pytest.mark.parametrize(
    "local", [".", ".ada", "=?utf-8?q?a=0aBcc:_x?=", "a=?utf-8?q?a=0aBcc:_x?=b", "a\u2028b", "a\ud800"]
)
def test_what_programs_stumble_over_or_read_as_the_end_of_a_line_is_no_address(local: str) -> None:
    assert not is_address(f"{local}@example.com")
    assert not is_address(f"ada@{local}.example")


_typed = st.text(
    "aZ0.-+'!#$%&*/=?^_`{|}~@ëß検،\"(),:;<>[]\\ \r\n\x85\u2028\u200b＠．", max_size=40
) | st.text(max_size=90)
_addresses = st.builds("{}@{}".format, _typed, st.sampled_from(["a.example", "bücher.example"]) | _typed)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(typed=_addresses, other=_addresses)
def test_whatever_passes_for_an_address_makes_a_header_of_just_these_addresses(
    typed: str, other: str
) -> None:
    taken = [address for address in (typed, other) if is_address(address)]
    if not taken:
        return
    mail = MAIL._replace(to=taken[0], also_to=tuple(taken[1:]))
    sent = Mailer(Settings(public_url=PUBLIC)).compose(mail, "task-1")
    to = [one.addr_spec for one in sent["To"].addresses]
    assert [mailbox(one) for one in to] == [mailbox(address) for address in taken]
    # Python's parser reads headers in UTF-8 as text only.
    arrived = email.message_from_string(sent.as_bytes().decode(), policy=default)
    assert [one.addr_spec for one in arrived["To"].addresses] == to
    assert sorted(arrived.keys()) == sorted(composed(MAIL).keys())


def test_a_mail_to_several_people_names_them_all_and_one_that_is_no_address_stops_it(tmp_path: Path) -> None:
    mail = MAIL._replace(name="Ada", also_to=("bob@example.com", "eve@bücher.example"))
    to = composed(mail)["To"].addresses
    assert [one.addr_spec for one in to] == [
        "ada@example.com",
        "bob@example.com",
        "eve@xn--bcher-kva.example",
    ]
    assert [one.display_name for one in to] == ["Ada", "", ""]
    assert failure(mailer(tmp_path), MAIL._replace(also_to=("bob",))).permanent


PDF = Attachment("Prüfung 7.pdf", "application/pdf", bytes(range(256)) * 100)


def test_a_file_arrives_as_it_is_with_its_name_beside_text_and_html() -> None:
    message = composed(MAIL._replace(attachments=(PDF,)))
    (file,) = message.iter_attachments()
    assert (file.get_filename(), file.get_content_type()) == (PDF.name, PDF.content_type)
    assert file.get_content() == PDF.content
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content().replace("\r\n", "\n") == MAIL.text


@settings(deadline=None)
@given(name=st.text(min_size=1, max_size=60))
def test_no_name_of_a_file_makes_a_header_or_another_part(name: str) -> None:
    evil = PDF._replace(name=f"{name}\r\nBcc: evil@example.com\r\n\r\nbody{name}", content=b"x")
    message = composed(MAIL._replace(attachments=(evil,)))
    assert message["Bcc"] is None
    (file,) = message.iter_attachments()
    assert file.get_content() == b"x"
    assert set(file.keys()) <= {
        "Content-Type",
        "Content-Transfer-Encoding",
        "Content-Disposition",
        "MIME-Version",
    }


def test_html_made_from_text_escapes_what_people_typed() -> None:
    made = to_html('<script>alert(1)</script> & "x" http://a.example/"><b>\n\nnext')
    assert "<script>" not in made
    assert "<b>" not in made
    assert made.count("<p>") == 2


# Through a server


def test_a_mail_reaches_the_server(tmp_path: Path) -> None:
    with mail_server(tmp_path) as server:
        send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"))
    (received,) = server.received
    assert received.recipients == ["ada@example.com"]
    assert received.sender == "fieldsync@sync.example.com"
    assert received.message["Message-ID"] == "<task-1@sync.example.com>"
    assert files(tmp_path) == []


def test_starttls_is_used_where_it_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(tmp_path, starttls=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        send(mailer(tmp_path, f"smtp://localhost:{server.port}"))
    assert [received.tls for received in server.received] == [True]


def test_tls_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(tmp_path, smtps=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        send(mailer(tmp_path, f"smtps://localhost:{server.port}"))
    assert len(server.received) == 1


def test_a_server_whose_certificate_is_not_trusted_gets_nothing(tmp_path: Path) -> None:
    with mail_server(tmp_path, starttls=True) as server:
        refused = failure(mailer(tmp_path, f"smtp://localhost:{server.port}"))
    assert not refused.permanent
    assert server.received == []


def test_where_starttls_is_required_nothing_is_sent_without(tmp_path: Path) -> None:
    with mail_server(tmp_path) as server:
        refused = failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}?starttls=required"))
    assert (refused.permanent, server.received) == (False, [])


def test_the_name_and_password_of_the_address_are_decoded(tmp_path: Path) -> None:
    login = ("sync@example.com", "p@ss:w/rd ü%")
    with mail_server(tmp_path, login=login) as server:
        url = f"smtp://sync%40example.com:p%40ss%3Aw%2Frd%20%C3%BC%25@127.0.0.1:{server.port}"
        send(mailer(tmp_path, url))
    assert [received.login for received in server.received] == [login]


@pytest.mark.parametrize("credentials", ["", "sync:wrong-secret@"])
def test_a_server_that_does_not_let_us_in_is_for_the_operator_to_mend(
    tmp_path: Path, credentials: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="fieldsync")
    with mail_server(tmp_path, login=("sync", "secret")) as server:
        refused = failure(mailer(tmp_path, f"smtp://{credentials}127.0.0.1:{server.port}"))
    assert not refused.permanent
    assert "wrong-secret" not in f"{refused}{caplog.text}"


@pytest.mark.parametrize(
    ("answer", "permanent"),
    [("550 no such mailbox ada@example.com", True), ("552 full", True), ("450 try later", False)],
)
@pytest.mark.parametrize("where", ["on_recipient", "on_data"])
def test_a_refusal_is_for_good_or_may_pass_as_the_server_says(
    tmp_path: Path, answer: str, permanent: bool, where: str
) -> None:
    with mail_server(tmp_path) as server:
        setattr(server, where, answer)
        refused = failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"))
    assert refused.permanent == permanent
    assert answer[:3] in str(refused)
    assert "ada@example.com" not in str(refused)


def test_of_several_people_those_whom_the_server_takes_get_the_mail(tmp_path: Path) -> None:
    mail = MAIL._replace(also_to=("bob@example.com", "eve@example.com"))
    with mail_server(tmp_path) as server:
        server.refused = {"bob@example.com": "550 who is that"}
        assert send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail) == (550,)
    (received,) = server.received
    assert received.recipients == ["ada@example.com", "eve@example.com"]


def test_where_one_of_several_people_may_be_taken_later_the_mail_is_tried_again(tmp_path: Path) -> None:
    mail = MAIL._replace(also_to=("bob@example.com",))
    with mail_server(tmp_path) as server:
        server.refused = {"ada@example.com": "550 never", "bob@example.com": "450 later"}
        assert not failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail).permanent
        server.refused["bob@example.com"] = "551 never"
        assert failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail).permanent
    assert server.received == []


def test_a_large_file_gets_the_time_that_a_thin_line_takes(tmp_path: Path) -> None:
    large = MAIL._replace(attachments=(PDF._replace(content=bytes(1_000_000)),))
    with mail_server(tmp_path) as server:
        server.data_seconds = 1.5
        to = f"smtp://127.0.0.1:{server.port}"
        assert not failure(mailer(tmp_path, to, step_seconds=0.5, mail_seconds=0.5)).permanent
        send(mailer(tmp_path, to, step_seconds=0.5, mail_seconds=0.5), large)
    assert len(server.received) >= 1


@pytest.mark.parametrize("how", ["close", "hang"])
def test_a_server_that_goes_away_or_says_nothing_gets_the_mail_again(tmp_path: Path, how: str) -> None:
    with mail_server(tmp_path) as server:
        server.on_data = how
        refused = failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}", step_seconds=0.5))
        assert not refused.permanent
        server.on_data = ""
        send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"))
    assert len(server.received) == 1


@pytest.mark.parametrize("tls", ["starttls", "smtps"])
def test_a_server_that_stands_still_over_tls_keeps_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    """A polite end of TLS waits for the goodbye of the other side, which never comes."""
    left: list[object] = []
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", lambda what: left.append(what.exc_value))
    with mail_server(tmp_path, starttls=tls == "starttls", smtps=tls == "smtps") as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
        server.on_data = "freeze"
        scheme = "smtps" if tls == "smtps" else "smtp"
        failure(mailer(tmp_path, f"{scheme}://localhost:{server.port}", step_seconds=0.5))
        gc.collect()
    assert left == []


def test_a_mail_as_a_whole_has_an_end(tmp_path: Path) -> None:
    with mail_server(tmp_path) as server:
        server.on_data = "hang"
        refused = failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}", mail_seconds=0.5))
    assert not refused.permanent


def test_no_server_at_all_is_a_failure_that_may_pass(tmp_path: Path) -> None:
    assert not failure(mailer(tmp_path, f"smtp://127.0.0.1:{free_port()}")).permanent


def test_an_address_that_the_server_cannot_take_is_refused_for_good(tmp_path: Path) -> None:
    mail = MAIL._replace(to="zoë@example.com")
    with mail_server(tmp_path, utf8=False) as server:
        assert failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail).permanent
    with mail_server(tmp_path) as server:
        send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail)
    assert server.received[0].recipients == ["zoë@example.com"]


def test_beside_others_such_an_address_is_left_out_and_counts_as_refused(tmp_path: Path) -> None:
    others = ("ada@example.com", "bob@example.com")
    mail = MAIL._replace(
        to="zoë@example.com", name="Zoë", also_to=others, subject="Prüfung", attachments=(PDF,)
    )
    with mail_server(tmp_path, utf8=False) as server:
        server.refused = {"bob@example.com": "550 who is that"}
        assert send(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail) == (550, 553)
        server.refused["ada@example.com"] = "450 later"
        assert not failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail).permanent
        server.refused["ada@example.com"] = "550 never"
        assert failure(mailer(tmp_path, f"smtp://127.0.0.1:{server.port}"), mail).permanent
    (received,) = server.received
    assert received.recipients == ["ada@example.com"]
    assert received.content.split(b"\r\n\r\n")[0].isascii()
    assert [one.addr_spec for one in received.message["To"].addresses] == list(others)
    assert received.message["Subject"] == "Prüfung"
    (file,) = received.message.iter_attachments()
    assert (file.get_filename(), file.get_content()) == (PDF.name, PDF.content)


def test_a_sender_that_the_server_cannot_take_is_for_the_operator_to_mend(tmp_path: Path) -> None:
    with mail_server(tmp_path, utf8=False) as server:
        ours = Settings(
            data=tmp_path,
            public_url=PUBLIC,
            smtp_url=f"smtp://127.0.0.1:{server.port}",
            mail_from="größe@example.com",
        )
        assert not failure(Mailer(ours)).permanent
    assert server.received == []
