"""The state of those whose tokens are in use, as the database had it at most two seconds ago.

Locks and permissions are taken from here, never from the token, so that taking them away works while the
token still lives.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from server.auth.principal import Kind
from storage.database import Connection, Database
from storage.queries.clients import clients_by_ids
from storage.queries.users import users_by_ids

#: After this long a state is read again. Every refusal that follows from a change comes within 5 seconds.
RECHECK_SECONDS = 2.0
#: Subjects per query: well below the parameters a statement may have, and short for a connection to hold.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Account:
    """What the database says about a subject.

    Attributes:
        password_expired: a user whose password was reset, and who has not chosen another yet.
        sign_ins: how often all sign-ins of a user have ended. It never falls.
    """

    team_id: int
    team_name: str
    username: str
    permissions: frozenset[str]
    active: bool
    group_ids: frozenset[str] = frozenset()
    password_expired: bool = False
    sign_ins: int = 0


class Subject:
    """A user or client with a token in use.

    Attributes:
        account: None if there is no such user or client any more.
        fresh_until: when to read it again, by the monotonic clock.
        reading: the read under way, if any.
    """

    __slots__ = ("__weakref__", "account", "fresh_until", "kind", "reading", "subject_id")

    def __init__(self, kind: Kind, subject_id: str) -> None:
        self.kind = kind
        self.subject_id = subject_id
        self.account: Account | None = None
        self.fresh_until = float("-inf")
        self.reading: asyncio.Future[None] | None = None


class Subjects:
    """All subjects of this process; the ones no token refers to are forgotten."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._known: WeakValueDictionary[tuple[Kind, str], Subject] = WeakValueDictionary()
        self._queue: list[Subject] = []
        self._reader: asyncio.Task[None] | None = None

    def get(self, kind: Kind, subject_id: str) -> Subject:
        """The one object for this subject, to be made current with :meth:`refresh`."""
        subject = self._known.get((kind, subject_id))
        if subject is None:
            subject = self._known[kind, subject_id] = Subject(kind, subject_id)
        return subject

    def forget(self, subject_id: str) -> None:
        """Read the subject again before its next request. A read that is under way may be too old."""
        kinds: tuple[Kind, ...] = ("user", "client")
        for kind in kinds:
            subject = self._known.get((kind, subject_id))
            if subject is not None:
                subject.fresh_until = float("-inf")
                subject.reading = None

    async def refresh(self, subject: Subject) -> None:
        """Wait until the subject's state is at most :data:`RECHECK_SECONDS` old.

        Raises:
            storage.database.Unavailable: it cannot be read; a state that is too old is not used.
        """
        while subject.fresh_until <= self._monotonic():
            reading = subject.reading
            if reading is None:
                reading = subject.reading = asyncio.get_running_loop().create_future()
                self._queue.append(subject)
                if self._reader is None:
                    self._reader = asyncio.create_task(self._read_queue())
            # Shielded: others wait for the same read and must not lose it to a client that hung up.
            await asyncio.shield(reading)

    async def _read_queue(self) -> None:
        """Read what is queued. While a query runs others queue up and share the next one, so that many
        subjects at once cost few queries.
        """
        try:
            while self._queue:
                batch = self._queue[:_BATCH]
                del self._queue[:_BATCH]
                await self._read_batch(batch)
        finally:
            self._reader = None

    async def _read_batch(self, batch: list[Subject]) -> None:
        readings = [subject.reading for subject in batch]
        # From before the query: what is changed while it runs may not be in its answer.
        fresh_until = self._monotonic() + RECHECK_SECONDS
        failure: Exception | None = None
        accounts: dict[tuple[Kind, str], Account] = {}
        try:
            accounts = await self._database.read(
                _accounts,
                _padded([subject.subject_id for subject in batch if subject.kind == "user"]),
                _padded([subject.subject_id for subject in batch if subject.kind == "client"]),
            )
        except Exception as error:
            failure = error
        for subject, reading in zip(batch, readings, strict=True):
            if subject.reading is reading:
                subject.reading = None
                if failure is None:
                    account = accounts.get((subject.kind, subject.subject_id))
                    # The same object while nothing changed: principals made from it stay valid.
                    if account != subject.account:
                        subject.account = account
                    subject.fresh_until = fresh_until
            if reading is None or reading.done():
                continue
            if failure is None:
                reading.set_result(None)
            else:
                reading.set_exception(failure)
                reading.exception()  # Seen, even if everyone who waited has hung up.


def _accounts(
    connection: Connection, user_ids: Sequence[str], client_ids: Sequence[str]
) -> dict[tuple[Kind, str], Account]:
    result: dict[tuple[Kind, str], Account] = {}
    if user_ids:
        for user in users_by_ids(connection, user_ids):
            result["user", user.user_id] = Account(
                user.team_id,
                user.team_name,
                user.username,
                user.held,
                not user.locked,
                user.group_ids,
                user.password_expired,
                user.sign_ins,
            )
    if client_ids:
        for client in clients_by_ids(connection, client_ids):
            result["client", client.client_id] = Account(
                client.team_id,
                client.team_name,
                client.display_name,
                frozenset(permission.upper() for permission in client.permissions),
                not client.revoked,
            )
    return result


def _padded(ids: list[str]) -> list[str]:
    """``ids`` filled up to a power of two, so that few different statements are prepared."""
    if not ids:
        return ids
    size = 1 << (len(ids) - 1).bit_length()
    return ids + ids[-1:] * (size - len(ids))
