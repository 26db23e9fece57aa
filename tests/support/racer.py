"""One of several processes that push the same jobs at the same moments.

Apart from its test, so that a fresh process imports little.
"""

import asyncio
import faulthandler
import json
import time
from multiprocessing.synchronize import Barrier
from typing import Any

from storage.database import open_database
from sync.ingest import Ingest
from sync.items import Applied, Caller, PushItem
from sync.snapshot import parse

ROUNDS = 5


def push_body(number: int, client_job_id: str) -> bytes:
    """What one process pushes: its own install, its own step."""
    document = {
        "metadata": {"clientJobId": client_job_id, "status": "InProgress"},
        "completedSteps": [{"singleStep": {"uniqueStepId": f"of {number}"}}],
        "sync": {"installId": f"00000000-0000-4000-8000-{number:012}", "pushSeq": int(client_job_id)},
    }
    return json.dumps(document).encode()


def race(url: str, team_id: int, number: int, start: Barrier, results: Any) -> None:
    """One of the processes: its own database connections, its own ingest."""

    async def run() -> list[tuple[str, int]]:
        database = open_database(url)
        ingest = Ingest(database)
        caller = Caller(team_id, "team", f"subject {number}", False)
        outcomes: list[tuple[str, int]] = []
        # Connected before the start, so that all of them really begin at once.
        await database.check()
        for round_number in range(1, ROUNDS + 1):
            item = PushItem(caller, parse(push_body(number, str(round_number))), time.time_ns() // 1000)
            await asyncio.to_thread(start.wait, 40)
            applied = await ingest.apply(item)
            assert isinstance(applied, Applied)
            outcomes.append((applied.action, applied.rev))
        await ingest.close()
        await database.close()
        return outcomes

    # Should one of them ever hang, its stack tells where.
    faulthandler.dump_traceback_later(45)
    try:
        results.put((number, asyncio.run(run())))
    except BaseException as error:
        start.abort()
        results.put((number, repr(error)))
        raise
