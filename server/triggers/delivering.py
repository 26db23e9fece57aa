"""Delivering: mails and signed webhooks, each tried until it succeeds or its time is over.

One task sends for one trigger, so that a receiver that hangs holds up nobody else; it sends several deliveries at
once, notes how they went in one transaction, and leaves behind a task for what is due later. A worker that is
killed in between has sent what nobody noted: it is sent again, under the same webhook-id. Mails are sent by tasks of
a kind of their own, so few at once that a mail server that hangs does not hold up webhooks.
"""

import asyncio
import functools
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from server.clock import now
from server.mail import Mailer, MailFailed
from server.reports.links import report_links
from server.settings import Settings
from server.timetable import Entry
from server.triggers import disabling, signing
from server.triggers.keys import QueryKeys
from server.triggers.mails import send_mail
from server.triggers.noting import Made, Outcome, note
from server.triggers.payload import message_id, webhook_body
from server.triggers.receivers import ForbiddenReceiver, Receivers
from server.worker import Handler
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.queries import deliveries as queries
from storage.queries import tasks, triggers
from storage.queries.deliveries import DeliveryRow
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
#: Deliveries that are fetched and noted together. Before each piece the trigger is looked at anew.
PIECE = 32
#: Triggers that one process mails for at once, one mail each: a mail server serves everybody, and a mail with its
#: report takes memory.
MAILS_AT_ONCE = 2
#: For one attempt, from the name to the last byte of the answer.
ATTEMPT_SECONDS = 15.0
#: After this a run makes room for another trigger.
RUN_SECONDS = 30.0
MAX_RETRY_AFTER = 86_400
KEPT_DAYS = 30
#: What is being prepared has a task. Where it has not: after the first of these if no file can be waited for any more,
#: else after the second, another one begins.
_ABANDONED_SECONDS, _LONG_ABANDONED_SECONDS = 600, 7200
#: For noting what has been sent, where the worker stops meanwhile; shorter than what it allows for that.
_NOTE_SECONDS = 3.0

_SECOND = 1_000_000
_HOUR = 3600
_DAY_US = 24 * _HOUR * _SECOND
_PURGED_AT_ONCE = 500
#: Their Retry-After says when to come back (RFC 6585, RFC 9110).
_BUSY = {429, 503}

Send = Callable[[DeliveryRow, int], Awaitable[Outcome]]


def handlers(
    database: Database, blobs: BlobStore, mailer: Mailer, settings: Settings
) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""
    engine = Engine(database, blobs, mailer, settings)
    return {
        queries.DELIVER: engine.deliver,
        queries.DELIVER_MAILS: engine.deliver_mails,
        disabling.TELL: disabling.teller(database, mailer),
    }


def entries(database: Database) -> list[Entry]:
    """What the clock does about deliveries."""
    return [
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
    """Have sent what is due, and prepared what is to be, where there is no task for it, which should not be; answers
    of how many triggers, and how many deliveries.
    """
    before = [at - seconds * _SECOND for seconds in (_ABANDONED_SECONDS, _LONG_ABANDONED_SECONDS)]
    unsent = await database.read(queries.neglected, at)
    unprepared = await database.read(queries.abandoned, *before, at)

    def enqueue(connection: Connection) -> None:
        for kind, found in ((queries.DELIVER, unsent), (queries.PREPARE, unprepared)):
            for team_id, subject in found:
                tasks.enqueue(connection, team_id, kind, subject, now=at)

    if unsent or unprepared:
        log.warning(
            "nobody was sending for %d triggers, or preparing %d deliveries", len(unsent), len(unprepared)
        )
        await database.settle(enqueue)
    return len(unsent) + len(unprepared)


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
        """Send the webhooks that are due of the trigger ``task.subject``, and enqueue a task for what will be."""
        async with AsyncExitStack() as stack:
            client: Client | None = None

            async def sending(trigger: TriggerRow) -> Send:
                nonlocal client
                if client is None:
                    client = await stack.enter_async_context(await self._client(task.team_id))
                return functools.partial(self._post, client, task.team_id, trigger)

            await self._deliver(task, is_mail=False, sending=sending, at_once=AT_ONCE)

    async def deliver_mails(self, task: Task) -> None:
        """The same with the mails of a trigger."""

        async def sending(trigger: TriggerRow) -> Send:
            return functools.partial(self._mail, task.team_id, trigger)

        await self._deliver(task, is_mail=True, sending=sending, at_once=1)

    async def _deliver(
        self, task: Task, *, is_mail: bool, sending: Callable[[TriggerRow], Awaitable[Send]], at_once: int
    ) -> None:
        until = asyncio.get_running_loop().time() + self._run_seconds
        while True:
            trigger, found = await self._database.read(_look, task.team_id, task.subject, now())
            if trigger is None:
                return
            if (trigger.trigger_type == "Email") is not is_mail:
                # Nobody else needs to know what a trigger is, which may change: tasks find their way from here.
                kind = queries.DELIVER if is_mail else queries.DELIVER_MAILS
                await self._database.settle(_pass_on, task.team_id, kind, task.subject, now())
                return
            made: list[Made] = []
            ended = False
            if found:
                send = await sending(trigger)
                try:
                    ended = await send_all(send, found, at_once, until, made)
                except asyncio.CancelledError:
                    # The worker stops, or the task is another's by now. What has been sent is not sent again.
                    job = self._begin(note, task.team_id, trigger, made, False, now())
                    await asyncio.wait([job], timeout=_NOTE_SECONDS)
                    raise
            # What is added after this look brings its own task.
            over = ended or len(found) < PIECE
            job = self._begin(note, task.team_id, trigger, made, over, now())
            try:
                await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait([job], timeout=_NOTE_SECONDS)
                raise
            if over:
                return

    def _begin(self, work: Callable[..., None], *arguments: Any) -> asyncio.Task[None]:
        """Do a transaction that goes on if this task is cancelled."""
        return asyncio.create_task(self._database.settle(work, *arguments))

    async def _client(self, team_id: int) -> "Client":
        # Not at the top: a process that sends nothing does not load the HTTP client.
        from server.triggers.webhooks import Client, trust

        if self._trusted is None:
            self._trusted = await asyncio.to_thread(trust)
        if self._keys is None:
            secret = await self._database.settle(shared_secret, "query keys", now())
            self._keys = QueryKeys(secret)
        resolve = functools.partial(self._receivers.resolve, team_id=team_id)
        return Client(resolve, self._trusted, AT_ONCE, self._attempt_seconds)

    async def _post(
        self, client: "Client", team_id: int, trigger: TriggerRow, delivery: DeliveryRow, at: int
    ) -> Outcome:
        """One attempt at a webhook."""
        from server.triggers.webhooks import NoAnswer

        assert self._keys is not None
        secrets = signing.live_secrets(trigger.secrets, at)
        if not secrets:
            return Outcome(False, error="The trigger has no secret to sign with.", counts=False)
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
            return Outcome(False, error=str(failure), hung=failure.hung, counts=failure.asked)
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
            return Outcome(False, error=str(failure), final=failure.permanent, counts=False)
        return Outcome(True, error=remark)


async def send_all(
    send: Send, found: Sequence[DeliveryRow], at_once: int, until: float, made: list[Made]
) -> bool:
    """Send deliveries, some at once; answers whether it had to stop: the time ``until`` of the event loop is over, or
    the receiver hangs or is gone. What was not begun then stays as it is.

    Args:
        made: the attempts are added to it in the order in which they end; if this is cancelled, it has those that did.
    """
    loop = asyncio.get_running_loop()
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
            made.append(Made(delivery, outcome, began, now()))
            if outcome.hung or outcome.gone or loop.time() > until:
                stopped = True
            elif outcome.delivered and senders < at_once:
                group.create_task(sender())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_FIRST, at_once)):
            group.create_task(sender())
    return stopped


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


def _pass_on(connection: Connection, team_id: int, kind: str, trigger_id: str, at: int) -> None:
    tasks.enqueue(connection, team_id, kind, trigger_id, now=at)


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
