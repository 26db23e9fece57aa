"""Starting servers, loading them with wrk, reading their memory."""

import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass
class Server:
    """A running server."""

    url: str
    token: str
    data: Path
    process: subprocess.Popen[bytes]

    def memory_mb(self) -> float:
        """Proportional set size of the server's processes, MB: shared pages counted once."""
        total = 0
        for pid in _descendants(self.process.pid):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            total += int(found[1]) if found else 0
        return round(total / 1024, 1)

    def cpu_seconds(self) -> float:
        """What the processes have taken of the processor since they began."""
        total = 0
        for pid in _descendants(self.process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """The largest resident size that any of the processes has had, MB."""
        peaks = [0]
        for pid in _descendants(self.process.pid):
            found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            peaks.append(int(found[1]) if found else 0)
        return round(max(peaks) / 1024, 1)


class Growth:
    """How much a server's memory grows while something is done: the peak, looked at all the time, less what
    it was before. A context manager; ``mb`` is known after it."""

    def __init__(self, server: Server) -> None:
        self.mb = 0.0
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Growth":
        self._before = self._peak = self._server.memory_mb()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.mb = round(max(self._peak, self._server.memory_mb()) - self._before, 1)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self._peak = max(self._peak, self._server.memory_mb())


def machine() -> str:
    """The machine's shape: cores, memory, interpreter; never its name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def initialise(data: Path, environment: dict[str, str]) -> dict[str, str]:
    """A fresh installation with one team; answers its secrets."""
    command = [sys.executable, "-m", "server.cli"]
    text = subprocess.run(
        [*command, "init", "--team", "bench", "--owner", "owner@example.com", "--data", str(data), "--json"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env=environment,
    ).stdout
    created: dict[str, str] = json.loads(text)
    return created


@contextmanager
def serving(
    data: Path, secrets: dict[str, str], environment: dict[str, str], target: str = "", bare: bool = False
) -> Iterator[Server]:
    """A server on ``data``; ``target`` serves another application than the product's (``bare``: one
    without its routes)."""
    port = free_port()
    environment = {**environment, "FIELDSYNC_LOG_LEVEL": "warning"}
    if target:
        environment.update(FIELDSYNC_DATA=str(data), FIELDSYNC_PORT=str(port))
        command = [
            *(sys.executable, "-m", "granian", target, "--interface", "asgi"),
            *("--port", str(port), "--loop", "uvloop", "--no-ws", "--log-level", "warning"),
            *(() if bare else ("--factory",)),
        ]
    else:
        command = [sys.executable, "-m", "server.cli", "serve", "--port", str(port), "--data", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(100):
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield Server(url, "none" if bare else token(url, secrets, "workflow.execute"), data, process)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def token(url: str, secrets: dict[str, str], scope: str) -> str:
    """An access token of the client that :func:`initialise` made."""
    answer = httpx.post(
        f"{url}/connect/token",
        data={
            "grant_type": "client_credentials",
            "client_id": secrets["clientId"],
            "client_secret": secrets["clientSecret"],
            "scope": scope,
        },
    ).raise_for_status()
    granted: str = answer.json()["access_token"]
    return granted


def load(
    server: Server, connections: int, seconds: int, *script: str, lua: str = "sync.lua"
) -> dict[str, Any]:
    """Load ``server`` with wrk and a script beside this file; answers its figures, latencies in ms."""
    wrk = shutil.which("wrk")
    if wrk is None:
        sys.exit("The benchmark needs wrk: apt-get install wrk")
    text = subprocess.run(
        [
            *(wrk, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
            *("-s", str(HERE / lua), server.url, "--", server.token, *script),
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"^RESULT (.*)$", text, re.MULTILINE)
    if found is None:
        sys.exit(f"wrk printed no result:\n{text}")
    figures: dict[str, Any] = json.loads(found[1])
    figures["rate"] = round(figures["requests"] / figures["seconds"])
    figures["connections"] = connections
    return figures


def clean_environment(**extra: str) -> dict[str, str]:
    """This environment without settings of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FIELDSYNC_")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder on the disk that holds the repository, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fieldsync-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        # A child belongs to the thread that made it.
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):  # the thread or the process ended meanwhile
                found.extend(int(child) for child in children.read_text().split())
    return found
