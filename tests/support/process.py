"""A real server: its own process, its own port, and a group of processes that can be killed at once."""

import atexit
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import httpx

_START_SECONDS = 40.0


def command(name: str = "fieldsync") -> str:
    """The path of a command installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with exactly these settings of ours."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FIELDSYNC_")}
    return clean | {f"FIELDSYNC_{key.upper()}": str(value) for key, value in settings.items()}


def free_port() -> int:
    """A port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def init(data: Path, team: str = "alpha", owner: str = "owner@alpha.example") -> dict[str, str]:
    """Set up a team in a data folder with the command, and answer what it prints.

    The command is run once for each team: it takes two seconds, and the folders differ in nothing that matters to
    those who ask for a team.
    """
    if (data / "fieldsync.db").exists():
        return _init(data, team, owner)
    folder, printed = _initialized(team, owner)
    shutil.copytree(folder, data, dirs_exist_ok=True)
    return dict(printed)


@cache
def _initialized(team: str, owner: str) -> tuple[Path, dict[str, str]]:
    folder = Path(tempfile.mkdtemp(prefix="fieldsync-team-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, _init(folder, team, owner)


def _init(data: Path, team: str, owner: str) -> dict[str, str]:
    done = subprocess.run(
        [command(), "init", "--team", team, "--owner", owner, "--data", str(data), "--json"],
        capture_output=True,
        check=True,
        env=environment(),
        timeout=60,
    )
    return dict(json.loads(done.stdout))


class ServerProcess:
    """A server that answers on ``url`` until it is stopped or killed.

    Args:
        arguments: the command line; every ``{port}`` in it is filled in.
        folder: the folder it is started in.
        settings: settings by name, as environment variables.
    """

    def __init__(
        self, arguments: Sequence[str], folder: Path, settings: dict[str, object], port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = (folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            [argument.format(port=self.port) for argument in arguments],
            cwd=folder,
            env=environment(port=self.port, **settings),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Return once the server says that it can work."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                # Reading the list of TLS authorities for each attempt would slow down what it waits for.
                if httpx.get(f"{self.url}/readyz", trust_env=False, verify=False, timeout=5).is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.03)
        log = Path(self._log.name).read_text(errors="replace")[-4000:]
        self.kill()
        raise AssertionError(f"the server did not get ready:\n{log}")

    def kill(self) -> None:
        """SIGKILL for every process of the server, as if the machine had lost its power.

        Returns once they are gone: the one that serves is a child, which nobody but its parent can wait for.
        """
        self._signal(signal.SIGKILL)
        self._process.wait(timeout=10)
        self._log.close()
        deadline = time.monotonic() + 5
        while listening(self.port) and time.monotonic() < deadline:
            time.sleep(0.005)

    def stop(self) -> None:
        """Ask it to end; insist if it does not."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def memory_mb(self) -> float:
        """What the processes of the server take, MB: memory that they share is counted once."""
        total = 0
        for pid in _descendants(self._process.pid):
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:  # ended meanwhile
                continue
            found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
            total += int(found[1]) if found else 0
        return total / 1024

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def token(self, created: dict[str, str]) -> str:
        """An access token for the client that ``init`` made."""
        form = {
            "grant_type": "client_credentials",
            "client_id": created["clientId"],
            "client_secret": created["clientSecret"],
        }
        response = httpx.post(f"{self.url}/connect/token", data=form, trust_env=False, timeout=30)
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def connect(self, token: str) -> httpx.Client:
        """A connection with this token. The environment's proxies are not for a server on this machine."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30)


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        # A child belongs to the thread that made it.
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in children.read_text().split())
            except OSError:
                continue
    return found


def listening(port: int) -> bool:
    """Whether anything answers on a port of this machine."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def serve(folder: Path, data: Path, **options: Any) -> ServerProcess:
    """Start ``fieldsync serve``; ready when this returns."""
    port = options.pop("port", None)
    arguments = [command(), "serve", "--port", "{port}", "--data", str(data)]
    server = ServerProcess(arguments, folder, {"log_level": "warning", **options}, port)
    server.wait_until_ready()
    return server
