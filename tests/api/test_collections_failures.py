"""What becomes of a collection's file when reading it fails, and whose uploads are whose."""

from collections.abc import Callable
from typing import Any

import pytest

from server.collections import background
from server.worker import GiveUp, Retry
from storage.blobs import BlobsUnavailable
from storage.database import Connection
from storage.queries import collections as queries
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task
from tests.api.test_collections import (
    BLOCK,
    PARTS,
    created,
    names,
    opened,
    send,
    shown,
    upload,
    with_parts,
)
from tests.support.app import Team, problem


class Inside:
    """Does in this process what the sandbox does in another; or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def run(self, function: Callable[..., Any], *args: Any, **_: Any) -> Any:
        if self.error is not None:
            raise self.error
        return function(*args)


class Broken:
    """A blob store of which some methods do not work."""

    def __init__(self, blobs: Any, *methods: str) -> None:
        self._blobs = blobs
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        if name in self._methods:
            raise BlobsUnavailable("no room")
        return getattr(self._blobs, name)


def arrived(team: Team, collection_id: str, **values: Any) -> queries.FileRow:
    """A further file of a collection with one, without a task: nobody reads it but the test."""
    first = team.app.read(queries.files, team.team_id, collection_id)[0]
    row = first._replace(
        file_id="f" * 24, number=first.number + 1, state="importing", records_key=None, details=b""
    )._replace(**values)

    def write(connection: Connection) -> None:
        connection.execute(
            queries.insert(queries.collection_files).values(team_id=team.team_id, **row._asdict())
        )

    team.app.write(write)
    return row


def read(team: Team, file_id: str, attempts: int, sandbox: Inside, blobs: Any = None) -> None:
    """One attempt to read a file."""
    blobs = blobs or team.app._part("blobs")
    some: Any = sandbox
    handler = background.handlers(team.app.database, blobs, some)[queries.IMPORT]
    team.app.call(handler, Task(team.team_id, "t", queries.IMPORT, file_id, None, attempts, 0))


def test_a_file_that_is_lost_has_failed_and_says_so(team: Team) -> None:
    collection_id = with_parts(team)
    row = arrived(team, collection_id, blob_key=f"{team.team_id}/2026/01/lost")
    with pytest.raises(GiveUp):
        read(team, row.file_id, 1, Inside())
    collection = shown(team, collection_id)
    assert (collection["state"], collection["newestFile"]) == ("failed", row.file_id)
    assert collection["failure"]["code"] == "file-lost"
    assert "Upload it again" in collection["failure"]["detail"]
    assert len(names(team, collection_id)) == collection["recordCount"] == 5


def test_a_file_whose_forerunners_records_are_lost_is_read_and_its_readers_begin_anew(team: Team) -> None:
    collection_id = with_parts(team)
    (first,) = team.app.read(queries.files, team.team_id, collection_id)
    path = f"/collections/v1/collection/{collection_id}/records/changes"
    known = team.get(path).json()
    row = arrived(team, collection_id)
    team.app.call(team.app._part("blobs").delete, [first.records_key])
    read(team, row.file_id, 1, Inside())
    collection = shown(team, collection_id)
    assert (collection["state"], collection["newestFile"]) == ("ready", row.file_id)
    again = team.get(path, params={"since": known["next"]}).json()
    assert again["reset"] is True
    assert {change["recordId"] for change in again["changes"]} == {
        change["recordId"] for change in known["changes"]
    }


def test_a_file_has_failed_when_the_last_attempt_has(team: Team) -> None:
    collection_id = with_parts(team)
    row = arrived(team, collection_id)
    for attempts in (1, MAX_ATTEMPTS):
        with pytest.raises(RuntimeError, match="killed"):
            read(team, row.file_id, attempts, Inside(RuntimeError("killed")))
        assert shown(team, collection_id)["state"] == "importing"
    # The worker says so, whether the attempt failed or nobody came back from it.
    died = background.on_dead(team.app.database)[queries.IMPORT]
    team.app.call(died, Task(team.team_id, "t", queries.IMPORT, row.file_id, None, MAX_ATTEMPTS, 0))
    collection = shown(team, collection_id)
    assert collection["state"] == "failed"
    assert collection["failure"]["code"] == "unreadable"
    assert "killed" not in collection["failure"]["detail"]


def test_a_store_that_does_not_answer_is_waited_for_and_one_that_is_full_counts(team: Team) -> None:
    collection_id = with_parts(team)
    row = arrived(team, collection_id)
    blobs = team.app._part("blobs")
    with pytest.raises(Retry):
        read(team, row.file_id, MAX_ATTEMPTS, Inside(), Broken(blobs, "local_path"))
    assert shown(team, collection_id)["state"] == "importing"
    with pytest.raises(Exception, match="no room") as failed:
        read(team, row.file_id, 1, Inside(), Broken(blobs, "put"))
    assert not isinstance(failed.value, Retry | GiveUp)
    assert shown(team, collection_id)["state"] == "importing"
    read(team, row.file_id, 2, Inside())
    assert shown(team, collection_id)["csvFileName"] == row.file_id


def test_a_file_that_nobody_reads_any_more_is_forgotten_like_others(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "KEPT_FILES", 2)
    team = sqlite_team
    collection_id = with_parts(team)
    stuck = arrived(team, collection_id)
    later = [upload(team, collection_id, f"PartID\n{number}\n") for number in range(2)]
    files = team.app.read(queries.files, team.team_id, collection_id)
    assert [row.file_id for row in files] == later
    assert stuck.file_id not in later


def test_a_file_that_waits_to_be_the_newest_is_not_forgotten(sqlite_team: Team) -> None:
    team = sqlite_team
    collection_id = with_parts(team)
    waiting = [arrived(team, collection_id, file_id=f"{number:024}", number=number) for number in (2, 3)]
    team.app.write(queries.forget_past, team.team_id, collection_id, 1)
    files = team.app.read(queries.files, team.team_id, collection_id)
    assert [row.file_id for row in files][1:] == [row.file_id for row in waiting]


def test_a_list_reads_what_is_known_of_a_file_only_where_it_is_printed(team: Team) -> None:
    collection_id = with_parts(team)
    for content in ("PartID\n1\n", "PartID\n2\n", 'PartID\n"no end', "PartID,Name\n3,x\n", 'PartID\n"no end'):
        upload(team, collection_id, content)
    with_parts(team, "Other\n1\n")
    files = team.app.read(queries.files, team.team_id)
    known = [bool(row.details) for row in files if row.collection_id == collection_id]
    assert known == [False, False, False, False, True, True]
    assert [bool(row.details) for row in files if row.collection_id != collection_id] == [True]
    collection = shown(team, collection_id)
    assert (collection["headerNames"], collection["failure"]["code"]) == (["PartID", "Name"], "ends-short")


def test_a_session_is_its_openers_and_the_administrators(team: Team) -> None:
    content = PARTS.encode()
    collection_id = created(team)
    one, other = team.user("EDITOR"), team.user("EDITOR")
    asked = {"blockSize": BLOCK, "fileSize": len(content), "collectionId": collection_id}
    upload_id = team.post("/collections/v1/upload", json=asked, by=one).json()["id"]
    path = f"/collections/v1/upload/{upload_id}"
    for response in (
        team.get(path, by=other),
        send(team, upload_id, content, by=other),
        team.delete(path, by=other),
    ):
        problem(response, 404, "upload-not-found")
    for caller in (one, team.user("ADMIN"), team.owner):
        assert team.get(path, by=caller).json()["received"] == []
    assert send(team, upload_id, content, by=one).status_code == 204
    problem(team.get(f"/collections/v1/upload/{opened(team, collection_id, content)}", by=other), 404)
