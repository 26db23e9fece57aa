"""The pages of accounts in a real browser, on a real server."""

import email
import re
import threading
import time
from collections.abc import Callable, Iterator
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
from playwright.sync_api import Page

from server.auth.grants import pkce_challenge
from tests.support.browser import DESKTOP, PHONE, Chromium, chromium
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET, oidc_provider
from tests.support.process import ServerProcess, init

VERIFIER = "v" * 43
NEW_PASSWORD = "seven lamps burn low"
OWNER = "owner@alpha.example"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


class TabletApp:
    """An app on the person's machine that waits for the browser to come back (RFC 8252, 7.3)."""

    def __init__(self) -> None:
        self.answers: list[dict[str, str]] = []
        app = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if parts.path == "/signed-in":
                    app.answers.append(dict(parse_qsl(parts.query)))
                body = b"<title>App</title>You are signed in."
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nobody reads it."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.redirect_uri = f"http://127.0.0.1:{self.server.server_address[1]}/signed-in"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def address(self, server: ServerProcess) -> str:
        query = {
            "response_type": "code",
            "client_id": "Tablet 7",
            "redirect_uri": self.redirect_uri,
            "code_challenge": pkce_challenge(VERIFIER),
            "code_challenge_method": "S256",
            "state": "here",
        }
        return f"{server.url}/connect/authorize?{urlencode(query)}"

    def tokens(self, server: ServerProcess) -> dict[str, object]:
        answer = self.answers.pop()
        assert (answer["state"], answer["iss"]) == ("here", server.url)
        form = {
            "grant_type": "authorization_code",
            "code": answer["code"],
            "client_id": "Tablet 7",
            "redirect_uri": self.redirect_uri,
            "code_verifier": VERIFIER,
        }
        response = httpx.post(f"{server.url}/connect/token", data=form, trust_env=False, timeout=30)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def tablet() -> Iterator[TabletApp]:
    app = TabletApp()
    yield app
    app.close()


def sign_in(page: Page, username: str, password: str) -> None:
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def link_mailed(data: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for file in (data / "mail").glob("*.eml"):
            part = email.message_from_bytes(file.read_bytes(), policy=default).get_body(("plain",))  # type: ignore[attr-defined]
            found = re.search(r"http://\S+#\S+", part.get_content())
            if found:
                return found[0]
        time.sleep(0.05)
    raise AssertionError("no mail came")


def test_a_person_signs_in_forgets_the_password_and_signs_in_again(
    browser: Chromium, tablet: TabletApp, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    password = init(data)["password"]
    server = start_server(data)

    def wrong_then_right(page: Page) -> None:
        page.goto(tablet.address(server))
        sign_in(page, OWNER, "not this one")
        assert "wrong" in page.get_by_role("alert").inner_text()
        sign_in(page, OWNER, password)
        page.wait_for_url(f"{tablet.redirect_uri}*")

    browser.visit(wrong_then_right)
    assert tablet.tokens(server)["access_token"]

    def forget(page: Page) -> None:
        page.goto(tablet.address(server))
        page.get_by_role("link", name="Forgotten your password?").click()
        page.get_by_label("Username or e-mail address").fill(OWNER)
        page.get_by_role("button").click()
        page.get_by_role("heading", name="Look into your mail").wait_for()
        link = link_mailed(data)
        page.goto(link)
        # The script has taken the secret out of the address and out of sight.
        assert page.url == f"{server.url}/account/new-password"
        assert page.get_by_label("Code from the mail").is_hidden()
        page.get_by_label("New password", exact=True).fill(NEW_PASSWORD)
        page.get_by_label("New password, once more").fill(NEW_PASSWORD)
        page.get_by_role("button").click()
        page.get_by_role("heading", name="The password is changed").wait_for()
        page.goto("about:blank")  # from the same address only the part behind the # would change
        page.goto(link)
        page.get_by_label("New password", exact=True).fill("another good one")
        page.get_by_label("New password, once more").fill("another good one")
        page.get_by_role("button").click()
        page.get_by_role("heading", name="This link is not good any more").wait_for()
        page.goto(tablet.address(server))
        sign_in(page, OWNER, NEW_PASSWORD)
        page.wait_for_url(f"{tablet.redirect_uri}*")

    browser.visit(forget, size=PHONE)
    assert tablet.tokens(server)["access_token"]

    def without_scripts(page: Page) -> None:
        page.goto(f"{server.url}/account/new-password#secret")
        assert page.get_by_label("Code from the mail").is_visible()

    browser.visit(without_scripts, java_script_enabled=False)


def test_a_person_signs_in_with_the_provider(
    browser: Chromium, tablet: TabletApp, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    init(data)
    with oidc_provider() as provider:
        provider.person = {"sub": "7", "email": OWNER, "email_verified": True}
        server = start_server(
            data,
            oidc_issuer=provider.url,
            oidc_client_id=CLIENT_ID,
            oidc_client_secret=CLIENT_SECRET,
            oidc_name="Example Login",
        )

        def work(page: Page) -> None:
            page.goto(tablet.address(server))
            page.get_by_role("link", name="Continue with Example Login").click()
            page.wait_for_url(f"{tablet.redirect_uri}*")

        browser.visit(work)
    assert tablet.tokens(server)["access_token"]


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_pages_fit_the_screen_and_can_be_used_with_the_keyboard(
    browser: Chromium,
    tablet: TabletApp,
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    size: dict[str, int],
) -> None:
    data = tmp_path / "data"
    init(data)
    server = start_server(data)

    def work(page: Page) -> None:
        for address in (
            tablet.address(server),
            *(f"{server.url}/account/{name}" for name in ("change", "forgotten", "new-password")),
        ):
            page.goto(address)
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            # Our style came through its own policy.
            assert page.evaluate("getComputedStyle(document.querySelector('button')).borderRadius") == "8px"
            for field in page.locator("input:visible").all():
                box = field.bounding_box()
                assert box is not None
                assert box["height"] >= 44
        page.goto(tablet.address(server))
        page.wait_for_function("document.activeElement.id === 'username'")
        page.keyboard.type(OWNER)
        page.keyboard.press("Tab")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        page.get_by_role("alert").wait_for()
        assert page.title().startswith("Error: ")
        page.wait_for_function("document.activeElement.id === 'password'")

    browser.visit(work, size=size)
