"""Workers that are killed while they send webhooks: every one arrives, and an id says which came twice."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from server.clock import now
from storage.database import Connection, open_database
from storage.queries.teams import insert_team
from tests.support.process import command, environment
from tests.support.receiver import Receiver, Wire
from tests.support.webhooks import put_deliveries, put_trigger, states_of

T = TypeVar("T")

TRIGGERS, EACH = 4, 125
TOTAL = TRIGGERS * EACH
#: Requests that have come when the next worker is killed.
KILLS = (30, 130, 230)
WAIT_SECONDS = 60.0
LEASE_SECONDS = 2


class Place:
    """A database with a team whose triggers have much to deliver, and workers on it."""

    def __init__(self, folder: Path, url: str, receiver: Receiver) -> None:
        self.url = url
        self._folder = folder
        self._settings = {
            "data": folder / "data",
            "database_url": url,
            "webhook_networks": "127.0.0.0/8",
            "webhook_ports": receiver.port,
            "lease_seconds": LEASE_SECONDS,
            "log_level": "error",
        }

        def prepare(connection: Connection) -> tuple[int, dict[str, list[str]]]:
            team_id = insert_team(connection, "team", now())
            triggers = [put_trigger(connection, team_id, receiver.url) for _ in range(TRIGGERS)]
            return team_id, {each: put_deliveries(connection, team_id, each, EACH) for each in triggers}

        self.team_id, self.deliveries = asyncio.run(self._write(prepare, migrate=True))

    async def _write(self, work: Callable[[Connection], T], *, migrate: bool = False) -> T:
        database = open_database(self.url)
        try:
            if migrate:
                await database.migrate()
            return await database.write(work)
        finally:
            await database.close()

    def states(self) -> dict[str, int]:
        """How many deliveries are in which state."""

        def read(connection: Connection) -> dict[str, int]:
            found: dict[str, int] = {}
            for trigger_id in self.deliveries:
                for state, count in states_of(connection, self.team_id, trigger_id).items():
                    found[state] = found.get(state, 0) + count
            return found

        return asyncio.run(self._write(read))

    def log(self) -> str:
        """What became of it, and what the workers said, for whoever reads why this failed."""
        return f"{self.states()}\n{(self._folder / 'worker.log').read_text()[-4000:]}"

    def start(self) -> subprocess.Popen[bytes]:
        """A worker, in a group of processes of its own."""
        with (self._folder / "worker.log").open("ab") as log:
            return subprocess.Popen(
                [command(), "worker"],
                env=environment(**self._settings),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=10)


def wait_for(condition: Callable[[], bool], what: Callable[[], object], pause: float = 0.01) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(pause)


async def take_one(wire: Wire) -> None:
    """Take it, not at once: whoever is killed has some under way."""
    await asyncio.sleep(0.2)
    await wire.answer(200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(behaviours=[take_one]) as receiver:
        yield receiver


def test_every_webhook_arrives_though_the_workers_that_send_are_killed_in_turn(
    tmp_path: Path, database_url: str, receiver: Receiver
) -> None:
    place = Place(tmp_path, database_url, receiver)
    with ExitStack() as running:

        def start() -> subprocess.Popen[bytes]:
            process = place.start()
            running.callback(kill, process)
            return process

        workers = [start(), start()]
        for requests in KILLS:
            wait_for(partial(receiver.has, requests), place.log)
            kill(workers.pop(0))
            workers.append(start())
        wait_for(lambda: place.states() == {"delivered": TOTAL}, place.log, pause=0.25)
    expected = {f"msg_{delivery_id}" for ids in place.deliveries.values() for delivery_id in ids}
    assert len(expected) == TOTAL
    # At least once each, and by the id, exactly once.
    assert receiver.counts.keys() == expected
    assert all(request.genuine for request in receiver.requests)
    # It was killed in the middle: something was under way that nobody had noted.
    assert len(receiver.requests) > TOTAL
