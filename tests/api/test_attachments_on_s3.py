"""Attachments on an S3 server that checks signatures: the ways in and out, and what must leave nothing."""

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from fixtures.pictures import jpeg
from storage.database import sqlite_url
from tests.support.app import RunningApp, Team, problem, running_app, snapshot
from tests.support.blobs import nanio_server, s3_client, s3_credentials


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("s3")
    with s3_credentials(), nanio_server(folder / "objects") as address:
        client = s3_client(address)
        client.create_bucket(Bucket="files")
        client.close()
        yield address


@pytest.fixture(scope="module")
def app(endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder: Path = tmp_path_factory.mktemp("app")
    blobs = f"s3://files/here?endpoint={endpoint}&region=us-east-1"
    with running_app(folder, sqlite_url(folder / "fieldsync.db"), blobs=blobs) as running:
        yield running


@pytest.fixture
def team(app: RunningApp) -> Team:
    return app.team()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for background work."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def objects(endpoint: str) -> set[str]:
    client = s3_client(endpoint)
    listed = client.list_objects_v2(Bucket="files").get("Contents", [])
    client.close()
    return {item["Key"] for item in listed}


def test_a_file_goes_in_and_comes_out_by_an_address_signed_by_s3(team: Team) -> None:
    content = jpeg()
    put = team.request(
        "PUT", "/attachments/v1/photo", content=content, headers={"Content-Type": "image/jpeg"}
    )
    assert put.status_code == 201, put.text
    moved = team.request("GET", "/attachments/v1/photo/content", follow_redirects=False)
    assert moved.status_code == 302
    answer = httpx.get(moved.headers["location"], trust_env=False)
    assert answer.content == content
    # This server ignores the signed type and disposition; the contract suite asks one that does not.
    assert "response-content-type=image%2Fjpeg" in moved.headers["location"]
    assert "response-content-disposition=attachment" in moved.headers["location"]
    assert httpx.get(moved.headers["location"] + "0", trust_env=False).status_code == 403


def test_its_thumbnails_are_made_and_its_job_hears_of_it(team: Team) -> None:
    document = snapshot()
    document["completedSteps"] = [{"singleStep": {"uniqueStepId": "s", "valueResourceIds": ["seen"]}}]
    job = document["metadata"]["clientJobId"]
    assert team.synced(document)["sync"]["missingResources"] == ["seen"]
    team.request("PUT", "/attachments/v1/seen", content=jpeg(orientation=6))
    eventually(lambda: team.get("/attachments/v1/seen").json()["state"] == "ready")
    eventually(lambda: team.get(f"/jobs/v1/{job}").json()["sync"]["attachmentsComplete"])
    small = team.get("/attachments/v1/seen").json()["thumbnails"][0]
    assert httpx.get(small["downloadUrl"], trust_env=False).content[:3] == b"\xff\xd8\xff"


def test_a_file_with_another_hash_leaves_nothing(team: Team, endpoint: str) -> None:
    before = objects(endpoint)
    headers = {"X-Content-SHA256": hashlib.sha256(b"other").hexdigest()}
    answer = team.request("PUT", "/attachments/v1/wrong", content=b"x" * 300_000, headers=headers)
    problem(answer, 422, "hash-mismatch")
    assert objects(endpoint) == before
    assert team.get("/attachments/v1/wrong").status_code == 404


def test_blocks_become_one_object_and_a_wrong_hash_of_theirs_leaves_nothing(
    team: Team, endpoint: str
) -> None:
    content = bytes(range(256)) * 2000
    for declared, status in ((b"\0" * 32, 422), (hashlib.sha256(content).digest(), 204)):
        asked = {"attachmentId": "blocks", "fileName": "b.bin", "contentType": "application/octet-stream"}
        asked |= {"blockSize": 200_000, "fileSize": len(content), "sha256": declared.hex()}
        upload = team.post("/attachments/v1/upload", json=asked).json()["id"]
        for start in (400_000, 0, 200_000):
            block = content[start : start + 200_000]
            headers = {"Content-Range": f"bytes {start}-{start + len(block) - 1}/{len(content)}"}
            answer = team.request("POST", f"/attachments/v1/upload/{upload}", content=block, headers=headers)
        assert answer.status_code == status, answer.text
    moved = team.request("GET", "/attachments/v1/blocks/content", follow_redirects=False)
    assert httpx.get(moved.headers["location"], trust_env=False).content == content
