"""Queries over HTTP: how long a page of a hundred jobs takes, as JSON and as CSV.

    make bench-query-page

A hundred inspections of about 30 steps (forms, photos, notes) are pushed to a real server, and their page is asked for
over one connection, one request after the other. What counts is the time by the clock from the first byte of the request
to the last of the answer; the processor's time is that of the server's processes. With ``--postgresql`` the database's
own is not in it.
"""

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from benchmarks.bench_sync import postgresql
from benchmarks.harness import HERE, Server, clean_environment, initialise, machine, scratch, serving, token
from fixtures.jobs import inspection_jobs
from sync.facts import step_facts

_STEP = "stepId stepTitle stepType started completed userName value note"
_COMPUTED = "stepTitle stepTag isCancelled totalDuration activeDuration geoLat geoLong values"
QUERIES = {
    "8 fields of each step": f"jobs(limit: 100) {{ jobId steps {{ {_STEP} }} }}",
    "with substeps": f"jobs(limit: 100) {{ jobId steps {{ {_STEP} substeps {{ {_STEP} }} }} }}",
    "8 fields that are computed": f"jobs(limit: 100) {{ jobId steps {{ {_COMPUTED} }} }}",
    "8 fields of each job": (
        "jobs(limit: 100) { jobId jobTitle workflowTitle created completed totalDuration userName status }"
    ),
    "places and durations": "jobs(limit: 100) { jobId geoLatAverage geoLongAverage activeDuration }",
    "a step that is searched": 'jobs(limit: 100) { jobId step(search: "Photo") { value } }',
}
Row = dict[str, Any]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=60, help="requests of each kind; the median counts")
    parser.add_argument("--postgresql", action="store_true", help="on PostgreSQL instead of SQLite")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        settings = {}
        if options.postgresql:
            settings["FIELDSYNC_DATABASE_URL"] = stack.enter_context(postgresql())
        environment = clean_environment(**settings)
        secrets = initialise(folder, environment)
        server = stack.enter_context(serving(folder, secrets, environment))
        documents = _documents()
        _push(server, documents)
        steps = sum(len(step_facts(document)) for document in documents)
        megabytes = sum(len(msgspec.json.encode(document)) for document in documents) / 1e6
        database = "PostgreSQL" if options.postgresql else "SQLite"
        print(f"{machine()}; {database}, 100 jobs, {steps:,} steps, {megabytes:.1f} MB of JSON\n")
        pages = list(_pages(server, secrets, options.runs))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    result = {"at": at, "machine": machine(), "database": database, "steps": steps, "pages": pages}
    (HERE / "results").mkdir(exist_ok=True)
    name = f"{datetime.now(UTC):%Y-%m-%d}-query-page-{database.lower()}.json"
    (HERE / "results" / name).write_text(json.dumps(result, indent=1) + "\n")


def _documents() -> list[dict[str, Any]]:
    """A hundred jobs of 28 to 32 steps, completed."""
    of_size = (job for job in inspection_jobs(2_000) if 28 <= len(step_facts(job)) <= 32)
    documents = [next(of_size) for _ in range(100)]
    for document in documents:
        document["metadata"]["status"] = "Completed"
    return documents


def _push(server: Server, documents: list[dict[str, Any]]) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        for document in documents:
            answer = client.post("/jobs/v1/basicSync", json=document)
            if answer.status_code != 200:
                raise SystemExit(f"{answer.status_code}: {answer.text}")


def _pages(server: Server, secrets: dict[str, str], runs: int) -> Iterator[Row]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc)
    key = _key(server, secrets)
    for name, query in QUERIES.items():
        for kind, extra in (("JSON", ""), ("CSV", "&csv=true")):
            path = f"/query/v2/graph?key={key}&query={quote(f'{{ {query} }}')}{extra}"
            for _ in range(5):
                size = len(_get(connection, path))
            times = []
            before = server.cpu_seconds()
            for _ in range(runs):
                began = time.perf_counter()
                _get(connection, path)
                times.append((time.perf_counter() - began) * 1000)
            row: Row = {
                "query": name,
                "as": kind,
                "median_ms": round(statistics.median(times), 2),
                "best_ms": round(min(times), 2),
                "cpu_ms": round((server.cpu_seconds() - before) / runs * 1000, 2),
                "bytes": size,
            }
            print(
                f"  {name:28} {kind:4}  median {row['median_ms']:6.2f} ms, best {row['best_ms']:6.2f}, "
                f"processor {row['cpu_ms']:6.2f}, {size / 1000:7,.0f} KB",
                flush=True,
            )
            yield row


def _get(connection: http.client.HTTPConnection, path: str) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or b'"errors"' in body[:200]:
        raise SystemExit(f"{answer.status}: {body[:500]!r}")
    return body


def _key(server: Server, secrets: dict[str, str]) -> str:
    """A query key of the team."""
    headers = {"Authorization": f"Bearer {token(server.url, secrets, 'query.admin')}"}
    keys = httpx.get(f"{server.url}/query/v2/keys", headers=headers).raise_for_status().json()
    key: str = keys[0]["key"]
    return key


if __name__ == "__main__":
    main()
