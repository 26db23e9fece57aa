"""Reports: how long one takes, and what pushes feel of a busy printer.

A job of 30 photos is pushed to a real server, its photos too, and printed with the built-in template: about ten
pages. First by a pool of its own, idle and warm. Then pushes come to the server at a fixed rate, in turn with the
server's printer idle and with it printing one preview after the other. A push's latency counts from the moment it
was due, so that a server that falls behind shows it.

Run with ``make bench-reports``; ``python -m benchmarks.bench_reports --help`` lists the options.
"""

import argparse
import asyncio
import copy
import json
import os
import resource
import statistics
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from benchmarks.harness import (
    HERE,
    Server,
    clean_environment,
    initialise,
    load,
    machine,
    scratch,
    serving,
    token,
)
from benchmarks.image_worker import peak_mb
from benchmarks.preload import FIRST_ID, snapshot_body
from fixtures.jobs import bench_snapshot
from fixtures.pictures import jpeg, photo
from media.pdf import Printed, print_report, warm_up
from media.sandbox import Sandbox
from server.reports.builtin import BUILT_IN
from server.reports.context import local_files, report_context
from storage.blobs import open_blobs
from storage.database import open_database, sqlite_url
from storage.queries import jobs

#: Three photos of every second step; with the built-in template about ten pages.
_PHOTOS, _STEPS = 30, 20
_JOB = "20000000-0000-4000-8000-000000000000"
_CONNECTIONS = 16
Row = dict[str, Any]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15, help="reports one after the other; the median counts")
    parser.add_argument("--rounds", type=int, default=5, help="loads of each kind, in turn")
    parser.add_argument("--seconds", type=int, default=10, help="length of one load")
    parser.add_argument("--rate", type=int, default=200, help="pushes a second")
    parser.add_argument("--keep", type=Path, help="where to write the report")
    options = parser.parse_args()
    with scratch() as folder:
        environment = clean_environment()
        secrets = initialise(folder, environment)
        with serving(folder, secrets, environment) as server:
            # One that may push and preview.
            granted = token(server.url, secrets, "workflow.execute job.read reports.create")
            with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {granted}"}) as client:
                _push_job(client)
            alone = asyncio.run(_alone(folder, options))
            loads = asyncio.run(_loads(server, granted, folder, options))
            peak = server.peak_mb()
    _report(alone, loads, peak, options)


def _push_job(client: httpx.Client) -> None:
    """The job, its photos, and what the server makes of them."""
    document = bench_snapshot(_JOB)
    first = document["completedSteps"]
    document["completedSteps"] = steps = []
    ids = [str(uuid.uuid5(uuid.UUID(_JOB), f"photo {number}")) for number in range(_PHOTOS)]
    for number in range(_STEPS):
        entry = copy.deepcopy(first[number % len(first)])
        step = entry["singleStep"]
        step["uniqueStepId"] = str(uuid.uuid5(uuid.UUID(_JOB), f"step {number}"))
        step["stepId"] = str(uuid.uuid5(uuid.UUID(_JOB), f"definition {number}"))
        step["valueResourceIds"] = [] if number % 2 else ids[number // 2 * 3 : number // 2 * 3 + 3]
        if number % 3 == 0:
            step["note"] = "Zażółć gęślą jaźń: seen from the left, where the cover is loose. " * 3
        steps.append(entry)
    client.post("/jobs/v1/basicSync", json=document).raise_for_status()
    for number, attachment_id in enumerate(ids):
        picture = jpeg(photo(1600 + number, 1200))
        answer = client.put(f"/attachments/v1/{attachment_id}", content=picture, timeout=60)
        answer.raise_for_status()
    for attachment_id in ids:
        while client.get(f"/attachments/v1/{attachment_id}").raise_for_status().json()["state"] != "ready":
            time.sleep(0.2)


async def _alone(folder: Path, options: argparse.Namespace) -> list[Row]:
    """A pool of one worker that has nothing else to do."""
    database = open_database(sqlite_url(folder / "fieldsync.db"))
    blobs = open_blobs("", folder / "blobs", "http://localhost", b"s" * 32)
    rows = []
    try:
        await database.prepare()
        job = await database.read(jobs.by_client_job_id, 1, _JOB)
        assert job is not None
        for images in ("large", "small"):
            material = await report_context(database, blobs, 1, job, images)
            async with local_files(blobs, material.keys) as files:
                sandbox = Sandbox(1, warm_up=warm_up)
                try:

                    async def one(
                        sandbox: Sandbox = sandbox, context: Any = material.context, files: Any = files
                    ) -> tuple[Printed, float]:
                        began = time.perf_counter()
                        printed = await sandbox.run(print_report, BUILT_IN, context, files)
                        return printed, (time.perf_counter() - began) * 1000

                    printed, cold = await one()
                    before = await sandbox.run(resource.getrusage, resource.RUSAGE_SELF)
                    times = [(await one())[1] for _ in range(options.runs)]
                    used = await sandbox.run(resource.getrusage, resource.RUSAGE_SELF)
                    peak = peak_mb(await sandbox.run(os.getpid))
                finally:
                    await sandbox.close()
            if options.keep is not None:
                (options.keep / f"{images}.pdf").write_bytes(printed.pdf)
            rows.append(
                _note(
                    {
                        "what": f"{_PHOTOS} photos, {images}",
                        "pages": printed.pages,
                        "ms": round(statistics.median(times)),
                        "best": round(min(times)),
                        "worst": round(max(times)),
                        "cpu": round(
                            (used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime)
                            * 1000
                            / options.runs
                        ),
                        "cold": round(cold),
                        "kb": round(len(printed.pdf) / 1000),
                        "peak_mb": round(peak),
                    }
                )
            )
    finally:
        await blobs.close()
        await database.close()
    return rows


async def _loads(server: Server, token: str, folder: Path, options: argparse.Namespace) -> list[Row]:
    """Pushes at a fixed rate, in turn with the printer idle and busy."""
    asked = folder / "preview.json"
    asked.write_text(
        json.dumps({"clientJobId": _JOB, "bodyContent": BUILT_IN.body, "headerContent": BUILT_IN.header})
    )
    printer = replace(server, token=token)
    # wrk takes the PDFs: a process of its own, so that the latencies are the server's.
    print_for = partial(asyncio.to_thread, load, printer, 2, lua="preview.lua")
    await print_for(5, str(asked))  # the printer is warm
    rows: list[Row] = []
    for _ in range(options.rounds):
        for busy in (False, True):
            printing = print_for(options.seconds + 3, str(asked)) if busy else asyncio.sleep(0)
            previews = asyncio.create_task(printing)
            await asyncio.sleep(1)
            row = {
                "what": "printing all the time" if busy else "printer idle",
                **await _load(server, token, options.rate, options.seconds),
            }
            printed = await previews
            row["reports"] = 0 if printed is None else round(printed["requests"] / printed["seconds"], 1)
            rows.append(_note(row))
            await asyncio.sleep(1)
    return rows


async def _load(server: Server, token: str, rate: int, seconds: int) -> Row:
    """New jobs, each due a fixed time after the one before, over connections that are kept."""
    address = urlsplit(server.url)
    before, after = (
        snapshot_body(1).decode().replace(FIRST_ID, "@", 1).partition("@")[::2]
    )  # a job differs in its id alone
    latencies: list[float] = []
    numbers = iter(range(rate * seconds))
    began = time.perf_counter() + 0.2

    async def connection() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for number in numbers:
            due = began + number / rate
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            body = f"{before}{uuid.uuid4()}{after}".encode()
            writer.write(
                f"POST /jobs/v1/basicSync HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if not head.startswith((b"http/1.1 200", b"http/1.1 201")):
                raise SystemExit(head.decode())
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            latencies.append((time.perf_counter() - due) * 1000)
        writer.close()

    await asyncio.gather(*[connection() for _ in range(_CONNECTIONS)])
    took = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "rate": round(len(latencies) / took, 1),
        "p50": round(cuts[49], 2),
        "p95": round(cuts[94], 2),
        "p99": round(cuts[98], 2),
    }


def _note(row: Row) -> Row:
    print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


_ALONE = {
    "what": "report",
    "pages": "pages",
    "ms": "ms",
    "best": "best",
    "worst": "worst",
    "cpu": "CPU ms",
    "cold": "first one, with starting the pool",
    "kb": "KB",
    "peak_mb": "peak MB of the worker",
}
_LOADS = {
    "what": "beside it",
    "rate": "pushes/s",
    "p50": "p50",
    "p95": "p95",
    "p99": "p99",
    "reports": "reports/s",
    "spread": "p50 of each load",
}


def _report(alone: list[Row], loads: list[Row], peak: float, options: argparse.Namespace) -> None:
    kinds: list[Row] = []
    for what in dict.fromkeys(row["what"] for row in loads):
        theirs = [row for row in loads if row["what"] == what]
        merged = {
            key: round(statistics.median(row[key] for row in theirs), 2)
            for key in _LOADS
            if key in theirs[0] and key != "what"
        }
        kinds.append({"what": what, **merged, "spread": ", ".join(str(row["p50"]) for row in theirs)})
    idle, busy = kinds
    ratios = {key: round(busy[key] / idle[key], 2) for key in ("rate", "p50", "p95", "p99")}
    kinds.append({"what": "busy / idle", **ratios, "reports": "", "spread": ""})
    tables = [
        (f"One report at a time, median of {options.runs}, ms", alone, _ALONE),
        (
            f"{options.rate} pushes/s over {_CONNECTIONS} connections, medians of {options.rounds} loads of "
            f"{options.seconds} s in turn, ms",
            kinds,
            _LOADS,
        ),
    ]
    lines = [
        f"Machine: {machine()}. Load while it ran: {os.getloadavg()[1]:.1f}. "
        f"Largest process of the server: {peak:.0f} MB."
    ]
    for title, rows, columns in tables:
        lines += ["", title, "", f"| {' | '.join(columns.values())} |"]
        lines.append(f"| {' | '.join('---' if key == 'what' else '---:' for key in columns)} |")
        lines += [f"| {' | '.join(str(row[key]) for key in columns)} |" for row in rows]
    text = "\n".join(lines)
    print("\n" + text)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y-%m-%d}"
    (folder / f"{stamp}-reports.md").write_text(text + "\n")
    figures = {"machine": machine(), "alone": alone, "loads": loads, "peak_mb": peak}
    (folder / f"{stamp}-reports.json").write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\nwritten to benchmarks/results/{stamp}-reports.md")


if __name__ == "__main__":
    main()
