"""Who may use the printer now: templates of one team do not keep those of the others waiting."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from server.errors import Problem

#: Previews of one process at once, and of one team. Each waits for a worker that reports need as well, with a job and a
#: template of a megabyte in memory.
AT_ONCE, OF_A_TEAM = 4, 2


class Slots:
    """Places for previews. Who finds none is refused."""

    def __init__(self, at_once: int = AT_ONCE, of_a_team: int = OF_A_TEAM) -> None:
        self._at_once, self._of_a_team = at_once, of_a_team
        self._taken: Counter[int] = Counter()

    @contextmanager
    def place(self, team_id: int) -> Iterator[None]:
        """A place for the time of the block.

        Raises:
            Problem: 503 ``busy``.
        """
        if self._taken[team_id] >= self._of_a_team:
            raise Problem(
                503, "busy", f"{self._of_a_team} previews of your team are being made. Try again in a moment."
            )
        if self._taken.total() >= self._at_once:
            raise Problem(503, "busy", f"{self._at_once} previews are being made. Try again in a moment.")
        self._taken[team_id] += 1
        try:
            yield
        finally:
            self._taken[team_id] -= 1
            self._taken += Counter()  # without the teams that have none


class Lines:
    """Places for checks of templates, which take milliseconds: a team's others wait."""

    def __init__(self, of_a_team: int = OF_A_TEAM) -> None:
        self._of_a_team = of_a_team
        self._lines: dict[int, asyncio.Semaphore] = {}
        self._inside: Counter[int] = Counter()

    @asynccontextmanager
    async def place(self, team_id: int) -> AsyncIterator[None]:
        """A place for the time of the block, as soon as there is one."""
        line = self._lines.setdefault(team_id, asyncio.Semaphore(self._of_a_team))
        self._inside[team_id] += 1
        try:
            async with line:
                yield
        finally:
            self._inside[team_id] -= 1
            if not self._inside[team_id]:
                del self._inside[team_id], self._lines[team_id]
