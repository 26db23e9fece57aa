"""What every task queue must do, the same suite on each kind of database."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from storage.database import Connection, Database, Locked, open_database
from storage.queries import tasks as queries
from storage.queries.tasks import MAX_ATTEMPTS, TaskRow, enqueue
from storage.queue import Ending, Lease, Task, TaskQueue, new_lease

T = TypeVar("T")

#: An hour, and the moment at which the tests begin.
HOUR = 3600 * 1_000_000
NOW = 1_000 * HOUR
LEASE = 60 * 1_000_000
WAIT_SECONDS = 30.0


class Queue:
    """A queue on a database of its own, with two who take from it."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.database: Database = open_database(url)
        runner.run(self.database.migrate())
        self.queue = TaskQueue(self.database)
        self.other = TaskQueue(self.database)
        self.mine, self.theirs = lease(NOW), lease(NOW)

    def enqueue(self, subject: str = "s", *, team: int = 1, kind: str = "k", **options: Any) -> None:
        def work(connection: Connection) -> None:
            enqueue(connection, team, kind, subject, options.get("payload"), **times)

        times = {"now": options.get("now", NOW), "run_at": options.get("run_at", 0)}
        self.runner.run(self.database.write(work))

    def claim(
        self, limit: int = 10, *, now: int = NOW, kinds: tuple[str, ...] = ("k",), by_other: bool = False
    ) -> list[Task]:
        queue, lease = (self.other, self.theirs) if by_other else (self.queue, self.mine)
        slots = dict.fromkeys(kinds, limit)
        return self.runner.run(queue.claim(slots, at(lease, now)))

    def run(self, method: Callable[..., Any], *arguments: Any) -> Any:
        return self.runner.run(method(*arguments))

    def end(self, task: Task, state: Any, now: int = NOW, **how: Any) -> bool:
        ending = Ending(key(task), state, **how)
        held, taken = self.runner.run(self.queue.turn([ending], {}, at(self.mine, now)))
        assert not taken
        return held == {key(task)}

    def done(self, task: Task, now: int = NOW) -> bool:
        return self.end(task, "done", now)

    def fail(self, task: Task, retry_at: int | None, now: int = NOW, error: str = "why") -> bool:
        if retry_at is None:
            return self.end(task, "dead", now, error=error)
        return self.end(task, "waits", now, error=error, run_at=retry_at)

    def release(self, task: Task, run_at: int = NOW) -> bool:
        return self.end(task, "waits", run_at=run_at, counted=False)

    def all(self, state: str | None = None, team: int = 1) -> list[TaskRow]:
        return self.runner.run(self.database.read(queries.page, team, state, 0, 100))


def lease(now: int) -> Lease:
    """A lease of a name of its own; its clock stands still."""
    return new_lease(LEASE, lambda: now)


def at(lease: Lease, now: int) -> Lease:
    """The same lease at another time."""
    return lease._replace(clock=lambda: now)


def key(task: Task) -> tuple[int, str]:
    return task.team_id, task.task_id


def subjects(tasks: list[Task]) -> list[str]:
    return sorted(task.subject for task in tasks)


@pytest.fixture
def queue(database_url: str) -> Iterator[Queue]:
    with asyncio.Runner() as runner:
        opened = Queue(database_url, runner)
        yield opened
        runner.run(opened.database.close())


# Enqueueing


def test_without_a_commit_there_is_no_task(queue: Queue) -> None:
    def work(connection: Connection) -> None:
        enqueue(connection, 1, "k", "s", now=NOW)
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        queue.runner.run(queue.database.write(work))
    assert queue.all() == []
    assert queue.claim() == []


def test_with_the_commit_there_is_the_task(queue: Queue) -> None:
    queue.enqueue("photo", payload={"pages": [1, 2], "name": "Fotoßß"})
    (task,) = queue.claim()
    assert (task.team_id, task.kind, task.subject, task.attempts) == (1, "k", "photo", 1)
    assert task.payload == {"pages": [1, 2], "name": "Fotoßß"}
    assert task.created_at == NOW


def test_a_task_that_waits_is_not_made_twice(queue: Queue) -> None:
    for _ in range(3):
        queue.enqueue("same")
    queue.enqueue("same", kind="other")
    queue.enqueue("same", team=2)
    assert len(queue.all()) == 2
    assert len(queue.claim()) == 2


def test_a_cause_during_the_work_makes_another_task_which_waits_for_its_end(queue: Queue) -> None:
    queue.enqueue("s")
    (first,) = queue.claim()
    queue.enqueue("s")
    assert queue.claim() == []
    assert queue.claim(by_other=True) == []
    queue.done(first)
    (second,) = queue.claim()
    assert second.task_id != first.task_id


def test_a_task_is_not_given_out_before_its_time(queue: Queue) -> None:
    queue.enqueue("later", run_at=NOW + 5)
    assert queue.claim(now=NOW + 4) == []
    assert subjects(queue.claim(now=NOW + 5)) == ["later"]


def test_a_second_cause_makes_a_waiting_task_due_sooner_and_never_later(queue: Queue) -> None:
    queue.enqueue("s", run_at=NOW + 50)
    queue.enqueue("s", run_at=NOW + 10)
    queue.enqueue("s", run_at=NOW + 90)
    assert [row.run_at for row in queue.all()] == [NOW + 10]


def test_a_second_cause_does_not_shorten_the_wait_after_a_failure(queue: Queue) -> None:
    queue.enqueue("s")
    queue.fail(queue.claim()[0], NOW + 50)
    queue.enqueue("s", run_at=NOW + 10)
    assert [row.run_at for row in queue.all()] == [NOW + 50]


def test_nobody_takes_a_task_while_a_second_cause_of_it_commits(queue: Queue) -> None:
    """Else its handler would miss what that transaction writes, and nothing would make up for it."""
    if queue.database.is_sqlite:
        pytest.skip("one transaction writes at a time")
    queue.enqueue("s")

    async def scenario() -> tuple[list[Task], list[Task]]:
        entered = asyncio.Event()
        leave = asyncio.Event()
        loop = asyncio.get_running_loop()

        def second_cause(connection: Connection) -> None:
            enqueue(connection, 1, "k", "s", now=NOW)
            loop.call_soon(entered.set)
            connection.exec_driver_sql("SELECT pg_sleep(0.5)")
            loop.call_soon(leave.set)

        writing = asyncio.create_task(queue.database.write(second_cause))
        await entered.wait()
        during = await queue.queue.claim({"k": 1}, queue.mine)
        assert not leave.is_set()
        await writing
        return during, await queue.queue.claim({"k": 1}, queue.mine)

    during, after = queue.runner.run(scenario())
    assert during == []
    assert subjects(after) == ["s"]


class Writer:
    """A transaction that enqueues about a subject and stays open, for so long or until told to commit."""

    def __init__(self, queue: Queue, subject: str) -> None:
        self._commit = threading.Event()
        self._entered = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(queue.database.url, subject))
        self._thread.start()
        assert self._entered.wait(WAIT_SECONDS)

    def _run(self, url: Any, subject: str) -> None:
        def work(connection: Connection) -> None:
            enqueue(connection, 1, "k", subject, now=NOW)
            self._entered.set()
            self._commit.wait(WAIT_SECONDS)

        async def write() -> None:
            database = Database(url)
            await database.write(work)
            await database.close()

        asyncio.run(write())

    def commit(self) -> None:
        self._commit.set()
        self._thread.join()


def test_an_end_that_another_transaction_holds_up_is_given_back_soon(queue: Queue) -> None:
    if queue.database.is_sqlite:
        pytest.skip("one transaction writes at a time")
    queue.enqueue("s")
    (task,) = queue.claim()
    writer = Writer(queue, "s")
    try:
        with pytest.raises(Locked):
            queue.release(task)
        # Neither what else ends nor the heartbeat waits for it.
        assert queue.run(queue.queue.heartbeat, [key(task)], queue.mine) == {key(task)}
    finally:
        writer.commit()
    assert queue.release(task)


def test_a_heartbeat_does_not_wait_for_an_end_that_is_being_written(queue: Queue) -> None:
    if queue.database.is_sqlite:
        pytest.skip("one transaction writes at a time")
    for name in ("ends", "runs"):
        queue.enqueue(name)
    ends, runs = sorted(queue.claim(), key=lambda task: task.subject)

    async def scenario() -> set[Any]:
        writing = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end_slowly(connection: Connection) -> None:
            queries.end(connection, [Ending(key(ends), "done")], queue.mine.name, NOW)
            loop.call_soon(writing.set)
            connection.exec_driver_sql("SELECT pg_sleep(0.5)")

        ending = asyncio.create_task(queue.database.write(end_slowly))
        await writing.wait()
        held = await queue.queue.heartbeat([key(ends), key(runs)], queue.mine)
        assert not ending.done()
        await ending
        return held

    assert queue.runner.run(scenario()) == {key(runs)}


def test_a_subject_that_others_enqueue_without_pause_is_taken_all_the_same(queue: Queue) -> None:
    """Its row is locked at nearly every look, which leaves out what is locked."""
    if queue.database.is_sqlite:
        pytest.skip("one transaction writes at a time")
    queue.enqueue("hot")

    def second_cause(connection: Connection) -> None:
        enqueue(connection, 1, "k", "hot", now=NOW)
        connection.exec_driver_sql("SELECT pg_sleep(0.05)")

    async def scenario() -> list[Task]:
        over = False

        async def write() -> None:
            while not over:
                await queue.database.write(second_cause)

        writers = [asyncio.create_task(write()) for _ in range(8)]
        await asyncio.sleep(0.2)
        taken: list[Task] = []
        for number in range(5):
            taken = taken or await queue.queue.claim({"k": 1}, at(queue.mine, NOW + number * 600_000))
        over = True
        await asyncio.gather(*writers)
        return taken

    assert subjects(queue.runner.run(scenario())) == ["hot"]


# Claiming


def test_two_who_claim_at_once_never_get_the_same(queue: Queue) -> None:
    for number in range(40):
        queue.enqueue(f"{number:02}")

    async def both() -> list[Task]:
        got: list[Task] = []

        async def take_all(taker: TaskQueue, lease: Lease) -> None:
            idle = 0
            while idle < 3:
                taken = await taker.claim({"k": 3}, lease)
                idle = 0 if taken else idle + 1
                got.extend(taken)

        await asyncio.gather(
            *(take_all(TaskQueue(queue.database), lease(NOW)) for _ in range(4)),
        )
        return got

    assert subjects(queue.runner.run(both())) == [f"{number:02}" for number in range(40)]


def test_of_each_kind_no_more_is_given_out_than_asked_for(queue: Queue) -> None:
    for kind in ("slow", "fast", "unknown"):
        for number in range(5):
            queue.enqueue(str(number), kind=kind)
    taken = queue.runner.run(queue.queue.claim({"slow": 1, "fast": 3, "none": 0}, queue.mine))
    assert sorted(task.kind for task in taken) == ["fast", "fast", "fast", "slow"]


def test_a_kind_that_is_not_asked_for_is_left_alone(queue: Queue) -> None:
    queue.enqueue("s", kind="of a later version")
    assert queue.claim() == []
    assert [row.state for row in queue.all()] == ["ready"]


@pytest.mark.parametrize("limit", [1, 4])
def test_a_busy_team_does_not_starve_the_others(queue: Queue, limit: int) -> None:
    for number in range(30):
        queue.enqueue(f"busy {number:02}")
    queue.enqueue("second", team=2, now=NOW + 1)
    queue.enqueue("third", team=3, now=NOW + 2)
    order: list[int] = []
    while len(order) < 8:
        for task in queue.claim(limit, now=NOW + 3):
            order.append(task.team_id)
            queue.done(task)
    assert {2, 3} <= set(order[:4])


def test_not_even_a_long_backlog_of_one_team_hides_another(queue: Queue) -> None:
    def backlog(connection: Connection) -> None:
        for number in range(400):
            enqueue(connection, 1, "k", f"{number}", now=NOW)

    queue.runner.run(queue.database.write(backlog))
    queue.enqueue("hidden", team=3, now=NOW + 1)
    queue.enqueue("of another kind", team=2, kind="other")
    assert {task.team_id for task in queue.claim(2, now=NOW + 2)} == {1, 3}


def test_of_one_team_the_oldest_comes_first(queue: Queue) -> None:
    for number in (3, 1, 2):
        queue.enqueue(str(number), run_at=NOW + number)
    order = [queue.claim(1, now=NOW + 9)[0].subject for _ in range(3)]
    assert order == ["1", "2", "3"]


# Leases


def test_a_leased_task_is_taken_again_when_its_lease_has_ended(queue: Queue) -> None:
    queue.enqueue("s")
    (first,) = queue.claim()
    assert queue.claim(now=NOW + LEASE - 1, by_other=True) == []
    (again,) = queue.claim(now=NOW + LEASE, by_other=True)
    assert (again.task_id, again.attempts) == (first.task_id, 2)


def test_a_heartbeat_prolongs_a_lease(queue: Queue) -> None:
    queue.enqueue("s")
    (task,) = queue.claim()
    held = queue.run(queue.queue.heartbeat, [key(task)], at(queue.mine, NOW + 2 * LEASE))
    assert held == {key(task)}
    assert queue.claim(now=NOW + 2 * LEASE, by_other=True) == []


def test_a_lease_begins_when_it_is_written_not_before_it_had_to_wait(queue: Queue) -> None:
    queue.enqueue("s")
    times = [NOW, NOW + 5 * LEASE]
    late = queue.mine._replace(clock=lambda: times.pop(0) if len(times) > 1 else times[0])
    assert len(queue.runner.run(queue.queue.claim({"k": 1}, late))) == 1
    assert queue.claim(now=NOW + 6 * LEASE - 1, by_other=True) == []
    assert len(queue.claim(now=NOW + 6 * LEASE, by_other=True)) == 1


def test_who_lost_a_lease_can_neither_prolong_nor_end_the_task(queue: Queue) -> None:
    queue.enqueue("s")
    (task,) = queue.claim()
    queue.claim(now=NOW + LEASE, by_other=True)
    assert queue.run(queue.queue.heartbeat, [key(task)], at(queue.mine, NOW + 8 * LEASE)) == set()
    assert not queue.done(task)
    assert not queue.fail(task, NOW)
    assert not queue.fail(task, None)
    assert not queue.release(task)
    assert [row.state for row in queue.all()] == ["running"]


def test_a_task_that_ends_its_workers_dies(queue: Queue) -> None:
    queue.enqueue("poison")
    for attempt in range(MAX_ATTEMPTS):
        assert len(queue.claim(now=NOW + attempt * LEASE)) == 1
    assert queue.claim(now=NOW + MAX_ATTEMPTS * LEASE) == []
    over = NOW + MAX_ATTEMPTS * LEASE
    assert queue.run(queue.queue.exhausted, ["k"], over - 1) == []
    assert queue.run(queue.queue.exhausted, ["other"], over) == []
    (poison,) = queue.run(queue.queue.exhausted, ["k"], over)
    assert poison.subject == "poison"
    assert queue.run(queue.queue.bury, key(poison), over - 1) is False
    assert queue.run(queue.queue.bury, key(poison), over) is True
    assert queue.run(queue.queue.bury, key(poison), over) is False
    (row,) = queue.all("dead")
    assert "vanished" in (row.error or "")


# Ends


def test_a_task_that_is_done_is_over(queue: Queue) -> None:
    queue.enqueue("s")
    assert queue.done(queue.claim()[0], NOW + 7)
    (row,) = queue.all("done")
    assert (row.finished_at, row.error) == (NOW + 7, None)
    assert queue.claim(now=NOW + 9 * LEASE) == []


def test_a_failed_attempt_is_repeated_at_its_time(queue: Queue) -> None:
    queue.enqueue("s")
    assert queue.fail(queue.claim()[0], NOW + 5)
    (row,) = queue.all("retry")
    assert (row.error, row.run_at, row.attempts) == ("why", NOW + 5, 1)
    assert queue.claim(now=NOW + 4) == []
    assert queue.claim(now=NOW + 5)[0].attempts == 2


def test_a_task_that_failed_for_good_is_kept_and_can_be_replayed(queue: Queue) -> None:
    queue.enqueue("s")
    (task,) = queue.claim()
    assert queue.fail(task, None, NOW + 1)
    (row,) = queue.all("dead")
    assert (row.error, row.finished_at) == ("why", NOW + 1)
    assert queue.claim(now=NOW + 9 * LEASE) == []
    assert queue.run(queue.queue.replay, 2, task.task_id, NOW) is False
    assert queue.run(queue.queue.replay, 1, task.task_id, NOW + 2) is True
    assert queue.run(queue.queue.replay, 1, task.task_id, NOW + 2) is False
    (again,) = queue.claim(now=NOW + 2)
    assert (again.task_id, again.attempts) == (task.task_id, 1)


@pytest.mark.parametrize("how", ["fail", "release", "replay"])
def test_a_task_that_would_wait_beside_another_is_superseded(queue: Queue, how: str) -> None:
    queue.enqueue("s")
    (task,) = queue.claim()
    if how == "replay":
        queue.fail(task, None)
    queue.enqueue("s")
    if how == "fail":
        assert queue.fail(task, NOW + 5)
    elif how == "release":
        assert queue.release(task)
    else:
        assert queue.run(queue.queue.replay, 1, task.task_id, NOW)
    (old,) = queue.all("done")
    assert (old.task_id, (old.error or "").split(":")[0]) == (task.task_id, "superseded")
    (waiting,) = queue.claim()
    assert waiting.task_id != task.task_id


def test_what_is_handed_back_is_taken_again_and_has_lost_no_attempt(queue: Queue) -> None:
    queue.enqueue("s")
    assert queue.release(queue.claim()[0], NOW + 3)
    assert queue.claim(now=NOW + 2) == []
    assert queue.claim(now=NOW + 3, by_other=True)[0].attempts == 1


def test_an_error_is_cut_and_may_hold_anything(queue: Queue) -> None:
    queue.enqueue("s")
    (task,) = queue.claim()
    queue.fail(task, None, error="a\0\ud800\U0001f4a5" + "x" * 5_000)
    (row,) = queue.all("dead")
    assert row.error is not None
    assert row.error.startswith("a?\U0001f4a5x")
    assert len(row.error) == 2_000


# Lists


def test_tasks_are_listed_newest_first_by_state_and_team(queue: Queue) -> None:
    for name in ("1", "2", "3"):
        queue.enqueue(name)
    queue.enqueue("theirs", team=2)
    queue.done(next(task for task in queue.claim(9) if task.subject == "2"))
    assert [row.subject for row in queue.all()] == ["3", "2", "1"]
    assert [row.subject for row in queue.all("done")] == ["2"]
    assert [row.subject for row in queue.all("running")] == ["3", "1"]
    page = queue.runner.run(queue.database.read(queries.page, 1, "running", 1, 1))
    assert [row.subject for row in page] == ["1"]


def test_what_is_done_is_forgotten_after_a_day_and_what_is_dead_after_30(queue: Queue) -> None:
    for name in ("done", "dead", "waits"):
        queue.enqueue(name)
    for task in queue.claim(9):
        if task.subject == "done":
            queue.done(task)
        elif task.subject == "dead":
            queue.fail(task, None)
        else:
            queue.fail(task, NOW + 1)

    def left_after(hours: int) -> list[str]:
        queue.run(queue.queue.purge, NOW + hours * HOUR)
        return sorted(row.subject for row in queue.all())

    assert left_after(24) == ["dead", "done", "waits"]
    assert left_after(25) == ["dead", "waits"]
    assert left_after(30 * 24) == ["dead", "waits"]
    assert left_after(30 * 24 + 1) == ["waits"]
