"""An S3 store that goes away: uploads wait, snapshots do not, and everything arrives once it is back."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.app import problem, snapshot
from tests.support.blobs import nanio_server, s3_client, s3_credentials
from tests.support.process import ServerProcess, free_port, init
from tests.support.senders import BlockSender, PutSender, Sender, TusSender, assert_whole

SIZES = (200_000, 3_000_000)
#: Longest time a caller waits for the refusal: a connection is refused at once, the rest is a busy machine.
PATIENCE_SECONDS = 8.0


class S3:
    """An S3 server that can be away for a while, at one address and on one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = ExitStack()
        self.endpoint = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._running.enter_context(nanio_server(self._folder, self._port))

    def stop(self) -> None:
        """SIGKILL."""
        self._running.close()


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3]:
    with s3_credentials():
        server = S3(tmp_path / "s3")
        server.start()
        client = s3_client(server.endpoint)
        client.create_bucket(Bucket="files")
        client.close()
        yield server
        server.stop()


@contextmanager
def sending(senders: list[Sender]) -> Iterator[None]:
    """All of them send until the end of the block, and are through with their last file after it."""
    stop = threading.Event()
    try:
        for sender in senders:
            sender.start(stop)
        yield
    finally:
        stop.set()
        for sender in senders:
            sender.join()


def sync(client: httpx.Client) -> None:
    began = time.monotonic()
    response = client.post("/jobs/v1/basicSync", content=json.dumps(snapshot()))
    assert response.status_code == 200, response.text
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_uploads_wait_while_the_store_is_away_and_all_of_them_arrive_after_it(
    start_server: Callable[..., ServerProcess], tmp_path: Path, s3: S3
) -> None:
    data = tmp_path / "data"
    created = init(data)
    server = start_server(data, blobs=f"s3://files/some?endpoint={s3.endpoint}", lease_seconds=2)
    token = server.token(created)

    def connect() -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=30)

    senders: list[Sender] = [
        kind(kind.__name__.lower(), connect, SIZES, 0.004) for kind in (PutSender, BlockSender, TusSender)
    ]
    with connect() as client:
        with sending(senders):
            time.sleep(0.7)
            s3.stop()
            for _ in range(3):
                sync(client)
                began = time.monotonic()
                refused = problem(
                    client.put("/attachments/v1/meanwhile", content=b"some bytes"), 503, "blobs-unavailable"
                )
                assert refused["retry"] == "later"
                assert time.monotonic() - began < PATIENCE_SECONDS
                # Load balancers go on sending it what does not need the store.
                assert client.get("/readyz").status_code == 200
                assert client.get("/healthz").status_code == 200
                time.sleep(0.3)
            already = {sender.name: len(sender.acknowledged) for sender in senders}
            s3.start()
            assert client.get("/readyz").status_code == 200
            sync(client)
        for sender in senders:
            assert sender.refused, f"{sender.name} was never told to come later"
            assert len(sender.acknowledged) > already[sender.name]
            for attachment_id, content in sender.sent.items():
                assert_whole(client, client.get(f"/attachments/v1/{attachment_id}").json(), content)
        assert client.get("/attachments/v1/meanwhile").status_code == 404
        assert client.put("/attachments/v1/meanwhile", content=b"other bytes").status_code == 201
