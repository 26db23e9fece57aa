"""tus: connections that are cut, die in silence or race each other, and the file is exact all the same."""

import asyncio
import random
import uuid
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.app import RunningApp, Team
from tests.support.tus import (
    Line,
    Said,
    begun,
    checksum,
    chunk_headers,
    content,
    offset_of,
    sent,
)

MB = 1024 * 1024


async def send_cut(
    team: Team, address: str, offset: int, data: bytes, stop: int, sizes: Sequence[int]
) -> None:
    """Announce the rest of ``data``, send up to ``stop`` in chunks of these sizes, over and over, and hang up."""
    line = Line(team, "PATCH", address, chunk_headers(offset, len(data) - offset))
    at, number = offset, 0
    while at < stop:
        size = min(sizes[number % len(sizes)], stop - at)
        line.push(data[at : at + size])
        at, number = at + size, number + 1
    line.cut()
    await line.run()


async def offset_now(team: Team, address: str) -> int:
    line = Line(team, "HEAD", address, {})
    line.push(b"", more=False)
    said = await line.run()
    assert said.status == 200
    return int(said.headers["upload-offset"])


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60_000),
    cuts=st.lists(st.integers(0, 60_000), max_size=5),
    sizes=st.lists(st.integers(1, 20_000), min_size=1, max_size=4),
    seed=st.integers(0, 1 << 32),
)
def test_wherever_it_is_cut_what_came_is_kept_and_the_file_is_exact(
    sqlite_app: RunningApp, size: int, cuts: list[int], sizes: list[int], seed: int
) -> None:
    team, data = sqlite_app.alpha, random.Random(seed).randbytes(size)
    attachment_id = str(uuid.uuid4())
    address = begun(team, size, attachmentId=attachment_id)

    async def run() -> None:
        offset = 0
        for cut in cuts:
            stop = min(offset + cut, size)
            await send_cut(team, address, offset, data, stop, sizes)
            offset = await offset_now(team, address)
            assert offset == stop
        line = Line(team, "PATCH", address, chunk_headers(offset, size - offset))
        line.push(data[offset:], more=False)
        said = await line.run()
        assert (said.status, said.headers["upload-offset"]) == (204, str(size))

    sqlite_app.call(run)
    assert content(team, attachment_id) == data


@pytest.mark.parametrize("stop", [4 * MB - 1, 4 * MB, 4 * MB + 1, 9 * MB])
def test_a_cut_around_the_size_of_a_piece_loses_nothing(sqlite_team: Team, stop: int) -> None:
    data = random.Random(3).randbytes(9 * MB + 5)
    name = f"cut-{stop}"
    address = begun(sqlite_team, len(data), attachmentId=name)
    sqlite_team.app.call(send_cut, sqlite_team, address, 0, data, stop, [65_536])
    assert offset_of(sqlite_team, address) == stop
    assert sent(sqlite_team, address, stop, data[stop:]) == len(data)
    assert content(sqlite_team, name) == data


def test_pieces_are_durable_before_the_request_ends(team: Team) -> None:
    data = random.Random(4).randbytes(9 * MB)
    address = begun(team, len(data))
    upload_id = address.rpartition("/")[2]

    async def run() -> None:
        line = Line(team, "PATCH", address, chunk_headers(0))
        for at in range(0, len(data), MB):
            line.push(data[at : at + MB])
        request = asyncio.create_task(line.run())
        uploads = team.app._part("uploads")
        for _ in range(1_000):
            if (await uploads.find(team.team_id, upload_id)).received == ((0, 8 * MB),):
                break
            await asyncio.sleep(0.02)
        else:
            raise AssertionError("the pieces were not recorded")
        assert not request.done()
        line.cut()
        await request

    team.app.call(run)
    assert offset_of(team, address) == 9 * MB


def test_of_a_cut_chunk_with_a_checksum_nothing_is_kept(sqlite_team: Team) -> None:
    address = begun(sqlite_team, 8)

    async def run() -> None:
        line = Line(sqlite_team, "PATCH", address, chunk_headers(0, 8, **checksum("sha1", b"abcd")))
        line.push(b"abcd")
        line.cut()
        await line.run()

    sqlite_team.app.call(run)
    assert offset_of(sqlite_team, address) == 0


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE"])
def test_a_device_that_comes_back_does_not_wait_for_its_dead_connection(
    sqlite_team: Team, method: str
) -> None:
    address = begun(sqlite_team, 8)

    async def run() -> tuple[Said, Said]:
        dead = Line(sqlite_team, "PATCH", address, chunk_headers(0, 8))
        dead.push(b"abcd")
        old = asyncio.create_task(dead.run())
        await dead.taken()
        back = Line(sqlite_team, method, address, chunk_headers(4, 4))
        back.push(b"efgh", more=False)
        async with asyncio.timeout(10):
            return await back.run(), await old

    new, old = sqlite_team.app.call(run)
    assert (old.status, old.headers["upload-offset"]) == (409, "4")
    assert (new.status, new.headers.get("upload-offset")) == {
        "HEAD": (200, "4"),
        "PATCH": (204, "8"),
        "DELETE": (204, None),
    }[method]


def test_two_devices_that_send_the_same_at_once_make_one_file(team: Team) -> None:
    data = random.Random(5).randbytes(3 * MB)
    address = begun(team, len(data), attachmentId="raced")

    async def one() -> int:
        line = Line(team, "PATCH", address, chunk_headers(0, len(data)))
        for at in range(0, len(data), 65_536):
            line.push(data[at : at + 65_536])
        line.push(b"", more=False)
        return (await line.run()).status

    async def run() -> list[int]:
        return list(await asyncio.gather(*(one() for _ in range(4))))

    statuses = team.app.call(run)
    assert set(statuses) <= {204, 409}
    offset = offset_of(team, address)
    assert sent(team, address, offset, data[offset:]) == len(data)
    assert content(team, "raced") == data
