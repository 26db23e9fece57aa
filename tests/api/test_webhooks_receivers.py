"""Where webhooks really go: what a name says at the moment of sending, and whose certificate is believed."""

import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from server.triggers import delivering, webhooks
from server.triggers.receivers import NoResolver, Receivers
from storage.database import sqlite_url
from tests.support import receiver as faulty
from tests.support.app import RunningApp, Team, running_app
from tests.support.receiver import Receiver, answering
from tests.support.webhooks import Sending

NAME = "hooks.example.com"
REFUSED = "This is not an address of the public internet."
_real = socket.getaddrinfo


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The application without its own worker, which would do the tests' work with other settings."""
    folder = tmp_path_factory.mktemp("receivers")
    with running_app(folder, sqlite_url(folder / "fieldsync.db"), worker="none") as app:
        yield app


class Names:
    """What names resolve to, answer by answer; the last one is given to all further questions."""

    def __init__(self) -> None:
        self.answers: list[Sequence[str]] = [["127.0.0.1"]]
        self.asked: list[str] = []

    def look_up(self, host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if host != NAME:
            return _real(host, port, *arguments, **options)
        addresses = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    return names


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def named(team: Team, receiver: Receiver, count: int = 1) -> Sending:
    """A trigger whose receiver is known by its name."""
    scheme = "https" if receiver.tls else "http"
    return Sending(team, receiver, count, url=f"{scheme}://{NAME}:{receiver.port}/hook")


def test_a_name_that_leads_inside_is_refused_at_the_moment_of_sending(
    team: Team, receiver: Receiver, names: Names
) -> None:
    sending = named(team, receiver)
    sending.settings["webhook_networks"] = ()
    sending.run()
    assert receiver.connections == 0
    assert (sending.last().status, sending.last().error) == (None, REFUSED)
    assert sending.states == {"due": 1}


def test_a_name_with_one_address_inside_is_refused_whole(
    team: Team, receiver: Receiver, names: Names
) -> None:
    names.answers = [["127.0.0.1", "10.0.0.7"]]
    sending = named(team, receiver)
    sending.run()
    assert receiver.connections == 0
    assert sending.last().error == REFUSED


def test_a_name_that_changes_after_the_check_changes_nothing(
    team: Team, receiver: Receiver, names: Names
) -> None:
    # Rebinding: the first answer is allowed, the second leads elsewhere. Nobody asks twice.
    names.answers = [["127.0.0.1"], ["127.0.0.9"]]
    sending = named(team, receiver, 40)
    sending.run()
    assert sending.states == {"delivered": 40}
    assert names.asked == [NAME]
    assert {request.headers["host"] for request in receiver.requests} == {f"{NAME}:{receiver.port}"}


def test_a_literal_address_inside_is_refused_at_the_moment_of_sending(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver)
    sending.settings["webhook_networks"] = ("10.0.0.0/8",)
    sending.run()
    assert receiver.connections == 0
    assert sending.last().error == REFUSED


def test_a_port_that_is_not_allowed_is_refused_at_the_moment_of_sending(
    team: Team, receiver: Receiver
) -> None:
    sending = Sending(team, receiver)
    sending.settings["webhook_ports"] = ("443",)
    sending.run()
    assert receiver.connections == 0
    assert sending.last().error == f"Webhooks do not go to port {receiver.port}; allowed here: 443."


def test_a_redirect_inside_by_name_is_not_followed(team: Team, receiver: Receiver, names: Names) -> None:
    names.answers = [["127.0.0.1"], ["10.0.0.7"]]
    receiver.behaviours = [answering(307, Location=f"http://{NAME}:{receiver.port}/inside")]
    sending = named(team, receiver)
    sending.run()
    assert [request.path for request in receiver.requests] == ["/hook"]
    assert sending.last().status == 307


def test_where_the_first_address_does_not_answer_the_next_one_is_tried(
    team: Team, receiver: Receiver, names: Names
) -> None:
    names.answers = [["127.0.0.9", "127.0.0.1"]]  # nobody listens on the first
    sending = named(team, receiver)
    sending.run()
    assert sending.states == {"delivered": 1}


def test_a_name_that_does_not_resolve_is_a_failed_attempt(
    team: Team, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host == NAME:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return _real(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    sending = named(team, receiver)
    sending.run()
    assert sending.last().error == "The name cannot be resolved: Name or service not known"
    assert sending.states == {"due": 1}


def test_waiting_for_who_resolves_names_says_nothing_about_the_receiver(
    team: Team, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def busy(*_: Any, **__: Any) -> list[str]:
        raise NoResolver("busy")

    monkeypatch.setattr(Receivers, "resolve", busy)
    sending = named(team, receiver, 40)
    sending.run()
    assert sending.last().error == "The name was not resolved: this server is busy with too many others."
    assert sending.trigger.failing_since is None
    # The others wait, and have all their attempts.
    tried = [number for number in range(40) if sending.delivery(number)[1]]
    assert len(tried) <= delivering.AT_FIRST


# TLS


class Authority(NamedTuple):
    """Somebody who signs certificates."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tests")])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = _builder(name, name, key).add_extension(x509.BasicConstraints(True, None), critical=True)
        return cls(key, builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()))

    def server(self, folder: Path, name: str) -> ssl.SSLContext:
        """What a server called ``name`` speaks TLS with."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, self.certificate.subject, key).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        path = folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def trusted(self) -> ssl.SSLContext:
        """The context of webhooks on a system whose only authority this is."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=pem)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    moment = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=1))
    )


@pytest.mark.parametrize(("certified", "works"), [(NAME, True), ("other.example.com", False)])
def test_the_certificate_must_be_of_the_name_and_not_of_the_address(
    team: Team, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certified: str, works: bool
) -> None:
    authority = Authority.new()
    monkeypatch.setattr(webhooks, "trust", authority.trusted)
    with Receiver(tls=authority.server(tmp_path, certified)) as receiver:
        sending = named(team, receiver)
        sending.run()
    assert len(receiver.requests) == (1 if works else 0)
    if not works:
        assert "certificate" in (sending.last().error or "")
    assert sending.states == ({"delivered": 1} if works else {"due": 1})


def test_a_certificate_of_an_unknown_authority_is_refused(team: Team, names: Names, tmp_path: Path) -> None:
    with Receiver(tls=Authority.new().server(tmp_path, NAME)) as receiver:
        sending = named(team, receiver)
        sending.run()
    assert receiver.requests == []
    assert "certificate" in (sending.last().error or "")


def test_a_receiver_that_never_shakes_hands_times_out(team: Team, names: Names) -> None:
    with Receiver() as receiver:  # speaks no TLS, and waits for the end of a request
        receiver.behaviours = [faulty.hang]
        sending = Sending(team, receiver, url=f"https://{NAME}:{receiver.port}/")
        sending.run(sending.engine(attempt_seconds=0.5))
    assert sending.last().error == "No complete answer within 0.5 s."


def test_a_process_that_sends_nothing_does_not_load_the_http_client() -> None:
    code = "import sys, server.app, server.background; sys.exit('httpcore' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], timeout=60, check=False
    )
    assert done.returncode == 0
