"""Blocking work in threads, such that an awaiting task may be cancelled at any moment."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """A pool of threads of its own, so that a slow store of files holds up nothing else."""

    def __init__(self, count: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(
        self, function: Callable[..., T], *arguments: Any, discard: Callable[[T], object] | None = None
    ) -> T:
        """Call ``function`` in a thread.

        What has been submitted runs to its end also if the caller is cancelled. ``discard`` gets the result
        then, for which nobody is left.
        """
        try:
            future = self._pool.submit(function, *arguments)
        except RuntimeError:
            raise OSError("the store of files is closed") from None
        waiting = asyncio.wrap_future(future)
        try:
            # Without the shield, work that has not begun would be cancelled along with the caller.
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if discard is not None:
                future.add_done_callback(_discarder(discard))
            raise

    async def clean_up(self, function: Callable[..., object], *arguments: Any) -> None:
        """As :meth:`run`; where nothing can be run any more, at once."""
        try:
            future = self._pool.submit(function, *arguments)
        except RuntimeError:
            function(*arguments)
            return
        await asyncio.shield(asyncio.wrap_future(future))

    def start(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call ``function`` in a thread some time soon; for cleaning up where nothing can be awaited."""
        try:
            self._pool.submit(function, *arguments)
        except RuntimeError:  # closed: something that was forgotten is being collected
            function(*arguments)

    def close(self) -> None:
        """Wait for what was begun; nothing can be run any more."""
        self._pool.shutdown(wait=True)


def _discarder(discard: Callable[[T], object]) -> Callable[["Future[T]"], None]:
    def done(future: "Future[T]") -> None:
        if future.exception() is None:
            discard(future.result())

    return done
