"""Changes of a collection's records: whoever applies them has the newest file, whatever comes in between."""

import base64
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.collections import records as routes
from storage.database import Connection, sqlite_url
from storage.queries import collections as queries
from tests.api.test_collections import PATH, created, eventually_gone, names, settled, upload, with_parts
from tests.support.app import Document, RunningApp, Team, problem, running_app
from tests.support.blobs import nanio_server, s3_client, s3_credentials


def changes(team: Team, collection_id: str, since: str = "", limit: int = 1000) -> Document:
    params: dict[str, str | int] = {"since": since, "limit": limit}
    response = team.get(f"{PATH}/{collection_id}/records/changes", params=params)
    assert response.status_code == 200, response.text
    return dict(response.json())


class Tablet:
    """Keeps a copy of a collection."""

    def __init__(self, team: Team, collection_id: str) -> None:
        self.team, self.collection_id = team, collection_id
        self.since = ""
        self.known: dict[str, Document] = {}

    def read(self, limit: int) -> bool:
        found = changes(self.team, self.collection_id, self.since, limit)
        assert len(found["changes"]) <= limit
        if found.get("reset"):
            self.known.clear()
        for change in found["changes"]:
            if change.get("deleted"):
                self.known.pop(change["recordId"], None)
            else:
                self.known[change["recordId"]] = change["values"]
        self.since = found["next"]
        return bool(found["more"])


def test_a_tablet_ends_with_the_newest_records_whatever_comes_between_its_pages(team: Team) -> None:
    draw = random.Random(7)
    collection_id = created(team)
    tablets = [Tablet(team, collection_id) for _ in range(3)]
    for tablet in tablets[:1]:
        assert not tablet.read(5)
        assert tablet.known == {}
    for _ in range(4):
        rows = [str(draw.randrange(40)) for _ in range(25)]
        upload(team, collection_id, "PartID\n" + "".join(f"{row}\n" for row in rows))
        for tablet in tablets:
            for _ in range(draw.randrange(4)):
                tablet.read(draw.randrange(1, 12))
    for tablet in tablets:
        while tablet.read(7):
            pass
        assert sorted(values["PartID"] for values in tablet.known.values()) == sorted(rows)


def test_only_what_changed_is_sent(team: Team) -> None:
    collection_id = with_parts(team, "PartID,Name\n1,a\n2,b\n3,c\n")
    first = changes(team, collection_id)
    assert sorted(change["values"]["PartID"] for change in first["changes"]) == ["1", "2", "3"]
    assert "reset" not in first
    upload(team, collection_id, "PartID,Name\n3,c\n1,a\n2,changed\n")
    found = changes(team, collection_id, first["next"])
    gone, come = sorted(found["changes"], key=lambda change: "values" in change)
    assert gone == {"recordId": gone["recordId"], "deleted": True}
    assert come["values"] == {"PartID": "2", "Name": "changed"}
    assert changes(team, collection_id, found["next"])["changes"] == []


def test_a_cursor_that_is_none_is_refused(team: Team) -> None:
    collection_id = with_parts(team)
    mine = changes(team, collection_id)["next"]
    content = json.loads(base64.urlsafe_b64decode(mine + "=" * (-len(mine) % 4)))
    broken = [
        base64.urlsafe_b64encode(json.dumps([*content[:3], record_id, *content[4:]]).encode()).decode()
        for record_id in ("zz", "0")
    ]
    broken.append(base64.urlsafe_b64encode(json.dumps([*content[:4], 2**63]).encode()).decode())
    for since in ("no", "é", mine[:-3], *broken, changes(team, with_parts(team))["next"]):
        response = team.get(f"{PATH}/{collection_id}/records/changes", params={"since": since})
        problem(response, 422, "invalid-cursor", "since")


def test_a_cursor_of_data_that_are_gone_starts_anew(team: Team) -> None:
    collection_id = with_parts(team)
    ahead = routes._cursor(routes.Place(9, "z", 9), collection_id)
    found = changes(team, collection_id, ahead)
    assert found["reset"] is True
    assert len(found["changes"]) == 5


def test_an_older_file_that_is_read_later_never_takes_the_place_of_a_newer_one(team: Team) -> None:
    collection_id = with_parts(team)
    (first,) = team.app.read(queries.files, team.team_id, collection_id)

    def arrived(connection: Connection, file_id: str) -> None:
        # Without its task: nobody reads it but this test.
        row = first._replace(file_id=file_id, number=int(file_id), state="importing", records_key=None)
        connection.execute(
            queries.insert(queries.collection_files).values(team_id=team.team_id, **row._asdict())
        )

    for file_id in ("2", "3"):
        team.app.write(arrived, file_id)
    second, third = team.app.read(queries.files, team.team_id, collection_id)[1:]
    read = (team.app.write, queries.make_current, team.team_id)
    assert read[0](*read[1:], third._replace(records_key="3"), None) == ("again", None)
    assert read[0](*read[1:], third._replace(records_key="3"), first.file_id) == (
        "current",
        first.records_key,
    )
    assert read[0](*read[1:], second._replace(records_key="2"), first.file_id) == ("replaced", None)
    assert read[0](*read[1:], second._replace(records_key="2"), first.file_id) == ("over", None)
    files = team.app.read(queries.files, team.team_id, collection_id)
    assert [(file.state, file.records_key) for file in files] == [
        ("ready", None),
        ("replaced", None),
        ("ready", "3"),
    ]
    (collection,) = team.get(f"{PATH}/{collection_id}").json()["collections"]
    assert collection["csvFileName"] == "3"
    assert list(collection["csvFileNameHistory"]) == [first.file_id, "3"]


# With S3, records are read from copies.


@pytest.fixture(scope="module")
def s3_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder: Path = tmp_path_factory.mktemp("collections")
    with s3_credentials(), nanio_server(folder / "objects") as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="files")
        client.close()
        blobs = f"s3://files/here?endpoint={endpoint}&region=us-east-1"
        with running_app(folder, sqlite_url(folder / "fieldsync.db"), blobs=blobs) as running:
            yield running


def test_records_on_s3_are_read_from_a_copy_that_may_be_lost(s3_app: RunningApp) -> None:
    team = s3_app.team()
    collection_id = with_parts(team)
    assert len(names(team, collection_id)) == 5
    cache = s3_app.settings.data / "cache" / "records"
    (copy,) = cache.iterdir()
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (5,)
    connection.close()
    copy.unlink()
    assert len(names(team, collection_id, "Price>10")) == 3
    upload(team, collection_id, "PartID\n1\n")
    assert names(team, collection_id) == ["1"]
    assert settled(team, collection_id)["recordCount"] == 1


def test_copies_make_room_for_newer_ones(s3_app: RunningApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_app._part("records"), "_most_bytes", 1)
    team = s3_app.team()
    collections = [with_parts(team, f"PartID\n{number}\n") for number in range(3)]
    for _ in range(2):
        for number, collection_id in enumerate(collections):
            assert names(team, collection_id) == [str(number)]
    assert len(list((s3_app.settings.data / "cache" / "records").iterdir())) == 1


def test_the_records_of_a_file_that_was_replaced_are_deleted(team: Team) -> None:
    collection_id = with_parts(team)
    (before,) = team.app.read(queries.files, team.team_id, collection_id)
    upload(team, collection_id, "PartID\n1\n")
    eventually_gone(team.app, [before.records_key or ""])
