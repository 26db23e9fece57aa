"""What a check says, and what all checks share."""

import os
import pwd
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from server.settings import Settings
from storage.blobs import BlobStore
from storage.database import Database

#: What to do where another account must not write.
RUN_AS_OWNER = (
    "Run the doctor as the account of the service, with the same settings: see the finding about data-folder."
)

_MAX_QUOTED = 300
#: Shorter ones would black out ordinary words, and no check prints one on purpose.
_SHORTEST_HIDDEN = 4
#: What it puts before an error and after it: a class, and an address of its own documentation.
_SQLALCHEMY = re.compile(r"^\(sqlalchemy\.\S+\) (?:<class '[^']*'>: )?|\(Background on this error at: \S+\)")
#: Up to the last @: one that should have been encoded does not end a password.
_USER_AND_PASSWORD = re.compile(r"://[^:/@]*:(.*)@")
_DIVIDERS = re.compile(r"[@/:?#]")
_PASSWORDS = ("password", "passfile", "sslpassword")
_AWS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


class State(StrEnum):
    """How a check went. ``skipped``: it could not be made, or makes no sense here."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(NamedTuple):
    """One line about one thing; ``advice``: what to do, empty if there is nothing to do."""

    state: State
    text: str
    advice: str = ""


def ok(text: str) -> Finding:
    """It works."""
    return Finding(State.OK, text)


def warning(text: str, advice: str) -> Finding:
    """It works, and somebody will regret it; or it may be meant so."""
    return Finding(State.WARNING, text, advice)


def failed(text: str, advice: str) -> Finding:
    """Something that was set up does not work."""
    return Finding(State.FAILED, text, advice)


def skipped(reason: str, advice: str = "") -> Finding:
    """Nothing was looked at."""
    return Finding(State.SKIPPED, reason, advice)


def _something_hangs(_: "Installation") -> str:
    return "Whatever is asked here hangs: a disk, a network, a lock. Its own log or status says more."


@dataclass
class Installation:
    """What is looked at, and what earlier checks found out for later ones.

    Attributes:
        mail_to: whom to send a test mail; empty: nobody.
        clock: our time, seconds since the epoch.
        database: open from the check of the database on, if it answered.
        schema_is_current: tables may be asked.
        blobs: open from the check of files on, if they could be stored.
        file_secret: what signs the addresses of files; empty if no server has made it yet.
        has_triggers: some team has one.
    """

    settings: Settings
    mail_to: str = ""
    clock: Callable[[], float] = time.time
    database: Database | None = None
    schema_is_current: bool = False
    blobs: BlobStore | None = None
    file_secret: bytes = b""
    has_triggers: bool = False
    _secrets: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self._secrets = frozenset(
            secret for secret in _secrets(self.settings) if len(secret) >= _SHORTEST_HIDDEN
        ) | frozenset(_parts_of_addresses(self.settings))

    @property
    def folder_owner(self) -> int | None:
        """The account to which the data folder belongs, if it is another than the one that runs this.

        What is written for it would belong to the wrong account, and the service could not use it.
        """
        folder = self.settings.data
        owner = folder.stat().st_uid if folder.is_dir() else os.geteuid()
        return owner if owner != os.geteuid() else None

    @property
    def is_sqlite(self) -> bool:
        return self.settings.effective_database_url.startswith("sqlite")

    def quote(self, error: BaseException | str) -> str:
        """What an error says, on one line, without any secret of the settings."""
        text = self.hide(str(error) or type(error).__name__)
        return one_line(_SQLALCHEMY.sub("", text))[:_MAX_QUOTED]

    def hide(self, text: str) -> str:
        """``text`` without any secret of the settings."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Let go of what was opened."""
        if self.blobs is not None:
            await self.blobs.close()
        if self.database is not None:
            await self.database.close()


class Check(NamedTuple):
    """``work`` finds out, within ``seconds``; ``late`` says what to do if it does not.

    ``name`` stays the same for programs that read the JSON.
    """

    name: str
    work: Callable[[Installation], Awaitable[Finding]]
    seconds: float = 10
    late: Callable[[Installation], str] = _something_hangs


def one_line(text: str) -> str:
    """``text`` without line breaks and other controls."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())


def account_name(number: int) -> str:
    """The name of an account of this machine; its number if it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _secrets(settings: Settings) -> list[str]:
    found = [settings.oidc_client_secret, *(os.environ.get(name, "") for name in _AWS)]
    for url in _addresses(settings):
        for password in _passwords(url):
            # Whoever does not encode what divides an address gets it divided there.
            found += [password, unquote(password), *_DIVIDERS.split(password)]
        try:
            found += [value for name, value in parse_qsl(urlsplit(url).query) if name in _PASSWORDS]
        except ValueError:
            found.append(url)  # not an address: better all of it
    return found


def _parts_of_addresses(settings: Settings) -> set[str]:
    """Passwords with what stands around them in an address, by which also short ones are recognised."""
    found = set()
    for url in _addresses(settings):
        for password in _passwords(url):
            found |= {f":{password}@", f"{_DIVIDERS.split(password)[-1]}@"}
    return found - {"@", ":@"}


def _addresses(settings: Settings) -> tuple[str, ...]:
    return (
        settings.database_url,
        settings.smtp_url,
        settings.public_url,
        settings.oidc_issuer,
        settings.blobs,
        settings.blobs.partition("endpoint=")[2],
    )


def _passwords(url: str) -> list[str]:
    """What stands between a name and the last @, also where it holds what should have been encoded."""
    found = _USER_AND_PASSWORD.search(url)
    return [found[1]] if found else []
