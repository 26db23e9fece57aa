"""A server that is killed at any moment: what it acknowledged is there, and nothing is there twice."""

import json
import random
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.app import Document, keys_of, step
from tests.support.process import ServerProcess, free_port, init, listening

SYNCS = 300
TABLETS = 6
KILLS = 4
SEED = 20_250_303


class Tablet:
    """Pushes one growing job, one step at a time, each again under its old number until it is answered."""

    def __init__(self, number: int) -> None:
        self.install = str(uuid.UUID(int=number + 1))
        self.client_job_id = f"kill-{number % 3}"  # pairs of tablets share a job
        self.number = number
        self.acknowledged: list[int] = []
        self.unanswered = 0

    def body(self, seq: int) -> bytes:
        steps = [step(f"{self.number}-{n}", note=f"{self.number}/{n}") for n in range(1, seq + 1)]
        document = {
            "metadata": {"clientJobId": self.client_job_id, "status": "InProgress"},
            "completedSteps": steps,
            "sync": {"installId": self.install, "pushSeq": seq},
        }
        return json.dumps(document).encode()

    def work(self, syncs: int, connect: Callable[[], httpx.Client], end: float) -> None:
        """Push until everything is acknowledged. Whoever hangs beyond ``end`` is given up."""
        with connect() as client:
            for seq in range(1, syncs + 1):
                while True:
                    assert time.monotonic() < end, f"tablet {self.number} never got push {seq} through"
                    try:
                        response = client.post("/jobs/v1/basicSync", content=self.body(seq))
                    except httpx.TransportError:
                        self.unanswered += 1
                        time.sleep(0.02)
                        continue
                    if response.status_code == 503:
                        time.sleep(0.02)
                        continue
                    assert response.status_code == 200, response.text
                    self.acknowledged.append(seq)
                    break


@contextmanager
def killed_at_random(
    start: Callable[[], ServerProcess], kills: int, generator: random.Random
) -> Iterator[list[bool]]:
    """A server that is killed and started again; yields whether its port was dead after each kill."""
    dead: list[bool] = []
    servers = [start()]
    finished = threading.Event()

    def torment() -> None:
        for _ in range(kills):
            if finished.wait(generator.uniform(0.15, 0.7)):
                return
            servers[-1].kill()
            dead.append(not listening(servers[-1].port))
            servers.append(start())

    thread = threading.Thread(target=torment)
    thread.start()
    try:
        yield dead
    finally:
        finished.set()
        thread.join(timeout=60)


@pytest.mark.parametrize("seed", [SEED])
def test_what_was_acknowledged_survives_sigkill_and_nothing_is_there_twice(
    start_server: Callable[..., ServerProcess], tmp_path: Path, seed: int
) -> None:
    generator = random.Random(seed)
    data = tmp_path / "data"
    created = init(data)
    port = free_port()
    token = ""

    def start() -> ServerProcess:
        return start_server(data, port=port)

    def connect() -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False, timeout=10)

    with killed_at_random(start, KILLS, generator) as dead:
        while not token:
            token = _token(port, created)
        tablets = [Tablet(number) for number in range(TABLETS)]
        failures: list[BaseException] = []

        def work(tablet: Tablet) -> None:
            try:
                tablet.work(SYNCS // TABLETS, connect, time.monotonic() + 100)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(tablet,)) for tablet in tablets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert dead, "the tablets were done before the first kill"
    assert all(dead)
    # The last one alive; it may have been started while the tablets were finishing.
    with connect() as client:
        assert_everything_is_there_once(client, tablets)


def _token(port: int, created: dict[str, str]) -> str:
    form = {
        "grant_type": "client_credentials",
        "client_id": created["clientId"],
        "client_secret": created["clientSecret"],
    }
    try:
        response = httpx.post(
            f"http://127.0.0.1:{port}/connect/token", data=form, trust_env=False, timeout=10
        )
    except httpx.TransportError:
        time.sleep(0.02)
        return ""
    return str(response.json()["access_token"]) if response.status_code == 200 else ""


def assert_everything_is_there_once(client: httpx.Client, tablets: list[Tablet]) -> None:
    """One job per clientJobId, every step of it, every body and every push number once."""
    jobs: list[Document] = client.get("/jobs/v1?limit=1000").json()
    by_id = {job["metadata"]["clientJobId"]: job for job in jobs}
    assert len(by_id) == len(jobs) == len({tablet.client_job_id for tablet in tablets})
    histories: dict[str, list[Document]] = {}
    for client_job_id in by_id:
        histories[client_job_id] = client.get(f"/jobs/v1/snapshots/{client_job_id}?limit=1000").json()
    for tablet in tablets:
        last = SYNCS // TABLETS
        assert tablet.acknowledged == list(range(1, last + 1))
        expected = {f"{tablet.number}-{n}" for n in tablet.acknowledged}
        assert expected <= keys_of(by_id[tablet.client_job_id]["completedSteps"])
        pushed: defaultdict[int, list[Any]] = defaultdict(list)
        for entry in histories[tablet.client_job_id]:
            if entry["installId"] == tablet.install:
                pushed[entry["pushSeq"]].append(entry["job"])
        assert sorted(pushed) == tablet.acknowledged
        assert all(bodies == [json.loads(tablet.body(seq))] for seq, bodies in pushed.items())
        again = client.post("/jobs/v1/basicSync", content=tablet.body(last)).json()["sync"]
        assert (again["replayed"], again["action"]) == (True, "unchanged")


def test_the_whole_server_dies_with_its_process_group(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    init(tmp_path / "data")
    server = start_server(tmp_path / "data")
    assert listening(server.port)
    server.kill()
    assert not listening(server.port)
