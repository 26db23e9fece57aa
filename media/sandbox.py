"""The limited process pool: whatever reads files of strangers does it here, never in the server.

A worker may take so much memory and so much time; one that takes more, or crashes, fails its own file and is
replaced. One that somebody else ends (the system that is short of memory, an operator, the end of the service)
says nothing about its file: :class:`Interrupted`. The processes start with the first file, run at low priority
and end with the server.
"""

import asyncio
import ctypes
import gc
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import forkserver
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from media.formats import Refused

__all__ = ["Interrupted", "Refused", "Sandbox"]

T = TypeVar("T")
log = logging.getLogger("fieldsync.sandbox")

#: Address space of a worker, bytes. A picture of 80 million pixels with alpha takes 320 MB, and a copy.
MEMORY = 1_000_000_000
_SECONDS = 20.0
#: On a busy machine a worker waits for the processor, more than others as its priority is low; a file is not refused for
#: that. So the seconds are of the processor, and of the clock so many times more.
_PATIENCE = 3
#: Files a worker handles before it is replaced: whatever a codec leaks goes with it.
_MAX_TASKS = 200
_NICE = 10
_PR_SET_PDEATHSIG = 1
#: How a worker ends that somebody else ends. 255: the fork server was ended too, and nobody tells how the worker
#: ended (``multiprocessing.popen_forkserver``).
_FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGKILL, -signal.SIGINT, -signal.SIGHUP, 255}


class Interrupted(Exception):
    """The worker was ended from outside. The file may be read another time."""


class Sandbox:
    """The pool. ``workers``: how many files are read at once.

    ``warm_up`` is done by each worker before its first file: it loads what the fork server does not, because its
    memory would then be every worker's of every pool. Must be picklable; what it raises is passed over.
    """

    def __init__(
        self, workers: int = 2, memory: int = MEMORY, warm_up: Callable[[], object] | None = None
    ) -> None:
        self.workers = workers
        self._memory = memory
        self._warm_up = warm_up
        self._pool: ProcessPool | None = None

    async def run(self, function: Callable[..., T], *args: Any, seconds: float = _SECONDS) -> T:
        """``function(*args)`` in a worker. Both must be picklable.

        Args:
            seconds: of processor time that it may take; three times as long by the clock.

        Raises:
            Refused: it took too long or too much memory, or crashed; or the function raised it.
            Interrupted: somebody else ended the worker.
        """
        counted, patience = (seconds, function, *args), seconds * _PATIENCE
        try:
            pool = self._started()
            future = pool.schedule(_counted, args=counted, timeout=patience)
        except RuntimeError:
            # Pebble gives up a pool of which a worker was killed while it had nothing to do.
            await self.close()
            pool = self._started()
            future = pool.schedule(_counted, args=counted, timeout=patience)
        try:
            result: T = await asyncio.wrap_future(future)
        except TimeoutError:
            raise Refused(f"It took longer than {patience:.0f} seconds.") from None
        except MemoryError:
            raise Refused(f"It needs more than {self._memory // 1_000_000:,} MB of memory.") from None
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGPROF:
                raise Refused(f"It took longer than {seconds:.0f} seconds.") from None
            log.warning("a worker ended with status %s", error.exitcode)
            if error.exitcode in _FROM_OUTSIDE:
                raise Interrupted("The reader was ended from outside.") from None
            raise Refused("Reading it crashed the reader.") from None
        except BrokenProcessPool as error:
            # Workers or the fork server ended while none was known to have this file.
            if self._pool is pool:
                await self.close()  # the next file starts another one
            raise Interrupted(f"The readers were ended from outside: {error}.") from error
        except asyncio.CancelledError:
            future.cancel()  # type: ignore[no-untyped-call]
            raise
        return result

    def _started(self) -> ProcessPool:
        if self._pool is None:
            # A fork server: the server has threads, which do not survive a fork.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(["media.images", "media.video"])
            self._pool = ProcessPool(
                max_workers=self.workers,
                max_tasks=_MAX_TASKS,
                initializer=_limit,
                initargs=[self._memory, self._warm_up],
                context=context,
            )
        return self._pool

    async def close(self) -> None:
        """End the workers and what they do."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            await asyncio.to_thread(pool.join)


def _counted(seconds: float, function: Callable[..., T], *args: Any) -> T:
    """In a worker: end it, with SIGPROF, when it has used so much processor time."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return function(*args)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit(memory: int, warm_up: Callable[[], object] | None) -> None:
    """In a fresh worker: its limits, its end when its parent ends, and what it loads for all its files."""
    # The parent is the fork server. It ends when nobody holds the other end of a pipe any more, and Python
    # gives that end to every worker: one that is busy would keep both alive when the server was killed.
    watched = forkserver._forkserver._forkserver_alive_fd  # type: ignore[attr-defined]
    if watched is not None:
        os.close(watched)
        forkserver._forkserver._forkserver_alive_fd = None  # type: ignore[attr-defined]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends its workers itself
    # Pebble lets a worker that is told to end exit with a status, which looks like a crash.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)
    if warm_up is not None:
        # A worker that cannot start would take the pool with it. What is wrong, each of its files will say.
        with suppress(Exception):
            warm_up()
    gc.freeze()
