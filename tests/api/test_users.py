"""Users: rows 13.3 to 13.9 of the specification's section 13."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from server.setup import create_team
from tests.api.auth_app import OWNER, AuthApp, bearer, running


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthApp]:
    with running(tmp_path_factory.mktemp("users")) as app:
        yield app


def owner_id(app: AuthApp) -> str:
    return str(app.http.get("/whoami", headers=app.owner()).json()["subjectId"])


def put_flags(app: AuthApp, user_id: str, flags: Any, headers: dict[str, str] | None = None) -> Any:
    return app.http.put(f"/api/team/user/{user_id}/permissions", json=flags, headers=headers or app.owner())


def test_the_created_user_is_as_the_document_prints_it(app: AuthApp) -> None:
    body = {
        "username": "chege.naengop@solarenergy.com",
        "emailAddress": "chege.naengop@solarenergy.com",
        "name": "Chege Naengop",
    }
    response = app.http.post("/api/team/user", json=body, headers=app.owner())
    assert response.status_code == 200
    answer = response.json()
    assert list(answer) == [
        "password",
        "teamName",
        "mode",
        "userId",
        "username",
        "emailAddress",
        "name",
        "created",
        "locked",
    ]
    assert answer | body == answer
    assert (answer["teamName"], answer["mode"], answer["locked"]) == ("alpha", 0, False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer["created"])
    assert len(answer["password"]) >= 16
    token = app.sign_in(body["username"], answer["password"])["access_token"]
    assert app.http.get("/whoami", headers=bearer(token)).json()["permissions"] == []


def test_a_username_is_taken_whatever_its_case_and_team(app: AuthApp) -> None:
    app.create_user("Twice")
    body = {"username": "tWICE", "emailAddress": "t@beta.example", "name": "T"}
    for headers in (app.owner(), app.other_owner()):
        response = app.http.post("/api/team/user", json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (409, "username-taken")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"username": ""}, "username"),
        ({"username": 7}, "username"),
        ({"emailAddress": "nobody"}, "emailAddress"),
        ({"emailAddress": "@beta.example"}, "emailAddress"),
        ({"emailAddress": "a@b\r\nBcc: c@d"}, "emailAddress"),
        ({"emailAddress": "a@" + "b" * 253}, "emailAddress"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": None}, "name"),
    ],
)
def test_what_cannot_be_taken_is_named(app: AuthApp, changes: dict[str, Any], field: str) -> None:
    body = {"username": "new", "emailAddress": "new@alpha.example", "name": "New"} | changes
    response = app.http.post("/api/team/user", json=body, headers=app.owner())
    assert (response.status_code, response.json()["field"]) == (422, field)
    assert response.json()["code"] == "invalid-body"


def test_malformed_json_is_400(app: AuthApp) -> None:
    for path, method in (("/api/team/user", "POST"), (f"/api/team/user/{'f' * 24}/permissions", "PUT")):
        response = app.http.request(method, path, content=b'{"username":', headers=app.owner())
        assert (response.status_code, response.json()["code"]) == (400, "malformed-json")


def test_only_true_flags_are_printed_and_flags_not_sent_stay(app: AuthApp) -> None:
    user_id = app.create_user("flags")["userId"]
    assert put_flags(app, user_id, {"admin": False, "dataViewer": True, "executor": True}).json() == {
        "dataViewer": True,
        "executor": True,
    }
    assert put_flags(app, user_id, {"editor": "true", "executor": "False"}).json() == {
        "editor": True,
        "dataViewer": True,
    }
    response = app.http.get(f"/api/team/user/{user_id}/permissions", headers=app.owner())
    assert (response.status_code, response.json()) == (200, {"editor": True, "dataViewer": True})


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"pilot": True}, "pilot"),
        ({"spoke": True}, "spoke"),
        ({"admin": "yes"}, "admin"),
        ({"editor": None}, "editor"),
    ],
)
def test_an_unknown_flag_or_value_is_named_and_nothing_changes(
    app: AuthApp, flags: dict[str, Any], field: str
) -> None:
    user_id = owner_id(app)
    response = put_flags(app, user_id, {"executor": True} | flags)
    assert (response.status_code, response.json()["field"]) == (422, field)
    response = app.http.get(f"/api/team/user/{user_id}/permissions", headers=app.owner())
    assert response.json() == {"owner": True}


def test_flags_that_are_no_object_are_refused(app: AuthApp) -> None:
    path = f"/api/team/user/{owner_id(app)}/permissions"
    for body in (b"[]", b"null", b'"admin"', b"1"):
        assert app.http.put(path, content=body, headers=app.owner()).status_code == 422


def test_only_an_owner_makes_or_unmakes_owners(app: AuthApp) -> None:
    admin = app.create_user("boss", admin=True)
    headers = bearer(app.sign_in("boss", admin["password"])["access_token"])
    raised = put_flags(app, admin["userId"], {"owner": True}, headers)
    assert (raised.status_code, raised.json()["code"]) == (403, "insufficient-permission")
    assert put_flags(app, owner_id(app), {"owner": False}, headers).status_code == 403
    assert put_flags(app, admin["userId"], {"owner": False, "editor": True}, headers).status_code == 200
    assert put_flags(app, owner_id(app), {"owner": True}, headers).status_code == 200


def test_the_last_owner_is_neither_locked_nor_demoted(app: AuthApp) -> None:
    last = owner_id(app)
    for response in (
        app.http.post(f"/api/team/{last}/lock", headers=app.owner()),
        put_flags(app, last, {"owner": False}),
    ):
        assert (response.status_code, response.json()["code"]) == (409, "last-owner")
    second = app.create_user("second", owner=True)
    app.http.post(f"/api/team/{second['userId']}/lock", headers=app.owner())
    # A locked owner cannot stand in.
    assert app.http.post(f"/api/team/{last}/lock", headers=app.owner()).status_code == 409
    app.http.post(f"/api/team/{second['userId']}/unlock", headers=app.owner())
    assert put_flags(app, last, {"owner": False}).status_code == 200
    headers = bearer(app.sign_in("second", second["password"])["access_token"])
    assert put_flags(app, last, {"owner": True}, headers).status_code == 200
    assert put_flags(app, second["userId"], {"owner": False}).status_code == 200


@pytest.mark.parametrize("path", ["/api/team/{id}", "/api/team/user/{id}"])
def test_locking_and_unlocking_answer_the_changed_user(app: AuthApp, path: str) -> None:
    user = app.create_user(f"lock{len(path)}", executor=True)
    for verb, locked in (("lock", True), ("lock", True), ("unlock", False)):
        response = app.http.post(f"{path.format(id=user['userId'])}/{verb}", headers=app.owner())
        assert response.status_code == 200
        assert response.json() == {
            "userId": user["userId"],
            "username": user["username"],
            "emailAddress": user["emailAddress"],
            "name": user["name"],
            "created": user["created"],
            "locked": locked,
        }


def test_another_team_s_user_is_not_there(app: AuthApp) -> None:
    user_id = app.create_user("alphas")["userId"]
    headers = app.other_owner()
    for method, path in (
        ("GET", "/api/team/user/{id}/permissions"),
        ("PUT", "/api/team/user/{id}/permissions"),
        ("POST", "/api/team/{id}/lock"),
        ("POST", "/api/team/user/{id}/lock"),
        ("POST", "/api/team/{id}/unlock"),
        ("POST", "/api/team/user/{id}/unlock"),
    ):
        theirs, unknown = (
            app.http.request(method, path.format(id=value), headers=headers, content=b"{}")
            for value in (user_id, "f" * 24)
        )
        assert theirs.status_code == unknown.status_code == 404
        assert theirs.json() == unknown.json()


def test_a_team_is_set_up_once(app: AuthApp) -> None:
    made = app.run(create_team, app.database, "gamma", "o@gamma.example")
    assert list(made) == ["team", "owner", "password", "clientId", "clientSecret"]
    assert (made["team"], made["owner"]) == ("gamma", "o@gamma.example")
    for team, owner, message in (
        ("gamma", "p@gamma.example", "a team called 'gamma'"),
        ("delta", OWNER, "usernames are unique"),
        ("", "p@gamma.example", "must not be empty"),
        ("delta", "nobody", "e-mail"),
    ):
        with pytest.raises(ValueError, match=message):
            app.run(create_team, app.database, team, owner)
