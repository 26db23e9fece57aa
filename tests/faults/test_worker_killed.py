"""A worker that is killed or stopped in the middle of a task: another one does it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from server.background import Background, work
from server.clock import now
from server.settings import Settings
from server.timetable import LOCK
from server.worker import Worker
from storage.database import Connection, Database, Unavailable, open_database, sqlite_url
from storage.queries import tasks as queries
from storage.queries.tasks import TaskRow, enqueue
from tests.support.background import KIND, LEASE_SECONDS
from tests.support.process import ServerProcess, command, environment

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30.0

Start = Callable[..., subprocess.Popen[bytes]]


class Place:
    """A data folder with one task in it, and the journal of those who work on it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.journal = folder / "journal"
        self.url = sqlite_url(self.data / "fieldsync.db")

        async def prepare() -> None:
            database = open_database(self.url)
            await database.migrate()
            await database.write(_enqueue)
            await database.close()

        asyncio.run(prepare())

    def lines(self) -> list[list[str]]:
        if not self.journal.exists():
            return []
        return [line.split() for line in self.journal.read_text().splitlines()]

    def task(self) -> TaskRow:
        """The one task as it is now."""

        async def read() -> TaskRow:
            database = open_database(self.url)
            (row,) = await database.read(queries.page, 1, None, 0, 10)
            await database.close()
            return row

        return asyncio.run(read())

    def wait_for(self, what: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while [what, str(process.pid)] not in [line[:2] for line in self.lines()]:
            assert process.poll() is None, "the worker ended"
            assert time.monotonic() < deadline, f"{self.lines()}, and never {what} by {process.pid}"
            time.sleep(0.02)

    def wait_until_done(self) -> TaskRow:
        deadline = time.monotonic() + WAIT_SECONDS
        while (row := self.task()).state != "done":
            assert time.monotonic() < deadline, row
            time.sleep(0.05)
        return row


def _enqueue(connection: Connection) -> None:
    enqueue(connection, 1, KIND, "photo", now=now())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def start(place: Place) -> Iterator[Start]:
    """Starts a worker, in a group of its own; its task takes that many seconds."""
    with ExitStack() as started:

        def worker(seconds: float) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.background", place.data, place.journal, str(seconds)],
                cwd=ROOT,
                env=environment(),
                start_new_session=True,
            )
            started.callback(process.wait)
            started.callback(_kill, process)
            return process

        yield worker


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(timeout=10)


def test_the_task_of_a_killed_worker_is_done_by_another(place: Place, start: Start) -> None:
    victim = start(600)
    place.wait_for("began", victim)
    _kill(victim)
    assert place.task().state == "running"
    heir = start(0)
    place.wait_for("ended", heir)
    row = place.wait_until_done()
    assert row.attempts == 2
    assert [line[0] for line in place.lines()] == ["began", "began", "ended"]


def test_a_task_that_takes_longer_than_its_lease_is_not_given_to_another(place: Place, start: Start) -> None:
    first = start(2.5 * LEASE_SECONDS)
    place.wait_for("began", first)
    start(0)
    place.wait_for("ended", first)
    row = place.wait_until_done()
    assert row.attempts == 1
    assert [line[:2] for line in place.lines()] == [["began", str(first.pid)], ["ended", str(first.pid)]]


def test_a_worker_that_is_told_to_stop_ends_its_task_first(place: Place, start: Start) -> None:
    worker = start(1.0)
    place.wait_for("began", worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=WAIT_SECONDS) == 0
    assert place.task().state == "done"


def test_the_command_works_until_it_is_told_to_stop(tmp_path: Path) -> None:
    data = tmp_path / "data"
    worker = subprocess.Popen(
        [command(), "worker", "--data", str(data)],
        env=environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert worker.stderr is not None
        said = worker.stderr.readline()
        assert b"working" in said
        assert (data / "fieldsync.db").exists()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=WAIT_SECONDS) == 0
        rest = worker.stderr.read()
        assert b"Traceback" not in rest, rest
    finally:
        _kill(worker)
        if worker.stderr is not None:
            worker.stderr.close()


def test_a_worker_that_starts_before_its_database_waits_and_hears_when_it_is_to_stop(tmp_path: Path) -> None:
    nobody = "postgresql+asyncpg://fieldsync@127.0.0.1:1/fieldsync"
    worker = subprocess.Popen(
        [command(), "worker", "--data", str(tmp_path / "data")],
        env=environment(database_url=nobody),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert worker.stderr is not None
        assert b"waiting for the database" in worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=WAIT_SECONDS) == 0
        rest = worker.stderr.read()
        assert b"Traceback" not in rest, rest
    finally:
        _kill(worker)
        if worker.stderr is not None:
            worker.stderr.close()


def test_a_worker_begins_once_its_database_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Database.prepare
    refusals = 2

    async def refused_at_first(database: Database) -> None:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise Unavailable("it is starting")
        await prepare(database)

    async def end_at_once(_background: Background) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Database, "prepare", refused_at_first)
    monkeypatch.setattr(Background, "start", end_at_once)
    monkeypatch.setattr(Background, "ended", _never)
    asyncio.run(work(Settings(data=tmp_path)))
    assert refusals == 0


async def _never(_background: Background) -> None:
    await asyncio.Event().wait()


def test_a_worker_whose_loop_ends_by_itself_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(_worker: Worker) -> None:
        raise LookupError("a defect")

    monkeypatch.setattr(Worker, "run", dies)
    with pytest.raises(RuntimeError, match="ended by itself"):
        asyncio.run(work(Settings(data=tmp_path)))


@pytest.mark.parametrize(("options", "works"), [([], True), (["--no-worker"], False)])
def test_serve_works_in_the_background_unless_told_not_to(
    tmp_path: Path, options: list[str], works: bool
) -> None:
    data = tmp_path / "data"
    arguments = [command(), "serve", "--port", "{port}", "--data", str(data), *options]
    server = ServerProcess(arguments, tmp_path, {"log_level": "warning"})
    try:
        server.wait_until_ready()
        assert asyncio.run(_clock_is_free(sqlite_url(data / "fieldsync.db"))) is not works
    finally:
        server.stop()


async def _clock_is_free(url: str) -> bool:
    """Whether nobody keeps the timetable, within the time somebody needs to begin."""
    database = open_database(url)
    try:
        for _ in range(20):
            async with database.hold_lock(LOCK) as lock:
                if not lock:
                    return False
            await asyncio.sleep(0.05)
        return True
    finally:
        await database.close()
