"""Lists of resources as a client sees them: workflows with many versions, changes, steps, scheduled jobs.

    make bench-resources
    make bench-resources ARGS='--workflows 1000 --versions 5 --rounds 15'

Everything is made over HTTP on a real server; then each list is asked for, one request at a time. Milliseconds,
medians, with the size of the answer.
"""

import argparse
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import httpx

from benchmarks.harness import ROOT, Server, clean_environment, initialise, machine, scratch, serving
from fixtures.workflow_packages import inspection, package

Row = dict[str, Any]
_CLIENTS = 8


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--scheduled", type=int, default=1000, help="scheduled jobs, two tasks each")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with scratch() as folder:
        environment = clean_environment()
        secrets = initialise(folder / "data", environment)
        with serving(folder / "data", secrets, environment) as server:
            rows = _measure(server, _client(server, secrets), options)
    _report(rows, options)


def _client(server: Server, secrets: dict[str, str]) -> httpx.Client:
    form = {
        "grant_type": "client_credentials",
        "client_id": secrets["clientId"],
        "client_secret": secrets["clientSecret"],
    }
    token = httpx.post(f"{server.url}/connect/token", data=form).raise_for_status().json()["access_token"]
    return httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)


def _measure(server: Server, client: httpx.Client, options: argparse.Namespace) -> list[Row]:
    content = package(inspection())
    print(f"Uploading {options.workflows:,} workflows of {options.versions} versions.", flush=True)
    with ThreadPoolExecutor(_CLIENTS) as pool:
        ids = list(
            pool.map(
                lambda number: _workflow(client, content, number, options.versions), range(options.workflows)
            )
        )
        print(f"Planning {options.scheduled:,} jobs.", flush=True)
        list(pool.map(lambda number: _plan(client, ids, number), range(options.scheduled)))
    rows = []
    for name, path in (
        ("workflows", "/workflows/v2"),
        ("changes of workflows, first page", "/workflows/v2/changes"),
        ("steps of a workflow", f"/workflows/v2/{ids[0]}/steps"),
        ("scheduled jobs, all", "/scheduledjobs/v1"),
        ("my scheduled jobs", "/scheduledjobs/v1/my"),
        ("one scheduled job", f"/scheduledjobs/v1/{client.get('/scheduledjobs/v1').json()[0]['jobId']}"),
    ):
        rows.append({"what": name, **_timed(client, path, options.rounds)})
        print(rows[-1], flush=True)
    rows.append({"what": "memory of the server, MB", "median_ms": server.memory_mb()})
    return rows


def _workflow(client: httpx.Client, content: bytes, number: int, versions: int) -> str:
    workflow_id = ""
    for version in range(versions):
        opened = client.post("/workflows/v2/upload", json={"blockSize": 102400, "fileSize": len(content)})
        upload = opened.raise_for_status().json()["id"]
        span = f"bytes 0-{len(content) - 1}/{len(content)}"
        client.post(
            f"/workflows/v2/upload/{upload}", content=content, headers={"Content-Range": span}
        ).raise_for_status()
        body = {
            "uploadId": upload,
            "name": f"Workflow {number}",
            "tags": ["pumps"],
            "versionNotes": f"{version}",
        }
        if workflow_id:
            body["workflowId"] = workflow_id
        workflow_id = str(client.post("/workflows/v2", json=body).raise_for_status().json()["workflowId"])
    return workflow_id


def _plan(client: httpx.Client, ids: list[str], number: int) -> None:
    tasks = [{"taskType": "workflow", "artifactId": ids[(number + turn) % len(ids)]} for turn in range(2)]
    body = {
        "name": f"Visit {number}",
        "description": "",
        "tasks": tasks,
        "assignedUserIds": [],
        "dueByDate": "2027-01-01T08:00:00Z",
        "priority": False,
    }
    client.post("/scheduledjobs/v1", json=body).raise_for_status()


def _timed(client: httpx.Client, path: str, rounds: int) -> Row:
    times, size = [], 0
    for _ in range(rounds + 2):
        started = time.perf_counter()
        answer = client.get(path).raise_for_status()
        times.append((time.perf_counter() - started) * 1000)
        size = len(answer.content)
    kept = sorted(times[2:])
    return {"median_ms": round(statistics.median(kept), 1), "least_ms": round(kept[0], 1), "bytes": size}


def _report(rows: list[Row], options: argparse.Namespace) -> None:
    lines = [
        "# Lists of resources",
        "",
        f"{machine()}; {options.workflows:,} workflows of {options.versions} versions, "
        f"{options.scheduled:,} scheduled jobs; {options.rounds} requests each, one at a time, over HTTP.",
        "",
        "| what | median ms | least ms | bytes |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row['what']} | {row['median_ms']} | {row.get('least_ms', '')} | {row.get('bytes', '')} |"
            for row in rows
        ),
    ]
    target = ROOT / "benchmarks" / "results" / f"{date.today().isoformat()}-resources.md"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
