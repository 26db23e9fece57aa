"""`fieldsync serve` on SIGTERM: requests are finished, background work is handed back, and it ends in time."""

import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.support.process import ServerProcess, command, environment, free_port, init, serve
from tests.support.smtp import MailServer, mail_server

#: What units and the compose file allow.
LIMIT_SECONDS = 30.0
OWNER = "owner@alpha.example"


class Upload(threading.Thread):
    """A file that comes slowly, over a line that is not cut before its end."""

    def __init__(self, server: ServerProcess, token: str, seconds: float) -> None:
        super().__init__()
        self._pieces = int(seconds * 10)
        self._connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        self._connection.sendall(
            f"PUT /attachments/v1/slow HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {100 * self._pieces}\r\n\r\n".encode()
        )
        self.answer = b""

    def run(self) -> None:
        try:
            for _ in range(self._pieces):
                self._connection.sendall(b"x" * 100)
                time.sleep(0.1)
            self.answer = self._connection.recv(1000)
        except OSError:
            self.answer = b"cut off"
        finally:
            self._connection.close()


@pytest.fixture
def mails(tmp_path: Path) -> Iterator[MailServer]:
    """A mail server that takes a mail and never says so."""
    with mail_server(tmp_path) as server:
        server.on_data = "hang"
        yield server


def end(server: ServerProcess) -> float:
    """SIGTERM as systemd sends it with KillMode=mixed: to the main process. Answers how long it took."""
    began = time.monotonic()
    os.kill(server._process.pid, signal.SIGTERM)
    server._process.wait(timeout=LIMIT_SECONDS)
    return time.monotonic() - began


def test_a_request_under_way_is_finished_and_no_other_is_begun(tmp_path: Path) -> None:
    created = init(tmp_path / "data")
    server = serve(tmp_path, tmp_path / "data")
    try:
        upload = Upload(server, server.token(created), 4)
        upload.start()
        time.sleep(1)
        end(server)
        upload.join()
        assert upload.answer.startswith(b"HTTP/1.1 201"), upload.answer
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
    finally:
        server.kill()


def test_a_task_is_handed_back_although_a_request_does_not_end(tmp_path: Path, mails: MailServer) -> None:
    created = init(tmp_path / "data")
    server = serve(tmp_path, tmp_path / "data", smtp_url=f"smtp://127.0.0.1:{mails.port}")
    try:
        asked = httpx.post(f"{server.url}/account/forgotten", data={"account": OWNER}, trust_env=False)
        assert asked.is_success, asked.text
        upload = Upload(server, server.token(created), 60)
        upload.start()
        deadline = time.monotonic() + 20
        while task(tmp_path)[0] != "running":
            assert time.monotonic() < deadline, task(tmp_path)
            time.sleep(0.05)
        end(server)
        upload.join()
        assert upload.answer == b"cut off"
        # Not in the hands of a process that is gone, and not failed: whoever comes next takes it at once.
        assert task(tmp_path) == ("retry", 0)
    finally:
        server.kill()


def test_a_server_that_is_stopped_while_it_starts_ends_as_one_that_was_told_to(tmp_path: Path) -> None:
    init(tmp_path / "data")
    process = subprocess.Popen(
        [command(), "serve", "--data", str(tmp_path / "data"), "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        told = ""
        while "Spawning worker" not in told:
            line = process.stdout.readline()
            assert line, told
            told += line
        time.sleep(0.3)  # it is started, and does not listen for signals yet
        process.send_signal(signal.SIGTERM)
        told += process.communicate(timeout=LIMIT_SECONDS)[0]
        assert "Unexpected exit" not in told
        assert process.returncode == 0, told
    finally:
        process.kill()


def task(folder: Path) -> tuple[str, int]:
    """The state of the one task, and how many attempts at it count."""
    with closing(sqlite3.connect(folder / "data" / "fieldsync.db")) as connection:
        rows = connection.execute("SELECT state, attempts FROM tasks").fetchall()
    return (str(rows[0][0]), int(rows[0][1])) if rows else ("", 0)
