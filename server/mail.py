"""Mails: through SMTP, or into files of the data folder where no server is set."""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import ssl
from datetime import UTC, datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr
from html import escape
from pathlib import Path
from typing import NamedTuple, cast
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import aiosmtplib

from server.settings import Settings

#: For each command and each answer of the mail server.
STEP_SECONDS = 20.0
#: For a whole mail. A server that answers every command at the last moment must not hold a worker.
MAIL_SECONDS = 60.0
#: The thinnest line that is waited for, for attached files.
_BYTES_A_SECOND = 100_000
_PORTS = {"smtp": 587, "smtps": 465}
_LOCAL = {"localhost", "127.0.0.1", "::1"}
#: What stands in a Message-ID as it is (RFC 5322, 3.2.3, dot-atom).
_ID = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,120}")
#: Controls, line and paragraph separators: whatever some program might take for the end of a line.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LINK = re.compile(r"https?://[^\s<>\"]+")
_MAX_SUBJECT = 200
#: It wants a password, another one, or TLS (RFC 4954, 6): nothing is wrong with the mail.
_FOR_THE_OPERATOR = {530, 534, 535, 538}
_DOMAIN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
#: What stands before the @ without quotes (RFC 5322, 3.2.3), and beyond ASCII whatever prints (RFC 6531, 3.3). Some
#: providers give addresses with two dots together, or one at the end.
_LOCAL_PART = re.compile(r"(?!\.)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\x80-\U0010ffff-]+")
#: Programs decode what begins so, also in addresses, and might find the end of a line in it (RFC 2047, 2).
_ENCODED_WORD = "=?"
#: What a server says of an address beyond ASCII that it cannot take (RFC 6531, 3.5).
_NOT_ALLOWED = 553


class Attachment(NamedTuple):
    """A file in a mail. ``content_type`` is a type and a subtype, without parameters."""

    name: str
    content_type: str
    content: bytes


class Mail(NamedTuple):
    """One mail. ``html`` is made from ``text`` if there is none; ``name`` stands before the address.

    ``also_to``: further addresses; everybody sees whom else the mail went to.
    """

    to: str
    subject: str
    text: str
    html: str | None = None
    name: str = ""
    also_to: tuple[str, ...] = ()
    attachments: tuple[Attachment, ...] = ()


class MailFailed(Exception):
    """The mail was not taken. ``permanent``: it never will be."""

    def __init__(self, detail: str, permanent: bool = False) -> None:
        super().__init__(detail)
        self.permanent = permanent


class Mailer:
    """Sends mails as the settings say.

    Args:
        step_seconds: how long each step of SMTP may take.
        mail_seconds: how long all of them together may.
    """

    def __init__(
        self, settings: Settings, step_seconds: float = STEP_SECONDS, mail_seconds: float = MAIL_SECONDS
    ) -> None:
        self._url = urlsplit(settings.smtp_url) if settings.smtp_url else None
        self._folder = settings.data / "mail"
        self._host = urlsplit(settings.base_url).hostname or "localhost"
        self._sender = settings.mail_from
        self._step_seconds = step_seconds
        self._mail_seconds = mail_seconds

    async def send(self, mail: Mail, message_id: str) -> tuple[int, ...]:
        """Hand the mail over. ``message_id``: the same at every attempt, so that a reader can drop doubles.

        Returns:
            What the server answered about each address that it refused while it took the mail for others;
                553 for those that it cannot take as they are not ASCII.

        Raises:
            MailFailed: it was not taken. Permanent is what the server refuses for good (5xx) about this mail
                or this address; a refusal of our password or of the connection is for the operator to mend,
                and the mail waits.
        """
        # A large file takes a while to encode.
        message = await asyncio.to_thread(self.compose, mail, message_id)
        if self._url is None:
            await asyncio.to_thread(self._keep, message)
            return ()
        # Files take their time on a thin line, and a mail server may look through them before it answers.
        more = sum(len(file.content) for file in mail.attachments) / _BYTES_A_SECOND
        return await self._hand_over(self._url, message, more)

    def compose(self, mail: Mail, message_id: str) -> EmailMessage:
        """The message as it goes over the wire.

        Raises:
            MailFailed: permanent: the address of a recipient is none.
        """
        addresses = [_address(mail.to, mail.name), *(_address(spec, "") for spec in mail.also_to)]
        to = [address for address in addresses if address is not None]
        if len(to) < len(addresses):
            raise MailFailed("the address of the recipient is not an e-mail address", permanent=True)
        # Only a local part beyond ASCII needs a server that takes UTF-8 in headers (RFC 6531).
        is_ascii = all(address.addr_spec.isascii() for address in to)
        message = EmailMessage(policy=SMTP if is_ascii else SMTPUTF8)
        message["From"] = self._from()
        message["To"] = to
        message["Subject"] = one_line(mail.subject)[:_MAX_SUBJECT]
        message["Date"] = format_datetime(datetime.now(UTC))
        message["Message-ID"] = f"<{_message_id(message_id)}@{self._host}>"
        # Nobody's out-of-office reply is for us (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        text = _encodable(mail.text)
        message.set_content(text)
        message.add_alternative(_encodable(mail.html) if mail.html is not None else to_html(text), "html")
        for file in mail.attachments:
            main, _, sub = file.content_type.partition("/")
            message.add_attachment(file.content, main, sub, filename=one_line(file.name))
        return message

    def _from(self) -> Address:
        name, spec = parseaddr(one_line(self._sender))
        return _address(spec, name) or Address("Fieldsync", "fieldsync", self._host)

    def _keep(self, message: EmailMessage) -> None:
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        stem = re.sub(r"[^A-Za-z0-9.-]", "-", str(message["Message-ID"]).strip("<>"))[:120]
        draft = self._folder / f".{secrets.token_hex(8)}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_private(draft, bytes(message))
            draft.rename(self._folder / f"{at}-{stem}.eml")
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise MailFailed(f"the mail could not be written: {error.strerror}") from error

    async def _hand_over(
        self, url: SplitResult, message: EmailMessage, more_seconds: float
    ) -> tuple[int, ...]:
        try:
            async with asyncio.timeout(self._mail_seconds + more_seconds):
                return await self._converse(url, message, more_seconds)
        except aiosmtplib.SMTPRecipientsRefused as error:
            # As long as one of them may be taken later, the mail is worth another attempt.
            raise _refused(min(refused.code for refused in error.recipients), "the recipient") from None
        except (aiosmtplib.SMTPSenderRefused, aiosmtplib.SMTPDataError) as error:
            what = "the sender" if isinstance(error, aiosmtplib.SMTPSenderRefused) else "the mail"
            raise _refused(error.code, what) from None
        except aiosmtplib.SMTPResponseException as error:
            # Its text may quote what we sent, and with that a password.
            raise MailFailed(f"the mail server does not let us in: {error.code}") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise MailFailed(f"the mail server cannot be reached: {type(error).__name__}") from None

    async def _converse(
        self, url: SplitResult, message: EmailMessage, more_seconds: float
    ) -> tuple[int, ...]:
        host = url.hostname or "localhost"
        username = unquote(url.username) if url.username is not None else None
        password = unquote(url.password or "")
        required = "required" in parse_qs(url.query).get("starttls", [])
        smtps = url.scheme == "smtps"
        client = Connection(
            hostname=host,
            port=url.port or _PORTS[url.scheme],
            local_hostname=self._host,
            timeout=self._step_seconds + more_seconds,
            use_tls=smtps,
            start_tls=False,
            tls_context=await asyncio.to_thread(ssl.create_default_context),
        )
        try:
            await client.connect()
            if not smtps:
                await client.ehlo()
                if client.supports_extension("starttls"):
                    await client.starttls()
                elif required or (username is not None and host not in _LOCAL):
                    raise MailFailed("the mail server offers no STARTTLS, without which nothing is sent")
            if username is not None:
                await _log_in(client, username, password)
            refused = await _hand(client, message)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                # The mail is taken: how they say goodbye matters no more.
                await client.quit()
            return refused
        finally:
            client.close()


class Connection(aiosmtplib.SMTP):
    """A connection that ends at once when it is closed, also where the library closes it after a silence.

    The library's own way waits: for a server that reads nothing until it has read what was written, and in TLS for
    the other side's goodbye. What nobody waits for then stays open.
    """

    def close(self) -> None:
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()
        super().close()


async def _hand(client: aiosmtplib.SMTP, message: EmailMessage) -> tuple[int, ...]:
    """What ``client.send_message`` does, which keeps the event loop waiting while it puts a large mail together.

    A server that takes no addresses beyond ASCII gets the mail for the others, in which they are not named.
    """
    sender = message["From"].addresses[0].addr_spec
    to: list[Address] = list(message["To"].addresses)
    left_out: list[Address] = []
    options = []
    policy = SMTP
    if client.last_ehlo_response is None:
        await client.ehlo()
    if client.supports_extension("smtputf8"):
        if not all(address.addr_spec.isascii() for address in (message["From"].addresses[0], *to)):
            options.append("SMTPUTF8")
            policy = SMTPUTF8
    elif not sender.isascii():
        raise MailFailed("the mail server does not take the address of the sender: it knows no SMTPUTF8")
    else:
        left_out = [address for address in to if not address.addr_spec.isascii()]
        if len(left_out) == len(to):
            raise MailFailed("the mail server does not take such addresses", permanent=True)
        if left_out:
            to = [address for address in to if address.addr_spec.isascii()]
            message.replace_header("To", to)
    if client.supports_extension("8bitmime"):
        options.append("BODY=8BITMIME")
    else:
        policy = policy.clone(cte_type="7bit")
    content = await asyncio.to_thread(message.as_bytes, policy=policy)
    recipients = [address.addr_spec for address in to]
    refused, _ = await client.sendmail(sender, recipients, content, mail_options=options)
    return (*(answer.code for answer in refused.values()), *(_NOT_ALLOWED for _ in left_out))


async def _log_in(client: aiosmtplib.SMTP, username: str, password: str) -> None:
    try:
        await client.login(username, password)
    except aiosmtplib.SMTPNotSupported:
        raise MailFailed("the mail server takes no password") from None


def one_line(text: str) -> str:
    """``text`` without anything that could end a header."""
    return _CONTROLS.sub(" ", _encodable(text)).strip()


def is_address(text: str) -> bool:
    """Whether a mail can be sent to it."""
    return _address(text, "") is not None


def mailbox(text: str) -> str:
    """What is the same for two spellings of one address: case does not count, nor how a domain beyond ASCII is
    written. What is no address is its own.
    """
    address = _address(text, "")
    return (address.addr_spec if address is not None else text).casefold()


def to_html(text: str) -> str:
    """Plain text as HTML: paragraphs at empty lines, addresses as links."""
    parts, end = [], 0
    for found in _LINK.finditer(text):
        link = escape(found[0])
        parts += [escape(text[end : found.start()]), f'<a href="{link}">{link}</a>']
        end = found.end()
    parts.append(escape(text[end:]))
    paragraphs = re.split(r"\n\s*\n", "".join(parts).strip())
    body = "\n".join(f"<p>{paragraph.replace(chr(10), '<br>')}</p>" for paragraph in paragraphs)
    return f'<!doctype html>\n<html lang="en"><body>\n{body}\n</body></html>\n'


def _encodable(text: str) -> str:
    """Lone surrogates come from nowhere but broken JSON, and no mail can hold them."""
    return text.encode("utf-8", "replace").decode()


def _address(spec: str, name: str) -> Address | None:
    """The address, with its domain in ASCII; None if it is none."""
    local, _, domain = spec.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or not local.isprintable() or _ENCODED_WORD in local:
        return None
    try:
        ascii_domain = domain.encode("idna").decode()
        return Address(one_line(name), local, ascii_domain) if _DOMAIN.fullmatch(ascii_domain) else None
    except (ValueError, HeaderParseError, IndexError):
        return None


def _message_id(text: str) -> str:
    return text if _ID.fullmatch(text) else hashlib.sha256(_encodable(text).encode()).hexdigest()


def _refused(code: int, what: str) -> MailFailed:
    # Neither the address nor the server's words, which quote it: mails are personal, and logs are not.
    return MailFailed(
        f"the mail server refused {what}: {code}", permanent=code >= 500 and code not in _FOR_THE_OPERATOR
    )


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
