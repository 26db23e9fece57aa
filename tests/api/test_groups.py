"""Groups: chapter 5 of the specification."""

import asyncio
import itertools
import json
import re
import uuid
from typing import Any

import pytest
from sqlalchemy import select

from server.auth.authority import Authority
from storage.database import Connection
from storage.queries.groups import add_members, remove_members
from storage.queries.users import user_by_id
from storage.queries.workflows import take_place
from storage.tables import group_members, users, workflows
from tests.support.app import Account, Document, RunningApp, Team, problem
from tests.support.routes import Answer, ask
from tests.support.statements import counted

NOBODY = "f" * 24
_numbers = itertools.count(1)


def group_of(team: Team, *people: Account, name: str | None = None, **flags: Any) -> str:
    """A group with these users and flags, by its id."""
    response = team.post("/group", json={"name": name or f"crew {next(_numbers)}"})
    assert response.status_code == 200, response.text
    group_id = str(response.json()["id"])
    if people:
        response = team.put(f"/group/{group_id}/users", json=[person.subject_id for person in people])
        assert response.status_code == 200, response.text
    if flags:
        response = team.put(f"/group/{group_id}/permissions", json=flags)
        assert response.status_code == 200, response.text
    return group_id


def details(team: Team, group_id: str) -> Document:
    response = team.get(f"/group/{group_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(*people: Account) -> list[str]:
    return [person.subject_id for person in people]


# What the document prints


@pytest.mark.parametrize("prefix", ["", "/api"])
def test_a_group_lives_as_the_document_prints_it_at_both_addresses(team: Team, prefix: str) -> None:
    ann, bob = team.user(), team.user()
    response = team.post(f"{prefix}/group", json={"name": "Example Group 1"})
    assert response.status_code == 200
    group_id = response.json()["id"]
    assert response.json() == {"id": group_id, "name": "Example Group 1"}
    assert re.fullmatch("[0-9a-f]{24}", group_id)
    path = f"{prefix}/group/{group_id}"
    response = team.put(f"{path}/users", json=ids(ann, bob))
    assert response.status_code == 200
    body = {"dataViewer": "true", "editor": "true", "modifier": True, "executor": "True", "approver": "false"}
    response = team.put(f"{path}/permissions", json=body)
    assert response.status_code == 200
    expected = {
        "groupId": group_id,
        "teamName": team.name,
        "name": "Example Group 1",
        "lowercaseName": "example group 1",
        "created": response.json()["created"],
        "users": ids(ann, bob),
        "permissions": {"editor": True, "modifier": True, "dataViewer": True, "executor": True},
    }
    assert response.json() == expected
    assert list(response.json()) == list(expected)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", expected["created"])
    assert team.get(path).json() == expected
    response = team.put(path, json={"name": "New Group Name"})
    assert (response.status_code, response.json()) == (200, {"id": group_id, "name": "New Group Name"})
    assert team.get(f"{prefix}/group").json() == [{"id": group_id, "name": "New Group Name"}]
    response = team.request("DELETE", f"{path}/users", json=ids(ann))
    assert (response.status_code, response.json()["users"]) == (200, ids(bob))
    response = team.delete(path)
    assert (response.status_code, response.content) == (200, b"")
    assert team.get(f"{prefix}/group").json() == []
    problem(team.get(path), 404, "no-such-group")


def test_groups_are_listed_in_the_order_they_were_created(team: Team) -> None:
    names = ["zebra", "Ant", "mule"]
    made = [group_of(team, name=name) for name in names]
    expected = [{"id": group_id, "name": name} for group_id, name in zip(made, names, strict=True)]
    assert team.get("/group", by=team.executor()).json() == expected


def test_details_take_two_statements_however_many_users_there_are(team: Team) -> None:
    group_id = group_of(team, *(team.user() for _ in range(10)))
    details(team, group_id)
    with counted(team.app) as counter:
        assert len(details(team, group_id)["users"]) == 10
    assert counter.count == 2, counter.texts


def test_any_token_reads_and_renames_and_an_administrator_does_the_rest(team: Team) -> None:
    group_id, person = group_of(team), team.user()
    nobody, admin = team.user(), team.user("ADMIN")
    assert team.get("/group", by=nobody).status_code == 200
    assert team.get(f"/group/{group_id}", by=nobody).status_code == 200
    assert team.put(f"/group/{group_id}", json={"name": "by nobody"}, by=nobody).status_code == 200
    for method, path, body in (
        ("POST", "/group", {"name": "new"}),
        ("PUT", f"/group/{group_id}/permissions", {"admin": True}),
        ("PUT", f"/group/{group_id}/users", [person.subject_id]),
        ("DELETE", f"/group/{group_id}/users", [person.subject_id]),
        ("DELETE", f"/group/{group_id}", None),
    ):
        problem(team.request(method, path, json=body, by=nobody), 403, "insufficient-permission")
        assert team.request(method, path, json=body, by=admin).status_code == 200


def test_flags_that_are_not_sent_stay(team: Team) -> None:
    group_id = group_of(team, executor=True, editor=True)
    path = f"/group/{group_id}/permissions"
    answer = team.put(path, json={"EDITOR": "False", "dataviewer": True}).json()
    assert answer["permissions"] == {"dataViewer": True, "executor": True}
    assert team.put(path, json={}).json() == answer == details(team, group_id)


# Names


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Crew", "cREW"),
        ("Crew", "  Crew "),
        ("STRASSE", "Straße"),
        ("Équipe", "e\u0301quipe"),
        ("Ångström", "\u212bngström"),
    ],
)
def test_a_name_is_taken_in_the_team_whatever_its_case(team: Team, first: str, second: str) -> None:
    group_id, other = group_of(team, name=first), group_of(team)
    problem(team.post("/group", json={"name": second}), 409, "group-name-taken", "name")
    problem(team.put(f"/group/{other}", json={"name": second}), 409, "group-name-taken", "name")
    # Its own name, spelled otherwise, is free to itself, and another team's to everybody.
    assert team.put(f"/group/{group_id}", json={"name": second}).json()["name"] == second.strip()
    group_of(team.app.team(), name=first)


def test_the_name_of_a_deleted_or_renamed_group_is_free(team: Team) -> None:
    first = group_of(team, name="Night shift")
    team.put(f"/group/{first}", json={"name": "Day shift"})
    second = group_of(team, name="Night shift")
    team.delete(f"/group/{second}")
    group_of(team, name="night shift")


@pytest.mark.parametrize(
    "name", ["夜勤", "Équipe de nuit", "группа Ё", "ไทย", "A" * 200, "😀 crew", "<b>&\"'"]
)
def test_names_in_any_script_come_back_as_they_were_sent(team: Team, name: str) -> None:
    group_id = group_of(team, name=name)
    answer = details(team, group_id)
    assert (answer["name"], answer["lowercaseName"]) == (name, name.lower())


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "  "},
        {"name": "x" * 201},
        {"name": "a\nb"},
        {"name": "a\x00b"},
        {"name": "a\u202eb"},
        {"name": None},
        {"name": ["x"]},
        {},
    ],
)
def test_names_that_cannot_be_taken_are_refused(sqlite_team: Team, body: Document) -> None:
    group_id = group_of(sqlite_team, name="kept")
    problem(sqlite_team.post("/group", json=body), 422, "invalid-body", "name")
    problem(sqlite_team.put(f"/group/{group_id}", json=body), 422, "invalid-body", "name")
    assert sqlite_team.get("/group").json() == [{"id": group_id, "name": "kept"}]


def test_of_two_who_take_a_name_at_once_one_gets_it(team: Team) -> None:
    for _ in range(5):
        body, group_id = {"name": f"wanted {next(_numbers)}"}, group_of(team)
        answers = together(
            team,
            [
                ("POST", "/group", body),
                ("POST", "/api/group", body),
                ("PUT", f"/group/{group_id}", body),
            ],
        )
        assert sorted(answer.status for answer in answers) == [200, 409, 409], answers


# Users


def test_adding_twice_or_removing_who_is_not_in_it_is_no_error(team: Team) -> None:
    ann, bob, eve = team.user(), team.user(), team.user()
    group_id = group_of(team, ann)
    path = f"/group/{group_id}/users"
    assert team.put(path, json=ids(ann, bob, bob)).json()["users"] == ids(ann, bob)
    assert team.put(path, json=ids(ann, bob)).json()["users"] == ids(ann, bob)
    assert team.request("DELETE", path, json=ids(eve, ann, ann)).json()["users"] == ids(bob)
    assert team.request("DELETE", path, json=ids(eve, ann)).json()["users"] == ids(bob)
    assert team.put(path, json=[]).json()["users"] == ids(bob)
    assert team.request("DELETE", path, json=[]).json()["users"] == ids(bob)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_every_unknown_user_is_named_and_nothing_is_half_done(team: Team, method: str) -> None:
    ann, bob, gone = team.user(), team.user(), team.user()
    stranger = team.app.team().user()
    team.delete(f"/api/team/user/{gone.subject_id}")
    group_id = group_of(team, ann)
    wanted = [ann.subject_id, NOBODY, bob.subject_id, stranger.subject_id, gone.subject_id, NOBODY, ""]
    refusal = problem(team.request(method, f"/group/{group_id}/users", json=wanted), 422, "unknown-users")
    unknown = [NOBODY, stranger.subject_id, gone.subject_id, ""]
    assert refusal["userIds"] == unknown
    for user_id in unknown:
        assert user_id in refusal["detail"]
    assert bob.subject_id not in refusal["detail"]
    assert details(team, group_id)["users"] == ids(ann)


@pytest.mark.parametrize("body", [b"{}", b"null", b'"x"', b"[1]", b"[null]", b'{"users":[]}', b'[["x"]]'])
def test_users_that_are_no_array_of_ids_are_refused(sqlite_team: Team, body: bytes) -> None:
    path = f"/group/{group_of(sqlite_team)}/users"
    for method in ("PUT", "DELETE"):
        problem(sqlite_team.request(method, path, content=body), 422, "invalid-body")
        problem(sqlite_team.request(method, path, content=b"["), 400, "malformed-json")


def test_one_request_takes_ten_thousand_users_and_not_more(sqlite_team: Team) -> None:
    path = f"/group/{group_of(sqlite_team)}/users"
    for method in ("PUT", "DELETE"):
        unknown = [f"{number:024x}" for number in range(10_000)]
        assert problem(sqlite_team.request(method, path, json=unknown), 422)["userIds"] == unknown
        problem(sqlite_team.request(method, path, json=[*unknown, NOBODY]), 422, "invalid-body")


def test_more_users_than_one_statement_takes_go_in_and_out(team: Team) -> None:
    people = [f"{team.team_id:08x}{number:016x}" for number in range(1200)]
    row = {"email_address": "e", "name": "n", "password_hash": "", "locked": False, "created_at": 1}
    rows = [
        {"team_id": team.team_id, "user_id": user, "username": user, "username_key": user, **row}
        for user in people
    ]
    team.app.write(lambda connection: connection.execute(users.insert(), rows) and None)
    group_id = group_of(team)
    assert team.put(f"/group/{group_id}/users", json=people).json()["users"] == people
    left = team.request("DELETE", f"/group/{group_id}/users", json=people[1:]).json()["users"]
    assert left == people[:1]


def test_members_who_are_added_at_once_are_all_there(team: Team) -> None:
    people = [team.user() for _ in range(6)]
    group_id = group_of(team)
    answers = together(team, [("PUT", f"/group/{group_id}/users", ids(person)) for person in people])
    assert [answer.status for answer in answers] == [200] * 6
    assert details(team, group_id)["users"] == sorted(ids(*people))


def test_a_user_who_is_deleted_while_being_added_is_in_no_group(team: Team) -> None:
    for _ in range(5):
        person, group_id = team.user(), group_of(team)
        added, deleted = together(
            team,
            [
                ("PUT", f"/group/{group_id}/users", ids(person)),
                ("DELETE", f"/api/team/user/{person.subject_id}", None),
            ],
        )
        assert deleted.status == 200
        assert added.status in (200, 422)
        assert memberships(team, person) == []


def memberships(team: Team, person: Account) -> list[Any]:
    query = select(group_members).where(group_members.c.user_id == person.subject_id)
    return list(team.app.read(lambda connection: connection.execute(query).all()))


# What a group gives


def can_administer(team: Team, person: Account) -> bool:
    """Whether the guard takes the person for an administrator."""
    response = team.get(f"/api/team/user/{person.subject_id}/permissions", by=person)
    assert response.status_code in (200, 403)
    return response.status_code == 200


def test_every_change_takes_effect_with_the_next_request(team: Team) -> None:
    person, other = team.user(), team.user()
    assert not can_administer(team, person)
    group_id = group_of(team, person, admin=True)
    assert can_administer(team, person)
    team.put(f"/group/{group_id}/permissions", json={"admin": "false"})
    assert not can_administer(team, person)
    team.put(f"/group/{group_id}/permissions", json={"admin": True})
    assert can_administer(team, person)
    team.request("DELETE", f"/group/{group_id}/users", json=ids(person))
    assert not can_administer(team, person)
    assert not can_administer(team, other)
    team.put(f"/group/{group_id}/users", json=ids(person, other))
    assert can_administer(team, person)
    assert can_administer(team, other)
    team.delete(f"/group/{group_id}")
    assert not can_administer(team, person)
    assert not can_administer(team, other)


def test_another_process_sees_a_change_within_two_seconds(team: Team) -> None:
    # Another process: an authority of its own on the same database, with a clock that the test moves.
    clock = [0.0]
    elsewhere = Authority(team.app.database, team.app.settings, monotonic=lambda: clock[0])
    team.app.call(elsewhere.start)
    person = team.user()
    token = person.headers["Authorization"].removeprefix("Bearer ")

    def held() -> frozenset[str]:
        return team.app.call(elsewhere.verify, token).permissions

    assert held() == frozenset()
    group_id = group_of(team, person, admin=True)
    clock[0] += 2.1
    assert held() == {"ADMIN"}
    assert team.app.call(elsewhere.verify, token).group_ids == {group_id}
    team.delete(f"/group/{group_id}")
    clock[0] += 2.1
    assert held() == frozenset()
    team.delete(f"/api/team/user/{person.subject_id}")
    clock[0] += 2.1
    with pytest.raises(Exception, match="token-invalid"):
        held()


def test_an_administrator_by_group_alone_signs_in_as_one_and_is_one_everywhere(team: Team) -> None:
    body = {"username": f"boss-{next(_numbers)}", "emailAddress": "boss@example.com", "name": "Boss"}
    user = team.post("/api/team/user", json=body).json()
    form = {"grant_type": "password", "username": user["username"], "password": user["password"]}

    def signed_in() -> Account:
        answer = team.app.http.post("/connect/token", data=form).json()
        return Account(
            user["userId"], user["username"], {"Authorization": f"Bearer {answer['access_token']}"}
        )

    before = signed_in()
    problem(team.get(f"/api/team/user/{user['userId']}/permissions", by=before), 403)
    group_of(team, before, admin=True)
    # The token of before has the scopes of before: what was gained needs another one.
    problem(team.get(f"/api/team/user/{user['userId']}/permissions", by=before), 403, "insufficient-scope")
    boss = signed_in()
    new = team.post("/api/team/user", json={**body, "username": f"{body['username']}-2"}, by=boss)
    assert new.status_code == 200
    # Team-wide, not own work only.
    assert team.get("/jobs/v1", by=boss).status_code == 200
    person = team.user()
    path = f"/api/team/user/{person.subject_id}/permissions"
    assert team.put(path, json={"admin": True}, by=boss).status_code == 200
    problem(team.put(path, json={"owner": True}, by=boss), 403, "insufficient-permission")
    owner = team.user("OWNER")
    team.user("OWNER")
    problem(team.delete(f"/api/team/user/{owner.subject_id}", by=boss), 403, "insufficient-permission")
    assert team.delete(f"/api/team/user/{person.subject_id}", by=boss).status_code == 200


def test_permissions_are_printed_as_the_users_own_unless_all_are_asked_for(team: Team) -> None:
    person = team.user("EXECUTOR", "EDITOR")
    group_of(team, person, dataViewer=True, editor=True)
    group_of(team, person, approver=True)
    path = f"/api/team/user/{person.subject_id}/permissions"
    own = {"editor": True, "executor": True}
    for query in ("", "?effective=false", "?effective=FALSE"):
        assert team.get(path + query).json() == own
    everything = {"editor": True, "approver": True, "dataViewer": True, "executor": True}
    for query in ("?effective=true", "?effective=True"):
        assert team.get(path + query).json() == everything
    # What only a group gives is not taken away by denying it to the user.
    assert team.put(path, json={"approver": False}).json() == own
    assert team.get(f"{path}?effective=true").json() == everything
    for query in ("?effective=", "?effective=yes"):
        problem(team.get(path + query), 400, "invalid-parameter", "effective")


@pytest.mark.parametrize("flag", ["owner", "OWNER", "Owner"])
def test_no_group_makes_owners_whoever_asks(team: Team, flag: str) -> None:
    group_id = group_of(team, team.user())
    path = f"/group/{group_id}/permissions"
    for by in (team.owner, team.user("OWNER"), team.user("ADMIN")):
        for value in (True, "true", False):
            problem(team.put(path, json={"editor": True, flag: value}, by=by), 422, "invalid-body", flag)
    assert details(team, group_id)["permissions"] == {}


def test_an_owner_in_a_group_stays_one_when_the_group_goes(team: Team) -> None:
    owner = team.user("OWNER")
    group_id = group_of(team, owner, editor=True)
    team.put(f"/group/{group_id}/permissions", json={"editor": False})
    team.delete(f"/group/{group_id}")
    row = team.app.read(user_by_id, team.team_id, owner.subject_id)
    assert row is not None
    assert (row.held, row.group_ids) == ({"OWNER"}, frozenset())


def test_another_teams_groups_are_not_there(team: Team) -> None:
    ann = team.user()
    group_id = group_of(team, ann)
    before = details(team, group_id)
    intruder = team.app.team()
    own = group_of(intruder)
    for method, path, body in (
        ("GET", "/group/{id}", None),
        ("PUT", "/group/{id}", {"name": "stolen"}),
        ("PUT", "/group/{id}/permissions", {"admin": True}),
        ("PUT", "/group/{id}/users", []),
        ("DELETE", "/group/{id}/users", []),
        ("DELETE", "/group/{id}", None),
    ):
        for prefix in ("", "/api"):
            theirs, nothing = (
                intruder.request(method, prefix + path.format(id=value), json=body)
                for value in (group_id, NOBODY)
            )
            problem(theirs, 404, "no-such-group")
            assert theirs.json() == nothing.json()
    problem(intruder.put(f"/group/{own}/users", json=ids(ann)), 422, "unknown-users")
    assert details(team, group_id) == before
    assert [entry["id"] for entry in intruder.get("/group").json()] == [own]


def test_the_queries_keep_to_the_team(team: Team) -> None:
    ann, intruder = team.user(), team.app.team()
    group_id = group_of(team, ann)
    team.app.write(remove_members, intruder.team_id, group_id, ids(ann))
    team.app.write(add_members, intruder.team_id, group_id, ids(intruder.user()))
    assert details(team, group_id)["users"] == ids(ann)


# Workflows for some


def test_who_joins_or_leaves_gives_the_groups_workflows_a_new_place_in_the_order_of_changes(
    team: Team,
) -> None:
    ann, bob = team.user(), team.user()
    group_id, other = group_of(team), group_of(team)
    workflow, unrelated = (workflow_for(team, object_id) for object_id in (group_id, other))
    fixed = place(team, unrelated)
    places = [place(team, workflow)]
    for method, path, body, moves in (
        ("PUT", "/users", ids(ann, bob), True),
        ("PUT", "/users", ids(ann), False),
        ("DELETE", "/users", ids(ann), True),
        ("DELETE", "/users", ids(ann), False),
        ("PUT", "/users", [NOBODY], False),
        ("PUT", "", {"name": f"renamed {next(_numbers)}"}, False),
        ("PUT", "/permissions", {"editor": True}, False),
        ("DELETE", "", None, True),
    ):
        team.request(method, f"/group/{group_id}{path}", json=body)
        places.append(place(team, workflow))
        assert (places[-1] > places[-2]) == moves, (method, path)
    assert place(team, unrelated) == fixed


def workflow_for(team: Team, object_id: str) -> str:
    """A workflow that this group alone may use."""
    workflow_id = str(uuid.uuid4())

    def insert(connection: Connection) -> None:
        connection.execute(
            workflows.insert().values(
                team_id=team.team_id,
                workflow_id=workflow_id,
                name="n",
                description="",
                tags=b"[]",
                live_object_ids=json.dumps([object_id]).encode(),
                archived=False,
                created_by=team.owner.subject_id,
                created_at=1,
                updated_at=1,
                seq=take_place(connection, team.team_id),
                document=b"{}",
            )
        )

    team.app.write(insert)
    return workflow_id


def place(team: Team, workflow_id: str) -> int:
    query = select(workflows.c.seq).where(
        workflows.c.team_id == team.team_id, workflows.c.workflow_id == workflow_id
    )
    return int(team.app.read(lambda connection: connection.execute(query).scalar_one()))


def together(team: Team, requests: list[tuple[str, str, Any]]) -> list[Answer]:
    """The answers to the owner's requests, all under way at once: (method, path, JSON body)."""
    app: RunningApp = team.app

    async def run() -> list[Answer]:
        return list(
            await asyncio.gather(
                *(
                    ask(app.litestar, method, path, team.owner.headers, json.dumps(body).encode())
                    for method, path, body in requests
                )
            )
        )

    return app.call(run)
