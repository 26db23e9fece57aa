"""Two teams: whatever one asks with the other's ids, it learns nothing and changes nothing.

Generated from the application's own routes. A route with a parameter that is not known here fails: say in
``Ids`` what it stands for.
"""

import itertools
import json
from typing import Any, NamedTuple

import pytest

from fixtures.workflow_packages import forms, inspection, package
from server.auth.policies import PUBLIC
from tests.support.app import Document, Headers, RunningApp, Team, edited, problem, snapshot, step
from tests.support.attachments import put_file
from tests.support.deliveries import attempt, delivery_of
from tests.support.routes import Route, ask, routes_of
from tests.support.tasks import put
from tests.support.tus import TUS, tus_metadata

#: Bodies with which a route does its work, so that nothing but the team stands in the way.
BODIES: dict[str, Any] = {
    "PUT /jobs/v1/{client_job_id}": {"isExcluded": True},
    "POST /jobs/v1/{client_job_id}": {"metadata": {"jobTitle": "stolen"}},
    "POST /jobs/v1/{client_job_id}/metadata": {"stolen": True},
    "PUT /api/team/user/{user_id}/permissions": {"admin": True},
    "PUT /api/team/user/{user_id}": {"name": "stolen"},
    "PUT /api/group/{group_id}": {"name": "stolen"},
    "PUT /api/group/{group_id}/permissions": {"editor": True},
    "PUT /api/group/{group_id}/users": [],
    "DELETE /api/group/{group_id}/users": [],
    "PUT /group/{group_id}": {"name": "stolen, too"},
    "PUT /group/{group_id}/permissions": {"editor": True},
    "PUT /group/{group_id}/users": [],
    "DELETE /group/{group_id}/users": [],
    "PUT /collections/v1/collection/{collection_id}": {"name": "stolen"},
    "PUT /workflows/v2/{workflow_id}": {"name": "stolen"},
    "PUT /workflows/v2/{workflow_id}/{version_id}": {"versionNotes": "stolen"},
    "PUT /scheduledjobs/v1/{scheduled_job_id}/assignedUsers": {"assignedUserIds": []},
    "PUT /scheduledjobs/v1/{scheduled_job_id}/status": {"state": "Completed"},
    "PUT /scheduledjobs/v1/{scheduled_job_id}/tasks/{task_id}/status": {
        "clientJobId": "stolen",
        "state": "Completed",
    },
    "PUT /reporttemplates/v1/content/{report_template_id}": {"name": "stolen", "isArchived": False},
    "PUT /reporttemplates/v1/metadata/{report_template_id}": {"stolen": True},
    "PUT /trigger/v2/{trigger_id}": {"name": "stolen"},
}
#: Lists by a criterion rather than by an id: nothing found is an empty list.
LISTS = {"GET /jobs/v1/workflow/{workflow_id}"}
#: Routes that make something of the caller's own under an id that the caller chooses.
CREATES = {"PUT /attachments/v1/{attachment_id}"}
#: Routes whose parameter is a name that every team has.
NAMES = {
    "GET /teamsettings/v1/{setting_key}",
    "POST /query/v2/keys/{slot}/regenerate",
    "DELETE /query/v2/keys/{slot}",
}
#: Routes whose work the owner's client is refused for another reason than the team.
REFUSED = {
    "POST /sync/v1/quarantine/{quarantine_id}/apply": "malformed-json",
    "POST /scheduledjobs/v1/{scheduled_job_id}/claim": "users-only",
    "POST /scheduledjobs/v1/{scheduled_job_id}/release": "not-assigned",
    "POST /reportgenerator/v1/generate/{report_template_id}": "invalid-parameter",
    "POST /trigger/v2/{trigger_id}/execute": "invalid-parameter",
    "POST /trigger/v2/{trigger_id}/deliveries/replay": "invalid-parameter",
}
#: Policies that owners do not meet, and a permission that does.
NOT_OWNERS = {"Workflow_Approve": "APPROVER"}
#: Parameters that stand for another thing on some addresses: beginning of the address, name -> field of Ids.
#: The second group because either address deletes it; the older version because the active one stays.
ELSEWHERE = {
    ("/workflows/v2/upload/", "upload_id"): "workflow_upload_id",
    ("/collections/v1/upload/", "upload_id"): "collection_upload_id",
    ("/scheduledjobs/", "task_id"): "scheduled_task_id",
    ("/group/", "group_id"): "other_group_id",
    ("/workflows/v2/{version_id}/activate", "version_id"): "active_version_id",
    ("/reporttemplates/", "version_id"): "report_version_id",
}


class Ids(NamedTuple):
    """One team's ids, by the names they have in addresses."""

    client_job_id: str
    job_id: str
    workflow_id: str
    user_id: str
    client_id: str
    secret_id: str
    quarantine_id: str
    task_id: str
    attachment_id: str
    tus_id: str
    upload_id: str
    group_id: str
    other_group_id: str
    version_id: str
    active_version_id: str
    workflow_upload_id: str
    collection_id: str
    collection_upload_id: str
    scheduled_job_id: str
    scheduled_task_id: str
    trigger_id: str
    delivery_id: str
    report_template_id: str
    report_version_id: str

    def address(self, route: Route) -> str:
        """The route's address with these ids."""
        return route.template.format(**{name: self.value(route, name) for name in route.parameters})

    def value(self, route: Route, name: str) -> str:
        """The id that a parameter of the route stands for."""
        for (beginning, parameter), other in ELSEWHERE.items():
            if parameter == name and route.template.startswith(beginning):
                name = other
        found: str = getattr(self, name)
        return found


def populate(team: Team, name: str) -> Ids:
    """Something of everything, with ids that no other team has."""
    workflow_id, versions = _upload_workflow(team)
    job = snapshot(clientJobId=f"job-{name}", workflowId=workflow_id)
    attachment_id = put_file(team, b"{}", attachment_id=f"file-{name}")
    job["completedSteps"] = [step("photo", valueResourceIds=[attachment_id])]
    job_id = team.synced(job)["jobId"]
    problem(team.sync(b'{"of":"%s"' % name.encode()), 400)
    client = team.post("/api/client", json={"name": name, "scopes": ["job.read"], "permissions": ["owner"]})
    assert client.status_code == 200, client.text
    user_id = team.executor().subject_id
    groups = [_made(team, "/api/group", {"name": f"{name} {number}"})["id"] for number in (1, 2)]
    collection_id = _made(team, "/collections/v1/collection", {"name": name})["collectionId"]
    scheduled = _made(
        team,
        "/scheduledjobs/v1",
        {"name": name, "tasks": [{"taskType": "Workflow", "artifactId": workflow_id}]},
    )
    return Ids(
        client_job_id=f"job-{name}",
        job_id=job_id,
        workflow_id=workflow_id,
        user_id=user_id,
        client_id=client.json()["client"]["clientId"],
        secret_id=client.json()["client"]["secrets"][0]["secretId"],
        quarantine_id=team.quarantine()[0]["quarantineId"],
        task_id=put(team, name, "dead"),
        attachment_id=attachment_id,
        tus_id=_begin_upload(team, name),
        upload_id=_open_upload(team, name),
        group_id=groups[0],
        other_group_id=groups[1],
        version_id=versions[0],
        active_version_id=versions[1],
        workflow_upload_id=_made(team, "/workflows/v2/upload", {"fileSize": 4})["id"],
        collection_id=collection_id,
        collection_upload_id=_made(
            team, "/collections/v1/upload", {"fileSize": 4, "collectionId": collection_id}
        )["id"],
        scheduled_job_id=scheduled["jobId"],
        scheduled_task_id=scheduled["tasks"][0]["taskId"],
        trigger_id=(trigger_id := _make_trigger(team, name)),
        delivery_id=delivery_of(team, trigger_id, attempt("failed")),
        report_template_id=(template := _make_template(team, name))["reportTemplateId"],
        report_version_id=template["template"]["templateId"],
    )


def _make_trigger(team: Team, name: str) -> str:
    """A trigger that sends nothing: it is disabled."""
    body = {"name": name, "triggerType": "Http", "disabled": True}
    return str(_made(team, "/trigger/v2", body)["triggerId"])


def _make_template(team: Team, name: str) -> Document:
    """A report template, the team's default, as the list prints it."""
    made = _made(team, "/reporttemplates/v1/content", {"name": name, "bodyContent": f"<p>{name}</p>"})
    team.put(f"/reporttemplates/v1/default/{made['reportTemplateId']}")
    return dict(team.get("/reporttemplates/v1").json()[0])


def _made(team: Team, path: str, body: Document) -> Document:
    response = team.post(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def _upload_workflow(team: Team) -> tuple[str, list[str]]:
    """A workflow with two versions, the second of them active."""
    first = _made(team, "/workflows/v2", {"uploadId": _upload(team, inspection()), "name": "Inspection"})
    body = {"uploadId": _upload(team, forms()), "name": "Inspection", "workflowId": first["workflowId"]}
    second = _made(team, "/workflows/v2", body)
    return first["workflowId"], [first["versionId"], second["versionId"]]


def _upload(team: Team, procedure: Document) -> str:
    """The session of a package that has arrived."""
    content = package(procedure)
    upload_id: str = _made(team, "/workflows/v2/upload", {"fileSize": len(content)})["id"]
    headers = {"Content-Range": f"bytes 0-{len(content) - 1}/{len(content)}"}
    block = team.post(f"/workflows/v2/upload/{upload_id}", content=content, headers=headers)
    assert block.status_code == 204, block.text
    return upload_id


def _begin_upload(team: Team, name: str) -> str:
    headers = {**TUS, "Upload-Length": "4", "Upload-Metadata": tus_metadata(attachmentId=f"tus-{name}")}
    response = team.post("/attachments/v1/tus", headers=headers)
    assert response.status_code == 201, response.text
    return str(response.headers["location"]).rpartition("/")[2]


def _open_upload(team: Team, name: str) -> str:
    response = team.post("/attachments/v1/upload", json={"attachmentId": f"blocks-{name}", "fileSize": 4})
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


@pytest.fixture
def mine(team: Team) -> Ids:
    """What the team that is asked about has."""
    return populate(team, f"a-{team.team_id}")


@pytest.fixture
def intruder(app: RunningApp) -> Team:
    return app.team()


@pytest.fixture
def theirs(intruder: Team) -> Ids:
    """What the team that asks has itself."""
    return populate(intruder, f"b-{intruder.team_id}")


def state(team: Team, ids: Ids) -> list[str]:
    """Everything of a team that could be changed from outside."""
    paths = [
        "/jobs/v1?limit=1000",
        f"/jobs/v1/snapshots/{ids.client_job_id}",
        "/sync/v1/quarantine?limit=1000",
        "/tasks/v1?state=dead&limit=1000",
        f"/attachments/v1/upload/{ids.upload_id}",
        "/api/client",
        f"/api/team/user/{ids.user_id}/permissions",
        "/api/team/user",
        f"/api/group/{ids.group_id}",
        f"/api/group/{ids.other_group_id}",
        "/teamsettings/v1",
        "/workflows/v2",
        f"/workflows/v2/{ids.workflow_id}/steps",
        f"/workflows/v2/upload/{ids.workflow_upload_id}",
        "/collections/v1/collection",
        "/scheduledjobs/v1",
        "/trigger/v2",
        f"/trigger/v2/{ids.trigger_id}/deliveries",
        "/reporttemplates/v1/default",
        f"/reporttemplates/v1/{ids.report_template_id}/versions",
        "/query/v2/keys",
    ]
    upload = team.request("HEAD", f"/attachments/v1/tus/{ids.tus_id}", headers=TUS)
    # Without what changes by itself: addresses are signed anew, and a worker makes thumbnails.
    files = [
        f"{file['attachmentId']} {file['sha256']} {file['fileName']}"
        for file in team.get(f"/jobs/v1/{ids.client_job_id}/attachments").json()
    ]
    return [*(team.get(path).text for path in paths), upload.headers["upload-offset"], *files]


def addressed(app: RunningApp) -> list[Route]:
    """The routes that name something in their address."""
    routes = [route for route in routes_of(app.litestar) if route.parameters and route.policy != PUBLIC]
    return [route for route in routes if str(route) not in NAMES]


def caller(team: Team, route: Route) -> Headers:
    """Who of the team the route's policy lets in, with the route's headers."""
    permission = NOT_OWNERS.get(route.policy or "")
    return {**(team.client(permission) if permission else team.owner).headers, **route.headers}


def requests(route: Route, mine: Ids, theirs: Ids) -> list[str]:
    """Addresses of the route in which at least one id is the other team's."""
    names = route.parameters
    return [
        route.template.format(
            **{name: ids.value(route, name) for name, ids in zip(names, chosen, strict=True)}
        )
        for chosen in itertools.product((mine, theirs), repeat=len(names))
        if mine in chosen
    ]


def body_of(route: Route) -> bytes:
    return json.dumps(BODIES.get(str(route), {})).encode()


def test_another_teams_ids_are_404_on_every_route_and_change_nothing(
    app: RunningApp, team: Team, intruder: Team, mine: Ids, theirs: Ids
) -> None:
    before = state(team, mine)
    asked = 0
    for route in addressed(app):
        for path in requests(route, mine, theirs):
            headers = caller(intruder, route)
            answer = app.call(ask, app.litestar, route.method, path, headers, body_of(route))
            asked += 1
            if str(route) in LISTS:
                assert (answer.status, answer.body) == (200, b"[]"), path
                continue
            if str(route) in CREATES:
                assert answer.status == 201, path
                continue
            assert answer.status == 404, (str(route), path, answer)
            said = json.loads(answer.body)
            for secret in (*mine, team.name):
                assert secret not in answer.body.decode(), (str(route), said)
    assert asked >= 20
    assert state(team, mine) == before


def test_another_teams_ids_are_answered_like_ids_that_nobody_has(
    app: RunningApp, team: Team, intruder: Team, mine: Ids
) -> None:
    nobody = Ids(*(f"0{value}" for value in mine))
    for route in addressed(app):
        answers = []
        for ids in (mine, nobody):
            path = ids.address(route)
            headers = caller(intruder, route)
            answers.append(app.call(ask, app.litestar, route.method, path, headers, body_of(route)))
        if str(route) in CREATES:
            assert [answer.status for answer in answers] == [201, 201], str(route)
            continue
        assert answers[0] == answers[1], str(route)


def test_the_same_requests_work_for_the_team_itself(app: RunningApp, team: Team, mine: Ids) -> None:
    # Otherwise the refusals above would prove nothing. What removes something comes last.
    routes = sorted(addressed(app), key=lambda route: (route.method == "DELETE", -len(route.template)))
    for route in routes:
        path = mine.address(route)
        headers = caller(team, route)
        answer = app.call(ask, app.litestar, route.method, path, headers, body_of(route))
        if str(route) in REFUSED:
            assert json.loads(answer.body)["code"] == REFUSED[str(route)]
        else:
            assert answer.status in (200, 202, 204, 302), (str(route), answer)


def test_no_list_shows_anything_of_another_team(
    app: RunningApp, team: Team, intruder: Team, mine: Ids, theirs: Ids
) -> None:
    lists = [route for route in routes_of(app.litestar) if route.method == "GET" and not route.parameters]
    for route in lists:
        answer = app.call(ask, app.litestar, "GET", route.template, intruder.owner.headers)
        for secret in (*mine, team.name):
            assert secret.encode() not in answer.body, str(route)


def test_ids_in_bodies_and_parameters_reach_no_other_team(
    team: Team, intruder: Team, mine: Ids, theirs: Ids
) -> None:
    before = state(team, mine)
    reopened = intruder.post("/jobs/v1/reopen", json={"clientJobIds": [mine.client_job_id]})
    assert reopened.json() == {"reopened": 0, "notFound": [mine.client_job_id]}
    assert intruder.put(f"/jobs/v1/abort?userId={mine.user_id}").json() == {"aborted": 0}
    assert intruder.put("/jobs/v1/abort").json() == {"aborted": 1}
    assert state(team, mine) == before


def test_what_another_team_has_cannot_be_named_in_a_body(
    team: Team, intruder: Team, mine: Ids, theirs: Ids
) -> None:
    arrived = _upload(intruder, inspection())
    before, own = state(team, mine), state(intruder, theirs)
    group, workflow = f"/api/group/{theirs.group_id}", f"/workflows/v2/{theirs.workflow_id}"
    assigned = {"assignedUserIds": [mine.user_id]}
    trigger = f"/trigger/v2/{theirs.trigger_id}"
    for answer in (
        intruder.put(f"{group}/users", json=[mine.user_id]),
        intruder.put(workflow, json={"liveObjectIds": [mine.user_id]}),
        intruder.put(workflow, json={"liveObjectIds": [mine.group_id]}),
        intruder.post("/workflows/v2", json={"uploadId": mine.workflow_upload_id, "name": "x"}),
        intruder.post(
            "/workflows/v2", json={"uploadId": arrived, "workflowId": mine.workflow_id, "name": "x"}
        ),
        intruder.post("/collections/v1/upload", json={"fileSize": 4, "collectionId": mine.collection_id}),
        intruder.post("/scheduledjobs/v1", json={"name": "x", **assigned}),
        intruder.put(f"/scheduledjobs/v1/{theirs.scheduled_job_id}/assignedUsers", json=assigned),
        intruder.put(trigger, json={"objectIds": [mine.user_id]}),
        intruder.put(trigger, json={"objectIds": [mine.group_id]}),
        intruder.put(trigger, json={"reportTemplateId": mine.report_template_id}),
        intruder.post(f"{trigger}/execute?clientJobId={mine.client_job_id}"),
        intruder.post(f"{trigger}/execute?jobId={mine.job_id}"),
        intruder.get(f"{trigger}/deliveries/{mine.delivery_id}"),
        intruder.post("/teamsettings/v1", json={"Reports": {"DefaultReport": mine.report_template_id}}),
        intruder.post(f"/reportgenerator/v1/generate?jobId={mine.job_id}"),
        intruder.post(f"/reportgenerator/v1/generate?jobId={mine.client_job_id}"),
        intruder.post(f"/reportgenerator/v1/generate/{theirs.report_template_id}?jobId={mine.job_id}"),
        intruder.post(f"/reportgenerator/v1/generate/{mine.report_template_id}?jobId={theirs.job_id}"),
        intruder.post(
            "/reporttemplates/v1/preview", json={"clientJobId": mine.client_job_id, "bodyContent": "x"}
        ),
        intruder.post(
            "/reporttemplates/v1/preview",
            json={"clientJobId": theirs.client_job_id, "reportTemplateId": mine.report_template_id},
        ),
    ):
        assert answer.status_code in (404, 422), (str(answer.request.url), answer.text)
    assert state(intruder, theirs) == own
    # A job may name whatever it likes: it is the team's own scheduled job, or none.
    meta = {"ScheduledJobId": mine.scheduled_job_id, "ScheduledTaskId": mine.scheduled_task_id}
    intruder.synced(snapshot(status="Completed", metadata=meta, workflowId=mine.workflow_id))
    assert state(team, mine) == before


def test_names_that_every_team_has_stand_for_the_callers_own(
    app: RunningApp, team: Team, intruder: Team, mine: Ids
) -> None:
    before, own = state(team, mine), intruder.get("/query/v2/keys").json()
    for method, path in (
        ("POST", "/query/v2/keys/primary/regenerate"),
        ("DELETE", "/query/v2/keys/secondary"),
    ):
        answer = app.call(ask, app.litestar, method, path, intruder.owner.headers)
        assert answer.status in (200, 204), path
    assert state(team, mine) == before
    after = intruder.get("/query/v2/keys").json()
    assert all(one["key"] != other["key"] for one, other in zip(after, own, strict=True))


def test_two_teams_may_use_the_same_client_job_id(team: Team, intruder: Team) -> None:
    document = snapshot(clientJobId="shared")
    ours: Document = {**document, "completedSteps": [step("ours")]}
    theirs = edited({**document, "completedSteps": [step("theirs")]}, 1, jobTitle="theirs")
    first, second = team.synced(ours), intruder.synced(theirs)
    assert first["jobId"] != second["jobId"]
    assert second["sync"]["action"] == "created"
    assert team.job("shared")["completedSteps"] == [step("ours")]
    assert intruder.job("shared")["completedSteps"] == [step("theirs")]
    install = "6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a1"
    for asked, said in ((team, ours), (intruder, theirs)):
        pushed = asked.synced({**said, "sync": {"installId": install, "pushSeq": 1}})
        assert pushed["sync"]["replayed"] is False


def test_a_body_quarantined_by_both_teams_is_kept_for_each(team: Team, intruder: Team) -> None:
    for asked in (team, intruder):
        problem(asked.sync(b"{"), 400)
    assert team.quarantine()[0]["quarantineId"] != intruder.quarantine()[0]["quarantineId"]
    assert [entry["times"] for entry in (*team.quarantine(), *intruder.quarantine())] == [1, 1]


def test_a_token_is_good_for_its_own_team_alone(app: RunningApp, team: Team, intruder: Team) -> None:
    forged = app.authority.issue_access_token(
        team.team_id, intruder.owner.subject_id, "client", ["job.admin", "job.read_all"]
    )
    response = app.http.get("/jobs/v1", headers={"Authorization": f"Bearer {forged}"})
    problem(response, 401, "token-invalid")
