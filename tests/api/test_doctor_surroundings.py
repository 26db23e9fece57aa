"""`fieldsync doctor` on what an installation needs around it: files, the server, mail, printing, single sign-on."""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server import clock
from server.doctor import files, printing, reaching
from server.doctor.asking import Answer
from server.doctor.findings import Finding, Installation, State, ok
from server.settings import Settings
from storage.queries.secrets import shared_secret
from tests.support.blobs import nanio_server, s3_client, s3_credentials
from tests.support.doctor import at_work, findings, wants, write
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, oidc_provider
from tests.support.process import ServerProcess, command, environment, free_port, init, serve
from tests.support.smtp import mail_server


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings().environment():
        monkeypatch.delenv(name, raising=False)


# Files


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    """The setting of a store that checks signatures."""
    with s3_credentials(), nanio_server(tmp_path / "s3") as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="files")
        client.close()
        yield f"s3://files/prod?endpoint={endpoint}"


def test_files_in_s3_are_read_at_a_signed_address(s3: str, tmp_path: Path) -> None:
    found = findings(at_work(tmp_path / "data", blobs=s3))
    assert found["files"].state is State.OK
    assert "the bucket files at http://127.0.0.1:" in found["files"].text
    assert found["file-addresses"].state is State.OK
    assert [path for path in (tmp_path / "s3").rglob("*doctor*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("name", "value", "location", "advice"),
    [
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret", "files", "AWS_SECRET_ACCESS_KEY"),
        ("AWS_ACCESS_KEY_ID", "nobody", "files", "AWS_ACCESS_KEY_ID"),
        ("AWS_REGION", "us-east-1", "no-such-bucket", "Make the bucket"),
    ],
)
def test_a_store_that_lets_nobody_in_is_found(
    s3: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    location: str,
    advice: str,
) -> None:
    monkeypatch.setenv(name, value)
    found = findings(at_work(tmp_path / "data", blobs=s3.replace("//files/", f"//{location}/")))
    wants(found["files"], State.FAILED, "cannot be stored", advice)
    assert found["file-addresses"].state is State.SKIPPED
    assert not any("not-the-secret" in finding.text for finding in found.values())


def test_a_store_that_is_away_is_found(tmp_path: Path) -> None:
    with s3_credentials():
        away = f"s3://files?endpoint=http://127.0.0.1:{free_port()}"
        found = findings(at_work(tmp_path, blobs=away))
    wants(found["files"], State.FAILED, "cannot be stored", "Start the store")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("An error occurred (RequestTimeTooSkewed) when calling", "15 minutes"),
        ("An error occurred (AccessDenied) when calling", "s3:PutObject"),
        ("Unable to locate credentials", "AWS_ACCESS_KEY_ID"),
        ("An error occurred (PermanentRedirect) when calling", "region="),
        ("[Errno 28] No space left on device", "Make room"),
        ("[Errno 20] Not a directory", "chown"),
    ],
)
def test_what_a_store_says_is_explained(error: str, advice: str) -> None:
    assert advice in files._advice(error)


def test_a_clock_that_differs_from_the_stores_is_found(s3: str, tmp_path: Path) -> None:
    found = findings(at_work(tmp_path / "data", blobs=s3), clock=lambda: time.time() + 300)
    wants(found["file-addresses"], State.WARNING, "ahead of the store's", "15 minutes")


def test_a_store_that_only_this_machine_reaches_is_found(s3: str, tmp_path: Path) -> None:
    found = findings(at_work(tmp_path / "data", blobs=s3, public_url="https://sync.invalid"))
    wants(found["file-addresses"], State.WARNING, "only this machine", "endpoint=")


def test_a_folder_of_files_that_is_a_file_is_found(tmp_path: Path) -> None:
    settings = at_work(tmp_path)
    (tmp_path / "blobs").rmdir()
    (tmp_path / "blobs").write_text("")
    wants(findings(settings)["files"], State.FAILED, "cannot be stored", "chown")


# The server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[ServerProcess, Path]]:
    """A server on SQLite and its data folder."""
    data = tmp_path / "data"
    init(data)
    running = serve(tmp_path, data)
    yield running, data
    running.kill()


def test_a_server_that_runs_is_asked_as_clients_ask_it(server: tuple[ServerProcess, Path]) -> None:
    running, data = server
    found = findings(Settings(data=data, public_url=running.url))
    assert found["server"] == ok(f"{running.url}/readyz is ready")
    assert found["file-addresses"] == ok(f"signed here, read at {running.url}")
    found = findings(Settings(data=data, public_url=running.url), clock=lambda: time.time() + 600)
    wants(found["server"], State.WARNING, "behind this machine's", "time server")


def test_a_server_of_another_installation_is_found(
    server: tuple[ServerProcess, Path], tmp_path: Path
) -> None:
    running, data = server
    other = tmp_path / "other"
    init(other, team="other")
    serve(tmp_path, other).kill()  # it has made what signs its addresses
    found = findings(Settings(data=other, public_url=running.url))
    wants(found["file-addresses"], State.FAILED, "does not know", "FIELDSYNC_PUBLIC_URL")
    # The same database, and a folder of its own: two machines without S3.
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "blobs").mkdir(parents=True)
    url = f"sqlite:///{data / 'fieldsync.db'}"
    found = findings(Settings(data=elsewhere, database_url=url, public_url=running.url))
    wants(found["file-addresses"], State.FAILED, "does not find", "S3")


def test_a_server_that_is_not_ready_or_not_ours_is_found(s3: str, tmp_path: Path) -> None:
    endpoint = s3.partition("endpoint=")[2]
    settings = at_work(tmp_path / "data", public_url=endpoint)
    write(settings, shared_secret, "files", clock.now())
    found = findings(settings)
    wants(found["server"], State.FAILED, "not as Fieldsync does", "FIELDSYNC_PUBLIC_URL")
    wants(found["file-addresses"], State.FAILED, "for the address of a file", "/files/v1/")


def test_a_server_whose_store_does_not_answer_is_found() -> None:
    said = b'{"status": "ready", "parts": {"database": "ok", "blobs": "unavailable"}}'
    found = reaching._judged(Installation(Settings()), Answer(200, said, None))
    wants(found, State.FAILED, "did not reach: blobs", "findings about files")


def test_a_server_that_does_not_run_is_found(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    found = findings(Settings(data=tmp_path, public_url=url))
    wants(found["server"], State.WARNING, "nothing listens there", "systemctl start")


# Mail


def test_a_mail_server_is_asked_without_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mail_server(tmp_path, starttls=True, login=("name", "pass/word")) as mails:
        monkeypatch.setenv("SSL_CERT_FILE", str(mails.certificate))
        url = f"smtp://name:pass%2Fword@localhost:{mails.port}"
        settings = Settings(data=tmp_path, smtp_url=url, mail_from="sync@example.com", port=free_port())
        found = findings(settings)
        assert found["mail"] == ok(f"localhost:{mails.port} lets us in (STARTTLS, signed in)")
        assert found["test-mail"].state is State.SKIPPED
        assert mails.received == []
        assert findings(settings, "ada@example.com")["test-mail"].state is State.OK
        (mail,) = mails.received
        assert mail.recipients == ["ada@example.com"]
        mails.on_recipient = "550 no such user"
        refused = findings(settings, "ada@example.com")["test-mail"]
        wants(refused, State.FAILED, "550", "FIELDSYNC_MAIL_FROM")


def test_a_mail_server_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    def mail(url: str) -> Finding:
        finding = findings(Settings(data=tmp_path, smtp_url=url, port=free_port()))["mail"]
        assert "wrong-word" not in finding.text + finding.advice
        return finding

    wants(
        mail(f"smtp://127.0.0.1:{free_port()}"),
        State.FAILED,
        "does not answer",
        "FIELDSYNC_SMTP_URL",
    )
    with mail_server(tmp_path, login=("name", "right-word")) as mails:
        url = f"smtp://name:wrong-word@localhost:{mails.port}"
        wants(mail(url), State.FAILED, "refuses the name or the password (535)", "percent-encoded")
        wants(mail(f"{url}?starttls=required"), State.FAILED, "offers no STARTTLS", "smtps://")
        # The other way of speaking TLS than the server's.
        assert mail(f"smtps://localhost:{mails.port}").state is State.FAILED
    with mail_server(tmp_path) as mails:
        url = f"smtp://name:wrong-word@localhost:{mails.port}"
        wants(mail(url), State.FAILED, "takes no password", "Remove")
    with mail_server(tmp_path, starttls=True) as mails:
        wants(mail(f"smtp://localhost:{mails.port}"), State.FAILED, "certificate", "SSL_CERT_FILE")


def test_without_a_mail_server_it_says_where_mails_go(tmp_path: Path) -> None:
    found = findings(Settings(data=tmp_path, port=free_port()), "ada@example.com")
    wants(found["mail"], State.WARNING, str(tmp_path / "mail"), "FIELDSYNC_SMTP_URL")
    assert found["test-mail"] == ok(f"written to {tmp_path / 'mail'}")
    assert len(list((tmp_path / "mail").glob("*.eml"))) == 1


# Reports


def test_a_page_is_printed_as_reports_are() -> None:
    assert asyncio.run(printing.check_pdf(Installation(Settings()))).state is State.OK


def test_a_missing_library_is_explained(tmp_path: Path) -> None:
    # What WeasyPrint's import does where Debian's packages are missing.
    stub = tmp_path / "weasyprint"
    stub.mkdir()
    (stub / "__init__.py").write_text(
        "raise OSError(\"cannot load library 'libpango-1.0-0': libpango-1.0-0: cannot open shared object file\")\n"
    )
    done = subprocess.run(
        [command(), "doctor", "--json", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        env=environment(port=free_port()) | {"PYTHONPATH": str(tmp_path)},
        timeout=120,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["pdf"]["state"] == "failed"
    assert "libpango" in checks["pdf"]["finding"]
    assert "apt-get install libpango-1.0-0" in checks["pdf"]["advice"]
    assert "fonts" in checks


def test_fonts_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fonts(script: str) -> Finding:
        program = tmp_path / "fc-list"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return asyncio.run(printing.check_fonts(Installation(Settings())))

    wants(fonts("true"), State.FAILED, "there is none", "fonts-dejavu-core")
    wants(
        fonts('case "$1" in *zh*|*ja*|*ko*) ;; *) echo "DejaVu Sans";; esac'),
        State.WARNING,
        "Chinese, Japanese and Korean",
        "fonts-noto-cjk",
    )
    assert fonts("echo Noto").state is State.OK
    (tmp_path / "fc-list").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asyncio.run(printing.check_fonts(Installation(Settings()))).state is State.SKIPPED


# Single sign-on


def test_the_provider_is_asked_to_describe_itself() -> None:
    def finding(issuer: str) -> Finding:
        settings = Settings(
            oidc_issuer=issuer, oidc_client_id=CLIENT_ID, oidc_client_secret=CLIENT_SECRET, port=free_port()
        )
        found = asyncio.run(reaching.check_provider(Installation(settings)))
        assert CLIENT_SECRET not in found.text + found.advice
        return found

    with oidc_provider() as provider:
        assert finding(provider.url).state is State.OK
        provider.issuer_says = "https://login.example.com"
        wants(finding(provider.url), State.FAILED, "another issuer", "exactly as the provider spells it")
    wants(finding(f"http://127.0.0.1:{free_port()}"), State.FAILED, "does not answer", "firewall")
