"""How `/readyz` looks at the store of files: seldom, once for all, and never waiting long."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from server.health import StoreWatch
from storage.blobs import BlobsUnavailable, FolderBlobs


class Store(FolderBlobs):
    """A store that answers as it is told to, and counts how often it is asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "http://localhost")
        self.asked = 0
        self.problem: Exception | None = None
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def check(self) -> None:
        self.asked += 1
        await self.hangs.wait()
        if self.problem is not None:
            raise self.problem


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def watching(tmp_path: Path, play: Callable[[Store, StoreWatch, Clock], Awaitable[None]]) -> None:
    async def run() -> None:
        store, clock = Store(tmp_path), Clock()
        watch = StoreWatch(store, clock, patience=0.05)
        try:
            await asyncio.wait_for(play(store, watch, clock), 20)
        finally:
            await watch.close()
            await store.close()

    asyncio.run(run())


def test_the_store_is_asked_once_in_thirty_seconds_however_many_want_to_know(tmp_path: Path) -> None:
    async def play(store: Store, watch: StoreWatch, clock: Clock) -> None:
        assert await asyncio.gather(*(watch.answers() for _ in range(20))) == [True] * 20
        clock.now += 29
        store.problem = BlobsUnavailable("away")
        assert await watch.answers()
        assert store.asked == 1
        clock.now += 1
        assert not await watch.answers()
        store.problem = None
        assert not await watch.answers()
        assert store.asked == 2
        clock.now += 30
        assert await watch.answers()

    watching(tmp_path, play)


def test_nobody_waits_for_a_store_that_hangs_and_it_is_not_asked_again(tmp_path: Path) -> None:
    async def play(store: Store, watch: StoreWatch, clock: Clock) -> None:
        store.hangs.clear()
        assert await asyncio.gather(watch.answers(), watch.answers()) == [False, False]
        clock.now += 300
        assert not await watch.answers()
        assert store.asked == 1
        store.hangs.set()
        await asyncio.sleep(0)
        # Its answer is old by now, so it is asked anew.
        assert await watch.answers()
        assert store.asked == 2

    watching(tmp_path, play)


def test_a_defect_of_the_store_does_not_take_the_server_out_of_service(tmp_path: Path) -> None:
    async def play(store: Store, watch: StoreWatch, _: Clock) -> None:
        store.problem = RuntimeError("surprise")
        assert not await watch.answers()

    watching(tmp_path, play)


def test_whoever_goes_away_while_waiting_ends_nothing(tmp_path: Path) -> None:
    async def play(store: Store, watch: StoreWatch, _: Clock) -> None:
        store.hangs.clear()
        waiting = asyncio.create_task(watch.answers())
        await asyncio.sleep(0)
        waiting.cancel()
        store.hangs.set()
        assert await watch.answers()
        assert store.asked == 1

    watching(tmp_path, play)
