"""The clock: entries are done again and again, by one process at a time, whatever becomes of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from media.details import Details, Thumbnail
from media.uploads import Uploads
from server.background import delete_orphans, delete_tokens, timetable
from server.settings import Settings
from server.timetable import Entry, Timetable
from storage import database as module
from storage.blobs import open_blobs
from storage.database import Connection, Database, Unavailable, open_database, sqlite_url
from storage.queries import attachments, tokens
from storage.queries.attachments import NewFile

WAIT_SECONDS = 10.0
HOUR = 3600 * 1_000_000
NOW = 1_000 * HOUR


def run(url: str, scenario: Callable[[Database], Awaitable[None]]) -> None:
    async def main() -> None:
        database = open_database(url)
        await database.migrate()
        try:
            await scenario(database)
        finally:
            await database.close()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class Clock:
    """A timetable that runs, quicker than in earnest."""

    def __init__(self, entries: Sequence[Entry], database: Database) -> None:
        self.timetable = Timetable(entries, database, retry_seconds=0.05, first_seconds=0)
        self._running = asyncio.create_task(self.timetable.run())

    async def stop(self) -> None:
        self.timetable.stop()
        await self._running


# The lock


def test_one_holds_a_lock_at_a_time(database_url: str) -> None:
    async def scenario(first: Database) -> None:
        second = open_database(database_url)
        async with first.hold_lock("clock") as lock:
            assert lock
            assert await lock.still_held()
            async with second.hold_lock("clock") as other:
                assert not other
                assert not await other.still_held()
            async with second.hold_lock("another") as other:
                assert other
        await _until_free(second)
        await second.close()

    run(database_url, scenario)


async def _until_free(database: Database) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        async with database.hold_lock("clock") as lock:
            if lock:
                return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def test_who_loses_the_connection_of_a_lock_learns_it(fresh_postgres: str) -> None:
    async def scenario(database: Database) -> None:
        async with database.hold_lock("clock") as lock:
            assert await lock.still_held()
            await database.write(_end_holders)
            assert not await lock.still_held()
            assert not lock
            await _until_free(database)

    run(fresh_postgres, scenario)


def _end_holders(connection: Connection) -> None:
    connection.execute(
        text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
    ).all()


def test_a_transaction_that_is_left_open_loses_its_locks_within_a_minute(fresh_postgres: str) -> None:
    def chosen(connection: Connection) -> str:
        return str(connection.scalar(text("SHOW idle_in_transaction_session_timeout")))

    async def scenario(database: Database) -> None:
        # Each connection anew, and after the transaction in which it was set.
        for _ in range(2):
            assert await database.read(chosen) == "1min"
        await database._reader.dispose()
        assert await database.write(chosen) == "1min"

    run(fresh_postgres, scenario)


def test_without_a_free_connection_the_database_is_unavailable(fresh_postgres: str) -> None:
    async def scenario(database: Database) -> None:
        pool: Any = database._reader.sync_engine.pool
        pool._timeout = 0.05
        async with AsyncExitStack() as held:
            for _ in range(20):
                await held.enter_async_context(database._reader.connect())
            for work in (database.read, database.write):
                with pytest.raises(Unavailable):
                    await work(_end_holders)
            with pytest.raises(Unavailable):
                async with database.hold_lock("clock"):
                    pass
        await database.check()

    run(fresh_postgres, scenario)


def test_a_lock_that_cannot_be_got_leaves_no_connection_behind(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(database: Database) -> None:
        monkeypatch.setattr(module, "_TRY_LOCK", text("SELECT no_such_function(:number)"))
        with pytest.raises(Unavailable):
            async with database.hold_lock("clock"):
                pass
        pool: Any = database._reader.sync_engine.pool
        assert pool.checkedout() == 0

    run(fresh_postgres, scenario)


def test_closing_waits_for_what_tells_the_workers(
    fresh_postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NOTIFY", text("SELECT pg_sleep(0.3)"))

    async def scenario(database: Database) -> None:
        database._tell()
        (notice,) = database._notices
        await until(lambda: not database._notice_waits)
        await database.close()
        assert notice.done()
        assert not notice.cancelled()

    run(fresh_postgres, scenario)


# The timetable


def test_an_entry_is_done_again_and_again_though_it_fails(tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        runs = {"fails": 0, "works": 0}

        async def fails() -> None:
            runs["fails"] += 1
            raise LookupError("on purpose")

        async def works() -> None:
            runs["works"] += 1

        clock = Clock([Entry("fails", 0.05, fails), Entry("works", 0.05, works)], database)
        await until(lambda: min(runs.values()) >= 3)
        await clock.stop()

    run(sqlite_url(tmp_path / "fieldsync.db"), scenario)


def test_an_entry_never_runs_beside_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(database: Database) -> None:
        running = most = runs = 0

        async def slow() -> None:
            nonlocal running, most, runs
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.15)
            running -= 1
            runs += 1

        clock = Clock([Entry("slow", 0.03, slow)], database)
        await until(lambda: runs >= 3)
        await clock.stop()
        assert most == 1

    run(sqlite_url(tmp_path / "fieldsync.db"), scenario)


def test_of_two_processes_one_has_the_clock_and_the_other_takes_over(database_url: str) -> None:
    async def scenario(first: Database) -> None:
        second = open_database(database_url)
        done: list[str] = []

        def entry(name: str) -> Entry:
            async def work() -> None:
                done.append(name)

            return Entry(name, 0.02, work)

        one = Clock([entry("one")], first)
        await until(lambda: len(done) >= 2)
        two = Clock([entry("two")], second)
        await asyncio.sleep(0.3)
        assert (one.timetable.held, two.timetable.held) == (True, False)
        assert set(done) == {"one"}
        await one.stop()
        await until(lambda: "two" in done)
        await two.stop()
        await second.close()

    run(database_url, scenario)


# What it does


def test_files_nobody_refers_to_are_deleted_with_their_thumbnails(database_url: str, tmp_path: Path) -> None:
    async def scenario(database: Database) -> None:
        blobs = open_blobs("", tmp_path / "blobs", "http://localhost")
        keys = ["1/2026/11/photo", "1/2026/11/photo.small.jpg"]
        for key in keys:
            await blobs.put(key, b"content", content_type="image/jpeg")
        file = NewFile("photo", keys[0], 7, b"hash", "photo.jpg", "image/jpeg", "image/jpeg", "u", NOW)
        assert await database.write(attachments.store, 1, file) == "stored"
        details = msgspec.json.encode(Details(thumbnails=(Thumbnail("small", keys[1], 1, 1, 7),)))
        assert await database.write(_describe, keys[0], details)
        assert await delete_orphans(database, blobs, NOW) == 0
        assert await delete_orphans(database, blobs, NOW + 1) == 1
        assert await database.read(attachments.one, 1, "photo") is None
        assert [await blobs.info(key) for key in keys] == [None, None]
        await blobs.close()

    run(database_url, scenario)


def _describe(connection: Connection, blob_key: str, details: bytes) -> bool:
    return attachments.describe(
        connection, 1, "photo", blob_key=blob_key, state="ready", details=details, failure=None
    )


def test_refresh_tokens_are_deleted_once_they_have_expired(database_url: str) -> None:
    async def scenario(database: Database) -> None:
        for name, expires_at in ((b"old", NOW - 1), (b"new", NOW)):
            await database.write(tokens.insert_refresh_token, 1, name, "family", "user", (), expires_at)
        assert await delete_tokens(database, NOW) == 1
        assert await database.read(tokens.refresh_token_by_hash, b"old") is None
        assert await database.read(tokens.refresh_token_by_hash, b"new") is not None

    run(database_url, scenario)


def test_everything_on_the_timetable_can_be_done_on_an_empty_database(
    database_url: str, tmp_path: Path
) -> None:
    async def scenario(database: Database) -> None:
        blobs = open_blobs("", tmp_path / "blobs", "http://localhost")
        for entry in timetable(database, blobs, Uploads(database, blobs, HOUR), Settings()):
            await entry.work()
        await blobs.close()

    run(database_url, scenario)
