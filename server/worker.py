"""The worker: takes tasks from the queue and runs their handlers.

A handler that returns has done the task. One that raises is run again, ever later, up to twelve times; then
the task is dead, kept for an administrator to look at and to replay. While a handler runs, its lease is
prolonged, so that a task is given to another worker only if this one has vanished.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import SystemRandom

from server.clock import now
from storage.database import Contended, Unavailable
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Ending, Key, Task, TaskQueue, new_lease

log = logging.getLogger("fieldsync.worker")

Handler = Callable[[Task], Awaitable[object]]

#: Seconds after the first, second, … failed attempt; after all further ones the last.
DELAYS = (5, 30, 120, 600, 3600)
JITTER = 0.2
CONCURRENCY = 4
#: Seconds for further attempts to end, unless a good part of what may run has already: they share a look.
_GATHER_SECONDS = 0.005
_SECOND = 1_000_000
#: Not the module's own generator: whoever seeds that decides for everything in the process.
_random = SystemRandom()
#: Stopping: for what was cancelled; how often, and after what time, the last endings are written down again; and
#: all that is beyond the time for what runs.
_HAND_BACK_SECONDS = 5.0
_LAST_TRIES = 3
_LAST_TRY_SECONDS = 0.3
_STOP_MORE_SECONDS = 8.0
_UNWRITABLE = "The error could not be written down; see the log."


class Retry(Exception):
    """Not yet: run the task again after some seconds. Does not count as a failure."""

    def __init__(self, after_seconds: float) -> None:
        super().__init__(f"again after {after_seconds} s")
        self.after_seconds = after_seconds


class GiveUp(Exception):
    """No attempt will ever succeed: the task is dead at once."""


def delay_after(attempts: int) -> float | None:
    """Seconds until the next attempt after ``attempts`` that failed; None if there is no other."""
    if attempts >= MAX_ATTEMPTS:
        return None
    base = DELAYS[min(attempts, len(DELAYS)) - 1]
    return base * _random.uniform(1 - JITTER, 1 + JITTER)


@dataclass(eq=False)
class _Run:
    """A task in hand."""

    task: Task
    job: asyncio.Task[Ending | None] | None = None
    #: How it ended, once it has and that is being written down; and until when (loop time) that is tried.
    ending: Ending | None = None
    tried_until: float = 0
    #: We cancelled it: its lease is another's, or it is handed back. Other cancellations are failures.
    lost: bool = False
    handed_back: bool = False

    @property
    def key(self) -> Key:
        return self.task.team_id, self.task.task_id

    def __str__(self) -> str:
        return f"task {self.task.task_id} ({self.task.kind} {self.task.subject})"


class Worker:
    """Runs the handlers of the kinds it knows; other kinds are left to other workers.

    Args:
        handlers: by kind.
        on_dead: by kind, what is done about a task that dies. It must stand being called again; if it
            fails, that is logged and the task dies all the same.
        concurrency: how many of a kind run at once, for all kinds or by kind (default 4).
        lease_seconds: how long a task is ours without a sign of life; three of these fit into it.
        poll_seconds: how often it looks for tasks when nobody wakes it.
        limit_seconds: how long a handler may run before it is cancelled, which is a failed attempt.
        stop_seconds: how long stopping waits for what runs.
    """

    def __init__(
        self,
        queue: TaskQueue,
        handlers: Mapping[str, Handler],
        on_dead: Mapping[str, Handler] | None = None,
        *,
        concurrency: Mapping[str, int] | int = CONCURRENCY,
        lease_seconds: float = 60,
        poll_seconds: float = 1,
        limit_seconds: float = 900,
        stop_seconds: float = 20,
    ) -> None:
        self._queue = queue
        self._handlers = dict(handlers)
        self._on_dead = dict(on_dead or {})
        self._slots = {
            kind: concurrency if isinstance(concurrency, int) else concurrency.get(kind, CONCURRENCY)
            for kind in handlers
        }
        self._lease = new_lease(int(lease_seconds * _SECOND), now)
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._limit_seconds = limit_seconds
        self._stop_seconds = stop_seconds
        self._awake = asyncio.Event()
        self._stopping = False
        self._ended = asyncio.Event()
        self._ended.set()
        self._running: dict[Key, _Run] = {}
        #: What has ended, and is to be written down: with the next look, or apart from it.
        self._ends: list[_Run] = []
        self._delayed: list[_Run] = []
        self._available = True
        self._heartbeat: asyncio.Task[None] | None = None
        self._undertaker: asyncio.Task[None] | None = None
        self._second: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There may be something to do now. From the event loop's thread."""
        self._awake.set()

    async def run(self) -> None:
        """Work until :meth:`stop`. Nothing that happens to a task or to the storage ends it."""
        if self._stopping:
            return
        self._ended.clear()
        self._heartbeat = asyncio.create_task(self._beat(), name="heartbeat")
        try:
            while not self._stopping:
                self._awake.clear()
                await self._turn()
                if not self._stopping:
                    await self._sleep()
        finally:
            if not self._stopping:
                self._heartbeat.cancel()
            self._ended.set()

    async def stop(self) -> None:
        """Take nothing more; wait for what runs, then hand back the rest.

        What ends meanwhile is written down at once. If all this takes too long, the rest is run again when its
        lease ends.
        """
        self._stopping = True
        self.wake()
        try:
            async with asyncio.timeout(self._stop_seconds + _STOP_MORE_SECONDS):
                await self._ended.wait()
                await self._wait_for_all(self._stop_seconds)
                for run in list(self._running.values()):
                    if run.job is not None and run.ending is None:
                        run.handed_back = True
                        run.job.cancel()
                await self._wait_for_all(_HAND_BACK_SECONDS)
                await self._write_down_all()
        except TimeoutError:
            log.warning("stopping took too long; %d tasks are run again", len(self._running))
        # Not before: what runs to its end while we stop must stay ours, however short the lease.
        for side_task in (self._heartbeat, self._undertaker, self._second):
            if side_task is not None:
                side_task.cancel()

    async def _wait_for_all(self, seconds: float) -> None:
        """For what runs to end, and write that down meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0 and (
            jobs := [run.job for run in self._running.values() if run.job is not None and run.ending is None]
        ):
            await asyncio.wait(jobs, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            await self._turn()

    async def _write_down_all(self) -> None:
        for _ in range(_LAST_TRIES):
            await self._turn()
            if self._second is not None:
                await asyncio.wait([self._second])
            if not self._ends and not self._delayed:
                return
            await asyncio.sleep(_LAST_TRY_SECONDS)

    async def _sleep(self) -> None:
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._awake.wait()
        except TimeoutError:
            return
        free = self._free()
        kinds = {run.task.kind for run in self._ends}
        if kinds and not self._stopping and all(free[kind] * 2 < self._slots[kind] for kind in kinds):
            await asyncio.sleep(_GATHER_SECONDS)

    def _free(self) -> dict[str, int]:
        """How many more of each kind may run now."""
        free = dict(self._slots)
        for run in self._running.values():
            if run.ending is None:
                free[run.task.kind] -= 1
        return free

    async def _turn(self) -> None:
        """Write down what has ended, and begin what is due if there is room for it."""
        ends, self._ends = self._ends, []
        if self._delayed and (self._second is None or self._second.done()):
            self._second = asyncio.create_task(self._write_delayed(), name="delayed endings")
        again = await self._write_down(ends, {} if self._stopping else self._free())
        self._delayed += again

    async def _write_delayed(self) -> None:
        """Write down what may have to wait for other transactions, or has failed: apart, so that nothing waits
        for it."""
        again: list[_Run] = []
        while self._delayed:
            ends, self._delayed = self._delayed, []
            again += await self._write_down(ends, {})
        self._delayed = again  # at the next poll

    async def _write_down(self, ends: Sequence[_Run], slots: Mapping[str, int]) -> list[_Run]:
        """Write down how attempts ended, and begin what is due; answers of what that is to be tried again."""
        endings = [run.ending for run in ends if run.ending is not None]
        try:
            held, taken = await self._queue.turn(endings, slots, self._lease)
        except Exception as error:
            if len(ends) > 1 and not isinstance(error, Unavailable):
                # One of them may be the reason, and shall not take the others with it.
                return [run for each in ends for run in await self._write_down([each], {})]
            return self._trouble(error, ends)
        if not self._available:
            log.info("the storage answers again")
            self._available = True
        for run in ends:
            del self._running[run.key]
            if run.key not in held:
                log.warning("%s was not ours any more at its end", run)
        for task in taken:
            run = _Run(task)
            if run.key in self._running:
                continue  # our own lease had run out, unnoticed; it is prolonged now
            self._running[run.key] = run
            run.job = asyncio.create_task(self._attempt(run), name=str(run))
            # Of a task that is cancelled before it begins nothing runs, but this is called.
            run.job.add_done_callback(partial(self._over, run))
        return []

    def _trouble(self, error: Exception, ends: Sequence[_Run]) -> list[_Run]:
        is_passing = isinstance(error, Unavailable | Contended)
        if not is_passing:
            log.error("looking for tasks or writing down how one ended failed", exc_info=error)
        elif isinstance(error, Contended):
            log.warning("tasks wait for another transaction: %s", error)
        elif self._available:
            log.warning("the storage does not answer; tasks wait: %s", error)
            self._available = False
        again = []
        for run in ends:
            if not is_passing and run.ending is not None and run.ending.error is not None:
                run.ending = run.ending._replace(error=_UNWRITABLE)
            if asyncio.get_running_loop().time() < run.tried_until:
                again.append(run)
            else:
                log.warning("%s ended, which could not be written down; it is run again", run)
                del self._running[run.key]
        return again

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        interval = self._lease_seconds / 3
        due = loop.time()
        while True:
            # By the clock, however long the last one took.
            due = max(due + interval, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                held = dict(self._running)
                still = await self._queue.heartbeat(list(held), self._lease)
            except Exception as error:
                # The next beat comes before the lease ends.
                log.warning("prolonging leases failed: %s", error)
                continue
            for key, run in held.items():
                if key not in still and run.job is not None and run.ending is None:
                    log.warning("%s is not ours any more", run)
                    run.lost = True
                    run.job.cancel()
            if not self._stopping and (self._undertaker is None or self._undertaker.done()):
                self._undertaker = asyncio.create_task(self._bury(), name="undertaker")

    async def _bury(self) -> None:
        """Let those tasks die whose workers have vanished too often, whoever had them."""
        try:
            for task in await self._queue.exhausted(list(self._handlers), now()):
                log.error("task %s (%s %s): its workers vanished", task.task_id, task.kind, task.subject)
                # Before it is dead, for then nobody would do it any more if this process were to end here.
                await self._last_rites(task)
                await self._queue.bury((task.team_id, task.task_id), now())
        except Exception as error:
            log.warning("tasks whose workers vanished are looked for again: %s", error)

    async def _last_rites(self, task: Task) -> None:
        handler = self._on_dead.get(task.kind)
        if handler is None:
            return
        try:
            async with asyncio.timeout(self._limit_seconds):
                await handler(task)
        except Exception:
            log.exception("what is done when task %s (%s) dies failed", task.task_id, task.kind)

    def _over(self, run: _Run, job: asyncio.Task[Ending | None]) -> None:
        """An attempt has ended, in whatever way: it is removed, or its end written down."""
        if not job.cancelled() and job.exception() is None:
            run.ending = job.result()
        elif not run.lost:
            if not job.cancelled():
                log.error("%s: its end failed; again in %d s", run, DELAYS[0], exc_info=job.exception())
            delay = 0 if run.handed_back else DELAYS[0]
            run.ending = Ending(run.key, "waits", run_at=now() + delay * _SECOND, counted=False)
        if run.ending is None:
            del self._running[run.key]  # it is another's
        else:
            run.tried_until = asyncio.get_running_loop().time() + self._lease_seconds
            # Whoever is to wait may first have to wait for those who enqueue the same.
            (self._delayed if run.ending.state == "waits" else self._ends).append(run)
        self.wake()

    async def _attempt(self, run: _Run) -> Ending | None:
        """Run the handler; answers how that ended, or None if the lease was lost meanwhile."""
        key = run.key
        try:
            async with asyncio.timeout(self._limit_seconds):
                await self._handlers[run.task.kind](run.task)
        except asyncio.CancelledError:
            if run.lost:
                return None
            if run.handed_back:
                return Ending(key, "waits", run_at=now(), counted=False)
            return await self._failed(run, "cancelled")
        except Retry as retry:
            run_at = now() + int(max(retry.after_seconds, 0) * _SECOND)
            return Ending(key, "waits", run_at=run_at, counted=False)
        except GiveUp as reason:
            log.error("%s was given up: %s", run, reason)
            await self._last_rites(run.task)
            return Ending(key, "dead", str(reason))
        except Exception as error:
            return await self._failed(run, _describe(error), error)
        return Ending(key, "done")

    async def _failed(self, run: _Run, why: str, error: Exception | None = None) -> Ending:
        attempts = run.task.attempts
        delay = delay_after(attempts)
        if delay is None:
            log.error("%s failed, attempt %d; it is dead now", run, attempts, exc_info=error)
            await self._last_rites(run.task)
            return Ending(run.key, "dead", why)
        log.warning("%s failed, attempt %d; again in %.0f s", run, attempts, delay, exc_info=error)
        return Ending(run.key, "waits", why, now() + int(delay * _SECOND))


def _describe(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # whatever a library makes of it
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
