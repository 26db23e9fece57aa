"""Bodies of tus requests: read until they end, are cut, or have to give way to a newer request."""

import asyncio
import hmac
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from server.attachments.tus_headers import CHECKSUM_MISMATCH, Checksum
from server.errors import Problem
from storage.database import Unavailable

#: A chunk with a checksum waits in memory up to this size, on the disk beyond it.
_SPOOL_BYTES = 4 * 1024 * 1024
_READ_BYTES = 256 * 1024
#: Longest wait for an older request: taking over a file of 2 GB is read and written once more.
_WAIT_SECONDS = 30.0


class Turn:
    """One request's time as the only one that works on an upload."""

    def __init__(self) -> None:
        #: Set when a newer request asks this one to come to an end.
        self.asked_to_stop = asyncio.Event()
        self.ended = asyncio.Event()


class Turns:
    """Whose turn it is on each upload, in this process.

    A device that lost its connection comes back before the server has noticed the loss. The old request
    keeps what it has received and ends; only then is the new one told the offset, so that the offset does
    not move under it. Across processes nothing is ordered: there the engine's records decide, and a device
    that was told an older offset is refused with the newer one.
    """

    def __init__(self) -> None:
        self._current: dict[tuple[int, str], Turn] = {}

    @asynccontextmanager
    async def take(self, key: tuple[int, str]) -> AsyncIterator[Turn]:
        """Ask who is at it to stop, wait for that, and be the one.

        Raises:
            Problem: 423 ``upload-busy``: the other one does not come to an end.
        """
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                while (older := self._current.get(key)) is not None:
                    older.asked_to_stop.set()
                    await older.ended.wait()
        except TimeoutError:
            raise Problem(423, "upload-busy", "Another request is at work on this upload.") from None
        turn = self._current[key] = Turn()
        try:
            yield turn
        finally:
            del self._current[key]
            turn.ended.set()


class Body:
    """The bytes of one request. Ends without an error when the caller is cut off or the turn is over.

    Attributes:
        cut: the caller went away before the end.
        stopped: a newer request wants the upload.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], turn: Turn) -> None:
        self._receive = receive
        self._turn = turn
        self.cut = False
        self.stopped = False

    @property
    def whole(self) -> bool:
        """Whether all came, once reading has ended."""
        return not (self.cut or self.stopped)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes as they come."""
        stopping = asyncio.ensure_future(self._turn.asked_to_stop.wait())
        try:
            while True:
                receiving = asyncio.ensure_future(self._receive())
                try:
                    await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    # Before it is cancelled: Granian's future is done at once then, a task is not.
                    self.stopped = not receiving.done()
                finally:
                    receiving.cancel()
                if self.stopped:
                    return
                message = receiving.result()
                if message["type"] == "http.disconnect":
                    self.cut = True
                    return
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body", False):
                    return
        finally:
            stopping.cancel()


@asynccontextmanager
async def checked(
    body: Body, checksum: Checksum, folder: Path, limit: int
) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bytes of ``body`` once they are known to be those of ``checksum``; they wait in ``folder``.

    Of a body that did not come whole nothing can be checked, and nothing is given.

    Args:
        limit: beyond so many bytes no more is read; what was read is given, for the engine to refuse.

    Raises:
        Problem: 460 ``checksum-mismatch``.
        Unavailable: ``folder`` is full.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(folder)) as spool:
        digest = checksum.new()
        size = 0
        async for chunk in body.chunks():
            await asyncio.to_thread(_keep, spool, digest, chunk)
            size += len(chunk)
            if size > limit:
                break
        if not body.whole:
            yield _nothing()
            return
        if size <= limit and not hmac.compare_digest(digest.digest(), checksum.digest):
            raise Problem(
                CHECKSUM_MISMATCH,
                "checksum-mismatch",
                f"The bytes of this request are not those of its {checksum.algorithm}; none was kept.",
            )
        spool.seek(0)
        yield _again(spool)


def _keep(spool: IO[bytes], digest: Any, chunk: bytes) -> None:
    try:
        spool.write(chunk)
    except OSError as error:
        raise Unavailable(str(error)) from error
    digest.update(chunk)


async def _again(spool: IO[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(spool.read, _READ_BYTES):
        yield chunk


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
