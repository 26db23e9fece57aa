"""The mail server: asked as far as one can without sending; and one test mail, if somebody wants it."""

import asyncio
import ssl
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import aiosmtplib

from server.doctor.findings import RUN_AS_OWNER, Finding, Installation, failed, ok, skipped, warning
from server.mail import Connection, Mail, Mailer, MailFailed
from storage.ids import new_id

_STEP_SECONDS = 5.0
_PORTS = {"smtp": 587, "smtps": 465}
_LOCAL = ("localhost", "127.0.0.1", "::1")
_NOT_THERE = (
    "Look at host and port in FIELDSYNC_SMTP_URL and at the firewall: many providers close port 25 outwards; 587 is "
    "smtp:// with STARTTLS, 465 is smtps://. Mails wait and are tried again."
)


class _Refused(Exception):
    """What the mail server does not do, and what to do then."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.advice = advice


async def check_mail(installation: Installation) -> Finding:
    """Connect, greet, STARTTLS, sign in; nothing is sent."""
    settings = installation.settings
    if not settings.smtp_url:
        folder = settings.data / "mail"
        count = sum(1 for _ in folder.glob("*.eml")) if folder.is_dir() else 0
        return warning(
            f"no mail server is set: mails become files in {folder.absolute()} ({count:,} there)",
            "Set FIELDSYNC_SMTP_URL=smtp://user:password@mail.example.com:587 and FIELDSYNC_MAIL_FROM, or go on "
            "without mails: new passwords are set by administrators then.",
        )
    url = urlsplit(settings.smtp_url)
    place = f"{url.hostname}:{url.port or _PORTS[url.scheme]}"
    try:
        how = await _converse(url)
    except _Refused as refusal:
        return failed(f"{place} {refusal}", refusal.advice)
    except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
        if "certificate" in f"{error} {error.__cause__}".lower():
            return failed(
                f"the certificate of {place} is not trusted here",
                "Let this machine trust its authority (SSL_CERT_FILE), or use the host name that the certificate has.",
            )
        # Not its text: it may quote what we sent.
        return failed(f"{place} does not answer: {type(error).__name__}", _NOT_THERE)
    if not settings.mail_from and not settings.public_url:
        return warning(
            f"{place} lets us in ({how}), but mails would come from fieldsync@{urlsplit(settings.base_url).hostname}",
            "Set FIELDSYNC_MAIL_FROM to an address that this mail server may send from.",
        )
    return ok(f"{place} lets us in ({how})")


async def _converse(url: SplitResult) -> str:
    """How far it went: the same steps as a mail takes (``server/mail.py``)."""
    smtps = url.scheme == "smtps"
    host = url.hostname or "localhost"
    client = Connection(
        hostname=host,
        port=url.port or _PORTS[url.scheme],
        timeout=_STEP_SECONDS,
        use_tls=smtps,
        start_tls=False,
        tls_context=await asyncio.to_thread(ssl.create_default_context),
    )
    await client.connect()
    try:
        steps = ["TLS"] if smtps else []
        if not smtps:
            await client.ehlo()
            if client.supports_extension("starttls"):
                await client.starttls()
                steps.append("STARTTLS")
            elif "required" in parse_qs(url.query).get("starttls", []) or (
                url.username is not None and host not in _LOCAL
            ):
                raise _Refused(
                    "offers no STARTTLS, without which no password and no mail is sent",
                    "Let the mail server offer STARTTLS, or use smtps:// if it speaks TLS from the start (port 465).",
                )
        steps.append(await _sign_in(client, url))
        await client.quit()
        return ", ".join(steps)
    finally:
        client.close()


async def _sign_in(client: aiosmtplib.SMTP, url: SplitResult) -> str:
    if url.username is None:
        return "without a password"
    await client.ehlo()  # TLS changes what it offers
    if not client.supports_extension("auth"):
        raise _Refused(
            "takes no password",
            "Remove name and password from FIELDSYNC_SMTP_URL, or use its port for submission (587).",
        )
    try:
        await client.login(unquote(url.username), unquote(url.password or ""))
    except aiosmtplib.SMTPResponseException as error:
        raise _Refused(
            f"refuses the name or the password ({error.code})",
            "Correct both in FIELDSYNC_SMTP_URL, percent-encoded (@ is %40). Providers with two factors want a "
            "password made for this program.",
        ) from None
    return "signed in"


async def check_test_mail(installation: Installation) -> Finding:
    """One mail, on the way that all mails go."""
    if not installation.mail_to:
        return skipped("--mail-to ADDRESS sends one")
    if not installation.settings.smtp_url and installation.folder_owner is not None:
        return skipped("it would be a file in a folder that is not ours", RUN_AS_OWNER)
    mail = Mail(
        installation.mail_to,
        "Fieldsync can send mails",
        f"This is the test mail that `fieldsync doctor` was asked for at {installation.settings.base_url}.\n",
    )
    try:
        await Mailer(installation.settings, step_seconds=_STEP_SECONDS).send(mail, f"doctor-{new_id()}")
    except MailFailed as error:
        return failed(
            f"not taken: {error}",
            "See the finding about mail. If that is good, the server does not let this sender write to this address: "
            "FIELDSYNC_MAIL_FROM must be one it knows.",
        )
    if not installation.settings.smtp_url:
        return ok(f"written to {(installation.settings.data / 'mail').absolute()}")
    return ok("the mail server has taken it; see whether it arrives, and not among the spam")
