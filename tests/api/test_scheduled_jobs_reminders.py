"""Reminders of scheduled jobs: who is mailed, when, and that nobody is twice."""

import email
import email.policy
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, text

from server.clock import now
from server.mail import Mail, Mailer, MailFailed
from server.scheduled_jobs.background import enqueue_reminders, handlers
from server.worker import GiveUp, Handler
from storage.queries import scheduled_jobs as queries
from storage.queries.team_settings import set_settings
from storage.queries.users import set_user_locked
from storage.queue import Task
from storage.tables import scheduled_jobs, tasks
from sync.values import format_time
from tests.api.test_scheduled_jobs import SCHEDULE, scheduled
from tests.support.app import Account, Document, RunningApp, Team
from tests.support.idle import idle_app

HOUR = 3600 * 1_000_000
AHEAD = 24 * HOUR

app = idle_app


class Post:
    """Takes mails as a mailer does, or fails for the addresses it is told to."""

    def __init__(self) -> None:
        self.mails: list[tuple[Mail, str]] = []
        self.failing: dict[str, MailFailed] = {}

    async def send(self, mail: Mail, message_id: str) -> None:
        if mail.to in self.failing:
            raise self.failing[mail.to]
        self.mails.append((mail, message_id))

    @property
    def to(self) -> list[str]:
        return sorted(mail.to for mail, _ in self.mails)


@pytest.fixture(autouse=True)
def _nothing_else_is_due(app: RunningApp) -> None:
    app.write(lambda connection: connection.execute(delete(scheduled_jobs)))


def due(team: Team, microseconds: int, *people: Account, **members: Any) -> Document:
    """A scheduled job that is due in so long."""
    at = format_time(now() + microseconds)
    return scheduled(team, *(one.subject_id for one in people), dueByDate=at, **members)


def remind(team: Team, ahead: int = AHEAD) -> int:
    """What the clock does; answers how many were enqueued."""
    count: int = team.app.call(enqueue_reminders, team.app.database, now(), ahead)
    return count


def waiting(app: RunningApp, team: Team, kind: str) -> list[str]:
    """The subjects of the team's tasks of a kind, whatever has become of them."""

    def read(connection: Connection) -> list[str]:
        query = select(tasks.c.subject).where(tasks.c.team_id == team.team_id, tasks.c.kind == kind)
        return sorted(connection.execute(query).scalars())

    return app.read(read)


def run(team: Team, mailer: Any, kind: str, subject: str) -> None:
    """Do one task with a mailer of ours, as the worker does it with its own."""
    of: Mapping[str, Handler] = handlers(team.app.database, mailer)
    task = Task(team.team_id, "t", kind, subject, None, 1, now())
    team.app.call(of[kind], task)


def mail_all(team: Team, job: Document, level: int, post: Post) -> None:
    """Both steps of a reminder."""
    subject = f"{job['jobId']}:{level}"
    run(team, post, queries.REMIND, subject)
    for of_user in waiting(team.app, team, queries.REMIND_USER):
        if of_user.startswith(subject):
            run(team, post, queries.REMIND_USER, of_user)


# What the clock finds


def test_what_is_due_soon_is_reminded_of_once_and_once_more_when_it_is_overdue(team: Team) -> None:
    job = due(team, AHEAD - HOUR, team.executor())
    due(team, AHEAD + HOUR, team.executor())
    scheduled(team)
    assert (remind(team), remind(team)) == (1, 0)
    assert waiting(team.app, team, queries.REMIND) == [f"{job['jobId']}:1"]
    later = now() + AHEAD

    async def overdue() -> int:
        return await enqueue_reminders(team.app.database, later, 0)

    assert [team.app.call(overdue), team.app.call(overdue)] == [1, 0]
    assert waiting(team.app, team, queries.REMIND) == [f"{job['jobId']}:1", f"{job['jobId']}:2"]


def test_what_is_overdue_from_the_start_is_reminded_of_once(team: Team) -> None:
    job = due(team, -HOUR, team.executor())
    assert (remind(team), remind(team)) == (1, 0)
    assert waiting(team.app, team, queries.REMIND) == [f"{job['jobId']}:2"]


def test_what_is_completed_or_deleted_is_not_reminded_of(team: Team) -> None:
    done, deleted = due(team, HOUR, tasks=[]), due(team, -HOUR)
    team.put(f"{SCHEDULE}/{done['jobId']}/status", json={"state": "Completed"})
    team.delete(f"{SCHEDULE}/{deleted['jobId']}")
    assert remind(team) == 0


def test_more_than_one_batch_is_found_in_one_go(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.scheduled_jobs.background._AT_ONCE", 2)
    jobs = [due(team, HOUR) for _ in range(5)]
    assert remind(team) == 5
    assert waiting(team.app, team, queries.REMIND) == sorted(f"{job['jobId']}:1" for job in jobs)


def test_looking_for_what_is_due_goes_through_the_index(team: Team) -> None:
    def plan(connection: Connection) -> str:
        query = queries.due_query(1, 2, 200)
        filled = query.compile(connection, compile_kwargs={"literal_binds": True})
        if team.app.database.is_sqlite:
            return "\n".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {filled}")))
        # The tables of tests are so small that reading all of one is cheaper.
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return "\n".join(str(row) for row in connection.execute(text(f"EXPLAIN {filled}")))

    assert "ix_scheduled_jobs_due" in team.app.read(plan)


# Who is mailed


def test_each_of_the_people_gets_one_mail(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job, post = due(team, HOUR, ann, bob), Post()
    remind(team)
    mail_all(team, job, 1, post)
    assert post.to == sorted([ann.username, bob.username])
    names = {message_id for _, message_id in post.mails}
    assert len(names) == 2
    again = Post()
    mail_all(team, job, 1, again)
    assert {message_id for _, message_id in again.mails} == names


def test_nobody_is_mailed_about_what_is_assigned_to_nobody(team: Team) -> None:
    job, post = due(team, HOUR), Post()
    assert remind(team) == 1
    mail_all(team, job, 1, post)
    assert waiting(team.app, team, queries.REMIND_USER) == post.mails == []


@pytest.mark.parametrize("what", ["locked", "deleted", "taken off", "completed", "overdue"])
def test_who_need_not_know_any_more_is_not_mailed(team: Team, what: str) -> None:
    ann = team.executor()
    job, post = due(team, HOUR, ann, tasks=[]), Post()
    path = f"{SCHEDULE}/{job['jobId']}"
    remind(team)
    run(team, post, queries.REMIND, f"{job['jobId']}:1")
    if what == "locked":
        team.app.write(set_user_locked, team.team_id, ann.subject_id, True)
    elif what == "deleted":
        team.delete(path)
    elif what == "taken off":
        team.put(f"{path}/assignedUsers", json={"assignedUserIds": []})
    elif what == "completed":
        team.put(f"{path}/status", json={"state": "Completed"})
    else:
        # The later reminder has been enqueued; it says more.
        team.app.write(queries.enqueue_reminders, now() + 2 * HOUR, 0, 200)
    run(team, post, queries.REMIND_USER, f"{job['jobId']}:1:{ann.subject_id}")
    assert post.mails == []


def test_a_mail_that_fails_is_tried_again_without_mailing_the_others(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job, post = due(team, -HOUR, ann, bob), Post()
    remind(team)
    post.failing[ann.username] = MailFailed("later")
    subject = f"{job['jobId']}:2"
    run(team, post, queries.REMIND, subject)
    run(team, post, queries.REMIND_USER, f"{subject}:{bob.subject_id}")
    with pytest.raises(MailFailed):
        run(team, post, queries.REMIND_USER, f"{subject}:{ann.subject_id}")
    post.failing[ann.username] = MailFailed("no such address", permanent=True)
    with pytest.raises(GiveUp):
        run(team, post, queries.REMIND_USER, f"{subject}:{ann.subject_id}")
    post.failing.clear()
    run(team, post, queries.REMIND_USER, f"{subject}:{ann.subject_id}")
    assert [mail.to for mail, _ in post.mails] == [bob.username, ann.username]


# What the mail says


def test_the_mail_says_what_is_due_when_in_the_teams_zone_and_how_much_is_open(team: Team) -> None:
    ann = team.executor()
    team.app.write(set_settings, team.team_id, {"DefaultTimezone": "America/Winnipeg"})
    job = scheduled(
        team,
        ann.subject_id,
        name="Inspect turbine 7",
        description="Bring the torque wrench.",
        tasks=[{"taskType": "Workflow"}] * 3,
        dueByDate="2021-10-05T22:59:00Z",
        priority=True,
    )
    said = {"clientJobId": "c", "state": "Completed"}
    team.put(f"{SCHEDULE}/{job['jobId']}/tasks/{job['tasks'][0]['taskId']}/status", json=said)
    post = Post()
    remind(team)
    mail_all(team, job, 2, post)
    ((mail, _),) = post.mails
    assert (mail.to, mail.subject) == (ann.username, "Overdue: Inspect turbine 7")
    assert "Inspect turbine 7 is overdue by " in mail.text
    assert "Due: 2021-10-05 17:59 (America/Winnipeg)" in mail.text
    assert "Tasks: 2 of 3 open" in mail.text
    assert "Priority: yes" in mail.text
    assert "Bring the torque wrench." in mail.text


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (26 * HOUR + HOUR // 2, "due in 1 day 2 hours"),
        (2 * HOUR + HOUR // 2, "due in 2 hours 29 minutes"),
        (-HOUR - HOUR // 120, "overdue by 1 hour"),
        (-50 * HOUR - HOUR // 2, "overdue by 2 days 2 hours"),
    ],
)
def test_the_mail_says_how_much_time_is_left(team: Team, left: int, said: str) -> None:
    job, post = due(team, left, team.executor()), Post()
    remind(team, 100 * HOUR)
    mail_all(team, job, 1 if left > 0 else 2, post)
    assert f" is {said}." in post.mails[0][0].text


def test_the_mail_leaves_through_the_servers_own_mailer(team: Team) -> None:
    ann = team.executor()
    job = due(team, -HOUR, ann)
    remind(team)
    mailer = Mailer(team.app.settings)
    run(team, mailer, queries.REMIND_USER, f"{job['jobId']}:2:{ann.subject_id}")
    files = (team.app.settings.data / "mail").glob("*.eml")
    messages = [email.message_from_bytes(file.read_bytes(), policy=email.policy.default) for file in files]
    (message,) = [message for message in messages if ann.username in str(message["To"])]
    assert message["Subject"] == "Overdue: API Scheduler Example Job 1"
    assert job["jobId"] in str(message["Message-ID"])


@pytest.mark.parametrize(
    ("zone", "printed"),
    [
        ("Pacific/Kiritimati", "9999-12-31 23:59 (UTC)"),
        ("No/Such", "9999-12-31 23:59 (UTC)"),
        ("America/Winnipeg", "9999-12-31 17:59 (America/Winnipeg)"),
    ],
)
def test_a_time_that_the_zone_cannot_say_is_utc(sqlite_team: Team, zone: str, printed: str) -> None:
    ann = sqlite_team.executor()
    sqlite_team.app.write(set_settings, sqlite_team.team_id, {"DefaultTimezone": zone})
    job = scheduled(sqlite_team, ann.subject_id, dueByDate="9999-12-31T23:59:59Z")
    post = Post()
    run(sqlite_team, post, queries.REMIND_USER, f"{job['jobId']}:1:{ann.subject_id}")
    assert f"Due: {printed}" in post.mails[0][0].text
