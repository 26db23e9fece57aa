"""Collections: chapter 4, what becomes of a file, and what is asked of the records."""

import csv
import io
import time
from typing import Any

import httpx
import pytest

from fixtures.collections import PARTS, encoded
from server.collections import background, uploading
from storage.blobs import BlobStore
from storage.queries import collections as queries
from storage.queries import tasks
from tests.support.app import Document, RunningApp, Team, problem
from tests.support.statements import counted

BLOCK = 100 * 1024
PATH = "/collections/v1/collection"


def created(team: Team, name: str = "Parts") -> str:
    response = team.post(PATH, json={"name": name})
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["collectionId"]
    return str(response.json()["collectionId"])


def opened(team: Team, collection_id: str, content: bytes, **body: Any) -> str:
    asked = {
        "blockSize": BLOCK,
        "fileSize": len(content),
        "friendlyFileName": "parts.csv",
        "collectionId": collection_id,
        **body,
    }
    response = team.post("/collections/v1/upload", json=asked)
    assert response.status_code == 200, response.text
    return str(response.json()["id"])


def send(
    team: Team, upload_id: str, content: bytes, start: int = 0, size: int = BLOCK, **rest: Any
) -> httpx.Response:
    said = {
        "Content-Range": f"bytes {start}-{start + size - 1}/{len(content)}",
        "Content-Type": "text/csv",
    }
    block = content[start : start + size]
    return team.post(f"/collections/v1/upload/{upload_id}", content=block, headers=said, **rest)


def upload(team: Team, collection_id: str, content: bytes | str) -> str:
    """A file sent whole and read; answers its id."""
    content = content.encode() if isinstance(content, str) else content
    upload_id = opened(team, collection_id, content)
    for start in range(0, len(content), BLOCK):
        response = send(team, upload_id, content, start)
        assert response.status_code in (202, 204), response.text
    assert response.status_code == 204
    settled(team, collection_id)
    return upload_id


def shown(team: Team, collection_id: str) -> Document:
    response = team.get(f"{PATH}/{collection_id}")
    assert response.status_code == 200, response.text
    (collection,) = response.json()["collections"]
    return dict(collection)


def settled(team: Team, collection_id: str) -> Document:
    """The collection when its newest file has been read."""
    deadline = time.monotonic() + 60
    while (collection := shown(team, collection_id))["state"] == "importing":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return collection


def with_parts(team: Team, content: bytes | str = PARTS) -> str:
    collection_id = created(team)
    upload(team, collection_id, content)
    return collection_id


def asked(team: Team, collection_id: str, *where: str, **rest: Any) -> Document:
    response = team.get(
        f"{PATH}/{collection_id}/records", params=[("where", text) for text in where] + list(rest.items())
    )
    assert response.status_code == 200, response.text
    return dict(response.json())


def names(team: Team, collection_id: str, *where: str, **rest: Any) -> list[str]:
    """The PartIDs of a page."""
    return [record["values"]["PartID"] for record in asked(team, collection_id, *where, **rest)["records"]]


def refused(team: Team, collection_id: str, **params: str) -> httpx.Response:
    return team.get(f"{PATH}/{collection_id}/records", params=params)


# Sections 4.1 to 4.5


def test_a_new_collection_has_the_keys_of_the_document_and_nothing_in_it(team: Team) -> None:
    collection_id = created(team)
    collection = shown(team, collection_id)
    assert {key: collection[key] for key in list(collection)[:14]} == {
        "collectionId": collection_id,
        "userId": team.owner.subject_id,
        "userName": collection["userName"],
        "created": collection["created"],
        "lastUpdated": collection["created"],
        "teamName": team.name,
        "name": "Parts",
        "dataLastChanged": collection["created"],
        "headerNames": [],
        "recordCount": 0,
        "csvFileName": None,
        "csvFileSize": 0,
        "csvFileNameHistory": {},
        "csvDownloadUrl": None,
    }
    assert (collection["state"], collection["failure"], collection["columns"]) == ("empty", None, [])
    assert asked(team, collection_id) == {"records": [], "more": False, "fileId": None, "total": 0}


def test_a_collection_is_renamed_and_keeps_its_data(team: Team) -> None:
    collection_id = with_parts(team)
    before = shown(team, collection_id)
    response = team.put(f"{PATH}/{collection_id}", json={"name": "  Spare parts "})
    assert response.status_code == 200
    (answered,) = response.json()["collections"]
    assert answered["name"] == shown(team, collection_id)["name"] == "Spare parts"
    assert answered["lastUpdated"] > before["lastUpdated"]
    assert answered["dataLastChanged"] == before["dataLastChanged"]
    assert answered["recordCount"] == 5
    problem(team.put(f"{PATH}/{collection_id}", json={"name": " "}), 422, "invalid-body", "name")
    problem(team.post(PATH, json={}), 422, "invalid-body", "name")


def test_a_collection_is_deleted_with_all_of_its_files(team: Team) -> None:
    collection_id = with_parts(team)
    upload(team, collection_id, PARTS + "200,Last,1,,\n")
    rows = team.app.read(queries.files, team.team_id, collection_id)
    assert [row.state for row in rows] == ["ready", "ready"]
    keys = [row.blob_key for row in rows] + [rows[1].records_key or ""]
    response = team.delete(f"{PATH}/{collection_id}")
    assert (response.status_code, response.content) == (200, b"")
    problem(team.get(f"{PATH}/{collection_id}"), 404, "no-such-collection")
    problem(team.delete(f"{PATH}/{collection_id}"), 404, "no-such-collection")
    assert team.get(PATH).json() == {"collections": []}
    eventually_gone(team.app, keys)


def eventually_gone(app: RunningApp, keys: list[str]) -> None:
    blobs: BlobStore = app._part("blobs")
    deadline = time.monotonic() + 60
    while any(app.call(blobs.info, key) is not None for key in keys):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_unknown_ids_are_404_and_so_are_those_of_another_team(team: Team) -> None:
    collection_id = with_parts(team)
    content = PARTS.encode()
    upload_id = opened(team, collection_id, content)
    other = team.app.team()
    for caller, known, session in (
        (team, "ffffffffffffffffffffffff", "0"),
        (other, collection_id, upload_id),
    ):
        for path in ("", "/records", "/records/changes"):
            problem(caller.get(f"{PATH}/{known}{path}"), 404, "no-such-collection")
        problem(caller.put(f"{PATH}/{known}", json={"name": "n"}), 404, "no-such-collection")
        problem(caller.delete(f"{PATH}/{known}"), 404, "no-such-collection")
        body = {"fileSize": 10, "collectionId": known}
        problem(caller.post("/collections/v1/upload", json=body), 404, "no-such-collection", "collectionId")
        problem(send(caller, session, content), 404, "upload-not-found")
        problem(caller.get(f"/collections/v1/upload/{session}"), 404, "upload-not-found")
        problem(caller.delete(f"/collections/v1/upload/{session}"), 404, "upload-not-found")


def test_lists_take_two_statements_however_many_collections_there_are(team: Team) -> None:
    for number in range(3):
        with_parts(team, f"Number\n{number}\n")
        with counted(team.app) as counter:
            found = team.get(PATH).json()["collections"]
        assert counter.count == 2, counter.texts
        assert len(found) == number + 1
    assert [item["recordCount"] for item in found] == [1, 1, 1]
    with counted(team.app) as counter:
        shown(team, found[0]["collectionId"])
    assert counter.count == 2, counter.texts


def test_a_page_of_records_takes_one_statement_of_the_database(team: Team) -> None:
    collection_id = with_parts(team)
    with counted(team.app) as counter:
        assert len(asked(team, collection_id)["records"]) == 5
        assert len(asked(team, collection_id, limit=1)["records"]) == 1
    assert counter.count == 2, counter.texts


# Section 4.6


def test_a_file_in_blocks_is_complete_with_the_last_one_and_read_when_the_answer_arrives(team: Team) -> None:
    rows = "".join(f"{number},Part {number}\n" for number in range(20_000))
    content = f"PartID,Name\n{rows}".encode()
    assert len(content) > 2 * BLOCK
    collection_id = created(team)
    upload_id = opened(team, collection_id, content)
    starts = list(range(0, len(content), BLOCK))
    assert send(team, upload_id, content, starts[-1]).status_code == 202
    session = team.get(f"/collections/v1/upload/{upload_id}").json()
    assert session["received"] == [{"start": starts[-1], "end": len(content) - 1}]
    for start in starts[:-2]:
        assert send(team, upload_id, content, start).status_code == 202
    last = send(team, upload_id, content, starts[-2])
    assert (last.status_code, last.content) == (204, b"")
    collection = settled(team, collection_id)
    assert (collection["state"], collection["recordCount"]) == ("ready", 20_000)
    assert collection["headerNames"] == ["PartID", "Name"]
    assert (collection["csvFileName"], collection["csvFileSize"]) == (upload_id, len(content))
    assert list(collection["csvFileNameHistory"]) == [upload_id]
    address = collection["csvDownloadUrl"].removeprefix(team.app.settings.base_url)
    download = team.app.http.get(address)
    assert download.content == content
    assert download.headers["content-type"] == "text/csv"
    assert "parts.csv" in download.headers["content-disposition"]


def test_the_last_block_again_reads_nothing_twice(team: Team) -> None:
    collection_id = with_parts(team)
    first = shown(team, collection_id)
    assert send(team, first["csvFileName"], PARTS.encode()).status_code == 204
    assert settled(team, collection_id)["csvFileNameHistory"] == first["csvFileNameHistory"]
    assert len(team.app.read(queries.files, team.team_id, collection_id)) == 1


def test_two_uploads_at_once_end_with_the_one_that_was_complete_last(team: Team) -> None:
    collection_id = created(team)
    contents = [f"PartID,Name\n{number},x\n".encode() for number in (1, 2)]
    first, second = (opened(team, collection_id, content) for content in contents)
    assert first != second
    assert send(team, second, contents[1], 0, 5).status_code == 202
    assert send(team, first, contents[0]).status_code == 204
    assert send(team, second, contents[1], 5).status_code == 204
    collection = settled(team, collection_id)
    assert collection["csvFileName"] == second
    assert names(team, collection_id) == ["2"]
    assert list(collection["csvFileNameHistory"]) == [first, second]


def test_an_upload_for_a_collection_that_was_deleted_meanwhile_ends_with_404(team: Team) -> None:
    collection_id = created(team)
    upload_id = opened(team, collection_id, PARTS.encode())
    team.delete(f"{PATH}/{collection_id}")
    problem(send(team, upload_id, PARTS.encode()), 404, "no-such-collection")


def test_a_session_is_refused_for_what_cannot_be_sent(team: Team) -> None:
    collection_id = created(team)
    for body, status, field in (
        ({"fileSize": uploading.MAX_FILE_BYTES + 1}, 413, "fileSize"),
        ({"fileSize": 0}, 422, "fileSize"),
        ({"fileSize": 10, "blockSize": BLOCK + 1}, 422, "blockSize"),
        ({"fileSize": "10"}, 422, "fileSize"),
    ):
        response = team.post("/collections/v1/upload", json={"collectionId": collection_id, **body})
        problem(response, status, field=field)
    problem(team.post("/collections/v1/upload", json={"fileSize": 5}), 422, field="collectionId")


def test_a_session_is_given_up(team: Team) -> None:
    collection_id = created(team)
    upload_id = opened(team, collection_id, PARTS.encode())
    assert team.delete(f"/collections/v1/upload/{upload_id}").status_code == 204
    problem(send(team, upload_id, PARTS.encode()), 404, "upload-not-found")
    assert shown(team, collection_id)["state"] == "empty"


# What becomes of a file


@pytest.mark.parametrize("encoding", list(encoded("")))
def test_a_file_is_read_in_every_encoding(sqlite_team: Team, encoding: str) -> None:
    collection_id = with_parts(sqlite_team, encoded(PARTS)[encoding])
    records = asked(sqlite_team, collection_id)["records"]
    rows = list(csv.DictReader(io.StringIO(PARTS)))
    assert [record["values"] for record in records] == rows
    assert records[2]["values"]["Name"] == 'Pump "XL"'


def test_a_file_that_cannot_be_read_says_why_and_leaves_the_data_as_they_were(team: Team) -> None:
    collection_id = with_parts(team)
    before = shown(team, collection_id)
    failed = upload(team, collection_id, 'PartID,Name\n1,"no end')
    collection = shown(team, collection_id)
    assert (collection["state"], collection["newestFile"]) == ("failed", failed)
    assert collection["failure"]["code"] == "ends-short"
    assert "line 2" in collection["failure"]["detail"]
    for key in ("csvFileName", "recordCount", "headerNames", "csvFileNameHistory", "dataLastChanged"):
        assert collection[key] == before[key]
    assert len(names(team, collection_id)) == 5
    upload(team, collection_id, "PartID\n1\n")
    assert shown(team, collection_id)["state"] == "ready"


def test_ragged_rows_are_left_out_and_reported_by_line(team: Team) -> None:
    rows = "".join(f"{number},x\n" for number in range(100))
    collection_id = with_parts(team, f"PartID,Name\nshort\n{rows}long,x,y\n")
    collection = shown(team, collection_id)
    assert (collection["state"], collection["recordCount"]) == ("ready", 100)
    assert collection["problems"] == {
        "count": 2,
        "rows": [
            {"line": 2, "reason": "It has 1 cells and the header 2."},
            {"line": 103, "reason": "It has 3 cells and the header 2."},
        ],
    }


def test_a_file_of_mostly_ragged_rows_is_refused(team: Team) -> None:
    collection_id = with_parts(team, "PartID,Name\n" + "only\n" * 11 + "1,x\n" * 20)
    collection = shown(team, collection_id)
    assert (collection["state"], collection["failure"]["code"]) == ("failed", "ragged-rows")
    assert collection["problems"]["count"] == 11


def test_reading_a_file_again_after_a_crash_changes_nothing(team: Team) -> None:
    collection_id = with_parts(team)
    before = shown(team, collection_id)
    file_id = before["csvFileName"]
    team.app.write(lambda connection: tasks.enqueue(connection, team.team_id, queries.IMPORT, file_id, now=0))
    team.app._part("background").worker.wake()
    upload(team, created(team), PARTS)  # which comes after it
    after = shown(team, collection_id)
    for item in (before, after):
        item.pop("csvDownloadUrl")
    assert after == before


def test_the_files_of_the_past_are_kept_up_to_a_number(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "KEPT_FILES", 2)
    team = sqlite_team
    collection_id = created(team)
    files = []
    for number in range(4):
        files.append(upload(team, collection_id, f"PartID\n{number}\n"))
        rows = team.app.read(queries.files, team.team_id, collection_id)
        assert [row.file_id for row in rows] == files[-2:]
        assert [row.number for row in rows] == [number, number + 1][-len(rows) :]
    assert list(shown(team, collection_id)["csvFileNameHistory"]) == files[-2:]
    assert [row.records_key is None for row in rows] == [True, False]


# Records


def test_values_are_what_was_sent_and_columns_know_their_type(team: Team) -> None:
    collection_id = with_parts(team)
    assert shown(team, collection_id)["columns"] == [
        {"name": "PartID", "type": "text"},  # 007 is no number
        {"name": "Name", "type": "text"},
        {"name": "Price", "type": "number"},
        {"name": "Stocked", "type": "date"},
        {"name": "Note", "type": "text"},
    ]
    page = asked(team, collection_id, limit=2)
    assert page["records"][0]["values"] == {
        "PartID": "007",
        "Name": "Seal",
        "Price": "2.50",
        "Stocked": "2026-01-05",
        "Note": "",
    }
    assert page["records"][1]["values"]["Note"] == "two\nlines"
    assert (page["more"], page["total"]) == (True, 5)
    assert page["fileId"] == shown(team, collection_id)["csvFileName"]
    assert len({record["recordId"] for record in asked(team, collection_id)["records"]}) == 5


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (["Name=Valve"], ["101", "102"]),
        (["Name=valve"], []),
        (["Name!=Valve"], ["007", "012", "013"]),
        (["Name^=Pump"], ["012", "013"]),
        (["PartID^=10"], ["101", "102"]),
        (["PartID>=013"], ["013", "101", "102"]),
        (["Price>=12.5"], ["012", "013", "101"]),
        (["Price>12.5"], ["012", "013"]),
        (["Price<12.499"], ["007", "102"]),
        (["Price=149"], ["012"]),
        (["Price=2.5"], ["007"]),
        (["Price=2.505"], []),
        (["Price!=149"], ["007", "013", "101", "102"]),
        (["Price<1000000000000000000000000"], ["007", "012", "013", "101", "102"]),
        (["Stocked>=2026-02-11"], ["012", "013"]),
        (["Stocked<2026-01-05T00:00:00.001Z"], ["007", "102"]),
        (["Stocked="], ["101"]),
        (["Stocked!="], ["007", "012", "013", "102"]),
        (["Stocked!=2026-01-05"], ["012", "013", "101", "102"]),
        (["Note="], ["007", "101"]),
        (["Note=größer"], ["013"]),
        (["Note=two\nlines"], ["012"]),
        (["Name=Valve", "Price<10"], ["102"]),
        (["Price>=9.75", "Price<=12.50"], ["101", "102"]),
        (['"Name"=Valve', " Price >=10"], ["101"]),
    ],
)
def test_records_are_found_by_conditions(sqlite_team: Team, where: list[str], found: list[str]) -> None:
    team, collection_id = sqlite_team, with_parts(sqlite_team)
    assert names(team, collection_id, *where) == found
    assert "total" not in asked(team, collection_id, *where)


def test_records_are_sorted_by_value_and_paged(team: Team) -> None:
    collection_id = with_parts(team)
    by_price = ["007", "102", "101", "012", "013"]
    assert names(team, collection_id, sort="Price") == by_price
    assert names(team, collection_id, sort="-Price") == by_price[::-1]
    assert names(team, collection_id, sort="Stocked") == ["101", "102", "007", "012", "013"]
    assert names(team, collection_id, sort="Name") == ["013", "012", "007", "101", "102"]
    assert names(team, collection_id, sort="Price", skip=1, limit=2) == ["102", "101"]
    assert names(team, collection_id, "Price>3", sort="-PartID", skip=1, limit=2) == ["101", "013"]
    assert asked(team, collection_id, sort="Price", skip=3, limit=2)["more"] is False
    assert asked(team, collection_id, sort="Price", skip=2, limit=2)["more"] is True
    assert names(team, collection_id, skip=4) == ["102"]
    assert names(team, collection_id, skip=100) == []


def test_what_cannot_be_asked_is_refused_by_name(sqlite_team: Team) -> None:
    team = sqlite_team
    collection_id = with_parts(team)
    for text, code, word in (
        ("Colour=red", "unknown-column", "Colour"),
        ("Price", "invalid-where", "Price"),
        ("Price~5", "invalid-where", "Price~5"),
        ("Price=cheap", "invalid-value", "cheap"),
        ("Price>=", "invalid-value", "Price"),
        ("Price=1e5", "invalid-value", "1e5"),
        ("Stocked=yesterday", "invalid-value", "yesterday"),
        ("Stocked=2026-02-30", "invalid-value", "2026-02-30"),
        ("Price^=1", "invalid-where", "^="),
    ):
        assert word in problem(refused(team, collection_id, where=text), 422, code, "where")["detail"]
    problem(refused(team, collection_id, sort="Colour"), 422, "unknown-column", "sort")
    problem(refused(team, collection_id, skip="-1"), 400, "invalid-parameter", "skip")
    response = team.get(f"{PATH}/{collection_id}/records", params={"where": ["Price>1"] * 11})
    problem(response, 422, "invalid-where", "where")


def test_columns_without_a_name_of_their_own_have_one_that_can_be_asked_for(team: Team) -> None:
    header = "Name,Name,,Name (2),a=b"
    collection_id = with_parts(team, f"{header}\n1,2,3,4,5\n")
    collection = shown(team, collection_id)
    assert collection["headerNames"] == ["Name", "Name", "", "Name (2)", "a=b"]
    unique = ["Name", "Name (3)", "Column 3", "Name (2)", "a=b"]
    assert [column["name"] for column in collection["columns"]] == unique
    (record,) = asked(team, collection_id, '"a=b"=5', "Name (3)=2", "Column 3=3")["records"]
    assert list(record["values"]) == unique


def test_a_page_that_is_known_is_not_sent_again(team: Team) -> None:
    collection_id = with_parts(team)
    path = f"{PATH}/{collection_id}/records"
    etag = team.get(path).headers["etag"]
    known = {"If-None-Match": etag}
    again = team.get(path, headers=known)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert team.get(path, params={"limit": 3}, headers=known).status_code == 200
    upload(team, collection_id, PARTS + "300,New,1,,\n")
    assert team.get(path, headers=known).status_code == 200


def test_records_are_read_although_the_file_is_replaced_in_this_moment(team: Team) -> None:
    collection_id = with_parts(team)
    real, waiting = queries.current, ["once"]

    def late(connection: Any, team_id: int, asked_for: str) -> Any:
        found = real(connection, team_id, asked_for)
        if waiting:
            waiting.pop()
            return found[0], found[1]._replace(records_key="1/2026/01/gone")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queries, "current", late)
        assert len(names(team, collection_id)) == 5
    assert not waiting
