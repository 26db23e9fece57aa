"""Sending a workflow in blocks and finalizing it (section 14.4)."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import zstandard

from fixtures.workflow_packages import inspection, package, understated
from media.sandbox import Interrupted, Refused, Sandbox
from server.workflows import finalizing
from tests.support.app import Document, Team, problem
from tests.support.uploading import content_of, files, opened
from tests.support.workflows import BLOCK, finalized, made, send_block, sent, workflow


class Here(Sandbox):
    """Reads packages in this process, so that a test can hold the reading up."""

    async def run(self, function: Any, *args: Any, seconds: float = 20) -> Any:
        return await asyncio.to_thread(function, *args)


def large(size: int = 150 * 1024) -> bytes:
    """A package of about this size, which does not shrink."""
    return package(inspection(), {"video.mp4": content_of(size)})


def session(team: Team, content: bytes, **body: Any) -> str:
    asked = {"blockSize": BLOCK, "fileSize": len(content), "friendlyFileName": "Workflow1.zip", **body}
    response = team.post("/workflows/v2/upload", json=asked)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def state(team: Team, upload_id: str) -> Document:
    response = team.get(f"/workflows/v2/upload/{upload_id}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def test_the_example_of_the_document_works_as_it_is_printed(team: Team) -> None:
    content = large()
    upload_id = session(team, content)
    # The order does not matter; the end of the last range lies beyond the file.
    assert send_block(team, upload_id, content, BLOCK).status_code == 202
    assert send_block(team, upload_id, content, 0).status_code == 204
    response = team.post("/workflows/v2", json={"uploadId": upload_id, "name": "My First Workflow"})
    assert response.status_code == 200
    answer = response.json()
    document = workflow(team, answer)
    assert document["name"] == "My First Workflow"
    (version,) = document["versions"]
    assert (version["fileReference"], version["fileSize"]) == (upload_id, len(content))
    assert (version["versionId"], version["version"]) == (answer["versionId"], answer["version"])
    assert (answer["opaque"], answer["problem"]) == (False, None)


def test_a_session_tells_what_has_arrived_and_can_be_cancelled(team: Team) -> None:
    content = large()
    upload_id = session(team, content)
    assert state(team, upload_id) == {
        "id": upload_id,
        "blockSize": BLOCK,
        "fileSize": len(content),
        "friendlyFileName": "Workflow1.zip",
        "received": [],
        "complete": False,
        "finalized": False,
    }
    send_block(team, upload_id, content, BLOCK)
    assert state(team, upload_id)["received"] == [{"start": BLOCK, "end": len(content) - 1}]
    before = files(team.app)
    assert team.delete(f"/workflows/v2/upload/{upload_id}").status_code == 204
    assert len(files(team.app)) < len(before)
    for method in ("GET", "DELETE"):
        problem(team.request(method, f"/workflows/v2/upload/{upload_id}"), 404, "upload-not-found")
    problem(team.post("/workflows/v2", json={"uploadId": upload_id, "name": "x"}), 404, "upload-not-found")


def test_a_cancelled_session_leaves_the_workflow_made_of_it(team: Team) -> None:
    upload_id = sent(team, large())
    first = finalized(team, upload_id)
    assert state(team, upload_id)["finalized"] is True
    assert team.delete(f"/workflows/v2/upload/{upload_id}").status_code == 204
    assert team.get(workflow_content(team, first)).status_code == 200
    # And finalizing it still answers what it became.
    assert finalized(team, upload_id) == first


def workflow_content(team: Team, item: Document) -> str:
    address: str = team.get(f"/workflows/v2/{item['workflowId']}/{item['versionId']}").json()["downloadUrl"]
    return address.removeprefix("https://sync.example.com")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"fileSize": 200 * 1024 * 1024 + 1}, 413, "too-large", "fileSize"),
        ({"fileSize": 0}, 422, "invalid-body", "fileSize"),
        ({"blockSize": 100 * 1024 + 1}, 422, "invalid-body", "blockSize"),
        ({"blockSize": 0}, 422, "invalid-body", "blockSize"),
        ({"fileSize": "much"}, 422, "invalid-body", "fileSize"),
    ],
)
def test_a_session_has_the_limits_of_the_document(
    sqlite_team: Team, body: Document, status: int, code: str, field: str
) -> None:
    asked = {"blockSize": BLOCK, "fileSize": 1000, "friendlyFileName": "x.zip", **body}
    problem(sqlite_team.post("/workflows/v2/upload", json=asked), status, code, field)


def test_sessions_of_other_things_and_other_people_are_not_found(team: Team) -> None:
    attachment = opened(team, b"a file", "an attachment")["id"]
    problem(team.get(f"/workflows/v2/upload/{attachment}"), 404, "upload-not-found")
    problem(team.post("/workflows/v2", json={"uploadId": attachment, "name": "x"}), 404, "upload-not-found")
    one, other = team.user("EDITOR"), team.user("EDITOR")
    upload_id = sent(team, package(inspection()), by=one)
    problem(team.get(f"/workflows/v2/upload/{upload_id}", by=other), 404, "upload-not-found")
    body = {"uploadId": upload_id, "name": "x"}
    problem(team.post("/workflows/v2", json=body, by=other), 404, "upload-not-found")
    first = finalized(team, upload_id, by=one)
    problem(team.post("/workflows/v2", json=body, by=other), 404, "upload-not-found")
    (version,) = workflow(team, first)["versions"]
    assert (version["authorId"], version["authorName"]) == (one.subject_id, one.username)
    # Whoever sees the whole team finishes what others began.
    assert finalized(team, upload_id) == first


def test_finalizing_too_early_names_the_bytes_that_are_missing(team: Team) -> None:
    content = content_of(1000)
    upload_id = session(team, content, blockSize=100)
    for start in (100, 500, 600):
        send_block(team, upload_id, content, start, 100)
    refused = problem(
        team.post("/workflows/v2", json={"uploadId": upload_id, "name": "x"}), 409, "upload-incomplete"
    )
    assert refused["missing"] == [
        {"start": 0, "end": 99},
        {"start": 200, "end": 499},
        {"start": 700, "end": 999},
    ]


def test_finalizing_twice_answers_the_same_ids(team: Team) -> None:
    upload_id = sent(team, large())
    first = finalized(team, upload_id, name="One")
    assert finalized(team, upload_id, name="Two") == first
    assert workflow(team, first)["name"] == "One"
    other = made(team)
    # Not even as a version of another one.
    assert finalized(team, upload_id, workflowId=other["workflowId"]) == first
    assert len(workflow(team, other)["versions"]) == 1


def test_finalizing_many_times_at_once_makes_one_version(team: Team) -> None:
    upload_id = sent(team, large())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda number: finalized(team, upload_id, name=str(number)), range(6)))
    assert all(answer == answers[0] for answer in answers)
    assert len(workflow(team, answers[0])["versions"]) == 1
    assert len(team.get("/workflows/v2").json()) == 1


def test_two_servers_that_finalize_one_upload_at_once_make_one_version(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = sent(team, large())
    database, blobs, uploads = (
        team.app.litestar.dependencies[name].dependency()  # type: ignore[union-attr]
        for name in ("database", "blobs", "uploads")
    )
    together = threading.Barrier(3)
    read = finalizing.read_package

    def waiting(path: Any) -> Any:
        together.wait(20)
        return read(path)

    monkeypatch.setattr(finalizing, "read_package", waiting)
    principal = team.app.call(team.app.authority.verify, team.owner.headers["Authorization"].split()[1])

    async def race() -> list[Any]:
        servers = [finalizing.Finalizing(database, blobs, uploads, Here()) for _ in range(3)]
        asked = finalizing.Finalize(upload_id=upload_id, name="x")
        return await asyncio.gather(*(server.finalize(principal, asked) for server in servers))

    versions = team.app.call(race)
    assert len({version.version_id for version in versions}) == 1
    (listed,) = team.get("/workflows/v2").json()
    assert len(listed["versions"]) == 1
    assert team.get(workflow_content(team, finalized(team, upload_id))).status_code == 200


def test_numbers_of_versions_made_at_once_are_all_different(team: Team) -> None:
    first = made(team)
    uploads = [sent(team, package(inspection())) for _ in range(5)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(
            pool.map(lambda upload: finalized(team, upload, workflowId=first["workflowId"]), uploads)
        )
    assert sorted(answer["version"] for answer in answers) == [2, 3, 4, 5, 6]
    document = workflow(team, first)
    assert [version["version"] for version in document["versions"]] == [1, 2, 3, 4, 5, 6]
    assert document["activeVersionId"] == document["versions"][-1]["versionId"]


def test_it_goes_on_when_the_caller_hangs_up(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id = sent(team, large())
    database, blobs, uploads = (
        team.app.litestar.dependencies[name].dependency()  # type: ignore[union-attr]
        for name in ("database", "blobs", "uploads")
    )
    begun, go_on = threading.Event(), threading.Event()
    read = finalizing.read_package

    def waiting(path: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        return read(path)

    monkeypatch.setattr(finalizing, "read_package", waiting)
    principal = team.app.call(team.app.authority.verify, team.owner.headers["Authorization"].split()[1])

    async def hang_up() -> None:
        server = finalizing.Finalizing(database, blobs, uploads, Here())
        request = asyncio.create_task(
            server.finalize(principal, finalizing.Finalize(upload_id=upload_id, name="Kept"))
        )
        await asyncio.to_thread(begun.wait, 20)
        request.cancel()
        await asyncio.wait([request])
        assert request.cancelled()
        go_on.set()
        await server.close()

    team.app.call(hang_up)
    (listed,) = team.get("/workflows/v2").json()
    assert listed["name"] == "Kept"


class Ended(Sandbox):
    """A reader that ends as the test says."""

    def __init__(self, *ends: Exception) -> None:
        super().__init__()
        self._ends = list(ends)

    async def run(self, function: Any, *args: Any, seconds: float = 20) -> Any:
        if self._ends:
            raise self._ends.pop(0)
        return await asyncio.to_thread(function, *args)


def server_of(team: Team) -> finalizing.Finalizing:
    server: finalizing.Finalizing = team.app.litestar.dependencies["finalizing"].dependency()  # type: ignore[union-attr]
    return server


@contextmanager
def reading_ends(team: Team, *ends: Exception) -> Iterator[None]:
    """The next readings end so; those after them do not."""
    server = server_of(team)
    kept = server._sandbox
    server._sandbox = Ended(*ends)
    try:
        yield
    finally:
        server._sandbox = kept


def test_a_reader_that_is_ended_from_outside_leaves_the_upload_to_be_finalized_again(team: Team) -> None:
    upload_id = sent(team, large())
    body = {"uploadId": upload_id, "name": "Pumps"}
    with reading_ends(team, Interrupted("ended"), Interrupted("ended")):
        for _ in range(2):
            refused = problem(team.post("/workflows/v2", json=body), 503, "reading-interrupted")
            assert refused["retry"] == "later"
            assert team.get("/workflows/v2").json() == []
            assert (state(team, upload_id)["complete"], state(team, upload_id)["finalized"]) == (True, False)
        answer = team.post("/workflows/v2", json=body).json()
    assert (answer["opaque"], answer["problem"]) == (False, None)
    assert workflow(team, answer)["activeVersionId"] == answer["versionId"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name)
def test_a_reader_that_is_killed_in_earnest_leaves_the_upload_to_be_finalized_again(
    sqlite_team: Team, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload_id = sent(sqlite_team, large())
    server = server_of(sqlite_team)
    kept = server._sandbox

    class Killed(Sandbox):
        async def run(self, function: Any, *args: Any, seconds: float = 20) -> Any:
            return await kept.run(signal.raise_signal, number)

    monkeypatch.setattr(server, "_sandbox", Killed())
    body = {"uploadId": upload_id, "name": "Pumps"}
    problem(sqlite_team.post("/workflows/v2", json=body), 503, "reading-interrupted")
    monkeypatch.undo()
    assert finalized(sqlite_team, upload_id)["opaque"] is False


@pytest.mark.parametrize("mode", [0, 1], ids=["activated at once", "with approval"])
def test_a_package_that_takes_too_long_does_not_take_the_place_of_the_active_version(
    team: Team, mode: int
) -> None:
    first = made(team)
    upload_id = sent(team, large())
    team.post("/teamsettings/v1", json={"WorkflowApproverMode": mode})
    with reading_ends(team, Refused("It took longer than 60 seconds.")):
        second = finalized(team, upload_id, workflowId=first["workflowId"])
    assert (second["version"], second["opaque"]) == (2, True)
    assert second["problem"] == (
        "It took longer than 60 seconds. It was not made the active version: send the package again, or activate "
        "it as it is."
    )
    document = workflow(team, first)
    assert document["activeVersionId"] == first["versionId"]
    assert document["versions"][1]["problem"] == second["problem"]
    if not mode:
        assert team.post(f"/workflows/v2/{second['versionId']}/activate").status_code == 200
        assert workflow(team, first)["activeVersionId"] == second["versionId"]


def test_the_first_package_of_a_workflow_is_the_active_one_even_if_it_takes_too_long(team: Team) -> None:
    upload_id = sent(team, large())
    with reading_ends(team, Refused("It took longer than 60 seconds.")):
        first = finalized(team, upload_id)
    assert first["problem"] == "It took longer than 60 seconds."
    assert workflow(team, first)["activeVersionId"] == first["versionId"]


def test_a_package_without_a_workflow_is_made_the_active_version_as_ever(team: Team) -> None:
    first = made(team)
    second = made(team, package(None), workflowId=first["workflowId"])
    assert workflow(team, first)["activeVersionId"] == second["versionId"]


def test_nothing_is_compressed_while_a_version_is_stored(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_id = sent(team, large())
    monkeypatch.setattr(zstandard, "ZstdCompressor", None)
    monkeypatch.setattr(zstandard, "compress", None)
    assert finalized(team, upload_id)["opaque"] is False  # the reader is another process


def test_a_zip_that_unpacks_to_more_than_it_declares_is_refused(team: Team) -> None:
    upload_id = sent(team, understated(20_000_000))
    body = {"uploadId": upload_id, "name": "x"}
    refused = problem(team.post("/workflows/v2", json=body), 422, "unsafe-package", "uploadId")
    assert "zeros" in refused["detail"]


def test_a_new_version_may_come_with_new_metadata(team: Team) -> None:
    first = made(team, name="One", description="D", tags=["a"])
    second = made(team, workflowId=first["workflowId"], name="Two", tags=[])
    assert (second["workflowId"], second["version"]) == (first["workflowId"], 2)
    document = workflow(team, first)
    assert (document["name"], document["description"], document["tags"]) == ("Two", "D", [])


def test_an_unknown_workflow_gets_no_version(team: Team) -> None:
    upload_id = sent(team, package(inspection()))
    elsewhere = made(team.app.team())
    for workflow_id in ("nothing", elsewhere["workflowId"]):
        body = {"uploadId": upload_id, "workflowId": workflow_id}
        problem(team.post("/workflows/v2", json=body), 404, "workflow-not-found")
    assert finalized(team, upload_id)["version"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": None}, "name"),
        ({"name": " "}, "name"),
        ({"uploadId": 7}, "uploadId"),
        ({"description": "x" * 10_001}, "description"),
        ({"versionNotes": "x" * 10_001}, "versionNotes"),
        ({"tags": ["a\nb"]}, "tags"),
    ],
)
def test_what_cannot_be_finalized_is_refused_with_its_member(
    sqlite_team: Team, body: Document, field: str
) -> None:
    asked = {"uploadId": "0" * 24, "name": "x", **body}
    problem(sqlite_team.post("/workflows/v2", json=asked), 422, "invalid-body", field)


def test_a_file_that_is_no_zip_is_refused_and_the_upload_stays(team: Team) -> None:
    content = content_of(500)
    upload_id = sent(team, content)
    before = files(team.app)
    for _ in range(2):
        body = {"uploadId": upload_id, "name": "x"}
        problem(team.post("/workflows/v2", json=body), 422, "not-a-package", "uploadId")
    assert state(team, upload_id)["complete"] is True
    assert files(team.app) == before
    assert team.get("/workflows/v2").json() == []


def test_a_zip_that_leads_out_of_itself_is_refused(team: Team) -> None:
    upload_id = sent(team, package(inspection(), {"../../etc/passwd": b"root"}))
    body = {"uploadId": upload_id, "name": "x"}
    refused = problem(team.post("/workflows/v2", json=body), 422, "unsafe-package", "uploadId")
    assert "../../etc/passwd" in refused["detail"]


@pytest.mark.parametrize("content", [None, b"<Procedure", b"<html/>"])
def test_a_zip_without_a_readable_workflow_is_kept_as_opaque(team: Team, content: bytes | None) -> None:
    first = made(team, package(content))
    assert first["opaque"] is True
    assert "workflow.xml" in first["problem"]
    document = workflow(team, first)
    assert document["activeVersionId"] == first["versionId"]
    assert document["versions"][0]["opaque"] is True
    steps = team.get(f"/workflows/v2/{first['workflowId']}/steps").json()
    assert (steps["opaque"], steps["problem"], steps["steps"]) == (True, first["problem"], [])
