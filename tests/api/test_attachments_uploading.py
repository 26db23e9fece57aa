"""Sending files to the running application in blocks."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from media.uploads import Uploads
from server.attachments.taking import Taking
from storage.blobs import BlobStore, BlobsUnavailable
from tests.support.app import Account, Document, RunningApp, Team, problem
from tests.support.uploading import (
    JPEG,
    ask_streaming,
    content_of,
    files,
    hex_of,
    opened,
    part,
    received,
    row_of,
    send,
    stored,
)


def test_blocks_in_any_order_become_the_file(team: Team) -> None:
    content = content_of(3500)
    session = opened(
        team, content, "photo", fileName="p.jpg", contentType="image/jpeg", sha256=hex_of(content)
    )
    assert session == {
        "id": session["id"],
        "attachmentId": "photo",
        "state": "receiving",
        "blockSize": 1000,
        "fileSize": 3500,
        "received": [],
        "complete": False,
    }
    for start in (2000, 0, 3000):
        assert send(team, session, content, start).status_code == 202
    assert received(team, session) == [(0, 999), (2000, 3499)]
    before = files(team.app)
    last = send(team, session, content, 1000)
    assert (last.status_code, last.content) == (204, b"")
    assert stored(team, "photo") == content
    row = row_of(team, "photo")
    assert row is not None
    assert (row.file_name, row.declared_type) == ("p.jpg", "image/jpeg")
    # Four blocks became one file.
    assert len(files(team.app)) == len(before) - 3 + 1
    found = team.get(f"/attachments/v1/upload/{session['id']}").json()
    assert (found["complete"], found["state"], found["received"]) == (
        True,
        "stored",
        [{"start": 0, "end": 3499}],
    )
    # The answer was lost.
    assert send(team, session, content, 1000).status_code == 204
    problem(send(team, session, content, 1000, 3000), 400, "invalid-range")


def test_a_lost_answer_to_the_opening_costs_nothing(team: Team) -> None:
    content = content_of(1500)
    sha256 = hex_of(content)
    first = opened(team, content, "photo", sha256=sha256)
    send(team, first, content, 0)
    again = opened(team, content, "photo", sha256=sha256)
    assert again["id"] == first["id"]
    assert again["received"] == [{"start": 0, "end": 999}]
    by = team.executor()
    assert opened(team, content, "photo", sha256=sha256, by=by)["id"] != first["id"]


def test_a_file_that_is_there_already_need_not_be_sent(team: Team) -> None:
    content = content_of(1500)
    team.put("/attachments/v1/photo", content=content)
    answer = opened(team, content, "photo", sha256=hex_of(content))
    assert (answer["id"], answer["complete"]) == (None, True)
    assert answer["received"] == [{"start": 0, "end": 1499}]
    asked = {"attachmentId": "photo", "fileSize": 1500, "sha256": hex_of(b"other")}
    problem(team.post("/attachments/v1/upload", json=asked), 409, "content-differs")
    # Without a hash it shows at the end.
    for other, status in ((content, 204), (content_of(1500, 1), 409)):
        session = opened(team, other, "photo")
        send(team, session, other, 0)
        assert send(team, session, other, 1000).status_code == status
    assert send(team, session, other, 1000).json()["code"] == "content-differs"
    assert stored(team, "photo") == content


def test_an_empty_file_is_complete_at_once(team: Team) -> None:
    session = opened(team, b"", "empty")
    assert (session["complete"], session["state"], session["received"]) == (True, "stored", [])
    assert stored(team, "empty") == b""


@pytest.mark.parametrize(
    "content_range",
    [
        None,
        "",
        "bytes",
        "bytes 0-999",
        "bytes 0-999/*",
        "bytes */3500",
        "items 0-999/3500",
        "bytes -1-998/3500",
        "bytes 0-999/3501",
        "bytes 3000-3999/3500",
        "bytes 999-0/3500",
        "bytes 0-1000/3500",
        "bytes 0-998/3500",
        "bytes ٠-٩٩٩/3500",
        f"bytes 0-{'9' * 30}/3500",
        "bytes 9223372036854775808-9223372036854776807/3500",
    ],
)
def test_a_bad_range_changes_nothing(team: Team, content_range: str | None) -> None:
    content = content_of(3500)
    session = opened(team, content)
    headers: Any = {} if content_range is None else {"Content-Range": content_range.encode()}
    path = f"/attachments/v1/upload/{session['id']}"
    response = team.post(path, content=content[:1000], headers=headers)
    problem(response, 400, "invalid-range", "Content-Range")
    assert received(team, session) == []


@pytest.mark.parametrize("length", [999, 1001])
def test_a_body_without_length_that_is_not_its_range_changes_nothing(team: Team, length: int) -> None:
    content = content_of(3500)
    session = opened(team, content)
    path = f"/attachments/v1/upload/{session['id']}"
    headers = {"Content-Range": "bytes 0-999/3500"}
    status, body = ask_streaming(team, "POST", path, [content[:500], content[500:length]], headers)
    assert (status, body["code"]) == (400, "invalid-range")
    assert received(team, session) == []


def test_other_bytes_at_the_same_place_are_refused_and_overlaps_of_the_same_are_not(team: Team) -> None:
    content = content_of(3500)
    session = opened(team, content)
    assert send(team, session, content, 0).status_code == 202
    before = files(team.app)
    other = content[:900] + b"!" + content[901:]
    problem(send(team, session, other, 500, 1500), 409, "range-differs")
    assert received(team, session) == [(0, 999)]
    assert files(team.app) == before
    assert send(team, session, content, 500, 1500).status_code == 202
    assert received(team, session) == [(0, 1499)]


def test_a_wrong_hash_forgets_the_blocks_and_the_session_goes_on(team: Team) -> None:
    content = content_of(1500)
    broken = b"!" + content[1:]
    session = opened(team, content, "photo", sha256=hex_of(content))
    before = files(team.app)
    send(team, session, broken, 0)
    problem(send(team, session, content, 1000), 422, "hash-mismatch", "sha256")
    assert received(team, session) == []
    assert files(team.app) == before
    assert [send(team, session, content, start).status_code for start in (0, 1000)] == [202, 204]
    assert stored(team, "photo") == content


def test_a_disconnect_in_a_block_keeps_the_blocks_before_it(team: Team) -> None:
    content = content_of(2500)
    session = opened(team, content, "photo")
    assert send(team, session, content, 0).status_code == 202
    path = f"/attachments/v1/upload/{session['id']}"
    headers = {"Content-Range": "bytes 1000-1999/2500", "Content-Length": "1000"}
    status, body = ask_streaming(team, "POST", path, [content[1000:1500]], headers, hang_up=True)
    assert (status, body["code"]) == (408, "body-incomplete")
    assert received(team, session) == [(0, 999)]
    assert [send(team, session, content, start).status_code for start in (1000, 2000)] == [202, 204]
    assert stored(team, "photo") == content


def test_blocks_in_parallel_become_the_file_once(team: Team) -> None:
    content = content_of(9500)
    session = opened(team, content, "photo", sha256=hex_of(content))
    uploads: Uploads = part(team.app, "uploads")
    taking: Taking = part(team.app, "taking")
    before = len(files(team.app))

    async def one(start: int) -> bool:
        async def body() -> AsyncIterator[bytes]:
            yield content[start : start + 1000]

        upload = await uploads.find(team.team_id, session["id"])
        upload = await uploads.write(upload, start, body())
        if upload.complete:
            await taking.complete(upload)
        return upload.complete

    async def everything() -> list[bool]:
        # Each block twice, as an impatient device does.
        return await asyncio.gather(*(one(start) for start in [*range(0, 9500, 1000)] * 2))

    assert any(team.app.call(everything))
    assert stored(team, "photo") == content
    assert len(files(team.app)) == before + 1


def test_a_session_that_was_given_up_is_gone(team: Team) -> None:
    content = content_of(1500)
    before = files(team.app)
    session = opened(team, content)
    send(team, session, content, 0)
    path = f"/attachments/v1/upload/{session['id']}"
    assert team.delete(path).status_code == 204
    assert files(team.app) == before
    for response in (team.get(path), team.delete(path), send(team, session, content, 0)):
        problem(response, 404, "upload-not-found")


def test_an_expired_session_says_so(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(1500)
    session = opened(team, content)
    uploads: Uploads = part(team.app, "uploads")
    clock = uploads._clock
    days = team.app.settings.upload_days
    assert days == 7
    monkeypatch.setattr(uploads, "_clock", lambda: clock() + (days * 86_400 + 1) * 1_000_000)
    problem(send(team, session, content, 0), 410, "upload-expired")
    problem(team.get(f"/attachments/v1/upload/{session['id']}"), 410, "upload-expired")


def test_a_session_is_for_who_opened_it_and_for_those_who_see_the_whole_team(app: RunningApp) -> None:
    team, content = app.team(), content_of(1500)
    ana, ben, admin = team.executor(), team.executor(), team.user("ADMIN")
    session = opened(team, content, by=ana)
    path = f"/attachments/v1/upload/{session['id']}"

    def refused(asked: Team, by: Account) -> None:
        for response in (
            asked.get(path, by=by),
            asked.delete(path, by=by),
            send(asked, session, content, 0, by=by),
        ):
            problem(response, 404, "upload-not-found")

    refused(team, ben)
    other = app.team()
    refused(other, other.owner)
    assert send(team, session, content, 0, by=ana).status_code == 202
    assert received(team, session, by=admin) == [(0, 999)]
    assert send(team, session, content, 1000, by=admin).status_code == 204
    row = row_of(team, session["attachmentId"])
    assert row is not None
    assert row.uploaded_by == ana.subject_id


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"fileSize": -1}, 422, "invalid-body", "fileSize"),
        ({"fileSize": 2 * 1024**3 + 1}, 413, "too-large", "fileSize"),
        ({"fileSize": 10**30}, 413, "too-large", "fileSize"),
        ({"fileSize": "1"}, 422, "invalid-body", "fileSize"),
        ({"blockSize": 0}, 422, "invalid-body", "blockSize"),
        ({"blockSize": 8 * 1024 * 1024 + 1}, 422, "invalid-body", "blockSize"),
        ({"fileSize": 1_000_000, "blockSize": 1}, 422, "invalid-body", "blockSize"),
        ({"sha256": "abc"}, 400, "invalid-digest", "sha256"),
        ({"attachmentId": None}, 422, "invalid-body", "attachmentId"),
    ],
)
def test_a_session_that_cannot_be_is_refused(
    sqlite_team: Team, body: Document, status: int, code: str, field: str
) -> None:
    asked = {"attachmentId": "a", "fileSize": 10, **body}
    problem(sqlite_team.post("/attachments/v1/upload", json=asked), status, code, field)


def test_the_block_size_is_1_mb_if_nothing_is_said(sqlite_team: Team) -> None:
    asked = {"attachmentId": "a", "fileSize": 2 * 1024**3}
    answer = sqlite_team.post("/attachments/v1/upload", json=asked).json()
    assert answer["blockSize"] == 1024 * 1024


# The blob store is down


@contextmanager
def blobs_down(app: RunningApp) -> Iterator[None]:
    blobs: BlobStore = part(app, "blobs")

    async def down(*_args: object, **_options: object) -> int:
        raise BlobsUnavailable("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blobs, "put", down)
        yield


def test_while_the_blob_store_is_down_uploads_are_put_off_and_go_on_afterwards(team: Team) -> None:
    content = content_of(1500)
    session = opened(team, content, "photo")
    assert send(team, session, content, 0).status_code == 202
    with blobs_down(team.app):
        for response in (team.put("/attachments/v1/a", content=JPEG), send(team, session, content, 1000)):
            assert problem(response, 503, "blobs-unavailable")["retry"] == "later"
    assert row_of(team, "a") is None
    assert received(team, session) == [(0, 999)]
    assert send(team, session, content, 1000).status_code == 204
    assert stored(team, "photo") == content


def test_a_file_that_could_not_be_put_together_is_taken_over_later(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(1500)
    session = opened(team, content, "photo", sha256=hex_of(content))
    send(team, session, content, 0)
    blobs: BlobStore = part(team.app, "blobs")
    put = blobs.put

    async def only_blocks(key: str, source: Any, **options: Any) -> int:
        if not isinstance(source, bytes):
            raise BlobsUnavailable("full")
        return await put(key, source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(blobs, "put", only_blocks)
        problem(send(team, session, content, 1000), 503, "blobs-unavailable")
        assert received(team, session) == [(0, 1499)]
    # Whichever is repeated, the block or the opening.
    again = opened(team, content, "photo", sha256=hex_of(content))
    assert (again["id"], again["state"]) == (session["id"], "stored")
    assert send(team, session, content, 1000).status_code == 204
    assert stored(team, "photo") == content
