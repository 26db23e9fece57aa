"""The task queue as workers see it, kept in a table of the database.

Delivery is at least once: a task whose worker vanishes is given to another when its lease ends, so handlers
must stand being run again. Between teams, work is shared evenly: whoever was served longest ago comes first.
"""

import itertools
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

from storage.database import Connection, Contended, Database
from storage.queries import tasks as queries
from storage.queries.tasks import Candidate, Ending, Key
from storage.queries.tasks import Taken as Task

__all__ = ["Ending", "Task", "TaskQueue", "new_lease"]

T = TypeVar("T")

DONE_KEPT_US = 24 * 3600 * 1_000_000
DEAD_KEPT_US = 30 * DONE_KEPT_US
_PURGED_AT_ONCE = 500
_RACES = 5


def new_lease() -> str:
    """The name under which one worker holds its tasks."""
    return uuid.uuid4().hex


class TaskQueue:
    """Tasks of every team. One object for each worker; it remembers whom it served last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = itertools.count(1)
        self._served: dict[int, int] = {}

    async def claim(self, slots: Mapping[str, int], lease: str, until: int, now: int) -> list[Task]:
        """Lease tasks that are due until ``until``: of each kind as many as ``slots`` says, at most.

        Of one kind and subject nothing is given out while such a task runs. Kinds not named are left alone.
        """
        _, taken = await self.turn([], slots, lease, until, now)
        return taken

    async def turn(
        self, endings: Sequence[Ending], slots: Mapping[str, int], lease: str, until: int, now: int
    ) -> tuple[set[Key], list[Task]]:
        """Write down how attempts ended and claim others, in one transaction.

        Answers which of the tasks that ended were still held, and what was claimed; see :meth:`claim`.
        """
        slots = {kind: count for kind, count in slots.items() if count > 0}
        keys: list[Key] = []
        if slots and not endings:
            # Looking does not need the one writer of SQLite, and mostly there is nothing.
            keys = await self._database.read(self._choose, slots, now)
        if not keys and not endings:
            return set(), []

        def work(connection: Connection) -> tuple[set[Key], list[Task]]:
            held = queries.end(connection, endings, lease, now)
            chosen = keys or (self._choose(connection, slots, now) if slots else [])
            return held, queries.take(connection, chosen, lease, until, now) if chosen else []

        held, taken = await self._write(work)
        for task in taken:
            self._served[task.team_id] = next(self._turn)
        return held, taken

    def _choose(self, connection: Connection, slots: Mapping[str, int], now: int) -> list[Key]:
        found = queries.candidates(connection, slots, self._served, now)
        return [candidate.key for candidate in choose(found, slots, self._served)]

    async def heartbeat(self, keys: Sequence[Key], lease: str, until: int) -> set[Key]:
        """Prolong leases; answers which are still held. What is missing may be running elsewhere."""
        return await self._write(queries.extend, keys, lease, until) if keys else set()

    async def bury(self, kinds: Collection[str], now: int) -> list[Task]:
        """Let those tasks die whose worker vanished for the last time, whoever had them; answers them."""
        keys = await self._database.read(queries.exhausted, kinds, now)
        return await self._write(queries.bury, keys, now) if keys else []

    async def purge(self, now: int) -> int:
        """Forget what was done a day ago and what died 30 days ago; answers how much."""
        before = {"done": now - DONE_KEPT_US, "dead": now - DEAD_KEPT_US}
        purged = 0
        # In pieces: other writers get their turn in between.
        while keys := await self._database.read(queries.over, before, _PURGED_AT_ONCE):
            purged += await self._write(queries.forget, keys)
        return purged

    async def replay(self, team_id: int, task_id: str, now: int) -> bool:
        """Run a dead task again; answers whether there was such a dead task."""
        return await self._write(queries.replay, team_id, task_id, now)

    async def _write(self, work: Callable[..., T], *arguments: object) -> T:
        for _ in range(_RACES):
            try:
                return await self._database.write(work, *arguments)
            except Contended:
                continue  # whoever won has committed; seen again, what is to do is clear
        return await self._database.write(work, *arguments)


def choose(
    found: Sequence[Candidate],
    slots: Mapping[str, int],
    served: Mapping[int, int],
) -> list[Candidate]:
    """Which of ``found`` to take: team by team in turn, whoever was served longest ago first.

    Args:
        served: by team, when it was served last; the greater, the later.
    """
    free = dict(slots)
    busy: set[tuple[int, str, str]] = set()
    rounds: dict[tuple[str, int], int] = {}
    queue: list[tuple[int, int, Candidate]] = []
    for candidate in sorted(found, key=lambda each: (each.run_at, each.task_id)):
        subject = (candidate.team_id, candidate.kind, candidate.subject)
        if subject in busy:
            continue
        busy.add(subject)
        # Its place among those that may be taken, of its kind and team.
        line = (candidate.kind, candidate.team_id)
        rounds[line] = rounds.get(line, 0) + 1
        queue.append((rounds[line], served.get(candidate.team_id, 0), candidate))
    chosen: list[Candidate] = []
    for _, _, candidate in sorted(
        queue, key=lambda each: (each[0], each[1], each[2].run_at, each[2].task_id)
    ):
        if free.get(candidate.kind, 0) > 0:
            free[candidate.kind] -= 1
            chosen.append(candidate)
    return chosen
