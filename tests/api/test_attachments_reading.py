"""Reading files: one attachment, its content and thumbnails, the files of a job."""

import hashlib
import json
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from sqlalchemy import delete, select

from server.attachments.forgetting import DELETE_BLOBS, handler
from server.clock import now
from server.worker import Retry
from storage.blobs import BlobsUnavailable
from storage.database import Connection
from storage.ids import new_id
from storage.queue import Task
from storage.tables import tasks, uploads
from tests.support.app import Document, Team, problem
from tests.support.attachments import PHOTO, described, job_with, put_file, row_of, store_of

MEMBERS = {
    *("attachmentId", "state", "fileName", "contentType", "declaredType", "size", "sha256", "created"),
    *("stored", "uploadedBy", "failure", "downloadUrl", "width", "height", "takenAt", "latitude"),
    *("longitude", "durationSeconds", "thumbnails"),
}


def attachment(team: Team, attachment_id: str, **rest: Any) -> Document:
    response = team.get(f"/attachments/v1/{quote(attachment_id)}", **rest)
    assert response.status_code == 200, response.text
    return dict(response.json())


def fetch(team: Team, address: str) -> httpx.Response:
    """What is at a signed address, asked for without a token."""
    parts = urlsplit(address)
    return team.app.http.get(f"{parts.path}?{parts.query}" if parts.query else parts.path)


# One attachment


def test_an_attachment_says_everything_that_is_known_of_its_file(team: Team) -> None:
    details = described(
        team,
        width=40,
        height=30,
        takenAt="2025-03-03T09:20:00",
        latitude=51.05,
        longitude=-114.07,
        durationSeconds=1.5,
    )
    name = put_file(team, details=details)
    job = job_with(team, name)
    said = attachment(team, name)
    assert set(said) == {*MEMBERS, "jobs"}
    row = row_of(team, name)
    assert said["state"] == "ready"
    assert (said["attachmentId"], said["fileName"]) == (name, "Pump.jpg")
    assert (said["contentType"], said["declaredType"]) == ("image/jpeg", "image/x-declared")
    assert (said["size"], said["sha256"]) == (len(PHOTO), hashlib.sha256(PHOTO).hexdigest())
    assert (said["uploadedBy"], said["failure"], said["jobs"]) == (team.owner.subject_id, None, [job])
    assert (said["width"], said["height"], said["takenAt"]) == (40, 30, "2025-03-03T09:20:00")
    assert (said["latitude"], said["longitude"], said["durationSeconds"]) == (51.05, -114.07, 1.5)
    assert said["stored"].endswith("Z")
    assert said["created"] == said["stored"]
    assert [item["size"] for item in said["thumbnails"]] == ["small", "medium", "large"]
    assert [(item["width"], item["height"]) for item in said["thumbnails"]] == [(4, 3), (8, 6), (12, 9)]
    for item in said["thumbnails"]:
        assert fetch(team, item["downloadUrl"]).content == PHOTO + item["size"].encode()
    # Keys of the store are nobody's business.
    assert row.blob_key not in json.dumps({**said, "downloadUrl": None, "thumbnails": None})


def test_a_file_can_be_read_at_its_address_without_a_token(team: Team) -> None:
    said = attachment(team, put_file(team, file_name="Pümp 1.jpg"))
    response = fetch(team, said["downloadUrl"])
    assert response.content == PHOTO
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["content-disposition"].endswith(quote("Pümp 1.jpg"))


def test_answers_with_addresses_are_not_kept_by_caches(team: Team) -> None:
    name = put_file(team)
    job = job_with(team, name)
    for path in (f"/attachments/v1/{name}", f"/attachments/v1/{name}/content", f"/jobs/v1/{job}/attachments"):
        response = team.get(path, follow_redirects=False)
        assert "no-store" in response.headers["cache-control"], path


def test_a_file_that_has_not_arrived_is_missing_and_has_no_address(team: Team) -> None:
    job = job_with(team, "awaited")
    said = attachment(team, "awaited")
    assert (said["state"], said["downloadUrl"], said["jobs"]) == ("missing", None, [job])
    unknown = MEMBERS - {"attachmentId", "state", "created", "thumbnails"}
    assert {said[name] for name in unknown} == {None}
    assert said["thumbnails"] == []
    problem(team.get("/attachments/v1/awaited/content"), 404, "attachment-missing")


def test_a_missing_file_is_being_received_while_an_upload_of_it_is_open(team: Team) -> None:
    job = job_with(team, "awaited", "later")
    row = {
        "team_id": team.team_id,
        "upload_id": new_id(),
        "kind": "attachment",
        "target": "awaited",
        "block_size": 0,
        "file_size": 1,
        "subject_id": team.owner.subject_id,
        "created_at": now(),
        "expires_at": now() + 3_600_000_000,
    }
    team.app.write(lambda connection: connection.execute(uploads.insert().values(**row)) and None)
    assert attachment(team, "awaited")["state"] == "receiving"
    listed = team.get(f"/jobs/v1/{job}/attachments").json()
    assert [item["state"] for item in listed] == ["receiving", "missing"]


def test_an_attachment_nobody_has_heard_of_is_404(team: Team) -> None:
    for path in ("", "/content", "/content?size=small"):
        problem(team.get(f"/attachments/v1/unheard{path}"), 404, "attachment-not-found")
    problem(team.delete("/attachments/v1/unheard"), 404, "attachment-not-found")


def test_an_id_of_strange_characters_can_be_read(team: Team) -> None:
    name = put_file(team, attachment_id="Foto 1?#%:ü.jpg")
    assert attachment(team, name)["attachmentId"] == name


# Whose is it


def test_a_field_worker_sees_what_it_uploaded_and_the_files_of_its_own_jobs(team: Team) -> None:
    worker, other = team.executor(), team.executor()
    uploaded = put_file(team, by=worker)
    in_job = put_file(team)
    foreign = put_file(team, by=other)
    mine = job_with(team, in_job, "awaited", by=worker)
    theirs = job_with(team, in_job, foreign, by=other)
    assert attachment(team, uploaded, by=worker)["jobs"] == []
    # Of the jobs that refer to it a field worker learns its own.
    assert attachment(team, in_job, by=worker)["jobs"] == [mine]
    assert attachment(team, in_job)["jobs"] == [mine, theirs]
    assert attachment(team, "awaited", by=worker)["state"] == "missing"
    for path in (f"/attachments/v1/{foreign}", f"/attachments/v1/{foreign}/content"):
        problem(team.get(path, by=worker), 404, "attachment-not-found")
    problem(team.get("/attachments/v1/awaited", by=other), 404, "attachment-not-found")
    for path in ("attachments", "attachments.zip"):
        assert team.get(f"/jobs/v1/{mine}/{path}", by=worker).status_code == 200
        problem(team.get(f"/jobs/v1/{theirs}/{path}", by=worker), 404, "job-not-found")
        assert team.get(f"/jobs/v1/{theirs}/{path}").status_code == 200


# Content


def test_content_redirects_to_the_file_and_its_thumbnails(team: Team) -> None:
    name = put_file(team, details=described(team))
    for query, expected in (
        ("", PHOTO),
        ("?size=small", PHOTO + b"small"),
        ("?size=large", PHOTO + b"large"),
    ):
        for method in ("GET", "HEAD"):
            path = f"/attachments/v1/{name}/content{query}"
            response = team.request(method, path, follow_redirects=False)
            assert (response.status_code, response.content) == (302, b"")
            assert fetch(team, response.headers["location"]).content == expected


def test_a_thumbnail_that_there_is_not_is_404(team: Team) -> None:
    name = put_file(team, details=described(team))
    problem(team.get(f"/attachments/v1/{name}/content?size=huge"), 404, "thumbnail-not-found", "size")
    plain = put_file(team)
    problem(team.get(f"/attachments/v1/{plain}/content?size=small"), 404, "thumbnail-not-found", "size")


# Deleting


def waiting(team: Team, kind: str) -> list[str]:
    query = select(tasks.c.subject).where(tasks.c.team_id == team.team_id, tasks.c.kind == kind)
    return team.app.read(lambda connection: list(connection.execute(query).scalars()))


def test_a_deleted_file_is_gone_with_its_thumbnails(team: Team) -> None:
    name = put_file(team, details=described(team))
    said = attachment(team, name)
    addresses = [said["downloadUrl"], *(item["downloadUrl"] for item in said["thumbnails"])]
    assert {fetch(team, address).status_code for address in addresses} == {200}
    response = team.delete(f"/attachments/v1/{name}")
    assert (response.status_code, response.content) == (204, b"")
    assert {fetch(team, address).status_code for address in addresses} == {404}
    problem(team.get(f"/attachments/v1/{name}"), 404, "attachment-not-found")
    problem(team.delete(f"/attachments/v1/{name}"), 404, "attachment-not-found")


def test_a_deleted_file_that_a_job_refers_to_is_missing_again(team: Team) -> None:
    name = put_file(team, details=described(team))
    job = job_with(team, name)

    def forget_tasks(connection: Connection) -> None:
        connection.execute(delete(tasks).where(tasks.c.team_id == team.team_id))

    team.app.write(forget_tasks)
    assert team.delete(f"/attachments/v1/{name}").status_code == 204
    job_id = team.get(f"/jobs/v1/{job}").json()["jobId"]
    assert waiting(team, "job.files") == [job_id]
    said = attachment(team, name)
    assert (said["state"], said["downloadUrl"], said["size"], said["jobs"]) == ("missing", None, None, [job])
    assert (said["width"], said["thumbnails"]) == (None, [])
    # There is nothing left to delete, and nothing wrong with asking again.
    assert team.delete(f"/attachments/v1/{name}").status_code == 204
    put_file(team, b"another", attachment_id=name)
    assert attachment(team, name)["size"] == len(b"another")


def test_the_blobs_of_a_deleted_file_go_even_if_the_store_is_down_at_the_time(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = put_file(team)
    key = row_of(team, name).blob_key
    assert key is not None
    store = store_of(team)

    async def down(_keys: list[str]) -> None:
        raise BlobsUnavailable("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(store, "delete", down)
        assert team.delete(f"/attachments/v1/{name}").status_code == 204
        problem(team.get(f"/attachments/v1/{name}"), 404, "attachment-not-found")
        assert waiting(team, DELETE_BLOBS) == [key]
        task = Task(team.team_id, new_id(), DELETE_BLOBS, key, {"keys": [key]}, attempts=1, created_at=now())
        with pytest.raises(Retry):
            team.app.call(handler(store), task)
    assert team.app.call(store.info, key) is not None
    team.app.call(handler(store), task)
    assert team.app.call(store.info, key) is None


# The files of a job


def test_the_files_of_a_job_are_listed_in_pages_the_missing_ones_included(team: Team) -> None:
    names = sorted(f"{number:02}-{new_id()}" for number in range(25))
    for name in names[:3]:
        put_file(team, attachment_id=name)
    job = job_with(team, *reversed(names))

    def listed(query: str = "") -> list[str]:
        response = team.get(f"/jobs/v1/{job}/attachments{query}")
        assert response.status_code == 200, response.text
        assert all(set(item) == MEMBERS for item in response.json())
        return [item["attachmentId"] for item in response.json()]

    assert listed() == names[:20]
    assert listed("?skip=20") == names[20:]
    assert listed("?skip=2&limit=3") == names[2:5]
    assert listed("?limit=1000") == names
    assert listed("?skip=99") == []
    first = team.get(f"/jobs/v1/{job}/attachments?limit=4").json()
    assert [item["state"] for item in first] == ["stored", "stored", "stored", "missing"]
    problem(team.get(f"/jobs/v1/{job}/attachments?limit=x"), 400, "invalid-parameter", "limit")


def test_the_files_of_no_job_are_404(team: Team) -> None:
    job = job_with(team, put_file(team))
    assert team.delete(f"/jobs/v1/{job}").status_code == 200
    for name in ("nothing", job):
        problem(team.get(f"/jobs/v1/{name}/attachments"), 404, "job-not-found")
        problem(team.get(f"/jobs/v1/{name}/attachments.zip"), 404, "job-not-found")
