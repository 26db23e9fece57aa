"""Machine-to-machine clients (section 2.3.3)."""

from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.api.auth_app import OWNER, AuthApp, bearer, running

SCOPES = [
    "https://www.flow.librestream.com/auth/workflow.read",
    "https://www.flow.librestream.com/auth/schedule.admin",
]
BODY: dict[str, Any] = {"name": "My Job Scheduling Application", "scopes": SCOPES, "permissions": ["admin"]}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthApp]:
    with running(tmp_path_factory.mktemp("clients")) as app:
        yield app


def create(app: AuthApp, **changes: Any) -> dict[str, Any]:
    response = app.http.post("/api/client/", json=BODY | changes, headers=app.owner())
    assert response.status_code == 200, response.text
    return dict(response.json())


def token_status(app: AuthApp, client_id: str, secret: str) -> int:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    return int(app.grant(**form).status_code)


@pytest.mark.parametrize("path", ["/api/client/", "/api/client"])
def test_the_answer_is_as_the_document_prints_it(app: AuthApp, path: str) -> None:
    response = app.http.post(path, json=BODY, headers=app.owner())
    assert response.status_code == 200
    answer = response.json()
    client_id = answer["client"]["clientId"]
    secret_id = answer["client"]["secrets"][0]["secretId"]
    assert answer == {
        "client": {
            "clientId": client_id,
            "grantTypes": ["client_credentials"],
            "secrets": [{"secretId": secret_id}],
            "teamName": "alpha",
            "displayName": "My Job Scheduling Application",
            "scopes": SCOPES,
            "allowAccessTokensViaBrowser": False,
            "clientPermissions": ["admin"],
        },
        "newSecret": answer["newSecret"],
    }
    assert len(client_id) == len(secret_id) == 24


def test_the_new_client_gets_tokens_with_its_scopes_as_registered(app: AuthApp) -> None:
    created = create(app)
    token = app.client_token(created["client"]["clientId"], created["newSecret"])
    assert jwt.decode(token, options={"verify_signature": False})["scope"] == SCOPES
    who = app.http.get("/whoami", headers=bearer(token)).json()
    assert who["permissions"] == ["ADMIN"]
    assert who["scopes"] == ["schedule.admin", "workflow.read"]
    assert who["kind"] == "client"


def test_a_client_cannot_ask_for_more_than_it_was_given(app: AuthApp) -> None:
    created = create(app)
    form = {
        "grant_type": "client_credentials",
        "client_id": created["client"]["clientId"],
        "client_secret": created["newSecret"],
    }
    assert app.grant(**form, scope="job.admin").json()["error"] == "invalid_scope"
    assert app.grant(**form, permissions="owner").json()["error"] == "invalid_scope"
    assert app.grant(**form, permissions="admin", scope="WORKFLOW.READ").status_code == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scopes": ["workflow.read", "workflow.fly"]}, "scopes[1]"),
        ({"scopes": ["a b/workflow.read"]}, "scopes[0]"),
        ({"scopes": ["workflow.read", 7]}, "scopes[1]"),
        ({"scopes": "workflow.read"}, "scopes"),
        ({"permissions": ["god"]}, "permissions[0]"),
        ({"name": ""}, "name"),
        ({"name": "   "}, "name"),
        ({"name": "a\r\nb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": None}, "name"),
    ],
)
def test_what_cannot_be_taken_is_named(app: AuthApp, changes: dict[str, Any], field: str) -> None:
    response = app.http.post("/api/client/", json=BODY | changes, headers=app.owner())
    assert (response.status_code, response.json()["field"]) == (422, field)


def test_a_missing_member_is_named_and_malformed_json_is_400(app: AuthApp) -> None:
    headers = app.owner()
    missing = app.http.post("/api/client/", json={"name": "x", "scopes": []}, headers=headers)
    assert (missing.status_code, missing.json()["field"]) == (422, "permissions")
    for body in (b"{", b"", b"\xff", b"[" * 5000):
        malformed = app.http.post("/api/client/", content=body, headers=headers)
        assert malformed.status_code in (400, 422), body
    assert app.http.post("/api/client/", content=b"{", headers=headers).status_code == 400


def test_only_an_owner_with_the_scope_creates_clients(app: AuthApp) -> None:
    user = app.create_user("adam", admin=True)
    token = app.sign_in("adam", user["password"])["access_token"]
    refused = app.http.post("/api/client/", json=BODY, headers=bearer(token))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient-permission")
    token = app.sign_in(OWNER, app.team["password"], scope="job.admin")["access_token"]
    refused = app.http.post("/api/client/", json=BODY, headers=bearer(token))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient-scope")
    assert app.http.post("/api/client/", json=BODY).status_code == 401


def test_the_list_shows_the_team_s_clients_without_secrets(app: AuthApp) -> None:
    created = create(app, name="Listed")
    response = app.http.get("/api/client", headers=app.owner())
    assert response.status_code == 200
    assert created["client"] in response.json()
    assert created["newSecret"] not in response.text
    assert app.team["clientId"] in {client["clientId"] for client in response.json()}
    others = app.http.get("/api/client", headers=app.other_owner()).json()
    assert [client["clientId"] for client in others] == [app.other_team["clientId"]]


def test_a_revoked_client_gets_no_tokens_and_those_it_has_are_refused(app: AuthApp) -> None:
    created = create(app)
    client_id = created["client"]["clientId"]
    token = app.client_token(client_id, created["newSecret"])
    assert app.http.get("/whoami", headers=bearer(token)).status_code == 200
    revoked = app.http.delete(f"/api/client/{client_id}", headers=app.owner())
    assert (revoked.status_code, revoked.content) == (200, b"")
    refused = app.http.get("/whoami", headers=bearer(token))
    assert (refused.status_code, refused.json()["code"]) == (401, "account-locked")
    assert token_status(app, client_id, created["newSecret"]) == 401
    assert client_id not in app.http.get("/api/client", headers=app.owner()).text
    assert app.http.delete(f"/api/client/{client_id}", headers=app.owner()).status_code == 404
    assert app.http.post(f"/api/client/{client_id}/secrets", headers=app.owner()).status_code == 404


def test_secrets_are_exchanged_without_an_outage(app: AuthApp) -> None:
    created = create(app)
    client_id, old = created["client"]["clientId"], created["newSecret"]
    added = app.http.post(f"/api/client/{client_id}/secrets", headers=app.owner())
    assert added.status_code == 200
    new = added.json()["newSecret"]
    first, second = (secret["secretId"] for secret in added.json()["client"]["secrets"])
    assert first == created["client"]["secrets"][0]["secretId"]
    assert token_status(app, client_id, old) == token_status(app, client_id, new) == 200
    removed = app.http.delete(f"/api/client/{client_id}/secrets/{first}", headers=app.owner())
    assert (removed.status_code, removed.content) == (200, b"")
    assert token_status(app, client_id, old) == 401
    assert token_status(app, client_id, new) == 200
    again = app.http.delete(f"/api/client/{client_id}/secrets/{first}", headers=app.owner())
    assert again.status_code == 404
    assert second not in (first, "")


def test_another_team_s_client_is_not_there(app: AuthApp) -> None:
    created = create(app)
    client_id = created["client"]["clientId"]
    secret_id = created["client"]["secrets"][0]["secretId"]
    headers = app.other_owner()
    for method, path in (
        ("DELETE", f"/api/client/{client_id}"),
        ("POST", f"/api/client/{client_id}/secrets"),
        ("DELETE", f"/api/client/{client_id}/secrets/{secret_id}"),
    ):
        theirs = app.http.request(method, path, headers=headers)
        unknown = app.http.request(method, path.replace(client_id, "f" * 24), headers=headers)
        assert theirs.status_code == unknown.status_code == 404
        assert theirs.json() == unknown.json()
    assert token_status(app, client_id, created["newSecret"]) == 200
