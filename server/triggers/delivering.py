"""Delivering: mails and signed webhooks, each tried until it succeeds or its time is over.

One task sends for one trigger, so that a receiver that hangs holds up nobody else; it sends several deliveries at
once, notes how they went in one transaction, and leaves behind a task for what is due later. A worker that is
killed in between has sent what nobody noted: it is sent again, under the same webhook-id.
"""

import asyncio
import functools
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

from server.clock import now
from server.mail import Mailer, MailFailed
from server.reports.links import report_links
from server.settings import Settings
from server.timetable import Entry
from server.triggers import disabling, signing
from server.triggers.keys import QueryKeys
from server.triggers.mails import send_mail
from server.triggers.payload import message_id, webhook_body
from server.triggers.receivers import ForbiddenReceiver, Receivers
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import deliveries as queries
from storage.queries import tasks, triggers
from storage.queries.deliveries import Attempted, DeliveryRow
from storage.queries.secrets import shared_secret
from storage.queries.triggers import TriggerRow
from storage.queue import Task

if TYPE_CHECKING:
    from server.triggers.webhooks import Client

log = logging.getLogger("fieldsync.triggers")

#: Triggers that one process sends for at once. Each may wait for its receiver most of the time.
CONCURRENCY = 256
#: Deliveries of one trigger that are sent at once: few at first, one more after each success. A receiver that hangs
#: holds few connections, and those of all that may hang fit under the usual limit of 1,024 open files.
AT_FIRST, AT_ONCE = 2, 16
#: Deliveries that are fetched and noted together.
PIECE = 64
#: A mail server serves everybody.
MAILS_AT_ONCE = 2
#: For one attempt, from the name to the last byte of the answer.
ATTEMPT_SECONDS = 15.0
#: After this a run makes room for another trigger.
RUN_SECONDS = 30.0
#: After the first, second, … failed attempt; after the one that follows the last of them, it has failed.
GAPS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
JITTER = 0.2
MAX_RETRY_AFTER = 86_400
KEPT_DAYS = 30

_SECOND = 1_000_000
_HOUR = 3600
_DAY_US = 24 * _HOUR * _SECOND
_PURGED_AT_ONCE = 500
_MAX_ERROR = 500
#: Their Retry-After says when to come back (RFC 6585, RFC 9110).
_BUSY = {429, 503}
_GONE = 410


class Outcome(NamedTuple):
    """How one attempt went.

    Attributes:
        wait_seconds: how long the receiver wants to be left alone.
        final: no further attempt can succeed.
        hung: it took all the time there is.
        counts: it says something about the receiver, and not about our own mail server.
    """

    delivered: bool
    status: int | None = None
    error: str | None = None
    answer: bytes | None = None
    wait_seconds: float = 0
    final: bool = False
    hung: bool = False
    counts: bool = True


Send = Callable[[DeliveryRow, int], Awaitable[Outcome]]


def handlers(
    database: Database, blobs: BlobStore, mailer: Mailer, settings: Settings
) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    return {
        queries.DELIVER: Engine(database, blobs, mailer, settings).deliver,
        disabling.TELL: disabling.teller(database, mailer),
    }


def entries(database: Database) -> list[Entry]:
    """What the clock does about deliveries."""
    return [
        Entry("triggers that only fail", _HOUR, lambda: disabling.disable_failing(database, now())),
        Entry("old deliveries", _HOUR, lambda: purge(database, now() - KEPT_DAYS * _DAY_US)),
        Entry("deliveries nobody sends", 600, lambda: resume_neglected(database, now())),
    ]


async def purge(database: Database, before: int) -> int:
    """Forget deliveries made before a time, and their attempts; answers how many."""
    purged = 0
    while found := await database.settle(queries.purge, before, _PURGED_AT_ONCE):
        purged += found
    return purged


async def resume_neglected(database: Database, at: int) -> int:
    """Have sent what is due and has no task, which should not be; answers of how many triggers."""
    found = await database.read(queries.neglected, at)

    def enqueue(connection: Connection) -> None:
        for team_id, trigger_id in found:
            tasks.enqueue(connection, team_id, queries.DELIVER, trigger_id, now=at)

    if found:
        log.warning("nobody was sending for %d triggers", len(found))
        await database.settle(enqueue)
    return len(found)


class Engine:
    """Sends what triggers have to deliver.

    Args:
        attempt_seconds: how long an attempt may take.
        run_seconds: how long one task sends before it makes room.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        mailer: Mailer,
        settings: Settings,
        *,
        attempt_seconds: float = ATTEMPT_SECONDS,
        run_seconds: float = RUN_SECONDS,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._mailer = mailer
        self._settings = settings
        self._attempt_seconds = attempt_seconds
        self._run_seconds = run_seconds
        self._receivers = Receivers(settings.webhook_networks, settings.webhook_ports)
        self._agent = f"Fieldsync/{version('fieldsync')}"
        self._trusted: ssl.SSLContext | None = None
        self._keys: QueryKeys | None = None

    async def deliver(self, task: Task) -> None:
        """Send what is due of the trigger ``task.subject``, and enqueue a task for what will be."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._run_seconds
        async with AsyncExitStack() as stack:
            client: Client | None = None
            while True:
                trigger, found = await self._database.read(_look, task.team_id, task.subject, now())
                if trigger is None:
                    return
                if trigger.trigger_type == "Http" and found and client is None:
                    client = await stack.enter_async_context(await self._client())
                if client is not None:
                    send = functools.partial(self._post, client, task.team_id, trigger)
                    made, ended = await send_all(send, found, AT_ONCE, until)
                else:
                    mail = functools.partial(self._mail, task.team_id, trigger)
                    made, ended = await send_all(mail, found, MAILS_AT_ONCE, until)
                # What is added after this look brings its own task.
                over = ended or len(found) < PIECE
                await self._database.settle(_note, task.team_id, trigger, made, over, now())
                if over:
                    return

    async def _client(self) -> "Client":
        # Not at the top: a process that sends nothing does not load the HTTP client.
        from server.triggers.webhooks import Client, trust

        if self._trusted is None:
            self._trusted = await asyncio.to_thread(trust)
        if self._keys is None:
            secret = await self._database.settle(shared_secret, "query keys", now())
            self._keys = QueryKeys(secret)
        return Client(self._receivers, self._trusted, AT_ONCE, self._attempt_seconds)

    async def _post(
        self, client: "Client", team_id: int, trigger: TriggerRow, delivery: DeliveryRow, at: int
    ) -> Outcome:
        """One attempt at a webhook."""
        from server.triggers.webhooks import NoAnswer

        assert self._keys is not None
        secrets = signing.live_secrets(trigger.secrets, at)
        if not secrets:
            return Outcome(False, error="The trigger has no secret to sign with.")
        options = trigger.settings
        body = webhook_body(delivery, self._keys.make(team_id, at), await self._links(team_id, delivery))
        headers = {
            **{name.lower(): value for name, value in (options.get("headers") or {}).items()},
            "content-type": "application/json",
            "user-agent": self._agent,
            **signing.signed(secrets, message_id(delivery.delivery_id), at // _SECOND, body),
        }
        try:
            answer = await client.post(self._receivers.target(options.get("url") or ""), headers, body)
        except ForbiddenReceiver as refusal:
            return Outcome(False, error=str(refusal))
        except NoAnswer as failure:
            return Outcome(False, error=str(failure), hung=failure.hung)
        status = answer.status
        if answer.lost is not None:
            return Outcome(False, status, answer.lost, answer.body, hung=answer.hung)
        if 200 <= status < 300:
            return Outcome(True, status, None, answer.body)
        wait = retry_after(answer.retry_after, at) if status in _BUSY else 0
        return Outcome(False, status, f"It answered {status}.", answer.body, wait_seconds=wait)

    async def _links(self, team_id: int, delivery: DeliveryRow) -> list[dict[str, object]]:
        """Links to the delivery's report, good for an hour from now."""
        if delivery.report_id is None:
            return []
        return await report_links(self._database, self._blobs, team_id, [delivery.report_id])

    async def _mail(self, team_id: int, trigger: TriggerRow, delivery: DeliveryRow, at: int) -> Outcome:
        """One attempt at a mail."""
        try:
            remark = await send_mail(
                self._database, self._blobs, self._mailer, self._settings, team_id, trigger, delivery
            )
        except MailFailed as failure:
            return Outcome(False, error=str(failure), final=failure.permanent, counts=failure.permanent)
        return Outcome(True, error=remark)


async def send_all(
    send: Send, found: Sequence[DeliveryRow], at_once: int, until: float
) -> tuple[list[tuple[DeliveryRow, Outcome, int, int]], bool]:
    """Send deliveries, some at once; (delivery, how it went, when it began, when it ended) in the order in which they
    ended, and whether it had to stop: the time ``until`` of the event loop is over, or the receiver hangs or is gone.
    What was not begun then stays as it is.
    """
    loop = asyncio.get_running_loop()
    made: list[tuple[DeliveryRow, Outcome, int, int]] = []
    waiting = iter(found)
    stopped = False

    senders = 0

    async def sender() -> None:
        nonlocal stopped, senders
        senders += 1
        while not stopped and (delivery := next(waiting, None)) is not None:
            began = now()
            try:
                outcome = await send(delivery, began)
            except Exception:
                # It must not hold up the others.
                log.exception("delivery %s cannot be sent", delivery.delivery_id)
                outcome = Outcome(
                    False, error="An error of this server, which its log tells of.", counts=False
                )
            made.append((delivery, outcome, began, now()))
            if outcome.hung or outcome.status == _GONE or loop.time() > until:
                stopped = True
            elif outcome.delivered and senders < at_once:
                group.create_task(sender())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_FIRST, at_once)):
            group.create_task(sender())
    return made, stopped


def _look(
    connection: Connection, team_id: int, trigger_id: str, at: int
) -> tuple[TriggerRow | None, list[DeliveryRow]]:
    """The trigger, None if nothing is ever sent for it, and what is due of it; of a disabled one, only what somebody
    asked for.
    """
    trigger = triggers.one(connection, team_id, trigger_id)
    if trigger is None or trigger.archived:
        return None, []
    return trigger, queries.due(connection, team_id, trigger_id, at, PIECE, by_hand=trigger.disabled)


def _note(
    connection: Connection,
    team_id: int,
    trigger: TriggerRow,
    made: Sequence[tuple[DeliveryRow, Outcome, int, int]],
    over: bool,
    at: int,
) -> None:
    """Write down how a piece went, and if it is the last one, have the next delivery sent when it is due."""
    gone = any(outcome.status == _GONE for _, outcome, _, _ in made)
    # In the order in which changes of triggers lock: team, trigger, deliveries.
    if gone and not trigger.disabled:
        disabling.disable(connection, team_id, trigger.trigger_id, disabling.GONE, at)
    since = trigger.failing_since
    for _, outcome, _, ended in made:
        if outcome.delivered:
            since = None
        elif since is None and outcome.counts:
            since = ended
    if since != trigger.failing_since:
        triggers.change(connection, team_id, trigger.trigger_id, failing_since=since)
    queries.record(connection, team_id, [attempted(*each) for each in made])
    if over:
        by_hand = trigger.disabled or gone
        queries.enqueue_next(connection, team_id, trigger.trigger_id, at, by_hand)


def attempted(delivery: DeliveryRow, outcome: Outcome, began: int, ended: int) -> Attempted:
    """What becomes of a delivery."""
    state, next_at = queries.DELIVERED, None
    if not outcome.delivered:
        gap = None if outcome.final else gap_after(delivery.attempts + 1)
        state = queries.FAILED if gap is None else queries.DUE
        next_at = None if gap is None else ended + int(max(gap, outcome.wait_seconds) * _SECOND)
    error = outcome.error[:_MAX_ERROR].replace("\0", "") if outcome.error is not None else None
    return Attempted(
        delivery.delivery_id, began, ended - began, outcome.status, error, outcome.answer, state, next_at
    )


def gap_after(failures: int) -> float | None:
    """Seconds until the next attempt after so many that failed; None if there is no other."""
    if failures > len(GAPS):
        return None
    return GAPS[failures - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # spreads load, guards nothing


def retry_after(value: str | None, at: int) -> float:
    """Seconds that a header ``Retry-After`` asks for, seconds or a date; 0 if it is neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:10]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    seconds = (aware - datetime.fromtimestamp(at / _SECOND, UTC)).total_seconds()
    return min(max(seconds, 0), MAX_RETRY_AFTER)
