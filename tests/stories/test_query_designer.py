"""The query designer in a real browser, on a real server: sign in, ask, look, take the query along."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from playwright.sync_api import ConsoleMessage, Page, Request, expect

from fixtures.jobs import inspection_jobs
from server.query.page import BUILT
from tests.support.browser import DESKTOP, PHONE, Chromium, chromium
from tests.support.process import ServerProcess, init, serve

pytestmark = pytest.mark.skipif(
    not (BUILT / "index.html").is_file(), reason="the query designer was not built (make .designer)"
)

OWNER = "owner@alpha.example"


@dataclass
class Scene:
    """A server with completed jobs."""

    server: ServerProcess
    password: str
    jobs: int
    token: str


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("designer")
    created = init(folder / "data")
    server = serve(folder, folder / "data")
    over = [each for each in inspection_jobs(12) if each["metadata"]["status"] == "Completed"][:5]
    token = server.token(created)
    with server.connect(token) as client:
        for job in over:
            assert client.post("/jobs/v1/basicSync", json=job).status_code == 200
    assert over
    yield Scene(server, created["password"], len(over), token)
    server.kill()


class Watch:
    """What a page asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        page.on("request", self._asked)
        page.on("console", self._said)

    def _asked(self, request: Request) -> None:
        self.addresses.append(request.url)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def check(self, server: ServerProcess) -> None:
        assert self.complaints == []
        elsewhere = [
            one for one in self.addresses if not one.startswith((f"{server.url}/", "data:", "blob:"))
        ]
        assert elsewhere == []


def sign_in(page: Page, scene: Scene, username: str = OWNER, password: str | None = None) -> None:
    page.goto(f"{scene.server.url}/query")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password", exact=True).fill(password or scene.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Result").wait_for()


def count(page: Page, what: str) -> None:
    """Wait until the result says so."""
    page.get_by_role("status").filter(has_text=what).wait_for()


def cells(page: Page) -> list[list[str]]:
    """The table of the result, with its head."""
    rows: list[list[str]] = page.get_by_role("table").evaluate(
        "table => [...table.rows].map(row => [...row.cells].map(cell => cell.textContent))"
    )
    return rows


def write(page: Page, query: str) -> None:
    """Type over what stands in the editor."""
    page.get_by_role("textbox", name="Query").focus()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(query)


def test_somebody_signs_in_asks_sees_a_table_and_opens_it_elsewhere(browser: Chromium, scene: Scene) -> None:
    exported: dict[str, Any] = {}

    def work(page: Page) -> None:
        watch = Watch(page)
        sign_in(page, scene)
        # Neither the code nor anything else of the sign-in stays in the address.
        assert page.url == f"{scene.server.url}/query"
        count(page, f"{scene.jobs} objects")

        page.get_by_role("button", name="Examples").click()
        page.get_by_role("button", name="Latest jobs").click()
        count(page, f"{scene.jobs} objects")
        page.get_by_role("region", name="Result").get_by_text('"jobTitle"').first.wait_for()
        page.get_by_role("radio", name="CSV").check(force=True)
        count(page, f"{scene.jobs} rows")
        exported["table"] = cells(page)

        page.get_by_role("button", name="Export").click()
        address = page.get_by_role("textbox", name="Address")
        expect(address).to_have_value(re.compile("&key=[A-Z0-9]{20,}$"))
        exported["address"] = address.input_value()
        page.get_by_role("radio", name="HTTP POST").check(force=True)
        exported["post"] = (address.input_value(), page.get_by_role("textbox", name="Body").input_value())
        page.get_by_role("radio", name="None").check(force=True)
        assert "key=" not in address.input_value()
        page.keyboard.press("Escape")
        assert page.get_by_role("dialog").count() == 0
        watch.check(scene.server)
        assert any("worker" in one for one in watch.addresses)

    browser.visit(work)
    table = exported["table"]
    assert table[0][:3] == ["jobId", "jobTitle", "workflowTitle"]
    assert len(table) == scene.jobs + 1

    got = httpx.get(exported["address"], trust_env=False, timeout=30)
    address, body = exported["post"]
    posted = httpx.post(
        address, content=body, headers={"Content-Type": "application/json"}, trust_env=False, timeout=30
    )
    for response in (got, posted):
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/csv")
        assert list(csv.reader(io.StringIO(response.text.removeprefix("\ufeff")))) == table


def test_what_is_typed_runs_by_itself_and_mistakes_are_told_in_the_result(
    browser: Chromium, scene: Scene
) -> None:
    def work(page: Page) -> None:
        watch = Watch(page)
        sign_in(page, scene)
        count(page, f"{scene.jobs} objects")
        write(page, "{ jobs(limit: 2) { jobId } }")
        count(page, "2 objects")
        write(page, "{ jobs(limit: 2) { jobIt } }")
        problems = page.get_by_role("status", name="Problems")
        expect(problems).to_contain_text('Line 1, column 20: Cannot query field "jobIt"')
        # What is missing is filled in when it is run by hand.
        write(page, "{ jobs(limit: 1) }")
        page.keyboard.press("ControlOrMeta+Enter")
        count(page, "1 object,")
        watch.check(scene.server)

    browser.visit(work)


def test_completion_and_documentation_come_from_the_schema(browser: Chromium, scene: Scene) -> None:
    def work(page: Page) -> None:
        watch = Watch(page)
        sign_in(page, scene)
        count(page, "objects")
        write(page, "{ jobs { ")
        page.keyboard.type("totalD")
        page.get_by_role("option", name="totalDuration").wait_for()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Documentation").click()
        panel = page.get_by_role("complementary", name="Documentation")
        panel.get_by_role("link", name="scheduledJobs").or_(
            panel.get_by_text("scheduledJobs")
        ).first.wait_for()
        panel.get_by_role("button", name="Close").click()
        assert panel.count() == 0
        watch.check(scene.server)

    browser.visit(work)


def test_keys_are_shown_replaced_and_revoked(browser: Chromium, scene: Scene) -> None:
    seen: dict[str, str] = {}

    def asked(key: str) -> int:
        address = f"{scene.server.url}/query/v2/graph"
        query = {"query": "{ jobs { jobId } }", "key": key}
        return httpx.get(address, params=query, trust_env=False, timeout=30).status_code

    def work(page: Page) -> None:
        watch = Watch(page)
        sign_in(page, scene)
        page.get_by_role("button", name="Keys").click()
        primary = page.get_by_role("textbox", name="Primary key")
        assert set(primary.input_value()) == {"•"}
        page.get_by_role("button", name="Show primary key").click()
        seen["old"] = primary.input_value()
        assert asked(seen["old"]) == 200

        page.get_by_role("button", name="Regenerate primary key").click()
        warning = page.get_by_role("region", name="Primary key").get_by_role("alert")
        expect(warning).to_contain_text("stop working")
        # Nothing happens by pressing Enter once more.
        page.keyboard.press("Enter")
        expect(warning).to_have_count(0)
        assert asked(seen["old"]) == 200
        page.get_by_role("button", name="Regenerate primary key").click()
        page.get_by_role("button", name="Regenerate it").click()
        page.get_by_text("There is a new primary key.").wait_for()
        page.get_by_role("button", name="Show primary key").click()
        seen["new"] = primary.input_value()
        assert (asked(seen["old"]), asked(seen["new"])) == (401, 200)

        page.get_by_role("button", name="Revoke primary key").click()
        page.get_by_role("button", name="Revoke it").click()
        page.get_by_text("Primary key revoked.").wait_for()
        assert asked(seen["new"]) == 401
        page.keyboard.press("Escape")
        # An export takes the key that is there.
        page.get_by_role("button", name="Export").click()
        expect(page.get_by_role("radio", name="Secondary")).to_be_checked()
        expect(page.get_by_role("radio", name="Primary")).to_be_disabled()
        watch.check(scene.server)

    try:
        browser.visit(work)
    finally:
        # The other tests share the team.
        with scene.server.connect(scene.token) as client:
            assert client.post("/query/v2/keys/primary/regenerate").is_success
    assert seen["old"] != seen["new"]


def test_who_may_query_but_not_see_the_keys_is_offered_none(browser: Chromium, scene: Scene) -> None:
    reader, password = "reader@alpha.example", "only looks, changes nothing"
    with scene.server.connect(scene.token) as client:
        body = {"username": reader, "emailAddress": reader, "name": "A reader"}
        user_id = client.post("/api/team/user", json=body).json()["userId"]
        address = f"/api/team/user/{user_id}"
        assert client.put(f"{address}/permissions", json={"dataViewer": True}).is_success
        given = client.post(f"{address}/resetpassword").json()["password"]
        body = {"username": reader, "password": given, "newPassword": password}
        assert client.post("/account/password", json=body).is_success

    def work(page: Page) -> None:
        watch = Watch(page)
        with page.expect_response("**/query/v2/keys") as told:
            sign_in(page, scene, reader, password)
        assert told.value.status == 403
        count(page, f"{scene.jobs} objects")
        expect(page.get_by_role("button", name="Keys")).to_have_count(0)
        asked = len([one for one in watch.addresses if one.endswith("/query/v2/keys")])
        page.get_by_role("button", name="Export").click()
        address = page.get_by_role("textbox", name="Address")
        expect(address).to_have_value(re.compile("query="))
        assert "key=" not in address.input_value()
        expect(page.get_by_role("radio", name="HTTP POST")).to_have_count(1)
        expect(page.get_by_role("radio", name="Primary")).to_have_count(0)
        # Nothing is refused a second time.
        assert len([one for one in watch.addresses if one.endswith("/query/v2/keys")]) == asked

    browser.visit(work)


def test_a_reload_keeps_the_sign_in_and_signing_out_ends_it(browser: Chromium, scene: Scene) -> None:
    def work(page: Page) -> None:
        sign_in(page, scene)
        kept = page.evaluate("JSON.stringify(localStorage) + document.cookie")
        held = json.loads(page.evaluate("sessionStorage.getItem('fieldsync.query.tokens')"))
        assert held["access"] not in kept
        assert held["refresh"] not in kept
        page.reload()
        count(page, "objects")
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("button", name="Sign in").wait_for()
        assert page.evaluate("sessionStorage.length") == 0
        page.reload()
        page.get_by_role("button", name="Sign in").wait_for()
        # An answer that nobody here asked for is not taken.
        page.goto(f"{scene.server.url}/query?code=stolen&state=guessed&iss={scene.server.url}")
        expect(page.get_by_role("alert")).to_contain_text("not begun here")
        assert page.url == f"{scene.server.url}/query"

    browser.visit(work)


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_it_fits_the_screen_and_the_keyboard_reaches_everything(
    browser: Chromium, scene: Scene, size: dict[str, int]
) -> None:
    def work(page: Page) -> None:
        sign_in(page, scene)
        count(page, "objects")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        reached: list[str] = []
        page.get_by_role("button", name="Examples").focus()
        for _ in range(20):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate(
                    "(at => at.getAttribute('aria-label') || at.value || at.textContent)(document.activeElement)"
                )
            )
            if reached[-1] == "json":
                break
        wanted = [
            "Export",
            "Keys",
            "Documentation",
            "Sign out",
            "Tidy",
            "Run",
            "Query",
            "Variables",
            "on",
            "Save",
        ]
        assert [one for one in reached if one in wanted] == wanted
        page.keyboard.press("ArrowRight")
        count(page, "rows")
        page.get_by_role("button", name="Keys").press("Enter")
        page.get_by_role("textbox", name="Primary key").wait_for()
        inside = "document.activeElement.closest('dialog') !== null"
        assert page.evaluate(inside)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Keys")).to_be_focused()
        unnamed = page.evaluate(
            "[...document.querySelectorAll('button')].filter(b => !b.textContent.trim() && !b.ariaLabel).length"
        )
        assert unnamed == 0

    browser.visit(work, size=size)


def test_the_plain_form_runs_a_query_without_scripts(browser: Chromium, scene: Scene) -> None:
    server = scene.server
    form = {"grant_type": "password", "username": OWNER, "password": scene.password}
    token = httpx.post(f"{server.url}/connect/token", data=form, trust_env=False, timeout=30).json()
    with server.connect(token["access_token"]) as client:
        key = client.get("/query/v2/keys").json()[0]["key"]

    def work(page: Page) -> None:
        page.goto(f"{server.url}/query/plain")
        page.get_by_label("Key").fill(key)
        page.get_by_role("button", name="Run").click()
        page.wait_for_url(f"{server.url}/query/v2/graph?*")
        assert len(json.loads(page.inner_text("body"))["data"]["jobs"]) == scene.jobs

    browser.visit(work, java_script_enabled=False)
