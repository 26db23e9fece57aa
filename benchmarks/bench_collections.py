"""Collections: how long a CSV of 50 MB and a million rows takes to be imported, what memory that needs, and how
long the server takes for pages of it.

The import is timed from the last block to the moment in which the collection is ready, through a real server.
Its memory is the largest resident size of any worker of the pool; pages are timed as the client sees them, over
one connection, and within the server's thread.

Run with ``python -m benchmarks.bench_collections``; ``--help`` lists the options.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.harness import (
    HERE,
    ROOT,
    Server,
    clean_environment,
    initialise,
    machine,
    scratch,
    serving,
)
from fixtures.collections import assets

BLOCK = 100 * 1024
PATH = "/collections/v1/collection"

Row = dict[str, Any]

#: What is asked of the million rows; a name for each.
PAGES: dict[str, list[tuple[str, str]]] = {
    "first page": [],
    "page 45,001": [("skip", "900000")],
    "one value (1 row)": [("where", "Asset=A0500000")],
    "one value (25,000 rows)": [("where", "Site=Site 07")],
    "the same, sorted by another column": [("where", "Site=Site 07"), ("sort", "-Price")],
    "prefix (10,000 rows)": [("where", "Asset^=A09")],
    "half of the rows": [("where", "Price>=5000")],
    "half of the rows, sorted by another column": [("where", "Price>=5000"), ("sort", "-Inspected")],
    "the last tenth of the file": [("where", "Asset>=A0900000")],
    "the last tenth, sorted by another column": [("where", "Asset>=A0900000"), ("sort", "Price")],
    "a month": [("where", "Inspected>=2025-06-01"), ("where", "Inspected<2025-07-01")],
    "two conditions": [("where", "Site=Site 07"), ("where", "Model=Z-200")],
    "three conditions that 31 rows fulfil, sorted": [
        ("where", "Site=Site 07"),
        ("where", "Model=Z-200"),
        ("where", "Price>9900"),
        ("sort", "Asset"),
    ],
    "sorted, without a condition": [("sort", "-Price")],
    "sorted, page 25,001": [("sort", "-Price"), ("skip", "500000")],
    "1,000 rows": [("where", "Site=Site 07"), ("limit", "1000")],
}


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="imports; the median counts")
    parser.add_argument("--pages", type=int, default=31, help="times each page is asked for")
    options = parser.parse_args()
    with scratch() as folder:
        environment = clean_environment()
        secrets = initialise(folder / "data", environment)
        with serving(folder / "data", secrets, environment) as server, _client(server, secrets) as client:
            imports = [_import(server, client, options.rows, number) for number in range(options.rounds)]
            collection_id = [item.pop("collectionId") for item in imports][-1]
            again = _again(server, client, collection_id, options)
            pages = _pages(client, collection_id, options.pages)
    seconds = statistics.median(item["seconds"] for item in imports)
    print(f"{machine()}\n")
    print(f"import of {options.rows:,} rows, {imports[0]['megabytes']:.0f} MB: median {seconds:.1f} s")
    for item in [*imports, again]:
        print("  " + ", ".join(f"{key} {value}" for key, value in item.items()))
    print()
    for item in pages:
        print(f"  {item['page']:48} median {item['median_ms']:7.2f} ms, slowest {item['worst_ms']:7.2f} ms")
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "imports": imports,
        "again": again,
        "pages": pages,
    }
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-collections.json").write_text(
        json.dumps(result, indent=1) + "\n"
    )


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


def _import(server: Server, client: httpx.Client, rows: int, number: int) -> Row:
    collection_id = _checked(client.post(PATH, json={"name": f"Assets {number}"})).json()["collectionId"]
    content = b"".join(assets(rows, seed=number))
    return {"collectionId": collection_id, **_measured(server, client, collection_id, content)}


def _again(server: Server, client: httpx.Client, collection_id: str, options: argparse.Namespace) -> Row:
    """The same collection with every hundredth row changed, and how the changes come in."""
    before = _drain(client, collection_id, None)
    content = b"".join(assets(options.rows, seed=options.rounds - 1, changed=100))
    measured = _measured(server, client, collection_id, content)
    began = time.perf_counter()
    after = _drain(client, collection_id, before["next"])
    return {
        **measured,
        "all_changes_s": before["seconds"],
        "new_changes": after["changes"],
        "new_changes_s": round(time.perf_counter() - began, 2),
    }


def _drain(client: httpx.Client, collection_id: str, since: str | None) -> Row:
    began, count, more = time.perf_counter(), 0, True
    while more:
        params = {"limit": "1000", **({"since": since} if since else {})}
        page = _checked(client.get(f"{PATH}/{collection_id}/records/changes", params=params)).json()
        since, more, count = page["next"], page["more"], count + len(page["changes"])
    return {"next": since, "changes": count, "seconds": round(time.perf_counter() - began, 2)}


def _measured(server: Server, client: httpx.Client, collection_id: str, content: bytes) -> Row:
    asked = {
        "blockSize": BLOCK,
        "fileSize": len(content),
        "friendlyFileName": "assets.csv",
        "collectionId": collection_id,
    }
    upload_id = _checked(client.post("/collections/v1/upload", json=asked)).json()["id"]
    began = time.perf_counter()
    sent = began
    for start in range(0, len(content), BLOCK):
        block = content[start : start + BLOCK]
        said = {"Content-Range": f"bytes {start}-{start + len(block) - 1}/{len(content)}"}
        sent = time.perf_counter()
        _checked(client.post(f"/collections/v1/upload/{upload_id}", content=block, headers=said))
    while True:
        (found,) = _checked(client.get(f"{PATH}/{collection_id}")).json()["collections"]
        if found["state"] != "importing":
            break
        time.sleep(0.1)
    if found["state"] != "ready":
        raise SystemExit(json.dumps(found))
    return {
        "megabytes": round(len(content) / 1e6, 1),
        "blocks_s": round(sent - began, 1),
        "seconds": round(time.perf_counter() - sent, 1),
        "worker_mb": _worker_peak(server),
    }


def _worker_peak(server: Server) -> float:
    """The largest resident size that a worker of the pool has had, MB."""
    peaks = [0.0]
    for pid in _below(server.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        if b"forkserver" in command and found:
            peaks.append(int(found[1]) / 1024)
    return round(max(peaks), 1)


def _below(pid: int) -> list[int]:
    text = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(one): int(other) for one, other in (line.split() for line in text.splitlines())}
    found = [pid]
    for parent in found:
        found.extend(child for child, of in parents.items() if of == parent)
    return found


def _pages(client: httpx.Client, collection_id: str, times: int) -> list[Row]:
    results = []
    for name, params in PAGES.items():
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            _checked(client.get(f"{PATH}/{collection_id}/records", params=params))
            taken.append((time.perf_counter() - began) * 1000)
        results.append(
            {
                "page": name,
                "median_ms": round(statistics.median(taken), 2),
                "worst_ms": round(max(taken), 2),
            }
        )
    return results


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
