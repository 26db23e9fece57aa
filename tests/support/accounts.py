"""People with passwords, and what an app and a browser do to sign them in."""

import email
import secrets
import time
from email.message import EmailMessage
from email.policy import default
from functools import cache
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from server.auth import passwords
from server.auth.grants import pkce_challenge
from storage.database import Connection
from storage.queries.users import name_key
from storage.tables import users
from tests.support.app import Account, RunningApp, Team

APP = "http://127.0.0.1:4711/signed-in"
PASSWORD = "a quiet harbour in june"
NEW_PASSWORD = "seven lamps burn low"


@cache
def _password_hash() -> str:
    """Once: hashing is meant to take its time."""
    return passwords._hasher.hash(PASSWORD)


def person(team: Team, *permissions: str, **columns: Any) -> Account:
    """A person whose password is :data:`PASSWORD`; further columns as they stand in the table."""
    account = team.user(*(permissions or ("EXECUTOR",)))
    if "email_address" in columns:
        columns["email_key"] = name_key(columns["email_address"])

    def work(connection: Connection) -> None:
        change = users.update().where(users.c.user_id == account.subject_id)
        connection.execute(change.values(password_hash=_password_hash(), **columns))

    team.app.write(work)
    return account


def column_of(app: RunningApp, account: Account, name: str) -> Any:
    """What stands in a column of the person's row."""

    def query(connection: Connection) -> Any:
        return connection.execute(
            users.select().with_only_columns(users.c[name]).where(users.c.user_id == account.subject_id)
        ).scalar_one()

    return app.read(query)


def grant(app: RunningApp, **form: str) -> httpx.Response:
    """A request to the token endpoint."""
    return app.http.post("/connect/token", data=form)


def password_grant(app: RunningApp, account: Account, password: str = PASSWORD) -> httpx.Response:
    return grant(app, grant_type="password", username=account.username, password=password)


def mails_to(app: RunningApp, address: str, count: int, seconds: float = 20) -> list[EmailMessage]:
    """The mails to an address, once there are ``count``."""
    deadline = time.monotonic() + seconds
    while True:
        found = []
        for file in sorted((app.settings.data / "mail").glob("*.eml")):
            message = email.message_from_bytes(file.read_bytes(), policy=default)
            assert isinstance(message, EmailMessage)
            if message["To"].addresses[0].addr_spec == address:
                found.append(message)
        if len(found) >= count or time.monotonic() > deadline:
            assert len(found) == count
            return found
        time.sleep(0.02)


def text_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


class Page(HTMLParser):
    """A page as a browser reads it: its fields, its links, what it says."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.fields: dict[str, str] = {}
        self.action = ""
        self.links: list[str] = []
        self.text = ""
        self.alert = ""
        self._in_alert = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "input":
            self.fields[values["name"]] = values.get("value", "")
        elif tag == "form":
            self.action = values["action"]
        elif tag == "a":
            self.links.append(values["href"])
        if values.get("role") == "alert" or (self._in_alert and tag in ("p", "div")):
            self._in_alert += 1

    def handle_endtag(self, tag: str) -> None:
        if self._in_alert and tag in ("p", "div"):
            self._in_alert -= 1

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_alert:
            self.alert += data


class WebBrowser:
    """A browser without scripts: it keeps cookies, sends forms, and stops at every redirect."""

    def __init__(self, app: RunningApp) -> None:
        self._app = app
        self.cookies: dict[str, str] = {}
        self.set_cookies: list[str] = []

    def get(self, address: str) -> httpx.Response:
        return self._request("GET", address)

    def send(self, response: httpx.Response, **filled: str) -> httpx.Response:
        """Fill the form of a page in and send it."""
        page = Page(response.text)
        return self.post(page.action, page.fields | filled)

    def post(self, address: str, form: dict[str, str]) -> httpx.Response:
        return self._request("POST", address, data=form)

    def _request(self, method: str, address: str, **rest: Any) -> httpx.Response:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        response = self._app.http.request(method, address, headers=headers, follow_redirects=False, **rest)
        for line in response.headers.get_list("set-cookie"):
            self.set_cookies.append(line)
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if "max-age=0" in line.lower():
                del self.cookies[name]
        return response


class App:
    """An app that signs its person in on our page, as RFC 8252 says."""

    def __init__(self, app: RunningApp, redirect_uri: str = APP) -> None:
        self._app = app
        self.redirect_uri = redirect_uri
        self.verifier = secrets.token_urlsafe(40)
        self.state = secrets.token_urlsafe(8)

    def address(self, **changes: str | None) -> str:
        """Where it sends the browser; None leaves a parameter out."""
        query: dict[str, str | None] = {
            "response_type": "code",
            "client_id": "Tablet 7",
            "redirect_uri": self.redirect_uri,
            "code_challenge": pkce_challenge(self.verifier),
            "code_challenge_method": "S256",
            "state": self.state,
            **changes,
        }
        return f"/connect/authorize?{urlencode({k: v for k, v in query.items() if v is not None})}"

    def answer(self, response: httpx.Response) -> dict[str, str]:
        """What a redirect back to the app says."""
        assert response.status_code == 303, response.text
        location = response.headers["location"]
        assert location.startswith(self.redirect_uri)
        answer = dict(parse_qsl(urlsplit(location).query))
        assert answer["state"] == self.state
        assert answer["iss"] == self._app.settings.base_url
        return answer

    def exchange(self, code: str, **changes: str) -> httpx.Response:
        """Get the tokens for a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "client_id": "Tablet 7",
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
            **changes,
        }
        return grant(self._app, **form)
