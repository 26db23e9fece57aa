"""``fieldsync demo``: a fresh server, three tablets at work over a bad network, and the proof that all agree.

The server is started as anybody would start it, by the command line in a process of its own, and the tablets
speak HTTP to it: nothing in the demo reaches around the product.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fixtures.fieldwork import IN_RANGE, Fieldwork, Member, difference, fingerprint, served_jobs
from fixtures.jobs import Document, inspection_jobs
from fixtures.network import HttpTransport
from server.settings import PREFIX

HOST = "127.0.0.1"
TEAM = "demo"
OWNER = "owner@example.com"
JOBS = 36

#: Only a folder with this file in it was made by a demo and may be replaced by the next one.
_MARKER = ".fieldsync-demo"
_LOG = "server.log"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_FAILURES_SHOWN = 20
#: Where the package is imported from, so that the child processes find the same one.
_HOME = Path(__file__).resolve().parent.parent


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


class Credentials(msgspec.Struct, rename="camel"):
    """What ``fieldsync init`` prints once."""

    team: str
    owner: str
    password: str
    client_id: str
    client_secret: str


@dataclass(frozen=True)
class Verdict:
    """What the comparison after the last sync found.

    Attributes:
        differences: one line for each job that a tablet and the server do not agree on.
        missing: completed steps and photos that the server does not show.
        restless: the tablets went on changing each other's jobs without an end.
    """

    differences: dict[str, list[str]]
    missing: list[str]
    restless: bool

    @property
    def failures(self) -> list[str]:
        """One line for everything that is wrong."""
        return [
            *(["the jobs still change after many passes"] if self.restless else []),
            *(f"missing: {item}" for item in self.missing),
            *(line for lines in self.differences.values() for line in lines),
        ]


def run(data: Path, port: int, once: bool) -> int:
    """Play the demo, then serve until interrupted.

    Args:
        data: the folder to use; one left by a former demo is replaced.
        port: the port to try first; if it is taken, or 0, a free one is used.
        once: stop after the verdict.

    Returns:
        The exit status: 0 if all devices agree with the server, 1 if not or if the demo could not run, 130 if
        it was interrupted before it knew.
    """
    # Without a terminal the width is unknown and rich would take 80.
    console = Console(width=None if sys.stdout.isatty() else 100, highlight=False)
    try:
        with _terminable():
            return _run(console, data.absolute(), port, once)
    except DemoError as error:
        console.print(f"[bold red]The demo stopped:[/] {escape(str(error))}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130


def _run(console: Console, data: Path, port: int, once: bool) -> int:
    _fresh_folder(data)
    credentials = _init(data)
    port = _free_port(port)
    base_url = f"http://{HOST}:{port}"
    with _serving(data, port) as server:
        _wait_until_ready(server, base_url, data)
        token = _token(base_url, credentials)
        fieldwork, verdict = _play(console, base_url, token)
        if once:
            return 1 if verdict.failures else 0
        _print_access(console, base_url, credentials, fieldwork.client_job_ids[0], data)
        try:
            server.wait()
        except KeyboardInterrupt:
            console.print("\nStopped.")
            return 1 if verdict.failures else 0
        raise DemoError(f"the server ended by itself; its log is {_shown(data / _LOG)}")


# The server.


def _fresh_folder(data: Path) -> None:
    if data.is_symlink() or (data.exists() and not data.is_dir()):
        raise DemoError(f"{_shown(data)} is not a folder; name another one with --data")
    if data.exists() and any(data.iterdir()):
        if not (data / _MARKER).is_file():
            raise DemoError(
                f"{_shown(data)} was not made by a demo and is left alone; name another folder with --data"
            )
        shutil.rmtree(data)
    data.mkdir(parents=True, exist_ok=True)
    (data / _MARKER).write_text("Made by the demo, which will replace this folder when it runs again.\n")


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "server.cli", *arguments]


def _environment() -> dict[str, str]:
    """Ours without any setting: the demo must not touch the database that this shell is set up for."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _init(data: Path) -> Credentials:
    done = subprocess.run(  # noqa: S603 - our own command
        _command("init", "--team", TEAM, "--owner", OWNER, "--data", str(data), "--json"),
        cwd=_HOME,
        env=_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"fieldsync init failed: {done.stderr.strip()}")
    return msgspec.json.decode(done.stdout, type=Credentials)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As the server will: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no port is free")


@contextmanager
def _serving(data: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with (data / _LOG).open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command
            _command("serve", "--host", HOST, "--port", str(port), "--data", str(data)),
            cwd=_HOME,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches the demo alone, which then stops parent and workers together.
            start_new_session=True,
        )
    try:
        yield server
    finally:
        _stop(server)


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        # The group may outlive its leader: a worker process must not stay behind on the port.
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    server.wait()


@contextmanager
def _terminable() -> Iterator[None]:
    """Being terminated, or losing the terminal, stops the server too, as an interrupt does."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _wait_until_ready(server: subprocess.Popen[bytes], base_url: str, data: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    with httpx.Client(base_url=base_url, timeout=2.0, trust_env=False) as client:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise DemoError(f"the server did not start; its log is {_shown(data / _LOG)}")
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.05)
    raise DemoError(f"the server was not ready in {_START_SECONDS:.0f} s; its log is {_shown(data / _LOG)}")


def _token(base_url: str, credentials: Credentials) -> str:
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
    }
    with httpx.Client(base_url=base_url, timeout=30.0, trust_env=False) as client:
        response = client.post("/connect/token", data=form)
    if response.status_code != 200:
        raise DemoError(f"no token: {response.status_code} {response.text}")
    return str(response.json()["access_token"])


# The tablets.


def _play(console: Console, base_url: str, token: str) -> tuple[Fieldwork, Verdict]:
    documents = inspection_jobs(JOBS)
    connections: list[HttpTransport] = []

    def connect() -> HttpTransport:
        connections.append(HttpTransport(base_url, token))
        return connections[-1]

    try:
        fieldwork = Fieldwork(connect, documents)
        console.print(
            f"Three tablets work on {JOBS} inspections, offline and over a network that loses and repeats.\n"
            "They change the same jobs and the same steps; the clock of tablet C is ten years ahead; tablet A\n"
            "aborts a job while tablet B completes it."
        )
        settled = _work(console, fieldwork)
        served = served_jobs(connect(), fieldwork.client_job_ids)
    finally:
        for connection in connections:
            connection.close()
    verdict = Verdict(
        differences={
            member.tablet.name: _differences(member, served, fieldwork) for member in fieldwork.crew
        },
        missing=fieldwork.missing(served),
        restless=not settled,
    )
    _print_result(console, fieldwork, served, verdict)
    return fieldwork, verdict


def _work(console: Console, fieldwork: Fieldwork) -> bool:
    columns = (TextColumn("{task.description:<46}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(IN_RANGE) + 1)
        for number, in_range in enumerate(IN_RANGE):
            names = ", ".join(fieldwork.crew[index].tablet.name for index in in_range)
            progress.update(task, description=f"Round {number + 1}: offline work, then {names} in range")
            fieldwork.work(number)
            fieldwork.sync(number)
            progress.advance(task)
        progress.update(task, description="Good network: everybody syncs until quiet")
        settled = fieldwork.settle()
        progress.update(task, advance=1, description="The day is over")
    return settled


def _differences(member: Member, served: Mapping[str, Document], fieldwork: Fieldwork) -> list[str]:
    tablet, lines = member.tablet, []
    for client_job_id in fieldwork.client_job_ids:
        if client_job_id not in tablet.jobs:
            lines.append(f"{client_job_id}: not held by tablet {tablet.name}")
        elif client_job_id not in served:
            lines.append(f"{client_job_id}: not shown by the server")
        elif tablet.jobs[client_job_id].unsent:
            lines.append(f"{client_job_id}: tablet {tablet.name} has edits that were not accepted")
        elif found := difference(tablet.view(client_job_id), served[client_job_id]):
            lines.append(f"{client_job_id}: {found}")
    return lines


# What is printed.


def _print_result(
    console: Console, fieldwork: Fieldwork, served: Mapping[str, Document], verdict: Verdict
) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("tablet", no_wrap=True)
    for name in (
        *("sent", "accepted", "merged", "re-\nplayed", "lost\nrequests", "lost\nreplies", "sent\ntwice"),
        *("jobs", "con-\nflicts"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("content", no_wrap=True)
    table.add_column("against\nserver", no_wrap=True)
    for member in fieldwork.crew:
        table.add_row(*_tablet_row(member, verdict))
    table.add_section()
    conflicts = sum(len(document["sync"]["conflicts"] or []) for document in served.values())
    table.add_row(
        "server", *[""] * 7, str(len(served)), str(conflicts), fingerprint(served), "", style="bold"
    )
    console.print("\n[bold]After everybody has synced[/]\n")
    console.print(table)

    aborted = served.get(fieldwork.aborted.client_job_id)
    status = aborted["metadata"]["status"] if aborted else "missing"
    console.print(
        f"{len(fieldwork.steps)} steps were completed and {len(fieldwork.photos)} photos taken on the tablets: "
        f"{len(verdict.missing) or 'none'} missing on the server.\n"
        f"The job that was aborted and completed at the same time is {status} everywhere."
    )
    if not verdict.failures:
        console.print("\n[bold green]ALL EQUAL[/]: every tablet holds exactly the server's jobs.")
        return
    console.print("\n[bold red]NOT EQUAL[/]")
    for line in verdict.failures[:_FAILURES_SHOWN]:
        console.print(f"  {line}", soft_wrap=True, markup=False)
    if (more := len(verdict.failures) - _FAILURES_SHOWN) > 0:
        console.print(f"  and {more} more; the server's log may say why")


def _tablet_row(member: Member, verdict: Verdict) -> list[str]:
    tablet, counts, network = member.tablet, member.tablet.counts, member.network.counts
    accepted = sum(counts[action] for action in ("created", "merged", "unchanged", "recorded"))
    wrong = len(verdict.differences[tablet.name])
    return [
        tablet.name,
        *(str(number) for number in (counts["sent"], accepted, counts["merged"], counts["replayed"])),
        *(str(network[name]) for name in ("lost requests", "lost replies", "duplicates")),
        str(len(tablet.jobs)),
        str(sum(len(job.sync.get("conflicts") or []) for job in tablet.jobs.values())),
        fingerprint({key: tablet.view(key) for key in tablet.jobs}),
        f"[red]{wrong} differ[/]" if wrong else "[green]equal[/]",
    ]


def _print_access(
    console: Console, base_url: str, credentials: Credentials, client_job_id: str, data: Path
) -> None:
    rows: dict[str, Any] = {
        "address": base_url,
        "team": credentials.team,
        "owner": credentials.owner,
        "password": credentials.password,
        "clientId": credentials.client_id,
        "clientSecret": credentials.client_secret,
        "data, log": f"{_shown(data)}, {_shown(data / _LOG)}",
    }
    console.print("\n[bold]The server keeps running.[/]")
    for name, value in rows.items():
        console.print(f"  {name:<13} {value}", soft_wrap=True, markup=False)
    console.print("\n[bold]Try it[/] (a token lasts an hour):\n")
    for line in _curl_lines(base_url, credentials, client_job_id):
        console.print(line, soft_wrap=True, markup=False)
    console.print("\nCtrl-C stops the server.")


def _curl_lines(base_url: str, credentials: Credentials, client_job_id: str) -> list[str]:
    read_token = "import json, sys; print(json.load(sys.stdin)['access_token'])"  # noqa: S105 - a program
    authorized = 'curl -s -H "Authorization: Bearer $TOKEN"'
    return [
        f"TOKEN=$(curl -s {base_url}/connect/token -d grant_type=client_credentials \\",
        f"  -d client_id={credentials.client_id} \\",
        f"  -d client_secret={credentials.client_secret} \\",
        f'  | python3 -c "{read_token}")',
        "",
        f"{authorized} '{base_url}/jobs/v1/?skip=0&limit=20'",
        f"{authorized} {base_url}/jobs/v1/{client_job_id}",
        f"{authorized} {base_url}/jobs/v1/snapshots/{client_job_id}",
    ]


def _shown(path: Path) -> str:
    """``path`` as the person would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
