"""Devices that break off, crawl or send bombs: the server keeps its memory, and whoever comes next is served."""

import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from fixtures.pictures import drawing, jpeg
from tests.support.process import ServerProcess, init, serve
from tests.support.senders import assert_whole, fetch

MB = 1024 * 1024
DEVICES = 60
CRAWLING = 20
GROWTH_MB = 30.0


class Served:
    """A server, and a client of its team."""

    def __init__(self, server: ServerProcess, token: str) -> None:
        self.server = server
        self.token = token
        self.client = server.connect(token)
        self.blobs = Path()

    def begin(self, method: str, path: str, announced: int, first: bytes, *headers: str) -> socket.socket:
        """A connection on which a request's body is begun."""
        connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=20)
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {self.token}",
            f"Content-Length: {announced}",
            *headers,
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + first)
        return connection

    def open_upload(self, attachment_id: str, size: int, block_size: int) -> str:
        asked = {"attachmentId": attachment_id, "fileSize": size, "blockSize": block_size}
        answer = self.client.post("/attachments/v1/upload", content=json.dumps(asked))
        assert answer.status_code == 200, answer.text
        return f"/attachments/v1/upload/{answer.json()['id']}"

    def works(self, attachment_id: str) -> None:
        """A file is taken, and soon."""
        began = time.monotonic()
        content = attachment_id.encode() * 10_000
        assert self.client.put(f"/attachments/v1/{attachment_id}", content=content).status_code == 201
        assert_whole(self.client, self.client.get(f"/attachments/v1/{attachment_id}").json(), content)
        assert time.monotonic() - began < 5

    def nothing_half_written(self) -> None:
        """What was begun on the disk is removed."""
        deadline = time.monotonic() + 10
        while left := list(self.blobs.glob(".incoming-*")):
            assert time.monotonic() < deadline, f"{len(left)} files are left over"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    created = init(folder / "data")
    server = serve(folder, folder / "data", lease_seconds=2)
    with ExitStack() as ending:
        ending.callback(server.kill)
        running = Served(server, server.token(created))
        ending.enter_context(running.client)
        running.blobs = folder / "data" / "blobs"
        # What every process does once is no growth.
        for number in range(8):
            running.client.put(f"/attachments/v1/warm-{number}", content=bytes(4 * MB) + bytes([number]))
        running.works("warm")
        yield running


def break_off(connection: socket.socket, abruptly: bool) -> None:
    if abruptly:  # a reset instead of a proper end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_devices_that_break_off_in_a_file_leave_nothing_behind(served: Served) -> None:
    before = served.server.memory_mb()
    for number in range(DEVICES):
        connection = served.begin("PUT", f"/attachments/v1/cut-{number}", 20 * MB, bytes(3 * MB))
        break_off(connection, abruptly=number % 2 == 0)
    served.nothing_half_written()
    served.works("after-put")
    assert served.client.get("/attachments/v1/cut-1").status_code == 404
    assert served.client.put("/attachments/v1/cut-1", content=b"whole").status_code == 201
    assert served.server.memory_mb() - before < GROWTH_MB


def test_devices_that_break_off_in_a_block_lose_that_block_and_no_other(served: Served) -> None:
    before = served.server.memory_mb()
    size, block = 24 * MB, 8 * MB
    path = served.open_upload("blocks", size, block)
    content = bytes(range(256)) * (size // 256)

    def send(start: int) -> int:
        said = {"Content-Range": f"bytes {start}-{start + block - 1}/{size}"}
        return served.client.post(path, content=content[start : start + block], headers=said).status_code

    assert send(block) == 202
    for number in range(DEVICES // 2):
        said = f"Content-Range: bytes 0-{block - 1}/{size}"
        connection = served.begin("POST", path, block, content[: 5 * MB], said)
        break_off(connection, abruptly=number % 2 == 0)
    served.nothing_half_written()
    assert served.client.get(path).json()["received"] == [{"start": block, "end": 2 * block - 1}]
    assert (send(0), send(2 * block)) == (202, 204)
    assert_whole(served.client, served.client.get("/attachments/v1/blocks").json(), content)
    assert served.server.memory_mb() - before < GROWTH_MB


def test_devices_that_crawl_hold_up_nobody(served: Served) -> None:
    before = served.server.memory_mb()
    with ExitStack() as crawling:
        for number in range(CRAWLING):
            connection = served.begin("PUT", f"/attachments/v1/slow-{number}", 20 * MB, bytes(900_000))
            crawling.enter_context(closing(connection))
        served.works("meanwhile")
        for connection in [served.begin("PUT", "/attachments/v1/last", 10, b"first") for _ in range(3)]:
            crawling.enter_context(closing(connection))
            connection.sendall(b"other")
            assert b" 20" in connection.recv(100)
    served.nothing_half_written()
    served.works("after-crawling")
    assert served.server.memory_mb() - before < GROWTH_MB


def bomb(side: int = 12_000) -> bytes:
    """A PNG of 144 million white pixels in some hundred KB."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packed = zlib.compressobj(1)
    rows = b"".join(packed.compress(b"\0" + b"\xff" * side) for _ in range(side)) + packed.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", rows) + part(b"IEND", b"")


def test_a_bomb_among_pictures_fails_and_the_pictures_do_not(served: Served) -> None:
    picture = jpeg(drawing())
    contents = {f"good-{number}": picture + bytes([number]) for number in range(20)}
    contents = dict(list(contents.items())[:10]) | {"bomb": bomb()} | dict(list(contents.items())[10:])
    for attachment_id, content in contents.items():
        assert served.client.put(f"/attachments/v1/{attachment_id}", content=content).status_code == 201
    deadline = time.monotonic() + 60
    found: dict[str, dict[str, object]] = {}
    while len(found) < len(contents):
        assert time.monotonic() < deadline, f"{set(contents) - set(found)} never came to an end"
        for attachment_id in contents.keys() - found.keys():
            attachment = served.client.get(f"/attachments/v1/{attachment_id}").json()
            if attachment["state"] != "stored":
                found[attachment_id] = attachment
        time.sleep(0.2)
    assert {name for name, attachment in found.items() if attachment["state"] != "ready"} == {"bomb"}
    failed = found["bomb"]
    assert failed["state"] == "failed"
    assert failed["failure"]
    assert failed["thumbnails"] == []
    assert_whole(served.client, failed, contents["bomb"])
    for attachment_id in contents.keys() - {"bomb"}:
        thumbnails = found[attachment_id]["thumbnails"]
        assert isinstance(thumbnails, list)
        assert len(thumbnails) == 3
        assert fetch(thumbnails[0]["downloadUrl"]).content[:3] == b"\xff\xd8\xff"
    served.works("after-the-bomb")
