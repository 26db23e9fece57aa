"""Sending files to the running application in one request."""

import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.attachments import uploading
from server.attachments.intake import clean_content_type
from server.bodies import clean_file_name
from tests.support.app import Headers, RunningApp, Team, problem
from tests.support.uploading import (
    JPEG,
    ask_streaming,
    files,
    hex_of,
    opened,
    row_of,
    send,
    stored,
)


def test_a_file_is_stored_with_what_was_said_of_it(team: Team) -> None:
    response = team.put(
        "/attachments/v1/photo-1",
        content=JPEG,
        headers={
            "Content-Type": "image/png; charset=x",
            "Content-Disposition": "attachment; filename*=UTF-8''Pumpe%20%C3%BC.png",
            "X-Content-SHA256": hex_of(JPEG),
        },
    )
    assert response.status_code == 201, response.text
    assert response.json() == {
        "attachmentId": "photo-1",
        "state": "stored",
        "size": len(JPEG),
        "sha256": hex_of(JPEG),
    }
    row = row_of(team, "photo-1")
    assert row is not None
    assert (row.file_name, row.declared_type, row.content_type) == ("Pumpe ü.png", "image/png", "image/jpeg")
    assert row.uploaded_by == team.owner.subject_id
    assert stored(team, "photo-1") == JPEG


def test_the_same_file_again_is_no_work_and_another_content_is_refused(team: Team) -> None:
    assert team.put("/attachments/v1/a", content=JPEG).status_code == 201
    before, row = files(team.app), row_of(team, "a")
    again = team.put("/attachments/v1/a", content=JPEG)
    assert again.status_code == 200
    assert again.json()["sha256"] == hex_of(JPEG)
    problem(team.put("/attachments/v1/a", content=JPEG + b"!"), 409, "content-differs")
    assert files(team.app) == before
    now = row_of(team, "a")
    assert row is not None
    assert now is not None
    assert (now.blob_key, now.stored_at) == (row.blob_key, row.stored_at)


def test_a_field_worker_sends_files_and_two_teams_use_the_same_id(app: RunningApp) -> None:
    one, other = app.team(), app.team()
    for team, content in ((one, b"1"), (other, b"2")):
        response = team.put("/attachments/v1/shared", content=content, by=team.executor())
        assert response.status_code == 201, response.text
    assert (stored(one, "shared"), stored(other, "shared")) == (b"1", b"2")


def test_an_empty_file_is_a_file(team: Team) -> None:
    response = team.put("/attachments/v1/empty", content=b"")
    assert (response.status_code, response.json()["size"]) == (201, 0)
    assert stored(team, "empty") == b""


@pytest.mark.parametrize(
    ("name", "encode"),
    [
        ("X-Content-SHA256", lambda digest: digest.hex().upper()),
        ("Repr-Digest", lambda digest: f"sha-256=:{base64.b64encode(digest).decode()}:"),
        ("Content-Digest", lambda digest: f"md5=:AAAA:, sha-256=:{base64.b64encode(digest).decode()}:"),
        ("Digest", lambda digest: f"SHA-256={base64.b64encode(digest).decode()}"),
    ],
)
def test_a_declared_hash_is_checked(team: Team, name: str, encode: Any) -> None:
    right, wrong = (hashlib.sha256(content).digest() for content in (JPEG, b"other"))
    before = files(team.app)
    response = team.put("/attachments/v1/a", content=JPEG, headers={name: encode(wrong)})
    problem(response, 422, "hash-mismatch")
    assert row_of(team, "a") is None
    assert files(team.app) == before
    assert team.put("/attachments/v1/a", content=JPEG, headers={name: encode(right)}).status_code == 201
    problem(team.put("/attachments/v1/a", content=JPEG, headers={name: "sha-256=x"}), 400, "invalid-digest")


def test_another_algorithm_is_passed_over(team: Team) -> None:
    response = team.put("/attachments/v1/a", content=JPEG, headers={"Digest": "md5=AAAA"})
    assert response.status_code == 201


def test_a_file_beyond_100_mb_is_refused_and_not_kept(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uploading.MAX_PUT_BYTES == 100_000_000
    monkeypatch.setattr(uploading, "MAX_PUT_BYTES", 5000)
    before = files(team.app)

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield bytes(1000)

    problem(team.put("/attachments/v1/a", content=bytes(5001)), 413, "too-large")
    # Without a length it shows only on the way.
    assert ask_streaming(team, "PUT", "/attachments/v1/a", [bytes(1000)] * 6)[0] == 413
    assert row_of(team, "a") is None
    assert files(team.app) == before
    assert team.put("/attachments/v1/a", content=bytes(5000)).status_code == 201


def test_a_file_larger_than_any_other_body_is_taken(sqlite_team: Team) -> None:
    content = bytes(sqlite_team.app.settings.max_quarantine_bytes + 1)
    assert sqlite_team.put("/attachments/v1/large", content=content).status_code == 201


@pytest.mark.parametrize("hang_up", [True, False])
def test_a_body_that_is_cut_short_leaves_nothing(team: Team, hang_up: bool) -> None:
    before = files(team.app)
    status, body = ask_streaming(
        team, "PUT", "/attachments/v1/a", [JPEG, JPEG], {"Content-Length": "1000"}, hang_up
    )
    assert (status, body["code"], body["retry"]) == (408, "body-incomplete", "later")
    assert row_of(team, "a") is None
    assert files(team.app) == before


@pytest.mark.parametrize("bad", ["a%5Cb", "a%0D%0Ab", "x" * 256, "%E2%80%AE", "C:%5Cx"])
def test_an_id_that_cannot_stand_in_an_address_is_refused(team: Team, bad: str) -> None:
    problem(team.put(f"/attachments/v1/{bad}", content=b"x"), 422, "invalid-attachment-id", "attachmentId")


@pytest.mark.parametrize("bad", ["", "a/b", "../a", "a\\b", "a\0b", "a\r\nb", "x" * 256, "upload", "TUS"])
def test_a_session_for_such_an_id_is_refused(team: Team, bad: str) -> None:
    response = team.post("/attachments/v1/upload", json={"attachmentId": bad, "fileSize": 1})
    problem(response, 422, "invalid-attachment-id", "attachmentId")


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\ana\\photo.jpg", "photo.jpg"),
        ("/etc/cron.d/", None),
        ("a\0b.jpg", "ab.jpg"),
        ("a\r\nSet-Cookie: b.jpg", "aSet-Cookie: b.jpg"),
        ("\u202egpj.exe", "gpj.exe"),
        ("..", None),
        ("", None),
        (" \t ", None),
        ("x" * 300 + ".jpeg", "x" * 250 + ".jpeg"),
        ("ü" * 300 + ".jpeg", "ü" * 125 + ".jpeg"),
        ("x." + "y" * 300, "x." + "y" * 253),
        ("\ud800.jpg", ".jpg"),
        ("Bericht: 50 % \u00fc.pdf", "Bericht: 50 % ü.pdf"),
    ],
)
def test_a_file_name_is_never_a_path(team: Team, said: str, kept: str | None) -> None:
    assert clean_file_name(said) == kept
    if said.isascii():
        session = opened(team, b"x", fileName=said)
        assert send(team, session, b"x", 0).status_code == 204
        row = row_of(team, session["attachmentId"])
        assert row is not None
        assert row.file_name == kept


@pytest.mark.parametrize(
    ("headers", "query", "kept"),
    [
        ({"Content-Disposition": 'attachment; filename="../a b.jpg"'}, "", "a b.jpg"),
        ({"Content-Disposition": "attachment; filename*=UTF-8''..%2F%0D%0Aa%00.jpg"}, "", "a.jpg"),
        ({"Content-Disposition": "attachment; filename*=nonsense''a.jpg"}, "", "a.jpg"),
        ({"Content-Disposition": 'attachment; filename="Ã¼.jpg"'.encode("latin-1")}, "", "ü.jpg"),
        ({"Content-Disposition": "attachment"}, "?fileName=b.jpg", "b.jpg"),
        ({}, "?fileName=..%2F..%2Fb%0D%0A.jpg", "b.jpg"),
        ({}, "?fileName=C:%5Cb.jpg", "b.jpg"),
        ({}, "", None),
    ],
)
def test_the_file_name_of_a_request_is_cleaned(
    sqlite_team: Team, headers: Headers, query: str, kept: str | None
) -> None:
    response = sqlite_team.put(f"/attachments/v1/a{query}", content=b"x", headers=headers)
    assert response.status_code == 201, response.text
    row = row_of(sqlite_team, "a")
    assert row is not None
    assert row.file_name == kept


def test_a_content_type_that_is_none_is_not_kept() -> None:
    assert clean_content_type("Image/JPEG; q=1") == "image/jpeg"
    for text in (None, "", "image", "a/b\r\nX: y", "a/" + "b" * 300, "<script>/x"):
        assert clean_content_type(text) is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<html><script>alert(1)</script>", "text/plain"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>', "text/plain"),
        (b"\x00\x01<script>", "application/octet-stream"),
    ],
)
def test_a_page_declared_as_a_picture_is_none(sqlite_team: Team, content: bytes, kind: str) -> None:
    sqlite_team.put("/attachments/v1/a", content=content, headers={"Content-Type": "image/jpeg"})
    row = row_of(sqlite_team, "a")
    assert row is not None
    assert (row.declared_type, row.content_type) == ("image/jpeg", kind)
