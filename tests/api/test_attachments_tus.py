"""tus 1.0.0: the rules of the protocol as they stand on the wire.

What is cut: test_attachments_tus_cuts.py. Stock clients: test_attachments_tus_clients.py.
"""

import hashlib
import random
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from media.uploads import Uploads
from server.clock import now
from storage.database import sqlite_url
from storage.queries.attachments import UPLOAD_KIND
from tests.support.app import Headers, RunningApp, Team, problem, running_app
from tests.support.tus import (
    ADDRESS,
    TUS,
    TUS_CHUNK,
    begin,
    begun,
    checksum,
    content,
    look,
    offset_of,
    row_of,
    send,
    sent,
    tus_metadata,
)

MB = 1024 * 1024


# What is offered.


@pytest.mark.parametrize("address", [ADDRESS, f"{ADDRESS}/any"])
def test_options_says_what_is_offered_and_needs_no_token(sqlite_app: RunningApp, address: str) -> None:
    response = sqlite_app.http.request("OPTIONS", address)
    assert response.status_code == 204
    assert response.headers["tus-resumable"] == response.headers["tus-version"] == "1.0.0"
    assert response.headers["tus-max-size"] == str(2 * 1024**3)
    assert response.headers["tus-checksum-algorithm"] == "sha1,sha256,md5"
    assert response.headers["tus-extension"] == (
        "creation,creation-with-upload,checksum,expiration,termination"
    )


def test_every_answer_says_the_version_refusals_too(sqlite_team: Team) -> None:
    address = begun(sqlite_team, 4)
    answers = {
        201: begin(sqlite_team, 4),
        200: look(sqlite_team, address),
        409: send(sqlite_team, address, 1, b"x"),
        415: send(sqlite_team, address, 0, b"x", {"Content-Type": "text/plain"}),
        412: sqlite_team.request("HEAD", address),
        404: look(sqlite_team, f"{ADDRESS}/nothing"),
        405: sqlite_team.put(address),
        401: sqlite_team.app.http.head(address),
        204: sqlite_team.delete(address, headers=TUS),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers.get_list("tus-resumable") == ["1.0.0"], status


@pytest.mark.parametrize("version", [None, "0.2.2", "1.0.1", ""])
def test_another_version_is_refused_and_nothing_is_done(sqlite_team: Team, version: str | None) -> None:
    address = begun(sqlite_team, 4)
    wrong = {} if version is None else {"Tus-Resumable": version}
    chunk = {"Content-Type": TUS_CHUNK, "Upload-Offset": "0"}
    for response in (
        sqlite_team.request("PATCH", address, headers={**wrong, **chunk}, content=b"abcd"),
        sqlite_team.request("DELETE", address, headers=wrong),
        sqlite_team.post(ADDRESS, headers={**wrong, "Upload-Length": "4"}),
    ):
        problem(response, 412, "unsupported-tus-version")
        assert response.headers["tus-version"] == "1.0.0"
    assert offset_of(sqlite_team, address) == 0


# Creation.


def test_a_file_that_comes_in_chunks_becomes_the_attachment(team: Team) -> None:
    data = random.Random(1).randbytes(10_000)
    names = {"filename": "Foto ü.jpg", "filetype": "image/jpeg"}
    address = begun(team, len(data), attachmentId="photo", **names)
    assert address.startswith(f"{ADDRESS}/")
    offset = 0
    while offset < len(data):
        assert row_of(team, "photo") is None
        offset = sent(team, address, offset, data[offset : offset + 3_000])
    assert content(team, "photo") == data
    row = row_of(team, "photo")
    assert row is not None
    assert (row.file_name, row.declared_type) == ("Foto ü.jpg", "image/jpeg")
    assert row.uploaded_by == team.owner.subject_id


def test_other_clients_say_id_name_and_type(sqlite_team: Team) -> None:
    address = begun(sqlite_team, 1, attachmentId="", id="other", name="../../a.txt", type="text/plain")
    assert sent(sqlite_team, address, 0, b"x") == 1
    row = row_of(sqlite_team, "other")
    assert row is not None
    assert (row.file_name, row.declared_type) == ("a.txt", "text/plain")


@pytest.mark.parametrize(
    ("headers", "status", "code", "field"),
    [
        ({}, 400, "invalid-tus-header", "Upload-Length"),
        ({"Upload-Length": "-1"}, 400, "invalid-tus-header", "Upload-Length"),
        ({"Upload-Length": "1.5"}, 400, "invalid-tus-header", "Upload-Length"),
        ({"Upload-Length": "9" * 400}, 400, "invalid-tus-header", "Upload-Length"),
        ({"Upload-Length": str(2 * 1024**3 + 1)}, 413, "too-large", "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, 400, "invalid-tus-header", "Upload-Defer-Length"),
        ({"Upload-Length": "1"}, 422, "invalid-attachment-id", "attachmentId"),
        (
            {"Upload-Length": "1", "Upload-Metadata": tus_metadata(attachmentId="a/b")},
            422,
            "invalid-attachment-id",
            "attachmentId",
        ),
        (
            {"Upload-Length": "1", "Upload-Metadata": "attachmentId !"},
            400,
            "invalid-tus-header",
            "Upload-Metadata",
        ),
        (
            {"Upload-Length": "1", "Upload-Metadata": "attachmentId /w=="},
            400,
            "invalid-tus-header",
            "Upload-Metadata",
        ),
        (
            {"Upload-Length": "1", "Upload-Metadata": "attachmentId YQ==,attachmentId Yg=="},
            400,
            "invalid-tus-header",
            "Upload-Metadata",
        ),
        (
            {"Upload-Length": "1", "Upload-Metadata": tus_metadata(attachmentId="a" * 9_000)},
            400,
            "invalid-tus-header",
            "Upload-Metadata",
        ),
        (
            {"Upload-Length": "1", "Upload-Metadata": tus_metadata(attachmentId="a", sha256="00")},
            400,
            "invalid-digest",
            "sha256",
        ),
    ],
)
def test_what_no_upload_begins_with(
    sqlite_team: Team, headers: Headers, status: int, code: str, field: str
) -> None:
    problem(sqlite_team.post(ADDRESS, headers={**TUS, **headers}), status, code, field)


def test_an_empty_file_is_there_at_once(team: Team) -> None:
    address = begun(team, 0, attachmentId="empty")
    assert content(team, "empty") == b""
    assert offset_of(team, address) == 0


def test_the_first_bytes_may_come_with_the_creation(team: Team) -> None:
    response = begin(team, 6, attachmentId="both", body=b"abc")
    assert response.status_code == 201
    assert response.headers["upload-offset"] == "3"
    assert sent(team, response.headers["location"], 3, b"def") == 6
    assert content(team, "both") == b"abcdef"
    response = begin(team, 3, attachmentId="all", body=b"abc")
    assert response.headers["upload-offset"] == "3"
    assert content(team, "all") == b"abc"


def test_bytes_of_another_type_do_not_come_with_the_creation(sqlite_team: Team) -> None:
    headers = {**TUS, "Upload-Length": "3", "Upload-Metadata": tus_metadata(attachmentId="wrong-type")}
    response = sqlite_team.post(ADDRESS, headers={**headers, "Content-Type": "text/plain"}, content=b"abc")
    problem(response, 415, "unsupported-media-type")


def test_a_creation_whose_bytes_are_refused_leaves_no_upload(sqlite_team: Team) -> None:
    headers = {**TUS, "Upload-Length": "3", "Upload-Metadata": tus_metadata(attachmentId="corrupt")}
    headers |= {"Content-Type": TUS_CHUNK, **checksum("sha1", b"abd")}
    problem(sqlite_team.post(ADDRESS, headers=headers, content=b"abc"), 460, "checksum-mismatch")
    assert row_of(sqlite_team, "corrupt") is None
    more = {name: value for name, value in headers.items() if name != "Upload-Checksum"}
    problem(sqlite_team.post(ADDRESS, headers=more, content=b"abcd"), 400, "invalid-range")


# Where to go on.


def test_head_says_how_far_it_is_and_until_when(team: Team) -> None:
    response = begin(team, 10, attachmentId="some", filename="ü.txt", filetype="text/plain", sha256="ab" * 32)
    address = response.headers["location"]
    sent(team, address, 0, b"abcd")
    response = look(team, address)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["upload-offset"] == "4"
    assert response.headers["upload-length"] == "10"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["upload-metadata"] == tus_metadata(
        attachmentId="some", filename="ü.txt", filetype="text/plain", sha256="ab" * 32
    )
    expires = response.headers["upload-expires"]
    assert expires.endswith(" GMT")
    days = (parsedate_to_datetime(expires).timestamp() - now() / 1_000_000) / 86_400
    assert days == pytest.approx(team.app.settings.upload_days, abs=0.01)


def test_a_finished_upload_stays_to_be_asked_for_and_expires_no_more(team: Team) -> None:
    address = begun(team, 4)
    assert sent(team, address, 0, b"abcd") == 4
    response = look(team, address)
    assert response.headers["upload-offset"] == response.headers["upload-length"] == "4"
    assert "upload-expires" not in response.headers
    assert sent(team, address, 4, b"") == 4
    problem(send(team, address, 0, b"abcd"), 409, "offset-differs")


def test_an_expired_upload_is_gone(team: Team) -> None:
    short = Uploads(team.app.database, team.app._part("blobs"), lifetime_us=0)

    async def open_one() -> str:
        upload = await short.open(
            team.team_id,
            team.owner.subject_id,
            UPLOAD_KIND,
            "too-late",
            4,
            block_size=0,
            file_name=None,
            content_type=None,
            sha256=None,
            now=now(),
        )
        return f"{ADDRESS}/{upload.upload_id}"

    address = team.app.call(open_one)
    assert look(team, address).status_code == 410
    problem(send(team, address, 0, b"abcd"), 410, "upload-expired")


def test_a_terminated_upload_is_gone_and_its_bytes_with_it(team: Team) -> None:
    address = begun(team, 8, attachmentId="given-up")
    sent(team, address, 0, b"abcd")
    response = team.delete(address, headers=TUS)
    assert (response.status_code, response.content) == (204, b"")
    assert look(team, address).status_code == 404
    problem(send(team, address, 4, b"efgh"), 404, "upload-not-found")
    problem(team.delete(address, headers=TUS), 404, "upload-not-found")
    assert row_of(team, "given-up") is None


def test_terminating_a_finished_upload_leaves_the_file(team: Team) -> None:
    address = begun(team, 4, attachmentId="kept")
    sent(team, address, 0, b"abcd")
    assert team.delete(address, headers=TUS).status_code == 204
    assert content(team, "kept") == b"abcd"


def test_the_caller_is_told_of_success_only_once_the_file_is_taken_over(team: Team) -> None:
    """The server died after the last byte was recorded: the next HEAD takes the file over."""
    address = begun(team, 4, attachmentId="late")
    uploads = team.app._part("uploads")

    async def record() -> None:
        async def source() -> AsyncIterator[bytes]:
            yield b"abcd"

        upload = await uploads.find(team.team_id, address.rpartition("/")[2])
        await uploads.write(upload, 0, source())

    team.app.call(record)
    assert row_of(team, "late") is None
    assert offset_of(team, address) == 4
    assert content(team, "late") == b"abcd"


# Going on.


def test_bytes_at_another_offset_are_refused_and_the_right_one_is_told(team: Team) -> None:
    address = begun(team, 8)
    sent(team, address, 0, b"abcd")
    for offset in (0, 3, 5, 8, 900):
        response = send(team, address, offset, b"efgh")
        problem(response, 409, "offset-differs", "Upload-Offset")
        assert response.headers["upload-offset"] == "4"
    for text in ("", "-1", "four", "4.0"):
        headers = {**TUS, "Content-Type": TUS_CHUNK, "Upload-Offset": text}
        response = team.request("PATCH", address, headers=headers, content=b"efgh")
        problem(response, 400, "invalid-tus-header", "Upload-Offset")
    assert offset_of(team, address) == 4


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain", ""])
def test_bytes_of_another_content_type_are_refused(sqlite_team: Team, kind: str) -> None:
    address = begun(sqlite_team, 4)
    problem(send(sqlite_team, address, 0, b"abcd", {"Content-Type": kind}), 415, "unsupported-media-type")
    assert offset_of(sqlite_team, address) == 0


def test_more_bytes_than_are_missing_are_refused_and_none_is_kept(team: Team) -> None:
    address = begun(team, 4)
    sent(team, address, 0, b"ab")
    problem(send(team, address, 2, b"cde"), 400, "invalid-range")
    problem(send(team, address, 2, b"cde", checksum("md5", b"cde")), 400, "invalid-range")
    assert offset_of(team, address) == 2


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_chunk_with_its_checksum_is_taken_and_another_is_not(sqlite_team: Team, algorithm: str) -> None:
    name = f"checked-{algorithm}"
    address = begun(sqlite_team, 8, attachmentId=name)
    assert sent(sqlite_team, address, 0, b"abcd", headers=checksum(algorithm, b"abcd")) == 4
    response = send(sqlite_team, address, 4, b"efgX", checksum(algorithm, b"efgh"))
    assert problem(response, 460, "checksum-mismatch")["retry"] == "later"
    assert offset_of(sqlite_team, address) == 4
    assert sent(sqlite_team, address, 4, b"efgh", headers=checksum(algorithm, b"efgh")) == 8
    assert content(sqlite_team, name) == b"abcdefgh"


@pytest.mark.parametrize("said", ["crc32 AAAAAA==", "sha1", "sha1 !", "sha1 AAAA", "", "SHA1"])
def test_a_checksum_that_cannot_be_checked_is_refused(sqlite_team: Team, said: str) -> None:
    address = begun(sqlite_team, 4)
    response = send(sqlite_team, address, 0, b"abcd", {"Upload-Checksum": said})
    problem(response, 400, "invalid-tus-header", "Upload-Checksum")
    assert offset_of(sqlite_team, address) == 0


def test_a_chunk_with_a_checksum_may_be_larger_than_what_is_kept_in_memory(sqlite_team: Team) -> None:
    data = random.Random(2).randbytes(9 * MB + 11)
    address = begun(sqlite_team, len(data), attachmentId="large-checked")
    wrong = send(sqlite_team, address, 0, data[:-1] + b"?", checksum("sha256", data))
    assert wrong.status_code == 460 or data[-1:] == b"?"
    assert offset_of(sqlite_team, address) == 0
    assert sent(sqlite_team, address, 0, data, headers=checksum("sha256", data)) == len(data)
    assert content(sqlite_team, "large-checked") == data


def test_a_file_of_another_hash_than_declared_begins_anew(team: Team) -> None:
    digest = hashlib.sha256(b"abcd").hexdigest()
    address = begun(team, 4, attachmentId="declared", sha256=digest)
    problem(send(team, address, 0, b"abcX"), 422, "hash-mismatch")
    assert row_of(team, "declared") is None
    assert offset_of(team, address) == 0
    assert sent(team, address, 0, b"abcd") == 4
    assert content(team, "declared") == b"abcd"


def test_the_same_file_again_is_a_success_and_another_one_is_refused(team: Team) -> None:
    for _ in range(2):
        assert sent(team, begun(team, 4, attachmentId="twice"), 0, b"abcd") == 4
    address = begun(team, 4, attachmentId="twice")
    problem(send(team, address, 0, b"ABCD"), 409, "content-differs")
    assert look(team, address).status_code == 409
    problem(begin(team, 4, attachmentId="twice", body=b"ABCD"), 409, "content-differs")
    assert content(team, "twice") == b"abcd"


def test_a_client_that_cannot_patch_posts(team: Team) -> None:
    address = begun(team, 8, attachmentId="posted")

    def post(method: str, chunk: bytes = b"", **headers: str) -> httpx.Response:
        said = {**TUS, "X-HTTP-Method-Override": method, **headers}
        return team.post(address, headers=said, content=chunk)

    response = post("PATCH", b"abcd", **{"Content-Type": TUS_CHUNK, "Upload-Offset": "0"})
    assert (response.status_code, response.headers["upload-offset"]) == (204, "4")
    assert post("HEAD").headers["upload-offset"] == "4"
    problem(post("PUT"), 405, "method-not-allowed")
    problem(team.post(address, headers=TUS), 405, "method-not-allowed")
    assert post("DELETE").status_code == 204
    assert look(team, address).status_code == 404


# Whose upload it is.


def test_a_field_worker_sees_its_own_uploads_only(team: Team) -> None:
    ana, ben = team.executor(), team.executor()
    address = begun(team, 4, by=ana)
    assert look(team, address, by=ben).status_code == 404
    problem(send(team, address, 0, b"abcd", by=ben), 404, "upload-not-found")
    problem(team.delete(address, by=ben, headers=TUS), 404, "upload-not-found")
    assert sent(team, address, 0, b"ab", by=ana) == 2
    assert look(team, address, by=team.owner).headers["upload-offset"] == "2"


def test_an_upload_in_blocks_is_none_of_tus(sqlite_team: Team) -> None:
    opened = sqlite_team.post("/attachments/v1/upload", json={"attachmentId": "blocks", "fileSize": 4})
    assert opened.status_code == 200, opened.text
    assert look(sqlite_team, f"{ADDRESS}/{opened.json()['id']}").status_code == 404


def test_pages_of_other_origins_may_use_it(tmp_path: Path) -> None:
    origin = "https://app.example.com"
    with running_app(tmp_path, sqlite_url(tmp_path / "cors.db"), cors_origins=(origin,)) as app:
        wanted = "authorization,tus-resumable,upload-length,upload-metadata,upload-offset,upload-checksum"
        asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": wanted}
        preflight = app.http.request("OPTIONS", ADDRESS, headers={"Origin": origin, **asked})
        assert preflight.status_code < 300
        allowed = preflight.headers["access-control-allow-headers"].lower()
        assert set(wanted.split(",")) <= {name.strip() for name in allowed.split(",")}
        headers = {**TUS, "Upload-Length": "4", "Upload-Metadata": tus_metadata(attachmentId="a")}
        response = app.alpha.post(ADDRESS, headers={**headers, "Origin": origin})
        assert response.status_code == 201
        exposed = {
            name.strip() for name in response.headers["access-control-expose-headers"].lower().split(",")
        }
        assert {"location", "upload-offset", "upload-length", "upload-expires", "tus-resumable"} <= exposed
