"""The worker's loop on a real queue: repeating, giving up, stopping, living through a storage that fails."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from server import worker as module
from server.clock import now
from server.worker import GiveUp, Retry, Worker, delay_after
from storage.database import Connection, Locked, Unavailable, open_database, sqlite_url
from storage.queries import tasks as queries
from storage.queries.tasks import TaskRow, enqueue
from storage.queue import Task, TaskQueue, new_lease

WAIT_SECONDS = 10.0


class Bench:
    """A queue and the workers on it; everything on one event loop."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(sqlite_url(folder / "fieldsync.db"))
        self.queue = TaskQueue(self.database)
        self.workers: list[tuple[Worker, asyncio.Task[None]]] = []

    def start(self, handlers: dict[str, Any], **options: Any) -> Worker:
        worker = Worker(self.queue, handlers, **{"poll_seconds": 0.02, **options})
        self.workers.append((worker, asyncio.create_task(worker.run())))
        return worker

    async def enqueue(self, subject: str = "s", kind: str = "k") -> None:
        def work(connection: Connection) -> None:
            enqueue(connection, 1, kind, subject, now=now())

        await self.database.write(work)

    async def rows(self, state: str | None = None) -> list[TaskRow]:
        return await self.database.read(queries.page, 1, state, 0, 100)

    async def until(self, state: str, count: int = 1) -> list[TaskRow]:
        """The tasks in a state, once there are that many."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(rows := await self.rows(state)) < count:
            assert time.monotonic() < deadline, await self.rows()
            await asyncio.sleep(0.01)
        return rows

    async def close(self) -> None:
        for worker, running in self.workers:
            await worker.stop()
            await running
        await self.database.close()


Play = Callable[[Callable[[Bench], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs a scenario on a bench of its own."""

    def run(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            bench = Bench(tmp_path)
            await bench.database.migrate()
            try:
                await scenario(bench)
            finally:
                await bench.close()

        asyncio.run(main())

    return run


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed attempts are repeated without waiting."""
    monkeypatch.setattr(module, "DELAYS", (0,))


async def hang(_task: Task) -> None:
    await asyncio.sleep(3600)


def test_a_handler_that_returns_has_done_its_task(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        seen: list[str] = []

        async def handler(task: Task) -> None:
            seen.append(task.subject)

        bench.start({"k": handler})
        await bench.enqueue("photo")
        await bench.until("done")
        assert seen == ["photo"]

    play(scenario)


@pytest.mark.usefixtures("at_once")
def test_a_handler_that_fails_is_run_again_until_it_succeeds(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def handler(task: Task) -> None:
            if task.attempts < 4:
                raise LookupError(f"attempt {task.attempts}")

        bench.start({"k": handler})
        await bench.enqueue()
        (row,) = await bench.until("done")
        assert row.attempts == 4

    play(scenario)


@pytest.mark.usefixtures("at_once")
def test_a_handler_that_always_fails_leaves_a_dead_task_with_the_reason(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def handler(_task: Task) -> None:
            raise LookupError("no such thing")

        bench.start({"k": handler})
        await bench.enqueue()
        (row,) = await bench.until("dead")
        assert (row.attempts, row.error) == (12, "LookupError: no such thing")

    play(scenario)


def test_waits_between_attempts_grow_to_an_hour() -> None:
    bases = [5, 30, 120, 600, *[3600] * 7]
    for attempts, base in enumerate(bases, 1):
        delays = [delay_after(attempts) or 0 for _ in range(200)]
        assert base * 0.8 <= min(delays) < base < max(delays) <= base * 1.2
    assert delay_after(12) is None


def test_giving_up_ends_a_task_at_the_first_attempt(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def handler(_task: Task) -> None:
            raise GiveUp("gone for good")

        bench.start({"k": handler})
        await bench.enqueue()
        (row,) = await bench.until("dead")
        assert (row.attempts, row.error) == (1, "gone for good")

    play(scenario)


def test_not_yet_is_no_failure(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        runs = 0

        async def handler(_task: Task) -> None:
            nonlocal runs
            runs += 1
            if runs <= 20:
                raise Retry(0.001)

        bench.start({"k": handler})
        await bench.enqueue()
        (row,) = await bench.until("done")
        assert (runs, row.attempts) == (21, 1)

    play(scenario)


def test_a_handler_that_hangs_does_not_block_other_kinds(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def quick(_task: Task) -> None:
            return

        bench.start({"hangs": hang, "quick": quick}, concurrency={"hangs": 1}, stop_seconds=0.05)
        for number in range(5):
            await bench.enqueue(f"{number}", "hangs")
        await bench.until("running")
        for number in range(20):
            await bench.enqueue(f"{number}", "quick")
        done = await bench.until("done", 20)
        assert {row.kind for row in done} == {"quick"}
        assert len(await bench.rows("running")) == 1

    play(scenario)


def test_a_handler_that_takes_too_long_is_a_failed_attempt(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        bench.start({"k": hang}, limit_seconds=0.05)
        await bench.enqueue()
        (row,) = await bench.until("retry")
        assert (row.attempts, row.error) == (1, "TimeoutError")

    play(scenario)


def test_a_handler_that_cancels_itself_is_a_failed_attempt(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def handler(_task: Task) -> None:
            raise asyncio.CancelledError

        bench.start({"k": handler})
        await bench.enqueue()
        (row,) = await bench.until("retry")
        assert (row.attempts, row.error) == (1, "cancelled")

    play(scenario)


def test_stopping_waits_for_what_runs(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        async def handler(_task: Task) -> None:
            await asyncio.sleep(0.3)

        worker = bench.start({"k": handler})
        await bench.enqueue()
        await bench.until("running")
        await worker.stop()
        assert [row.state for row in await bench.rows()] == ["done"]

    play(scenario)


def test_while_stopping_a_task_stays_ours_although_its_lease_is_short(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        runs = 0

        async def handler(_task: Task) -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(2.5)

        worker = bench.start({"k": handler}, lease_seconds=1)
        await bench.enqueue()
        await bench.until("running")
        bench.start({"k": handler}, lease_seconds=1)
        await worker.stop()
        (row,) = await bench.until("done")
        assert (runs, row.attempts) == (1, 1)

    play(scenario)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("how", ["fails twelve times", "gives up", "its workers vanish"])
def test_when_a_task_dies_its_kind_hears_of_it(play: Play, how: str) -> None:
    async def scenario(bench: Bench) -> None:
        dead: list[str] = []
        heard = asyncio.Event()

        async def handler(_task: Task) -> None:
            raise GiveUp("no") if how == "gives up" else LookupError("no")

        async def died(task: Task) -> None:
            dead.append(task.subject)
            heard.set()
            raise LookupError("which keeps no task alive")

        await bench.enqueue("photo")
        if how == "its workers vanish":
            for attempt in range(12):
                moment = now() + attempt
                await bench.queue.claim({"k": 1}, new_lease(1, partial(int, moment)))
        bench.start({"k": handler}, on_dead={"k": died}, lease_seconds=0.3)
        await bench.until("dead")
        async with asyncio.timeout(WAIT_SECONDS):
            await heard.wait()
        assert dead == ["photo"]

    play(scenario)


def test_stopping_hands_back_what_does_not_end(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        worker = bench.start({"k": hang}, stop_seconds=0.05)
        await bench.enqueue()
        await bench.until("running")
        await worker.stop()
        (task,) = await bench.queue.claim({"k": 1}, new_lease(1_000_000, now))
        assert task.attempts == 1

    play(scenario)


def test_a_stopped_worker_takes_nothing_more(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        worker = bench.start({"k": hang})
        await worker.stop()
        await bench.enqueue()
        await asyncio.sleep(0.1)
        assert [row.state for row in await bench.rows()] == ["ready"]

    play(scenario)


def test_a_handler_longer_than_the_lease_keeps_its_task(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        runs = 0

        async def handler(_task: Task) -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(1)

        for _ in range(2):
            bench.start({"k": handler}, lease_seconds=0.3)
        await bench.enqueue()
        (row,) = await bench.until("done")
        assert (runs, row.attempts) == (1, 1)

    play(scenario)


def test_a_handler_whose_lease_went_to_another_is_cancelled(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        ended = asyncio.Event()

        async def handler(_task: Task) -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.set()

        bench.start({"k": handler}, lease_seconds=0.3)
        await bench.enqueue()
        await bench.until("running")
        # As if this process had slept: in the eyes of another its lease ended long ago.
        later = now() + 3_600_000_000
        (task,) = await bench.queue.claim({"k": 1}, new_lease(later, lambda: later))
        async with asyncio.timeout(WAIT_SECONDS):
            await ended.wait()
        assert [(row.state, row.attempts) for row in await bench.rows()] == [("running", task.attempts)]

    play(scenario)


def test_a_storage_that_fails_ends_neither_the_loop_nor_a_task(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Bench) -> None:
        broken = False
        began = asyncio.Event()
        write = bench.database.write
        read = bench.database.read

        async def failing_write(*arguments: Any) -> Any:
            if broken:
                raise Unavailable("the disk is full")
            return await write(*arguments)

        async def failing_read(*arguments: Any) -> Any:
            if broken:
                raise Unavailable("the disk is gone")
            return await read(*arguments)

        async def handler(_task: Task) -> None:
            began.set()
            await asyncio.sleep(0.1)

        bench.start({"k": handler}, concurrency=1)
        await bench.enqueue("before")
        await began.wait()
        await bench.enqueue("waits")
        monkeypatch.setattr(bench.database, "write", failing_write)
        monkeypatch.setattr(bench.database, "read", failing_read)
        broken = True
        await asyncio.sleep(0.3)
        broken = False
        done = await bench.until("done", 2)
        assert {row.attempts for row in done} == {1}

    play(scenario)


def test_a_wake_up_is_quicker_than_the_poll(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        began = asyncio.Event()

        async def handler(_task: Task) -> None:
            began.set()

        worker = bench.start({"k": handler}, poll_seconds=3600)
        await asyncio.sleep(0.1)
        await bench.enqueue()
        worker.wake()
        async with asyncio.timeout(2):
            await began.wait()
        await bench.until("done")

    play(scenario)


@pytest.mark.usefixtures("at_once")
def test_an_end_that_cannot_be_written_keeps_no_other_from_being_written(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Bench) -> None:
        change = queries._change

        def fails_for_odd_texts(*arguments: Any, **values: Any) -> bool:
            if "odd" in (values.get("error") or ""):
                raise LookupError("the driver cannot encode it")
            return change(*arguments, **values)

        monkeypatch.setattr(queries, "_change", fails_for_odd_texts)

        async def handler(task: Task) -> None:
            raise GiveUp(f"for {task.subject} reasons")

        for subject in ("one", "odd", "two"):
            await bench.enqueue(subject)
        bench.start({"k": handler})
        errors = {row.subject: row.error for row in await bench.until("dead", 3)}
        assert errors == {"one": "for one reasons", "two": "for two reasons", "odd": module._UNWRITABLE}
        await bench.enqueue("later")
        await bench.until("dead", 4)

    play(scenario)


def test_an_end_that_others_hold_up_holds_up_nothing_else(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Bench) -> None:
        turn = bench.queue.turn
        held_up = True

        async def slow_turn(endings: Any, slots: Any, lease: Any) -> Any:
            if held_up and any(ending.state == "waits" for ending in endings):
                await asyncio.sleep(0.2)
                raise Locked("somebody enqueues the same")
            return await turn(endings, slots, lease)

        monkeypatch.setattr(bench.queue, "turn", slow_turn)

        async def handler(task: Task) -> None:
            if task.subject == "held up" and task.attempts == 1 and held_up:
                raise Retry(0)

        bench.start({"k": handler}, concurrency=1, lease_seconds=30)
        await bench.enqueue("held up")
        await bench.until("running")
        for number in range(10):
            await bench.enqueue(f"{number}")
        await bench.until("done", 10)
        assert [row.subject for row in await bench.rows("running")] == ["held up"]
        held_up = False
        await bench.until("done", 11)

    play(scenario)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("error", [GiveUp("whose last rites are cancelled"), Retry(float("inf"))])
def test_an_attempt_whose_end_fails_is_handed_back(play: Play, error: Exception) -> None:
    async def scenario(bench: Bench) -> None:
        runs = 0

        async def handler(_task: Task) -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                raise error

        async def died(_task: Task) -> None:
            raise asyncio.CancelledError

        worker = bench.start({"k": handler}, on_dead={"k": died})
        await bench.enqueue()
        (row,) = await bench.until("done")
        assert (runs, row.attempts) == (2, 1)
        assert worker._free() == {"k": module.CONCURRENCY}

    play(scenario)


@pytest.mark.usefixtures("at_once")
def test_a_task_that_is_cancelled_before_it_begins_is_handed_back(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = asyncio.create_task
    jobs: list[asyncio.Task[Any]] = []

    def create_cancelled(work: Any, *, name: str | None = None) -> asyncio.Task[Any]:
        job = create(work, name=name)
        if (name or "").startswith("task "):
            jobs.append(job)
            if len(jobs) == 1:
                job.cancel()
        return job

    async def scenario(bench: Bench) -> None:
        async def handler(_task: Task) -> None:
            pass

        bench.start({"k": handler}, concurrency=1)
        await bench.enqueue()
        (row,) = await bench.until("done")
        assert (len(jobs), row.attempts) == (2, 1)

    monkeypatch.setattr(asyncio, "create_task", create_cancelled)
    play(scenario)


def test_what_ends_while_the_worker_stops_is_written_down_at_once(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        quick, slow = asyncio.Event(), asyncio.Event()

        async def handler(task: Task) -> None:
            await (quick if task.subject == "quick" else slow).wait()

        worker = bench.start({"k": handler})
        for subject in ("quick", "slow"):
            await bench.enqueue(subject)
        await bench.until("running", 2)
        stopping = asyncio.create_task(worker.stop())
        await asyncio.sleep(0.1)
        quick.set()
        assert [row.subject for row in await bench.until("done")] == ["quick"]
        assert not stopping.done()
        slow.set()
        await stopping
        assert len(await bench.rows("done")) == 2

    play(scenario)


def test_the_last_ends_are_written_down_although_the_storage_fails_for_a_moment(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(bench: Bench) -> None:
        write = bench.database.write
        failures = 2

        async def failing_write(*arguments: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise Unavailable("the disk is full")
            return await write(*arguments)

        worker = bench.start({"k": hang}, stop_seconds=0.05)
        await bench.enqueue()
        await bench.until("running")
        monkeypatch.setattr(bench.database, "write", failing_write)
        await worker.stop()
        assert [row.state for row in await bench.rows()] == ["retry"]

    play(scenario)


def test_stopping_comes_to_an_end_though_the_storage_hangs(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STOP_MORE_SECONDS", 0.3)

    async def scenario(bench: Bench) -> None:
        worker = bench.start({"k": hang}, stop_seconds=0.05)
        await bench.enqueue()
        await bench.until("running")
        monkeypatch.setattr(bench.database, "write", lambda *_: asyncio.Event().wait())
        async with asyncio.timeout(WAIT_SECONDS):
            await worker.stop()

    play(scenario)


def test_last_rites_hold_up_no_heartbeat_and_come_before_the_end(play: Play) -> None:
    async def scenario(bench: Bench) -> None:
        beginning, over = asyncio.Event(), asyncio.Event()

        async def handler(_task: Task) -> None:
            await asyncio.sleep(1.2)

        async def died(_task: Task) -> None:
            beginning.set()
            await over.wait()

        await bench.enqueue("photo")
        for attempt in range(12):
            moment = now() + attempt
            await bench.queue.claim({"k": 1}, new_lease(1, partial(int, moment)))
        for _ in range(2):
            bench.start({"k": handler}, on_dead={"k": died}, lease_seconds=0.3)
        async with asyncio.timeout(WAIT_SECONDS):
            await beginning.wait()
        await bench.enqueue("runs for four leases")
        (row,) = await bench.until("done")
        assert row.attempts == 1
        assert [row.subject for row in await bench.rows("running")] == ["photo"]
        over.set()
        await bench.until("dead")

    play(scenario)
