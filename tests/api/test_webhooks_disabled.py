"""Triggers that disable themselves, who is told of it, and what is sent for a disabled one; mails of triggers."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, select, update

from server.clock import now
from server.mail import Mail, MailFailed
from server.triggers import delivering, disabling
from server.worker import GiveUp
from storage.database import sqlite_url
from storage.queries import deliveries as queries
from storage.queries.triggers import COMPLETED, change, note_wants
from storage.queries.users import set_user_locked
from storage.queue import Task
from storage.tables import deliveries, teams
from tests.support import receiver as faulty
from tests.support.app import Account, RunningApp, Team, running_app
from tests.support.postgres import Postgres
from tests.support.receiver import Receiver, answering
from tests.support.webhooks import Sending, make_due, put_deliveries

DAY = 24 * 3600 * 1_000_000


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def app(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """The application without its own worker and clock, which would do the tests' work."""
    folder = tmp_path_factory.mktemp("disabled")
    url = postgres.new_database() if request.param == "postgresql" else sqlite_url(folder / "fieldsync.db")
    with running_app(folder, url, worker="none") as app:
        yield app


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


def check(team: Team) -> None:
    """What the clock does each hour."""
    team.app.call(disabling.disable_failing, team.app.database, now())


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


def test_five_days_of_nothing_but_failures_disable_it(team: Team, receiver: Receiver) -> None:
    maker = team.user("TRIGGER_ADMIN")
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver, created_by=maker.subject_id)
    before = now()
    sending.run()
    since = sending.trigger.failing_since
    assert since is not None
    assert before <= since <= now()
    sending.again()
    assert sending.trigger.failing_since == since
    check(team)
    assert not sending.trigger.disabled
    sending.write(change, sending.trigger_id, failing_since=now() - 5 * DAY - 1)
    check(team)
    trigger = sending.trigger
    assert trigger.disabled
    assert (trigger.disabled_reason or "").startswith("Every attempt has failed since 20")
    assert told(sending) == {maker.subject_id}


def test_a_success_begins_the_days_anew(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(500), answering(500), faulty.ok]
    sending = Sending(team, receiver, 2)
    sending.run()
    sending.write(change, sending.trigger_id, failing_since=now() - 6 * DAY)
    sending.again()
    assert sending.states == {"delivered": 2}
    assert sending.trigger.failing_since is None
    check(team)
    assert not sending.trigger.disabled


def test_a_trigger_that_is_disabled_or_archived_is_left_as_it_is(team: Team, receiver: Receiver) -> None:
    old = now() - 6 * DAY
    for state in ({"disabled": True}, {"archived": True}):
        sending = Sending(team, receiver, failing_since=old, **state)
        check(team)
        assert sending.trigger.disabled_reason is None
        assert told(sending) == set()


# What is sent for one that does not fire


@pytest.mark.parametrize(("state", "sent"), [({"disabled": True}, 1), ({"archived": True}, 0)])
def test_a_disabled_trigger_sends_what_somebody_asked_for_and_nothing_else(
    team: Team, receiver: Receiver, state: dict[str, bool], sent: int
) -> None:
    sending = Sending(team, receiver, 3, **state)
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == sending.ids[1])
            .values(event_id=f"{queries.BY_HAND}{sending.ids[1]}")
        )
    )
    sending.take_tasks()
    sending.run()
    assert receiver.counts == ({f"msg_{sending.ids[1]}": 1} if sent else {})
    assert sending.waiting() == []


def test_a_try_by_hand_that_fails_is_tried_again_although_the_trigger_is_disabled(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [answering(500), faulty.ok]
    sending = Sending(team, receiver, disabled=True)
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == sending.ids[0])
            .values(event_id=f"{queries.BY_HAND}{sending.ids[0]}")
        )
    )
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
    assert sending.trigger.failing_since is not None
    sending = mailing(team, receiver, "")
    sent(sending, Post())
    assert (sending.states, sending.last().error) == ({"failed": 1}, "the trigger has no recipients")
