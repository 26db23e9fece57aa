"""Scheduled jobs: listed, read, created, assigned, deleted (sections 10.1 to 10.3, 10.6 to 10.8)."""

import re
import uuid
from typing import Any

import pytest

from server.clock import now
from storage.ids import new_id
from storage.queries import scheduled_jobs as queries
from storage.queries.scheduled_jobs import Row, ScheduledJob, TaskRow, insert_scheduled_job
from tests.support.app import Document, Team, problem
from tests.support.statements import counted

SCHEDULE = "/scheduledjobs/v1"
WORKFLOW_ID = "b62f2507-b4e7-4248-83d3-29c03a158fae"


def scheduled(team: Team, *user_ids: str, **members: Any) -> Document:
    """A scheduled job of one task, as the owner creates it."""
    body = {
        "name": "API Scheduler Example Job 1",
        "description": "To Demo Scheduler Apis",
        "tasks": [{"taskType": "workflow", "artifactId": WORKFLOW_ID}],
        "assignedUserIds": list(user_ids),
        "dueByDate": None,
        "priority": False,
    }
    response = team.post(SCHEDULE, json=body | members)
    assert response.status_code == 200, response.text
    return dict(response.json())


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["jobId"] for item in response.json()]


# Creating and reading


def test_a_created_scheduled_job_is_as_the_document_prints_it(team: Team) -> None:
    user = team.executor()
    job = scheduled(team, user.subject_id)
    assert re.fullmatch("[0-9a-f]{24}", job["jobId"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", job["created"])
    task_id = job["tasks"][0]["taskId"]
    assert str(uuid.UUID(task_id)) == task_id
    # In the document's order too.
    assert list(job.items()) == [
        ("jobId", job["jobId"]),
        ("created", job["created"]),
        ("updated", job["created"]),
        ("state", "Scheduled"),
        ("name", "API Scheduler Example Job 1"),
        ("description", "To Demo Scheduler Apis"),
        ("priority", False),
        ("dueByDate", None),
        ("assignedUserIds", [user.subject_id]),
        ("tasks", job["tasks"]),
    ]
    assert list(job["tasks"][0].items()) == [
        ("taskType", "Workflow"),
        ("taskId", task_id),
        ("artifactId", WORKFLOW_ID),
        ("jobId", None),
        ("clientJobId", None),
        ("updated", None),
        ("modified", None),
        ("state", 0),
    ]
    assert team.get(f"{SCHEDULE}/{job['jobId']}").json() == job
    assert team.get(SCHEDULE).json() == [job]
    assert team.get("/scheduledjobs/v1/").json() == [job]


def test_little_is_needed_to_create_one(team: Team) -> None:
    response = team.post(SCHEDULE, json={"name": " Inspection "})
    job = response.json()
    assert (job["name"], job["description"], job["tasks"]) == ("Inspection", "", [])
    assert (job["assignedUserIds"], job["dueByDate"], job["priority"]) == ([], None, False)


@pytest.mark.parametrize(
    ("sent", "printed"),
    [
        ("2021-01-27T15:30:00Z", "2021-01-27T15:30:00.000Z"),
        ("2021-10-06T07:24:52.44", "2021-10-06T07:24:52.440Z"),
        ("2021-10-06T13:48:19.342407Z", "2021-10-06T13:48:19.342Z"),
        ("2021-10-06T13:48:19.3424071Z", "2021-10-06T13:48:19.342Z"),
        ("2021-10-06T15:48:19+02:00", "2021-10-06T13:48:19.000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_due_time_is_taken_with_any_digits_and_without_a_zone_is_utc(
    sqlite_team: Team, sent: str, printed: str
) -> None:
    assert scheduled(sqlite_team, dueByDate=sent)["dueByDate"] == printed


def test_flags_types_and_artifacts_are_taken_as_clients_spell_them(sqlite_team: Team) -> None:
    tasks = [
        {"taskType": "WORKFLOW", "artifactId": None},
        {"taskType": "Workflow", "artifactId": "elsewhere"},
    ]
    job = scheduled(sqlite_team, priority="True", tasks=tasks, description="two\nlines", assignedUserIds=None)
    assert job["priority"] is True
    assert [(task["taskType"], task["artifactId"]) for task in job["tasks"]] == [
        ("Workflow", None),
        ("Workflow", "elsewhere"),
    ]
    assert job["description"] == "two\nlines"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"description": "x" * 10_001}, "description"),
        ({"description": "a\u0000b"}, "description"),
        ({"tasks": [{"taskType": "Form", "artifactId": None}]}, "tasks[0].taskType"),
        ({"tasks": [{"taskType": "Workflow", "artifactId": "a\u0000"}]}, "tasks[0].artifactId"),
        ({"tasks": [{"taskType": "Workflow", "artifactId": 7}]}, "tasks[0].artifactId"),
        ({"tasks": [{"taskType": "Workflow"}] * 101}, "tasks"),
        ({"tasks": [{}]}, "tasks[0].taskType"),
        ({"assignedUserIds": ["u"] * 1001}, "assignedUserIds"),
        ({"assignedUserIds": "u"}, "assignedUserIds"),
        ({"dueByDate": "tomorrow"}, "dueByDate"),
        ({"dueByDate": ""}, "dueByDate"),
        ({"dueByDate": "9999-12-31T23:59:59-10:00"}, "dueByDate"),
        ({"dueByDate": "0001-01-01T00:00:00Z"}, "dueByDate"),
        ({"priority": "high"}, "priority"),
    ],
)
def test_what_cannot_be_scheduled_is_named(sqlite_team: Team, changes: Document, field: str) -> None:
    response = sqlite_team.post(SCHEDULE, json={"name": "Inspection"} | changes)
    problem(response, 422, "invalid-body", field)
    assert sqlite_team.get(SCHEDULE).json() == []


def test_a_hundred_tasks_keep_their_order(team: Team) -> None:
    tasks = [{"taskType": "Workflow", "artifactId": f"w{number}"} for number in range(100)]
    job = scheduled(team, tasks=tasks)
    read = team.get(f"{SCHEDULE}/{job['jobId']}").json()
    assert [task["artifactId"] for task in read["tasks"]] == [f"w{number}" for number in range(100)]


# Lists


def test_lists_are_newest_first_and_take_skip_and_limit(team: Team) -> None:
    jobs = [scheduled(team)["jobId"] for _ in range(4)][::-1]
    for address in (SCHEDULE, f"{SCHEDULE}/my"):
        assert ids(team.get(address)) == jobs
        assert ids(team.get(f"{address}?skip=1&limit=2")) == jobs[1:3]
        assert ids(team.get(f"{address}?skip=9")) == []
        problem(team.get(f"{address}?limit=0"), 400, "invalid-parameter", "limit")


def test_lists_are_narrowed_by_state_and_user(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    of_ann = scheduled(team, ann.subject_id)["jobId"]
    of_both = scheduled(team, bob.subject_id, ann.subject_id)["jobId"]
    of_nobody = scheduled(team, tasks=[])["jobId"]
    team.put(f"{SCHEDULE}/{of_nobody}/status", json={"state": "Completed"})
    assert ids(team.get(f"{SCHEDULE}?assignedUserId={ann.subject_id}")) == [of_both, of_ann]
    assert ids(team.get(f"{SCHEDULE}?assignedUserId={bob.subject_id}")) == [of_both]
    assert ids(team.get(f"{SCHEDULE}?state=completed")) == [of_nobody]
    assert ids(team.get(f"{SCHEDULE}?state=Scheduled&assignedUserId={bob.subject_id}")) == [of_both]
    assert ids(team.get(f"{SCHEDULE}/my?state=Scheduled", by=ann)) == [of_both, of_ann]
    problem(team.get(f"{SCHEDULE}?state=Open"), 400, "invalid-parameter", "state")


def test_mine_are_those_assigned_to_me_and_to_nobody_whoever_i_am(team: Team) -> None:
    ann, bob, admin = team.executor(), team.executor(), team.user("ADMIN")
    of_ann, of_bob = scheduled(team, ann.subject_id)["jobId"], scheduled(team, bob.subject_id)["jobId"]
    of_nobody, of_admin = scheduled(team)["jobId"], scheduled(team, admin.subject_id)["jobId"]
    assert ids(team.get(f"{SCHEDULE}/my", by=ann)) == [of_nobody, of_ann]
    assert ids(team.get(f"{SCHEDULE}/my", by=bob)) == [of_nobody, of_bob]
    assert ids(team.get(f"{SCHEDULE}/my", by=admin)) == [of_admin, of_nobody]


def test_very_many_are_listed_whole_with_the_tasks_and_people_of_each(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_MAX_NAMED", 2)
    people = [team.executor().subject_id for _ in range(2)]
    jobs = [scheduled(team, assignedUserIds=people[: number % 3]) for number in range(5)]
    assert team.get(SCHEDULE).json() == jobs[::-1]
    assert team.get(f"{SCHEDULE}?assignedUserId={people[1]}").json() == [jobs[2]]


def test_a_list_takes_three_statements_however_long_it_is(team: Team) -> None:
    user = team.executor()
    for count in (1, 5):
        for _ in range(count):
            scheduled(team, user.subject_id)
        for address, by in ((SCHEDULE, team.owner), (f"{SCHEDULE}/my", user)):
            with counted(team.app) as counter:
                team.get(address, by=by)
            assert counter.count == 3, counter.texts


def test_a_list_is_whole_unless_a_part_is_asked_for(team: Team) -> None:
    def fill(connection: Any) -> None:
        for number in range(1001):
            row = Row(new_id(), f"n{number}", "", "Scheduled", False, None, "x", now(), now(), 0)
            task = TaskRow(
                *(row.scheduled_job_id, str(uuid.uuid4()), 0, "Workflow", None, None, None, 0, None, None)
            )
            insert_scheduled_job(connection, team.team_id, ScheduledJob(row, ("a", "b"), (task,)))

    team.app.write(fill)
    listed = team.get(SCHEDULE).json()
    assert [item["name"] for item in listed] == [f"n{number}" for number in range(1000, -1, -1)]
    assert all(len(item["tasks"]) == 1 and item["assignedUserIds"] == ["a", "b"] for item in listed)
    assert [item["name"] for item in team.get(f"{SCHEDULE}?skip=1000").json()] == ["n0"]


# Who sees what


def test_what_is_assigned_to_others_is_not_there_for_field_workers(team: Team) -> None:
    ann, bob, admin = team.executor(), team.executor(), team.user("ADMIN")
    job = scheduled(team, ann.subject_id)
    path = f"{SCHEDULE}/{job['jobId']}"
    assert team.get(path, by=ann).status_code == team.get(path, by=admin).status_code == 200
    problem(team.get(path, by=bob), 404, "no-such-scheduled-job")
    problem(team.put(f"{path}/status", json={"state": "Completed"}, by=bob), 404, "no-such-scheduled-job")
    said = {"clientJobId": "c", "state": "Active", "updated": "2021-10-06T07:24:52.44"}
    status = f"{path}/tasks/{job['tasks'][0]['taskId']}/status"
    problem(team.put(status, json=said, by=bob), 404, "no-such-scheduled-job")
    assert team.get(path).json() == job


def test_what_is_assigned_to_nobody_is_there_for_everybody(team: Team) -> None:
    job = scheduled(team)
    assert team.get(f"{SCHEDULE}/{job['jobId']}", by=team.executor()).json() == job


# Assigning


def test_assigned_users_are_replaced_in_the_order_they_are_named(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job = scheduled(team, ann.subject_id)
    path = f"{SCHEDULE}/{job['jobId']}"
    for user_ids in ([bob.subject_id, ann.subject_id], [ann.subject_id, bob.subject_id], []):
        answer = team.put(f"{path}/assignedUsers", json={"assignedUserIds": user_ids}).json()
        assert answer["assignedUserIds"] == user_ids
        assert team.get(path).json() == answer
    doubled = {"assignedUserIds": [bob.subject_id, bob.subject_id]}
    assert team.put(f"{path}/assignedUsers", json=doubled).json()["assignedUserIds"] == [bob.subject_id]


def test_all_unknown_users_are_named_and_nothing_is_applied(team: Team) -> None:
    ann, stranger = team.executor(), team.app.beta.executor()
    job = scheduled(team, ann.subject_id)
    unknown = ["5d91f997ccfe6a0001dc9dc1", stranger.subject_id, "a\u0000b"]
    body = {"assignedUserIds": [unknown[0], ann.subject_id, *unknown[1:]]}
    refused = team.put(f"{SCHEDULE}/{job['jobId']}/assignedUsers", json=body)
    assert problem(refused, 422, "unknown-users", "assignedUserIds")["userIds"] == unknown
    refused = team.post(SCHEDULE, json={"name": "Another", **body})
    assert problem(refused, 422, "unknown-users", "assignedUserIds")["userIds"] == unknown
    assert team.get(SCHEDULE).json() == [job]


def test_a_deleted_user_stays_on_the_list_but_is_not_put_on_another(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job, other = scheduled(team, ann.subject_id), scheduled(team)

    def delete_user(connection: Any) -> None:
        connection.exec_driver_sql(f"UPDATE users SET deleted_at = 1 WHERE user_id = '{ann.subject_id}'")

    team.app.write(delete_user)
    assert team.get(f"{SCHEDULE}/{job['jobId']}").json()["assignedUserIds"] == [ann.subject_id]
    both = {"assignedUserIds": [ann.subject_id, bob.subject_id]}
    assert team.put(f"{SCHEDULE}/{job['jobId']}/assignedUsers", json=both).status_code == 200
    refused = team.put(f"{SCHEDULE}/{other['jobId']}/assignedUsers", json=both)
    assert problem(refused, 422, "unknown-users")["userIds"] == [ann.subject_id]


# Deleting


def test_a_deleted_scheduled_job_is_gone_for_everything(team: Team) -> None:
    user = team.executor()
    job, kept = scheduled(team, user.subject_id), scheduled(team)
    path = f"{SCHEDULE}/{job['jobId']}"
    response = team.delete(path)
    assert (response.status_code, response.content) == (200, b"")
    status = f"{path}/tasks/{job['tasks'][0]['taskId']}/status"
    for answer in (
        team.get(path),
        team.delete(path),
        team.put(f"{path}/status", json={"state": "Scheduled"}),
        team.put(f"{path}/assignedUsers", json={"assignedUserIds": []}),
        team.put(status, json={"clientJobId": "c", "state": "Active"}),
        team.post(f"{path}/claim", by=user),
        team.post(f"{path}/release", by=user),
    ):
        problem(answer, 404, "no-such-scheduled-job")
    assert ids(team.get(SCHEDULE)) == ids(team.get(f"{SCHEDULE}/my", by=user)) == [kept["jobId"]]
