"""Thumbnails by media/images.py, in a process that imports what a worker of the sandbox imports.

Started by bench_images.py: ``python -m benchmarks.image_worker <picture> <folder for its thumbnails>``. Each
line on standard input is one more run, answered with a line of JSON.
"""

import json
import re
import sys
import time
from pathlib import Path

from media import images, video

_ = video  # imported by every worker


def main() -> None:
    """Run once, keep the thumbnails, then once for each line."""
    picture, folder = sys.argv[1:]
    for name, (jpeg, _width, _height) in _run(picture).jpegs.items():
        (Path(folder) / f"{name}.jpg").write_bytes(jpeg)
    for _line in sys.stdin:
        _run(picture)


def _run(picture: str) -> images.Made:
    cpu, began = time.process_time(), time.perf_counter()
    made = images.thumbnails(picture, "image/jpeg")
    figures = {
        "ms": (time.perf_counter() - began) * 1000,
        "cpu": (time.process_time() - cpu) * 1000,
        "peak_mb": peak_mb(),
    }
    print(json.dumps(figures), flush=True)
    return made


def peak_mb(pid: int | str = "self") -> float:
    """The largest resident size that a process has had, MB."""
    found = re.search(r"^VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


if __name__ == "__main__":
    main()
