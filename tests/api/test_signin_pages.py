"""The sign-in page: an app asks, a person signs in, the app gets its tokens (RFC 6749, RFC 7636, RFC 8252)."""

import asyncio
import re
from typing import Any

import pytest

from server.accounts.sealing import Seal
from server.auth.grants import Granted, GrantRefused, Grants
from server.auth.signin_limits import ACCOUNT_FAILURES, SignInLimits
from server.clock import now
from storage.database import Connection
from storage.tables import authorization_codes, users
from tests.support.accounts import (
    APP,
    NEW_PASSWORD,
    PASSWORD,
    App,
    Page,
    WebBrowser,
    column_of,
    grant,
    password_grant,
    person,
)
from tests.support.app import Account, RunningApp, Team


@pytest.fixture(autouse=True)
def limits(app: RunningApp) -> None:
    """Every test begins with no failures behind it."""
    app.authority.signin_limits = SignInLimits()


@pytest.fixture
def browser(app: RunningApp) -> WebBrowser:
    return WebBrowser(app)


def signed_in(
    browser: WebBrowser, tablet: App, account: Account, password: str = PASSWORD, **changes: str | None
) -> dict[str, str]:
    shown = browser.get(tablet.address(**changes))
    assert shown.status_code == 200, shown.text
    return tablet.answer(browser.send(shown, username=account.username, password=password))


def change_row(team: Team, account: Account, **columns: Any) -> None:
    def work(connection: Connection) -> None:
        connection.execute(users.update().where(users.c.user_id == account.subject_id).values(**columns))

    team.app.write(work)


def test_an_app_gets_its_tokens_for_the_code_of_the_page(team: Team, browser: WebBrowser) -> None:
    account, tablet = person(team), App(team.app)
    answer = signed_in(browser, tablet, account, scope="job.read workflow.read")
    tokens = tablet.exchange(answer["code"])
    assert tokens.status_code == 200, tokens.text
    assert set(tokens.json()) == {"access_token", "refresh_token", "expires_in", "token_type"}
    principal = team.app.call(team.app.authority.verify, tokens.json()["access_token"])
    assert principal.subject_id == account.subject_id
    assert principal.scopes == {"job.read", "workflow.read"}
    again = grant(team.app, grant_type="refresh_token", refresh_token=tokens.json()["refresh_token"])
    assert again.status_code == 200


def test_the_discovery_document_leads_to_the_page(sqlite_app: RunningApp) -> None:
    document = sqlite_app.http.get("/.well-known/openid-configuration").json()
    assert document["authorization_endpoint"] == "https://sync.example.com/connect/authorize"
    assert document["response_types_supported"] == ["code"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert "authorization_code" in document["grant_types_supported"]
    assert document["authorization_response_iss_parameter_supported"] is True


# Codes


def test_a_code_that_comes_twice_ends_what_the_first_began(team: Team, browser: WebBrowser) -> None:
    account, tablet = person(team), App(team.app)
    code = signed_in(browser, tablet, account)["code"]
    tokens = tablet.exchange(code).json()
    assert tablet.exchange(code).json()["error"] == "invalid_grant"
    refused = grant(team.app, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused.json()["error"] == "invalid_grant"


def test_of_two_exchanges_at_once_one_at_most_gets_anything(team: Team, browser: WebBrowser) -> None:
    account, tablet, app = person(team), App(team.app), team.app
    code = signed_in(browser, tablet, account)["code"]
    grants = Grants(app.database, app.authority, app.authority.signin_limits, 1)

    async def both() -> list[Granted | BaseException]:
        exchange = (code, "Tablet 7", tablet.redirect_uri, tablet.verifier)
        return await asyncio.gather(
            *(grants.authorization_code(*exchange) for _ in range(4)), return_exceptions=True
        )

    results = app.call(both)
    (granted,) = [result for result in results if isinstance(result, Granted)]
    assert [type(result) for result in results if result is not granted] == [GrantRefused] * 3
    # The other three came with a code that was used: what the first began is over.
    assert granted.refresh_token is not None
    refused = grant(app, grant_type="refresh_token", refresh_token=granted.refresh_token)
    assert refused.json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "x"},
        {"client_id": "Tablet 8"},
        {"redirect_uri": f"{APP}/"},
        {"code_verifier": "v" * 43},
        {"code_verifier": "short"},
        {"code_verifier": "ü" * 43},
    ],
)
def test_a_code_is_good_for_who_asked_for_it_only(
    team: Team, browser: WebBrowser, changes: dict[str, str]
) -> None:
    account, tablet = person(team), App(team.app)
    code = signed_in(browser, tablet, account)["code"]
    assert tablet.exchange(**({"code": code} | changes)).status_code == 400
    # Who does not have the verifier does not spoil it either.
    assert tablet.exchange(code).status_code == 200


@pytest.mark.parametrize("missing", ["code", "client_id", "redirect_uri", "code_verifier"])
def test_a_form_without_one_of_its_members_is_refused(sqlite_app: RunningApp, missing: str) -> None:
    form = {"code": "c", "client_id": "x", "redirect_uri": "x", "code_verifier": "v" * 43}
    del form[missing]
    refused = grant(sqlite_app, grant_type="authorization_code", **form)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [("locked", True, "account-locked"), ("password_expired", True, "password-change-required")],
)
def test_a_code_gives_nothing_once_the_account_is_locked_or_reset(
    team: Team, browser: WebBrowser, column: str, value: bool, code: str
) -> None:
    account, tablet = person(team), App(team.app)
    answer = signed_in(browser, tablet, account)
    change_row(team, account, **{column: value})
    assert tablet.exchange(answer["code"]).json()["code"] == code


def test_a_code_is_good_for_a_minute(team: Team, browser: WebBrowser) -> None:
    account, tablet = person(team), App(team.app)
    answer = signed_in(browser, tablet, account)

    def age(connection: Connection) -> list[int]:
        mine = authorization_codes.c.user_id == account.subject_id
        ends = list(
            connection.execute(authorization_codes.select().with_only_columns(authorization_codes.c.expires_at).where(mine)).scalars()
        )  # fmt: skip
        connection.execute(authorization_codes.update().where(mine).values(expires_at=now() - 1))
        return ends

    (end,) = team.app.write(age)
    assert end - now() <= 60_000_000
    assert tablet.exchange(answer["code"]).json()["error"] == "invalid_grant"


def test_another_password_ends_codes_that_wait(team: Team, browser: WebBrowser) -> None:
    account, tablet = person(team), App(team.app)
    answer = signed_in(browser, tablet, account)
    body = {"username": account.username, "password": PASSWORD, "newPassword": NEW_PASSWORD}
    assert team.app.http.post("/account/password", json=body).status_code == 200
    assert tablet.exchange(answer["code"]).json()["error"] == "invalid_grant"


# Where to


@pytest.mark.parametrize(
    "address",
    [
        "https://sync.example.com/app?x=1",
        "http://127.0.0.1:65000/",
        "http://[::1]:4000/x",
        "http://127.0.0.1/x",
    ],
)
def test_apps_of_this_server_and_of_the_persons_own_machine_may_ask(
    team: Team, browser: WebBrowser, address: str
) -> None:
    assert signed_in(browser, App(team.app, address), person(team))["code"]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "https://evil.example/",
        "https://sync.example.com.evil.example/",
        "https://sync.example.com@evil.example/",
        "https://sync.example.com:443@evil.example/",
        "https://sync.example.com",
        "http://sync.example.com/",
        "//sync.example.com/",
        "https://sync.example.com\\@evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1:80@evil.example/",
        "http://127.0.0.1:999999999/",
        "http://localhost:80/",
        "https://127.0.0.1/",
        "http://127.0.0.1/#fragment",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/ x",
        "http://[::2]/",
        "javascript:alert(1)//",
        "com.example.app:/signed-in",
        "https://sync.example.com/" + "x" * 400,
    ],
)
def test_every_other_address_gets_a_page_and_never_a_redirect(sqlite_app: RunningApp, address: str) -> None:
    refused = WebBrowser(sqlite_app).get(App(sqlite_app).address(redirect_uri=address))
    assert refused.status_code == 400
    assert "location" not in refused.headers
    assert Page(refused.text).alert
    assert Page(refused.text).links == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "x"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "job.read everything"}, "invalid_scope"),
    ],
)
def test_what_else_is_wrong_with_a_request_the_app_is_told(
    sqlite_app: RunningApp, changes: dict[str, str | None], error: str
) -> None:
    tablet = App(sqlite_app)
    answer = tablet.answer(WebBrowser(sqlite_app).get(tablet.address(**changes)))
    assert (answer["error"], "code" in answer) == (error, False)


def test_a_scope_the_person_does_not_have_is_refused_to_the_app(team: Team, browser: WebBrowser) -> None:
    answer = signed_in(browser, App(team.app), person(team, "EXECUTOR"), scope="team.admin")
    assert answer["error"] == "invalid_scope"


@pytest.mark.parametrize("query", ["&client_id=x", "&redirect_uri=https%3A%2F%2Fevil.example%2F", "&state=y"])
def test_a_parameter_that_comes_twice_is_refused(sqlite_app: RunningApp, query: str) -> None:
    assert WebBrowser(sqlite_app).get(App(sqlite_app).address() + query).status_code == 400


def test_a_request_without_a_name_or_with_far_too_much_is_refused(sqlite_app: RunningApp) -> None:
    for changes in (
        {"client_id": None},
        {"client_id": "x" * 101},
        {"client_id": "a\tb"},
        {"state": "x" * 601},
    ):
        assert WebBrowser(sqlite_app).get(App(sqlite_app).address(**changes)).status_code == 400


# The person


def test_a_wrong_password_an_unknown_account_and_a_locked_one(team: Team, browser: WebBrowser) -> None:
    account, tablet = person(team), App(team.app)
    shown = browser.get(tablet.address())
    wrong = browser.send(shown, username=account.username, password="x")
    unknown = browser.send(shown, username="nobody", password=PASSWORD)
    assert (wrong.status_code, unknown.status_code) == (403, 403)
    assert Page(wrong.text).alert == Page(unknown.text).alert
    assert Page(wrong.text).fields["username"] == account.username
    change_row(team, account, locked=True)
    locked = browser.send(wrong, username=account.username, password=PASSWORD)
    assert locked.status_code == 403
    assert "locked" in Page(locked.text).alert
    assert PASSWORD not in locked.text


def test_signing_in_on_the_page_is_limited_as_elsewhere(team: Team, browser: WebBrowser) -> None:
    account = person(team)
    shown = browser.get(App(team.app).address())
    for _ in range(ACCOUNT_FAILURES):
        assert browser.send(shown, username=account.username, password="x").status_code == 403
    refused = browser.send(shown, username=account.username, password=PASSWORD)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert password_grant(team.app, account).status_code == 429


def test_after_a_reset_the_page_asks_for_another_password_and_goes_on(
    team: Team, browser: WebBrowser
) -> None:
    account, tablet = person(team, password_expired=True), App(team.app)
    shown = browser.get(tablet.address())
    ask = browser.send(shown, username=account.username, password=PASSWORD)
    assert ask.status_code == 200
    assert Page(ask.text).action == "/account/change"
    for new, again in (("short", "short"), (PASSWORD, PASSWORD), (NEW_PASSWORD, "other")):
        refused = browser.send(ask, new=new, again=again)
        assert refused.status_code == 422
        assert Page(refused.text).alert.strip()
    answer = tablet.answer(browser.send(refused, new=NEW_PASSWORD, again=NEW_PASSWORD))
    assert tablet.exchange(answer["code"]).status_code == 200
    assert column_of(team.app, account, "password_expired") is False
    # It was good once.
    assert browser.send(ask, new="another good one", again="another good one").status_code == 400
    assert password_grant(team.app, account, NEW_PASSWORD).status_code == 200


def test_the_page_after_a_reset_belongs_to_one_browser(team: Team, browser: WebBrowser) -> None:
    account = person(team, password_expired=True)
    shown = browser.get(App(team.app).address())
    ask = browser.send(shown, username=account.username, password=PASSWORD)
    other = WebBrowser(team.app).send(ask, new=NEW_PASSWORD, again=NEW_PASSWORD)
    assert other.status_code == 400
    assert password_grant(team.app, account).json()["code"] == "password-change-required"


# Other sites


def test_a_form_is_taken_only_from_the_browser_it_was_given_to(team: Team, browser: WebBrowser) -> None:
    account = person(team)
    shown = browser.get(App(team.app).address())
    filled = {"username": account.username, "password": PASSWORD}
    for stranger in (WebBrowser(team.app), WebBrowser(team.app)):
        refused = stranger.send(shown, **filled)
        assert (refused.status_code, "location" in refused.headers) == (400, False)
        stranger.get(App(team.app).address())
    assert browser.send(shown, **filled).status_code == 303


def test_what_the_form_carries_is_signed_and_ends(team: Team, browser: WebBrowser) -> None:
    account = person(team)
    shown = browser.get(App(team.app).address())
    sealed = Page(shown.text).fields["request"]
    filled = {"username": account.username, "password": PASSWORD}
    body, _, signature = sealed.partition(".")
    for bad in ("", "x", sealed[:-2], f"{body[:-1]}.{signature}", f".{signature}", body, "ü.ü", "x" * 9000):
        assert browser.send(shown, **filled, request=bad).status_code == 400
    accounts = team.app._part("accounts")
    seal = accounts._seal
    accounts._seal = Seal(seal._key, lambda: seal._clock() + 3_600)
    try:
        assert browser.send(shown, **filled).status_code == 400
    finally:
        accounts._seal = seal


def test_the_cookie_is_out_of_reach_of_scripts_and_of_other_sites(sqlite_app: RunningApp) -> None:
    browser = WebBrowser(sqlite_app)
    first = browser.get(App(sqlite_app).address())
    assert first.status_code == 200
    (line,) = browser.set_cookies
    assert line.startswith("__Host-fieldsync-browser=")
    for attribute in ("HttpOnly", "Secure", "SameSite=lax", "Path=/"):
        assert attribute.lower() in line.lower()
    assert "domain" not in line.lower()
    before = dict(browser.cookies)
    browser.get(App(sqlite_app).address())
    assert browser.cookies == before  # two tabs do not get into each other's way


# The pages themselves


@pytest.mark.parametrize(
    "path", ["authorize", "/account/change", "/account/forgotten", "/account/new-password", "bad"]
)
def test_no_page_can_be_framed_kept_or_made_to_load_anything(sqlite_app: RunningApp, path: str) -> None:
    tablet = App(sqlite_app)
    addresses = {"authorize": tablet.address(), "bad": tablet.address(redirect_uri="https://evil.example/")}
    response = WebBrowser(sqlite_app).get(addresses.get(path, path))
    headers = response.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert '<html lang="en">' in response.text
    assert not re.search(r"(src|href|action)=\"(https?:)?//", response.text)
    for name in Page(response.text).fields:
        if name not in ("request", "shown", "ticket"):
            assert f'<label for="{name}">' in response.text


def test_the_answer_may_go_to_the_app_and_nowhere_else(sqlite_app: RunningApp) -> None:
    for address, source in (
        (APP, "http://127.0.0.1:4711"),
        ("http://[::1]:4000/x", "http:"),
        ("https://sync.example.com/x", "https://sync.example.com"),
    ):
        response = WebBrowser(sqlite_app).get(App(sqlite_app, address).address())
        policy = response.headers["content-security-policy"]
        assert f"form-action 'self' {source};" in policy


def test_what_an_app_calls_itself_stays_text(sqlite_app: RunningApp) -> None:
    shown = WebBrowser(sqlite_app).get(
        App(sqlite_app).address(client_id='<script>alert("1")</script>', state='"><b>')
    )
    assert "<script>alert" not in shown.text
    assert "<b>" not in shown.text


def test_what_goes_wrong_is_a_page_too(sqlite_app: RunningApp) -> None:
    wrong = sqlite_app.http.post("/account/forgotten", json={"account": "x"})
    assert wrong.status_code == 415
    assert wrong.headers["content-type"].startswith("text/html")
    twice = sqlite_app.http.post(
        "/connect/authorize",
        content=b"request=a&request=b",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert (twice.status_code, twice.headers["x-frame-options"]) == (400, "DENY")
