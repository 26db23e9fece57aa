"""Files in a local folder. Written whole and durable, or not at all."""

import errno
import os
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from storage.blobs.addresses import Address, read, sign
from storage.blobs.store import (
    ADDRESS_SECONDS,
    CHUNK_BYTES,
    BlobInfo,
    BlobNotFound,
    BlobSizeDiffers,
    BlobStore,
    BlobsUnavailable,
    checked_key,
    checked_range,
)
from storage.blobs.threads import Threads

T = TypeVar("T")

_THREADS = 8
#: Collected before a write: pieces of a request are a few KB, and each write is a trip to a thread.
_WRITE_BYTES = 1024 * 1024
#: Files being written. No key begins with a dot.
_INCOMING = ".incoming-"
#: A file being written that nobody has written to for so long is left over from a crash.
_ABANDONED_SECONDS = 24 * 3600
#: There is no file there: also where a part of the key is a file, or the key a folder.
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}


class FolderBlobs(BlobStore):
    """A folder of files by key, and addresses of them that the server itself answers.

    Args:
        folder: made if its parent can be written.
        base_url: the server's public address.
        secret: what addresses are signed with; :meth:`sign_with` sets it later.
    """

    def __init__(self, folder: Path, base_url: str, secret: bytes = b"") -> None:
        self.folder = folder
        self._base_url = base_url.rstrip("/")
        self._secret = secret
        self._threads = Threads(_THREADS, "blobs")
        self._made = False
        #: Folders whose own entry is known to be durable.
        self._durable: set[Path] = set()
        with suppress(OSError):  # whoever needs it is told
            self._make_root()

    # Files

    async def put(
        self,
        key: str,
        source: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        size: int | None = None,
    ) -> int:
        path = self._path(key)
        incoming: _Incoming = await self._run(self._begin, discard=_Incoming.abort)
        try:
            if isinstance(source, bytes):
                await self._run(incoming.write, source)
            else:
                pieces = bytearray()
                async for piece in source:
                    pieces += piece
                    if len(pieces) >= _WRITE_BYTES:
                        await self._run(incoming.write, pieces)
                        pieces = bytearray()
                await self._run(incoming.write, pieces)
            if size is not None and incoming.size != size:
                raise BlobSizeDiffers(f"{incoming.size} bytes came, {size} were announced")
            await self._run(self._commit, incoming, path)
            return incoming.size
        except BaseException:
            # Begun before it is awaited, so that it happens even if this is cancelled once more.
            await self._threads.clean_up(incoming.abort)
            raise

    async def get(self, key: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        checked_range(start, stop)
        path = self._path(key)
        file: IO[bytes] = await self._run(self._open, path, start, discard=_close)
        try:
            left = stop - start if stop is not None else None
            while left is None or left > 0:
                chunk: bytes = await self._run(
                    file.read, CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)
                )
                if not chunk:
                    break
                if left is not None:
                    left -= len(chunk)
                yield chunk
        finally:
            # In a thread: a read may be under way there, and closing waits for it.
            self._threads.start(file.close)

    async def info(self, key: str) -> BlobInfo | None:
        try:
            found: os.stat_result = await self._run(self._stat, self._path(key))
        except BlobNotFound:
            return None
        return BlobInfo(found.st_size, f"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}")

    async def delete(self, keys: Sequence[str]) -> None:
        paths = [self._path(key) for key in keys]
        if paths:
            await self._run(self._delete, paths)

    def local_path(self, key: str) -> AbstractAsyncContextManager[Path]:
        path = self._path(key)

        @asynccontextmanager
        async def itself() -> AsyncIterator[Path]:
            await self._run(self._stat, path)
            yield path

        return itself()

    async def close(self) -> None:
        self._threads.close()

    # Addresses

    def sign_with(self, secret: bytes) -> None:
        self._secret = secret

    def get_url(
        self,
        key: str,
        *,
        content_type: str,
        file_name: str,
        seconds: int = ADDRESS_SECONDS,
        inline: bool = False,
    ) -> str:
        # Lone surrogates have no UTF-8, in which tokens are written.
        name = file_name.encode("utf-8", "replace").decode()
        until = int(time.time()) + seconds
        return self._url(Address("GET", checked_key(key), until, content_type, file_name=name, inline=inline))

    def put_url(self, key: str, *, content_type: str, size: int, seconds: int = ADDRESS_SECONDS) -> str:
        until = int(time.time()) + seconds
        return self._url(Address("PUT", checked_key(key), until, content_type, size=size))

    def address(self, token: str) -> Address:
        """What a token of one of these addresses allows now.

        Raises:
            AddressInvalid: we did not make it.
            AddressExpired: its time is over.
        """
        return read(token, self._signing_secret(), time.time())

    def _url(self, address: Address) -> str:
        return f"{self._base_url}/files/v1/{sign(address, self._signing_secret())}"

    def _signing_secret(self) -> bytes:
        if not self._secret:
            raise RuntimeError("addresses cannot be signed before sign_with()")
        return self._secret

    # In threads

    async def _run(
        self, function: Callable[..., T], *arguments: Any, discard: Callable[[T], object] | None = None
    ) -> T:
        try:
            return await self._threads.run(function, *arguments, discard=discard)
        except OSError as error:
            raise BlobsUnavailable(str(error)) from error

    def _path(self, key: str) -> Path:
        return self.folder / checked_key(key)

    def _make_root(self) -> None:
        """Make the folder, the first time. If it disappears later, its disk has: files would be written
        where nobody finds them again."""
        if not self._made:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._made = True
            self._remove_abandoned()

    def _remove_abandoned(self) -> None:
        before = time.time() - _ABANDONED_SECONDS
        for path in self.folder.glob(f"{_INCOMING}*"):
            # Another process may be about to do the same.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _begin(self) -> "_Incoming":
        self._make_root()
        return _Incoming(self.folder / f"{_INCOMING}{secrets.token_hex(12)}")

    def _commit(self, incoming: "_Incoming", path: Path) -> None:
        self._make_durable(path.parent)
        try:
            incoming.commit(path)
        except FileNotFoundError:
            # Somebody removed an empty folder.
            self._durable.clear()
            self._make_durable(path.parent)
            incoming.commit(path)

    def _make_durable(self, folder: Path) -> None:
        """Make ``folder`` and those above it, each with a durable entry in the one above.

        Also where it was there already: another process may have made it just now and crash before its own
        fsync.
        """
        if folder == self.folder or folder in self._durable:
            return
        self._make_durable(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)
        if len(self._durable) > 10_000:
            self._durable.clear()
        self._durable.add(folder)

    def _open(self, path: Path, start: int) -> IO[bytes]:
        try:
            file = path.open("rb")
        except OSError as error:
            raise self._absent(error) from error
        file.seek(start)
        return file

    def _stat(self, path: Path) -> os.stat_result:
        try:
            found = path.stat()
        except OSError as error:
            raise self._absent(error) from error
        if not path.is_file():
            raise BlobNotFound
        return found

    def _absent(self, error: OSError) -> Exception:
        """Whether one file is not there, or all of them are away with their disk."""
        if error.errno in _ABSENT and self.folder.is_dir():
            return BlobNotFound()
        return error

    def _delete(self, paths: Sequence[Path]) -> None:
        emptied: set[Path] = set()
        for path in paths:
            try:
                path.unlink()
                emptied.add(path.parent)
            except OSError as error:
                absent = self._absent(error)
                if not isinstance(absent, BlobNotFound):
                    raise
        # What was deleted must not come back with a power cut: no row would know of it any more.
        for folder in emptied:
            _sync_folder(folder)


class _Incoming:
    """A file being written. Its methods are called in threads and wait for each other, so that one may be
    called while another one, whose caller was cancelled, still runs."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._lock = threading.Lock()
        self._path = path
        self._open = True
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write(self, data: bytes | bytearray) -> None:
        with self._lock:
            if self._open:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
                self.size += len(data)

    def commit(self, path: Path) -> None:
        """Let the file appear at ``path``, durably."""
        with self._lock:
            if self._open:
                os.fsync(self._descriptor)
                os.rename(self._path, path)
                os.close(self._descriptor)
                self._open = False
                _sync_folder(path.parent)

    def abort(self) -> None:
        """Forget the file, unless it was committed."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)
                with suppress(OSError):
                    self._path.unlink()


def _close(file: IO[bytes]) -> None:
    file.close()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
