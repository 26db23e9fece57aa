"""Users from their first day to their last: rows 13.1, 13.2, 13.5 to 13.8 and 13.10 of the specification."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from sqlalchemy import func, select

from server.auth.grants import hash_secret
from storage.queries.tokens import insert_refresh_token, refresh_token_by_hash
from storage.queries.users import user_by_id
from storage.tables import group_members, password_links, users
from tests.support.app import Account, Document, RunningApp, Team, problem, snapshot
from tests.support.routes import Answer, ask
from tests.support.statements import counted

_numbers = itertools.count(1)

#: What an owner must not lose by somebody who is none, as (method, address, body).
ON_OWNERS = [
    ("POST", "/api/team/{id}/lock", None),
    ("POST", "/api/team/user/{id}/lock", None),
    ("POST", "/api/team/{id}/unlock", None),
    ("POST", "/api/team/{id}/resetpassword", None),
    ("POST", "/api/team/user/{id}/resetpassword", None),
    ("PUT", "/api/team/user/{id}", {"emailAddress": "thief@example.com"}),
    ("PUT", "/api/team/user/{id}", {"username": "thief"}),
    ("PUT", "/api/team/user/{id}/permissions", {"owner": False}),
    ("PUT", "/api/team/user/{id}/permissions", {"approver": True}),
    ("DELETE", "/api/team/user/{id}", None),
]


def created(team: Team, username: str | None = None, **flags: bool) -> Document:
    """A user made over HTTP, with the password."""
    username = username or f"person-{next(_numbers)}@example.com"
    body = {"username": username, "emailAddress": "somebody@example.com", "name": "Somebody"}
    response = team.post("/api/team/user", json=body)
    assert response.status_code == 200, response.text
    user = dict(response.json())
    if flags:
        response = team.put(f"/api/team/user/{user['userId']}/permissions", json=flags)
        assert response.status_code == 200, response.text
    return user


def sign_in(team: Team, username: str, password: str) -> Any:
    form = {"grant_type": "password", "username": username, "password": password}
    return team.app.http.post("/connect/token", data=form)


def signed_in(team: Team, user: Document) -> Account:
    """The user with a token of its own password."""
    answer = sign_in(team, user["username"], user["password"])
    assert answer.status_code == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    return Account(user["userId"], user["username"], headers)


def row_of(team: Team, user_id: str) -> Any:
    return team.app.read(user_by_id, team.team_id, user_id)


def printed(user: Document, **changes: Any) -> Document:
    """The user as 13.2 prints it."""
    keys = ("userId", "username", "emailAddress", "name", "created", "locked")
    return {key: user[key] for key in keys} | changes


# Reading


def test_users_are_listed_as_the_document_prints_them_in_the_order_they_were_created(team: Team) -> None:
    assert team.get("/api/team/user").json() == []
    people = [created(team) for _ in range(3)]
    response = team.get("/api/team/user", by=team.user())
    assert response.status_code == 200
    assert response.json()[:3] == [printed(person) for person in people]
    assert len(response.json()) == 4
    assert list(response.json()[0]) == ["userId", "username", "emailAddress", "name", "created", "locked"]


def test_one_user_is_read_by_anybody_of_the_team_and_as_in_the_list(team: Team) -> None:
    person = created(team)
    response = team.get(f"/api/team/user/{person['userId']}", by=team.executor())
    assert (response.status_code, response.json()) == (200, printed(person))
    problem(team.get(f"/api/team/user/{'f' * 24}"), 404, "no-such-user")
    problem(team.app.team().get(f"/api/team/user/{person['userId']}"), 404, "no-such-user")


def test_lists_are_whole_unless_a_part_is_asked_for(team: Team) -> None:
    for kind, path, key in (("user", "/api/team/user", "userId"), ("group", "/group", "id")):
        for number in range(3):
            if kind == "user":
                team.user()
            else:
                team.post("/group", json={"name": f"group {number}"})
        everything = [entry[key] for entry in team.get(path).json()]
        assert len(everything) == 3
        for query, expected in (
            ("?skip=1", everything[1:]),
            ("?limit=2", everything[:2]),
            ("?skip=1&limit=1", everything[1:2]),
            ("?skip=3", []),
            ("?skip=0&limit=5000", everything),
            ("?limit=", everything),
        ):
            assert [entry[key] for entry in team.get(path + query).json()] == expected, query
        for query, field in (("?limit=0", "limit"), ("?skip=-1", "skip"), ("?limit=x", "limit")):
            problem(team.get(path + query), 400, "invalid-parameter", field)


@pytest.mark.parametrize("path", ["/api/team/user", "/group"])
def test_a_list_takes_one_statement_however_long_it_is(team: Team, path: str) -> None:
    for number in range(20):
        team.user()
        team.post("/group", json={"name": f"group {number}"})
    team.get(path)
    with counted(team.app) as counter:
        assert len(team.get(path).json()) == 20
    assert counter.count == 1, counter.texts


# Details


def test_details_change_by_keys_in_any_case_and_what_is_not_sent_stays(team: Team) -> None:
    user = created(team)
    path = f"/api/team/user/{user['userId']}"
    expected = printed(user)
    for body, change in (
        ({"Name": "Chege Naengop"}, {"name": "Chege Naengop"}),
        ({"EMAILADDRESS": "chege@example.com"}, {"emailAddress": "chege@example.com"}),
        ({"name": "  Ana Ñandú 安娜 "}, {"name": "Ana Ñandú 安娜"}),
        ({"userName": f"{user['username']}.KE"}, {"username": f"{user['username']}.KE"}),
        (
            {"name": "x" * 200, "emailaddress": "a@b.example"},
            {"name": "x" * 200, "emailAddress": "a@b.example"},
        ),
        ({}, {}),
    ):
        response = team.put(path, json=body)
        expected |= change
        assert (response.status_code, response.json()) == (200, expected)
        assert team.get(path).json() == expected
    assert sign_in(team, user["username"], user["password"]).status_code == 400
    assert sign_in(team, expected["username"].upper(), user["password"]).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"nickname": "Joe"}, "nickname"),
        ({"locked": True}, "locked"),
        ({"name": None}, "name"),
        ({"Name": 7}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\r\nb"}, "name"),
        ({"name": "a\u200bb"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a", "Name": "b"}, "Name"),
        ({"emailAddress": "nobody"}, "emailAddress"),
        ({"emailAddress": "a@b\r\nBcc: c@d"}, "emailAddress"),
        ({"username": " "}, "username"),
    ],
)
def test_details_that_cannot_be_taken_are_named_and_nothing_changes(
    sqlite_team: Team, body: Document, field: str
) -> None:
    user = created(sqlite_team)
    path = f"/api/team/user/{user['userId']}"
    # The member that can be taken comes first and is not kept either.
    response = sqlite_team.put(path, json={"emailAddress": "other@example.com", **body})
    problem(response, 422, "invalid-body", field)
    assert sqlite_team.get(path).json() == printed(user)


def test_a_username_is_changed_to_one_that_is_free_over_all_teams(team: Team) -> None:
    user, taken = created(team), created(team.app.team())
    path = f"/api/team/user/{user['userId']}"
    problem(team.put(path, json={"username": taken["username"].upper()}), 409, "username-taken", "username")
    assert team.put(path, json={"username": user["username"].upper()}).status_code == 200
    assert team.put(path, json={"username": f"free-{user['username']}"}).status_code == 200
    created(team, user["username"])


def test_of_those_who_take_a_username_at_once_one_gets_it(team: Team) -> None:
    other = team.app.team()
    for _ in range(5):
        wanted = f"wanted-{next(_numbers)}"
        answers = together(
            team,
            [
                ("PUT", f"/api/team/user/{team.user().subject_id}", {"username": wanted}, team.owner),
                ("PUT", f"/api/team/user/{other.user().subject_id}", {"username": wanted}, other.owner),
                ("POST", "/api/team/user", _named(wanted), other.owner),
            ],
        )
        assert sorted(answer.status for answer in answers) == [200, 409, 409], answers


def test_a_username_is_the_same_however_its_accents_are_composed(team: Team) -> None:
    number = next(_numbers)
    composed, decomposed = f"Jos\u00e9-{number}", f"jose\u0301-{number}"
    user = created(team, composed)
    problem(team.post("/api/team/user", json=_named(decomposed)), 409, "username-taken")
    assert sign_in(team, decomposed, user["password"]).status_code == 200


def _named(username: str) -> Document:
    return {"username": username, "emailAddress": "e@example.com", "name": "n"}


def test_a_link_for_a_new_password_does_not_survive_the_address_it_went_to(team: Team) -> None:
    user = created(team)
    other = team.user()
    for user_id in (user["userId"], other.subject_id):
        team.app.write(_insert_link, team.team_id, user_id)
    team.put(f"/api/team/user/{user['userId']}", json={"name": "Still the same address"})
    assert links(team) == 2
    team.put(f"/api/team/user/{user['userId']}", json={"emailAddress": "new@example.com"})
    assert links(team) == 1
    team.post(f"/api/team/{other.subject_id}/resetpassword")
    assert links(team) == 0


def _insert_link(connection: Any, team_id: int, user_id: str) -> None:
    connection.execute(
        password_links.insert().values(
            team_id=team_id, token_hash=user_id.encode(), user_id=user_id, expires_at=2**62
        )
    )


def links(team: Team) -> int:
    query = select(func.count()).select_from(password_links).where(password_links.c.team_id == team.team_id)
    return int(team.app.read(lambda connection: connection.execute(query).scalar_one()))


# Owners and administrators


@pytest.mark.parametrize(("method", "path", "body"), ON_OWNERS)
def test_an_administrator_does_nothing_to_an_owner(
    sqlite_team: Team, method: str, path: str, body: Document | None
) -> None:
    team = sqlite_team
    owner, other = team.user("OWNER"), team.user("OWNER")
    address = path.format(id=owner.subject_id)
    before = row_of(team, owner.subject_id)
    for by in (team.user("ADMIN"), team.client("ADMIN")):
        problem(team.request(method, address, json=body, by=by), 403, "insufficient-permission")
    assert row_of(team, owner.subject_id) == before
    assert team.request(method, address, json=body, by=other).status_code == 200


def test_an_administrator_does_all_of_it_to_an_administrator_and_names_an_owner(sqlite_team: Team) -> None:
    team = sqlite_team
    admin, owner = team.user("ADMIN"), team.user("OWNER")
    for method, path, body in ON_OWNERS:
        other = team.user("ADMIN")
        if body == {"username": "thief"}:
            body = {"username": f"not-{other.username}"}
        response = team.request(method, path.format(id=other.subject_id), json=body, by=admin)
        assert response.status_code == 200, (path, response.text)
    # What is displayed is no way to the account, and repeating what is there changes nothing.
    path = f"/api/team/user/{owner.subject_id}"
    body = {"name": "The Owner", "emailAddress": owner.username, "username": owner.username}
    assert team.put(path, json=body, by=admin).json()["name"] == "The Owner"


def test_an_administrator_makes_administrators_and_no_owners(sqlite_team: Team) -> None:
    team = sqlite_team
    admin, person = team.user("ADMIN"), team.user()
    path = f"/api/team/user/{person.subject_id}/permissions"
    assert team.put(path, json={"admin": True}, by=admin).json() == {"admin": True}
    problem(team.put(path, json={"owner": True}, by=admin), 403, "insufficient-permission", "owner")
    problem(team.put(path, json={"owner": "TRUE"}, by=admin), 403, "insufficient-permission", "owner")
    assert team.get(path).json() == {"admin": True}


# Passwords


@pytest.mark.parametrize("path", ["/api/team/{id}/resetpassword", "/api/team/user/{id}/resetpassword"])
def test_a_reset_password_replaces_the_old_one_and_is_good_for_choosing_another_only(
    team: Team, path: str
) -> None:
    user = created(team, dataViewer=True)
    tokens = sign_in(team, user["username"], user["password"]).json()
    stored = row_of(team, user["userId"])
    refresh_hash = hash_secret(tokens["refresh_token"])
    assert not team.app.read(refresh_token_by_hash, refresh_hash).revoked
    response = team.post(path.format(id=user["userId"]))
    assert response.status_code == 200
    assert list(response.json()) == ["password"]
    assert len(response.json()["password"]) >= 16
    changed = row_of(team, user["userId"])
    assert changed.password_expired
    assert not stored.password_expired
    assert changed.password_hash != stored.password_hash
    refused = sign_in(team, user["username"], user["password"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert team.app.http.post("/connect/token", data=form).status_code == 400
    # For good, and not only while the password is to be changed.
    assert team.app.read(refresh_token_by_hash, refresh_hash).revoked


def test_after_a_reset_access_tokens_end_too(team: Team) -> None:
    user = created(team, dataViewer=True)
    account = signed_in(team, user)
    assert team.get("/api/team/user", by=account).status_code == 200
    assert team.post(f"/api/team/{user['userId']}/resetpassword").status_code == 200
    problem(team.get("/api/team/user", by=account), 401, "password-change-required")


def test_two_resets_do_not_give_the_same_password(team: Team) -> None:
    user_id = team.user().subject_id
    answers = [team.post(f"/api/team/{user_id}/resetpassword").json()["password"] for _ in range(2)]
    assert answers[0] != answers[1]
    problem(team.post(f"/api/team/{'f' * 24}/resetpassword"), 404, "no-such-user")


# Deleting


def test_a_deleted_user_is_found_nowhere_and_its_tokens_end(team: Team) -> None:
    user = created(team, executor=True)
    account = signed_in(team, user)
    assert team.get("/group", by=account).status_code == 200
    refresh_hash = b"of team %d" % team.team_id
    team.app.write(insert_refresh_token, team.team_id, refresh_hash, "f", user["userId"], (), 2**62)
    response = team.delete(f"/api/team/user/{user['userId']}")
    assert (response.status_code, response.content) == (200, b"")
    problem(team.get("/group", by=account), 401, "token-invalid")
    assert sign_in(team, user["username"], user["password"]).status_code == 400
    refresh = team.app.read(refresh_token_by_hash, refresh_hash)
    assert refresh is not None
    assert refresh.revoked
    for method, path, body in [
        *ON_OWNERS,
        ("GET", "/api/team/user/{id}", None),
        ("GET", "/api/team/user/{id}/permissions", None),
    ]:
        response = team.request(method, path.format(id=user["userId"]), json=body)
        problem(response, 404, "no-such-user")
    assert user["userId"] not in team.get("/api/team/user").text


def test_the_username_of_a_deleted_user_is_free_for_a_new_one(team: Team) -> None:
    old = created(team, executor=True)
    team.delete(f"/api/team/user/{old['userId']}")
    new = created(team, old["username"].upper())
    assert new["userId"] != old["userId"]
    assert team.get(f"/api/team/user/{new['userId']}/permissions").json() == {}
    assert sign_in(team, old["username"], old["password"]).status_code == 400
    assert sign_in(team, old["username"], new["password"]).status_code == 200
    # And again: any number of deleted users may have had the name.
    team.delete(f"/api/team/user/{new['userId']}")
    created(team, old["username"])


def test_what_jobs_say_of_a_deleted_user_stays(team: Team) -> None:
    worker = team.executor()
    document = snapshot()
    team.synced(document, by=worker)
    job_id = document["metadata"]["clientJobId"]
    assert team.post(f"/jobs/v1/{job_id}/assign/{worker.subject_id}").status_code == 200
    before = team.job(job_id)
    assert worker.subject_id in json.dumps(before)
    assert worker.username in json.dumps(before)
    team.delete(f"/api/team/user/{worker.subject_id}")
    assert team.job(job_id) == before
    problem(team.post(f"/jobs/v1/{job_id}/assign/{worker.subject_id}"), 404)


def test_a_deleted_users_row_keeps_the_name_and_neither_password_nor_groups(team: Team) -> None:
    user = created(team, editor=True)
    group_id = team.post("/group", json={"name": "crew"}).json()["id"]
    team.put(f"/group/{group_id}/users", json=[user["userId"]])
    team.delete(f"/api/team/user/{user['userId']}")
    query = select(users).where(users.c.user_id == user["userId"])
    row = team.app.read(lambda connection: connection.execute(query).one())
    assert (row.username, row.name, row.password_hash, row.permissions) == (
        user["username"],
        user["name"],
        "",
        "",
    )
    memberships = select(group_members).where(group_members.c.user_id == user["userId"])
    assert team.app.read(lambda connection: connection.execute(memberships).all()) == []
    assert team.get(f"/group/{group_id}").json()["users"] == []


def test_who_may_delete_users_may_delete_oneself_but_not_the_last_owner(team: Team) -> None:
    first, second, admin = team.user("OWNER"), team.user("OWNER"), team.user("ADMIN")
    assert team.delete(f"/api/team/user/{admin.subject_id}", by=admin).status_code == 200
    assert team.delete(f"/api/team/user/{second.subject_id}", by=second).status_code == 200
    problem(team.delete(f"/api/team/user/{first.subject_id}", by=first), 409, "last-owner")
    problem(team.delete(f"/api/team/user/{first.subject_id}"), 409, "last-owner")
    assert team.get(f"/api/team/user/{first.subject_id}", by=first).status_code == 200


def test_a_deleted_owner_cannot_stand_in_for_the_last_one(team: Team) -> None:
    first, second = team.user("OWNER"), team.user("OWNER")
    team.delete(f"/api/team/user/{second.subject_id}")
    for method, path, body in (
        ("POST", "/api/team/{id}/lock", None),
        ("DELETE", "/api/team/user/{id}", None),
        ("PUT", "/api/team/user/{id}/permissions", {"owner": False}),
    ):
        response = team.request(method, path.format(id=first.subject_id), json=body)
        problem(response, 409, "last-owner")


# At once


LOSING_AN_OWNER = {
    "lock": ("POST", "/api/team/{id}/lock", None),
    "delete": ("DELETE", "/api/team/user/{id}", None),
    "demote": ("PUT", "/api/team/user/{id}/permissions", {"owner": False}),
}


def together(team: Team, requests: list[tuple[str, str, Any, Account]]) -> list[Answer]:
    """The answers to requests that are all under way at once: (method, path, JSON body, by whom)."""
    app = team.app

    async def run() -> list[Answer]:
        return list(
            await asyncio.gather(
                *(
                    ask(
                        app.litestar,
                        method,
                        path,
                        by.headers,
                        b"" if body is None else json.dumps(body).encode(),
                    )
                    for method, path, body, by in requests
                )
            )
        )

    return app.call(run)


def active_owners(team: Team) -> int:
    query = select(users.c.permissions).where(
        users.c.team_id == team.team_id, users.c.locked.is_(False), users.c.deleted_at.is_(None)
    )
    rows = team.app.read(lambda connection: connection.execute(query).all())
    return sum("OWNER" in row.permissions.split() for row in rows)


@pytest.mark.parametrize("first", LOSING_AN_OWNER)
@pytest.mark.parametrize("second", LOSING_AN_OWNER)
def test_of_two_owners_who_remove_each_other_at_once_one_stays(
    app: RunningApp, first: str, second: str
) -> None:
    for _ in range(4):
        team = app.team()
        one, two = team.user("OWNER"), team.user("OWNER")
        requests = []
        for by, other, how in ((one, two, first), (two, one, second)):
            method, path, body = LOSING_AN_OWNER[how]
            requests.append((method, path.format(id=other.subject_id), body, by))
        answers = together(team, requests)
        assert active_owners(team) == 1, answers
        assert sorted(answer.status for answer in answers)[0] == 200
        # 409 of who came second, or refused at once because the first had taken effect by then.
        assert sorted(answer.status for answer in answers)[1] in (401, 403, 409), answers


def test_of_many_owners_who_all_leave_at_once_one_stays(team: Team) -> None:
    owners = [team.user("OWNER") for _ in range(6)]
    requests = []
    for owner, how in zip(owners, itertools.cycle(LOSING_AN_OWNER.values()), strict=False):
        method, path, body = how
        requests.append((method, path.format(id=owner.subject_id), body, owner))
    answers = together(team, requests)
    assert active_owners(team) == 1
    assert sorted(answer.status for answer in answers) == [200] * 5 + [409]
