"""Queries for collections and their records."""

from typing import Any

import pytest

from server.query import records
from storage.blobs import BlobNotFound
from storage.queries import collections as collection_queries
from storage.records import RecordFiles
from tests.api.test_collections import created, upload, with_parts
from tests.support.app import Team
from tests.support.querying import ask, found, refusal
from tests.support.statements import counted


def test_a_collection_is_told_with_its_records(team: Team) -> None:
    collection_id = with_parts(team, "PartID,Name\n1,Pumpe №1\n2,ポンプ\n3,\n")
    empty = created(team, "Empty")
    shown = {
        each["collectionId"]: each for each in team.get("/collections/v1/collection").json()["collections"]
    }
    query = """{
        collections {
            collectionId name userId userName created lastUpdated dataLastChanged headerNames recordCount
            records __typename
        }
    }"""
    keys = ("collectionId", "name", "userId", "userName", "created", "lastUpdated", "dataLastChanged")
    told = found(team, query)
    for each in told:
        rest = shown[each["collectionId"]]
        assert {key: each[key] for key in keys} == {key: rest[key] for key in keys}
        assert each["headerNames"] == rest["headerNames"]
        assert each["recordCount"] == rest["recordCount"]
    assert [each["collectionId"] for each in told] == [collection_id, empty]
    assert told[0]["headerNames"] == ["PartID", "Name"]
    assert told[0]["records"] == [
        {"PartID": "1", "Name": "Pumpe №1"},
        {"PartID": "2", "Name": "ポンプ"},
        {"PartID": "3", "Name": ""},
    ]
    assert told[1]["records"] == []
    assert told[1]["recordCount"] == 0


def test_pages_of_records_and_some_collections_can_be_asked_for(team: Team) -> None:
    first, second = with_parts(team), with_parts(team, "PartID\n" + "\n".join(map(str, range(150))))
    query = """query ($ids: [String!], $limit: Int, $skip: Int) {
        collections(collectionId: $ids) {
            collectionId usual: records records(limit: $limit skip: $skip)
        }
    }"""
    (one,) = found(team, query, ids=[second, second, "nobody", "\0"], limit=3, skip=148)
    assert one["collectionId"] == second
    assert len(one["usual"]) == 100
    assert one["records"] == [{"PartID": "148"}, {"PartID": "149"}]
    assert [each["collectionId"] for each in found(team, query)] == [first, second]
    assert found(team, query, ids=[]) == []
    assert found(team, query, ids=["ü\ud800"]) == []
    for limit in (0, 1001):
        assert refusal(team, query, limit=limit) == ("invalid-argument", "limit must be from 1 to 1,000.")
    assert refusal(team, query, skip=-1)[0] == "invalid-argument"
    assert refusal(team, query, ids=["x"] * 101)[0] == "invalid-argument"


def test_more_records_than_one_answer_holds_are_refused_before_they_are_read(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with_parts(team, "PartID\n1\n2\n3\n")
    monkeypatch.setattr(records, "MOST_RECORDS", 6)
    assert found(team, "{ collections { records(limit: 1000) } }")
    assert found(team, "{ collections { a: records(limit: 1) b: records(limit: 2) c: records(skip: 5) } }")
    code, message = refusal(team, "{ collections { a: records b: records(skip: 2) } }")
    assert code == "query-too-complex"
    assert "8 records" in message
    with_parts(team, "A,B,C\n1,2,3\n")
    monkeypatch.setattr(records, "MOST_RECORDS", 7)
    monkeypatch.setattr(records, "MOST_VALUES", 9)
    assert len(found(team, "{ collections { records } }")) == 3
    monkeypatch.setattr(records, "MOST_VALUES", 8)
    code, message = refusal(team, "{ collections { records } }")
    assert code == "query-too-complex"
    assert "7 records with 9 values" in message


def test_collections_take_one_statement_and_files_are_read_only_for_records(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = RecordFiles.read

    async def noted(self: RecordFiles, key: str, *rest: Any) -> Any:
        asked.append(key)
        return await read(self, key, *rest)

    monkeypatch.setattr(RecordFiles, "read", noted)
    for files in (1, 3):
        while len(found(team, "{ collections { name } }")) < files:
            with_parts(team)
        for query in ("{ collections { name recordCount headerNames } }", "{ collections { records } }"):
            asked.clear()
            with counted(team.app) as counter:
                assert len(found(team, query)) == files
            assert counter.count == 1, counter.texts
            assert len(asked) == (files if "records" in query else 0)


def test_records_whose_file_has_vanished_are_null_and_the_rest_is_told(team: Team) -> None:
    lost, there = with_parts(team, "PartID\n1\n"), with_parts(team, "PartID\n2\n")
    (file,) = team.app.read(collection_queries.files, team.team_id, lost)
    team.app.call(team.app._part("blobs").delete, [file.records_key])
    answer = ask(team, "{ collections { collectionId recordCount records } }")
    assert answer == {
        "data": {
            "collections": [
                {"collectionId": lost, "recordCount": 1, "records": None},
                {"collectionId": there, "recordCount": 1, "records": [{"PartID": "2"}]},
            ]
        }
    }


@pytest.mark.parametrize("meanwhile", ["replaced", "deleted"])
def test_a_file_that_is_replaced_while_it_is_asked_for_is_told_as_the_new_one(
    team: Team, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    collection_id = with_parts(team, "PartID\n1\n")
    upload(team, collection_id, "PartID\n2\n3\n")
    before, after = team.app.read(collection_queries.files, team.team_id, collection_id)
    read, load = RecordFiles.read, collection_queries.with_current
    calls: list[str] = []

    def outdated(*args: Any, **rest: Any) -> Any:
        """The first look is at the file before."""
        calls.append("look")
        found = load(*args, **rest)
        if len(calls) == 1:
            row = found[0][0]._replace(current_file_id=before.file_id)
            return [(row, before._replace(records_key="gone", details=after.details))]
        return [] if meanwhile == "deleted" else found

    async def reading(self: RecordFiles, key: str, *rest: Any) -> Any:
        if key == "gone":
            raise BlobNotFound(key)
        return await read(self, key, *rest)

    monkeypatch.setattr(collection_queries, "with_current", outdated)
    monkeypatch.setattr(RecordFiles, "read", reading)
    (told,) = found(team, "{ collections { recordCount records } }")
    if meanwhile == "replaced":
        assert told == {"recordCount": 2, "records": [{"PartID": "2"}, {"PartID": "3"}]}
    else:
        assert told == {"recordCount": 1, "records": None}
