"""Signing in through an OpenID Connect provider: the good ones, the bad ones, and those that are down."""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from server.accounts.provider import Identity
from server.accounts.single_sign_on import _known_or_linked, _NoTeamsSet, _user_or_reason
from server.setup import create_team
from storage.database import open_database
from tests.support.accounts import NEW_PASSWORD, PASSWORD, App, Page, WebBrowser, column_of, person
from tests.support.app import Account, RunningApp, Team, running_app
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, oidc_provider


@pytest.fixture(scope="module")
def running_provider() -> Iterator[Provider]:
    with oidc_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def oidc_app(running_provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    settings = {
        "oidc_issuer": running_provider.url,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": CLIENT_SECRET,
        "oidc_name": "Example Login",
        # Every test has a team of its own.
        "oidc_teams": ("*",),
    }
    with running_app(tmp_path_factory.mktemp("oidc"), "", **settings) as app:
        yield app


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    """The provider, honest again."""
    clean = Provider()
    for name in ("person", "claims", "algorithm", "status", "issuer_says", "userinfo"):
        setattr(running_provider, name, getattr(clean, name))
    return running_provider


@pytest.fixture
def oidc_team(oidc_app: RunningApp) -> Team:
    forget_provider(oidc_app)
    return oidc_app.team()


def forget_provider(app: RunningApp) -> None:
    """What the server knows of the provider is an hour old."""
    provider = app._part("accounts").provider
    provider._metadata = provider._keys = None


def to_provider(browser: WebBrowser, tablet: App) -> httpx.Response:
    """From the app to the sign-in page, and from its button to the provider."""
    shown = browser.get(tablet.address())
    (button,) = [link for link in Page(shown.text).links if link.startswith("/account/oidc/start")]
    return browser.get(button)


def through_provider(browser: WebBrowser, tablet: App) -> httpx.Response:
    """All the way, until our server answers to the browser that came back."""
    sent = to_provider(browser, tablet)
    assert sent.status_code == 303, sent.text
    return browser.get(back_from(sent))


def back_from(sent: httpx.Response) -> str:
    """The address to which the provider leads back, on our side."""
    at_provider = httpx.get(sent.headers["location"], trust_env=False)
    assert at_provider.status_code == 302
    location: str = at_provider.headers["location"]
    assert location.startswith("https://sync.example.com/account/oidc/callback?")
    return location.removeprefix("https://sync.example.com")


def claims_of(account: Account, **more: Any) -> dict[str, Any]:
    return {
        "sub": f"s-{account.subject_id}",
        "email": account.username.upper(),
        "email_verified": True,
        **more,
    }


def test_the_provider_signs_somebody_in(oidc_team: Team, provider: Provider) -> None:
    account = person(oidc_team)
    provider.person = claims_of(account)
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    tokens = tablet.exchange(tablet.answer(through_provider(browser, tablet))["code"])
    assert tokens.status_code == 200, tokens.text
    principal = oidc_team.app.call(oidc_team.app.authority.verify, tokens.json()["access_token"])
    assert principal.subject_id == account.subject_id
    assert column_of(oidc_team.app, account, "oidc_subject") == f"{provider.url} s-{account.subject_id}"
    asked = provider.asked[-1]
    assert (asked["code_challenge_method"], asked["scope"]) == ("S256", "openid email")
    # The visit is over: its cookie is gone.
    assert list(browser.cookies) == ["__Host-fieldsync-browser"]


def test_afterwards_the_subject_counts_and_not_the_address(oidc_team: Team, provider: Provider) -> None:
    account, heir = person(oidc_team), person(oidc_team)
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    provider.person = claims_of(account)
    tablet.answer(through_provider(browser, tablet))
    provider.person = claims_of(heir) | {"sub": f"s-{account.subject_id}", "email_verified": False}
    tokens = tablet.exchange(tablet.answer(through_provider(browser, tablet))["code"]).json()
    principal = oidc_team.app.call(oidc_team.app.authority.verify, tokens["access_token"])
    assert principal.subject_id == account.subject_id
    # And nobody else gets in with the address of somebody who is linked.
    provider.person = claims_of(account, sub="somebody else")
    refused = through_provider(browser, tablet)
    assert refused.status_code == 403


def test_a_key_that_is_new_at_the_provider_is_fetched(oidc_team: Team, provider: Provider) -> None:
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    provider.person = claims_of(person(oidc_team))
    tablet.answer(through_provider(browser, tablet))
    provider.new_key()
    tablet.answer(through_provider(browser, tablet))


def test_an_address_may_stand_in_the_userinfo_only(oidc_team: Team, provider: Provider) -> None:
    account = person(oidc_team)
    provider.person = {"sub": "u-1"}
    provider.userinfo = claims_of(account) | {"sub": "u-1"}
    tablet = App(oidc_team.app)
    tablet.answer(through_provider(WebBrowser(oidc_team.app), tablet))
    provider.person, provider.userinfo = {"sub": "u-2"}, claims_of(person(oidc_team)) | {"sub": "u-3"}
    assert through_provider(WebBrowser(oidc_team.app), tablet).status_code == 403


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": [CLIENT_ID, "another"]},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://login.example.com"},
        {"iss": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": 7},
    ],
)
def test_an_id_token_that_says_something_wrong_lets_nobody_in(
    oidc_team: Team, provider: Provider, claims: dict[str, Any]
) -> None:
    provider.person, provider.claims = claims_of(person(oidc_team)), claims
    refused = through_provider(WebBrowser(oidc_team.app), App(oidc_team.app))
    assert (refused.status_code, "location" in refused.headers) == (502, False)
    assert "cannot be trusted" in Page(refused.text).alert


@pytest.mark.parametrize("algorithm", ["none", "HS256", "foreign"])
def test_an_id_token_that_the_provider_did_not_sign_lets_nobody_in(
    oidc_team: Team, provider: Provider, algorithm: str
) -> None:
    provider.person, provider.algorithm = claims_of(person(oidc_team)), algorithm
    assert through_provider(WebBrowser(oidc_team.app), App(oidc_team.app)).status_code == 502


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_address_that_is_not_verified_is_nobodys(
    oidc_team: Team, provider: Provider, verified: object
) -> None:
    account = person(oidc_team)
    provider.person = claims_of(account, email_verified=verified)
    refused = through_provider(WebBrowser(oidc_team.app), App(oidc_team.app))
    assert refused.status_code == 403
    assert column_of(oidc_team.app, account, "oidc_subject") is None


def test_nobody_is_created_and_nobody_is_guessed(oidc_team: Team, provider: Provider) -> None:
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    provider.person = {"sub": "new", "email": "new@example.com", "email_verified": True}
    refused = through_provider(browser, tablet)
    assert refused.status_code == 403
    assert "no account for new@example.com" in Page(refused.text).alert
    # The way back leads to the sign-in page of the same request.
    (link,) = Page(refused.text).links
    assert browser.get(link).status_code == 200
    shared = f"shared-{oidc_team.team_id}@example.com"
    for _ in range(2):
        person(oidc_team, email_address=shared)
    provider.person = {"sub": "shared", "email": shared, "email_verified": True}
    assert through_provider(browser, tablet).status_code == 403


def test_a_locked_account_is_refused(oidc_team: Team, provider: Provider) -> None:
    account = person(oidc_team, locked=True)
    provider.person = claims_of(account)
    refused = through_provider(WebBrowser(oidc_team.app), App(oidc_team.app))
    assert refused.status_code == 403
    assert "locked" in Page(refused.text).alert
    assert column_of(oidc_team.app, account, "oidc_subject") is None


def test_a_password_that_was_reset_must_be_changed_here_too(oidc_team: Team, provider: Provider) -> None:
    provider.person = claims_of(person(oidc_team, password_expired=True))
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    ask = through_provider(browser, tablet)
    assert Page(ask.text).action == "/account/change"
    assert "code" in tablet.answer(browser.send(ask, new=NEW_PASSWORD, again=NEW_PASSWORD))


def test_the_provider_may_say_no(oidc_team: Team, provider: Provider) -> None:
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    provider.person = claims_of(person(oidc_team))
    to_provider(browser, tablet)
    state = httpx.URL(to_provider(browser, tablet).headers["location"]).params["state"]
    refused = browser.get(f"/account/oidc/callback?error=access_denied&state={state}")
    assert refused.status_code == 403
    assert "Example Login did not sign you in" in Page(refused.text).alert


# Whose people come from there


def come(team: Team, email: str, teams: tuple[str, ...], subject: str | None = None) -> str:
    """The id of whoever is found for an address, or why nobody is."""
    settings = dataclasses.replace(team.app.settings, oidc_teams=teams)
    identity = Identity(subject or f"issuer {email} {team.team_id}", email)
    found = team.app.call(_user_or_reason, team.app.database, settings, identity)
    return found if isinstance(found, str) else found.user_id


def test_administrators_of_other_teams_neither_block_nor_catch_somebodys_first_sign_in(team: Team) -> None:
    other, account = team.app.team(), person(team)
    for _ in range(6):
        person(other, email_address=account.username)
    assert "no account for" in come(team, account.username, ("*",))
    assert come(team, account.username, (team.name, "no such team")) == account.subject_id
    # A team that is not among them: its people are nobody, whatever names they have.
    caught, address = person(other), f"wanted-{team.team_id}@example.com"
    named = f"named-{team.team_id}@example.com"
    body = {"username": named, "emailAddress": address, "name": "n"}
    assert other.put(f"/api/team/user/{caught.subject_id}", json=body).status_code == 200
    for text in (address, named):
        assert f"no account for {text}" in come(team, text, (team.name,))
        assert column_of(team.app, caught, "oidc_subject") is None
    assert come(team, named, (team.name, other.name)) == caught.subject_id


def test_with_several_teams_and_no_word_about_them_nobody_is_linked(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    account = person(team)
    with caplog.at_level(logging.WARNING, "fieldsync.accounts"):
        assert "FIELDSYNC_OIDC_TEAMS" in come(team, account.username, ())
    assert "FIELDSYNC_OIDC_TEAMS" in caplog.text
    assert column_of(team.app, account, "oidc_subject") is None


def test_who_is_linked_comes_in_whatever_the_setting_says(team: Team) -> None:
    account, subject = person(team), f"issuer {team.name}"
    assert come(team, account.username, (team.name,), subject) == account.subject_id
    for teams in ((), ("another",)):
        assert come(team, "another@example.com", teams, subject) == account.subject_id


def test_the_page_says_which_setting_is_lacking(running_provider: Provider, tmp_path: Path) -> None:
    settings = {"oidc_issuer": running_provider.url, "oidc_client_id": CLIENT_ID}
    with running_app(tmp_path, "", oidc_client_secret=CLIENT_SECRET, **settings) as app:
        running_provider.person = claims_of(person(app.alpha))
        refused = through_provider(WebBrowser(app), App(app))
        assert refused.status_code == 403
        assert "FIELDSYNC_OIDC_TEAMS" in Page(refused.text).alert


def test_the_only_team_needs_no_setting(database_url: str) -> None:
    async def run() -> tuple[object, object]:
        database = open_database(database_url)
        try:
            await database.migrate()
            await create_team(database, "alpha", "owner@example.com")
            only = await database.write(_known_or_linked, Identity("issuer 1", "OWNER@example.com"), ())
            await create_team(database, "beta", "b@example.com")
            with pytest.raises(_NoTeamsSet):
                await database.write(_known_or_linked, Identity("issuer 2", "b@example.com"), ())
            again = await database.write(_known_or_linked, Identity("issuer 1", None), ())
        finally:
            await database.close()
        return only and only.username, again and again.username

    assert asyncio.run(run()) == ("owner@example.com", "owner@example.com")


def test_another_address_ends_the_link_with_the_provider(team: Team) -> None:
    account, subject = person(team), f"issuer {team.name}"
    path = f"/api/team/user/{account.subject_id}"
    assert come(team, account.username, (team.name,), subject) == account.subject_id
    team.put(path, json={"name": "Another name", "emailAddress": account.username})
    assert column_of(team.app, account, "oidc_subject") == subject
    new = f"new-{account.username}"
    assert team.put(path, json={"emailAddress": new}).status_code == 200
    assert column_of(team.app, account, "oidc_subject") is None
    assert come(team, new, (team.name,), f"{subject} 2") == account.subject_id


# Between the two


def test_only_the_browser_that_began_it_may_come_back_and_only_once(
    oidc_team: Team, provider: Provider
) -> None:
    provider.person = claims_of(person(oidc_team))
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    address = back_from(to_provider(browser, tablet))
    stranger = WebBrowser(oidc_team.app)
    assert stranger.get(address).status_code == 400
    to_provider(stranger, tablet)
    assert stranger.get(address).status_code == 400
    assert browser.get(address.replace("state=", "state=x")).status_code == 400
    tablet.answer(browser.get(address))
    assert browser.get(address).status_code == 400


def test_another_issuer_must_not_answer_for_this_one(oidc_team: Team, provider: Provider) -> None:
    provider.person = claims_of(person(oidc_team))
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    address = back_from(to_provider(browser, tablet))
    assert browser.get(f"{address}&iss=https%3A%2F%2Fevil.example").status_code == 502


def test_other_sites_cannot_send_people_to_the_provider(oidc_team: Team) -> None:
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    shown = browser.get(tablet.address())
    (button,) = [link for link in Page(shown.text).links if "oidc" in link]
    for stranger, address in (
        (WebBrowser(oidc_team.app), button),
        (browser, "/account/oidc/start?request=x"),
    ):
        refused = stranger.get(address)
        assert (refused.status_code, "location" in refused.headers) == (400, False)


# A provider in trouble


def test_a_provider_that_answers_with_an_error_is_said_to_be_down(
    oidc_team: Team, provider: Provider
) -> None:
    provider.person, provider.status = claims_of(person(oidc_team)), 500
    refused = through_provider(WebBrowser(oidc_team.app), App(oidc_team.app))
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    provider.status = 400
    assert through_provider(WebBrowser(oidc_team.app), App(oidc_team.app)).status_code == 502


def test_a_discovery_document_of_another_issuer_is_not_used(oidc_team: Team, provider: Provider) -> None:
    provider.issuer_says = "https://login.example.com"
    assert to_provider(WebBrowser(oidc_team.app), App(oidc_team.app)).status_code == 502


def test_a_provider_that_is_not_there_leaves_the_password(oidc_team: Team) -> None:
    account = person(oidc_team)
    browser, tablet = WebBrowser(oidc_team.app), App(oidc_team.app)
    provider = oidc_team.app._part("accounts").provider
    issuer, provider.issuer = provider.issuer, "http://127.0.0.1:9"
    try:
        refused = to_provider(browser, tablet)
    finally:
        provider.issuer = issuer
    assert refused.status_code == 503
    (link,) = Page(refused.text).links
    shown = browser.get(link)
    assert "code" in tablet.answer(browser.send(shown, username=account.username, password=PASSWORD))


def test_without_the_setting_there_is_no_button_and_no_way(sqlite_app: RunningApp) -> None:
    browser = WebBrowser(sqlite_app)
    shown = browser.get(App(sqlite_app).address())
    assert "Continue with" not in shown.text
    assert browser.get("/account/oidc/start").status_code == 404
    assert browser.get("/account/oidc/callback?code=x&state=y").status_code == 404
