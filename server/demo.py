"""``fieldsync demo``: a fresh server, three tablets at work over a bad network, and the proof that all agree.

Every photo they took has arrived then, and has its thumbnails; a receiver of webhooks was told of every job that
was completed, and the jobs of one workflow were mailed as a PDF.

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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx
import msgspec
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fixtures import analyst
from fixtures.album import Album
from fixtures.camera import samples
from fixtures.dispatch import Dispatch
from fixtures.fieldwork import IN_RANGE, Fieldwork, served_jobs
from fixtures.jobs import Document, inspection_jobs
from fixtures.network import HttpTransport, Transport
from fixtures.office import Office, Unexpected
from fixtures.receiver import Receiver
from fixtures.sheet import Section, Tile, contact_sheet
from fixtures.verdict import judge
from server.demo_output import Credentials, Day, print_access, print_query, print_result, shown
from server.settings import PREFIX

HOST = "127.0.0.1"
TEAM = "demo"
OWNER = "owner@example.com"
JOBS = 36

#: Only a folder with this file in it was made by a demo and may be replaced by the next one.
_MARKER = ".fieldsync-demo"
_LOG = "server.log"
_SHEET = "contact-sheet.png"
_REPORT = "report.pdf"
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
#: Making the thumbnails of one file takes a second at most.
_STILL_SECONDS = 60.0
#: Jobs whose files are listed, unless all are.
_JOBS_SHOWN = 3
_TILES_OF_A_JOB = 6
#: Where the package is imported from, so that the child processes find the same one.
_HOME = Path(__file__).resolve().parent.parent


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


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
    except (DemoError, Unexpected) as error:
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
    with Receiver() as receiver, _serving(data, port, receiver.port) as server:
        _wait_until_ready(server, base_url, data)
        token = _token(base_url, credentials)
        with connections(base_url, token) as connect:
            day = work_a_day(console, connect, receiver, data)
        print_result(console, day, data / _SHEET, jobs_shown=None if once else _JOBS_SHOWN)
        print_query(console, base_url, credentials, day.asked)
        status = 1 if day.verdict.failures else 0
        if once:
            console.print(
                f"The server has ended. It shows the same again with: "
                f"fieldsync serve --data {shown(data)} --port {port}",
                soft_wrap=True,
            )
            return status
        print_access(console, base_url, credentials, day, data, data / _LOG)
        try:
            server.wait()
        except KeyboardInterrupt:
            console.print("\nStopped.")
            return status
        raise DemoError(f"the server ended by itself; its log is {shown(data / _LOG)}")


# The server.


def _fresh_folder(data: Path) -> None:
    if data.is_symlink() or (data.exists() and not data.is_dir()):
        raise DemoError(f"{shown(data)} is not a folder; name another one with --data")
    if data.exists() and any(data.iterdir()):
        if not (data / _MARKER).is_file():
            raise DemoError(
                f"{shown(data)} was not made by a demo and is left alone; name another folder with --data"
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
def _serving(data: Path, port: int, receiver_port: int) -> Iterator[subprocess.Popen[bytes]]:
    # Webhooks go to public addresses only; the receiver of the demo is on this machine.
    receiving = {"WEBHOOK_NETWORKS": "127.0.0.0/8", "WEBHOOK_PORTS": f"443,{receiver_port}"}
    with (data / _LOG).open("wb") as log:
        server = subprocess.Popen(  # noqa: S603 - our own command
            _command("serve", "--host", HOST, "--port", str(port), "--data", str(data)),
            cwd=_HOME,
            env={**_environment(), **{PREFIX + name: value for name, value in receiving.items()}},
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
                raise DemoError(f"the server did not start; its log is {shown(data / _LOG)}")
            try:
                if client.get("/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.05)
    raise DemoError(f"the server was not ready in {_START_SECONDS:.0f} s; its log is {shown(data / _LOG)}")


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


@contextmanager
def connections(base_url: str, token: str) -> Iterator[Callable[[], Transport]]:
    """Makes connections to the server, and closes them at the end."""
    opened: list[HttpTransport] = []

    def connect() -> HttpTransport:
        opened.append(HttpTransport(base_url, token))
        return opened[-1]

    try:
        yield connect
    finally:
        for connection in opened:
            connection.close()


def work_a_day(
    console: Console, connect: Callable[[], Transport], receiver: Receiver, data: Path, jobs: int = JOBS
) -> Day:
    """Let the tablets work and send everything, wait for thumbnails and deliveries, compare, and ask what was done.

    Args:
        receiver: where webhooks are sent.
        data: the server's data folder; a contact sheet and a report are written there.
    """
    console.print(
        f"Three tablets work on {jobs} inspections, offline and over a network that loses and repeats.\n"
        "They change the same jobs and the same steps; the clock of tablet C is ten years ahead; tablet A\n"
        "aborts a job while tablet B completes it. They photograph as they go, and send in every format that\n"
        "phones and cameras make what the server says it still misses."
    )
    with console.status("The first photos are taken"):
        pictures = samples()
    connection, documents = connect(), inspection_jobs(jobs)
    office = Office(connection)
    with console.status("The office uploads workflows and a list of sites, and plans jobs"):
        try:
            office.prepare(documents)
            fieldwork = Fieldwork(connect, documents, samples=pictures)
            dispatch = Dispatch(connection, receiver)
            # Of this workflow one job is completed for certain.
            title = fieldwork.completed.opening["metadata"]["workflowName"]
            workflow_id, _ = office.workflows[title]
            dispatch.prepare(title, workflow_id)
        except Unexpected as error:
            raise DemoError(f"the office cannot prepare the day: {error}") from None
    album = Album(connection, fieldwork.client_job_ids)
    columns = (TextColumn("{task.description:<46}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        _work(progress, fieldwork)
        _wait_for_thumbnails(progress, album, len(fieldwork.held))
        # That its last file has come changes a job.
        settled = fieldwork.settle()
        served = served_jobs(connection, fieldwork.client_job_ids)
        untold = _wait_for_deliveries(progress, dispatch, served)
    _contact_sheet(album, fieldwork, served).save(data / _SHEET)
    dispatch.keep_a_report(data / "mail", data / _REPORT)
    verdict = judge(fieldwork, served, album, settled, office.look(served), untold)
    return Day(fieldwork, served, album, office, dispatch, verdict, analyst.ask(connection))


def _work(progress: Progress, fieldwork: Fieldwork) -> None:
    task = progress.add_task("", total=len(IN_RANGE) + 1)
    for number, in_range in enumerate(IN_RANGE):
        names = ", ".join(fieldwork.crew[index].tablet.name for index in in_range)
        progress.update(task, description=f"Round {number + 1}: offline work, then {names} in range")
        fieldwork.work(number)
        fieldwork.sync(number)
        progress.advance(task)
    progress.update(task, description="Good network: everybody syncs and sends the rest")
    fieldwork.settle()
    fieldwork.deliver()
    progress.update(task, advance=1, description="The day is over")


def _wait_for_thumbnails(progress: Progress, album: Album, held: int) -> None:
    """Until all are made, or nothing has happened for a while; the verdict says what is not there."""
    task = progress.add_task("Thumbnails made", total=held)
    last, deadline = -1, 0.0
    while True:
        album.refresh()
        progress.update(task, completed=album.over, total=max(album.total, 1))
        if album.finished:
            return
        now = time.monotonic()
        state = album.over - len(album.incomplete)
        if state != last:
            last, deadline = state, now + _STILL_SECONDS
        elif now > deadline:
            progress.console.print(
                f"[red]Nothing has become ready for {_STILL_SECONDS:.0f} s[/]: {album.total - album.over} of "
                f"{album.total} files have no thumbnails, {len(album.incomplete)} jobs have not got all files."
            )
            return
        time.sleep(0.25)


def _wait_for_deliveries(progress: Progress, dispatch: Dispatch, served: Mapping[str, Document]) -> list[str]:
    task = progress.add_task("Webhooks and mails with reports delivered", total=None)

    def tell(over: int, of: int) -> None:
        progress.update(task, completed=over, total=max(of, 1))

    return dispatch.wait(served, tell)


def _contact_sheet(album: Album, fieldwork: Fieldwork, served: Mapping[str, Document]) -> Image.Image:
    """One thumbnail of every kind of file, then the first ones of some jobs."""
    held, kinds = fieldwork.held, dict[str, Tile]()
    jobs: list[Section] = []
    for client_job_id, files in album.files.items():
        ready = [
            file["attachmentId"] for file in files if file["attachmentId"] in held and file["thumbnails"]
        ]
        for attachment_id in ready:
            sample = held[attachment_id].sample
            if sample.kind not in kinds and (picture := album.thumbnail(attachment_id)) is not None:
                label = f"{sample.content_type}, {len(sample.content) / 1000:.0f} KB"
                kinds[sample.kind] = Tile(label, picture)
        if len(jobs) < _JOBS_SHOWN and len(ready) >= _TILES_OF_A_JOB and client_job_id in served:
            pictures = ((each, album.thumbnail(each)) for each in ready[:_TILES_OF_A_JOB])
            tiles = [Tile(held[each].file_name, picture) for each, picture in pictures if picture is not None]
            workflow = served[client_job_id]["metadata"]["workflowName"]
            title = f"{workflow}, job {client_job_id}: {len(tiles)} of {len(files)} files"
            jobs.append(Section(title, tiles))
    every = [kinds[sample.kind] for sample in samples() if sample.kind in kinds]
    return contact_sheet(
        "Thumbnails made by the server", [Section("One file of every kind that was sent", every), *jobs]
    )
