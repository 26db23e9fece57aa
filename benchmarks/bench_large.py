"""What a sync costs with 1,000,000 jobs stored, against 1,000. Run with ``make bench-large``.

Two servers take the same load in turn, so that the machine's moods fall on both; the ratio of each pair
counts. Every request is a new job, whose random clientJobId goes somewhere into the large index.
"""

import argparse
import asyncio
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import HERE, clean_environment, initialise, load, machine, scratch, serving
from benchmarks.preload import FIRST_ID, fill, merged_after, snapshot_body
from storage.database import open_database, sqlite_url

_FILL = 1000


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with scratch() as folder:
        environment = clean_environment()
        body = folder / "new.json"
        body.write_bytes(snapshot_body(1).replace(FIRST_ID.encode(), b"@ID@", 1))
        secrets = {}
        for name, count in (("small", 1000), ("large", options.jobs)):
            secrets[name] = initialise(folder / name, environment)
            asyncio.run(_preload(folder / name, count))
        size = (folder / "large" / "fieldsync.db").stat().st_size / 2**30
        pairs = []
        for number in range(1, options.pairs + 1):
            rates = {}
            for name in ("small", "large") if number % 2 else ("large", "small"):
                with serving(folder / name, secrets[name], environment) as server:
                    arguments = (str(body), "new", "", "0", "0")
                    load(server, options.connections, 1, *arguments)  # warm
                    rates[name] = load(server, options.connections, options.seconds, *arguments)["rate"]
            pairs.append((rates["small"], rates["large"], rates["small"] / rates["large"]))
            print(
                f"pair {number}: {rates['small']:,}/s and {rates['large']:,}/s: {pairs[-1][2]:.2f}x",
                flush=True,
            )
    ratio = statistics.median(pair[2] for pair in pairs)
    small, large = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
    text = (
        f"Machine: {machine()}. {options.connections} connections, new jobs, {options.pairs} pairs of "
        f"{options.seconds} s.\n\n| jobs stored | requests/s |\n| ---: | ---: |\n| 1,000 | {small:,.0f} |\n"
        f"| {options.jobs:,} ({size:.1f} GiB) | {large:,.0f} |\n\nCost per sync, median of the pairs: {ratio:.2f}x\n"
    )
    print("\n" + text)
    (HERE / "results" / f"{datetime.now(UTC):%Y-%m-%d}-large.md").write_text(text)


async def _preload(data: Path, count: int) -> None:
    database = open_database(sqlite_url(data / "fieldsync.db"))
    job, bodies = merged_after(1, "bench", "user")
    started = time.monotonic()
    for first in range(0, count, _FILL):
        await database.write(fill, first, min(_FILL, count - first), job, bodies)
        if first and first % 100_000 == 0:
            print(f"  {first:,} jobs stored, {time.monotonic() - started:.0f} s", flush=True)
    await database.close()


if __name__ == "__main__":
    main()
