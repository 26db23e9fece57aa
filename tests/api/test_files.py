"""Signed addresses of the folder store: they give and take exactly what was signed."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.clock import now
from storage.blobs import FolderBlobs
from storage.database import open_database
from storage.queries.secrets import shared_secret
from tests.support.app import PUBLIC_URL, RunningApp, problem
from tests.support.process import ServerProcess, init

KEY = "1/2026/11/6f0c"
CONTENT = b"0123456789"
MB = 1024 * 1024


class Files:
    """The store of the running application."""

    def __init__(self, app: RunningApp, blobs: FolderBlobs) -> None:
        self.app = app
        self.blobs = blobs

    def put(self, key: str, content: bytes) -> None:
        async def put() -> int:
            return await self.blobs.put(key, content, content_type="image/png")

        self.app.call(put)

    def exists(self, key: str) -> bool:
        return self.app.call(self.blobs.info, key) is not None

    def content(self, key: str) -> bytes:
        return (self.blobs.folder / key).read_bytes()

    def ask(self, method: str, url: str, **rest: object) -> httpx.Response:
        """A request to a signed address. Nobody says who he is."""
        assert url.startswith(f"{PUBLIC_URL}/files/v1/")
        return self.app.http.request(method, url.removeprefix(PUBLIC_URL), **rest)  # type: ignore[arg-type]

    def reading(self, key: str = KEY, content_type: str = "image/png", **rest: object) -> str:
        return self.blobs.get_url(key, content_type=content_type, **{"file_name": "a.png", **rest})  # type: ignore[arg-type]

    def writing(self, key: str = KEY, size: int = len(CONTENT), **rest: object) -> str:
        return self.blobs.put_url(key, content_type="image/png", size=size, **rest)  # type: ignore[arg-type]

    def send(
        self, url: str, content: object = CONTENT, content_type: str | None = "image/png", **headers: str
    ) -> httpx.Response:
        typed = {"Content-Type": content_type} if content_type is not None else {}
        return self.ask("PUT", url, content=content, headers={**typed, **headers})


@pytest.fixture
def files(sqlite_app: RunningApp) -> Files:
    """A store with one file."""
    blobs = sqlite_app._part("blobs")
    assert isinstance(blobs, FolderBlobs)
    found = Files(sqlite_app, blobs)
    found.app.call(blobs.delete, [KEY, "1/new", "1/other"])
    found.put(KEY, CONTENT)
    return found


# Reading


def test_a_file_is_read_with_what_was_signed_and_can_do_no_harm(files: Files) -> None:
    url = files.reading(content_type="text/html", file_name='größe\r\n"; x=y/../1.html')
    response = files.ask("GET", url)
    assert response.status_code == 200
    assert response.content == CONTENT
    assert response.headers["content-type"] == "text/html"
    assert response.headers["content-length"] == "10"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert response.headers["cache-control"] == "private"
    assert response.headers["accept-ranges"] == "bytes"
    name = "gr%C3%B6%C3%9Fe%0D%0A%22%3B%20x%3Dy%2F..%2F1.html"
    assert response.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"
    shown = files.ask("GET", files.reading(inline=True))
    assert shown.headers["content-disposition"] == "inline; filename*=UTF-8''a.png"


def test_a_content_type_cannot_end_its_header(files: Files) -> None:
    response = files.ask("GET", files.reading(content_type="image/png\r\nSet-Cookie: a=b"))
    assert response.headers["content-type"] == "application/octet-stream"
    assert "set-cookie" not in response.headers


def test_an_empty_file_is_read(files: Files) -> None:
    files.put("1/new", b"")
    response = files.ask("GET", files.reading("1/new"))
    assert (response.status_code, response.content) == (200, b"")
    problem(files.ask("GET", files.reading("1/new"), headers={"Range": "bytes=0-"}), 416)


def test_head_answers_like_get_without_the_content(files: Files) -> None:
    url = files.reading()
    head, get = files.ask("HEAD", url), files.ask("GET", url)
    assert head.status_code == 200
    assert head.content == b""
    assert dict(head.headers) == dict(get.headers)
    assert files.ask("HEAD", url, headers={"Range": "bytes=0-1"}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("bytes=7-", (7, 10)),
        ("bytes=7-1000", (7, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-1000", (0, 10)),
        ("bytes = 2 - 5", (2, 6)),
    ],
)
def test_a_range_is_answered_with_206(files: Files, asked: str, found: tuple[int, int]) -> None:
    start, stop = found
    response = files.ask("GET", files.reading(), headers={"Range": asked})
    assert response.status_code == 206
    assert response.content == CONTENT[start:stop]
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/10"
    assert response.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_beyond_the_end_is_416_with_the_size(files: Files, asked: str) -> None:
    response = files.ask("GET", files.reading(), headers={"Range": asked})
    problem(response, 416, "range-not-satisfiable")
    assert response.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=0-1,4-5", "lines=0-1", "bytes=", "bytes=-", "bytes=a-b"]
)
def test_what_is_no_single_range_is_ignored(files: Files, asked: str) -> None:
    response = files.ask("GET", files.reading(), headers={"Range": asked})
    assert (response.status_code, response.content) == (200, CONTENT)


def test_a_file_that_is_known_is_304(files: Files) -> None:
    etag = files.ask("GET", files.reading()).headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        response = files.ask("GET", files.reading(), headers={"If-None-Match": known})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert files.ask("GET", files.reading(), headers={"If-None-Match": '"x"'}).status_code == 200
    files.put(KEY, CONTENT)
    assert files.ask("GET", files.reading(), headers={"If-None-Match": etag}).status_code == 200


def test_a_download_goes_on_only_in_the_same_file(files: Files) -> None:
    etag = files.ask("GET", files.reading()).headers["etag"]
    goes_on = {"Range": "bytes=4-", "If-Range": etag}
    assert files.ask("GET", files.reading(), headers=goes_on).status_code == 206
    files.put(KEY, b"another file")
    response = files.ask("GET", files.reading(), headers=goes_on)
    assert (response.status_code, response.content) == (200, b"another file")
    dated = {"Range": "bytes=4-", "If-Range": "Sun, 22 Nov 2026 06:00:00 GMT"}
    assert files.ask("GET", files.reading(), headers=dated).status_code == 200


def test_a_deleted_file_is_404(files: Files) -> None:
    url = files.reading()
    files.app.call(files.blobs.delete, [KEY])
    problem(files.ask("GET", url), 404, "file-not-found")
    assert files.ask("HEAD", url).status_code == 404


# Storing


def test_what_was_signed_is_stored(files: Files) -> None:
    response = files.send(files.writing("1/new"))
    assert response.status_code == 200, response.text
    assert files.content("1/new") == CONTENT
    assert response.headers["etag"] == files.ask("GET", files.reading("1/new")).headers["etag"]


def test_a_file_larger_than_other_bodies_may_be_is_stored(files: Files) -> None:
    size = files.app.settings.max_quarantine_bytes + 1
    assert files.send(files.writing("1/new", size), bytes(size)).status_code == 200
    assert (files.blobs.folder / "1/new").stat().st_size == size


def test_another_type_or_length_than_signed_is_refused(files: Files) -> None:
    url = files.writing("1/new")
    problem(files.send(url, content_type="text/html"), 403, "address-invalid")
    problem(files.send(url, content_type="image/png; charset=x"), 403, "address-invalid")
    problem(files.send(url, content_type=None), 403, "address-invalid")
    problem(files.send(url, CONTENT[:9]), 403, "address-invalid")
    problem(files.send(url, b""), 403, "address-invalid")
    problem(files.send(url, CONTENT + b"x"), 413, "too-large")
    problem(files.send(url, iter([CONTENT])), 411, "length-required")
    # A length that lies, which no server of ours lets pass.
    problem(files.send(url, CONTENT[:9], **{"Content-Length": "10"}), 400, "bad-request")
    problem(files.send(url, CONTENT + b"x", **{"Content-Length": "10"}), 400, "bad-request")
    problem(files.send(url, CONTENT, **{"Content-Length": "-10"}), 403, "address-invalid")
    assert not files.exists("1/new")


# Anything but what was signed


def test_an_address_is_for_its_method_alone(files: Files) -> None:
    problem(files.send(files.reading()), 403, "address-invalid")
    problem(files.ask("GET", files.writing()), 403, "address-invalid")
    assert files.ask("HEAD", files.writing()).status_code == 403
    for method in ("DELETE", "POST", "PATCH"):
        problem(files.ask(method, files.reading()), 405)
    assert files.content(KEY) == CONTENT


def test_an_address_is_for_its_file_alone(files: Files) -> None:
    files.put("1/other", b"secret")
    mine, theirs = files.reading().rpartition("/")[2], files.reading("1/other").rpartition("/")[2]
    mixed = f"{theirs.split('.')[0]}.{mine.split('.')[1]}"
    problem(files.ask("GET", f"{PUBLIC_URL}/files/v1/{mixed}"), 403, "address-invalid")
    problem(files.send(f"{PUBLIC_URL}/files/v1/{mixed}"), 403, "address-invalid")


@pytest.mark.parametrize("token", ["nothing", ".x", "a.b", "%00", "%2E%2E", "ä.ö", "A" * 4000, "W10.W10"])
def test_what_is_no_token_is_refused(files: Files, token: str) -> None:
    for method in ("GET", "HEAD", "PUT"):
        response = files.ask(method, f"{PUBLIC_URL}/files/v1/{token}", headers={"Content-Length": "0"})
        assert response.status_code == (404 if token == "%00" else 403)


def test_a_tampered_address_is_refused(files: Files) -> None:
    url = files.reading()
    base, _, token = url.rpartition("/")
    for place in range(0, len(token), 3):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        problem(files.ask("GET", f"{base}/{changed}"), 403, "address-invalid")
    problem(files.ask("GET", f"{url}x"), 403, "address-invalid")
    assert files.ask("GET", url).status_code == 200


def test_an_expired_address_is_refused_as_that(files: Files) -> None:
    problem(files.ask("GET", files.reading(seconds=0)), 403, "address-expired")
    problem(files.send(files.writing("1/new", seconds=0)), 403, "address-expired")
    short = files.reading(seconds=2)
    assert files.ask("GET", short).status_code == 200
    time.sleep(2)
    problem(files.ask("GET", short), 403, "address-expired")
    assert not files.exists("1/new")


def test_addresses_of_another_installation_are_refused(files: Files, tmp_path: Path) -> None:
    other = FolderBlobs(tmp_path, PUBLIC_URL, b"x" * 32)
    url = other.get_url(KEY, content_type="image/png", file_name="a.png")
    problem(files.ask("GET", url), 403, "address-invalid")
    asyncio.run(other.close())


def test_addresses_outlive_a_restart_and_are_the_same_for_every_process(app: RunningApp) -> None:
    secret = app.read(shared_secret, "files", now())
    assert len(secret) == 32
    assert app.write(shared_secret, "files", now()) == secret
    assert app.write(shared_secret, "other", now()) != secret
    blobs = app._part("blobs")
    again = FolderBlobs(app.settings.data / "blobs", PUBLIC_URL, secret)
    token = again.put_url(KEY, content_type="image/png", size=1).rpartition("/")[2]
    assert blobs.address(token).key == KEY
    asyncio.run(again.close())


def test_processes_that_start_together_get_the_same_secret(app: RunningApp) -> None:
    async def ask() -> list[bytes]:
        database = app.database
        return await asyncio.gather(*(database.write(shared_secret, "raced", now()) for _ in range(8)))

    assert len(set(app.call(ask))) == 1


def test_a_folder_that_is_away_is_503_and_to_be_tried_later(files: Files) -> None:
    reading, writing = files.reading(), files.writing("1/new")
    away = files.blobs.folder.rename(files.blobs.folder.with_name("away"))
    try:
        problem(files.ask("GET", reading), 503, "blobs-unavailable")
        problem(files.send(writing), 503, "blobs-unavailable")
    finally:
        away.rename(files.blobs.folder)
    assert files.ask("GET", reading).content == CONTENT


# A real server


@pytest.fixture
def server(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> Iterator[tuple[ServerProcess, FolderBlobs]]:
    """A server and its store, opened a second time to sign addresses."""
    data = tmp_path / "data"
    init(data)
    started = start_server(data, log_level="debug")

    async def secret() -> bytes:
        database = open_database(f"sqlite:///{data / 'fieldsync.db'}")
        try:
            return await database.write(shared_secret, "files", now())
        finally:
            await database.close()

    blobs = FolderBlobs(data / "blobs", started.url, asyncio.run(secret()))
    yield started, blobs
    asyncio.run(blobs.close())


def peak_memory(server: ServerProcess) -> int:
    """The most memory, in bytes, that any process of the server has ever had."""
    peak = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == server._process.pid:
                for line in (folder / "status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        peak = max(peak, int(line.split()[1]) * 1024)
        except (OSError, ValueError):
            continue
    return peak


def test_large_files_go_through_a_real_server_at_constant_memory_and_its_log_names_no_address(
    server: tuple[ServerProcess, FolderBlobs], tmp_path: Path
) -> None:
    started, blobs = server
    size, piece = 192 * MB, os.urandom(MB)
    before = peak_memory(started)
    assert before > 10 * MB
    write = blobs.put_url(KEY, content_type="video/mp4", size=size)
    read = blobs.get_url(KEY, content_type="video/mp4", file_name="film.mp4")
    with httpx.Client(trust_env=False, timeout=60) as client:
        headers = {"Content-Type": "video/mp4", "Content-Length": str(size)}
        stored = client.put(write, content=(piece for _ in range(size // MB)), headers=headers)
        assert stored.status_code == 200, stored.text
        with client.stream("GET", read) as response:
            assert sum(len(chunk) for chunk in response.iter_bytes()) == size
        last = client.get(read, headers={"Range": "bytes=-5"})
        assert (last.status_code, last.content) == (206, piece[-5:])
        # Somebody who loses interest after a megabyte.
        with client.stream("GET", read) as response:
            next(response.iter_bytes(MB))
        assert client.head(read).headers["content-length"] == str(size)
        problem(client.get(read[:-1] + ("A" if read[-1] != "A" else "B")), 403, "address-invalid")
    assert peak_memory(started) - before < 48 * MB
    log = (tmp_path / "server.log").read_text()
    for url in (write, read):
        assert url.rpartition("/")[2].split(".")[0] not in log


def test_an_upload_that_is_cut_leaves_nothing(server: tuple[ServerProcess, FolderBlobs]) -> None:
    _, blobs = server
    url = blobs.put_url(KEY, content_type="video/mp4", size=64 * MB)

    def cut() -> Iterator[bytes]:
        yield bytes(8 * MB)
        raise ConnectionAbortedError

    headers = {"Content-Type": "video/mp4", "Content-Length": str(64 * MB)}
    with httpx.Client(trust_env=False, timeout=60) as client, pytest.raises(ConnectionAbortedError):
        client.put(url, content=cut(), headers=headers)
    deadline = time.monotonic() + 10
    while list(blobs.folder.rglob("*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [path.name for path in blobs.folder.rglob("*")] == []
