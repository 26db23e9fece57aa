"""A mail server for tests, with real sockets, that can be told to misbehave."""

import asyncio
import datetime
import email
import ipaddress
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Received:
    """A mail as it came, and how."""

    sender: str
    recipients: list[str]
    content: bytes
    tls: bool
    login: tuple[str, str] | None

    @property
    def message(self) -> EmailMessage:
        parsed = email.message_from_bytes(self.content, policy=default)
        assert isinstance(parsed, EmailMessage)
        return parsed


@dataclass
class MailServer:
    """What it was told to do, and what it got.

    Attributes:
        on_recipient: what RCPT is answered instead of 250.
        refused: the same for single addresses.
        on_data: what the mail is answered instead of 250; ``close`` hangs up, ``hang`` says nothing,
            ``freeze`` also reads nothing for two seconds.
        data_seconds: how long it looks at a mail before it answers.
    """

    port: int = 0
    certificate: Path = Path()
    on_recipient: str = ""
    refused: dict[str, str] = field(default_factory=dict)
    on_data: str = ""
    data_seconds: float = 0
    received: list[Received] = field(default_factory=list)
    connections: list[Any] = field(default_factory=list)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.on_recipient or address in self.refused:
            return self.on_recipient or self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.data_seconds)
        if self.on_data == "hang":
            await asyncio.sleep(60)
        if self.on_data == "freeze":
            time.sleep(2)  # noqa: ASYNC251 - the whole server stands still
        if self.on_data == "close":
            assert server.transport is not None
            server.transport.close()
            return "250 OK"
        if self.on_data:
            return self.on_data
        data: Any = session.auth_data
        login = (data.login.decode(), data.password.decode()) if data is not None else None
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        self.received.append(
            Received(envelope.mail_from, envelope.rcpt_tos, envelope.content, session.ssl is not None, login)
        )
        return "250 OK"


class _Quiet(SMTP):
    """Hanging up in the middle is what is tested; the server has nothing to say about it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(self.event_handler, MailServer)
        self.event_handler.connections.append(transport)

    async def _handle_client(self) -> None:
        with suppress(ConnectionError, asyncio.CancelledError, ssl.SSLError):
            await super()._handle_client()


@contextmanager
def mail_server(
    folder: Path,
    *,
    starttls: bool = False,
    smtps: bool = False,
    login: tuple[str, str] | None = None,
    utf8: bool = True,
) -> Iterator[MailServer]:
    """A mail server on a port of this machine.

    Args:
        folder: for its certificate, which is its own authority.
        starttls: offer STARTTLS.
        smtps: speak TLS from the start.
        login: the only name and password it takes; it takes no mail without.
        utf8: take addresses beyond ASCII.
    """
    server = MailServer()
    context = None
    if starttls or smtps:
        server.certificate, context = _certificate(folder)

    def authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == login, handled=False, auth_data=data)

    def protocol() -> SMTP:
        options: dict[str, Any] = {}
        if login is not None:
            options = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": False}
        if starttls:
            options["tls_context"] = context
        with warnings.catch_warnings():
            # That it takes passwords without TLS is what is wanted here.
            warnings.simplefilter("ignore", UserWarning)
            return _Quiet(server, hostname="localhost", enable_SMTPUTF8=utf8, loop=loop, **options)

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(
        loop.create_server(protocol, "127.0.0.1", 0, ssl=context if smtps else None)
    )
    server.port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def end() -> None:
        listening.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in server.connections:
            # A TLS connection that has ended forgot what there is to abort.
            with suppress(AttributeError):
                connection.abort()
        # Transports are closed by callbacks.
        await asyncio.sleep(0.05)

    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(end(), loop).result(timeout=10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file = folder / "key.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key_file)
    return file, context
