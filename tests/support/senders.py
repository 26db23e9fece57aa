"""Devices that send files in each of the ways there are, over a line and to a server that fail all the time.

Each sends one file after the other, and each request again until it is answered. On the way they check the
promise of an upload: what the server acknowledged, it still has.
"""

import base64
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

MORE_SECONDS = 60.0
_PIECE = 32 * 1024
#: The answers after which the same request is sent again; each must say so itself.
_LATER = (408, 503)

Connect = Callable[[], httpx.Client]


class Sender:
    """Sends files of random bytes, and knows of every file what it must be.

    Args:
        connect: makes a connection with a token.
        sizes: the smallest and the largest file.
        pause: seconds between two pieces of a body, so that there is a time in which it is half there.
    """

    def __init__(
        self, name: str, connect: Connect, sizes: tuple[int, int], pause: float = 0.0, seed: int = 1
    ) -> None:
        self.name = name
        self.sent: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        self.unanswered = 0
        self.refused = 0
        self.failure: BaseException | None = None
        self._connect = connect
        self._sizes = sizes
        self._pause = pause
        self._generator = random.Random(f"{name} {seed}")
        self._deadline = float("inf")
        self._thread: threading.Thread | None = None

    def start(self, stop: threading.Event, at_least: int = 1) -> None:
        """Send until ``stop``; the file that is begun is sent to its end."""
        self._thread = threading.Thread(target=self._work, args=(stop, at_least), name=self.name)
        self._thread.start()

    def join(self) -> None:
        """Wait for the last file. What went wrong is raised here."""
        assert self._thread is not None
        self._thread.join(timeout=MORE_SECONDS + 30)
        if self.failure is not None:
            raise self.failure
        assert self.acknowledged == set(self.sent), self.name

    def _work(self, stop: threading.Event, at_least: int) -> None:
        try:
            with self._connect() as client:
                while not stop.is_set() or len(self.sent) < at_least:
                    content = self._generator.randbytes(self._generator.randint(*self._sizes))
                    attachment_id = f"{self.name}-{len(self.sent)}"
                    self.sent[attachment_id] = content
                    self._deadline = time.monotonic() + MORE_SECONDS
                    self.send(client, attachment_id, content)
                    self.acknowledged.add(attachment_id)
        except BaseException as error:
            self.failure = error

    def send(self, client: httpx.Client, attachment_id: str, content: bytes) -> None:
        raise NotImplementedError

    def once(self, request: Callable[[], httpx.Response]) -> httpx.Response | None:
        """The answer, or None if there was none or it was to come again later."""
        assert time.monotonic() < self._deadline, f"{self.name} never got its file through"
        try:
            response = request()
        except httpx.TransportError:
            self.unanswered += 1
            time.sleep(0.02)
            return None
        if response.status_code in _LATER:
            assert response.json()["retry"] == "later", response.text
            assert int(response.headers["retry-after"]) >= 1
            self.refused += 1
            time.sleep(0.05)
            return None
        assert response.status_code < 300, f"{self.name}: {response.status_code} {response.text}"
        return response

    def again(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """The answer to a request that is repeated until there is one."""
        while (response := self.once(request)) is None:
            pass
        return response

    def trickle(self, content: bytes) -> Iterator[bytes]:
        """``content`` bit by bit."""
        for start in range(0, len(content), _PIECE):
            if self._pause:
                time.sleep(self._pause)
            yield content[start : start + _PIECE]


class PutSender(Sender):
    """One request for each file."""

    def send(self, client: httpx.Client, attachment_id: str, content: bytes) -> None:
        headers = {
            "Content-Length": str(len(content)),
            "X-Content-SHA256": hashlib.sha256(content).hexdigest(),
        }
        path = f"/attachments/v1/{attachment_id}"
        answer = self.again(lambda: client.put(path, content=self.trickle(content), headers=headers)).json()
        assert (answer["size"], answer["state"]) == (len(content), answer["state"])


class BlockSender(Sender):
    """Blocks in any order."""

    block_size = 128 * 1024

    def send(self, client: httpx.Client, attachment_id: str, content: bytes) -> None:
        asked = {
            "attachmentId": attachment_id,
            "fileSize": len(content),
            "blockSize": self.block_size,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        session = self.again(lambda: client.post("/attachments/v1/upload", json=asked)).json()
        # Here the whole file may have arrived under this id in a session that was forgotten about.
        path = f"/attachments/v1/upload/{session['id']}"
        wanted = list(range(0, len(content), self.block_size))
        self._generator.shuffle(wanted)
        kept: list[tuple[int, int]] = []
        while True:
            complete = self._round(client, path, content, wanted, kept)
            if complete:
                return
            session = self.again(lambda: client.get(path)).json()
            received = [(part["start"], part["end"] + 1) for part in session["received"]]
            for start, stop in kept:
                inside = any(low <= start and stop <= high for low, high in received)
                assert inside, f"{start} to {stop} was acknowledged; the server has {received}"
            if session["complete"]:
                return
            wanted = [
                start
                for start in wanted
                if not any(low <= start and self._stop(start, content) <= high for low, high in received)
            ] or wanted[-1:]

    def _stop(self, start: int, content: bytes) -> int:
        return min(start + self.block_size, len(content))

    def _round(
        self,
        client: httpx.Client,
        path: str,
        content: bytes,
        wanted: list[int],
        kept: list[tuple[int, int]],
    ) -> bool:
        """Send blocks until one is not answered; whether the file is complete."""
        for start in wanted:
            block = content[start : self._stop(start, content)]
            headers = {
                "Content-Range": f"bytes {start}-{start + len(block) - 1}/{len(content)}",
                "Content-Length": str(len(block)),
            }
            response = self.once(
                lambda block=block, headers=headers: client.post(  # type: ignore[misc]
                    path, content=self.trickle(block), headers=headers
                )
            )
            if response is None:
                return False
            kept.append((start, start + len(block)))
            if response.status_code == 204:
                return True
        return False


class TusSender(Sender):
    """tus in requests of 256 KB."""

    request_size = 256 * 1024

    def send(self, client: httpx.Client, attachment_id: str, content: bytes) -> None:
        tus = {"Tus-Resumable": "1.0.0"}
        encoded = base64.b64encode(attachment_id.encode()).decode()
        create = {**tus, "Upload-Length": str(len(content)), "Upload-Metadata": f"attachmentId {encoded}"}
        path = self.again(lambda: client.post("/attachments/v1/tus", headers=create)).headers["location"]
        offset = 0
        while offset < len(content):
            piece = content[offset : offset + self.request_size]
            headers = {
                **tus,
                "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream",
                "Content-Length": str(len(piece)),
            }
            response = self.once(
                lambda piece=piece, headers=headers: client.patch(  # type: ignore[misc]
                    path, content=self.trickle(piece), headers=headers
                )
            )
            if response is None:
                response = self.again(lambda: client.head(path, headers=tus))
            known = int(response.headers["upload-offset"])
            assert known >= offset, f"{offset} was acknowledged; the server has {known}"
            offset = known


class Watcher:
    """Looks at the files of all senders while they arrive: one that is stored is whole."""

    def __init__(self, senders: list[Sender], connect: Connect) -> None:
        self.looks = 0
        self.failure: BaseException | None = None
        self._senders = senders
        self._connect = connect
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watcher")
        self._thread.start()

    def join(self) -> None:
        self._done.set()
        self._thread.join(timeout=30)
        if self.failure is not None:
            raise self.failure

    def _work(self) -> None:
        try:
            with self._connect() as client:
                while not self._done.wait(0.02):
                    for sender in self._senders:
                        for attachment_id, content in list(sender.sent.items())[-2:]:
                            self._look(client, attachment_id, content)
        except BaseException as error:
            self.failure = error

    def _look(self, client: httpx.Client, attachment_id: str, content: bytes) -> None:
        try:
            response = client.get(f"/attachments/v1/{attachment_id}")
            if response.status_code != 200 or response.json()["state"] in ("missing", "receiving"):
                return
            assert_whole(client, response.json(), content)
        except httpx.TransportError:
            return
        self.looks += 1


def fetch(address: str) -> httpx.Response:
    """What is at a signed address, asked for without a token."""
    # Nothing here speaks TLS, and reading the list of its authorities takes longer than the request.
    return httpx.get(address, trust_env=False, verify=False, timeout=30)


def assert_whole(client: httpx.Client, attachment: dict[str, Any], content: bytes) -> None:
    """What the server says of a file, and what it gives for it, is ``content``."""
    name = attachment["attachmentId"]
    assert attachment["state"] in ("stored", "ready", "failed"), attachment
    assert attachment["size"] == len(content), name
    assert attachment["sha256"] == hashlib.sha256(content).hexdigest(), name
    response = fetch(attachment["downloadUrl"])
    if response.status_code == 503:
        return  # the store of files is away; somebody looks again
    assert response.status_code == 200, f"{name}: {response.status_code}"
    assert response.content == content, name
