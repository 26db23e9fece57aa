"""Reading jobs: rows 6.1 to 6.6 of the specification's section 6."""

import re
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.app import Document, RunningApp, Team, edited, finished_snapshot, problem, snapshot

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_BIG = 1_003

#: The document's job: member -> type. `modified` and the members of `sync` are the server's.
TOP: dict[str, type | tuple[type, ...]] = {
    "jobId": str,
    "metadata": dict,
    "completedSteps": list,
    "cancelledSteps": type(None),
    "team": str,
    "hierarchyStack": type(None),
    "packetIds": type(None),
    "jobExclusion": list,
    "excluded": bool,
    "sync": dict,
}
HEADER: dict[str, type | tuple[type, ...]] = {
    "clientJobId": str,
    "workflowId": str,
    "workflowVersionId": str,
    "jobTitle": str,
    "metadata": dict,
    "created": str,
    "updated": str,
    "modified": str,
    "status": str,
    "userId": type(None),
    "currentStep": type(None),
    "abandonReason": type(None),
    "username": type(None),
    "workflowName": str,
}
READ_SYNC = {"conflicts", "openSteps", "attachmentsComplete", "rev", "etag"}


def small(number: int, workflow_id: str = "many") -> Document:
    return {
        "metadata": {"clientJobId": f"job-{number:04}", "workflowId": workflow_id, "status": "InProgress"}
    }


def ids(jobs: list[Document]) -> list[str]:
    return [job["metadata"]["clientJobId"] for job in jobs]


@pytest.fixture(scope="module")
def crowd(app: RunningApp) -> Team:
    """A team with more jobs than one answer may hold; every tenth is of another workflow."""
    team = app.team()
    team.push_many([small(n, "few" if n % 10 == 0 else "many") for n in range(_BIG)])
    return team


def assert_shape(job: Document) -> None:
    """``job`` has the members of the document's example, in its order and of its types."""
    assert list(job) == list(TOP)
    assert list(job["metadata"]) == list(HEADER)
    for name, kind in TOP.items():
        assert isinstance(job[name], kind), name
    for name, kind in HEADER.items():
        assert isinstance(job["metadata"][name], kind), name
    assert re.fullmatch(r"[0-9a-f]{24}", job["jobId"])
    assert _TIME.fullmatch(job["metadata"]["modified"])
    assert set(job["sync"]) == READ_SYNC


@pytest.mark.parametrize("slash", ["", "/"])
def test_every_reading_route_answers_the_documented_job(team: Team, slash: str) -> None:
    pushed = finished_snapshot()
    job_id = team.synced(pushed)["jobId"]
    header = pushed["metadata"]
    one = (f"/jobs/v1/{header['clientJobId']}", f"/jobs/v1/bson/{job_id}")
    many = ("/jobs/v1", "/jobs/v1/my", f"/jobs/v1/workflow/{header['workflowId']}")
    for path in one:
        assert_shape(team.get(path + slash).json())
    for path in many:
        (job,) = team.get(path + slash).json()
        assert_shape(job)
        assert job == team.job(header["clientJobId"])


def test_a_job_read_is_the_job_pushed(team: Team) -> None:
    pushed = finished_snapshot()
    answer = team.synced(pushed)
    read = team.job(pushed["metadata"]["clientJobId"])
    assert read["completedSteps"] == pushed["completedSteps"]
    header, sent = dict(read["metadata"]), dict(pushed["metadata"])
    del header["modified"], sent["modified"]
    assert header == sent
    assert read["team"] == team.name
    assert {key: value for key, value in answer["sync"].items() if key in READ_SYNC} == read["sync"]


# 6.1 and 6.6: pages


@pytest.mark.parametrize("path", ["/jobs/v1", "/jobs/v1/my", "/jobs/v1/workflow/many?limit=20"])
def test_a_list_is_newest_first_and_twenty_long(crowd: Team, path: str) -> None:
    found = ids(crowd.get(path).json())
    assert len(found) == 20
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("path", ["/jobs/v1", "/jobs/v1/my"])
def test_skip_and_limit_cut_a_page_out_of_the_list(crowd: Team, path: str) -> None:
    newest = [f"job-{number:04}" for number in reversed(range(_BIG))]
    assert ids(crowd.get(f"{path}?skip=5&limit=7").json()) == newest[5:12]
    assert ids(crowd.get(f"{path}?skip={_BIG - 1}").json()) == newest[-1:]
    assert crowd.get(f"{path}?skip={_BIG}").json() == []
    assert crowd.get(f"{path}?skip=999999999999999999").json() == []


@pytest.mark.parametrize("path", ["/jobs/v1", "/jobs/v1/my", "/jobs/v1/workflow/many"])
@pytest.mark.parametrize(
    "limit",
    ["0", "-1", "x", "1.5", "1e3", "9" * 19, "0x10", "1_0", "+5", "٣"],
    ids=lambda value: f"limit={value[:5]}",
)
def test_a_limit_that_is_no_number_from_one_is_refused(sqlite_team: Team, path: str, limit: str) -> None:
    problem(sqlite_team.get(path, params={"limit": limit}), 400, "invalid-parameter", "limit")


@pytest.mark.parametrize("skip", ["-1", "x", "1.5"])
@pytest.mark.parametrize("path", ["/jobs/v1", "/jobs/v1/my", "/jobs/v1/workflow/many"])
def test_a_skip_that_is_no_number_from_zero_is_refused(sqlite_team: Team, path: str, skip: str) -> None:
    problem(sqlite_team.get(path, params={"skip": skip}), 400, "invalid-parameter", "skip")


@pytest.mark.parametrize("path", ["/jobs/v1", "/jobs/v1/my"])
@pytest.mark.parametrize("limit", [1_000, 1_001, 50_000])
def test_a_limit_beyond_a_thousand_is_clamped(crowd: Team, path: str, limit: int) -> None:
    assert len(crowd.get(f"{path}?limit={limit}").json()) == 1_000


def test_a_new_team_has_empty_lists(team: Team) -> None:
    for path in ("/jobs/v1", "/jobs/v1/my", "/jobs/v1/workflow/none", "/jobs/v1/workflow/none?limit=3"):
        assert team.get(path).json() == []


def test_my_jobs_are_those_that_name_me_or_that_i_made(team: Team) -> None:
    worker = team.executor()
    mine, given, other = snapshot(), snapshot(userId=worker.subject_id), snapshot()
    team.synced(mine, by=worker)
    team.synced(given)
    team.synced(other)
    expected = [given["metadata"]["clientJobId"], mine["metadata"]["clientJobId"]]
    assert ids(team.get("/jobs/v1/my/", by=worker).json()) == expected
    assert ids(team.get("/jobs/v1/my").json()) == [other["metadata"]["clientJobId"]]


# 6.2


def test_all_jobs_of_a_workflow_are_streamed(crowd: Team) -> None:
    response = crowd.get("/jobs/v1/workflow/many")
    expected = [f"job-{number:04}" for number in reversed(range(_BIG)) if number % 10]
    assert "content-length" not in response.headers
    assert response.headers["content-type"].startswith("application/json")
    assert ids(response.json()) == expected
    assert ids(crowd.get("/jobs/v1/workflow/many?skip=250").json()) == expected[250:]


def test_a_limit_makes_a_page_of_a_workflows_jobs(crowd: Team) -> None:
    expected = [f"job-{number:04}" for number in reversed(range(_BIG)) if number % 10 == 0]
    assert ids(crowd.get("/jobs/v1/workflow/few?limit=3&skip=2").json()) == expected[2:5]
    assert ids(crowd.get("/jobs/v1/workflow/few").json()) == expected


# 6.3


def test_the_history_holds_every_body_newest_first_with_the_keys_of_the_contract(team: Team) -> None:
    install = "6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a1"
    first = snapshot(status="InProgress")
    client_job_id = first["metadata"]["clientJobId"]
    team.synced(first)
    second = {**first, "metadata": {**first["metadata"], "jobTitle": "2"}}
    second["sync"] = {"installId": install, "pushSeq": 1}
    team.synced(second)
    history = team.get(f"/jobs/v1/snapshots/{client_job_id}").json()
    assert [list(entry) for entry in history] == [
        ["snapshotId", "received", "rev", "installId", "pushSeq", "clockOffsetSeconds", "size", "job"]
    ] * 2
    assert [entry["job"] for entry in history] == [second, first]
    assert [(entry["rev"], entry["pushSeq"]) for entry in history] == [(2, 1), (1, None)]
    assert [entry["installId"] for entry in history] == [install, f"legacy:{team.owner.subject_id}"]
    assert all(_TIME.fullmatch(entry["received"]) for entry in history)
    assert all(isinstance(entry["clockOffsetSeconds"], float) for entry in history)
    page = team.get(f"/jobs/v1/snapshots/{client_job_id}/?skip=1&limit=1").json()
    assert page == history[1:]


def test_the_history_keeps_a_body_as_it_was_spelt(team: Team) -> None:
    body = b'{ "metadata":{"clientJobId":"spelt","x":2.50} , "z":"\\u00e9" , "a": 1e2 }'
    team.synced(body)
    response = team.get("/jobs/v1/snapshots/spelt")
    assert body in response.content
    assert response.json()[0]["size"] == len(body)


def test_a_body_sent_again_is_in_the_history_once(team: Team) -> None:
    document = snapshot()
    for _ in range(3):
        team.synced(document)
    assert len(team.get(f"/jobs/v1/snapshots/{document['metadata']['clientJobId']}").json()) == 1


# 6.4 and 6.5


@pytest.mark.parametrize("path", ["/jobs/v1/nothing", "/jobs/v1/bson/nothing", "/jobs/v1/snapshots/nothing"])
def test_a_job_that_is_not_there_is_404(team: Team, path: str) -> None:
    problem(team.get(path), 404, "job-not-found")


def test_ids_are_case_sensitive(team: Team) -> None:
    team.synced(snapshot(clientJobId="Case"))
    assert team.job("Case")
    problem(team.get("/jobs/v1/case"), 404, "job-not-found")


@pytest.mark.parametrize("client_job_id", ["a b", "Łódź ‑ 4", "100%", "a?b=c#d", "a+b&c", "x" * 128])
def test_any_printable_id_can_be_read_back(team: Team, client_job_id: str) -> None:
    team.synced(snapshot(clientJobId=client_job_id))
    found = team.job(quote(client_job_id, safe=""))
    assert found["metadata"]["clientJobId"] == client_job_id


def test_an_unchanged_job_is_answered_304(team: Team) -> None:
    document = snapshot()
    path = f"/jobs/v1/{document['metadata']['clientJobId']}"
    job_id = team.synced(document)["jobId"]
    for address in (path, f"/jobs/v1/bson/{job_id}"):
        first = team.get(address)
        etag = first.headers["etag"]
        assert etag == first.json()["sync"]["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = team.get(address, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert team.get(address, headers={"If-None-Match": '"other.1"'}).status_code == 200
    team.synced(edited(document, 1, jobTitle="changed"))
    changed = team.get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.json()["sync"]["rev"] == 2


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("jobTitle", None),
        ("workflowId", None),
        ("status", "Nobody has heard of this"),
        ("metadata", None),
    ],
)
def test_a_sparse_snapshot_still_has_every_member_when_read(team: Team, member: str, value: Any) -> None:
    document: Document = {"metadata": {"clientJobId": "sparse", member: value}}
    team.synced(document)
    job = team.job("sparse")
    assert list(job) == list(TOP)
    assert list(job["metadata"]) == list(HEADER)
