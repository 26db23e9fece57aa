"""The engine of uploads: whatever order, cuts, repetitions and crashes, the bytes are those of the file."""

import asyncio
import hashlib
import random
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import media.uploads as engine
import storage.queries.uploads as queries
from media.uploads import BadRange, Differs, Expired, HashMismatch, NoSuchUpload, Upload, Uploads
from server.clock import now
from storage.blobs import BlobsUnavailable, FolderBlobs
from storage.database import Database, Unavailable, open_database, sqlite_url
from storage.ids import new_id

#: Blocks in these tests, where the real ones have 4 MB: a small file has several.
SMALL = 1000
REAL = queries.MAX_BLOCK
DAY = 86_400_000_000
TEAM = 1


class Cut(Exception):
    """The line went dead."""


class World:
    """An engine on a database and a folder; ``run`` awaits on its loop."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder / "blobs"
        self.url = url
        self.runner = asyncio.Runner()
        self.database = open_database(url)
        self.run(self.database.migrate())
        self.blobs = FolderBlobs(self.folder, "http://here", b"secret")
        self.time = now()
        self.uploads = self.engine(self.database)
        self._others: list[Database] = []

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def engine(self, database: Database) -> Uploads:
        return Uploads(database, self.blobs, 7 * DAY, lambda: self.time)

    def other_process(self) -> Uploads:
        """An engine that shares the database and the folder, and nothing else."""
        database = open_database(self.url)
        self._others.append(database)
        return self.engine(database)

    def open(self, content: bytes, **given: Any) -> Upload:
        options = {"block_size": 8_000_000, "file_name": None, "content_type": None, "sha256": None, **given}
        target = options.pop("target", new_id())
        upload: Upload = self.run(
            self.uploads.open(TEAM, "ana", "attachment", target, len(content), now=self.time, **options)
        )
        return upload

    def write(self, upload: Upload, start: int, data: bytes, **options: Any) -> Upload:
        written: Upload = self.run(self.uploads.write(upload, start, stream(data), **options))
        return written

    def find(self, upload: Upload) -> Upload:
        found: Upload = self.run(self.uploads.find(TEAM, upload.upload_id))
        return found

    def read(self, key: str) -> bytes:
        async def content() -> bytes:
            return b"".join([chunk async for chunk in self.blobs.get(key)])

        data: bytes = self.run(content())
        return data

    def assembled(self, upload: Upload) -> bytes:
        """The file, taken over."""
        made = self.run(self.uploads.assemble(upload, self.time))
        content = self.read(made.blob_key)
        assert (made.size, made.sha256) == (len(content), hashlib.sha256(content).digest())
        assert made.first_bytes == content[:4096]
        self.run(self.uploads.finish(upload))
        return content

    def files(self) -> set[Path]:
        """Every blob there is, whether a row knows of it or not."""
        return {path for path in self.folder.rglob("*") if path.is_file()}

    def close(self) -> None:
        for database in [*self._others, self.database]:
            self.run(database.close())
        self.run(self.blobs.close())
        self.runner.close()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_BLOCK", SMALL)
    monkeypatch.setattr(queries, "MAX_BLOCK", SMALL)


@pytest.fixture
def world(tmp_path: Path, small_blocks: None) -> Iterator[World]:
    made = World(tmp_path, sqlite_url(tmp_path / "uploads.db"))
    yield made
    made.close()


@pytest.fixture
def any_world(tmp_path: Path, database_url: str, small_blocks: None) -> Iterator[World]:
    """Once on each kind of database."""
    made = World(tmp_path, database_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """For tests with many examples, each of which has a session of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "MAX_BLOCK", SMALL)
        patch.setattr(queries, "MAX_BLOCK", SMALL)
        folder = tmp_path_factory.mktemp("uploads")
        made = World(folder, sqlite_url(folder / "uploads.db"))
        yield made
        made.close()


async def stream(
    data: bytes, size: int = 300, then: Callable[[], Awaitable[object]] | None = None
) -> AsyncIterator[bytes]:
    """``data`` in pieces; ``then`` is awaited before the end."""
    for at in range(0, len(data), size):
        yield data[at : at + size]
    if then is not None:
        await then()


async def cut() -> None:
    raise Cut


def content_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def covered(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {at for start, stop in ranges for at in range(start, stop)}


class Send(NamedTuple):
    """One request of a device: a range, after how many bytes the line is cut, and in what pieces."""

    start: int
    stop: int
    cut_after: int | None
    keep_partial: bool
    piece: int

    def came(self) -> set[int]:
        """What must be there afterwards."""
        if self.cut_after is None or self.cut_after >= self.stop - self.start:
            return set(range(self.start, self.stop))
        return set(range(self.start, self.start + self.cut_after)) if self.keep_partial else set()


@st.composite
def sendings(draw: st.DrawFn) -> tuple[bytes, list[list[Send]]]:
    """A file and what a device sends of it: groups of requests, those of a group in parallel."""
    size = draw(st.integers(1, 6 * SMALL))
    places = st.integers(0, size)

    def send(ends: tuple[int, int], cut_after: int | None, keep: bool, piece: int) -> Send:
        return Send(min(ends), max(ends), cut_after, keep, piece)

    one = st.builds(
        send,
        st.tuples(places, places),
        st.none() | st.integers(0, size),
        st.booleans(),
        st.integers(1, 3 * SMALL),
    )
    groups = draw(st.lists(st.lists(one, min_size=1, max_size=4), max_size=5))
    return content_of(size, draw(st.integers(0, 9))), groups


@settings(max_examples=60, deadline=None)
@given(sent=sendings(), order=st.randoms(use_true_random=False))
def test_a_file_sent_in_any_order_with_cuts_repeats_and_overlaps_in_parallel_arrives_exactly(
    shared_world: World, sent: tuple[bytes, list[list[Send]]], order: random.Random
) -> None:
    world, (content, groups) = shared_world, sent
    upload = world.open(content, sha256=hashlib.sha256(content).digest())
    there: set[int] = set()

    async def send(one: Send) -> None:
        came = content[one.start : one.stop]
        is_cut = one.cut_after is not None and one.cut_after < len(came)
        body = stream(came[: one.cut_after], one.piece, cut if is_cut else None)
        with suppress(Cut):
            await world.uploads.write(
                upload, one.start, body, length=one.stop - one.start, keep_partial=one.keep_partial
            )

    async def together(group: list[Send]) -> None:
        await asyncio.gather(*map(send, group))

    for group in groups:
        world.run(together(group))
        there |= set().union(*(one.came() for one in group))
        assert covered(world.find(upload).received) == there
    # The device asks what is missing and sends it, in any order, some of it twice.
    received = world.find(upload).received
    edges = [0, *(at for both in received for at in both), len(content)]
    gaps = [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if start < stop]
    order.shuffle(gaps)
    for start, stop in [*gaps, *gaps[:1]]:
        upload = world.write(upload, start, content[start:stop], length=stop - start)
    assert world.find(upload).complete
    assert world.assembled(upload) == content
    assert world.find(upload).finished
    assert world.find(upload).blocks == 0


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2, 5 * SMALL),
    ends=st.tuples(st.integers(0, 5 * SMALL), st.integers(0, 5 * SMALL)),
    again=st.tuples(st.integers(0, 5 * SMALL), st.integers(0, 5 * SMALL)),
    wrong=st.integers(0, 5 * SMALL),
)
def test_a_differing_overlap_is_refused_and_changes_nothing(
    shared_world: World, size: int, ends: tuple[int, int], again: tuple[int, int], wrong: int
) -> None:
    world, content = shared_world, content_of(size)
    start, stop = sorted(min(end, size) for end in ends)
    second, last = sorted(min(end, size) for end in again)
    upload = world.open(content)
    world.write(upload, start, content[start:stop])
    before, files = world.find(upload), world.files()
    other = bytearray(content)
    wrong = min(wrong, size - 1)
    other[wrong] ^= 1
    if max(start, second) <= wrong < min(stop, last):
        with pytest.raises(Differs):
            world.write(upload, second, bytes(other[second:last]))
        assert (world.find(upload), world.files()) == (before, files)
    else:
        world.write(upload, second, bytes(other[second:last]))
        expected = {*range(start, stop), *range(second, last)}
        assert covered(world.find(upload).received) == expected


def test_two_processes_that_write_overlapping_ranges_at_once_end_with_the_file(any_world: World) -> None:
    world, content = any_world, content_of(5 * SMALL)
    upload, other = world.open(content), world.other_process()

    async def both() -> None:
        # Each has all its blobs before either has a row.
        ready = asyncio.Barrier(2)
        await asyncio.gather(
            world.uploads.write(upload, 0, stream(content[: 3 * SMALL], then=ready.wait)),
            other.write(upload, 1500, stream(content[1500:], then=ready.wait)),
        )

    world.run(both())
    found = world.find(upload)
    assert found.received == ((0, len(content)),)
    assert len(world.files()) == found.blocks
    assert world.assembled(found) == content


def test_of_two_processes_that_write_different_bytes_at_once_one_is_refused(any_world: World) -> None:
    world, contents = any_world, [content_of(3 * SMALL, seed) for seed in (1, 2)]
    upload = world.open(contents[0])
    engines = [world.uploads, world.other_process()]

    async def both() -> list[object]:
        ready = asyncio.Barrier(2)
        return await asyncio.gather(
            *(
                uploads.write(upload, 0, stream(content, then=ready.wait))
                for uploads, content in zip(engines, contents, strict=True)
            ),
            return_exceptions=True,
        )

    outcomes = world.run(both())
    won = [index for index, outcome in enumerate(outcomes) if isinstance(outcome, Upload)]
    assert len(won) == 1
    assert isinstance(outcomes[1 - won[0]], Differs)
    assert world.assembled(world.find(upload)) == contents[won[0]]


def test_a_crash_between_blob_and_row_loses_only_what_was_not_acknowledged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(4 * SMALL)
    upload = world.open(content)
    world.write(upload, 0, content[:500])
    dying = open_database(world.url)

    async def no_more(*_args: object) -> None:
        raise KeyboardInterrupt  # like a kill, nothing that the engine could handle

    async def nothing(*_args: object) -> None:
        return None

    monkeypatch.setattr(dying, "write", no_more)
    monkeypatch.setattr(engine._Writing, "drop", nothing)

    async def crash() -> None:
        with pytest.raises(KeyboardInterrupt):
            await world.engine(dying).write(upload, 500, stream(content[500:]))
        await dying.close()

    files = len(world.files())
    world.run(crash())
    monkeypatch.undo()
    assert len(world.files()) > files  # the blobs were there
    restarted = world.other_process()
    found = world.run(restarted.find(TEAM, upload.upload_id))
    assert found.received == ((0, 500),)
    world.run(restarted.write(upload, 500, stream(content[500:])))
    assert world.assembled(world.find(upload)) == content


def test_a_database_that_fails_leaves_no_blobs_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(3 * SMALL)
    upload, files = world.open(content), world.files()

    async def locked(*_args: object) -> None:
        raise Unavailable("locked")

    with monkeypatch.context() as patch:
        patch.setattr(world.database, "write", locked)
        with pytest.raises(Unavailable):
            world.write(upload, 0, content)
    assert world.files() == files
    assert world.find(upload).received == ()


def test_a_blob_store_that_fails_midway_keeps_what_was_recorded_and_nothing_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(3 * SMALL)
    put, calls = world.blobs.put, 0

    async def failing(*args: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise BlobsUnavailable("full")
        return await put(*args, **options)

    monkeypatch.setattr(world.blobs, "put", failing)
    for keep_partial, expected in ((False, ()), (True, ((0, 2 * SMALL),))):
        upload, calls = world.open(content), 0
        files = len(world.files())
        with pytest.raises(BlobsUnavailable):
            world.write(upload, 0, content, keep_partial=keep_partial)
        assert world.find(upload).received == expected
        assert len(world.files()) == files + len(expected) * 2


@pytest.mark.parametrize("wrong", [-1, 9, 10])
def test_a_length_that_is_not_kept_changes_nothing(world: World, wrong: int) -> None:
    upload = world.open(content_of(20))
    with pytest.raises(BadRange):
        world.write(upload, 11, content_of(9), length=wrong if wrong != 9 else 8)
    with pytest.raises(BadRange):
        world.write(upload, 11, content_of(10))
    with pytest.raises(BadRange):
        world.write(upload, -1, b"x")
    assert world.find(upload).received == ()
    assert world.files() == set()


def test_a_write_beyond_the_block_size_is_refused(world: World) -> None:
    upload = world.open(content_of(3000), block_size=1500)
    for length in (1501, None):
        with pytest.raises(BadRange):
            world.write(upload, 0, content_of(1501), length=length)
    assert world.find(upload).received == ()


def test_a_session_takes_a_limited_number_of_blocks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_BLOCKS", 2)
    content = content_of(10)
    upload = world.open(content)
    for at in (0, 2):
        upload = world.write(upload, at, content[at : at + 1])
    with pytest.raises(BadRange):
        world.write(upload, 4, content[4:5])
    assert world.find(upload).received == ((0, 1), (2, 3))


def test_a_wrong_hash_forgets_every_block_and_the_file_can_be_sent_again(world: World) -> None:
    content = content_of(2500)
    upload = world.open(content, sha256=hashlib.sha256(content).digest())
    broken = b"\0" + content[1:]
    upload = world.write(upload, 0, broken)
    with pytest.raises(HashMismatch):
        world.run(world.uploads.assemble(upload, world.time))
    assert world.find(upload).received == ()
    assert world.files() == set()
    assert world.assembled(world.write(upload, 0, content)) == content


def test_a_blob_that_was_lost_is_missing_again(world: World) -> None:
    content = content_of(2500)
    upload = world.write(world.open(content), 0, content)
    (middle,) = [path for path in world.files() if path.read_bytes() == content[SMALL : 2 * SMALL]]
    middle.unlink()
    assert world.run(world.uploads.assemble(upload, world.time)) is None
    assert world.find(upload).received == ((0, SMALL), (2 * SMALL, 2500))
    # Sending everything again compares with what is there, and stores what is not.
    (first,) = [path for path in world.files() if path.read_bytes() == content[:SMALL]]
    first.unlink()
    assert world.assembled(world.write(upload, 0, content)) == content


def test_whoever_assembles_at_once_makes_one_file(any_world: World) -> None:
    world, content = any_world, content_of(5 * SMALL)
    upload = world.write(world.open(content), 0, content)
    engines = [world.uploads, world.other_process(), world.uploads]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(uploads.assemble(upload, world.time) for uploads in engines))

    made = world.run(all_of_them())
    assert len({one.blob_key for one in made}) == 1
    world.run(world.uploads.finish(upload))
    world.run(world.uploads.finish(upload))
    assert world.read(made[0].blob_key) == content
    assert len(world.files()) == 1
    # One who comes late finds nothing to do.
    assert world.run(engines[1].assemble(upload, world.time)) is None


def test_bytes_for_a_finished_session_change_nothing(world: World) -> None:
    content = content_of(1500)
    upload = world.write(world.open(content), 0, content)
    world.assembled(upload)
    files = world.files()
    assert world.write(upload, 100, content[100:200]).finished
    assert world.files() == files


def test_a_session_expires_a_week_after_its_last_block_and_leaves_nothing(world: World) -> None:
    content = content_of(2500)
    upload = world.open(content)
    world.time += 5 * DAY
    world.write(upload, 0, content[:1000])
    world.time += 5 * DAY
    assert world.find(upload).received == ((0, 1000),)
    world.write(upload, 1000, content[1000:])
    # A process died after assembling, before anything referred to the file.
    assert world.run(world.uploads.assemble(world.find(upload), world.time)) is not None
    world.time += 7 * DAY
    with pytest.raises(Expired):
        world.find(upload)
    with pytest.raises(Expired):
        world.write(upload, 0, content[:10])
    # An hour is left to whoever is at the last block just now.
    assert world.run(world.uploads.expire(world.time)) == 0
    assert world.run(world.uploads.expire(world.time + DAY)) == 1
    assert world.files() == set()
    with pytest.raises(Expired):
        world.find(upload)
    world.run(world.uploads.expire(world.time + 8 * DAY))
    with pytest.raises(NoSuchUpload):
        world.find(upload)


def test_the_clock_leaves_a_file_that_was_taken_over(world: World) -> None:
    content = content_of(1500)
    upload = world.write(world.open(content), 0, content)
    world.assembled(upload)
    world.time += 8 * DAY
    world.run(world.uploads.expire(world.time + DAY))
    assert [path.read_bytes() for path in world.files()] == [content]


def test_a_session_that_was_given_up_leaves_nothing_and_takes_nothing(world: World) -> None:
    content = content_of(1500)
    upload = world.write(world.open(content), 0, content[:1200])
    world.run(world.uploads.cancel(upload))
    assert world.files() == set()
    for attempt in (world.uploads.find(TEAM, upload.upload_id), world.uploads.finish(upload)):
        with pytest.raises(NoSuchUpload):
            world.run(attempt)
    with pytest.raises(NoSuchUpload):
        world.write(upload, 0, content)
    assert world.files() == set()


def test_what_could_not_be_deleted_when_it_was_given_up_the_clock_deletes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(1500)
    upload = world.write(world.open(content), 0, content)

    async def down(_keys: object) -> None:
        raise BlobsUnavailable("down")

    with monkeypatch.context() as patch:
        patch.setattr(world.blobs, "delete", down)
        world.run(world.uploads.cancel(upload))
    assert world.files()
    with pytest.raises(NoSuchUpload):
        world.find(upload)
    assert world.run(world.uploads.expire(world.time)) == 1
    assert world.files() == set()


def test_asking_again_for_the_same_file_answers_the_open_session(world: World) -> None:
    content = content_of(100)
    sha256 = hashlib.sha256(content).digest()
    first = world.open(content, target="a", sha256=sha256)
    world.write(first, 0, content[:10])
    again = world.open(content, target="a", sha256=sha256)
    assert again == world.find(first)
    assert again.received == ((0, 10),)
    others = [
        world.open(content, target="b", sha256=sha256),
        world.open(content, target="a"),
        world.open(content + b"x", target="a", sha256=sha256),
        world.open(content, target="a", sha256=sha256, block_size=0),
        world.open(content, target="a", sha256=sha256, block_size=0),
    ]
    assert len({first.upload_id, *(one.upload_id for one in others)}) == 6
    world.assembled(world.write(first, 10, content[10:]))
    assert world.open(content, target="a", sha256=sha256).upload_id != first.upload_id


def test_another_team_finds_no_session(world: World) -> None:
    upload = world.open(b"x")
    with pytest.raises(NoSuchUpload):
        world.run(world.uploads.find(TEAM + 1, upload.upload_id))


def test_a_large_file_is_written_and_assembled_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the other tests run in the same module, their small blocks are still set.
    monkeypatch.setattr(engine, "MAX_BLOCK", REAL)
    monkeypatch.setattr(queries, "MAX_BLOCK", REAL)
    world = World(tmp_path, sqlite_url(tmp_path / "uploads.db"))
    piece, pieces = content_of(65_536), 1024
    content_hash = hashlib.sha256(piece * pieces).digest()
    upload = world.open(piece * pieces, block_size=0, sha256=content_hash)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield piece

    tracemalloc.start()
    try:
        upload = world.run(world.uploads.write(upload, 0, body()))
        made = world.run(world.uploads.assemble(upload, world.time))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert upload.received == ((0, 64 * 1024 * 1024),)
    assert upload.blocks == 16
    assert made.sha256 == content_hash
    assert peak < 16 * 1024 * 1024
    world.close()
