"""What three thumbnails cost, beside sharp (npm, libvips) making the same three. Run with ``make bench-images``.

Both sides decode once and make each size from the one before; both keep their defaults otherwise, so both let
the JPEG decoder shrink. They run in turn, one picture each, so that the machine's moods fall on both.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from benchmarks.harness import HERE, ROOT, clean_environment, machine, scratch
from benchmarks.image_worker import peak_mb
from fixtures.pictures import photo
from media import images
from media.sandbox import Sandbox

_SHARP = "sharp@0.35"
_OURS = "ours"

Row = dict[str, Any]


def main() -> None:
    """Run the benchmark and write its results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="runs of each side; the median counts")
    parser.add_argument("--pictures", type=int, default=40, help="pictures for the two workers")
    options = parser.parse_args()
    with scratch() as folder:
        modules = _install(folder)
        rows: list[Row] = []
        pools: list[Row] = []
        for megapixels, path in _pictures(folder).items():
            rows += _compare(megapixels, path, folder, modules, options.rounds)
            pools.append(asyncio.run(_workers(megapixels, path, options.pictures)))
    _report(rows, pools, options)


def _pictures(folder: Path) -> dict[int, Path]:
    """Photos by megapixels. The larger one is four of the smaller."""
    first = photo(4000, 3000)
    second = Image.new("RGB", (8000, 6000))
    for column in (0, 4000):
        for row in (0, 3000):
            second.paste(first, (column, row))
    made = {}
    for megapixels, picture in ((12, first), (48, second)):
        made[megapixels] = folder / f"{megapixels}.jpg"
        picture.save(made[megapixels], "JPEG", quality=90)
    return made


def _install(folder: Path) -> Path | None:
    """A folder with sharp in ``node_modules``; none where it cannot be had."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        print("No node and npm were found: nothing to compare with.", file=sys.stderr)
        return None
    command = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(folder), _SHARP]
    subprocess.run(command, check=True, cwd=folder)
    return folder


class Side:
    """One process that makes thumbnails of one picture, again and again."""

    def __init__(self, name: str, command: list[str], kept: Path) -> None:
        self.name, self.kept = name, kept
        self.runs: list[dict[str, float]] = []
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._answer()  # the first run is slower on both sides: libraries are loaded, memory is taken

    def run(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self.runs.append(self._answer())

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        figures: dict[str, float] = json.loads(self._process.stdout.readline())
        return figures


def _compare(megapixels: int, path: Path, folder: Path, modules: Path | None, rounds: int) -> list[Row]:
    cores = os.cpu_count() or 1
    with ExitStack() as started:

        def start(name: str, command: list[str]) -> Side:
            kept = folder / f"{megapixels}-{name}"
            kept.mkdir()
            side = Side(name, [part.replace("KEPT", str(kept)) for part in command], kept)
            started.callback(side.close)
            return side

        sides = [start(_OURS, [sys.executable, "-m", "benchmarks.image_worker", str(path), "KEPT"])]
        if modules is not None:
            script = ["node", str(HERE / "images.mjs"), str(modules), str(path), "KEPT"]
            sides += [start(f"sharp, threads {n}", [*script, str(n)]) for n in sorted({1, cores})]
        for _ in range(rounds):
            for side in sides:
                side.run()
    rows = []
    for side in sides:
        row: Row = {
            "what": f"{megapixels} MP ({path.stat().st_size / 1e6:.1f} MB)",
            "by": side.name,
            "ms": round(statistics.median(run["ms"] for run in side.runs)),
            "best": round(min(run["ms"] for run in side.runs)),
            "cpu": round(statistics.median(run["cpu"] for run in side.runs)),
            # Of each round, since a round's runs follow each other.
            "ratio": _ratio(sides[0], side, "ms"),
            "cpu_ratio": _ratio(sides[0], side, "cpu"),
            "peak_mb": round(max(run["peak_mb"] for run in side.runs)),
            "kb": round(sum(file.stat().st_size for file in side.kept.iterdir()) / 1000),
            "error": _error(path, side.kept),
        }
        rows.append(_note(row))
    return rows


def _ratio(ours: Side, other: Side, key: str) -> float | str:
    if other is ours:
        return ""
    pairs = zip(ours.runs, other.runs, strict=True)
    return round(statistics.median(mine[key] / theirs[key] for mine, theirs in pairs), 2)


def _error(path: Path, kept: Path) -> str:
    """Mean difference to the whole picture shrunk by the best filter, of 255, for each size."""
    with Image.open(path) as whole:
        whole.load()
    errors = []
    for name, longest in images.SIZES.items():
        with Image.open(kept / f"{name}.jpg") as thumbnail:
            if max(thumbnail.size) != longest:
                raise SystemExit(f"{kept.name}: the {name} thumbnail has {thumbnail.size}")
            wanted = whole.resize(thumbnail.size, Image.Resampling.LANCZOS)
            means = ImageStat.Stat(ImageChops.difference(wanted, thumbnail.convert("RGB"))).mean
        errors.append(f"{statistics.mean(means):.1f}")
    return " / ".join(errors)


async def _workers(megapixels: int, path: Path, count: int) -> Row:
    """Two workers of the product's pool, as the server runs them: at low priority."""
    sandbox = Sandbox(2)
    try:

        async def make() -> None:
            await sandbox.run(images.thumbnails, str(path), "image/jpeg")

        await asyncio.gather(make(), make())
        began = time.perf_counter()
        await asyncio.gather(*[make() for _ in range(count)])
        seconds = time.perf_counter() - began
        pids = set(await asyncio.gather(*[sandbox.run(os.getpid) for _ in range(8)]))
        peak = max(peak_mb(pid) for pid in pids)
    finally:
        await sandbox.close()
    row = {
        "what": f"{megapixels} MP",
        "per_second": round(count / seconds, 1),
        "thumbnails": round(len(images.SIZES) * count / seconds, 1),
        "peak_mb": round(peak),
    }
    return _note(row)


def _note(row: Row) -> Row:
    print("  " + "  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


_COMPARED = {
    "what": "JPEG",
    "by": "made by",
    "ms": "ms",
    "best": "best",
    "cpu": "CPU ms",
    "ratio": "ours / this",
    "cpu_ratio": "CPU, ours / this",
    "peak_mb": "peak MB",
    "kb": "KB of all three",
    "error": "difference, large / medium / small",
}
_POOL = {
    "what": "JPEG",
    "per_second": "pictures/s",
    "thumbnails": "thumbnails/s",
    "peak_mb": "peak MB of a worker",
}


def _report(rows: list[Row], pools: list[Row], options: argparse.Namespace) -> None:
    title = f"Three thumbnails of one picture, warm process, median of {options.rounds} runs in turn"
    tables = [(title, rows, _COMPARED), ("Two workers of the product's pool", pools, _POOL)]
    lines = [f"Machine: {machine()}; {_SHARP}. Load while it ran: {os.getloadavg()[1]:.1f}."]
    for title, kept, columns in tables:
        lines += ["", title, "", f"| {' | '.join(columns.values())} |"]
        lines.append(f"| {' | '.join('---' if key in ('what', 'by') else '---:' for key in columns)} |")
        lines += [f"| {' | '.join(str(row[key]) for key in columns)} |" for row in kept]
    text = "\n".join(lines)
    print("\n" + text)
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    stamp = f"{datetime.now(UTC):%Y-%m-%d}"
    (folder / f"{stamp}-images.md").write_text(text + "\n")
    print(f"\nwritten to benchmarks/results/{stamp}-images.md")


if __name__ == "__main__":
    main()
