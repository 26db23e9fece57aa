"""The task queue as workers see it, kept in a table of the database.

Delivery is at least once: a task whose worker vanishes is given to another when its lease ends, so handlers
must stand being run again. Between teams, work is shared evenly: whoever was served longest ago comes first.
"""

import itertools
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from storage.database import Connection, Contended, Database, Locked, Unavailable
from storage.queries import tasks as queries
from storage.queries.tasks import Candidate, Ending, Key
from storage.queries.tasks import Taken as Task

__all__ = ["Ending", "Key", "Lease", "Task", "TaskQueue", "new_lease"]

T = TypeVar("T")

DONE_KEPT_US = 24 * 3600 * 1_000_000
DEAD_KEPT_US = 30 * DONE_KEPT_US
_PURGED_AT_ONCE = 500
_RACES = 5
#: What was locked at every look for so long is waited for.
_PATIENCE_US = 1_000_000


class Lease(NamedTuple):
    """The name under which one worker holds its tasks, for how long, in microseconds, and by which clock.

    It begins when it is written, not before whatever the transaction has to wait for.
    """

    name: str
    length: int
    clock: Callable[[], int]


def new_lease(length: int, clock: Callable[[], int]) -> Lease:
    """A lease of a name of its own."""
    return Lease(uuid.uuid4().hex, length, clock)


class TaskQueue:
    """Tasks of every team. One object for each worker; it remembers whom it served last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = itertools.count(1)
        self._served: dict[int, int] = {}
        #: What was chosen and found locked, each time since then.
        self._locked: dict[Key, int] = {}

    async def claim(self, slots: Mapping[str, int], lease: Lease) -> list[Task]:
        """Lease tasks that are due: of each kind as many as ``slots`` says, at most.

        Of one kind and subject nothing is given out while such a task runs. Kinds not named are left alone.
        """
        _, taken = await self.turn([], slots, lease)
        return taken

    async def turn(
        self, endings: Sequence[Ending], slots: Mapping[str, int], lease: Lease
    ) -> tuple[set[Key], list[Task]]:
        """Write down how attempts ended and claim others, in one transaction.

        Answers which of the tasks that ended were still held, and what was claimed; see :meth:`claim`.

        Raises:
            Contended: nothing of it was done; :class:`storage.database.Locked` if others have locked a row, or a
                place in an index, for long.
        """
        now = lease.clock()
        slots = {kind: count for kind, count in slots.items() if count > 0}
        keys: list[Key] = []
        if slots and not endings:
            # Looking does not need the one writer of SQLite, and mostly there is nothing.
            keys = await self._database.read(self._choose, slots, now)
        if not keys and not endings:
            return set(), []

        def work(connection: Connection) -> tuple[set[Key], list[Key], list[Task]]:
            queries.limit_waiting(connection)
            held = queries.end(connection, endings, lease.name, lease.clock())
            chosen = keys or (self._choose(connection, slots, now) if slots else [])
            return held, chosen, _take(connection, chosen, lease) if chosen else []

        held, chosen, taken = await self._write(work)
        if slots:
            taken += await self._take_locked(chosen, taken, lease)
        for task in taken:
            self._served[task.team_id] = next(self._turn)
        return held, taken

    async def _take_locked(self, chosen: Sequence[Key], taken: Sequence[Task], lease: Lease) -> list[Task]:
        """Take what could not be taken for long, by waiting in line for it.

        A subject of which others enqueue without pause is locked at every single look.
        """
        now = lease.clock()
        missed = set(chosen) - {(task.team_id, task.task_id) for task in taken}
        self._locked = {key: self._locked.get(key, now) for key in missed}
        for key, since in self._locked.items():
            if now - since > _PATIENCE_US:
                self._locked[key] = now  # the next such wait is not soon, whatever becomes of this one
                with suppress(Contended, Unavailable):
                    return await self._database.write(_wait_for, key, lease)
        return []

    def _choose(self, connection: Connection, slots: Mapping[str, int], now: int) -> list[Key]:
        found = queries.candidates(connection, slots, self._served, now)
        return [candidate.key for candidate in choose(found, slots, self._served)]

    async def heartbeat(self, keys: Sequence[Key], lease: Lease) -> set[Key]:
        """Prolong leases; answers which are still held. What is missing may be running elsewhere, or its end is
        being written down at this moment."""
        if not keys:
            return set()

        def work(connection: Connection) -> set[Key]:
            queries.limit_waiting(connection)
            return queries.extend(connection, keys, lease.name, lease.clock() + lease.length)

        return await self._write(work)

    async def exhausted(self, kinds: Collection[str], now: int) -> list[Task]:
        """Tasks whose worker vanished for the last time, whoever had them. Nobody is given them any more."""
        return await self._database.read(queries.exhausted, kinds, now)

    async def bury(self, key: Key, now: int) -> bool:
        """Let such a task die; answers whether it still was one."""
        return await self._write(queries.bury, key, now)

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
            except Locked:
                raise  # so will the next attempt be
            except Contended:
                continue  # whoever won has committed; seen again, what is to do is clear
        return await self._database.write(work, *arguments)


def _take(connection: Connection, keys: Sequence[Key], lease: Lease, *, wait: bool = False) -> list[Task]:
    now = lease.clock()
    return queries.take(connection, keys, lease.name, now + lease.length, now, wait=wait)


def _wait_for(connection: Connection, key: Key, lease: Lease) -> list[Task]:
    queries.limit_waiting(connection)
    return _take(connection, [key], lease, wait=True)


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
