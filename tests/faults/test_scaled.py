"""The scaled form: servers that only serve and workers that only work, on PostgreSQL and S3."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from fixtures.pictures import drawing, jpeg
from server.clock import now
from storage.database import Connection, Database, open_database
from storage.queries import tasks as queries
from storage.queries.tasks import TaskRow, enqueue
from tests.support.background import KIND
from tests.support.blobs import CREDENTIALS, nanio_server, s3_client, s3_credentials
from tests.support.postgres import Postgres
from tests.support.process import ServerProcess, command, environment

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 90.0
STOP_SECONDS = 30.0
LEASE_SECONDS = 2
PICTURES = 12
HAS_THE_CLOCK = "this process has the clock"

T = TypeVar("T")


class Installation:
    """One database and one store of files, and the processes on them."""

    def __init__(self, folder: Path, url: str, endpoint: str, started: ExitStack) -> None:
        self.folder = folder
        self.url = url
        self.settings: dict[str, object] = {
            "database_url": url,
            "blobs": f"s3://scaled/files?endpoint={endpoint}",
            "public_url": "http://sync.example",
            "lease_seconds": LEASE_SECONDS,
        }
        self._started = started
        self._count = 0
        self.run("migrate")
        answer = self.run("init", "--team", "alpha", "--owner", "owner@alpha.example", "--json")
        self.created: dict[str, str] = httpx.Response(200, content=answer).json()

    def run(self, *arguments: str) -> bytes:
        """What a command printed."""
        done = subprocess.run(
            [command(), *arguments, "--data", str(self._data())],
            capture_output=True,
            check=True,
            env=environment(**self.settings),
            timeout=WAIT_SECONDS,
        )
        return done.stdout

    def serve(self) -> ServerProcess:
        """One more server without background work."""
        data = self._data()
        arguments = [command(), "serve", "--port", "{port}", "--data", str(data), "--no-worker"]
        server = ServerProcess(arguments, data, {**self.settings, "log_level": "warning"})
        self._started.callback(server.kill)
        return server

    def work(self, *arguments: object) -> "Worker":
        """One more worker; with arguments, that of the tests (tests/support/background.py)."""
        data = self._data()
        line = [command(), "worker", "--data", str(data)]
        if arguments:
            line = [sys.executable, "-m", "tests.support.background", str(data), *map(str, arguments)]
        worker = Worker(line, data / "worker.log", environment(**self.settings))
        self._started.callback(worker.kill)
        return worker

    def _data(self) -> Path:
        """Each process has a folder of its own, as on machines of its own."""
        self._count += 1
        data = self.folder / f"{self._count}"
        data.mkdir()
        return data

    def database(self, method: str, *arguments: Any) -> Any:
        async def once() -> Any:
            database: Database = open_database(self.url)
            try:
                return await getattr(database, method)(*arguments)
            finally:
                await database.close()

        return asyncio.run(once())

    def enqueue(self) -> None:
        def work(connection: Connection) -> None:
            enqueue(connection, 1, KIND, "s", now=now())

        self.database("write", work)

    def tasks(self) -> list[TaskRow]:
        rows: list[TaskRow] = self.database("read", queries.page, 1, None, 0, 1000)
        return rows

    def clocks(self) -> int:
        """How many connections hold a lock of this database."""

        def count(connection: Connection) -> int:
            return int(
                connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database"
                    " WHERE locktype = 'advisory' AND granted AND datname = current_database()"
                ).scalar_one()
            )

        found: int = self.database("read", count)
        return found


class Worker:
    """A process that works in the background, in a group of its own."""

    def __init__(self, line: list[str], log: Path, settings: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                line, cwd=ROOT, env=settings, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )

    def has_the_clock(self) -> bool:
        return HAS_THE_CLOCK in self.log.read_text()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=10)


def wait_until(what: str, condition: Callable[[], T]) -> T:
    """The first value that is not false."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return value


@pytest.fixture
def installation(tmp_path: Path, postgres: Postgres) -> Iterator[Installation]:
    with ExitStack() as started:
        started.enter_context(s3_credentials())
        endpoint = started.enter_context(nanio_server(tmp_path / "objects"))
        client = s3_client(endpoint)
        client.create_bucket(Bucket="scaled")
        client.close()
        assert CREDENTIALS.items() <= os.environ.items()
        yield Installation(tmp_path, postgres.new_database(), endpoint, started)


def test_two_servers_and_two_workers_do_everything_once_and_one_has_the_clock(
    installation: Installation,
) -> None:
    servers = [installation.serve() for _ in range(2)]
    workers = [installation.work() for _ in range(2)]
    for server in servers:
        server.wait_until_ready()
    token = servers[0].token(installation.created)
    clients = [server.connect(token) for server in servers]
    picture = jpeg(drawing())

    def send(number: int) -> None:
        photo = {"filename": "photo.jpg", "attachmentId": f"photo-{number}", "contentType": "image/jpeg"}
        step = {"uniqueStepId": "look", "type": "CAPTURE_PHOTO", "image": [photo]}
        body = {
            "metadata": {"clientJobId": f"job-{number}", "jobTitle": "Pump", "status": "Active"},
            "completedSteps": [{"singleStep": step}],
        }
        # The job over one server, its photo over the other.
        answer = clients[number % 2].post("/jobs/v1/basicSync", json=body)
        assert answer.status_code == 200, answer.text
        # Whatever follows the end of a JPEG is no part of the picture.
        content = picture + bytes([number])
        answer = clients[1 - number % 2].put(f"/attachments/v1/photo-{number}", content=content)
        assert answer.status_code == 201, answer.text

    def ready(numbers: range) -> bool:
        answers = [clients[0].get(f"/attachments/v1/photo-{number}").json() for number in numbers]
        return all(answer["state"] == "ready" for answer in answers)

    for number in range(PICTURES):
        send(number)
    wait_until("thumbnails", lambda: ready(range(PICTURES)))
    wait_until("the end", lambda: all(row.state == "done" for row in installation.tasks()))
    rows = installation.tasks()
    assert {row.attempts for row in rows} == {1}
    subjects = Counter(row.subject for row in rows if row.kind == "attachment.thumbnails")
    assert subjects == {f"photo-{number}": 1 for number in range(PICTURES)}

    first = wait_until("a clock", lambda: [worker for worker in workers if worker.has_the_clock()])
    assert len(first) == 1
    assert installation.clocks() == 1
    first[0].kill()
    (other,) = (worker for worker in workers if worker is not first[0])
    wait_until("the clock of the other", other.has_the_clock)
    assert installation.clocks() == 1
    for number in range(PICTURES, PICTURES + 2):
        send(number)
    wait_until("thumbnails", lambda: ready(range(PICTURES, PICTURES + 2)))

    for client in clients:
        client.close()
    for server in servers:
        assert _told_to_stop(server._process) == 0
    assert _told_to_stop(other.process) == 0
    assert "Traceback" not in other.log.read_text()
    assert "running" not in {row.state for row in installation.tasks()}


def _told_to_stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(timeout=STOP_SECONDS)


def test_what_a_stopped_worker_cannot_end_is_handed_to_another(
    installation: Installation, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"

    def began(worker: Worker) -> bool:
        return journal.exists() and f"began {worker.process.pid} 1" in journal.read_text()

    slow = installation.work(journal, 600)
    installation.enqueue()
    wait_until("the first", lambda: began(slow))
    quick = installation.work(journal, 0)
    assert _told_to_stop(slow.process) == 0
    wait_until("the other, whose attempt is the first again", lambda: began(quick))
    wait_until("the end", lambda: [row.state for row in installation.tasks() if row.kind == KIND] == ["done"])
    assert _told_to_stop(quick.process) == 0


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_server_that_is_told_to_stop_while_it_starts_ends(
    installation: Installation, seconds: float
) -> None:
    server = installation.serve()
    time.sleep(seconds)
    # Before it has begun at all, the signal itself ends it.
    assert _told_to_stop(server._process) in (0, -signal.SIGTERM)
