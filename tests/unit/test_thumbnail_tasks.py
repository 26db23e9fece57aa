"""The task that makes thumbnails: what a reader that is ended from outside means for the file."""

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures import pictures
from media.formats import SIZES, Made, Refused
from media.sandbox import Interrupted, Sandbox
from server.attachments.background import handlers
from storage.blobs import FolderBlobs
from storage.database import Database, open_database, sqlite_url
from storage.queries import attachments as queries
from storage.queries.attachments import AttachmentRow, NewFile
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task

KEY, ATTACHMENT = "1/2026/11/0b1c", "a photo"


class Readers(Sandbox):
    """Each reading ends as the test says."""

    def __init__(self) -> None:
        super().__init__(1)
        self.end: Exception | None = None
        self.read = 0

    async def run(self, function: Callable[..., Any], *args: Any, seconds: float = 20) -> Any:
        self.read += 1
        if self.end is not None:
            raise self.end
        return Made(dict.fromkeys(SIZES, (b"a jpeg", 4, 3)), 1600, 1200)


class Scene:
    def __init__(self, database: Database, blobs: FolderBlobs) -> None:
        self.database = database
        self.readers = Readers()
        self._make = handlers(database, blobs, None, self.readers)[queries.THUMBNAILS]  # type: ignore[arg-type]

    async def attempt(self, number: int) -> None:
        await self._make(Task(1, "t", queries.THUMBNAILS, ATTACHMENT, None, number, 0))

    async def row(self) -> AttachmentRow:
        row = await self.database.read(queries.one, 1, ATTACHMENT)
        assert row is not None
        return row


def play(folder: Path, scene: Callable[[Scene], Any]) -> None:
    """``scene`` with a picture that has come."""
    content = pictures.jpeg()

    async def whole() -> None:
        database = open_database(sqlite_url(folder / "fieldsync.db"))
        blobs = FolderBlobs(folder, "http://localhost", b"s" * 32)
        try:
            await database.migrate()
            await blobs.put(KEY, content, content_type="image/jpeg")
            file = NewFile(
                attachment_id=ATTACHMENT,
                blob_key=KEY,
                size=len(content),
                sha256=hashlib.sha256(content).digest(),
                file_name=None,
                declared_type=None,
                content_type="image/jpeg",
                uploaded_by="u",
                stored_at=1,
            )
            assert await database.write(queries.store, 1, file) == "stored"
            await scene(Scene(database, blobs))
        finally:
            await database.close()
            await blobs.close()

    asyncio.run(whole())


def test_an_interrupted_reading_is_a_failed_attempt_and_no_failed_picture(tmp_path: Path) -> None:
    async def scene(it: Scene) -> None:
        it.readers.end = Interrupted("ended")
        for number in (1, MAX_ATTEMPTS - 1):
            with pytest.raises(Interrupted):
                await it.attempt(number)
            assert (await it.row()).state == queries.STORED
        it.readers.end = None
        await it.attempt(MAX_ATTEMPTS)
        assert (await it.row()).state == queries.READY

    play(tmp_path, scene)


def test_a_picture_whose_readers_are_always_ended_fails_with_the_last_attempt(tmp_path: Path) -> None:
    async def scene(it: Scene) -> None:
        it.readers.end = Interrupted("ended")
        with pytest.raises(Interrupted):  # and the task is dead
            await it.attempt(MAX_ATTEMPTS)
        row = await it.row()
        assert (row.state, row.failure) == (
            queries.FAILED,
            "Its reader was ended each time before it had read it.",
        )
        # An administrator lets the dead task be done again.
        it.readers.end = None
        await it.attempt(1)
        row = await it.row()
        assert (row.state, row.failure) == (queries.READY, None)

    play(tmp_path, scene)


def test_a_picture_that_cannot_be_read_fails_at_once_and_one_that_was_read_is_not_read_again(
    tmp_path: Path,
) -> None:
    async def scene(it: Scene) -> None:
        it.readers.end = Refused("It cannot be read.")
        await it.attempt(1)
        assert ((await it.row()).state, (await it.row()).failure) == (queries.FAILED, "It cannot be read.")
        it.readers.end = None
        await it.attempt(2)
        await it.attempt(3)
        assert ((await it.row()).state, it.readers.read) == (queries.READY, 2)

    play(tmp_path, scene)
