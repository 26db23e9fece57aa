"""The limited pool: a file that takes too much, or crashes its reader, fails alone.

What runs in the workers comes from the standard library, because they import what they are given.
"""

import asyncio
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from fixtures import pictures
from media import images, sandbox, video
from media.details import Details, decode_details
from media.sandbox import Interrupted, Refused, Sandbox, _counted
from media.thumbnails import make
from storage.blobs import BlobNotFound, FolderBlobs

ROOT = Path(__file__).resolve().parents[2]
# Starting the fork server takes seconds on a busy machine.
WAIT_SECONDS = 30.0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # one that nobody waits for any more does nothing


def gone(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def play(scene: Callable[[Sandbox], Awaitable[None]], workers: int = 1, memory: int = sandbox.MEMORY) -> None:
    """``scene`` with a pool of its own."""

    async def whole() -> None:
        pool = Sandbox(workers, memory)
        try:
            async with asyncio.timeout(120):
                await scene(pool)
        finally:
            await pool.close()

    asyncio.run(whole())


def test_what_a_function_answers_and_refuses_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(pictures.jpeg())

    async def scene(pool: Sandbox) -> None:
        made = await pool.run(images.thumbnails, str(path), "image/jpeg")
        assert (made.width, made.height) == (1600, 1200)
        with pytest.raises(Refused, match="There are no thumbnails of text/html"):
            await pool.run(images.thumbnails, str(path), "text/html")
        with pytest.raises(Refused, match="There are no thumbnails of text/html"):
            await pool.run(video.poster, str(path), "text/html")
        assert await pool.run(os.getpid) != os.getpid()

    play(scene)


def test_a_file_that_takes_too_long_is_refused_and_the_next_is_read() -> None:
    async def scene(pool: Sandbox) -> None:
        first = await pool.run(os.getpid)
        began = time.monotonic()
        with pytest.raises(Refused, match="longer than 3 seconds"):
            await pool.run(time.sleep, 60, seconds=1)
        assert time.monotonic() - began < 20
        second = await pool.run(os.getpid)
        assert second != first
        assert gone({first}, 5)

    play(scene)


def test_a_file_may_wait_longer_than_it_may_work() -> None:
    async def scene(pool: Sandbox) -> None:
        await pool.run(time.sleep, 1.5, seconds=1)
        with pytest.raises(Refused, match="It took longer than"):
            await pool.run(_work_for_ever, seconds=1)
        assert await pool.run(os.getpid) != os.getpid()

    play(scene)


def test_a_reader_ends_when_it_has_used_its_seconds_of_the_processor() -> None:
    # In a process of its own, and without a limit by the clock: on a busy machine that one comes first.
    reader = multiprocessing.get_context("spawn").Process(target=_counted, args=(0.2, _work_for_ever))
    reader.start()
    reader.join(60)
    assert reader.exitcode == -signal.SIGPROF


def _work_for_ever() -> None:
    while True:
        pass


@pytest.mark.parametrize(
    "crash",
    [os.abort, partial(os._exit, 3), partial(signal.raise_signal, signal.SIGSEGV)],
    ids=["abort", "exit", "segmentation fault"],
)
def test_a_file_that_crashes_its_reader_is_refused_and_the_next_is_read(crash: Callable[[], None]) -> None:
    async def scene(pool: Sandbox) -> None:
        for _ in range(2):
            with pytest.raises(Refused, match="crashed"):
                await pool.run(crash)
            assert await pool.run(os.getpid)

    play(scene)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP], ids=lambda each: each.name
)
def test_a_reader_that_is_ended_from_outside_says_nothing_about_its_file(number: signal.Signals) -> None:
    async def scene(pool: Sandbox) -> None:
        for _ in range(2):
            pid = await pool.run(os.getpid)
            reading = asyncio.create_task(pool.run(time.sleep, 60))
            await asyncio.sleep(0.5)
            os.kill(pid, number)
            with pytest.raises(Interrupted):
                await reading
            assert await pool.run(os.getpid) != pid

    play(scene)


@pytest.mark.parametrize("all_of_them", [False, True], ids=["fork server", "every process"])
def test_the_end_of_the_service_says_nothing_about_a_file(all_of_them: bool) -> None:
    """As ``systemctl stop`` does it: a signal to each process, but here the server goes on."""

    async def scene(pool: Sandbox) -> None:
        pid, parent = await pool.run(os.getpid), await pool.run(os.getppid)
        reading = asyncio.create_task(pool.run(time.sleep, 60))
        await asyncio.sleep(0.5)
        for each in (parent, pid) if all_of_them else (parent,):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGTERM)
        with pytest.raises(Interrupted):
            await reading
        assert await pool.run(os.getpid) != pid

    play(scene)


def test_a_file_that_waits_for_a_reader_is_not_refused_when_all_readers_are_ended() -> None:
    async def scene(pool: Sandbox) -> None:
        pid = await pool.run(os.getpid)
        os.kill(pid, signal.SIGSTOP)  # it takes nothing more
        waiting = asyncio.create_task(pool.run(os.getpid))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        with suppress(Interrupted):
            assert await waiting != pid
        assert await pool.run(os.getpid) != pid

    play(scene)


def test_a_file_that_needs_too_much_memory_is_refused_and_the_next_is_read() -> None:
    async def scene(pool: Sandbox) -> None:
        with pytest.raises(Refused, match="more than 600 MB of memory"):
            await pool.run(bytearray, 600_000_000)
        assert len(await pool.run(bytes, 1000)) == 1000

    play(scene, memory=600_000_000)


def test_a_worker_runs_within_its_limits_and_behind_the_server() -> None:
    async def scene(pool: Sandbox) -> None:
        assert await pool.run(resource.getrlimit, resource.RLIMIT_AS) == (700_000_000, 700_000_000)
        assert await pool.run(resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        assert await pool.run(os.getpriority, os.PRIO_PROCESS, 0) == min(19, mine + 10)

    play(scene, memory=700_000_000)
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 700_000_000


def test_one_file_does_not_wait_for_another() -> None:
    async def scene(pool: Sandbox) -> None:
        slow = asyncio.create_task(pool.run(time.sleep, 60))
        await pool.run(os.getpid)
        assert not slow.done()
        slow.cancel()
        with suppress(asyncio.CancelledError):
            await slow

    play(scene, workers=2)


def test_a_file_that_nobody_waits_for_any_more_is_given_up() -> None:
    async def scene(pool: Sandbox) -> None:
        first = await pool.run(os.getpid)
        slow = asyncio.create_task(pool.run(time.sleep, 60))
        await asyncio.sleep(0.5)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await pool.run(os.getpid) != first
        assert gone({first}, 5)

    play(scene)


def test_workers_are_replaced_after_so_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_MAX_TASKS", 2)

    async def scene(pool: Sandbox) -> None:
        pids = [await pool.run(os.getpid) for _ in range(6)]
        assert len(set(pids)) == 3

    play(scene)


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    async def scene(pool: Sandbox) -> None:
        for _ in range(2):
            first = await pool.run(os.getpid)
            os.kill(first, signal.SIGKILL)
            assert gone({first}, 5)
            await asyncio.sleep(0.5)  # the pool looks every tenth of a second
            assert await pool.run(os.getpid) != first

    play(scene)


def test_the_first_file_starts_the_pool_and_nothing_before_it() -> None:
    code = """
import asyncio, os
from pathlib import Path
from media.sandbox import _counted, Sandbox

def children():
    return [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]

async def main():
    pool = Sandbox(2)
    before = children()
    await pool.run(os.getpid)
    print(len(before), len(children()) > 0)
    await pool.close()

asyncio.run(main())
"""
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert answer.stdout == "0 True\n", answer.stderr


def test_every_worker_is_warmed_up_before_its_first_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_MAX_TASKS", 1)

    async def scene() -> None:
        pool = Sandbox(1, warm_up=partial(os.umask, 0o13))
        try:
            assert [await pool.run(os.umask, 0) for _ in range(3)] == [0o13] * 3
        finally:
            await pool.close()

    asyncio.run(scene())


def test_a_worker_that_cannot_be_warmed_up_reads_files_all_the_same() -> None:
    async def scene() -> None:
        pool = Sandbox(1, warm_up=partial(int, "no number"))
        try:
            assert await pool.run(os.getpid) != os.getpid()
        finally:
            await pool.close()

    asyncio.run(scene())


def test_closing_ends_the_workers_at_once_whatever_they_do() -> None:
    async def scene(pool: Sandbox) -> None:
        pids = {await pool.run(os.getpid) for _ in range(8)}
        running = [asyncio.create_task(pool.run(time.sleep, 60)) for _ in range(4)]
        await asyncio.sleep(0.3)
        for task in running:
            task.cancel()
        began = time.monotonic()
        await pool.close()
        assert time.monotonic() - began < 2
        assert gone(pids, 1)
        await pool.close()  # twice does no harm
        assert await pool.run(os.getpid)  # and another file starts it again

    play(scene, workers=2)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_no_process_is_left_when_the_server_is_killed(busy: bool, tmp_path: Path) -> None:
    code = f"""
import asyncio, os, time
from media.sandbox import _counted, Sandbox

async def main():
    pool = Sandbox(2)
    print(await pool.run(os.getpid), await pool.run(os.getppid), flush=True)
    if {busy}:
        running = [asyncio.create_task(pool.run(time.sleep, 60)) for _ in range(2)]
    await asyncio.sleep(0.5)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    server = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert server.stdout is not None
        pids = {int(pid) for pid in server.stdout.readline().split()}
        assert len(pids) == 2
        assert server.stdout.readline() == "ready\n"
        group = session(server.pid)
        assert pids < group
        assert len(group) >= 4  # itself, the fork server, two workers
    finally:
        server.kill()
        server.wait()
    server.stdout.close()
    assert gone(group, 5), session(server.pid)
    assert not session(server.pid)


def session(leader: int) -> set[int]:
    """The living processes of a session."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if os.getsid(int(entry.name)) == leader and alive(int(entry.name)):
                    found.add(int(entry.name))
    return found


# Thumbnails of a stored file


KEY = "1/2026/11/0b1c"


def stored(
    folder: Path, content: bytes, scene: Callable[[FolderBlobs, Sandbox], Awaitable[None]], key: str = KEY
) -> None:
    async def whole() -> None:
        blobs, pool = FolderBlobs(folder, "http://localhost", b"s" * 32), Sandbox(1)
        try:
            await blobs.put(key, content, content_type="application/octet-stream")
            await scene(blobs, pool)
        finally:
            await pool.close()
            await blobs.close()

    asyncio.run(whole())


async def read(blobs: FolderBlobs, key: str) -> bytes:
    return b"".join([chunk async for chunk in blobs.get(key)])


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_thumbnails_are_stored_beside_their_file_and_made_again_the_same(tmp_path: Path) -> None:
    async def scene(blobs: FolderBlobs, pool: Sandbox) -> None:
        first = await make(blobs, pool, KEY, "image/jpeg")
        kept = files(tmp_path)
        assert first.state == "ready"
        assert first.failure is None
        assert [(each.size, each.key, each.width, each.height) for each in first.details.thumbnails] == [
            ("small", f"{KEY}.small.jpg", 240, 180),
            ("medium", f"{KEY}.medium.jpg", 640, 480),
            ("large", f"{KEY}.large.jpg", 1280, 960),
        ]
        for each in first.details.thumbnails:
            jpeg = await read(blobs, each.key)
            assert len(jpeg) == each.bytes
            assert jpeg.startswith(b"\xff\xd8\xff")
        assert first.details.takenAt == pictures.TAKEN_AT
        assert first.details.latitude == pictures.LATITUDE
        assert decode_details(first.details.encoded()) == first.details
        assert await make(blobs, pool, KEY, "image/jpeg") == first
        assert files(tmp_path) == kept
        assert len(kept) == 4

    stored(tmp_path, pictures.jpeg(), scene)


@pytest.mark.parametrize(
    ("content", "content_type", "failure"),
    [
        (partial(pictures.png_bomb, 12_000, 12_000), "image/png", "more than 80,000,000 pixels"),
        (partial(pictures.png_bomb, 40_000, 40_000), "image/png", "more than 80,000,000 pixels"),
        (pictures.eps, "image/jpeg", "cannot be read"),
        (pictures.playlist, "video/mp4", "cannot be read"),
        (lambda: pictures.cut(pictures.jpeg()), "image/jpeg", "cannot be read"),
    ],
    ids=["144 MP", "1600 MP", "EPS", "playlist", "truncated"],
)
def test_a_hostile_file_fails_with_a_reason_and_stays_as_it_is(
    content: Callable[[], bytes], content_type: str, failure: str, tmp_path: Path
) -> None:
    async def scene(blobs: FolderBlobs, pool: Sandbox) -> None:
        outcome = await make(blobs, pool, KEY, content_type)
        assert outcome.state == "failed"
        assert failure in (outcome.failure or "")
        assert outcome.details == Details()
        assert files(tmp_path) == {KEY: content()}
        assert (await make(blobs, pool, KEY, content_type)).state == "failed"

    stored(tmp_path, content(), scene)


def test_a_file_that_is_no_picture_is_ready_and_starts_no_worker(tmp_path: Path) -> None:
    async def scene(blobs: FolderBlobs, pool: Sandbox) -> None:
        assert await make(blobs, pool, KEY, "application/pdf") == ("ready", Details(), None)
        assert pool._pool is None

    stored(tmp_path, b"%PDF-1.7", scene)


def test_a_picture_whose_reader_is_ended_from_outside_is_not_a_failed_one(tmp_path: Path) -> None:
    async def scene(blobs: FolderBlobs, pool: Sandbox) -> None:
        pid = await pool.run(os.getpid)
        os.kill(pid, signal.SIGSTOP)
        making = asyncio.create_task(make(blobs, pool, KEY, "image/jpeg"))
        await asyncio.sleep(0.3)
        os.kill(pid, signal.SIGKILL)
        with suppress(Interrupted):
            assert (await making).state == "ready"
        assert (await make(blobs, pool, KEY, "image/jpeg")).state == "ready"

    stored(tmp_path, pictures.jpeg(), scene)


def test_a_file_that_is_gone_is_not_a_failed_one(tmp_path: Path) -> None:
    async def scene(blobs: FolderBlobs, pool: Sandbox) -> None:
        with pytest.raises(BlobNotFound):
            await make(blobs, pool, KEY + "0", "image/jpeg")

    stored(tmp_path, pictures.jpeg(), scene)
