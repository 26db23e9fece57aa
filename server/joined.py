"""Work that goes on when its caller hangs up, and that others who ask for the same join."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Joined(Generic[K, T]):
    """What is under way in this process, by key."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of what is under way for ``key``, or else of what ``begin`` begins."""
        task = self._running.get(key)
        if task is None:
            task = self._started(key, begin())
        return await asyncio.shield(task)

    async def run_after(self, key: K, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of what ``begin`` begins once what is under way for ``key`` has ended."""
        return await asyncio.shield(self._started(key, self._after(self._running.get(key), begin)))

    async def close(self) -> None:
        """Let what is under way end."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _after(
        self, earlier: "asyncio.Task[T] | None", begin: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        if earlier is not None:
            await asyncio.wait([earlier])
        return await begin()

    def _started(self, key: K, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._running[key] = task
        task.add_done_callback(lambda done: self._done(key, done))
        return task

    def _done(self, key: K, task: "asyncio.Task[T]") -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have
