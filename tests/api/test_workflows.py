"""Workflows: metadata, versions, deleting, and who may use them (sections 14.1, 14.2, 14.3, 14.5, 14.6, 14.7)."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import insert, select

from fixtures.workflow_packages import package
from server.attachments.forgetting import DELETE_BLOBS
from server.auth.authority import Authority
from server.clock import now
from storage.blobs import BlobsUnavailable
from storage.database import Connection
from storage.ids import new_id
from storage.tables import group_members, groups, tasks
from tests.support.app import Account, Document, Team, problem
from tests.support.attachments import store_of
from tests.support.statements import counted
from tests.support.workflows import finalized, made, sent, workflow

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def listed(team: Team, by: Account | None = None, **params: Any) -> list[Document]:
    response = team.get("/workflows/v2", by=by, params=params)
    assert response.status_code == 200, response.text
    return list(response.json())


def path(item: Document, *rest: str) -> str:
    return "/".join(["/workflows/v2", item["workflowId"], *rest])


def group(team: Team, *members: Account) -> str:
    """A group of the team with these members."""
    group_id = new_id()

    def work(connection: Connection) -> None:
        row = {"team_id": team.team_id, "group_id": group_id, "name": group_id, "name_key": group_id}
        connection.execute(insert(groups), {**row, "created_at": now()})
        for member in members:
            row = {"team_id": team.team_id, "group_id": group_id, "user_id": member.subject_id}
            connection.execute(insert(group_members), row)

    team.app.write(work)
    authority: Authority = team.app.authority
    for member in members:
        authority.forget(member.subject_id)
    return group_id


def test_a_workflow_is_printed_as_in_the_document(team: Team) -> None:
    first = made(team, name="Panel Repair", description="On the roof", tags=["Panel", "Repair", "Panel"])
    second = made(team, workflowId=first["workflowId"], versionNotes="Longer cables")
    (document,) = listed(team)
    assert document == workflow(team, first)
    assert document == team.post(path(first)).json()
    assert UUID.fullmatch(document["workflowId"])
    assert document["teamName"] == team.name
    assert document["activeVersionId"] == second["versionId"]
    assert (document["name"], document["description"]) == ("Panel Repair", "On the roof")
    assert document["tags"] == ["Panel", "Repair"]
    assert (document["isArchived"], document["liveObjectIds"]) == (False, [])
    assert [version["version"] for version in document["versions"]] == [1, 2]
    newest = document["versions"][1]
    assert newest["versionId"] == second["versionId"]
    assert re.fullmatch("[0-9a-f]{24}", newest["fileReference"])
    assert (newest["authorId"], newest["isArchived"]) == (team.owner.subject_id, False)
    assert newest["versionNotes"] == "Longer cables"
    assert document["created"] < document["lastUpdated"] == newest["uploaded"]


def test_a_list_costs_one_statement(team: Team) -> None:
    for _ in range(3):
        first = made(team)
        made(team, workflowId=first["workflowId"])
    for by in (team.owner, team.executor()):
        listed(team, by=by)
        with counted(team.app) as counter:
            assert len(listed(team, by=by)) == 3
        assert counter.count == 1, counter.texts


def test_a_workflow_costs_one_statement_and_its_steps_one(team: Team) -> None:
    first = made(team)
    workflow(team, first)
    with counted(team.app) as counter:
        workflow(team, first)
        team.get(path(first, "steps"))
    assert counter.count == 2, counter.texts


def test_lists_are_newest_first_in_pages_and_by_tag(team: Team) -> None:
    names = ["a", "b", "c", "d"]
    items = {name: made(team, name=name, tags=["even"] if name in "bd" else []) for name in names}
    assert [item["name"] for item in listed(team)] == ["d", "c", "b", "a"]
    assert [item["name"] for item in listed(team, skip=1, limit=2)] == ["c", "b"]
    assert [item["name"] for item in listed(team, tag="even")] == ["d", "b"]
    assert [item["name"] for item in listed(team, tag="even", skip=1, limit=5)] == ["b"]
    team.put(path(items["c"]), json={"isArchived": True})
    assert [item["name"] for item in listed(team, archived="true")] == ["c"]
    assert [item["name"] for item in listed(team, archived="false")] == ["d", "b", "a"]
    problem(team.get("/workflows/v2?archived=perhaps"), 400, "invalid-parameter", "archived")


def test_metadata_that_is_not_sent_stays(team: Team) -> None:
    first = made(team, name="Before", description="D", tags=["t"])
    assert team.put(path(first), json={"name": " After "}).json()["name"] == "After"
    document = team.put(path(first), json={"tags": ["x", "y"], "isArchived": "true"}).json()
    assert document == workflow(team, first)
    assert (document["name"], document["description"]) == ("After", "D")
    assert (document["tags"], document["isArchived"]) == (["x", "y"], True)
    assert document["lastUpdated"] > document["created"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"description": "x" * 10_001}, "description"),
        ({"tags": ["x" * 101]}, "tags"),
        ({"tags": [str(number) for number in range(51)]}, "tags"),
        ({"tags": "one"}, "tags"),
        ({"liveObjectIds": ["a\0b"]}, "liveObjectIds"),
        ({"isArchived": "perhaps"}, "isArchived"),
    ],
)
def test_metadata_that_cannot_be_kept_is_refused_with_its_member(
    sqlite_team: Team, body: Document, field: str
) -> None:
    first = made(sqlite_team)
    before = workflow(sqlite_team, first)
    problem(sqlite_team.put(path(first), json=body), 422, "invalid-body", field)
    assert workflow(sqlite_team, first) == before


def test_unknown_live_objects_are_all_named_and_nothing_is_applied(team: Team) -> None:
    first = made(team)
    known = team.executor()
    body = {"name": "Other", "liveObjectIds": ["nobody", known.subject_id, "no-group"]}
    refused = problem(team.put(path(first), json=body), 422, "unknown-live-objects", "liveObjectIds")
    assert refused["unknown"] == ["no-group", "nobody"]
    assert workflow(team, first)["name"] == "Pumps"
    assert workflow(team, first)["liveObjectIds"] == []
    elsewhere = team.app.team().executor()
    body = {"liveObjectIds": [elsewhere.subject_id]}
    problem(team.put(path(first), json=body), 422, "unknown-live-objects")


def test_a_group_that_was_deleted_may_stay_in_a_workflow(team: Team) -> None:
    first = made(team)
    gone = group(team)
    assert team.put(path(first), json={"liveObjectIds": [gone]}).status_code == 200

    def delete_group(connection: Connection) -> None:
        connection.execute(groups.delete().where(groups.c.group_id == gone))

    team.app.write(delete_group)
    document = workflow(team, first)
    assert team.put(path(first), json=document).status_code == 200
    assert workflow(team, first)["liveObjectIds"] == [gone]
    problem(team.get(path(first), by=team.executor()), 404, "workflow-not-found")


def test_a_restricted_workflow_is_there_for_those_it_names_alone(team: Team) -> None:
    named, member, other = team.executor(), team.executor(), team.executor()
    first, free = made(team), made(team)
    ids = [named.subject_id, group(team, member)]
    assert team.put(path(first), json={"liveObjectIds": ids}).status_code == 200
    for by in (named, member, team.user("EDITOR"), team.user("APPROVER", "EXECUTOR"), team.owner):
        assert len(listed(team, by=by)) == 2
        assert workflow(team, first, by=by)["liveObjectIds"] == ids
    assert [item["workflowId"] for item in listed(team, by=other)] == [free["workflowId"]]
    for address in (
        path(first),
        path(first, "steps"),
        path(first, first["versionId"]),
        path(first, first["versionId"], "content"),
    ):
        assert team.get(address, by=named, follow_redirects=False).status_code in (200, 302)
        problem(team.get(address, by=other), 404, "workflow-not-found")
    problem(team.post(path(first), by=other), 404, "workflow-not-found")


def test_an_earlier_version_can_be_made_the_active_one(team: Team) -> None:
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    response = team.post(f"/workflows/v2/{first['versionId']}/activate")
    assert response.status_code == 200
    assert response.json() == workflow(team, first)
    assert workflow(team, first)["activeVersionId"] == first["versionId"]
    # Again, it changes nothing.
    before = workflow(team, first)
    assert team.post(f"/workflows/v2/{first['versionId']}/activate").status_code == 200
    assert workflow(team, first) == before
    problem(team.post("/workflows/v2/nothing/activate"), 404, "workflow-version-not-found")
    problem(team.post(f"/workflows/v2/{first['workflowId']}/activate"), 404, "workflow-version-not-found")
    assert second["version"] == 2


def test_an_archived_version_cannot_be_activated_nor_the_active_one_archived(team: Team) -> None:
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    problem(team.put(path(first, second["versionId"]), json={"isArchived": True}), 409, "version-active")
    body = {"isArchived": True, "versionNotes": "too short"}
    response = team.put(path(first, first["versionId"]), json=body)
    assert response.status_code == 200
    assert response.json() == workflow(team, first)
    (version, _) = workflow(team, first)["versions"]
    assert (version["isArchived"], version["versionNotes"]) == (True, "too short")
    problem(team.post(f"/workflows/v2/{first['versionId']}/activate"), 409, "version-archived")
    assert team.put(path(first, first["versionId"]), json={"isArchived": False}).status_code == 200
    assert team.post(f"/workflows/v2/{first['versionId']}/activate").status_code == 200


def test_the_active_version_cannot_be_deleted(team: Team) -> None:
    first = made(team)
    refused = problem(team.delete(path(first, first["versionId"])), 409, "version-active")
    assert "Activate another" in refused["detail"]


def test_deleting_a_version_removes_its_file_and_keeps_its_steps(team: Team) -> None:
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    address = team.get(path(first, first["versionId"])).json()["downloadUrl"]
    file = address.removeprefix("https://sync.example.com")
    assert team.get(file).status_code == 200
    response = team.delete(path(first, first["versionId"]))
    assert (response.status_code, response.content) == (200, b"")
    assert team.get(file).status_code == 404
    assert [item["versionId"] for item in workflow(team, first)["versions"]] == [second["versionId"]]
    problem(team.delete(path(first, first["versionId"])), 404, "workflow-version-not-found")
    problem(team.get(path(first, first["versionId"])), 404, "workflow-version-not-found")
    assert len(team.get(path(first, "steps"), params={"version": 1}).json()["steps"]) == 7
    # Its number is not given again.
    assert made(team, workflowId=first["workflowId"])["version"] == 3


def test_deleting_a_workflow_removes_all_its_files(team: Team) -> None:
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    files = [
        team.get(path(first, item["versionId"]))
        .json()["downloadUrl"]
        .removeprefix("https://sync.example.com")
        for item in (first, second)
    ]
    response = team.delete(path(first))
    assert (response.status_code, response.content) == (200, b"")
    assert [team.get(file).status_code for file in files] == [404, 404]
    assert listed(team) == []
    for method, address in [
        ("GET", path(first)),
        ("POST", path(first)),
        ("PUT", path(first)),
        ("DELETE", path(first)),
        ("GET", path(first, "steps")),
        ("GET", path(first, first["versionId"], "content")),
    ]:
        body = {"json": {}} if method == "PUT" else {}
        problem(team.request(method, address, **body), 404, "workflow-not-found")
    problem(team.post(f"/workflows/v2/{first['versionId']}/activate"), 404, "workflow-version-not-found")
    upload_id = sent(team, package(None))
    body = {"uploadId": upload_id, "workflowId": first["workflowId"]}
    problem(team.post("/workflows/v2", json=body), 404, "workflow-not-found")
    # The upload is as it was.
    assert finalized(team, upload_id)["version"] == 1


# Approval


@pytest.fixture
def approving(team: Team) -> Team:
    response = team.post("/teamsettings/v1", json={"WorkflowApproverMode": 1})
    assert response.status_code == 200, response.text
    return team


def approve(team: Team, item: Document, by: Account | None = None) -> Any:
    return team.post(path(item, item["versionId"], "approve"), by=by or team.user("APPROVER"))


def test_where_approval_is_needed_a_version_becomes_active_with_it(approving: Team) -> None:
    team = approving
    first = made(team)
    assert workflow(team, first)["activeVersionId"] is None
    problem(team.post(f"/workflows/v2/{first['versionId']}/activate"), 409, "version-not-approved")
    approver = team.user("APPROVER")
    response = approve(team, first, by=approver)
    assert response.status_code == 200
    assert response.json() == workflow(team, first)
    document = workflow(team, first)
    assert document["activeVersionId"] == first["versionId"]
    (version,) = document["versions"]
    assert (version["approved"], version["approvedBy"]) == (True, approver.subject_id)
    assert version["approvedAt"] > version["uploaded"]
    second = made(team, workflowId=first["workflowId"])
    assert workflow(team, first)["activeVersionId"] == first["versionId"]
    approve(team, second)
    assert workflow(team, first)["activeVersionId"] == second["versionId"]


def test_approving_an_older_or_archived_version_leaves_the_active_one(approving: Team) -> None:
    team = approving
    first = made(team)
    items = [made(team, workflowId=first["workflowId"]) for _ in range(3)]
    approve(team, items[1])
    approve(team, first)
    assert workflow(team, first)["activeVersionId"] == items[1]["versionId"]
    team.put(path(first, items[2]["versionId"]), json={"isArchived": True})
    approve(team, items[2])
    assert workflow(team, first)["activeVersionId"] == items[1]["versionId"]
    assert team.post(f"/workflows/v2/{first['versionId']}/activate").status_code == 200


def test_approving_again_changes_nothing(approving: Team) -> None:
    team = approving
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    approve(team, first)
    approve(team, second)
    team.post(f"/workflows/v2/{first['versionId']}/activate")
    before = workflow(team, first)
    assert approve(team, second).json() == before
    assert workflow(team, first) == before


def test_without_the_setting_approval_is_recorded_alone(team: Team) -> None:
    first = made(team)
    made(team, workflowId=first["workflowId"])
    third = made(team, workflowId=first["workflowId"])
    team.post(f"/workflows/v2/{first['versionId']}/activate")
    assert approve(team, third).status_code == 200
    assert workflow(team, first)["activeVersionId"] == first["versionId"]
    problem(approve(team, {**third, "versionId": "none"}), 404, "workflow-version-not-found")
    other = made(team)
    problem(approve(team, {**other, "versionId": third["versionId"]}), 404, "workflow-version-not-found")


# The file


def test_the_package_is_served_with_ranges_and_etags(team: Team) -> None:
    content = package(None, {"video.bin": bytes(range(256)) * 10})
    first = made(team, content)
    redirect = team.get(path(first, first["versionId"], "content"), follow_redirects=False)
    assert redirect.status_code == 302
    assert redirect.headers["cache-control"] == "private, no-store"
    file = redirect.headers["location"].removeprefix("https://sync.example.com")
    whole = team.app.http.get(file)
    assert whole.content == content
    assert whole.headers["content-type"] == "application/zip"
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''Pumps.zip"
    part = team.app.http.get(file, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    etag = whole.headers["etag"]
    assert team.app.http.get(file, headers={"If-None-Match": etag}).status_code == 304
    resumed = team.app.http.get(file, headers={"Range": "bytes=100-", "If-Range": etag})
    assert (resumed.status_code, resumed.content) == (206, content[100:])
    head = team.request("HEAD", path(first, first["versionId"], "content"), follow_redirects=False)
    assert (head.status_code, head.content) == (302, b"")
    document = team.get(path(first, first["versionId"])).json()
    assert (
        team.app.http.get(document["downloadUrl"].removeprefix("https://sync.example.com")).content == content
    )
    assert (document["workflowId"], document["isActive"]) == (first["workflowId"], True)


def test_files_of_one_workflow_are_not_found_under_another(team: Team) -> None:
    first, second = made(team), made(team)
    for address in (path(first, second["versionId"]), path(first, second["versionId"], "content")):
        problem(team.get(address), 404, "workflow-version-not-found")
    problem(team.delete(path(first, second["versionId"])), 404, "workflow-version-not-found")
    problem(team.put(path(first, second["versionId"]), json={}), 404, "workflow-version-not-found")


def test_if_the_store_is_down_a_task_deletes_the_file(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = sqlite_team
    first = made(team)

    async def down(_keys: Sequence[str]) -> None:
        raise BlobsUnavailable("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(store_of(team), "delete", down)
        assert team.delete(path(first)).status_code == 200

    def waiting(connection: Connection) -> int:
        query = select(tasks.c.task_id).where(tasks.c.team_id == team.team_id, tasks.c.kind == DELETE_BLOBS)
        return len(connection.execute(query).all())

    assert team.app.read(waiting) == 1
