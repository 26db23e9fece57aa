"""A storage that does not take it: 503 and later, nothing kept, and the next push works."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from storage import database as database_module
from storage import sqlite_writer
from storage.database import sqlite_url
from sync import merge
from sync.errors import SyncError
from sync.items import Caller, PushItem
from sync.snapshot import parse
from tests.support.app import Document, RunningApp, Team, problem, running_app, snapshot
from tests.support.postgres import Postgres


@pytest.fixture
def impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningApp]:
    """The application on SQLite, waiting for a lock no longer than a test can."""
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_MS", 100)
    with running_app(tmp_path, sqlite_url(tmp_path / "fieldsync.db")) as app:
        yield app


@pytest.fixture
def cut_off(tmp_path: Path, postgres: Postgres) -> Iterator[tuple[RunningApp, str]]:
    """The application on a PostgreSQL database whose connections a test may cut."""
    url = postgres.new_database()
    with running_app(tmp_path, url) as app:
        yield app, url


def refused_for_now(team: Team, document: Document) -> None:
    for path in ("/jobs/v1/basicSync", "/jobs/v1"):
        response = team.post(path, json=document)
        body = problem(response, 503, "storage-unavailable")
        assert body["retry"] == "later"
        assert int(response.headers["retry-after"]) >= 1
        assert "quarantined" not in body


def test_a_database_locked_by_another_process_is_503_and_keeps_nothing(impatient: RunningApp) -> None:
    team = impatient.team()
    document = snapshot()
    path = f"/jobs/v1/{document['metadata']['clientJobId']}"
    with closing(sqlite3.connect(impatient.settings.data / "fieldsync.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused_for_now(team, document)
        problem(team.post(f"{path}/abort"), 503, "storage-unavailable")
        problem(team.sync(b"{"), 503, "storage-unavailable")
        problem(team.get(path), 404)  # reading goes on
        other.execute("ROLLBACK")
    assert team.get("/jobs/v1").json() == []
    assert team.quarantine() == []
    said = team.synced(document)["sync"]
    assert (said["action"], said["rev"]) == ("created", 1)
    assert len(team.get(f"/jobs/v1/snapshots/{document['metadata']['clientJobId']}").json()) == 1


def test_a_commit_that_fails_is_503_for_every_push_in_it(
    impatient: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = impatient.team()
    commit = sqlite_writer.commit
    failing = True

    def failing_commit(driver: Any) -> None:
        if failing:
            raise sqlite3.OperationalError("database or disk is full")
        commit(driver)

    monkeypatch.setattr(sqlite_writer, "commit", failing_commit)
    documents = [snapshot() for _ in range(3)]
    with pytest.raises(AssertionError, match="storage-unavailable"):
        team.push_many(documents)
    failing = False
    assert team.get("/jobs/v1").json() == []
    team.push_many(documents)
    assert len(team.get("/jobs/v1").json()) == 3


def test_a_database_that_cut_its_connections_is_used_again(
    cut_off: tuple[RunningApp, str], postgres: Postgres
) -> None:
    app, url = cut_off
    team = app.team()
    team.synced(snapshot())
    for _ in range(3):
        assert postgres.kill_connections(url) > 0
        document = snapshot()
        response = team.sync(document)
        if response.status_code != 200:
            problem(response, 503, "storage-unavailable")
            assert team.synced(document)["sync"]["action"] == "created"
    # What reads has connections of its own, and each that was cut is found once.
    answers = (team.get("/jobs/v1") for _ in range(10))
    answer = next(each for each in answers if each.status_code != 503)
    assert len(answer.json()) == 4


def test_a_connection_cut_within_a_transaction_is_503_and_keeps_nothing(
    cut_off: tuple[RunningApp, str], postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, url = cut_off
    team = app.team()
    document = snapshot()
    merge_apply = merge.apply

    def cut_then_merge(job: Any, push: Any) -> Any:
        # Merging stands between reading the job and writing it. This thread has a loop, another has none.
        thread = Thread(target=postgres.kill_connections, args=(url,))
        thread.start()
        thread.join(timeout=10)
        return merge_apply(job, push)

    monkeypatch.setattr(merge, "apply", cut_then_merge)
    problem(team.sync(document), 503, "storage-unavailable")
    monkeypatch.undo()
    assert team.get("/jobs/v1").json() == []
    assert team.synced(document)["sync"]["action"] == "created"


def test_one_unexpected_error_does_not_harm_its_neighbours(
    app: RunningApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = app.team()
    merge_apply = merge.apply

    def trip(job: Any, push: Any) -> Any:
        if job.client_job_id == "bad":
            raise ZeroDivisionError("a bug nobody knows yet")
        return merge_apply(job, push)

    monkeypatch.setattr(merge, "apply", trip)
    caller = Caller(team.team_id, team.name, team.owner.subject_id, False)
    names = ["one", "bad", "two", "refused", "three"]
    items = [
        PushItem(
            caller,
            parse(json.dumps(snapshot(clientJobId=name)).encode()),
            1,
            '"x"' if name == "refused" else None,
        )
        for name in names
    ]

    async def push() -> list[Any]:
        return await asyncio.gather(*(app.ingest.submit(item) for item in items), return_exceptions=True)

    results = dict(zip(names, app.call(push), strict=True))
    assert isinstance(results["bad"], ZeroDivisionError)
    assert isinstance(results["refused"], SyncError)
    found = {job["metadata"]["clientJobId"] for job in team.get("/jobs/v1").json()}
    assert found == {"one", "two", "three"}
    response = team.sync(snapshot(clientJobId="bad"))
    assert problem(response, 500, "internal")["retry"] == "later"
    assert "nobody knows" not in response.text
    assert team.sync(snapshot()).status_code == 200


def test_a_server_without_its_store_is_ready_and_says_so(impatient: RunningApp, tmp_path: Path) -> None:
    blobs = impatient.settings.data / "blobs"
    for item in blobs.iterdir():
        item.unlink()
    blobs.rmdir()
    blobs.write_text("in the way")
    for _ in range(2):
        response = impatient.http.get("/readyz")
        assert response.status_code == 200
        assert response.json() == {
            "status": "ready",
            "parts": {"database": "ok", "blobs": "unavailable"},
        }
    assert impatient.team().sync(snapshot()).status_code == 200


def test_a_server_without_its_database_is_not_ready(
    cut_off: tuple[RunningApp, str], postgres: Postgres
) -> None:
    app, url = cut_off
    assert app.http.get("/readyz").json() == {
        "status": "ready",
        "parts": {"database": "ok", "blobs": "ok"},
    }
    name = url.rpartition("/")[2].partition("?")[0]
    postgres.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    assert postgres.kill_connections(url)
    body = problem(app.http.get("/readyz"), 503, "not-ready")
    assert body["parts"] == {"database": "unavailable", "blobs": "ok"}
    assert app.http.get("/healthz").status_code == 200
    postgres.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert app.http.get("/readyz").status_code == 200
