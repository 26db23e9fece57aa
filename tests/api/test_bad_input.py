"""What cannot be applied is refused with a code, kept verbatim once, and changes nothing.

A bad snapshot must neither block a tablet's queue nor be thrown away: every refusal of what an
authenticated caller pushed says what is wrong and whether it is kept.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.database import sqlite_url
from tests.support.app import (
    PROBLEM,
    Document,
    RunningApp,
    Team,
    finished_snapshot,
    problem,
    running_app,
    snapshot,
    step,
)

RESERVED = ["my", "workflow", "snapshots", "bson", "abort", "basicSync", "batchSync", "changes"]


def with_id(value: object) -> bytes:
    return json.dumps(snapshot(clientJobId=value)).encode()


def with_step(**members: object) -> bytes:
    steps = [step("a"), step("b"), step("c"), step("d", **members)]
    return json.dumps({**snapshot(), "completedSteps": steps}).encode()


def raw(text: str) -> bytes:
    return b'{"metadata":{"clientJobId":"raw"},"x":%s}' % text.encode("utf-8", "surrogatepass")


def envelope(**members: object) -> bytes:
    sync = {"installId": "6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a1", "pushSeq": 1, **members}
    return json.dumps({**snapshot(), "sync": sync}).encode()


#: What can name no job.
BAD_IDS: dict[str, object] = {
    "null": None,
    "number": 7,
    "object": {},
    "empty": "",
    "with a slash": "a/b",
    "with NUL": "a\0b",
    "with a line break": "a\nb",
    "of 129 characters": "x" * 129,
    **{f"reserved: {word}": word for word in RESERVED},
    **{f"reserved: {word.swapcase()}": word.swapcase() for word in RESERVED},
}

#: name -> (body, status, code, field). ``None`` for a field: there is none to name.
REFUSED: dict[str, tuple[bytes, int, str, str | None]] = {
    # Not JSON, or not JSON that can be kept.
    "empty body": (b"", 400, "malformed-json", None),
    "blank body": (b" \n", 400, "malformed-json", None),
    "half an object": (b'{"metadata":{"clientJobId":"x"', 400, "malformed-json", None),
    "two objects": (b'{"metadata":{"clientJobId":"x"}}{}', 400, "malformed-json", None),
    "trailing comma": (b'{"metadata":{"clientJobId":"x",}}', 400, "malformed-json", None),
    "single quotes": (b"{'metadata':{}}", 400, "malformed-json", None),
    "byte order mark": (b"\xef\xbb\xbf" + with_id("bom"), 400, "malformed-json", None),
    "UTF-16": (with_id("utf16").decode().encode("utf-16"), 400, "malformed-json", None),
    "NaN": (raw("NaN"), 400, "malformed-json", None),
    "Infinity": (raw("-Infinity"), 400, "malformed-json", None),
    "number beyond all": (raw("1e400"), 400, "malformed-json", None),
    "leading zero": (raw("01"), 400, "malformed-json", None),
    "lone surrogate escaped": (raw('"\\ud800"'), 400, "malformed-json", None),
    "lone surrogate encoded": (raw('"\ud800"'), 400, "malformed-json", None),
    "invalid UTF-8": (b'{"metadata":{"clientJobId":"raw"},"x":"\xff\xfe"}', 400, "malformed-json", None),
    "invalid UTF-8 in a key": (b'{"metadata":{"clientJobId":"raw"},"\xc3":1}', 400, "malformed-json", None),
    "control character": (b'{"metadata":{"clientJobId":"raw"},"x":"\x01"}', 400, "malformed-json", None),
    "1,500 levels of arrays": (raw("[" * 1500 + "]" * 1500), 400, "too-deep", "$"),
    "1,500 levels of objects": (raw('{"a":' * 1500 + "1" + "}" * 1500), 400, "too-deep", "$"),
    "101 levels": (raw('{"a":' * 100 + "1" + "}" * 100), 400, "too-deep", "$"),
    "unclosed 100,000 levels": (raw("[" * 100_000), 400, "too-deep", "$"),
    # JSON, but no snapshot.
    "array": (b"[]", 422, "invalid-snapshot", "$"),
    "array of snapshots": (b"[%s]" % with_id("a"), 422, "invalid-snapshot", "$"),
    "text": (b'"text"', 422, "invalid-snapshot", "$"),
    "number": (b"7", 422, "invalid-snapshot", "$"),
    "null": (b"null", 422, "invalid-snapshot", "$"),
    "no metadata": (b"{}", 422, "invalid-snapshot", "metadata"),
    "metadata null": (b'{"metadata":null}', 422, "invalid-snapshot", "metadata"),
    "metadata array": (b'{"metadata":[]}', 422, "invalid-snapshot", "metadata"),
    "status number": (json.dumps(snapshot(status=1)).encode(), 422, "invalid-snapshot", "metadata.status"),
    "created number": (json.dumps(snapshot(created=1)).encode(), 422, "invalid-snapshot", "metadata.created"),
    "metadata of metadata text": (
        json.dumps(snapshot(metadata="x")).encode(),
        422,
        "invalid-snapshot",
        "metadata.metadata",
    ),
    "current step array": (
        json.dumps(snapshot(currentStep=[])).encode(),
        422,
        "invalid-snapshot",
        "metadata.currentStep",
    ),
    "steps object": (
        json.dumps({**snapshot(), "completedSteps": {}}).encode(),
        422,
        "invalid-snapshot",
        "completedSteps",
    ),
    "cancelled step null": (
        json.dumps({**snapshot(), "cancelledSteps": [step("a"), None]}).encode(),
        422,
        "invalid-snapshot",
        "cancelledSteps[1]",
    ),
    "step's time number": (
        with_step(updated=5),
        422,
        "invalid-snapshot",
        "completedSteps[3].singleStep.updated",
    ),
    "step's key number": (
        with_step(uniqueStepId=5),
        422,
        "invalid-snapshot",
        "completedSteps[3].singleStep.uniqueStepId",
    ),
    "step's files text": (
        with_step(valueResourceIds="x"),
        422,
        "invalid-snapshot",
        "completedSteps[3].singleStep.valueResourceIds",
    ),
    # The clientJobId.
    "no id": (b'{"metadata":{}}', 422, "invalid-client-job-id", "metadata.clientJobId"),
    **{
        f"id {name}": (with_id(value), 422, "invalid-client-job-id", "metadata.clientJobId")
        for name, value in BAD_IDS.items()
    },
    # The envelope.
    "envelope text": (
        json.dumps({**snapshot(), "sync": "x"}).encode(),
        422,
        "invalid-envelope",
        "sync",
    ),
    "install that is no UUID": (envelope(installId="tablet"), 422, "invalid-envelope", "sync.installId"),
    "install without a number": (envelope(pushSeq=None), 422, "invalid-envelope", "sync.pushSeq"),
    "number without an install": (envelope(installId=None), 422, "invalid-envelope", "sync.installId"),
    "pushSeq 0": (envelope(pushSeq=0), 422, "invalid-envelope", "sync.pushSeq"),
    "pushSeq text": (envelope(pushSeq="1"), 422, "invalid-envelope", "sync.pushSeq"),
    "pushSeq fraction": (envelope(pushSeq=1.5), 422, "invalid-envelope", "sync.pushSeq"),
    "pushSeq beyond 63 bits": (envelope(pushSeq=2**63), 422, "invalid-envelope", "sync.pushSeq"),
    "sent at no time": (envelope(clientSentAt="noon"), 422, "invalid-envelope", "sync.clientSentAt"),
    "base number": (envelope(base=7), 422, "invalid-envelope", "sync.base"),
    "confirm text": (envelope(confirm="a"), 422, "invalid-envelope", "sync.confirm"),
}


@pytest.mark.parametrize(
    ("name", "path"),
    [(name, "/jobs/v1/basicSync") for name in REFUSED]
    + [(name, "/jobs/v1") for name in ("empty body", "NaN", "101 levels", "array", "no id", "pushSeq 0")],
)
def test_what_is_no_snapshot_is_refused_and_kept_once_verbatim(
    sqlite_team: Team, name: str, path: str
) -> None:
    body, status, code, field = REFUSED[name]
    for times in (1, 2):
        refused = problem(sqlite_team.post(path, content=body), status, code)
        assert refused.get("field") == field
        assert (refused["quarantined"], refused["retry"]) == (True, "never")
        (entry,) = sqlite_team.quarantine()
        assert (entry["times"], entry["size"]) == (times, len(body))
        assert (entry["code"], entry["field"]) == (code, field)
        assert entry["subjectId"] == sqlite_team.owner.subject_id
    assert sqlite_team.quarantined_body(entry["quarantineId"]) == body
    assert sqlite_team.get("/jobs/v1").json() == []


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 5_000,
        "-" + "9" * 5_000,
        "0." + "1" * 5_000,
        "1e-400",
        "[" * 98 + "]" * 98,
        '"' + "x" * 99_999 + '"',
    ],
    ids=["5,000 digits", "negative 5,000 digits", "5,000 decimals", "tiny", "98 levels", "100 KB text"],
)
def test_what_is_merely_unusual_is_applied_as_it_came_or_refused(sqlite_team: Team, text: str) -> None:
    body = raw(text)
    response = sqlite_team.sync(body)
    if response.status_code == 200:
        assert text.encode() in sqlite_team.get("/jobs/v1/raw").content
        assert sqlite_team.get("/jobs/v1/snapshots/raw").status_code == 200
        return
    problem(response, 400)
    (entry,) = sqlite_team.quarantine()
    assert sqlite_team.quarantined_body(entry["quarantineId"]) == body


# Size


@pytest.mark.parametrize("path", ["/jobs/v1/basicSync", "/jobs/v1"])
def test_a_snapshot_of_11_mb_is_too_large_and_kept(sqlite_team: Team, path: str) -> None:
    body = raw(f'"{"x" * 11_000_000}"')
    refused = problem(sqlite_team.post(path, content=body), 413, "too-large")
    assert (refused["quarantined"], refused["retry"]) == (True, "never")
    (entry,) = sqlite_team.quarantine()
    assert entry["size"] == len(body)
    assert sqlite_team.quarantined_body(entry["quarantineId"]) == body


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """An application with limits small enough to reach."""
    folder = tmp_path_factory.mktemp("narrow")
    url = sqlite_url(folder / "fieldsync.db")
    with running_app(folder, url, max_snapshot_bytes=1_000, max_quarantine_bytes=5_000) as app:
        yield app


@pytest.mark.parametrize(
    "path", ["/jobs/v1/basicSync", "/jobs/v1", "/jobs/v1/some", "/jobs/v1/some/metadata"]
)
def test_a_body_beyond_what_is_kept_is_refused(narrow: RunningApp, path: str) -> None:
    team = narrow.team()
    refused = problem(team.post(path, content=raw(f'"{"x" * 6_000}"')), 413, "too-large")
    assert "quarantined" not in refused
    assert team.quarantine() == []


@pytest.mark.parametrize(("size", "status"), [(1_000, 200), (1_001, 413), (5_000, 413)])
def test_limits_are_exact(narrow: RunningApp, size: int, status: int) -> None:
    team = narrow.team()
    empty = raw('""')
    body = raw(f'"{"x" * (size - len(empty))}"')
    assert len(body) == size
    assert team.sync(body).status_code == status
    assert len(team.quarantine()) == (status == 413)


# Neighbours of a refusal


def test_a_refusal_leaves_the_job_as_it_was(team: Team) -> None:
    document = finished_snapshot()
    client_job_id = document["metadata"]["clientJobId"]
    team.synced(document)
    before = team.get(f"/jobs/v1/{client_job_id}").content
    history = team.get(f"/jobs/v1/snapshots/{client_job_id}").content
    bad: list[Document] = [
        {**document, "completedSteps": [1]},
        {**document, "sync": {"installId": "x", "pushSeq": 1}},
        {**document, "metadata": {**document["metadata"], "status": 1}},
    ]
    for body in bad:
        problem(team.sync(body), 422)
    assert team.get(f"/jobs/v1/{client_job_id}").content == before
    assert team.get(f"/jobs/v1/snapshots/{client_job_id}").content == history
    assert len(team.quarantine()) == len(bad)


def test_text_with_nul_in_it_is_kept_on_every_database(team: Team) -> None:
    team.synced(raw('"\\u0000"'))
    assert b'"x":"\\u0000"' in team.get("/jobs/v1/raw").content
    bodies = (
        b'{"metadata":{"clientJobId":"a\\u0000b"}}',
        b'{"\\u0000":',
        b"\0",
        b'{"metadata":{"\\u0000":[],"status":{}}}',
    )
    for body in bodies:
        assert team.sync(body).status_code in (400, 422)
    assert {team.quarantined_body(entry["quarantineId"]) for entry in team.quarantine()} == set(bodies)


@pytest.mark.parametrize("header", ["head", "userId", "workflowId"])
def test_nul_in_what_is_searched_by_is_no_error(team: Team, header: str) -> None:
    response = team.sync(snapshot(**{header: "a\0b"}))
    assert response.status_code == 200
    assert team.get("/jobs/v1").json()[0]["metadata"][header] == "a\0b"


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/v1/a%00b",
        "/jobs/v1/bson/a%00b",
        "/jobs/v1/snapshots/a%00b",
        "/jobs/v1/workflow/a%00b?limit=5",
        "/sync/v1/quarantine/a%00b",
        "/jobs/v1/a%FFb",
        "/jobs/v1/" + "x" * 5_000,
    ],
)
def test_an_address_that_can_name_nothing_is_no_error_of_ours(team: Team, path: str) -> None:
    response = team.get(path)
    assert response.status_code in (200, 400, 404)
    if response.status_code == 200:
        assert response.json() == []
    else:
        problem(response, response.status_code)


@pytest.mark.parametrize("path", ["/jobs/v1/abort?userId=a%00b", "/jobs/v1/abort?userId=%FF"])
def test_a_parameter_that_can_name_nobody_aborts_nothing(team: Team, path: str) -> None:
    response = team.put(path)
    assert response.status_code in (200, 400, 422)
    if response.status_code == 200:
        assert response.json() == {"aborted": 0}


# Addresses and methods that do not exist


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/nothing"), ("POST", "/jobs/v2"), ("GET", "/jobs/v1/a/b/c"), ("GET", "/sync/v1")],
)
def test_an_unknown_address_is_a_problem(sqlite_team: Team, method: str, path: str) -> None:
    problem(sqlite_team.request(method, path), 404, "no-such-route")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/jobs/v1"),
        ("DELETE", "/jobs/v1"),
        ("PUT", "/jobs/v1/basicSync/x/y"),
        ("PATCH", "/jobs/v1/some"),
        ("POST", "/readyz"),
        ("GET", "/connect/token"),
        ("DELETE", "/sync/v1/quarantine"),
    ],
)
def test_an_unknown_method_is_a_problem(sqlite_team: Team, method: str, path: str) -> None:
    expected = (404, "no-such-route") if path.endswith("/x/y") else (405, "method-not-allowed")
    response = sqlite_team.request(method, path)
    problem(response, *expected)
    assert ("allow" in response.headers) == (response.status_code == 405)


# Quarantine


@pytest.fixture
def refused(team: Team) -> tuple[str, bytes]:
    """A payload in quarantine that could be applied once its job is not deleted any more: a stranger's push."""
    document = snapshot(clientJobId="contested")
    team.synced(document, by=team.executor())
    body = json.dumps({**document, "completedSteps": [step("kept")]}).encode()
    problem(team.sync(body, by=team.executor()), 403, "not-your-job")
    (entry,) = team.quarantine()
    return str(entry["quarantineId"]), body


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_quarantined_payload_can_be_inspected(team: Team, refused: tuple[str, bytes], slash: str) -> None:
    quarantine_id, body = refused
    (listed,) = team.get(f"/sync/v1/quarantine{slash}").json()
    entry = team.get(f"/sync/v1/quarantine/{quarantine_id}{slash}").json()
    assert entry == {**listed, "body": body.decode()}
    plain = team.get(f"/sync/v1/quarantine/{quarantine_id}{slash}?raw=true")
    assert plain.content == body
    assert plain.headers["content-type"] == "application/octet-stream"
    assert plain.headers["content-disposition"].startswith("attachment")
    assert plain.headers["x-content-type-options"] == "nosniff"


def test_a_quarantined_payload_can_be_applied(team: Team, refused: tuple[str, bytes]) -> None:
    quarantine_id, _ = refused
    answer = team.post(f"/sync/v1/quarantine/{quarantine_id}/apply")
    assert answer.status_code == 200
    assert answer.json()["sync"]["action"] == "merged"
    assert team.job("contested")["completedSteps"] == [step("kept")]
    assert team.quarantine() == []
    problem(team.post(f"/sync/v1/quarantine/{quarantine_id}/apply"), 404, "quarantine-not-found")


def test_a_payload_that_still_cannot_be_applied_stays(team: Team) -> None:
    problem(team.sync(b"{"), 400)
    (entry,) = team.quarantine()
    problem(team.post(f"/sync/v1/quarantine/{entry['quarantineId']}/apply"), 400, "malformed-json")
    assert [kept["quarantineId"] for kept in team.quarantine()] == [entry["quarantineId"]]


def test_a_payload_of_a_deleted_job_stays_when_it_is_applied(team: Team) -> None:
    document = snapshot()
    team.synced(document)
    team.delete(f"/jobs/v1/{document['metadata']['clientJobId']}")
    problem(team.sync({**document, "completedSteps": [step("late")]}), 410)
    (entry,) = team.quarantine()
    problem(team.post(f"/sync/v1/quarantine/{entry['quarantineId']}/apply"), 410, "job-deleted")
    assert len(team.quarantine()) == 1


def test_a_quarantined_payload_can_be_discarded(team: Team, refused: tuple[str, bytes]) -> None:
    quarantine_id, _ = refused
    response = team.delete(f"/sync/v1/quarantine/{quarantine_id}")
    assert (response.status_code, response.content) == (200, b"")
    assert team.quarantine() == []
    for method, suffix in (("GET", ""), ("DELETE", ""), ("POST", "/apply")):
        response = team.request(method, f"/sync/v1/quarantine/{quarantine_id}{suffix}")
        problem(response, 404, "quarantine-not-found")


def test_quarantine_is_listed_in_pages_newest_first(team: Team) -> None:
    for number in range(5):
        problem(team.sync(b"%d" % number), 422)
    found = [team.quarantined_body(entry["quarantineId"]) for entry in team.quarantine()]
    assert found == [b"4", b"3", b"2", b"1", b"0"]
    page = team.get("/sync/v1/quarantine?skip=1&limit=2").json()
    assert [team.quarantined_body(entry["quarantineId"]) for entry in page] == [b"3", b"2"]
    problem(team.get("/sync/v1/quarantine?limit=0"), 400, "invalid-parameter", "limit")


# Anything at all

_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A snapshot with a few members replaced, removed or added anywhere, then a few bytes changed."""
    document: Any = {**finished_snapshot(clientJobId="fuzzed"), "sync": {"pushSeq": 1}}
    for _ in range(draw(st.integers(0, 4))):
        place = document
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if not isinstance(place[key], dict | list) or draw(st.integers(0, 2)) == 0:
                if draw(st.booleans()):
                    place[key] = draw(_values)
                else:
                    del place[key]
                break
            place = place[key]
    body = bytearray(json.dumps(document).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        if body:
            body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


@pytest.fixture(scope="module")
def fuzzed(sqlite_app: RunningApp) -> Team:
    """One team for everything that is thrown at it, so that what stays behind meets what comes."""
    return sqlite_app.team()


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=_mutated())
def test_whatever_is_sent_is_applied_or_refused_as_a_problem(fuzzed: Team, body: bytes) -> None:
    response = fuzzed.sync(body)
    if response.status_code == 200:
        job_id = response.json()["jobId"]
        assert fuzzed.get(f"/jobs/v1/bson/{job_id}").json()["jobId"] == job_id
        return
    assert 400 <= response.status_code < 500, (response.text, body)
    assert response.headers["content-type"] == PROBLEM
    assert response.json()["quarantined"] is True
