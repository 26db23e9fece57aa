"""The sequences that the first specification shows, as it prints them: what its readers will send."""

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.app import Account, Document, Team, problem, snapshot
from tests.support.process import ServerProcess, init
from tests.support.specification import eventually, package, part, table

BLOCK, FILE = 102_400, 153_600
#: What `curl -d` says of any body.
CURL = {"Content-Type": "application/x-www-form-urlencoded"}

#: How the document writes the ranges of a file of 150 KB in two blocks of at most 100 KB.
RANGES = {
    "14.4.2: the last byte of the block": ("bytes 0-102399/153600", "bytes 102400-153599/153600"),
    "14.4.4.3: one beyond the block": ("bytes 0-102400/153600", "bytes 102400-204800/153600"),
    "4.6.4.3: past the file on the last block": ("bytes 0-102399/153600", "bytes 102400-204799/153600"),
}


@pytest.fixture(params=list(RANGES.values()), ids=list(RANGES))
def ranges(request: pytest.FixtureRequest) -> Sequence[str]:
    printed: Sequence[str] = request.param
    return printed


def pieces(content: bytes, ranges: Sequence[str]) -> list[tuple[bytes, dict[str, str]]]:
    """The two blocks of a file, each with its headers."""
    bodies = (content[:BLOCK], content[BLOCK:])
    return [
        (body, {"Content-Length": str(len(body)), "Content-Range": text})
        for body, text in zip(bodies, ranges, strict=True)
    ]


def ok(response: httpx.Response, status: int = 200) -> Any:
    """The answer of a request that succeeds."""
    assert response.status_code == status, response.text
    return response.json() if response.content else None


# Section 2.3


def test_the_client_of_section_2_3_does_what_it_was_made_for(team: Team) -> None:
    worker = team.executor()
    workflow_id = uploaded(team)["workflowId"]
    body = {
        "name": "My Job Scheduling Application",
        "scopes": [
            "https://www.flow.librestream.com/auth/workflow.read",
            "https://www.flow.librestream.com/auth/schedule.admin",
        ],
        "permissions": ["admin"],
    }
    created = ok(team.post("/api/client/", json=body))
    form = {
        "grant_type": "client_credentials",
        "client_id": created["client"]["clientId"],
        "client_secret": created["newSecret"],
    }
    token = ok(team.app.http.post("/connect/token", data=form))["access_token"]
    application = Account(form["client_id"], "", {"Authorization": f"Bearer {token}"})

    assert worker.subject_id in {user["userId"] for user in ok(team.get("/api/team/user", by=application))}
    assert [each["workflowId"] for each in ok(team.get("/workflows/v2", by=application))] == [workflow_id]
    made = ok(team.post("/scheduledjobs/v1", by=application, json=schedule(workflow_id, worker)))
    assert made["state"] == "Scheduled"
    # And nothing else: section 2.3.2 gives it no scope for jobs.
    problem(team.get("/jobs/v1/", by=application), 403, "insufficient-scope")


def schedule(workflow_id: str, worker: Account) -> Document:
    """The body of section 10.8."""
    return {
        "name": "API Scheduler Example Job 1",
        "description": "To Demo Scheduler Apis",
        "tasks": [{"taskType": "workflow", "artifactId": workflow_id}],
        "assignedUserIds": [worker.subject_id],
        "dueByDate": None,
        "priority": False,
    }


# Section 4.6


def test_a_collections_file_is_uploaded_in_two_blocks(team: Team, ranges: Sequence[str]) -> None:
    content = table(FILE)
    collection_id = ok(team.post("/collections/v1/collection", json={"name": "New Collection"}))[
        "collectionId"
    ]
    session = {
        "blockSize": BLOCK,
        "fileSize": FILE,
        "friendlyFileName": "ExampleCSV.csv",
        "collectionId": collection_id,
    }
    upload_id = ok(team.post("/collections/v1/upload", json=session))["id"]
    statuses = [
        team.post(
            f"/collections/v1/upload/{upload_id}",
            content=body,
            headers={"Content-Type": "text/csv", **headers},
        ).status_code
        for body, headers in pieces(content, ranges)
    ]
    assert statuses == [202, 204]
    found = eventually(lambda: loaded(team, collection_id))
    assert found is not None, "the file was not read"
    assert found["headerNames"] == ["PenID", "AnimalID", "AnimalName", "InspectionTime"]
    assert found["recordCount"] == content.count(b"\r\n") - 1
    assert found["csvFileSize"] == FILE


def loaded(team: Team, collection_id: str) -> Document | None:
    """The collection, once its file has been read."""
    found: Document = ok(team.get(f"/collections/v1/collection/{collection_id}"))["collections"][0]
    return found if found["headerNames"] else None


# Section 5


def test_flags_of_a_group_may_be_strings(team: Team) -> None:
    path = f"/api/group/{new_group(team)}"
    sent = {
        "dataViewer": "true",
        "editor": "true",
        "modifier": "true",
        "executor": "true",
        "approver": "false",
    }
    ok(team.put(f"{path}/permissions", json=sent))
    flags = ok(team.get(path))["permissions"]
    assert {name for name, value in flags.items() if value} == {
        "dataViewer",
        "editor",
        "modifier",
        "executor",
    }


def test_users_leave_a_group_by_a_delete_with_a_body(team: Team) -> None:
    path = f"/api/group/{new_group(team)}/users"
    users = [team.executor().subject_id for _ in range(3)]
    ok(team.put(path, json=users))
    ok(team.request("DELETE", path, json=users[:2]))
    assert ok(team.get(path.removesuffix("/users")))["users"] == users[2:]


def new_group(team: Team) -> str:
    """The id of a new group."""
    return str(ok(team.post("/group", json={"name": "Group Name"}))["id"])


# Section 10


def test_the_time_of_a_tasks_status_needs_no_zone(team: Team) -> None:
    workflow_id = uploaded(team)["workflowId"]
    made = ok(team.post("/scheduledjobs/v1", json=schedule(workflow_id, team.executor())))
    job = snapshot(clientJobId="c0bda7f7-0a1f-400c-8276-cef1c4ae75ea", workflowId=workflow_id)
    team.synced(job)
    path = f"/scheduledjobs/v1/{made['jobId']}"
    body = {
        "clientJobId": "c0bda7f7-0a1f-400c-8276-cef1c4ae75ea",
        "state": "Paused",
        "updated": "2021-10-06T07:24:52.44",
    }
    ok(team.put(f"{path}/tasks/{made['tasks'][0]['taskId']}/status", json=body))
    task = ok(team.get(path))["tasks"][0]
    assert task["state"] == 2
    assert task["clientJobId"] == body["clientJobId"]
    assert task["updated"].startswith("2021-10-06T07:24:52.44")
    assert task["updated"].endswith("Z")


# Section 13


def test_permissions_may_be_booleans_as_python_prints_them(team: Team) -> None:
    path = f"/api/team/user/{team.user('ADMIN').subject_id}/permissions"
    assert ok(team.put(path, json={"admin": "False", "dataViewer": "True", "executor": "True"})) == {
        "dataViewer": True,
        "executor": True,
    }
    # Without quotes, as the example has them, it is no JSON.
    problem(team.put(path, content=b'{"admin": False}'), 400, "malformed-json")


def test_the_new_name_of_a_user_may_be_called_name_with_a_capital(team: Team) -> None:
    path = f"/api/team/user/{team.executor().subject_id}"
    ok(team.put(path, json={"Name": "Chege Naengop"}))
    assert ok(team.get(path))["name"] == "Chege Naengop"


# Section 14


def test_a_workflow_is_read_by_post_and_by_get(team: Team) -> None:
    made = uploaded(team)
    path = f"/workflows/v2/{made['workflowId']}"
    by_post = ok(team.post(path))
    assert by_post["name"] == "My First Workflow"
    assert ok(team.get(path)) == by_post


def test_a_workflow_is_uploaded_in_two_blocks(team: Team, ranges: Sequence[str]) -> None:
    assert uploaded(team, ranges)["version"]["fileSize"] == FILE


def test_the_order_of_the_blocks_is_not_important(team: Team) -> None:
    assert uploaded(team, order=(1, 0))["version"]["fileSize"] == FILE


def uploaded(
    team: Team,
    ranges: Sequence[str] = RANGES["14.4.2: the last byte of the block"],
    order: Sequence[int] = (0, 1),
) -> Document:
    """A workflow uploaded after section 14.4.2: its id and its version as it is read."""
    session = {"blockSize": BLOCK, "fileSize": FILE, "friendlyFileName": "Workflow1.zip"}
    upload_id = ok(team.post("/workflows/v2/upload", json=session))["id"]
    parts = pieces(package(FILE), ranges)
    statuses = [
        team.post(
            f"/workflows/v2/upload/{upload_id}", content=parts[index][0], headers={**CURL, **parts[index][1]}
        ).status_code
        for index in order
    ]
    assert statuses == [202, 204]
    made = ok(team.post("/workflows/v2", json={"uploadId": upload_id, "name": "My First Workflow"}))
    read = ok(team.get(f"/workflows/v2/{made['workflowId']}"))
    return {**made, "version": part(read, "versions.0")}


def test_the_commands_of_section_14_4_2_work_and_their_slip_does_no_harm(
    tmp_path: Path, start_server: Callable[..., ServerProcess]
) -> None:
    created = init(tmp_path / "data")
    server = start_server(tmp_path / "data")
    token = server.token(created)
    content = package(FILE)
    headers = {"Authorization": f"Bearer {token}", **CURL}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30) as http:
        body = b'{"blockSize": 102400, "fileSize": 153600, "friendlyFileName": "Workflow1.zip"}'
        opened = http.post("/workflows/v2/upload", content=body, headers={"Content-type": "application/json"})
        path = f"/workflows/v2/upload/{ok(opened)['id']}"
        (first, first_headers), (second, second_headers) = pieces(content, RANGES[next(iter(RANGES))])
        assert http.post(path, content=first, headers=first_headers).status_code == 202

        # The document's second command says Content-Length: 102400 of the remaining 51,200 bytes.
        slip = {**headers, **second_headers, "Content-Length": "102400"}
        cut_off(server, path, slip, second)
        full = http.post(path, content=second + bytes(BLOCK - len(second)), headers=slip)
        assert full.status_code == 400, full.text
        assert http.post(path, content=second, headers=second_headers).status_code == 204

        body = b'{ "uploadId": "%s", "name": "My First Workflow" }' % path.rpartition("/")[2].encode()
        made = http.post("/workflows/v2", content=body, headers={"Content-type": "application/json"})
        read = ok(http.post(f"/workflows/v2/{ok(made)['workflowId']}"))
    assert part(read, "versions.0.fileSize") == FILE


def cut_off(server: ServerProcess, path: str, headers: dict[str, str], body: bytes) -> None:
    """Send less than the headers say, and hang up."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
