"""Queries for everything but jobs: users, groups, workflows, scheduled jobs, collections and triggers."""

import json
from typing import Any

import pytest
from graphql import GraphQLObjectType

from server.query import people
from server.query.deliveries import DELIVERY_FIELDS, TRIGGER_FIELDS
from server.query.documents import SCHEMA
from server.query.people import GROUP_FIELDS, USER_FIELDS
from server.query.plans import SCHEDULED_JOB_FIELDS, TASK_FIELDS, TASK_STATES, WORKFLOW_FIELDS
from server.query.records import COLLECTION_FIELDS
from server.scheduled_jobs.shapes import TASK_STATES as NAMED_STATES
from storage.database import Connection
from storage.queries.deliveries import DELIVERED, FAILED
from storage.tables import group_members, scheduled_job_users
from tests.api.test_collections import created, with_parts
from tests.api.test_groups import group_of
from tests.api.test_scheduled_jobs import WORKFLOW_ID, scheduled
from tests.support.app import Account, Document, RunningApp, Team
from tests.support.deliveries import attempt, delivery_of
from tests.support.querying import ask, found, refusal
from tests.support.statements import counted
from tests.support.workflows import made

LATER = "2030-01-31T12:00:00.000Z"
#: Root field -> the most of it at once.
MOST = {
    "users": 1000,
    "groups": 1000,
    "workflows": 100,
    "scheduledJobs": 100,
    "collections": 100,
    "triggers": 100,
}


def hired(team: Team, name: str, address: str) -> Document:
    """A user as an administrator creates one."""
    body = {"username": address, "emailAddress": address, "name": name}
    response = team.post("/api/team/user", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def triggered(team: Team, name: str = "Tell the office", **members: Any) -> str:
    """An Http trigger with everything secret that one may have."""
    options = {"url": "https://hooks.example.com/secret-path", "headers": {"X-Key": "secret-value"}}
    body = {"name": name, "triggerType": "Http", "triggerOptions": options, **members}
    response = team.post("/trigger/v2", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["triggerId"])


def names(objects: list[Document] | None) -> list[str]:
    return [each["name"] for each in objects or ()]


# Users and groups


def test_users_with_their_groups_are_told_as_the_document_asks(team: Team) -> None:
    ann = hired(team, "Zoë Ångström 安", f"zoë@{team.team_id}.example")
    bob = hired(team, "Bob", f"bob@{team.team_id}.example")
    night, day = group_of(team, name="Nacht 🌙"), group_of(team, name="Day")
    for group_id in (night, day):
        assert team.put(f"/group/{group_id}/users", json=[ann["userId"]]).is_success
    assert found(team, "{ users { emailAddress name userGroups { name } } }") == [
        {
            "emailAddress": ann["emailAddress"],
            "name": "Zoë Ångström 安",
            "userGroups": [{"name": "Nacht 🌙"}, {"name": "Day"}],
        },
        {"emailAddress": bob["emailAddress"], "name": "Bob", "userGroups": []},
    ]


def test_a_user_and_a_group_are_as_the_rest_api_tells_of_them(team: Team) -> None:
    person = team.user("ADMIN", "DATAVIEWER")
    shown = team.get(f"/api/team/user/{person.subject_id}").json()
    permissions = team.get(f"/api/team/user/{person.subject_id}/permissions").json()
    query = "{ users { userId username emailAddress name created locked permissions __typename } }"
    assert found(team, query) == [
        shown | {"permissions": ["admin", "dataViewer"], "__typename": "User"},
    ]
    assert list(permissions) == ["admin", "dataViewer"]
    assert team.post(f"/api/team/user/{person.subject_id}/lock").is_success
    group_id = group_of(team, person, editor=True, executor=True)
    group = team.get(f"/group/{group_id}").json()
    told = found(team, "{ groups { groupId name created permissions users { userId locked } __typename } }")
    assert told == [
        {
            "groupId": group_id,
            "name": group["name"],
            "created": group["created"],
            "permissions": ["editor", "executor"],
            "users": [{"userId": person.subject_id, "locked": True}],
            "__typename": "Group",
        }
    ]


def test_deleted_users_and_groups_are_not_told_of(team: Team) -> None:
    gone, stays = team.user(), team.user()
    kept, dropped = group_of(team, gone, stays), group_of(team, gone, stays)
    scheduled(team, gone.subject_id, stays.subject_id)
    assert team.delete(f"/api/team/user/{gone.subject_id}").is_success
    assert team.delete(f"/group/{dropped}").is_success
    expected = {"userId": stays.subject_id}
    assert found(team, "{ users { userId userGroups { groupId } } }") == [
        expected | {"userGroups": [{"groupId": kept}]}
    ]
    assert found(team, "{ groups { groupId users { userId } } }") == [{"groupId": kept, "users": [expected]}]
    assert found(team, "{ scheduledJobs { users { userId } } }") == [{"users": [expected]}]


def test_groups_of_users_of_groups_can_be_asked_for_under_other_names(team: Team) -> None:
    ann, bob = team.user(), team.user()
    both, alone = group_of(team, ann, bob), group_of(team, bob)
    query = """{
        groups(limit: 1) {
            id: groupId
            few: users { groups: userGroups { groupId } }
            users { userId userGroups { name users { userId } } }
        }
    }"""
    (group,) = found(team, query)
    assert list(group) == ["id", "few", "users"]
    in_both, in_one = {"groupId": both}, {"groupId": alone}
    assert group["few"] == [{"groups": [in_both]}, {"groups": [in_both, in_one]}]
    assert [user["userId"] for user in group["users"]] == [ann.subject_id, bob.subject_id]
    of_bob = group["users"][1]["userGroups"]
    expected = [[ann.subject_id, bob.subject_id], [bob.subject_id]]
    assert [[user["userId"] for user in each["users"]] for each in of_bob] == expected


def test_only_what_is_selected_is_read_and_one_statement_for_each_level(team: Team) -> None:
    queries = {
        "{ users { name permissions __typename } }": 1,
        "{ users { name userGroups { name } other: userGroups { groupId } } }": 2,
        "{ groups { name } }": 1,
        "{ groups { users { __typename } } }": 2,
        "{ users(limit: 10) { userGroups { users { name } } } }": 3,
        # For the last level nothing is read: by then everybody is known.
        "{ groups(limit: 10) { users { userGroups { users { name } } } } }": 3,
        "{ groups(limit: 1) { users { userGroups { users { userGroups { name } } } } } }": 4,
    }
    for count in (2, 6):
        crew = [team.user() for _ in range(count)]
        for _ in range(count):
            group_of(team, *crew)
        for query, expected in queries.items():
            with counted(team.app) as counter:
                assert len(found(team, query)) > 0
            assert counter.count == expected, counter.texts


def test_of_more_people_than_can_be_named_each_has_its_groups(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.queries.groups._MAX_NAMED", 1)
    ann, bob, _ = (sqlite_team.user() for _ in range(3))
    first, second = group_of(sqlite_team, ann, bob), group_of(sqlite_team, bob)
    assert found(sqlite_team, "{ users(limit: 10) { userGroups { groupId users { userId } } } }") == [
        {"userGroups": [{"groupId": first, "users": [{"userId": each.subject_id} for each in (ann, bob)]}]},
        {
            "userGroups": [
                {"groupId": first, "users": [{"userId": each.subject_id} for each in (ann, bob)]},
                {"groupId": second, "users": [{"userId": bob.subject_id}]},
            ]
        },
        {"userGroups": []},
    ]


def test_what_would_be_told_too_often_is_refused(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = [team.user() for _ in range(3)]
    for _ in range(3):
        group_of(team, *crew)
    for _ in range(2):
        scheduled(team, *(person.subject_id for person in crew))
    # 3 users with 3 groups each, with 3 users each: 39 objects.
    deep = "{ users(limit: 10) { userGroups { users { name } } } }"
    planned = "{ scheduledJobs(limit: 10) { users { userGroups { users { name } } } } }"
    monkeypatch.setattr(people, "MAX_COST", 39)
    assert len(found(team, deep)) == 3
    monkeypatch.setattr(people, "MAX_COST", 38)
    assert refusal(team, deep)[0] == "query-too-complex"
    monkeypatch.setattr(people, "MAX_COST", 2 * 39)
    assert len(found(team, planned)) == 2
    monkeypatch.setattr(people, "MAX_COST", 2 * 39 - 1)
    assert refusal(team, planned)[0] == "query-too-complex"


# Pages


@pytest.mark.parametrize(("root", "most"), MOST.items())
def test_a_limit_is_within_its_range_and_skip_is_not_negative(
    sqlite_team: Team, root: str, most: int
) -> None:
    for limit in (0, -1, most + 1):
        expected = ("invalid-argument", f"limit must be from 1 to {most:,}.")
        assert refusal(sqlite_team, f"{{ {root}(limit: {limit}) {{ __typename }} }}") == expected
    assert refusal(sqlite_team, f"{{ {root}(skip: -1) {{ __typename }} }}") == (
        "invalid-argument",
        "skip must be 0 or more.",
    )
    (error,) = ask(sqlite_team, f"{{ a: {root}(skip: -1) {{ __typename }} }}")["errors"]
    assert error["path"] == ["a"]
    assert found(sqlite_team, f"{{ {root}(limit: {most} skip: 2147483647) {{ __typename }} }}") == []


@pytest.mark.parametrize("root", MOST)
def test_null_is_as_if_nothing_was_given(sqlite_team: Team, root: str) -> None:
    assert found(sqlite_team, f"{{ {root}(limit: null skip: null) {{ __typename }} }}") == []


def test_a_new_team_has_nothing_to_tell(team: Team) -> None:
    each = " ".join(f"{root} {{ __typename }}" for root in MOST)
    assert ask(team, f"{{ {each} }}") == {"data": {root: [] for root in MOST}}
    nested = """{
        users { userGroups { name } } groups { users { name } } triggers { deliveries { deliveryId } }
        scheduledJobs { users { name userGroups { name } } tasks { taskId } } collections { records }
    }"""
    assert not any(ask(team, nested)["data"].values())


def test_pages_follow_each_other_in_one_order(team: Team) -> None:
    for _ in range(5):
        team.user()
        group_of(team)
        made(team)
        scheduled(team)
        created(team)
        triggered(team)
    ids = {
        "users": "userId",
        "groups": "groupId",
        "workflows": "workflowId",
        "scheduledJobs": "jobId",
        "collections": "collectionId",
        "triggers": "triggerId",
    }
    for root, key in ids.items():
        whole = [each[key] for each in found(team, f"{{ {root} {{ {key} }} }}")]
        assert len(set(whole)) == 5
        pages = [
            [each[key] for each in found(team, f"{{ {root}(limit: 2 skip: {skip}) {{ {key} }} }}")]
            for skip in (0, 2, 4, 6)
        ]
        assert pages == [whole[:2], whole[2:4], whole[4:], []]


# Workflows and scheduled jobs


def test_workflows_are_told_of_and_archived_ones_if_they_are_asked_for(team: Team) -> None:
    first = made(team, name="Prüfung 检查", description="Zeile 1\nZeile 2", tags=["Pumpe", "ß"])
    second = made(team, name="Archived")
    team.put(f"/workflows/v2/{second['workflowId']}", json={"isArchived": "true"})
    gone = made(team, name="Deleted")
    assert team.delete(f"/workflows/v2/{gone['workflowId']}").is_success
    shown = team.get(f"/workflows/v2/{first['workflowId']}").json()
    query = """query ($all: Boolean) {
        workflows(includeArchived: $all) {
            workflowId name description tags activeVersionId archived created updated __typename
        }
    }"""
    (told,) = found(team, query)
    assert told == {
        "workflowId": first["workflowId"],
        "name": "Prüfung 检查",
        "description": shown["description"],
        "tags": shown["tags"],
        "activeVersionId": shown["activeVersionId"],
        "archived": False,
        "created": shown["created"],
        "updated": shown["lastUpdated"],
        "__typename": "Workflow",
    }
    assert told["tags"]
    everything = found(team, query, all=True)
    assert [(each["name"], each["archived"]) for each in everything] == [
        ("Archived", True),
        ("Prüfung 检查", False),
    ]


def test_a_scheduled_job_is_told_with_its_users_and_tasks(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job = scheduled(team, bob.subject_id, ann.subject_id, name="Wartung 保守", priority=True, dueByDate=LATER)
    (task,) = job["tasks"]
    body = {"clientJobId": "tablet-1", "state": "Paused", "updated": "2025-03-03T08:00:00Z"}
    said = team.put(f"/scheduledjobs/v1/{job['jobId']}/tasks/{task['taskId']}/status", json=body).json()
    query = """{
        scheduledJobs {
            jobId name description state priority due created updated __typename
            users { userId }
            tasks { taskId taskType artifactId jobId clientJobId state updated modified __typename }
        }
    }"""
    assert found(team, query) == [
        {
            "jobId": job["jobId"],
            "name": "Wartung 保守",
            "description": job["description"],
            "state": "Scheduled",
            "priority": True,
            "due": LATER,
            "created": job["created"],
            "updated": said["updated"],
            "__typename": "ScheduledJob",
            "users": [{"userId": bob.subject_id}, {"userId": ann.subject_id}],
            "tasks": [
                {
                    "taskId": task["taskId"],
                    "taskType": "Workflow",
                    "artifactId": WORKFLOW_ID,
                    "jobId": None,
                    "clientJobId": "tablet-1",
                    "state": "Paused",
                    "updated": "2025-03-03T08:00:00.000Z",
                    "modified": said["tasks"][0]["modified"],
                    "__typename": "ScheduledTask",
                }
            ],
        }
    ]


def test_states_of_tasks_have_the_names_that_are_sent() -> None:
    assert {name.lower(): number for number, name in TASK_STATES.items()} == NAMED_STATES


def test_scheduled_jobs_of_a_state_are_found_and_deleted_ones_are_not(team: Team) -> None:
    open_one, done, gone = (scheduled(team, name=name, tasks=[]) for name in ("open", "done", "gone"))
    body = {"state": "Completed", "updated": LATER}
    assert team.put(f"/scheduledjobs/v1/{done['jobId']}/status", json=body).is_success
    assert team.delete(f"/scheduledjobs/v1/{gone['jobId']}").is_success
    assert names(found(team, "{ scheduledJobs { name } }")) == ["done", "open"]
    assert names(found(team, '{ scheduledJobs(state: "completed") { name } }')) == ["done"]
    assert names(found(team, '{ scheduledJobs(state: "Scheduled") { name } }')) == [open_one["name"]]
    assert refusal(team, '{ scheduledJobs(state: "Paused") { name } }') == (
        "invalid-argument",
        "state must be Scheduled or Completed.",
    )


def test_scheduled_jobs_take_a_statement_for_each_thing_that_is_selected(team: Team) -> None:
    crew = [team.executor() for _ in range(3)]
    group_of(team, *crew)
    queries = {
        "{ scheduledJobs { name state } }": 1,
        "{ scheduledJobs { users { name } } }": 2,
        "{ scheduledJobs { tasks { state } } }": 2,
        "{ scheduledJobs { a: users { name } users { userGroups { name } } tasks { state } } }": 4,
        "{ workflows { name tags } }": 1,
    }
    for count in (1, 5):
        for _ in range(count):
            scheduled(team, *(person.subject_id for person in crew))
        for query, expected in queries.items():
            with counted(team.app) as counter:
                found(team, query)
            assert counter.count == expected, counter.texts


# Triggers and deliveries


def test_a_trigger_is_told_without_anything_secret(team: Team) -> None:
    trigger_id = triggered(team, name="Büro 通知", description="Zeile")
    archived = triggered(team, name="Archived", disabled=True)
    assert team.delete(f"/trigger/v2/{archived}").is_success
    (shown,) = team.get(f"/trigger/v2/{trigger_id}").json()
    type_ = SCHEMA.type_map["Trigger"]
    assert isinstance(type_, GraphQLObjectType)
    scalars = " ".join(sorted(type_.fields.keys() - {"deliveries"}))
    told = found(team, f"{{ triggers {{ {scalars} __typename }} }}")
    assert [each["name"] for each in told] == ["Archived", "Büro 通知"]
    assert [(each["archived"], each["disabled"]) for each in told] == [(True, True), (False, False)]
    assert told[1] == {key: shown[key] for key in scalars.split()} | {"__typename": "Trigger"}
    assert "secret" not in json.dumps(told)


def test_deliveries_are_told_newest_first_and_page_by_page(team: Team) -> None:
    trigger_id, other = triggered(team), triggered(team)
    triggered(team)
    made_ones = [delivery_of(team, trigger_id) for _ in range(5)]
    of_other = delivery_of(team, other, attempt(FAILED), attempt(DELIVERED))
    query = """query ($limit: Int, $before: String) {
        triggers { deliveries(limit: $limit before: $before) { deliveryId } }
    }"""

    def told(**variables: Any) -> list[list[str]]:
        return [
            [each["deliveryId"] for each in trigger["deliveries"]]
            for trigger in found(team, query, **variables)
        ]

    newest = made_ones[::-1]
    assert told() == [[], [of_other], newest]
    assert told(limit=2) == [[], [of_other], newest[:2]]
    assert told(limit=2, before=newest[1]) == [[], [], newest[2:4]]
    assert told(limit=2, before=newest[3]) == [[], [], newest[4:]]
    assert told(before=made_ones[0]) == [[], [], []]
    for limit in (0, 101):
        assert refusal(team, query, limit=limit) == ("invalid-argument", "limit must be from 1 to 100.")
    for before in ("2025-03-03T08:00:00Z", "\0", ""):
        assert refusal(team, query, before=before)[0] == "invalid-argument"


def test_a_delivery_is_as_the_log_tells_of_it_without_what_was_sent(team: Team) -> None:
    trigger_id = triggered(team)
    delivery_of(team, trigger_id, attempt(DELIVERED), note="Files were missing.", report_id="r" * 24)
    delivery_of(team, trigger_id)
    type_ = SCHEMA.type_map["Delivery"]
    assert isinstance(type_, GraphQLObjectType)
    keys = list(type_.fields)
    (told,) = found(team, f"{{ triggers {{ deliveries {{ {' '.join(keys)} }} }} }}")
    shown = team.get(f"/trigger/v2/{trigger_id}/deliveries").json()
    assert told["deliveries"] == [{key: each[key] for key in keys} for each in shown]
    assert "payload" not in keys
    assert told["deliveries"][1]["state"] == "delivered"


def test_triggers_and_deliveries_take_two_statements_however_many_there_are(team: Team) -> None:
    for count in (1, 4):
        for _ in range(count):
            trigger_id = triggered(team)
            for _ in range(count):
                delivery_of(team, trigger_id)
        for query, expected in {
            "{ triggers { name } }": 1,
            "{ triggers { deliveries { state } } }": 2,
            "{ triggers { deliveries { state } few: deliveries(limit: 1) { state } } }": 3,
        }.items():
            with counted(team.app) as counter:
                found(team, query)
            assert counter.count == expected, counter.texts


# All of them


EVERYTHING = """{
    users(limit: 10) { name userGroups { name users { name userGroups { name } } } }
    groups(limit: 10) { name users { name userGroups { name } } }
    workflows(includeArchived: true) { name description tags }
    scheduledJobs { name description users { name userGroups { name } } tasks { artifactId clientJobId } }
    collections { name userName headerNames records }
    triggers { name description deliveries { clientJobId note } }
}"""


def _furnish(team: Team, word: str) -> list[Account]:
    """A team in which everything has the word in its name."""
    crew = [team.user("EXECUTOR") for _ in range(2)]
    for person in crew:
        body = {"name": f"{word} person"}
        assert team.put(f"/api/team/user/{person.subject_id}", json=body).is_success
    group_of(team, *crew, name=f"{word} group")
    made(team, name=f"{word} workflow", tags=[word])
    tasks = [{"taskType": "workflow", "artifactId": word}]
    scheduled(team, crew[0].subject_id, name=f"{word} plan", tasks=tasks)
    with_parts(team, f"{word} header\n{word} value\n")
    delivery_of(team, triggered(team, name=f"{word} trigger"), client_job_id=f"{word} job", note=word)
    return crew


def test_another_teams_objects_are_in_no_answer_wherever_they_are_looked_for(app: RunningApp) -> None:
    mine, theirs = app.team(), app.team()
    _furnish(mine, "mine")
    _furnish(theirs, "theirs")
    for team, word, other in ((mine, "mine", "theirs"), (theirs, "theirs", "mine")):
        data = ask(team, EVERYTHING)["data"]
        assert [len(objects) for objects in data.values()] == [2, 1, 1, 1, 1, 1]
        text = json.dumps(data)
        assert other not in text
        assert text.count(word) > 20


def test_an_id_of_another_team_finds_nothing_and_leads_nowhere(app: RunningApp) -> None:
    mine, theirs = app.team(), app.team()
    crew = _furnish(theirs, "theirs")
    collection_id = with_parts(theirs)
    query = "query ($ids: [String!]) { collections(collectionId: $ids) { name } }"
    assert found(mine, query, ids=[collection_id]) == []
    before = delivery_of(theirs, triggered(theirs))
    trigger_id = triggered(mine)
    own = delivery_of(mine, trigger_id)
    (trigger,) = found(mine, "{ triggers { deliveries { deliveryId } } }")
    assert trigger["deliveries"] == [{"deliveryId": own}]
    assert found(mine, f'{{ triggers {{ deliveries(before: "{before}") {{ note }} }} }}') == [
        {"deliveries": []}
    ]
    # Rows that the interface would not let anybody make.
    _smuggle(mine, theirs, crew[0])
    assert "theirs" not in json.dumps(ask(mine, EVERYTHING))
    for user in found(theirs, "{ users { userGroups { name } } }"):
        assert names(user["userGroups"]) == ["theirs group"]


def _smuggle(mine: Team, theirs: Team, person: Account) -> None:
    """Refer to a user of theirs, and to their group, from a team of mine."""
    own, job = group_of(mine, mine.user()), scheduled(mine)
    (group,) = found(theirs, "{ groups { groupId } }")

    def write(connection: Connection) -> None:
        for group_id in (own, group["groupId"]):
            row = {"team_id": mine.team_id, "group_id": group_id, "user_id": person.subject_id}
            connection.execute(group_members.insert().values(row))
        connection.execute(
            scheduled_job_users.insert().values(
                team_id=mine.team_id,
                scheduled_job_id=job["jobId"],
                user_id=person.subject_id,
                position=0,
            )
        )

    mine.app.write(write)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("User", {*USER_FIELDS, "userGroups"}),
        ("Group", {*GROUP_FIELDS, "users"}),
        ("Workflow", {*WORKFLOW_FIELDS}),
        ("ScheduledJob", {*SCHEDULED_JOB_FIELDS, "users", "tasks"}),
        ("ScheduledTask", {*TASK_FIELDS}),
        ("Collection", {*COLLECTION_FIELDS, "records"}),
        ("Trigger", {*TRIGGER_FIELDS, "deliveries"}),
        ("Delivery", {*DELIVERY_FIELDS}),
    ],
)
def test_the_schema_promises_what_is_told_and_nothing_else(name: str, told: set[str]) -> None:
    type_ = SCHEMA.type_map[name]
    assert isinstance(type_, GraphQLObjectType)
    assert set(type_.fields) == told
