"""One's own password: changed, forgotten, reset by somebody else."""

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Select, text

from server.accounts import background as accounts_background
from server.accounts import links
from server.accounts.background import LINKS_AT_ONCE, delete_expired, link_subject, mail_link
from server.auth import grants
from server.auth.grants import hash_secret
from server.auth.passwords import generate_password, weakness
from server.auth.signin_limits import ACCOUNT_FAILURES, SignInLimits
from server.clock import now
from server.mail import Mail, Mailer, MailFailed
from server.worker import GiveUp
from storage.database import Connection
from storage.queries.accounts import PASSWORD_LINK, insert_password_link, users_known_as
from storage.queries.users import by_email, by_username, end_sign_ins, set_user_details, user_by_id
from storage.queue import Task
from storage.tables import authorization_codes, metadata, password_links, tasks
from tests.support.accounts import (
    NEW_PASSWORD,
    PASSWORD,
    Page,
    WebBrowser,
    column_of,
    grant,
    mails_to,
    password_grant,
    person,
    text_of,
)
from tests.support.app import Account, RunningApp, Team, problem

_HOUR = accounts_background.LINK_SECONDS * 1_000_000
_LINK = re.compile(r"https://sync\.example\.com/account/new-password#([A-Za-z0-9_-]{43})\n")


@pytest.fixture(autouse=True)
def limits(app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with no failures behind it, and does not wait where only outsiders must."""
    app.authority.signin_limits = SignInLimits()
    app._part("accounts").link_limits = SignInLimits()
    monkeypatch.setattr(links, "ANSWER_SECONDS", 0.0)


def change(app: RunningApp, account: Account, new: str = NEW_PASSWORD, old: str = PASSWORD) -> httpx.Response:
    body = {"username": account.username, "password": old, "newPassword": new}
    return app.http.post("/account/password", json=body)


def ask(app: RunningApp, **body: str) -> httpx.Response:
    return app.http.post("/account/password-link", json=body)


def token_mailed(app: RunningApp, account: Account, number: int = 1) -> str:
    found = _LINK.search(text_of(mails_to(app, account.username, number)[-1]))
    assert found is not None
    return found[1]


def choose(app: RunningApp, token: str, new: str = NEW_PASSWORD, again: str | None = None) -> httpx.Response:
    form = {"token": token, "new": new, "again": new if again is None else again}
    return app.http.post("/account/new-password", data=form)


# Changing it


def test_a_changed_password_is_the_only_one_from_then_on(team: Team) -> None:
    account = person(team)
    before = password_grant(team.app, account).json()
    assert change(team.app, account).status_code == 200
    assert password_grant(team.app, account).json()["error"] == "invalid_grant"
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200
    refreshed = grant(team.app, grant_type="refresh_token", refresh_token=before["refresh_token"])
    assert refreshed.json()["error"] == "invalid_grant"


def ended(app: RunningApp, token: str) -> None:
    """The access token is refused for good."""
    refused = app.http.get("/group", headers={"Authorization": f"Bearer {token}"})
    assert "signed out" in problem(refused, 401, "token-invalid")["detail"]


def good(app: RunningApp, token: str) -> None:
    """The access token is taken."""
    assert app.http.get("/group", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("how", ["chosen", "reset and chosen", "chosen with a link", "locked and unlocked"])
def test_access_tokens_from_before_the_sign_ins_ended_never_work_again(team: Team, how: str) -> None:
    app, account, new = team.app, person(team), NEW_PASSWORD
    before = str(password_grant(app, account).json()["access_token"])
    good(app, before)
    if how == "chosen":
        change(app, account)
    elif how == "reset and chosen":
        given = team.post(f"/api/team/{account.subject_id}/resetpassword").json()["password"]
        assert change(app, account, old=given).status_code == 200
    elif how == "chosen with a link":
        ask(app, username=account.username)
        assert choose(app, token_mailed(app, account)).status_code == 200
    else:
        new = PASSWORD
        for what in ("lock", "unlock"):
            assert team.post(f"/api/team/{account.subject_id}/{what}").status_code == 200
    ended(app, before)
    after = password_grant(app, account, new).json()
    good(app, after["access_token"])
    refreshed = grant(app, grant_type="refresh_token", refresh_token=after["refresh_token"]).json()
    good(app, refreshed["access_token"])
    ended(app, before)


def test_a_token_that_was_decided_on_before_the_sign_ins_ended_ends_with_them(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, account = team.app, person(team)
    refresh_token = password_grant(app, account).json()["refresh_token"]
    issue = app.authority.issue_access_token

    def late(*arguments: Any) -> str:
        app.write(end_sign_ins, team.team_id, account.subject_id, now())
        app.authority.forget(account.subject_id)
        return issue(*arguments)

    monkeypatch.setattr(app.authority, "issue_access_token", late)
    for answer in (
        grant(app, grant_type="refresh_token", refresh_token=refresh_token),
        password_grant(app, account),
    ):
        ended(app, answer.json()["access_token"])


def test_nobody_signs_in_with_what_was_shown_before_the_sign_ins_ended(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, account = team.app, person(team)
    verify = grants.verify_password

    async def slow(*arguments: Any) -> bool:
        await app.database.write(end_sign_ins, team.team_id, account.subject_id, now())
        return await verify(*arguments)

    monkeypatch.setattr(grants, "verify_password", slow)
    assert password_grant(app, account).json()["error"] == "invalid_grant"
    problem(change(app, account), 409, "password-changed")


def test_an_unknown_account_and_a_wrong_password_get_the_same_answer(team: Team) -> None:
    account = person(team)
    known = change(team.app, account, old="not this one")
    unknown = team.app.http.post(
        "/account/password",
        json={"username": "nobody@example.com", "password": PASSWORD, "newPassword": NEW_PASSWORD},
    )
    problem(known, 403, "wrong-password")
    assert known.json() == unknown.json()


def test_a_locked_account_is_told_to_who_knows_the_password_and_to_nobody_else(team: Team) -> None:
    account = person(team, locked=True)
    problem(change(team.app, account), 403, "account-locked")
    problem(change(team.app, account, old="not this one"), 403, "wrong-password")


def test_changing_counts_as_signing_in_for_its_limits(team: Team) -> None:
    account = person(team)
    for _ in range(ACCOUNT_FAILURES):
        assert change(team.app, account, old="not this one").status_code == 403
    assert "retry-after" in change(team.app, account).headers
    problem(change(team.app, account), 429, "too-many-attempts")
    assert password_grant(team.app, account).status_code == 429


@pytest.mark.parametrize(
    ("new", "what"),
    [
        ("nine char", "at least 10"),
        ("é" * 513, "1024 bytes"),
        (PASSWORD, "the old one"),
        ("Password-1234", "guessed first"),
        ("aaaaaaaaaaaa", "guessed first"),
    ],
)
def test_a_weak_password_is_refused_with_the_reason(team: Team, new: str, what: str) -> None:
    account = person(team)
    refused = problem(change(team.app, account, new), 422, "weak-password", "newPassword")
    assert what in refused["detail"]
    assert password_grant(team.app, account).status_code == 200


def test_a_password_must_not_contain_the_username() -> None:
    for new in ("xx-Ada.Lovelace@example.com", "ada.lovelace is me"):
        assert "username" in (weakness(new, "ada.lovelace@example.com") or "")
    assert weakness("no such name here", "ada.lovelace@example.com") is None


@pytest.mark.parametrize("good", ["x" * 5 + "yz" * 3, "é" * 511 + "xy", "!@#$%^&*()_+", "пароль для поля"])
def test_any_characters_will_do_if_there_are_enough(good: str) -> None:
    assert weakness(good, "ada") is None
    assert weakness(generate_password(), "ada") is None


def test_a_body_that_is_none_is_refused(sqlite_app: RunningApp) -> None:
    problem(sqlite_app.http.post("/account/password", content=b"{"), 400, "malformed-json")
    problem(sqlite_app.http.post("/account/password", json={"username": "x"}), 422, "invalid-body")


# Reset by somebody else


def test_a_password_that_was_reset_is_good_for_choosing_another_only(team: Team) -> None:
    account = person(team, password_expired=True)
    refused = password_grant(team.app, account)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert refused.json()["code"] == "password-change-required"
    assert "POST /account/password" in refused.json()["error_description"]
    assert password_grant(team.app, account, "not this one").json()["code"] == "invalid-grant"
    assert change(team.app, account).status_code == 200
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200
    assert column_of(team.app, account, "password_expired") is False


def test_a_refresh_ends_with_a_reset(team: Team) -> None:
    account = person(team)
    token = password_grant(team.app, account).json()["refresh_token"]
    _set(team, account, password_expired=True)
    refused = grant(team.app, grant_type="refresh_token", refresh_token=token).json()
    assert refused["code"] == "password-change-required"


def _set(team: Team, account: Account, **columns: object) -> None:
    users = metadata.tables["users"]

    def work(connection: Connection) -> None:
        connection.execute(users.update().where(users.c.user_id == account.subject_id).values(**columns))

    team.app.write(work)


# Forgotten


def test_a_forgotten_password_is_replaced_with_a_mailed_link(team: Team) -> None:
    account = person(team, password_expired=True)
    before = team.app.write(_refresh_token, team, account)
    assert ask(team.app, username=account.username.upper()).status_code == 200
    token = token_mailed(team.app, account)
    assert choose(team.app, token).status_code == 200
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200
    refreshed = grant(team.app, grant_type="refresh_token", refresh_token=before)
    assert refreshed.json()["code"] == "invalid-grant"


def _refresh_token(connection: Connection, team: Team, account: Account) -> str:
    token = f"token of {account.subject_id}"
    connection.execute(
        metadata.tables["refresh_tokens"]
        .insert()
        .values(
            team_id=team.team_id,
            token_hash=hash_secret(token),
            family_id="family",
            user_id=account.subject_id,
            scopes="",
            expires_at=now() + 10**12,
        )
    )
    return token


def test_a_link_is_good_once(team: Team) -> None:
    account = person(team)
    ask(team.app, emailAddress=account.username.upper())
    first = token_mailed(team.app, account)
    ask(team.app, emailAddress=account.username)
    second = token_mailed(team.app, account, 2)
    assert choose(team.app, first).status_code == 200
    for token in (first, second, "", "x" * 43):
        refused = choose(team.app, token, "another good one")
        assert refused.status_code == 410
        assert "/account/forgotten" in Page(refused.text).links
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200


def test_of_two_who_use_a_link_at_once_one_chooses_the_password(team: Team) -> None:
    account, app = person(team), team.app
    app.write(insert_password_link, team.team_id, hash_secret("l"), account.subject_id, now() + 10**9)

    async def both() -> list[bool]:
        uses = (app.database.write(links._use_link, hash_secret("l"), f"hash {n}", now()) for n in range(4))
        return await asyncio.gather(*uses)

    assert sorted(app.call(both)) == [False, False, False, True]


def test_a_password_that_will_not_do_does_not_use_the_link_up(team: Team) -> None:
    account = person(team)
    ask(team.app, username=account.username)
    token = token_mailed(team.app, account)
    for new, again, what in (
        ("short", "short", "at least 10"),
        (PASSWORD, PASSWORD, "old one"),
        (NEW_PASSWORD, "other", "not the same"),
    ):
        refused = choose(team.app, token, new, again)
        assert refused.status_code == 422
        assert what in Page(refused.text).alert
        assert Page(refused.text).fields["token"] == token
    assert choose(team.app, token).status_code == 200


def test_a_link_ends_after_an_hour(team: Team) -> None:
    account = person(team)
    for token, expires_at in (("old", now() - 1), ("new", now() + 10**9)):
        team.app.write(insert_password_link, team.team_id, hash_secret(token), account.subject_id, expires_at)
    assert choose(team.app, "old").status_code == 410
    assert team.app.call(delete_expired, team.app.database, now()) >= 1
    assert choose(team.app, "new").status_code == 200


def test_a_locked_account_gets_no_mail_and_its_links_do_nothing(team: Team) -> None:
    account = person(team)
    ask(team.app, username=account.username)
    token = token_mailed(team.app, account)
    _set(team, account, locked=True)
    assert choose(team.app, token).status_code == 403
    ask(team.app, username=account.username)
    mail_sent_to_the_next(team)
    mails_to(team.app, account.username, 1)


def mail_sent_to_the_next(team: Team) -> None:
    """Return once a mail that was asked for now has been written: what came before it is done, too."""
    other = person(team)
    ask(team.app, username=other.username)
    mails_to(team.app, other.username, 1)


def test_the_answer_is_the_same_for_unknown_accounts_and_takes_as_long(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(links, "sleep", sleep)
    account = person(team)
    bodies = [{"username": account.username}, {"username": "nobody"}, {"emailAddress": "no@example.com"}]
    answers = [ask(team.app, **body) for body in bodies]
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert [seconds for seconds in waited if seconds == links.ANSWER_SECONDS] == [0.0] * 3
    problem(ask(team.app), 422, "invalid-body", "username")
    problem(ask(team.app, username=" "), 422, "invalid-body")


def test_a_stranger_who_asks_costs_the_writer_nothing(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    app, account, written = team.app, person(team), list[object]()
    write = app.database.write

    async def noted(work: Callable[..., Any], *arguments: Any) -> Any:
        written.append(work)
        return await write(work, *arguments)

    monkeypatch.setattr(app.database, "write", noted)
    for body in ({"username": "nobody"}, {"emailAddress": "no@example.com"}):
        assert ask(app, **body).status_code == 200
    locked = person(team, locked=True)
    assert ask(app, username=locked.username).status_code == 200
    assert not [work for work in written if work is links._enqueue]
    assert ask(app, emailAddress=account.username).status_code == 200
    assert links._enqueue in written


def test_people_are_found_by_the_address_they_have_now_however_it_is_spelled(team: Team) -> None:
    account = team.user("EXECUTOR")
    old, new = f"J\u00d3SE.{account.subject_id}@example.com", f"Ann.{account.subject_id}@example.com"
    path = f"/api/team/user/{account.subject_id}"

    def found(text: str) -> list[str]:
        return [user.user_id for user in team.app.read(users_known_as, text)]

    row = team.app.read(user_by_id, team.team_id, account.subject_id)
    assert row is not None
    team.app.write(set_user_details, dataclasses.replace(row, email_address=old))
    assert found(f" jo\u0301se.{account.subject_id}@EXAMPLE.com") == [account.subject_id]
    assert found(account.username) == [account.subject_id]
    assert team.put(path, json={"emailAddress": new}).status_code == 200
    assert (found(new.upper()), found(old)) == ([account.subject_id], [])
    body = {"username": f"b-{account.subject_id}", "emailAddress": new.lower(), "name": "b"}
    other = team.post("/api/team/user", json=body).json()["userId"]
    assert found(new) == [account.subject_id, other]
    assert found(" ") == []


@pytest.mark.parametrize("teams_named", [None, ("alpha",), ("alpha", "beta", "gamma")])
def test_people_are_looked_up_in_indexes(sqlite_app: RunningApp, teams_named: tuple[str, ...] | None) -> None:
    def plan(connection: Connection, query: Select[Any]) -> str:
        filled = query.compile(connection, compile_kwargs={"literal_binds": True})
        return "\n".join(str(row) for row in connection.execute(text(f"EXPLAIN QUERY PLAN {filled}")))

    for index, query in (
        ("ix_users_email", by_email("a@b.example", 5, teams_named)),
        ("ix_users_username", by_username("a@b.example")),
    ):
        shown = sqlite_app.read(plan, query)
        assert f"SEARCH users USING INDEX {index}" in shown, shown
        assert "SCAN users" not in shown, shown


def test_asking_is_limited_for_an_account_whether_or_not_it_exists(team: Team) -> None:
    account = person(team)
    for name in (account.username, "nobody"):
        for _ in range(ACCOUNT_FAILURES):
            assert ask(team.app, username=name).status_code == 200
        problem(ask(team.app, username=name), 429, "too-many-attempts")
    # Who asked for links may sign in all the same.
    assert password_grant(team.app, account).status_code == 200


def test_an_account_gets_a_few_mails_an_hour_at_most(team: Team) -> None:
    account = person(team)
    for number in range(LINKS_AT_ONCE):
        ask(team.app, username=account.username)
        mails_to(team.app, account.username, number + 1)
    ask(team.app, username=account.username)
    mail_sent_to_the_next(team)
    mails_to(team.app, account.username, LINKS_AT_ONCE)


def test_neither_the_database_nor_the_logs_have_the_secret_of_a_link(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    account = person(team)
    ask(team.app, username=account.username)
    token = token_mailed(team.app, account)
    choose(team.app, token)

    def everything(connection: Connection) -> str:
        return "".join(
            repr(row) for table in metadata.sorted_tables for row in connection.execute(table.select())
        )

    assert token not in team.app.read(everything)
    assert token not in caplog.text
    assert NEW_PASSWORD not in caplog.text


class _Post(Mailer):
    """A mail server that refuses everything."""

    def __init__(self, permanent: bool) -> None:
        self.permanent = permanent
        self.message_ids: list[str] = []

    async def send(self, mail: Mail, message_id: str) -> None:
        self.message_ids.append(message_id)
        raise MailFailed("refused", self.permanent)


def _task(team: Team, account: Account, attempts: int, created_at: int) -> Task:
    subject = link_subject(account.subject_id, created_at)
    return Task(team.team_id, "t1", "account.password-link", subject, None, attempts, created_at)


def test_a_mail_that_is_refused_for_good_is_not_tried_again(team: Team) -> None:
    account, app = person(team), team.app
    arguments = (app.database, _Post(True), app.settings)
    with pytest.raises(GiveUp):
        app.call(mail_link, *arguments, _task(team, account, 1, now()))


def test_every_attempt_to_mail_is_another_mail_until_nobody_waits_for_it(team: Team) -> None:
    account, app, post = person(team), team.app, _Post(False)
    for attempts in range(1, LINKS_AT_ONCE + 3):
        with pytest.raises(MailFailed):
            app.call(mail_link, app.database, post, app.settings, _task(team, account, attempts, now()))
    assert len(set(post.message_ids)) == LINKS_AT_ONCE + 2
    late = now() - 2 * _HOUR - 1
    with pytest.raises(GiveUp):
        app.call(mail_link, app.database, post, app.settings, _task(team, account, 2, late))


def test_who_asks_while_an_older_mail_waits_for_another_attempt_gets_one(team: Team) -> None:
    account, app = person(team), team.app
    asked = now() - _HOUR

    row = app.read(user_by_id, team.team_id, account.subject_id)
    assert row is not None

    def waits(connection: Connection) -> None:
        links._enqueue(connection, [row], asked)
        waiting = (tasks.c.team_id == team.team_id) & (tasks.c.kind == PASSWORD_LINK)
        connection.execute(tasks.update().where(waiting).values(state="retry", run_at=now() + _HOUR))

    app.write(waits)
    assert ask(app, username=account.username).status_code == 200
    token_mailed(app, account)


def test_whoever_asked_last_in_an_hour_is_waited_for_an_hour(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, app, post = person(team), team.app, _Post(False)
    begin = now() // _HOUR * _HOUR
    task = _task(team, account, 2, begin)
    # Whoever asks now joins the one who asked first.
    assert link_subject(account.subject_id, begin + _HOUR - 1) == task.subject
    monkeypatch.setattr(accounts_background, "now", lambda: begin + 2 * _HOUR)
    with pytest.raises(MailFailed):
        app.call(mail_link, app.database, post, app.settings, task)
    monkeypatch.setattr(accounts_background, "now", lambda: begin + 2 * _HOUR + 1)
    with pytest.raises(GiveUp):
        app.call(mail_link, app.database, post, app.settings, task)


def test_expired_links_and_codes_are_deleted_and_used_codes_are_kept_a_day(team: Team) -> None:
    account = person(team)

    def add(connection: Connection) -> None:
        for code, age in (("a", 2), ("b", 25)):
            connection.execute(
                authorization_codes.insert().values(
                    team_id=team.team_id,
                    code_hash=hash_secret(f"{code}{account.subject_id}"),
                    user_id=account.subject_id,
                    scopes="",
                    client_id="x",
                    redirect_uri="x",
                    code_challenge="x",
                    expires_at=now() - age * 3_600_000_000,
                )
            )

    team.app.write(add)
    insert = (insert_password_link, team.team_id, hash_secret(f"l{account.subject_id}"), account.subject_id)
    team.app.write(*insert, now() - 1)
    assert team.app.call(delete_expired, team.app.database, now()) >= 2

    def left(connection: Connection) -> tuple[int, int]:
        codes = authorization_codes.select().where(authorization_codes.c.team_id == team.team_id)
        of_team = password_links.select().where(password_links.c.team_id == team.team_id)
        return len(connection.execute(codes).all()), len(connection.execute(of_team).all())

    assert team.app.read(left) == (1, 0)


# On pages


@pytest.fixture
def browser(app: RunningApp) -> Iterator[WebBrowser]:
    return WebBrowser(app)


def test_a_password_is_changed_on_a_page(team: Team, browser: WebBrowser) -> None:
    account = person(team)
    filled = {"username": account.username, "password": PASSWORD, "new": NEW_PASSWORD, "again": NEW_PASSWORD}
    shown = browser.get("/account/change")
    for wrong, status in (
        ({"again": "other"}, 422),
        ({"new": "short", "again": "short"}, 422),
        ({"password": "x"}, 403),
    ):
        refused = browser.send(shown, **(filled | wrong))
        assert refused.status_code == status
        assert Page(refused.text).alert.strip()
        assert Page(refused.text).fields["username"] == account.username
        assert PASSWORD not in refused.text
    assert browser.send(shown, **filled).status_code == 200
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200


def test_a_forgotten_password_is_asked_for_on_a_page(team: Team, browser: WebBrowser) -> None:
    account = person(team)
    shown = browser.get("/account/forgotten")
    sent = browser.send(shown, account=account.username)
    unknown = browser.send(shown, account="nobody@example.com")
    assert (sent.status_code, sent.text) == (200, unknown.text)
    token = token_mailed(team.app, account)
    # Without scripts the code of the mail is copied.
    done = browser.send(
        browser.get("/account/new-password"), token=f" {token} ", new=NEW_PASSWORD, again=NEW_PASSWORD
    )
    assert done.status_code == 200
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200
    assert browser.send(shown, account=" ").status_code == 422
