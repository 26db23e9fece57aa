"""Pushing snapshots: rows 6.12 and 6.14 of the specification's section 6, and the members of ``sync``."""

import json
import uuid
from typing import Any

import pytest

from tests.support.app import Document, Team, edited, finished_snapshot, keys_of, problem, snapshot, step

#: What the answer to a push says beside the job.
PUSH_SYNC = {
    "conflicts": list,
    "openSteps": list,
    "attachmentsComplete": bool,
    "rev": int,
    "etag": str,
    "action": str,
    "replayed": bool,
    "reset": bool,
    "missingResources": list,
    "serverTime": str,
    "clockOffsetSeconds": float,
}
PUSH_PATHS = ["/jobs/v1/basicSync", "/jobs/v1/basicSync/", "/jobs/v1", "/jobs/v1/"]


def enveloped(document: Document, install: str, seq: int, base: str | None = None, **more: Any) -> Document:
    return {**document, "sync": {"installId": install, "pushSeq": seq, "base": base, **more}}


@pytest.fixture
def install() -> str:
    return str(uuid.uuid4())


def id_of(document: Document) -> str:
    return str(document["metadata"]["clientJobId"])


# The answers


@pytest.mark.parametrize("path", PUSH_PATHS)
def test_a_new_job_is_created_and_answered_whole(team: Team, path: str) -> None:
    document = finished_snapshot()
    response = team.post(path, json=document)
    assert response.status_code == 200
    answer = response.json()
    assert answer["completedSteps"] == document["completedSteps"]
    assert answer["team"] == team.name
    assert response.headers["etag"] == answer["sync"]["etag"]
    read = team.job(id_of(document))
    assert (answer["jobId"], answer["metadata"]) == (read["jobId"], read["metadata"])


def test_basic_sync_says_what_happened(team: Team) -> None:
    answer = team.synced(snapshot())
    assert {name: type(value) for name, value in answer["sync"].items()} == PUSH_SYNC
    assert (answer["sync"]["action"], answer["sync"]["rev"]) == ("created", 1)


def test_a_job_created_twice_is_merged_as_in_basic_sync(team: Team) -> None:
    document = snapshot()
    created = team.post("/jobs/v1", json=document).json()
    again = team.post("/jobs/v1", json=edited(document, 1, jobTitle="other"))
    assert again.status_code == 200
    assert again.json()["jobId"] == created["jobId"]
    assert again.json()["metadata"]["jobTitle"] == "other"
    assert again.json()["sync"]["rev"] == 2


@pytest.mark.parametrize("path", PUSH_PATHS)
def test_a_job_may_be_aborted_by_its_status(team: Team, path: str) -> None:
    document = snapshot()
    team.synced(document)
    answer = team.post(path, json=edited(document, 1, status="aborted", abandonReason="storm")).json()
    header = answer["metadata"]
    assert (header["status"], header["abandonReason"], header["currentStep"]) == ("aborted", "storm", None)
    assert keys_of(answer["sync"]["openSteps"]) == keys_of([document["metadata"]["currentStep"]])


def test_the_action_tells_what_became_of_a_push(team: Team, install: str) -> None:
    document = snapshot()
    first = enveloped(document, install, 1)
    assert team.synced(first)["sync"]["action"] == "created"
    repeated = team.synced(first)["sync"]
    assert (repeated["action"], repeated["replayed"], repeated["rev"]) == ("unchanged", True, 1)
    echo = team.synced(enveloped(document, install, 2))["sync"]
    assert (echo["action"], echo["replayed"], echo["rev"]) == ("unchanged", False, 1)
    changed = {**document, "completedSteps": [step("a")]}
    assert team.synced(enveloped(changed, install, 3))["sync"]["action"] == "merged"
    team.post(f"/jobs/v1/{id_of(document)}/abort")
    late = {**document, "completedSteps": [step("b")]}
    assert team.synced(enveloped(late, install, 4))["sync"]["action"] == "recorded"
    assert keys_of(team.job(id_of(document))["completedSteps"]) == {"a", "b"}


def test_the_files_a_job_refers_to_are_named_as_missing(team: Team) -> None:
    document = snapshot()
    photos = [str(uuid.uuid4()), str(uuid.uuid4())]
    document["completedSteps"] = [
        step("a", valueResourceIds=photos),
        step("b", noteResourceFilenames=["n.jpg"]),
    ]
    said = team.synced(document)["sync"]
    assert sorted(said["missingResources"]) == sorted([*photos, "n.jpg"])
    assert said["attachmentsComplete"] is False


def test_two_tablets_that_disagree_leave_a_conflict_in_full(team: Team) -> None:
    document = {**snapshot(), "completedSteps": [step("a", note="one")]}
    team.synced(enveloped(document, str(uuid.uuid4()), 1))
    other = {**document, "completedSteps": [step("a", note="two", updated="2025-03-03T09:30:00.000Z")]}
    answer = team.synced(enveloped(other, str(uuid.uuid4()), 1))
    assert answer["completedSteps"][0]["singleStep"]["note"] == "two"
    (conflict,) = answer["sync"]["conflicts"]
    assert conflict["scope"] == "step:a"
    (lost,) = conflict["values"]
    assert lost["value"]["singleStep"]["note"] == "one"
    assert {"value", "phase", "installId", "time", "rev"} == set(lost)


def test_the_clock_offset_of_the_device_is_told(team: Team, install: str) -> None:
    sent = enveloped(snapshot(), install, 1, clientSentAt="2001-01-01T00:00:00Z")
    assert team.synced(sent)["sync"]["clockOffsetSeconds"] > 700_000_000


def test_a_base_of_another_server_life_is_reset(team: Team, install: str) -> None:
    document = snapshot()
    first = team.synced(enveloped(document, install, 1))
    for seq, base in enumerate(
        ['"00000000.1"', '"nonsense"', first["sync"]["etag"].replace('.1"', '.99"')], 2
    ):
        changed = edited(document, seq, jobTitle=str(seq))
        assert team.synced(enveloped(changed, install, seq, base))["sync"]["reset"] is True
    known = edited(document, 50, jobTitle="known")
    etag = team.job(id_of(document))["sync"]["etag"]
    assert team.synced(enveloped(known, install, 9, etag))["sync"]["reset"] is False


def test_a_cloned_install_is_told_to_make_a_new_identity(team: Team, install: str) -> None:
    document = snapshot()
    team.synced(enveloped(document, install, 1))
    other = team.sync(enveloped(edited(document, 1, jobTitle="clone"), install, 1))
    body = problem(other, 409, "install-cloned", "sync.installId")
    assert body["quarantined"] is True
    assert team.job(id_of(document))["metadata"]["jobTitle"] == document["metadata"]["jobTitle"]


# Prefer and If-Match


@pytest.mark.parametrize("prefer", ["return=minimal", "respond-async, return = minimal", "RETURN=MINIMAL"])
def test_a_minimal_answer_leaves_the_job_out(team: Team, install: str, prefer: str) -> None:
    document = enveloped(snapshot(), install, 1)
    response = team.sync(document, headers={"Prefer": prefer})
    answer = response.json()
    assert response.headers["preference-applied"] == "return=minimal"
    assert list(answer) == ["jobId", "clientJobId", "sync"]
    assert answer["clientJobId"] == id_of(document)
    assert set(answer["sync"]) == {*PUSH_SYNC, "inSync"}
    assert answer["sync"]["inSync"] is True


def test_a_minimal_answer_says_when_the_job_is_not_what_was_sent(team: Team, install: str) -> None:
    document = snapshot()
    team.synced({**document, "completedSteps": [step("a")]})
    response = team.sync(enveloped(document, install, 1), headers={"Prefer": "return=minimal"})
    assert response.json()["sync"]["inSync"] is False


@pytest.mark.parametrize("path", PUSH_PATHS)
def test_a_stale_if_match_is_412_with_the_current_job(team: Team, path: str) -> None:
    document = snapshot()
    etag = team.synced(document)["sync"]["etag"]
    current = team.synced(edited(document, 1, jobTitle="now"))
    stale = team.post(path, json=edited(document, 2, jobTitle="stale"), headers={"If-Match": etag})
    body = problem(stale, 412, "precondition-failed")
    assert body["job"] == team.job(id_of(document))
    assert body["job"]["sync"]["etag"] == current["sync"]["etag"]
    assert team.quarantine() == []


def test_a_current_if_match_lets_the_push_through(team: Team) -> None:
    document = snapshot()
    etag = team.synced(document)["sync"]["etag"]
    response = team.sync(edited(document, 1, jobTitle="new"), headers={"If-Match": etag})
    assert response.json()["sync"]["action"] == "merged"


def test_an_if_match_on_a_job_that_is_not_there_is_412_without_one(team: Team) -> None:
    response = team.sync(snapshot(), headers={"If-Match": "*"})
    assert "job" not in problem(response, 412, "precondition-failed")
    assert team.get("/jobs/v1").json() == []


def test_a_replay_comes_before_the_precondition(team: Team, install: str) -> None:
    document = enveloped(snapshot(), install, 1)
    team.synced(document)
    team.synced(edited(document, 1, jobTitle="moved on") | {"sync": None})
    assert team.synced(document, headers={"If-Match": '"gone.1"'})["sync"]["replayed"] is True


# What survives


@pytest.mark.parametrize(
    "value",
    [
        "2.50",
        "1e2",
        "-0.0",
        "123456789012345678901234567890",
        "0.1000000000000000055511151231257827",
        '"\\u00e9\\ud83d\\ude00\\/"',
        '"\\u0000"',
        '{"z":1,"a":[],"m":{"b":2,"a":1}}',
        '{"same":1,"same":2}',
        "[ 1 , 2 ]",
        "null",
        "true",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        '{"metadata":{"clientJobId":"%s"},"unknown":%s}',
        '{"metadata":{"clientJobId":"%s","unknown":%s}}',
        '{"metadata":{"clientJobId":"%s","metadata":{"unknown":%s}}}',
        '{"metadata":{"clientJobId":"%s"},"completedSteps":[{"singleStep":{"uniqueStepId":"a","x":%s}}]}',
        '{"metadata":{"clientJobId":"%s","currentStep":{"singleStep":{"uniqueStepId":"a"},"x":%s}}}',
    ],
    ids=["top", "header", "metadata", "step", "current step"],
)
def test_what_nobody_knows_survives_byte_for_byte(team: Team, place: str, value: str) -> None:
    body = (place % ("bytes", value)).encode()
    answer = team.sync(body)
    assert answer.status_code == 200
    read = team.get("/jobs/v1/bytes").content
    if value == "null" and '"metadata":{"unknown"' in place:
        assert b"unknown" not in read  # an explicit null takes a metadata key away
        return
    name = b'"unknown":' if b"unknown" in body else b'"x":'
    assert name + value.encode() in read
    assert name + value.encode() in answer.content


def test_the_order_of_a_steps_members_survives(team: Team) -> None:
    raw = b'{"reportStep":null,"extra":{"b":1,"a":2},"singleStep":{"zeta":1,"uniqueStepId":"k","alpha":2.0}}'
    team.sync(b'{"completedSteps":[%s],"metadata":{"clientJobId":"order"}}' % raw)
    assert raw in team.get("/jobs/v1/order").content


def test_what_the_server_owns_is_ignored_when_it_is_sent(team: Team) -> None:
    document = snapshot(modified="1999-01-01T00:00:00.000Z")
    document |= {"jobId": "mine", "team": "mine", "excluded": True, "jobExclusion": [{"userId": "x"}]}
    answer = team.synced(document)
    assert answer["jobId"] != "mine"
    assert answer["team"] == team.name
    assert (answer["excluded"], answer["jobExclusion"]) == (False, [])
    assert not answer["metadata"]["modified"].startswith("1999")


def test_members_of_sync_that_only_replies_have_are_ignored(team: Team, install: str) -> None:
    answer = team.synced(snapshot())
    answer["sync"] |= {"installId": install, "pushSeq": 1, "base": answer["sync"]["etag"]}
    echo = team.synced(json.dumps(answer).encode())
    assert (echo["sync"]["action"], echo["sync"]["rev"]) == ("unchanged", 1)


def test_absence_never_deletes(team: Team, install: str) -> None:
    document = {**finished_snapshot(), "more": 1}
    document["metadata"]["metadata"] = {"a": 1, "b": 2}
    answer = team.synced(enveloped(document, install, 1))
    sparse = {"metadata": {"clientJobId": id_of(document), "metadata": {"b": None}}}
    team.synced(enveloped(sparse, install, 2, answer["sync"]["etag"]))
    job = team.job(id_of(document))
    assert job["completedSteps"] == document["completedSteps"]
    assert job["metadata"]["metadata"] == {"a": 1}
    assert job["more"] == 1
    assert job["metadata"]["jobTitle"] == document["metadata"]["jobTitle"]
