"""Work that others join, and that goes on when its callers hang up."""

import asyncio

import pytest

from server.joined import Joined


def test_whoever_asks_for_the_same_joins_what_is_under_way() -> None:
    async def main() -> None:
        joined: Joined[str, int] = Joined()
        go_on, begun = asyncio.Event(), 0

        async def work() -> int:
            nonlocal begun
            begun += 1
            await go_on.wait()
            return begun

        asked = [asyncio.create_task(joined.run("key", work)) for _ in range(3)]
        other = asyncio.create_task(joined.run("other", work))
        # A turn for those who ask, and one for what they began.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*asked) == [2, 2, 2]
        assert await other == 2
        # What has ended is begun anew.
        assert await joined.run("key", work) == 3

    asyncio.run(main())


def test_it_goes_on_when_every_caller_has_hung_up() -> None:
    async def main() -> None:
        joined: Joined[str, None] = Joined()
        go_on, ended = asyncio.Event(), False

        async def work() -> None:
            nonlocal ended
            await go_on.wait()
            ended = True

        asked = asyncio.create_task(joined.run("key", work))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert not ended
        go_on.set()
        await joined.close()
        assert ended

    asyncio.run(main())


def test_work_that_must_come_after_begins_when_what_is_under_way_has_failed_or_ended() -> None:
    async def main() -> None:
        joined: Joined[str, str] = Joined()
        order: list[str] = []

        async def work(name: str) -> str:
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")
            if name == "first":
                raise ValueError(name)
            return name

        first = asyncio.create_task(joined.run_after("key", lambda: work("first")))
        second = asyncio.create_task(joined.run_after("key", lambda: work("second")))
        with pytest.raises(ValueError, match="first"):
            await first
        assert await second == "second"
        assert order == ["first begins", "first ends", "second begins", "second ends"]

    asyncio.run(main())


def test_a_failure_that_nobody_waited_for_is_no_warning() -> None:
    async def main() -> None:
        joined: Joined[str, None] = Joined()

        async def work() -> None:
            raise ValueError("nobody listens")

        asked = asyncio.create_task(joined.run("key", work))
        await asyncio.sleep(0)
        asked.cancel()
        await joined.close()
        await asyncio.sleep(0)

    asyncio.run(main())
