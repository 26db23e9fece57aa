"""What every store of files must do for us: the same suite on a folder and on two S3 servers."""

import asyncio
import os
import resource
import shutil
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.blobs import (
    CHUNK_BYTES,
    BlobNotFound,
    BlobSizeDiffers,
    BlobStore,
    BlobsUnavailable,
    FolderBlobs,
    new_key,
    open_blobs,
)
from tests.support.blobs import (
    MB,
    OpenStore,
    Store,
    folder_store,
    moto_server,
    nanio_server,
    pieces,
    s3_credentials,
    s3_store,
)

KEY = "1/2026/11/6f0c"


@pytest.fixture(scope="module")
def open_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenStore]:
    """The store of a kind, emptied. It is opened for the first test that needs it."""
    with ExitStack() as stack:
        stack.enter_context(s3_credentials())

        @cache
        def opened(kind: str) -> Store:
            folder = tmp_path_factory.mktemp(kind)
            if kind == "folder":
                return stack.enter_context(folder_store(folder / "blobs"))
            server = moto_server() if kind == "moto" else nanio_server(folder / "data")
            return stack.enter_context(s3_store(kind, stack.enter_context(server), "files"))

        def empty(kind: str) -> Store:
            store = opened(kind)
            store.clear()
            return store

        yield empty


@pytest.fixture(params=["folder", "moto", "nanio"])
def store(request: pytest.FixtureRequest, open_store: OpenStore) -> Store:
    """An empty store, once of each kind."""
    return open_store(request.param)


@pytest.fixture(params=["folder", "nanio"])
def own_memory(request: pytest.FixtureRequest, open_store: OpenStore) -> Store:
    """A store that does not keep its files in this process's memory, as moto does."""
    return open_store(request.param)


# Putting and getting


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 3 * MB + 7, 8 * MB, 17 * MB + 1])
def test_what_was_put_is_got(store: Store, size: int) -> None:
    content = os.urandom(size)
    assert store.put(KEY, content) == size
    assert store.get(KEY) == content
    assert store.put("1/streamed", pieces(content, 100_000), size=size) == size
    assert store.get("1/streamed") == content
    info = store.run(store.blobs.info("1/streamed"))
    assert info is not None
    assert info.size == size


def test_one_piece_may_be_larger_than_a_part(store: Store) -> None:
    content = os.urandom(20 * MB)
    store.put(KEY, pieces(content, len(content)))
    assert store.get(KEY) == content


def test_a_file_comes_in_pieces_of_at_most_256_kb(store: Store) -> None:
    store.put(KEY, bytes(2 * MB))

    async def lengths() -> list[int]:
        return [len(chunk) async for chunk in store.blobs.get(KEY)]

    found = store.run(lengths())
    assert sum(found) == 2 * MB
    assert max(found) <= CHUNK_BYTES


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (0, 10), (3, 7), (5, None), (9, 10), (5, 5), (0, 0), (10, None), (11, 20), (4, 1000)],
)
def test_a_range_is_that_part_of_the_file(store: Store, start: int, stop: int | None) -> None:
    store.put(KEY, b"0123456789")
    assert store.get(KEY, start, stop) == b"0123456789"[start:stop]


@pytest.mark.parametrize("stop", [None, 0, 5])
def test_a_range_of_an_empty_file_is_empty(store: Store, stop: int | None) -> None:
    store.put(KEY, b"")
    assert store.get(KEY, 0, stop) == b""


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 4)])
def test_a_range_that_is_none_is_a_defect(store: Store, start: int, stop: int) -> None:
    store.put(KEY, b"0123456789")
    with pytest.raises(ValueError):
        store.get(KEY, start, stop)


def test_a_large_range_in_the_middle(store: Store) -> None:
    content = os.urandom(3 * MB)
    store.put(KEY, content)
    assert store.get(KEY, 1_000_001, 2_900_001) == content[1_000_001:2_900_001]


def test_a_put_replaces_what_was_there_and_its_version(store: Store) -> None:
    store.put(KEY, b"first, and longer")
    before = store.run(store.blobs.info(KEY))
    store.put(KEY, pieces(b"second", 2))
    assert store.get(KEY) == b"second"
    after = store.run(store.blobs.info(KEY))
    assert before is not None
    assert after is not None
    assert after.version != before.version


def test_a_file_that_is_not_there(store: Store) -> None:
    store.put(KEY, b"x")
    for missing in ("1/2026/11/other", "1/2026/11", f"{KEY}/below", "2/2026/11/6f0c"):
        assert store.run(store.blobs.info(missing)) is None, missing
        for bounds in ((0, None), (1, 5), (3, 3)):
            with pytest.raises(BlobNotFound):
                store.get(missing, *bounds)


def test_deleting_removes_the_named_files_alone(store: Store) -> None:
    names = [f"{KEY}.{number}" for number in range(5)]
    for name in names:
        store.put(name, b"x")
    store.run(store.blobs.delete([]))
    store.run(store.blobs.delete([names[0]]))
    store.run(store.blobs.delete([names[0]]))
    store.run(store.blobs.delete([names[1], names[3], "1/2026/never"]))
    left = [name for name in names if store.run(store.blobs.info(name)) is not None]
    assert left == [names[2], names[4]]


def test_more_files_than_one_request_may_name_are_deleted(store: Store) -> None:
    names = [f"9/{number}" for number in range(1001)]
    store.put(names[0], b"x")
    store.put(names[1000], b"x")
    store.run(store.blobs.delete(names))
    assert store.run(store.blobs.info(names[0])) is None
    assert store.run(store.blobs.info(names[1000])) is None


def test_a_local_path_holds_the_file(store: Store) -> None:
    content = os.urandom(MB)
    store.put(KEY, content)

    async def read(key: str) -> tuple[Path, bytes]:
        async with store.blobs.local_path(key) as path:
            return path, await asyncio.to_thread(path.read_bytes)

    path, found = store.run(read(KEY))
    assert found == content
    assert path.exists() == (store.kind == "folder")
    assert store.get(KEY) == content
    with pytest.raises(BlobNotFound):
        store.run(read("1/2026/none"))


def test_a_good_store_passes_its_check_and_keeps_nothing_of_it(store: Store) -> None:
    store.run(store.blobs.check())
    assert store.left_over() == []
    if isinstance(store.blobs, FolderBlobs):
        assert list(store.blobs.folder.iterdir()) == []
    else:
        assert store.client.list_objects_v2(Bucket=store.bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    "key", ["", "/", "/etc/passwd", "..", "1/../2", "1//2", "1/.hidden", "a\\b", "a\0", "1/"]
)
def test_no_key_leads_out_of_the_store(store: Store, key: str) -> None:
    with pytest.raises(ValueError):
        store.put(key, b"x")
    with pytest.raises(ValueError):
        store.get(key)
    with pytest.raises(ValueError):
        store.run(store.blobs.info(key))
    with pytest.raises(ValueError):
        store.run(store.blobs.delete([key]))
    with pytest.raises(ValueError):
        store.blobs.get_url(key, content_type="image/png", file_name="x")
    with pytest.raises(ValueError):
        store.blobs.put_url(key, content_type="image/png", size=1)
    with pytest.raises(ValueError):
        store.blobs.local_path(key)


def test_new_keys_differ_and_begin_with_team_and_month() -> None:
    now = 1_793_491_200_000_000  # 2026-11-01
    first, second = new_key(7, now), new_key(7, now)
    assert first != second
    assert first.startswith("7/2026/11/")
    assert new_key(7, now - 1).startswith("7/2026/10/")


# Sources that fail


async def failing(after: int) -> AsyncIterator[bytes]:
    """Some bytes, and then the connection is gone."""
    for _ in range(after // 100_000):
        yield bytes(100_000)
    raise ConnectionResetError("gone")


@pytest.mark.parametrize("after", [0, 300_000, 20 * MB])
def test_an_aborted_source_leaves_nothing(store: Store, after: int) -> None:
    with pytest.raises(ConnectionResetError):
        store.put(KEY, failing(after))
    assert store.run(store.blobs.info(KEY)) is None
    assert store.left_over() == []


def test_an_aborted_source_leaves_what_was_there(store: Store) -> None:
    store.put(KEY, b"before")
    with pytest.raises(ConnectionResetError):
        store.put(KEY, failing(20 * MB))
    assert store.get(KEY) == b"before"


@pytest.mark.parametrize("size", [0, 9 * MB, 9 * MB + 2])
def test_a_source_of_another_length_than_announced_leaves_nothing(store: Store, size: int) -> None:
    for source in (bytes(9 * MB + 1), pieces(bytes(9 * MB + 1), MB)):
        with pytest.raises(BlobSizeDiffers):
            store.put(KEY, source, size=size)
        assert store.run(store.blobs.info(KEY)) is None
        assert store.left_over() == []


@pytest.mark.parametrize("after", [0.0, 0.001, 0.01, 0.05, 0.2])
def test_a_put_that_is_cancelled_leaves_nothing(store: Store, after: float) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(300_000)

    async def cancelled() -> None:
        task = asyncio.create_task(store.blobs.put(KEY, endless(), content_type="image/jpeg"))
        await asyncio.sleep(after)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    store.run(cancelled())
    assert store.run(store.blobs.info(KEY)) is None
    deadline = time.monotonic() + 10
    while store.left_over():
        assert time.monotonic() < deadline, store.left_over()
        time.sleep(0.02)


def test_a_reader_that_stops_early_holds_nothing(store: Store) -> None:
    store.put(KEY, bytes(4 * MB))

    async def first() -> int:
        chunks = store.blobs.get(KEY)
        length = len(await anext(chunks))
        await chunks.aclose()
        return length

    for _ in range(100):
        assert store.run(first()) > 0


# Memory


def test_large_files_pass_through_at_constant_memory(own_memory: Store) -> None:
    store, size = own_memory, 96 * MB

    async def source() -> AsyncIterator[bytes]:
        for _ in range(size // 65_536):
            yield os.urandom(65_536)

    async def there_and_back() -> int:
        await store.blobs.put(KEY, source(), content_type="video/mp4")
        total = 0
        async for chunk in store.blobs.get(KEY):
            total += len(chunk)
        async with store.blobs.local_path(KEY) as path:
            assert path.stat().st_size == size
        return total

    tracemalloc.start()
    try:
        assert store.run(there_and_back()) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * MB


# Stores that are away


def all_fail(store: Store) -> float:
    """Whether every operation says that the store is unavailable; the seconds of the slowest one."""
    blobs = store.blobs

    async def read() -> None:
        async for _ in blobs.get(KEY):
            pass

    async def seconds(operation: Awaitable[object]) -> float:
        began = time.monotonic()
        with pytest.raises(BlobsUnavailable):
            await operation
        return time.monotonic() - began

    async def main() -> list[float]:
        operations: list[Awaitable[object]] = [
            blobs.put(KEY, b"x", content_type="image/jpeg"),
            blobs.put(KEY, pieces(bytes(9 * MB), MB), content_type="image/jpeg"),
            read(),
            blobs.info(KEY),
            blobs.delete([KEY]),
            blobs.delete([KEY, f"{KEY}.small"]),
            blobs.check(),
        ]
        # At once: giving up takes its time.
        return await asyncio.gather(*map(seconds, operations))

    return max(store.run(main()))


def test_a_folder_whose_disk_is_away_is_unavailable_and_not_empty(open_store: OpenStore) -> None:
    store = open_store("folder")
    assert isinstance(store.blobs, FolderBlobs)
    store.put(KEY, b"x")
    away = store.blobs.folder.rename(store.blobs.folder.with_name("away"))
    all_fail(store)
    # Nothing was written where the disk was.
    assert not store.blobs.folder.exists()
    away.rename(store.blobs.folder)
    assert store.get(KEY) == b"x"
    store.run(store.blobs.check())


def test_a_file_in_a_folder_is_durable_when_its_put_returns(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store("folder")
    assert isinstance(store.blobs, FolderBlobs)
    folder = store.blobs.folder
    # Nothing short of a power cut shows a missing fsync, so the calls themselves are looked at.
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def seen_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(folder)
        calls.append("content" if path.name.startswith(".") else f"entries of {path}")
        fsync(descriptor)

    def seen_rename(source: Path, target: Path) -> None:
        calls.append(f"rename to {target.relative_to(folder)}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(os, "rename", seen_rename)
    # A month of its own: folders that are known to be durable are not made so again.
    store.put("77/2031/02/a", pieces(bytes(MB), 100_000))
    folders = ["entries of .", "entries of 77", "entries of 77/2031"]
    assert sorted(calls[:3]) == sorted(folders)
    assert calls[3:] == ["content", "rename to 77/2031/02/a", "entries of 77/2031/02"]


def test_a_folder_that_could_not_be_made_at_the_start_is_made_later(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with folder_store(tmp_path / "data" / "blobs") as store:
        with pytest.raises(BlobsUnavailable):
            store.run(store.blobs.check())
        (tmp_path / "data").unlink()
        store.run(store.blobs.check())


def test_a_folder_emptied_by_somebody_takes_files_again(open_store: OpenStore) -> None:
    store = open_store("folder")
    assert isinstance(store.blobs, FolderBlobs)
    store.put(KEY, b"x")
    shutil.rmtree(store.blobs.folder / "1")
    store.put(KEY, b"y")
    assert store.get(KEY) == b"y"


def test_a_full_disk_is_unavailable_and_leaves_nothing(open_store: OpenStore) -> None:
    store = open_store("folder")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MB, hard))
    try:
        with pytest.raises(BlobsUnavailable):
            store.put(KEY, pieces(bytes(5 * MB), 100_000))
        with pytest.raises(BlobsUnavailable):
            store.put(KEY, bytes(5 * MB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.run(store.blobs.info(KEY)) is None
    assert store.left_over() == []


def test_what_a_crash_left_is_removed_after_a_day(tmp_path: Path) -> None:
    old, new = tmp_path / ".incoming-old", tmp_path / ".incoming-new"
    for path in (old, new):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    with folder_store(tmp_path):
        assert not old.exists()
        assert new.exists()


def s3_at(port: int) -> BlobStore:
    return open_blobs(f"s3://bucket?endpoint=http://127.0.0.1:{port}", Path("unused"), "unused")


@pytest.mark.usefixtures("open_store")  # for the credentials
@pytest.mark.parametrize("answers", ["refuses", "keeps silent"])
def test_an_s3_server_that_is_away_is_unavailable_within_6_seconds(answers: str) -> None:
    with socket.socket() as server, asyncio.Runner() as runner:
        server.bind(("127.0.0.1", 0))
        if answers == "keeps silent":
            server.listen(100)
        store = Store(runner, s3_at(server.getsockname()[1]), "s3")
        assert all_fail(store) < 6
        runner.run(store.blobs.close())


@pytest.mark.parametrize("kind", ["moto", "nanio"])
def test_a_bucket_that_does_not_exist_is_unavailable_and_not_empty(open_store: OpenStore, kind: str) -> None:
    there = open_store(kind)
    blobs = open_blobs(f"s3://no-such-bucket?endpoint={there.endpoint}", Path("unused"), "unused")
    store = Store(there.runner, blobs, kind)
    for operation in (lambda: store.put(KEY, b"x"), lambda: store.get(KEY), lambda: store.run(blobs.check())):
        with pytest.raises(BlobsUnavailable):
            operation()
    store.run(blobs.close())


def test_wrong_credentials_are_unavailable(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    there = open_store("nanio")
    there.put(KEY, b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    location = f"s3://{there.bucket}/some/prefix?endpoint={there.endpoint}"
    store = Store(there.runner, open_blobs(location, Path("unused"), "unused"), "nanio")
    all_fail(store)
    store.run(store.blobs.close())


@pytest.mark.parametrize(
    "location",
    ["folder", "http://x", "s3://", "s3:///x", "s3://b?endpoint=x", "s3://b?regoin=x", "s3://k:s@b"],
)
def test_a_location_that_is_none_is_refused(location: str) -> None:
    with pytest.raises(ValueError):
        open_blobs(location, Path("unused"), "unused")


# Signed addresses at S3 servers; those of the folder are in tests/api/test_files.py


def ask(
    method: str, url: str, content: bytes | None = None, content_type: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": content_type} if content_type else {}
    with httpx.Client(trust_env=False, timeout=10) as client:
        return client.request(method, url, content=content, headers=headers)


def test_a_signed_address_of_s3_reads_exactly_its_file(open_store: OpenStore) -> None:
    store = open_store("nanio")
    store.put(KEY, b"mine")
    store.put(f"{KEY}2", b"theirs")
    url = store.blobs.get_url(KEY, content_type="image/png", file_name="a.png")
    assert ask("GET", url).content == b"mine"
    refused = [
        ask("GET", url.replace(KEY, f"{KEY}2")),
        ask("PUT", url, b"mine", "image/png"),
        ask("DELETE", url),
        ask("GET", url.replace("image%2Fpng", "text%2Fhtml")),
        ask("GET", url.replace("attachment", "inline")),
        ask("GET", url.replace("X-Amz-Expires=3900", "X-Amz-Expires=39000")),
        ask("GET", url.split("&X-Amz-Signature")[0]),
        ask("GET", url[:-1] + ("0" if url[-1] != "0" else "1")),
    ]
    statuses = [response.status_code for response in refused]
    # Without a signature nanio calls the request malformed.
    assert statuses.pop(6) in (400, 403)
    assert statuses == [403] * 7
    assert all(b"theirs" not in response.content for response in refused)
    assert store.get(KEY) == b"mine"


def test_a_signed_address_of_s3_stores_exactly_what_was_signed(open_store: OpenStore) -> None:
    store = open_store("nanio")
    url = store.blobs.put_url(KEY, content_type="image/png", size=4)
    refused = [
        ask("PUT", url, b"data", "text/html"),
        ask("PUT", url, b"data"),
        ask("PUT", url, b"more data", "image/png"),
        ask("PUT", url, b"", "image/png"),
        ask("PUT", url.replace(KEY, f"{KEY}2"), b"data", "image/png"),
        ask("GET", url),
    ]
    assert {response.status_code for response in refused} == {403}
    assert store.run(store.blobs.info(KEY)) is None
    assert ask("PUT", url, b"data", "image/png").status_code == 200
    assert store.get(KEY) == b"data"


def test_a_signed_address_of_s3_expires(open_store: OpenStore) -> None:
    store = open_store("nanio")
    store.put(KEY, b"mine")
    read = store.blobs.get_url(KEY, content_type="image/png", file_name="a.png", seconds=1)
    write = store.blobs.put_url(KEY, content_type="image/png", size=4, seconds=1)
    time.sleep(2.1)
    assert ask("GET", read).status_code == 403
    assert ask("PUT", write, b"data", "image/png").status_code == 403
    assert store.get(KEY) == b"mine"


def test_s3_is_told_type_and_name_of_a_download(open_store: OpenStore) -> None:
    store = open_store("moto")
    store.put(KEY, b"<svg/>")
    response = ask("GET", store.blobs.get_url(KEY, content_type="text/plain", file_name='größe \r\n"1".txt'))
    assert response.headers["content-type"].startswith("text/plain")
    name = "gr%C3%B6%C3%9Fe%20%0D%0A%221%22.txt"
    assert response.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    shown = ask("GET", store.blobs.get_url(KEY, content_type="image/png", file_name="a", inline=True))
    assert shown.headers["content-disposition"] == "inline; filename*=UTF-8''a"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(max_size=300))
def test_an_address_can_be_made_for_every_file_name(store: Store, name: str) -> None:
    url = store.blobs.get_url(KEY, content_type="image/png", file_name=name)
    assert url.isascii()
    assert url.isprintable()
