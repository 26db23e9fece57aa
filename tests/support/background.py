"""A process that does background work like ``fieldsync worker``, with a task of the tests'.

Its handler writes a line into a file when it begins and when it ends. Apart from its test, so that a fresh
process imports little.
"""

import asyncio
import os
import sys
from pathlib import Path

from server.background import work
from server.settings import Settings
from storage.queue import Task

KIND = "test.slow"
LEASE_SECONDS = 1.5


async def main(data: Path, journal: Path, seconds: float) -> None:
    """Work until told to stop; the task takes ``seconds``."""

    def note(what: str, task: Task) -> None:
        with journal.open("a") as file:
            file.write(f"{what} {os.getpid()} {task.attempts}\n")

    async def handler(task: Task) -> None:
        note("began", task)
        await asyncio.sleep(seconds)
        note("ended", task)

    settings = Settings.from_environment(data=data, lease_seconds=LEASE_SECONDS)
    await work(settings, {KIND: handler})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])))
