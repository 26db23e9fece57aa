"""Every operation of the first specification, asked of a running server: the facts in specification.json hold.

One conversation asks all of them in an order that gives each what it needs; a test for each section looks at
what was answered. It is held twice: with a server in a process of its own on SQLite, and with the application
on PostgreSQL.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.auth.policies import POLICIES
from tests.support.app import PROBLEM, RunningApp, problem
from tests.support.process import init, serve
from tests.support.specification import (
    ANY_TOKEN,
    NO_TOKEN,
    Address,
    Conversation,
    Exchange,
    Operation,
    document,
    mismatches,
    package,
    part,
    path_of,
    placeholders,
    specification,
    table,
)

#: The document's operations by chapter. 3.1.2 describes two.
_CHAPTERS = """
2.3.3 2.3.4
3.1.2-GET 3.1.2-POST
4.1 4.2 4.3 4.4 4.5 4.6.3 4.6.4
5.1 5.2 5.3 5.4 5.5 5.6 5.7 5.8
6.1 6.2 6.3 6.4 6.5 6.6 6.7 6.8 6.9 6.10 6.11 6.12 6.13 6.14 6.15
7.1 7.2
8.1
9.1 9.2 9.3 9.4 9.5 9.6 9.7 9.8 9.9 9.10
10.1 10.2 10.3 10.4 10.5 10.6 10.7 10.8
11.1 11.2 11.3 11.4
12.1 12.2 12.3 12.4 12.5 12.6
13.1 13.2 13.3 13.4 13.5 13.6 13.7 13.8 13.9 13.10
14.1 14.2 14.3 14.4.3 14.4.4 14.4.5 14.5 14.6 14.7
"""
SECTIONS = _CHAPTERS.split()
SERVED = [section for section in SECTIONS if specification().operations[section].served]
DEVIATING = [section for section in SERVED if specification().operations[section].deviation]

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "specification.md"


def work_through(talk: Conversation) -> None:
    """Ask every operation that is served. What removes something comes last."""
    ask, everywhere = talk.ask, talk.everywhere
    ask("2.3.3")
    everywhere("2.3.4")
    people(talk)
    for section in ("11.2", "11.3", "11.4", "11.1"):
        everywhere(section)
    workflows(talk)
    collections(talk)
    report_templates(talk)
    triggers(talk)
    ask("10.8")
    jobs(talk)
    for section in ("7.1", "7.2", "8.1"):
        everywhere(section)
    scheduled_jobs(talk)
    ask("6.7")
    ask("6.14", body="@pausedJob", known={"pausedJob": "incomplete"})
    everywhere("6.13")
    everywhere("9.5")
    for section in ("6.8", "10.7", "4.5", "14.6", "14.7"):
        ask(section)
    everywhere("5.7")
    ask("5.8")
    ask("13.10")


def people(talk: Conversation) -> None:
    """Two users and two groups. One user signs in; a password that was reset would have to be changed first."""
    talk.ask("13.3")
    another = {"username": f"another.{talk.known['username']}"}
    talk.known["otherUserId"] = part(document(talk.ask("13.3", known=another)), "userId")
    for section in ("13.9", "13.4", "13.8", "13.5", "13.7", "13.1", "13.2"):
        talk.everywhere(section)
    talk.everywhere("13.6", known={"userId": talk.known["otherUserId"]})
    form = {"grant_type": "password", "username": talk.known["username"], "password": talk.known["password"]}
    token = part(document(talk.http.post("/connect/token", data=form)), "access_token")
    talk.known["user"] = f"Bearer {token}"

    without_api, with_api = specification().operations["5.2"].addresses
    talk.ask("5.2", at=without_api)
    second = talk.ask("5.2", at=with_api, body={"name": "Second group"}, known={})
    for section in ("5.5", "5.6", "5.3", "5.1", "5.4"):
        talk.everywhere(section)
    bare = specification().operations["5.8"].addresses[1]
    talk.ask("5.8", at=bare, known={"groupId": part(document(second), "id")})


def workflows(talk: Conversation) -> None:
    """A workflow of two versions, the second of them active."""
    talk.upload("14.4.3", "14.4.4", package(153_600))
    talk.ask("14.4.5")
    for section in ("14.1", "14.2", "14.3"):
        talk.everywhere(section)
    talk.upload("14.4.3", "14.4.4", package(140_000))
    talk.ask("14.4.5", change={"workflowId": talk.known.get("workflowId")})
    seen = talk.ask("14.2", known={})
    versions = {entry["version"]: entry["versionId"] for entry in part(document(seen), "versions") or []}
    talk.known["newVersionId"] = versions.get(2)
    talk.everywhere("14.5")


def collections(talk: Conversation) -> None:
    """A collection with a file, which is read after the answer to its last block."""
    talk.ask("4.4")
    talk.upload("4.6.3", "4.6.4", table(153_600))
    talk.wait_until("4.1", "collections.0.headerNames.0")
    for section in ("4.1", "4.2", "4.3"):
        talk.everywhere(section)


def report_templates(talk: Conversation) -> None:
    """A template that is the default for a while."""
    for section in ("9.8", "9.6", "9.4", "9.7", "9.10", "9.9", "9.1", "9.2", "9.3"):
        talk.everywhere(section)


def triggers(talk: Conversation) -> None:
    """A trigger that stays disabled."""
    talk.ask("12.3")
    for section in ("12.4", "12.5", "12.6", "12.1", "12.2"):
        talk.everywhere(section)


def jobs(talk: Conversation) -> None:
    """A paused job of the scheduled one's task, and a completed one."""
    talk.ask("6.14", body="@pausedJob")
    for section in ("6.12", "6.14", "3.1.2-GET", "3.1.2-POST", "6.15", "6.4", "6.5", "6.1", "6.2", "6.3"):
        talk.everywhere(section)
    talk.everywhere("6.6", by=talk.known["user"])
    for section in ("6.9", "6.10", "6.11"):
        talk.everywhere(section)


def scheduled_jobs(talk: Conversation) -> None:
    """The scheduled job's one task is paused, then completed, and so is the scheduled job."""
    for section in ("10.6", "10.1", "10.2", "10.4"):
        talk.everywhere(section)
    talk.everywhere("10.3", by=talk.known["user"])
    talk.ask("10.4", change={"state": "Completed", "updated": "2021-10-06T08:00:00"})
    talk.everywhere("10.5")


@pytest.fixture(scope="module", params=["server on SQLite", "application on PostgreSQL"])
def talk(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    apps: Callable[[str], RunningApp],
) -> Iterator[Conversation]:
    """The conversation, after it was held."""
    if request.param == "application on PostgreSQL":
        team = apps("postgresql").team()
        held = Conversation(team.app.http, team.owner.headers["Authorization"], username="talk@example.com")
        work_through(held)
        yield held
        return
    folder = tmp_path_factory.mktemp("specification")
    created = init(folder / "data")
    server = serve(folder, folder / "data")
    try:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=30) as http:
            held = Conversation(http, f"Bearer {server.token(created)}")
            work_through(held)
            yield held
    finally:
        server.kill()


@pytest.fixture(scope="module")
def strangers(talk: Conversation) -> dict[str, str]:
    """Authorizations by what they lack: no policy is met by all of them."""
    clients = {
        "scope spoke.client": {"scopes": ["spoke.client"], "permissions": ["owner"]},
        "scope query.read": {"scopes": ["query.read"], "permissions": ["owner"]},
        "permission SPOKE": {"scopes": every_scope(), "permissions": ["spoke"]},
        "permission DATAVIEWER": {"scopes": every_scope(), "permissions": ["dataviewer"]},
    }
    return {name: client(talk, {"name": name, **body}) for name, body in clients.items()}


def every_scope() -> list[str]:
    return sorted({scope for policy in POLICIES.values() for scope in policy.scopes})


def client(talk: Conversation, body: dict[str, object]) -> str:
    """The authorization of a new client."""
    headers = {"Authorization": talk.authorization}
    created = talk.http.post("/api/client", json=body, headers=headers)
    assert created.status_code == 200, created.text
    form = {
        "grant_type": "client_credentials",
        "client_id": created.json()["client"]["clientId"],
        "client_secret": created.json()["newSecret"],
    }
    answer = talk.http.post("/connect/token", data=form)
    assert answer.status_code == 200, answer.text
    return f"Bearer {answer.json()['access_token']}"


# The facts themselves


def test_the_facts_are_those_of_84_operations() -> None:
    assert list(specification().operations) == SECTIONS
    assert len(SECTIONS) == 84


@pytest.mark.parametrize("section", SECTIONS)
def test_what_a_request_needs_is_known_or_given_by_another(section: str) -> None:
    facts = specification()
    operation = facts.operations[section]
    given = {name for other in facts.operations.values() for name in other.gives}
    # Said by the conversation: files, the second user, the second version.
    given |= {"fileSize", "block", "blockLength", "blockStart", "blockEnd", "otherUserId", "newVersionId"}
    needed = placeholders([operation.parameters, operation.query, operation.headers, operation.body])
    assert needed <= given | set(facts.values)
    assert operation.policy in POLICIES or operation.policy in (ANY_TOKEN, NO_TOKEN)
    for address in operation.addresses:
        assert set(re.findall(r"\{(\w+)\}", address.template)) == set(operation.parameters)


@pytest.mark.parametrize("section", DEVIATING)
def test_a_deviation_has_its_row_in_the_documentation(section: str) -> None:
    sections = documented(DOCUMENTATION.read_text(encoding="utf-8"))
    said = section.partition("-")[0] in sections
    assert said, f"docs/specification.md lacks {section}: {specification().operations[section].deviation}"


def documented(text: str) -> set[str]:
    """The sections that "Contradictions settled" and "Blanks filled" name."""
    chapters = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE))
    rows = re.findall(r"^\| ([^|]+) \|", chapters["Contradictions settled"], re.MULTILINE)
    items = re.findall(r"^- \*\*(.+?)\*\*", chapters["Blanks filled"], re.MULTILINE)
    found: set[str] = set()
    for entry in (*rows, *items):
        for first, last in re.findall(r"(\d+(?:\.\d+)+)(?: to (\d+(?:\.\d+)+))?", entry):
            chapter, _, number = first.rpartition(".")
            end = int(last.rpartition(".")[2]) if last else int(number)
            # What names a part of a section names the section.
            found |= {f"{chapter}.{each}" for each in range(int(number), end + 1)} | {chapter}
    return found


@pytest.mark.parametrize("section", SERVED)
def test_an_operation_that_is_served_is_in_the_documentation(section: str) -> None:
    operation = specification().operations[section]
    text = DOCUMENTATION.read_text(encoding="utf-8")
    rows = re.findall(rf"^\| {re.escape(section)} \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)
    assert len(rows) == 1, f"docs/specification.md has no row {section}"
    (request, policy) = rows[0]
    assert policy == operation.policy
    path = re.sub(r"\{\w+\}", "{}", operation.path).rstrip("/")
    assert path in re.sub(r"\{\w+\}", "{}", request)
    assert operation.method in request


# The answers


@pytest.mark.parametrize("section", SERVED)
def test_an_operation_answers_as_the_specification_says(talk: Conversation, section: str) -> None:
    operation = specification().operations[section]
    exchanges = talk.exchanges[section]
    assert {exchange.address.template.rstrip("/") for exchange in exchanges} == {
        address.template.rstrip("/") for address in operation.addresses
    }, "not every address was asked"
    wrong = [line for exchange in exchanges for line in complaints(operation, exchange)]
    assert not wrong, "\n".join(wrong)


def complaints(operation: Operation, exchange: Exchange) -> list[str]:
    """What is wrong with an answer."""
    response = exchange.response
    if response.status_code != exchange.expected:
        return [f"{exchange.expected} expected: {exchange}"]
    if operation.answer is None:
        return [] if response.content == b"" else [f"no body expected: {exchange}"]
    content = response.headers.get("content-type", "")
    if content.partition(";")[0] != operation.content:
        return [f"{exchange.address} answers {content!r}, not {operation.content}"]
    answer = document(response) if operation.content == "application/json" else response.text
    return [f"{exchange.address}: {line}" for line in mismatches(answer, operation.answer)]


@pytest.mark.parametrize("section", SERVED)
def test_an_operation_takes_the_policy_that_the_facts_name(
    talk: Conversation, strangers: dict[str, str], section: str
) -> None:
    operation = specification().operations[section]
    for address in operation.addresses:
        for spelling in address.spellings():
            look_at_policy(talk, strangers, operation, spelling)


def look_at_policy(
    talk: Conversation, strangers: dict[str, str], operation: Operation, address: Address
) -> None:
    """Ask with tokens that lack something, for what nobody has."""

    def ask(authorization: str | None) -> httpx.Response:
        path = path_of(operation, address, {})
        headers = {} if authorization is None else {"Authorization": authorization}
        return talk.http.request(address.method, path, headers=headers, content=b"{}")

    if operation.policy == NO_TOKEN:
        assert document(ask(None))["code"] not in ("token-missing", "no-such-route")
        return
    problem(ask(None), 401, "token-missing")
    if operation.policy == ANY_TOKEN:
        for stranger in strangers.values():
            response = ask(stranger)
            refusal = response.headers["content-type"] == PROBLEM and response.json()
            assert response.status_code != 401, response.text
            assert not refusal or "policy" not in refusal, response.text
        return
    # A workflow may be read by the clients that all others refuse.
    reading = operation.policy == "Workflow_Read"
    scope = "scope query.read" if reading else "scope spoke.client"
    permission = "permission DATAVIEWER" if reading else "permission SPOKE"
    assert problem(ask(strangers[scope]), 403, "insufficient-scope")["policy"] == operation.policy
    assert problem(ask(strangers[permission]), 403, "insufficient-permission")["policy"] == operation.policy


# The checker


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ({}, {"a": "any"}),
        ({"a": None}, {"a": "string"}),
        ({"a": 1}, {"a": "boolean"}),
        ({"a": True}, {"a": "integer"}),
        ({"a": 1.5}, {"a": "integer"}),
        ({"a": "2025-03-03"}, {"a": "time"}),
        ({"a": "2025-03-03T09:00:00"}, {"a": "time|null"}),
        ({"a": ""}, {"a": "id"}),
        ({"a": "a/b"}, {"a": "id"}),
        ({"a": "file:///x"}, {"a": "url"}),
        ({"a": {"x": "2025-03-03T09:00:00Z"}}, {"a": {"<time>": "time"}}),
        ({"a": {}}, {"a": {"<id>": "time"}}),
        ([], ["any"]),
        ({}, []),
        ([], {}),
        ([{"b": 1}, {"b": None}], [{"b": "integer"}]),
        ({"singleStep": {}, "reportStep": None}, "@step|null"),
    ],
)
def test_the_checker_sees_what_does_not_fit(value: object, shape: object) -> None:
    assert mismatches(value, shape)


def test_the_checker_takes_what_fits_and_further_keys() -> None:
    shape = {"a": "id", "b": ["string|null"], "c": [], "d": {"<time>": "integer"}, "e": "@report|null"}
    report = {"jobId": "1", "status": "Completed", "reportUrl": "https://x/y", "more": 1}
    value = {"a": "x", "b": ["", None], "c": [], "d": {"2025-03-03T09:00:00.1Z": 1}, "e": report, "f": 1}
    assert mismatches(value, shape) == []
    assert mismatches({**value, "e": None}, shape) == []
