"""Every route, every permission, every scope: allowed exactly if the policy table says so.

Generated from the application's own routes: a new one is in the matrix at once, and one without a policy
fails here.
"""

import asyncio
import json
import time
from collections import Counter

import pytest
from litestar import Litestar, get
from litestar.testing import TestClient

from server.auth.authority import OR_KEY, Authority
from server.auth.policies import ANY_TOKEN, PUBLIC
from server.errors import handle
from storage.database import Connection
from storage.queries.clients import revoke_client
from storage.queries.users import set_user_locked
from tests.support.app import Account, RunningApp, Team, problem
from tests.support.routes import Answer, Route, ask, routes_of

#: Section 2.4 with our additions, read by hand and kept apart from the product's own table.
#: policy -> scopes, permissions; one of each is enough.
TABLE: dict[str, tuple[str, str]] = {
    "Client_Admin": ("team.admin", "OWNER"),
    "Job_Modify": ("job.modify job.admin", "OWNER MODIFIER"),
    "Job_Read": ("job.read job.read_all job.admin", "OWNER ADMIN EXECUTOR"),
    "Job_ReadAll": ("job.read_all job.modify job.admin", "OWNER ADMIN DATAVIEWER"),
    "Query_Admin": ("query.admin", "OWNER ADMIN"),
    "Query_Read": ("query.read query.admin", "OWNER ADMIN DATAVIEWER"),
    "Reports_Admin": ("reports.admin", "OWNER ADMIN"),
    "Reports_Create": ("reports.create reports.admin", "OWNER ADMIN EDITOR"),
    "Reports_Modify": ("reports.modify reports.admin", "OWNER ADMIN"),
    "Reports_Read": ("reports.read reports.create reports.admin", "OWNER ADMIN EDITOR DATAVIEWER"),
    "Schedule_Admin": ("schedule.admin", "OWNER ADMIN"),
    "Schedule_Read": ("schedule.read schedule.read_all schedule.admin", "OWNER ADMIN EXECUTOR"),
    "Schedule_ReadAll": ("schedule.read_all schedule.admin", "OWNER ADMIN"),
    "Spoke_Client": ("spoke.client", "SPOKE"),
    "Team_Admin": ("team.admin", "OWNER ADMIN"),
    "TeamSettings_Admin": ("teamsettings.admin", "OWNER ADMIN"),
    "TeamSettings_Read": ("teamsettings.read teamsettings.admin", "OWNER ADMIN EDITOR APPROVER EXECUTOR"),
    "Trigger_Admin": ("trigger.admin", "OWNER ADMIN"),
    "Trigger_Execute": ("workflow.execute workflow.admin", "OWNER ADMIN"),
    "Trigger_Read": ("trigger.read trigger.admin", "OWNER ADMIN"),
    "Workflow_Admin": ("workflow.admin", "OWNER ADMIN"),
    "Workflow_Approve": ("workflow.approve", "APPROVER"),
    "Workflow_Create": ("workflow.create workflow.admin", "OWNER ADMIN EDITOR"),
    "Workflow_Delete": ("workflow.delete workflow.admin", "OWNER ADMIN EDITOR"),
    "Workflow_Execute": ("workflow.execute", "EXECUTOR ADMIN OWNER"),
    "Workflow_Modify": ("workflow.modify workflow.admin", "OWNER ADMIN EDITOR"),
    "Workflow_Read": (
        "workflow.read workflow.execute workflow.admin spoke.client",
        "OWNER ADMIN EDITOR APPROVER SPOKE EXECUTOR",
    ),
}
PERMISSIONS = ["OWNER", "ADMIN", "EDITOR", "APPROVER", "DATAVIEWER", "MODIFIER", "EXECUTOR", "SPOKE"]
SCOPES = sorted({scope for scopes, _ in TABLE.values() for scope in scopes.split()})

#: Refusals of the guard, as opposed to those of a handler that was reached.
GUARD_CODES = {"insufficient-scope", "insufficient-permission", "token-missing", "token-invalid"}


@pytest.fixture(scope="module")
def matrix_team(sqlite_app: RunningApp) -> Team:
    return sqlite_app.team()


@pytest.fixture(scope="module")
def routes(sqlite_app: RunningApp) -> list[Route]:
    return routes_of(sqlite_app.litestar)


@pytest.fixture(scope="module")
def guarded(routes: list[Route]) -> list[Route]:
    return [route for route in routes if route.policy != PUBLIC]


def path_of(route: Route) -> str:
    """An address of the route that names nothing there is."""
    return route.template.format(**dict.fromkeys(route.parameters, "nothing"))


async def refused(app: Litestar, route: Route, headers: dict[str, str]) -> str | None:
    """The code with which the guard refuses a stub of a request; None if it lets it pass."""
    answer = await ask(app, route.method, path_of(route), headers, b"{}")
    assert answer.status != 500, (str(route), answer)
    if answer.status not in (401, 403):
        return None
    code: str = json.loads(answer.body)["code"]
    return code


def test_every_route_has_a_policy(routes: list[Route]) -> None:
    assert len(routes) > 20
    known = {*TABLE, ANY_TOKEN, PUBLIC}
    assert [str(route) for route in routes if route.policy not in known] == []


def test_the_routes_open_to_everybody_are_these(routes: list[Route]) -> None:
    assert {str(route) for route in routes if route.policy == PUBLIC} == {
        "GET /.well-known/jwks.json",
        "GET /.well-known/openid-configuration",
        "GET /account/change",
        "GET /account/forgotten",
        "GET /account/new-password",
        "GET /account/oidc/callback",
        "GET /account/oidc/start",
        "GET /connect/authorize",
        "GET /files/v1/{token}",
        "GET /healthz",
        "GET /query",
        "GET /query/plain",
        "GET /query/static/assets/{name}",
        "GET /readyz",
        "GET /schema",
        "GET /schema/openapi.json",
        "GET /schema/{path}",
        "HEAD /files/v1/{token}",
        "OPTIONS /attachments/v1/tus",
        "OPTIONS /attachments/v1/tus/{tus_id}",
        "POST /account/change",
        "POST /account/forgotten",
        "POST /account/new-password",
        "POST /account/password",
        "POST /account/password-link",
        "POST /connect/authorize",
        "POST /connect/token",
        "PUT /files/v1/{token}",
    }


def test_the_routes_that_take_a_query_key_are_these(routes: list[Route]) -> None:
    assert {str(route) for route in routes if route.handler.opt.get(OR_KEY)} == {
        f"{method} {path}/query/v2/graph" for method in ("GET", "POST") for path in ("", "/api")
    }


def test_a_route_without_a_policy_is_closed(sqlite_app: RunningApp) -> None:
    @get("/forgotten")
    async def forgotten() -> str:
        return "secret"

    authority: Authority = sqlite_app.authority
    app = Litestar(
        [forgotten],
        guards=[authority.authorize],
        exception_handlers={Exception: handle},
        logging_config=None,
        openapi_config=None,
    )
    with TestClient(app) as client:
        response = client.get("/forgotten")
    problem(response, 500, "internal")
    assert "secret" not in response.text


def test_each_permission_and_scope_opens_what_the_table_says(
    sqlite_app: RunningApp, matrix_team: Team, guarded: list[Route]
) -> None:
    """The first route of each policy with every permission and scope; the others with each permission and with each
    scope, but not with each pair: what tells pairs apart is the policy.
    """
    people = {permission: matrix_team.user(permission) for permission in sorted(PERMISSIONS)}
    wrong: list[tuple[str, str, str, str | None]] = []
    seen: Counter[str | None] = Counter()
    places: dict[Route, int] = {}
    for route in guarded:
        places[route] = seen[route.policy]
        seen[route.policy] += 1

    async def run() -> int:
        asked = 0
        for number, (permission, person) in enumerate(people.items()):
            for position, scope in enumerate(sorted(SCOPES)):
                token = sqlite_app.authority.issue_access_token(
                    matrix_team.team_id, person.subject_id, "user", [scope]
                )
                headers = {"Authorization": f"Bearer {token}"}
                for route, place in places.items():
                    if place and (number + position + place) % len(people):
                        continue
                    code = await refused(sqlite_app.litestar, route, headers)
                    asked += 1
                    if code != expected_refusal(route, permission, scope):
                        wrong.append((str(route), permission, scope, code))
                await asyncio.sleep(0)
        return asked

    assert sqlite_app.call(run) > len(PERMISSIONS) * len(SCOPES) * len(seen)
    assert wrong == []


def expected_refusal(route: Route, permission: str, scope: str) -> str | None:
    """What the guard must say, after :data:`TABLE`."""
    assert route.policy is not None
    if route.policy == ANY_TOKEN:
        return None
    scopes, permissions = TABLE[route.policy]
    if scope not in scopes.split():
        return "insufficient-scope"
    return None if permission in permissions.split() else "insufficient-permission"


def codes(app: RunningApp, guarded: list[Route], headers: dict[str, str]) -> set[str | None]:
    """What the guard says on every route."""

    async def run() -> set[str | None]:
        return {await refused(app.litestar, route, headers) for route in guarded}

    return app.call(run)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic b3duZXI6cGFzc3dvcmQ="},
        {"X-Authorization": "Bearer x"},
    ],
)
def test_no_route_works_without_a_token(
    sqlite_app: RunningApp, guarded: list[Route], headers: dict[str, str]
) -> None:
    assert codes(sqlite_app, guarded, headers) == {"token-missing"}


def test_a_query_key_gets_past_the_guard_only_where_one_is_taken(
    sqlite_app: RunningApp, guarded: list[Route]
) -> None:
    async def run() -> dict[str, set[str]]:
        said: dict[str, set[str]] = {}
        for route in guarded:
            answer = await ask(sqlite_app.litestar, route.method, f"{path_of(route)}?key=QK1", body=b"{}")
            said.setdefault(json.loads(answer.body)["code"], set()).add(str(route))
        return said

    taking = {str(route) for route in guarded if route.handler.opt.get(OR_KEY)}
    others = {str(route) for route in guarded} - taking
    assert sqlite_app.call(run) == {"query-key-invalid": taking, "token-missing": others}


def test_whoever_comes_with_nothing_is_told_of_the_key_only_where_one_is_taken(
    sqlite_app: RunningApp, guarded: list[Route]
) -> None:
    async def run() -> dict[str, str]:
        answers = {
            str(route): await ask(sqlite_app.litestar, route.method, path_of(route)) for route in guarded
        }
        return {route: json.loads(answer.body)["detail"] for route, answer in answers.items()}

    details = sqlite_app.call(run)
    assert all("Authorization: Bearer" in detail for detail in details.values())
    assert {route for route, detail in details.items() if "?key=" in detail} == {
        str(route) for route in guarded if route.handler.opt.get(OR_KEY)
    }


def test_no_route_takes_a_token_that_is_not_ours(
    sqlite_app: RunningApp, matrix_team: Team, guarded: list[Route]
) -> None:
    good = matrix_team.owner.headers["Authorization"]
    head, payload, _ = good.split(".")
    for token in (f"{head}.{payload}.", f"{head}.{payload}.AAAA", "Bearer x", good[:-10], "Bearer \xff"):
        assert codes(sqlite_app, guarded, {"Authorization": token}) == {"token-invalid"}


def test_a_token_in_the_address_is_none(
    sqlite_app: RunningApp, matrix_team: Team, guarded: list[Route]
) -> None:
    token = matrix_team.owner.headers["Authorization"].removeprefix("Bearer ")

    async def run() -> set[int]:
        answers: list[Answer] = [
            await ask(sqlite_app.litestar, route.method, f"{path_of(route)}?access_token={token}")
            for route in guarded
        ]
        return {answer.status for answer in answers}

    assert sqlite_app.call(run) == {401}


def test_no_route_takes_a_token_without_scopes_or_permissions(
    sqlite_app: RunningApp, matrix_team: Team, guarded: list[Route]
) -> None:
    policed = [route for route in guarded if route.policy != ANY_TOKEN]
    assert codes(sqlite_app, policed, matrix_team.user().headers) == {"insufficient-permission"}
    assert codes(sqlite_app, policed, matrix_team.client("OWNER", scopes=[]).headers) == {
        "insufficient-scope"
    }


def _lock(connection: Connection, team: Team, account: Account) -> None:
    set_user_locked(connection, team.team_id, account.subject_id, True)


def _revoke(connection: Connection, team: Team, account: Account) -> None:
    assert revoke_client(connection, team.team_id, account.subject_id, 1)


@pytest.mark.parametrize("kind", ["user", "client"])
def test_a_locked_user_and_a_revoked_client_are_refused_everywhere_within_5_seconds(
    app: RunningApp, kind: str
) -> None:
    guarded = [route for route in routes_of(app.litestar) if route.policy != PUBLIC]
    team = app.team()
    # Approving is not the owners': Workflow_Approve takes APPROVER alone.
    held = ("OWNER", "APPROVER")
    account = team.user(*held) if kind == "user" else team.client(*held)
    assert codes(app, guarded, account.headers) == {None}
    # Another process does it: nothing tells this one.
    app.write(_lock if kind == "user" else _revoke, team, account)
    since = time.monotonic()
    while codes(app, guarded[:1], account.headers) == {None}:
        assert time.monotonic() - since < 5
        time.sleep(0.1)
    assert codes(app, guarded, account.headers) == {"account-locked"}
