"""Files: what large ones take of the server's memory, how many small ones it takes a second, a large archive.

Growth of memory is the peak while it is done less what it was before, of all processes of the server, shared
pages counted once. Client and server share the machine, and every byte sent is hashed on both sides.

Run with ``make bench-files``; ``python -m benchmarks.bench_files --help`` lists the options.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import httpx

from benchmarks.harness import (
    HERE,
    Growth,
    Server,
    clean_environment,
    free_port,
    initialise,
    load,
    machine,
    scratch,
    serving,
)
from fixtures.pictures import jpeg, photo

MB = 1024 * 1024
BLOCK = 8 * MB
SMALL = 50_000
CONNECTIONS = 16
_S3 = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret"}

Row = dict[str, Any]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=500, help="size of the large file")
    parser.add_argument("--photos", type=int, default=2000, help="files in the archive")
    parser.add_argument("--pictures", type=int, default=60, help="12 MP pictures that get thumbnails")
    parser.add_argument("--seconds", type=int, default=5, help="length of one load of small files")
    parser.add_argument("--rounds", type=int, default=3, help="loads of small files; the median counts")
    options = parser.parse_args()
    results: dict[str, list[Row]] = {"large": [], "small": [], "archive": [], "thumbnails": []}
    results["small"].append({"store": "bare files", **_bare_files()})
    for store in ("folder", "S3"):
        with scratch() as folder, _store(store, folder) as environment:
            secrets = initialise(folder / "data", environment)
            # A server of its own for each: memory that one has made it take would hide the next one's growth.
            for way in (_blocks, _tus):
                with _server(folder, secrets, environment) as (server, client):
                    results["large"] += _note(_large(store, server, client, way, options.megabytes))
            with _server(folder, secrets, environment) as (server, client):
                results["archive"] += _note([_archive(store, server, client, options.photos)])
                if store == "folder":
                    results["thumbnails"] += _note([_thumbnails(server, client, options.pictures)])
            environment["FIELDSYNC_WORKER"] = "none"  # what intake alone costs
            with serving(folder / "data", secrets, environment) as server:
                results["small"] += _note([_small(store, server, folder, options)])
    _report(results, options)


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a server that keeps its files there."""
    if kind == "folder":
        yield clean_environment()
        return
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    (folder / "s3").mkdir()
    nanio = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "nanio"), "serve", "--host", "127.0.0.1"),
            *("--port", str(port), "--data-dir", str(folder / "s3"), "--log-level", "warning"),
        ],
        env={
            **clean_environment(),
            "NANIO_ACCESS_KEY": _S3["AWS_ACCESS_KEY_ID"],
            "NANIO_SECRET_KEY": _S3["AWS_SECRET_ACCESS_KEY"],
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=_S3["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=_S3["AWS_SECRET_ACCESS_KEY"],
        )
        for _ in range(100):
            try:
                httpx.get(endpoint)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        client.create_bucket(Bucket="bench")
        client.close()
        yield clean_environment(FIELDSYNC_BLOBS=f"s3://bench/files?endpoint={endpoint}", **_S3)
    finally:
        nanio.kill()
        nanio.wait()


@contextmanager
def _server(
    folder: Path, secrets: dict[str, str], environment: dict[str, str]
) -> Iterator[tuple[Server, httpx.Client]]:
    """A warm server and a client of it."""
    with serving(folder / "data", secrets, environment) as server, _client(server, secrets) as client:
        _warm(client)
        yield server, client


@contextmanager
def _client(server: Server, secrets: dict[str, str]) -> Iterator[httpx.Client]:
    form = {
        "grant_type": "client_credentials",
        "client_id": secrets["clientId"],
        "client_secret": secrets["clientSecret"],
    }
    token = httpx.post(f"{server.url}/connect/token", data=form).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=300) as client:
        yield client


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code >= 300:
        raise SystemExit(f"{response.request.method} {response.url}: {response.status_code} {response.text}")
    return response


def _warm(client: httpx.Client) -> None:
    """What a process does once, it does now: libraries, threads, connections, buffers of one request."""
    for _ in range(4):
        name = f"warm-{time.time_ns()}"
        _checked(client.put(f"/attachments/v1/{name}", content=os.urandom(4 * MB)))
        _checked(httpx.get(_attachment(client, name)["downloadUrl"]))


def _attachment(client: httpx.Client, attachment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = _checked(client.get(f"/attachments/v1/{attachment_id}")).json()
    return found


class _Content:
    """A large file that is nowhere as a whole: one block of random bytes, numbered."""

    def __init__(self, megabytes: int) -> None:
        self._block = os.urandom(BLOCK - 8)
        self.size = megabytes * MB
        sha256 = hashlib.sha256()
        for start in range(0, self.size, BLOCK):
            sha256.update(self.block(start))
        self.sha256 = sha256.hexdigest()

    def block(self, start: int) -> bytes:
        return (start.to_bytes(8, "big") + self._block)[: self.size - start]


def _blocks(client: httpx.Client, attachment_id: str, content: _Content) -> None:
    asked = {
        "attachmentId": attachment_id,
        "fileSize": content.size,
        "blockSize": BLOCK,
        "sha256": content.sha256,
    }
    path = (
        f"/attachments/v1/upload/{_checked(client.post('/attachments/v1/upload', json=asked)).json()['id']}"
    )
    for start in range(0, content.size, BLOCK):
        block = content.block(start)
        said = {"Content-Range": f"bytes {start}-{start + len(block) - 1}/{content.size}"}
        _checked(client.post(path, content=block, headers=said))


def _tus(client: httpx.Client, attachment_id: str, content: _Content) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    encoded = base64.b64encode(attachment_id.encode()).decode()
    create = {**tus, "Upload-Length": str(content.size), "Upload-Metadata": f"attachmentId {encoded}"}
    path = _checked(client.post("/attachments/v1/tus", headers=create)).headers["location"]
    said = {
        **tus,
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(content.size),
    }
    pieces = (
        block[start : start + 65_536]
        for block in (content.block(start) for start in range(0, content.size, BLOCK))
        for start in range(0, len(block), 65_536)
    )
    _checked(client.patch(path, content=pieces, headers=said))


def _large(store: str, server: Server, client: httpx.Client, way: Any, megabytes: int) -> list[Row]:
    """Send a file and read it again; one row for each."""
    kind = way.__name__.strip("_")
    name = f"large-{kind}"
    content = _Content(megabytes)
    began = time.perf_counter()
    with Growth(server) as growth:
        way(client, name, content)
    seconds = time.perf_counter() - began
    rows = [_row(store, f"{megabytes} MB up, {kind}", content.size, seconds, growth)]
    attachment = _attachment(client, name)
    if attachment["sha256"] != content.sha256:
        raise SystemExit(f"{name}: the server has another file")
    sha256 = hashlib.sha256()
    began = time.perf_counter()
    with Growth(server) as growth, httpx.stream("GET", attachment["downloadUrl"], timeout=300) as response:
        for chunk in response.iter_raw():
            sha256.update(chunk)
    # Addresses of S3 lead past our server.
    what = f"{megabytes} MB down" if store == "folder" else f"{megabytes} MB down, from S3 itself"
    rows.append(_row(store, what, content.size, time.perf_counter() - began, growth))
    if sha256.hexdigest() != content.sha256:
        raise SystemExit(f"{name}: another file was read")
    return rows


def _row(store: str, what: str, size: int, seconds: float, growth: Growth) -> Row:
    return {
        "store": store,
        "what": what,
        "mb": round(size / 1e6),
        "seconds": round(seconds, 1),
        "mb_per_second": round(size / 1e6 / seconds),
        "growth_mb": growth.mb,
    }


def _archive(store: str, server: Server, client: httpx.Client, count: int) -> Row:
    """A job with many files of the size of a small photo, read as one archive.

    They are no pictures: the making of thumbnails is measured apart.
    """
    picture = os.urandom(100_000)
    ids = [f"photo-{number:05}" for number in range(count)]

    def send(attachment_id: str) -> None:
        _checked(client.put(f"/attachments/v1/{attachment_id}", content=picture + attachment_id.encode()))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, ids))
    step = {
        "uniqueStepId": "photos",
        "updated": "2026-03-03T09:20:00.000Z",
        "valueResourceIds": ids,
    }
    document = {
        "metadata": {"clientJobId": "archive", "status": "InProgress"},
        "completedSteps": [{"singleStep": step, "reportStep": None}],
    }
    _checked(client.post("/jobs/v1/basicSync", content=json.dumps(document)))
    _quiet(client, ids)
    received = io.BytesIO()
    began = time.perf_counter()
    with Growth(server) as growth, client.stream("GET", "/jobs/v1/archive/attachments.zip") as response:
        for chunk in response.iter_raw():
            received.write(chunk)
    seconds = time.perf_counter() - began
    with zipfile.ZipFile(received) as archive:
        if len(archive.namelist()) != count + 1 or archive.testzip() is not None:
            raise SystemExit("the archive is not whole")
    return _row(store, f"ZIP of {count:,} files of 100 KB", received.tell(), seconds, growth)


def _quiet(client: httpx.Client, ids: list[str]) -> float:
    """Wait until the thumbnails of all are made; answers the seconds."""
    began = time.perf_counter()
    waiting = list(ids)
    while waiting:
        state = _attachment(client, waiting[-1])["state"]
        if state == "stored":
            time.sleep(0.05)
        elif state != "ready":
            raise SystemExit(f"{waiting[-1]} is {state}")
        else:
            waiting.pop()
    return time.perf_counter() - began


def _thumbnails(server: Server, client: httpx.Client, count: int) -> Row:
    """From the first byte sent to the last thumbnail made."""
    picture = jpeg(photo(4000, 3000))
    ids = [f"picture-{number}" for number in range(count)]
    began = time.perf_counter()
    with Growth(server) as growth:
        for attachment_id in ids:
            _checked(client.put(f"/attachments/v1/{attachment_id}", content=picture + attachment_id.encode()))
        _quiet(client, ids)
    seconds = time.perf_counter() - began
    return {
        "store": "folder",
        "what": f"{count} pictures of 12 MP ({len(picture) / 1e6:.1f} MB)",
        "per_second": round(count / seconds, 1),
        "growth_mb": growth.mb,
    }


def _small(store: str, server: Server, folder: Path, options: argparse.Namespace) -> Row:
    template = folder / "template"
    template.write_bytes(os.urandom(SMALL))
    rounds: list[Row] = []
    load(server, CONNECTIONS, 1, str(template), "warm-up", lua="files.lua")
    with Growth(server) as growth:
        for number in range(options.rounds):
            name = f"small{number}"
            figures = load(server, CONNECTIONS, options.seconds, str(template), name, lua="files.lua")
            if figures["errors"]:
                raise SystemExit(f"{figures['errors']} requests failed")
            rounds.append(figures)
    median = sorted(rounds, key=lambda figures: float(figures["rate"]))[len(rounds) // 2]
    kept = {key: median[key] for key in ("rate", "p50", "p95", "p99")}
    return {"store": store, **kept, "rates": [r["rate"] for r in rounds], "growth_mb": growth.mb}


def _bare_files(seconds: float = 3.0) -> Row:
    """As many durable files as this disk takes from a program that does nothing else."""
    content = os.urandom(SMALL)

    with scratch() as folder:
        descriptor = os.open(folder, os.O_RDONLY)

        def write(thread: int) -> int:
            count, end = 0, time.perf_counter() + seconds
            while time.perf_counter() < end:
                with (folder / f"{thread}-{count}").open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.fsync(descriptor)
                count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(write, range(8)))
        os.close(descriptor)
    return {"rate": round(sum(counts) / seconds)}


def _note(rows: list[Row]) -> list[Row]:
    for row in rows:
        print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return rows


def _report(results: dict[str, list[Row]], options: argparse.Namespace) -> None:
    tables = [
        ("Large files, one connection", results["large"] + results["archive"], _LARGE),
        (
            f"PUTs of {SMALL // 1000} KB over {CONNECTIONS} connections, worker elsewhere, "
            f"median of {options.rounds} rounds of {options.seconds} s; latencies in ms",
            results["small"],
            _SMALL,
        ),
        ("From the upload to the thumbnails, embedded worker", results["thumbnails"], _THUMBNAILS),
    ]
    lines = [f"Machine: {machine()}."]
    for title, rows, columns in tables:
        lines += ["", title, "", f"| {' | '.join(columns.values())} |"]
        lines.append(f"| {' | '.join('---' if key in ('store', 'what') else '---:' for key in columns)} |")
        for row in rows:
            values = (row.get(key, "") for key in columns)
            shown = (f"{value:,}" if isinstance(value, int | float) else value for value in values)
            lines.append(f"| {' | '.join(shown)} |")
    text = "\n".join(lines)
    print("\n" + text)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y-%m-%d}"
    (folder / f"{stamp}-files.md").write_text(text + "\n")
    (folder / f"{stamp}-files.json").write_text(
        json.dumps({"machine": machine(), "results": results}, indent=1) + "\n"
    )
    print(f"\nwritten to benchmarks/results/{stamp}-files.md")


_LARGE = {
    "store": "store",
    "what": "what",
    "seconds": "s",
    "mb_per_second": "MB/s",
    "growth_mb": "growth of memory, MB",
}
_SMALL = {
    "store": "store",
    "rate": "files/s",
    "p50": "p50",
    "p95": "p95",
    "p99": "p99",
    "growth_mb": "growth of memory, MB",
}
_THUMBNAILS = {
    "store": "store",
    "what": "what",
    "per_second": "pictures/s",
    "growth_mb": "growth of memory, MB",
}

if __name__ == "__main__":
    main()
