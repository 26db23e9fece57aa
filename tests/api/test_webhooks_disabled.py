"""Triggers that disable themselves, who is told of it, and what is sent for a disabled one; mails of triggers."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select, update

from server.clock import now
from server.mail import Mail, MailFailed
from server.triggers import delivering, disabling
from server.worker import GiveUp, Worker
from storage.queries import deliveries as queries
from storage.queries.triggers import COMPLETED, change, note_wants, resume
from storage.queries.users import set_user_locked
from storage.queue import Task, TaskQueue
from storage.tables import deliveries, teams
from tests.support import receiver as faulty
from tests.support.app import Account, Team
from tests.support.idle import idle_app
from tests.support.receiver import Behaviour, Receiver, Wire, answering
from tests.support.webhooks import Sending, make_due, put_deliveries

DAY = 24 * 3600 * 1_000_000

app = idle_app


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


class Post:
    """Takes mails as a mailer does, or fails as told."""

    def __init__(self, failure: MailFailed | None = None) -> None:
        self.mails: list[tuple[Mail, str]] = []
        self.failure = failure

    async def send(self, mail: Mail, message_id: str) -> list[int]:
        if self.failure is not None:
            raise self.failure
        self.mails.append((mail, message_id))
        return []


def told(sending: Sending) -> set[str]:
    """Ids of the users who are to be told."""
    subjects = [subject for subject, _ in sending.waiting(disabling.TELL)]
    assert all(subject.startswith(f"{sending.trigger_id}:") for subject in subjects)
    return {subject.split(":")[1] for subject in subjects}


def tell(sending: Sending, post: Any, user: Account) -> None:
    """Do one of the tasks that tell."""
    task = Task(
        sending.team.team_id, "t", disabling.TELL, f"{sending.trigger_id}:{user.subject_id}", None, 1, now()
    )
    sending.app.call(disabling.teller(sending.app.database, post), task)


def by_hand(sending: Sending, number: int) -> None:
    """Let somebody have asked for a delivery."""
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == sending.ids[number])
            .values(event_id=f"{queries.BY_HAND}{sending.ids[number]}")
        )
    )


def wanted(team: Team) -> int:
    def read(connection: Connection) -> int:
        query = select(teams.c.wanted_events).where(teams.c.team_id == team.team_id)
        return int(connection.execute(query).scalar_one())

    return team.app.read(read)


# By its receiver


def test_410_disables_the_trigger_at_once_and_its_maker_is_told(team: Team, receiver: Receiver) -> None:
    maker, _ = team.user("TRIGGER_ADMIN"), team.user("OWNER")
    receiver.behaviours = [answering(410)]
    sending = Sending(team, receiver, 40, created_by=maker.subject_id)
    sending.write(note_wants)
    assert wanted(team) == COMPLETED
    sending.take_tasks()
    sending.run()
    trigger = sending.trigger
    assert trigger.disabled
    assert trigger.disabled_reason == "The receiver answered 410 Gone: it wants no more webhooks."
    assert wanted(team) == 0
    assert len(receiver.requests) <= delivering.AT_ONCE
    assert sending.waiting() == []
    assert told(sending) == {maker.subject_id}
    post = Post()
    tell(sending, post, maker)
    ((mail, message_id),) = post.mails
    assert (mail.to, mail.subject) == (maker.username, "Trigger disabled: Tell the office")
    assert team.name in mail.text
    assert "410 Gone" in mail.text
    assert message_id.startswith("trigger-disabled-")
    # Nothing is lost: what it had to deliver is sent once somebody enables it.
    assert sending.states == {"due": 40}
    sending.run()
    assert sending.states == {"due": 40}
    sending.write(change, sending.trigger_id, disabled=False)
    receiver.behaviours = [faulty.ok]
    sending.again()
    assert sending.states == {"delivered": 40}


def test_what_a_client_made_is_told_to_the_teams_owners(team: Team, receiver: Receiver) -> None:
    owners = [team.user("OWNER"), team.user("OWNER", "USER_ADMIN")]
    gone = team.user("OWNER")
    team.app.write(set_user_locked, team.team_id, gone.subject_id, True)
    team.user("TRIGGER_ADMIN")
    receiver.behaviours = [answering(410)]
    sending = Sending(team, receiver, created_by=team.owner.subject_id)
    sending.run()
    assert told(sending) == {owner.subject_id for owner in owners}


def test_nobody_is_told_of_a_trigger_that_works_again(team: Team, receiver: Receiver) -> None:
    maker = team.user("TRIGGER_ADMIN")
    receiver.behaviours = [answering(410)]
    sending = Sending(team, receiver, created_by=maker.subject_id)
    sending.run()
    post = Post()
    with pytest.raises(GiveUp):
        tell(sending, Post(MailFailed("refused", permanent=True)), maker)
    with pytest.raises(MailFailed):
        tell(sending, Post(MailFailed("not now")), maker)
    sending.write(change, sending.trigger_id, disabled=False, disabled_reason=None)
    tell(sending, post, maker)
    assert post.mails == []


def test_names_of_triggers_make_no_lines_or_links_in_mails(team: Team, receiver: Receiver) -> None:
    maker = team.user("TRIGGER_ADMIN")
    receiver.behaviours = [answering(410)]
    name = "Good\r\nBcc: x@example.com\n\nhttps://evil.example"
    sending = Sending(team, receiver, created_by=maker.subject_id, name=name)
    sending.run()
    post = Post()
    tell(sending, post, maker)
    ((mail, _),) = post.mails
    assert "https://evil" not in mail.text
    assert not [line for line in mail.text.splitlines() if line.startswith("Bcc")]


# By days of failures


def age(sending: Sending, since_days: float, last_days: float) -> None:
    """Let the trigger's failures have begun and ended so many days ago."""
    since, last = (now() - int(days * DAY) for days in (since_days, last_days))
    sending.write(change, sending.trigger_id, failing_since=since, failed_at=last)


def test_five_days_of_failed_attempts_disable_it_by_the_attempt_that_fails_then(
    team: Team, receiver: Receiver
) -> None:
    maker = team.user("TRIGGER_ADMIN")
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver, 3, created_by=maker.subject_id)
    sending.write(note_wants)
    before = now()
    sending.run()
    since = sending.trigger.failing_since
    assert since is not None
    assert before <= since <= now()
    sending.again()
    assert sending.trigger.failing_since == since
    age(sending, 4.9, 1.2)
    sending.again()
    assert not sending.trigger.disabled
    age(sending, 5, 1.2)
    sending.take_tasks()
    sending.again()
    trigger = sending.trigger
    assert trigger.disabled
    assert (trigger.disabled_reason or "").startswith("Every attempt has failed since 20")
    assert wanted(team) == 0
    assert told(sending) == {maker.subject_id}
    assert sending.states == {"due": 3}
    assert sending.waiting() == []


def test_quiet_days_are_not_days_of_failures(team: Team, receiver: Receiver) -> None:
    # A job fails for 3.2 days, and nothing else happens until the next one, days later.
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver)
    age(sending, 7, 2.1)
    before = now()
    sending.run()
    trigger = sending.trigger
    assert not trigger.disabled
    assert trigger.failing_since is not None
    assert trigger.failing_since >= before


def test_a_success_begins_the_days_anew(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(500), answering(500), faulty.ok]
    sending = Sending(team, receiver, 2)
    sending.run()
    age(sending, 4.9, 1)
    sending.again()
    assert sending.states == {"delivered": 2}
    assert (sending.trigger.failing_since, sending.trigger.failed_at) == (None, None)


def test_a_failing_try_by_hand_leaves_a_disabled_trigger_as_it_is(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver, disabled=True)
    by_hand(sending, 0)
    age(sending, 6, 1)
    sending.run()
    assert len(receiver.requests) == 1
    assert sending.trigger.disabled_reason is None
    assert told(sending) == set()


# What people do while an attempt is under way


def meanwhile(status: int, act: Callable[[], object]) -> Behaviour:
    """Answer the first request so after ``act``, and take all further ones."""
    done: list[bool] = []

    async def behave(wire: Wire) -> None:
        if not done:
            done.append(True)
            act()
            await wire.answer(status)
        else:
            await wire.answer(200)

    return behave


def moved(sending: Sending, url: str) -> None:
    """A person gives the trigger another url: what waits is due now."""

    def write(connection: Connection, team_id: int) -> None:
        change(
            *(connection, team_id, sending.trigger_id),
            options=msgspec.json.encode({"url": url}),
            updated_at=now(),
        )
        resume(connection, team_id, sending.trigger_id, now())

    sending.write(write)


def test_410_of_the_address_before_does_not_disable_a_trigger_that_has_another(
    team: Team, receiver: Receiver
) -> None:
    sending = Sending(team, receiver)
    receiver.behaviours = [meanwhile(410, lambda: moved(sending, f"{receiver.url}/new"))]
    sending.take_tasks()
    sending.run()
    assert not sending.trigger.disabled
    assert [attempt.status for attempt in sending.delivery()[1]] == [410]
    ((_, due),) = sending.waiting()
    assert due <= now()
    sending.run()
    assert sending.states == {"delivered": 1}
    assert receiver.requests[-1].path == "/hook/new"


@pytest.mark.parametrize("attempts", [0, 5, 9])
def test_what_fails_at_the_address_before_is_sent_to_the_new_one_at_once(
    team: Team, receiver: Receiver, attempts: int
) -> None:
    sending = Sending(team, receiver)
    attempts_are(sending, attempts)
    receiver.behaviours = [meanwhile(500, lambda: moved(sending, f"{receiver.url}/new"))]
    sending.run()
    row, _ = sending.delivery()
    assert row.state == "due"
    assert (row.next_at or now() + DAY) <= now()
    assert sending.trigger.failing_since is None


@pytest.mark.parametrize("attempts", [0, 9])
def test_a_replay_during_an_attempt_that_fails_is_not_lost(
    team: Team, receiver: Receiver, attempts: int
) -> None:
    sending = Sending(team, receiver)
    attempts_are(sending, attempts)

    def replay() -> None:
        assert sending.write(queries.replay, sending.trigger_id, sending.ids[0], now())

    receiver.behaviours = [meanwhile(500, replay)]
    sending.take_tasks()
    sending.run()
    row, log = sending.delivery()
    assert (row.state, row.attempts, row.finished_at) == ("due", 0, None)
    assert (row.next_at or now() + DAY) <= now()
    assert [attempt.status for attempt in log] == [500]
    assert len(sending.waiting()) == 1
    sending.run()
    assert sending.states == {"delivered": 1}


def test_a_success_is_noted_whatever_happened_meanwhile(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver)

    def act() -> None:
        sending.write(queries.replay, sending.trigger_id, sending.ids[0], now())
        moved(sending, f"{receiver.url}/new")

    receiver.behaviours = [meanwhile(200, act)]
    sending.run()
    assert sending.states == {"delivered": 1}


def attempts_are(sending: Sending, attempts: int) -> None:
    """Let the first delivery have failed so often."""
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries).where(deliveries.c.delivery_id == sending.ids[0]).values(attempts=attempts)
        )
    )


# What is sent for one that does not fire


@pytest.mark.parametrize(("state", "sent"), [({"disabled": True}, 1), ({"archived": True}, 0)])
def test_a_disabled_trigger_sends_what_somebody_asked_for_and_nothing_else(
    team: Team, receiver: Receiver, state: dict[str, bool], sent: int
) -> None:
    sending = Sending(team, receiver, 3, **state)
    by_hand(sending, 1)
    sending.take_tasks()
    sending.run()
    assert receiver.counts == ({f"msg_{sending.ids[1]}": 1} if sent else {})
    assert sending.waiting() == []


def test_a_try_by_hand_that_fails_is_tried_again_although_the_trigger_is_disabled(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [answering(500), faulty.ok]
    sending = Sending(team, receiver, disabled=True)
    by_hand(sending, 0)
    sending.take_tasks()
    sending.run()
    assert len(sending.waiting()) == 1
    sending.again()
    assert sending.states == {"delivered": 1}


# Mails


def mailing(team: Team, receiver: Receiver, recipients: str = "office@example.com") -> Sending:
    """A trigger that mails."""
    options = msgspec.json.encode({"recipients": recipients})
    return Sending(team, receiver, 1, trigger_type="Email", options=options, secrets=None)


def sent(sending: Sending, post: Any) -> None:
    engine = sending.engine()
    engine._mailer = post
    sending.run(engine)


def test_a_mail_is_delivered_by_the_same_rules(team: Team, receiver: Receiver) -> None:
    sending = mailing(team, receiver)
    post = Post(MailFailed("the mail server cannot be reached"))
    sent(sending, post)
    assert sending.states == {"due": 1}
    assert sending.last().error == "the mail server cannot be reached"
    # That is our mail server's failure: no trigger ends for it.
    assert sending.trigger.failing_since is None
    post.failure = None
    sending.write(put_deliveries, sending.trigger_id, 1)
    sending.write(make_due, sending.trigger_id)
    sent(sending, post)
    assert sending.states == {"delivered": 2}
    assert sorted(message_id for _, message_id in post.mails)[0] == f"trigger-{sending.ids[0]}"


def test_a_mail_that_nobody_can_ever_get_has_failed_at_once(team: Team, receiver: Receiver) -> None:
    sending = mailing(team, receiver)
    sent(sending, Post(MailFailed("the mail server refused the recipient: 550", permanent=True)))
    assert sending.states == {"failed": 1}
    assert sending.trigger.failing_since is None
    sending = mailing(team, receiver, "")
    sent(sending, Post())
    assert (sending.states, sending.last().error) == ({"failed": 1}, "the trigger has no recipients")


def becomes(sending: Sending, trigger_type: str) -> None:
    """A person makes it a trigger of another type."""
    options = (
        {"url": sending.receiver.url} if trigger_type == "Http" else {"recipients": "office@example.com"}
    )
    sending.write(
        change,
        sending.trigger_id,
        trigger_type=trigger_type,
        options=msgspec.json.encode(options),
        updated_at=now(),
    )


def test_a_trigger_that_becomes_one_that_mails_posts_no_more(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, delivering.PIECE + 8)
    receiver.behaviours = [meanwhile(200, lambda: becomes(sending, "Email"))]
    engine = sending.engine()
    sending.take_tasks()
    team.app.call(engine.deliver, sending.task())
    assert len(receiver.requests) == delivering.PIECE
    assert sending.states == {"delivered": delivering.PIECE, "due": 8}
    assert [subject for subject, _ in sending.waiting(queries.DELIVER_MAILS)] == [sending.trigger_id]


def test_a_trigger_that_becomes_one_that_posts_is_left_to_those_who_post(
    team: Team, receiver: Receiver
) -> None:
    sending = mailing(team, receiver)
    engine, post = sending.engine(), Post()
    engine._mailer = post  # type: ignore[assignment]
    sending.take_tasks()
    becomes(sending, "Http")
    team.app.call(engine.deliver_mails, sending.task(queries.DELIVER_MAILS))
    assert (post.mails, sending.states) == ([], {"due": 1})
    assert [subject for subject, _ in sending.waiting()] == [sending.trigger_id]


def test_a_mail_server_that_hangs_holds_up_no_webhooks(team: Team, receiver: Receiver) -> None:
    mails = [mailing(team, receiver) for _ in range(5)]
    webhooks = Sending(team, receiver, 3)
    engine = webhooks.engine()
    hanging: list[str] = []

    class Hangs:
        async def send(self, mail: Mail, message_id: str) -> list[int]:
            hanging.append(message_id)
            await asyncio.sleep(3600)
            return []

    engine._mailer = Hangs()  # type: ignore[assignment]

    async def work() -> None:
        handlers = {queries.DELIVER: engine.deliver, queries.DELIVER_MAILS: engine.deliver_mails}
        # Fewer than there are triggers that mail.
        concurrency = {queries.DELIVER: 3, queries.DELIVER_MAILS: delivering.MAILS_AT_ONCE}
        worker = Worker(
            TaskQueue(team.app.database), handlers, concurrency=concurrency, poll_seconds=0.05, stop_seconds=0
        )
        job = asyncio.create_task(worker.run())
        async with asyncio.timeout(30):
            while not receiver.has(3) or len(hanging) < 2:  # noqa: ASYNC110  # another thread counts
                await asyncio.sleep(0.02)
        await worker.stop()
        await job

    team.app.call(work)
    assert webhooks.states == {"delivered": 3}
    assert len(hanging) == delivering.MAILS_AT_ONCE
    assert [each.states for each in mails] == [{"due": 1}] * 5
