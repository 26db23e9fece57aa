"""A server and a worker that are killed while files arrive and thumbnails are made: nothing is lost."""

import io
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from fixtures.pictures import drawing, jpeg
from tests.support.process import ServerProcess, command, environment, free_port, init, listening
from tests.support.senders import BlockSender, PutSender, Sender, TusSender, Watcher, assert_whole, fetch

KILLS = 3
SEED = 20_261_122
SIZES = (100_000, 1_500_000)

StartServer = Callable[..., ServerProcess]


class Place:
    """A data folder, and the one address under which its servers follow each other."""

    def __init__(self, start_server: StartServer, folder: Path, **settings: object) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self._created = init(self.data)
        self._start_server = start_server
        self._settings = settings
        self.server = self.start()
        self._token = self.server.token(self._created)

    def start(self) -> ServerProcess:
        self.server = self._start_server(self.data, port=self.port, **self._settings)
        return self.server

    def connect(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, trust_env=False, timeout=10
        )


@pytest.mark.parametrize("seed", [SEED])
def test_files_whose_arrival_was_acknowledged_survive_sigkill_byte_for_byte(
    start_server: StartServer, tmp_path: Path, seed: int
) -> None:
    generator = random.Random(seed)
    place = Place(start_server, tmp_path)
    stop = threading.Event()
    senders: list[Sender] = [
        kind(f"{kind.__name__.lower()}-{number}", place.connect, SIZES, 0.003, seed)
        for kind in (PutSender, BlockSender, TusSender)
        for number in range(2)
    ]
    watcher = Watcher(senders, place.connect)
    try:
        for sender in senders:
            sender.start(stop)
        for _ in range(KILLS):
            time.sleep(generator.uniform(0.2, 0.9))
            place.server.kill()
            assert not listening(place.port)
            place.start()
    finally:
        stop.set()
        for sender in senders:
            sender.join()
        watcher.join()
    assert sum(sender.unanswered for sender in senders) >= KILLS, "nobody noticed the kills"
    assert watcher.looks
    with place.connect() as client:
        for sender in senders:
            for attachment_id, content in sender.sent.items():
                assert_whole(client, client.get(f"/attachments/v1/{attachment_id}").json(), content)


PICTURES = 20
LEASE_SECONDS = 2
THUMBNAILS = {"small": 240, "medium": 640, "large": 1280}


class Worker:
    """``fieldsync worker``, in a group of its own."""

    def __init__(self, data: Path) -> None:
        self._process = subprocess.Popen(
            [command(), "worker", "--data", str(data)],
            env=environment(lease_seconds=LEASE_SECONDS, log_level="warning"),
            start_new_session=True,
        )

    def kill(self) -> None:
        """SIGKILL for it and all it has started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)


@pytest.mark.parametrize(("worker", "kills"), [("embedded", 2), ("none", 1)])
def test_every_picture_gets_its_thumbnails_although_the_worker_is_killed(
    start_server: StartServer, tmp_path: Path, worker: str, kills: int
) -> None:
    generator = random.Random(SEED)
    place = Place(start_server, tmp_path, worker=worker, lease_seconds=LEASE_SECONDS)
    picture = jpeg(drawing())
    # Whatever follows the end of a JPEG is no part of the picture: different files, the same work.
    contents = {f"photo-{number}": picture + bytes([number]) for number in range(PICTURES)}
    with place.connect() as client, ExitStack() as started:

        def start() -> Callable[[], None]:
            if worker == "embedded":
                return place.start().kill
            apart = Worker(place.data)
            started.callback(apart.kill)
            return apart.kill

        kill = place.server.kill if worker == "embedded" else start()
        for attachment_id, content in contents.items():
            assert client.put(f"/attachments/v1/{attachment_id}", content=content).status_code == 201
        for number in range(kills):
            before = _wait(client, contents, at_least=4 * (number + 1))
            time.sleep(generator.uniform(0, 0.1))
            kill()
            assert before < PICTURES, "there was nothing left to be killed at"
            kill = start()
        _wait(client, contents, at_least=PICTURES)
        for attachment_id, content in contents.items():
            attachment = client.get(f"/attachments/v1/{attachment_id}").json()
            assert attachment["state"] == "ready"
            assert_whole(client, attachment, content)
            assert_thumbnails(attachment)
    left = [path.name for path in (place.data / "blobs").rglob("*") if path.is_file() and path.name[0] != "."]
    assert len(left) == PICTURES * (1 + len(THUMBNAILS)), "something was made twice"


def _wait(client: httpx.Client, contents: dict[str, bytes], at_least: int) -> int:
    """Wait until thumbnails of so many are made; answers of how many they are."""
    deadline = time.monotonic() + 60
    waiting = set(contents)
    while len(contents) - len(waiting) < at_least:
        assert time.monotonic() < deadline, f"{len(waiting)} of {len(contents)} are still not ready"
        for attachment_id in sorted(waiting):
            state = client.get(f"/attachments/v1/{attachment_id}").json()["state"]
            assert state in ("stored", "ready"), attachment_id
            if state == "ready":
                waiting.discard(attachment_id)
        time.sleep(0.1)
    return len(contents) - len(waiting)


def assert_thumbnails(attachment: dict[str, Any]) -> None:
    """Three, which are what they are said to be."""
    assert [thumbnail["size"] for thumbnail in attachment["thumbnails"]] == list(THUMBNAILS)
    for thumbnail in attachment["thumbnails"]:
        content = fetch(thumbnail["downloadUrl"]).content
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as picture:
            picture.load()
            assert picture.size == (thumbnail["width"], thumbnail["height"])
            assert max(picture.size) == THUMBNAILS[thumbnail["size"]]
