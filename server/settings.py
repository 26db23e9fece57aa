"""Every setting, typed, with its reason. Read once from ``FIELDSYNC_*`` environment variables."""

import logging
import os
from dataclasses import dataclass, field, fields
from email.utils import parseaddr
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import SplitResult, urlsplit

from storage.blobs.location import check_location

log = logging.getLogger("fieldsync.settings")

PREFIX = "FIELDSYNC_"
_MIN_SECRET_KEY = 32
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class InvalidSetting(ValueError):
    """A setting that cannot be used; the message names the variable and what it takes."""


def _setting(default: Any, reason: str) -> Any:
    return field(default=default, metadata={"reason": reason})


@dataclass(frozen=True)
class Settings:
    """The configuration of one process. Field ``public_url`` is read from ``FIELDSYNC_PUBLIC_URL``, and so on."""

    data: Path = _setting(Path("data"), "Folder for the embedded database and files.")
    database_url: str = _setting(
        "", "`postgresql+asyncpg://user:password@host/name`; empty: SQLite in the data folder."
    )
    blobs: str = _setting(
        "", "`s3://bucket/prefix?endpoint=https://…&region=…`; empty: the folder `blobs` in the data folder."
    )
    public_url: str = _setting(
        "",
        "The address clients use, e.g. `https://sync.example.com`: token issuer and links. Empty: http://host:port.",
    )
    host: str = _setting("127.0.0.1", "Address to listen on; `0.0.0.0` for every interface.")
    port: int = _setting(8000, "Port to listen on.")
    trusted_proxies: tuple[str, ...] = _setting(
        (), "Addresses or networks, separated by commas, whose X-Forwarded-For is believed."
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "Origins, separated by commas, whose pages may call the API; `*` for all."
    )
    tls_certificate: str = _setting("", "PEM file; with `FIELDSYNC_TLS_KEY`, the server speaks TLS itself.")
    tls_key: str = _setting("", "PEM file of the certificate's private key.")
    token_seconds: int = _setting(3600, "Lifetime of an access token (section 2.3.4 says 3600).")
    refresh_days: int = _setting(90, "Lifetime of a refresh token: a tablet may be away for weeks.")
    upload_days: int = _setting(7, "How long an unfinished upload waits for its next block.")
    max_snapshot_bytes: int = _setting(
        10_000_000, "Largest snapshot that is applied; a larger one is quarantined."
    )
    max_quarantine_bytes: int = _setting(
        32_000_000, "Largest body kept in quarantine; a larger one is refused unread."
    )
    worker: str = _setting(
        "embedded",
        "`embedded`: `serve` does background work too; `none`: `fieldsync worker` does it elsewhere.",
    )
    media_workers: int = _setting(
        2, "Processes that make thumbnails; each takes up to 120 MB for a photo of a phone."
    )
    report_workers: int = _setting(
        1,
        "Processes that make PDF reports; each takes up to 1 GB for a hostile template, 150 MB for a usual one.",
    )
    webhook_networks: tuple[str, ...] = _setting(
        (),
        "Networks, separated by commas, to which webhooks may go although they are not public, e.g. `10.1.0.0/16`: "
        "receivers on your own premises.",
    )
    webhook_ports: tuple[str, ...] = _setting(
        ("443",),
        "Ports, separated by commas, to which webhooks may go. `http://` addresses work only on ports other than 443.",
    )
    orphan_days: int = _setting(30, "How long a file to which no job refers is kept.")
    remind_hours: int = _setting(
        24, "How long before a scheduled job is due its people are reminded by mail."
    )
    smtp_url: str = _setting(
        "",
        "`smtp://user:password@host:587` (STARTTLS) or `smtps://…:465`. Empty: mails become files in `mail` of the data folder.",
    )
    mail_from: str = _setting(
        "", "Sender of mails, e.g. `Fieldsync <sync@example.com>`. Empty: fieldsync@ the public host."
    )
    oidc_issuer: str = _setting(
        "",
        "Address of an OpenID Connect provider whose people may sign in, e.g. `https://login.example.com`.",
    )
    oidc_client_id: str = _setting("", "What the provider calls this server.")
    oidc_client_secret: str = _setting("", "The secret it gave for that.")
    oidc_name: str = _setting("single sign-on", "What the sign-in page calls the provider.")
    oidc_teams: tuple[str, ...] = _setting(
        (),
        "Names of teams, separated by commas, whose users are found by their address when they first come from the "
        "provider; `*` for all. Empty: the one team of the installation, and nobody if it has several.",
    )
    redirect_uris: tuple[str, ...] = _setting(
        (),
        "Addresses, separated by commas, to which the sign-in page may send people back, e.g. `com.example.app:/signed-in`.",
    )
    secret_key: str = _setting(
        "",
        "At least 32 characters that encrypt the keys of queries where they are stored. Empty: a secret that the "
        "database holds itself, so whoever has a copy of it can read them.",
    )
    lease_seconds: int = _setting(
        60, "How long the task of a worker that vanished waits before another one takes it."
    )
    log_level: str = _setting("info", "debug, info, warning or error.")

    @classmethod
    def from_environment(cls, **overrides: Any) -> "Settings":
        """Settings from the environment; ``overrides`` that are not None win.

        Raises:
            InvalidSetting: a variable that does not parse.
        """
        values: dict[str, Any] = {}
        hints = get_type_hints(cls)
        for item in fields(cls):
            raw = os.environ.get(PREFIX + item.name.upper())
            if raw is not None:
                values[item.name] = _parse(item.name, hints[item.name], raw)
        known = {PREFIX + item.name.upper() for item in fields(cls)}
        for name in os.environ:
            if name.startswith(PREFIX) and name not in known:
                # Not fatal: it may be one of a newer version, after a step back.
                log.warning("%s is not a setting of this version; the README lists them all", name)
        values.update({key: value for key, value in overrides.items() if value is not None})
        settings = cls(**values)
        if bool(settings.tls_certificate) != bool(settings.tls_key):
            raise InvalidSetting("FIELDSYNC_TLS_CERTIFICATE and FIELDSYNC_TLS_KEY go together")
        try:
            check_location(settings.blobs)
        except ValueError as error:
            raise InvalidSetting(f"FIELDSYNC_BLOBS {error}") from None
        if settings.worker not in ("embedded", "none"):
            raise InvalidSetting(f"FIELDSYNC_WORKER takes embedded or none, not {settings.worker!r}")
        if settings.secret_key and len(settings.secret_key) < _MIN_SECRET_KEY:
            # Not quoted: it is a secret.
            raise InvalidSetting(f"FIELDSYNC_SECRET_KEY takes at least {_MIN_SECRET_KEY} characters")
        _check_accounts(settings)
        _check_webhooks(settings)
        return settings

    def environment(self) -> dict[str, str]:
        """The variables that make another process read these same settings."""
        result: dict[str, str] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            result[PREFIX + item.name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
        return result

    @property
    def base_url(self) -> str:
        """The public address without a trailing slash."""
        scheme = "https" if self.tls_certificate else "http"
        return (self.public_url or f"{scheme}://{self.host}:{self.port}").rstrip("/")

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data / 'fieldsync.db').absolute()}"


def _parse(name: str, kind: Any, raw: str) -> Any:
    if kind is int:
        try:
            return int(raw)
        except ValueError:
            raise InvalidSetting(f"{PREFIX}{name.upper()} takes a whole number, not {raw!r}") from None
    if kind is Path:
        return Path(raw)
    if get_args(kind):
        return tuple(part.strip() for part in raw.split(",") if part.strip())
    return raw


def _check_accounts(settings: Settings) -> None:
    """What mails and signing in on our page need.

    Raises:
        InvalidSetting: an address that cannot be used.
    """
    if settings.smtp_url:
        smtp = _parts("SMTP_URL", settings.smtp_url)
        if smtp.scheme not in ("smtp", "smtps") or not smtp.hostname:
            # Not quoted: it may hold a password.
            raise InvalidSetting("FIELDSYNC_SMTP_URL takes smtp://host:587 or smtps://host:465")
    if settings.mail_from and "@" not in parseaddr(settings.mail_from)[1]:
        raise InvalidSetting(
            f"FIELDSYNC_MAIL_FROM takes an address or Name <address>, not {settings.mail_from!r}"
        )
    if settings.oidc_issuer:
        issuer = _parts("OIDC_ISSUER", settings.oidc_issuer)
        safe = issuer.scheme == "https" or (issuer.scheme == "http" and issuer.hostname in _LOOPBACK)
        if not safe or not issuer.hostname or issuer.query or issuer.fragment:
            raise InvalidSetting("FIELDSYNC_OIDC_ISSUER takes an https:// address without ? and #")
        if not settings.oidc_client_id:
            raise InvalidSetting("FIELDSYNC_OIDC_ISSUER and FIELDSYNC_OIDC_CLIENT_ID go together")
    for address in settings.redirect_uris:
        parts = _parts("REDIRECT_URIS", address)
        web = parts.scheme == "https" and parts.hostname
        # RFC 8252, 7.1: apps' own schemes have a dot; javascript: and data: have none.
        if not (web or "." in parts.scheme) or "#" in address or not address.isprintable() or " " in address:
            raise InvalidSetting(
                "FIELDSYNC_REDIRECT_URIS takes addresses with https:// or a scheme with a dot, without #, "
                f"not {address!r}"
            )


def _check_webhooks(settings: Settings) -> None:
    """Where webhooks may go.

    Raises:
        InvalidSetting: a network or port that is none.
    """
    for network in settings.webhook_networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise InvalidSetting(
                f"FIELDSYNC_WEBHOOK_NETWORKS takes networks like 10.1.0.0/16: {error}"
            ) from None
    for port in settings.webhook_ports:
        if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65_536):
            raise InvalidSetting(f"FIELDSYNC_WEBHOOK_PORTS takes numbers from 1 to 65535, not {port!r}")


def _parts(name: str, address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port  # not looked at before it is asked for
    except ValueError:
        raise InvalidSetting(f"FIELDSYNC_{name} is not an address") from None
    return parts
