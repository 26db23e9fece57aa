"""Files on their way in: sessions that take the bytes of a file in any order, in parallel and repeatedly.

All state is in the database and the blob store, so that any process goes on where another one stopped. Bytes
count as received once their blob is durable and its row is committed; blocks never overlap, because only
bytes that are not there yet are stored, which is looked at once more under the session's lock.
"""

import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

from media.sniff import HEAD_BYTES
from media.upload_sessions import (
    Assembled,
    BadRange,
    Differs,
    Expired,
    HashMismatch,
    NoSuchUpload,
    TooLarge,
    Upload,
    UploadProblem,
    assembled_key,
    check_range,
    gone,
    merged,
    upload_of,
    usable,
)
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable, new_key
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import uploads as queries
from storage.queries.uploads import MAX_BLOCK, Block, UploadRow

__all__ = [
    "MAX_BLOCKS",
    "Assembled",
    "BadRange",
    "Differs",
    "Expired",
    "HashMismatch",
    "NoSuchUpload",
    "TooLarge",
    "Upload",
    "UploadProblem",
    "Uploads",
]

log = logging.getLogger("fieldsync.uploads")

#: The most blocks of one session: 2 GB in blocks of 100 KB, the specification's largest, and some more. Each
#: request looks at all of its session's rows.
MAX_BLOCKS = 25_000
#: How long after its end the blobs of a session are left alone: a process may still be at the last block.
_GRACE_US = 3600 * 1_000_000
#: Types are not told to the blob store: what is served is decided by the row of the file.
_TYPE = "application/octet-stream"


def _microseconds() -> int:
    return time.time_ns() // 1000


class Uploads:
    """The sessions of all teams.

    Args:
        lifetime_us: how long a session lives after its opening and after each of its blocks.
        clock: microseconds since the epoch.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        lifetime_us: int,
        clock: Callable[[], int] = _microseconds,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._lifetime = lifetime_us
        self._clock = clock

    async def open(
        self,
        team_id: int,
        subject_id: str,
        kind: str,
        target: str,
        file_size: int,
        *,
        block_size: int,
        file_name: str | None,
        content_type: str | None,
        sha256: bytes | None,
        now: int,
        anew: bool = False,
    ) -> Upload:
        """A new session, or the open one in blocks of the same subject for the same file.

        Answering the open one makes up for a lost answer. With ``block_size`` 0 (tus) it is always a new one,
        and with ``anew``: where ``target`` does not say which content it is, a session may not be shared.
        """
        row = UploadRow(
            team_id=team_id,
            upload_id=new_id(),
            kind=kind,
            target=target,
            file_name=file_name,
            content_type=content_type,
            block_size=block_size,
            file_size=file_size,
            sha256=sha256,
            subject_id=subject_id,
            created_at=now,
            expires_at=now + self._lifetime,
            finished_at=None,
        )
        row, blocks = await self._database.settle(_open, row, now, anew)
        return upload_of(row, blocks)

    async def find(self, team_id: int, upload_id: str) -> Upload:
        """A session with what it has received.

        Raises:
            NoSuchUpload: none of this team, or given up.
            Expired: it ended.
        """
        row, blocks = await self._database.read(_load, team_id, upload_id)
        return upload_of(usable(row, self._clock()), blocks)

    async def write(
        self,
        upload: Upload,
        start: int,
        source: AsyncIterator[bytes],
        *,
        length: int | None = None,
        keep_partial: bool = False,
    ) -> Upload:
        """Store bytes from ``start`` on; durable when this returns. Answers the session as it is then.

        No connection of the database is held while ``source`` is waited for, and no more than one block of
        4 MB is in memory.

        Args:
            length: how many bytes there must be; None: as many as come.
            keep_partial: what came before an error or a cut of ``source`` is kept too. Otherwise all of it
                is recorded at once, or nothing.

        Raises:
            BadRange: it does not fit, or not as many bytes came as were announced.
            Differs: other bytes were received there.
            NoSuchUpload, Expired: the session ended meanwhile.
            BlobsUnavailable, Contended: try again.
        """
        check_range(upload, start, length)
        most = min(upload.file_size - start, upload.block_size or upload.file_size)
        most = most if length is None else length
        writing = _Writing(self, upload, start, keep_partial)
        try:
            try:
                async for chunk in source:
                    if writing.came + len(chunk) > most:
                        raise BadRange(f"More than the {most:,} bytes that can stand here.")
                    await writing.take(chunk)
                if length is not None and writing.came != length:
                    raise BadRange(f"{writing.came:,} bytes came and {length:,} were announced.")
            except UploadProblem:
                raise
            except Exception:
                if keep_partial:
                    await writing.record()
                raise
            await writing.record()
        finally:
            await writing.drop()
        return await self.find(upload.team_id, upload.upload_id)

    async def assemble(self, upload: Upload, now: int) -> Assembled | None:
        """The complete file in one blob, read and written as a stream.

        The blob's key follows from the session: whoever does it again, after a crash or at the same time,
        writes the same bytes to the same place.

        Returns:
            None if there is nothing to do: another one has finished it, or bytes are missing (again, if the
            blob store lost some, which the session then knows). :meth:`find` tells which.

        Raises:
            HashMismatch: not the declared file. The blocks are forgotten, the session stays open.
        """
        blocks = await self._database.read(queries.blocks, upload.team_id, upload.upload_id)
        if merged(blocks) != (((0, upload.file_size),) if upload.file_size else ()):
            return None
        reading = _Assembling(self._blobs, blocks, upload.sha256)
        key = assembled_key(upload.team_id, upload.created_at, upload.upload_id)
        try:
            await self._blobs.put(key, reading.content(), content_type=_TYPE, size=upload.file_size)
        except Exception:
            # Not by the exception's class: a store may wrap what its source raises.
            if reading.lost is not None:
                await self._forget_lost(upload, reading.lost)
                return None
            if reading.differs:
                await self._forget(upload, blocks)
                raise HashMismatch(
                    "The file's SHA-256 is not the declared one. All of it was forgotten: send it again, or "
                    "open a session with the right one.",
                    field="sha256",
                ) from None
            raise
        return Assembled(key, upload.file_size, reading.digest, bytes(reading.head))

    async def finish(self, upload: Upload) -> None:
        """Mark the session as taken over, if that has not happened yet, and remove its blocks.

        Raises:
            NoSuchUpload: it was given up or has expired.
        """
        if not await self._database.settle(queries.finish, upload.team_id, upload.upload_id, self._clock()):
            raise gone()
        await self._remove_blocks(upload.team_id, upload.upload_id)

    async def discard(self, assembled: Assembled) -> None:
        """Remove an assembled file that was not taken over."""
        await self._delete_blobs([assembled.blob_key])

    async def cancel(self, upload: Upload) -> None:
        """End a session and remove what came. A file that was taken over already stays."""
        row = await self._database.settle(queries.give_up, upload.team_id, upload.upload_id)
        if row is not None:
            with contextlib.suppress(BlobsUnavailable):  # the clock sees to it later
                await self._clean(row)
                await self._database.settle(queries.purge, 1)

    async def expire(self, now: int) -> int:
        """Remove the blocks of sessions that ended, and sessions that ended long ago; for the clock.

        Answers how many sessions lost their blocks.
        """
        cleaned = 0
        while True:
            rows = await self._database.read(queries.expired_with_blocks, now - _GRACE_US, 100)
            if not rows:
                break
            for row in rows:
                await self._clean(row)
            cleaned += len(rows)
        # A device that comes back late is still told that its session expired.
        await self._database.settle(queries.purge, now - self._lifetime)
        return cleaned

    # What the writing needs.

    async def _clean(self, row: UploadRow) -> None:
        if row.finished_at is None:
            # A process that died between assembling and taking over left it.
            await self._blobs.delete([assembled_key(row.team_id, row.created_at, row.upload_id)])
        await self._remove_blocks(row.team_id, row.upload_id)

    async def _remove_blocks(self, team_id: int, upload_id: str) -> None:
        blocks = await self._database.read(queries.blocks, team_id, upload_id)
        keys = [block.blob_key for block in blocks]
        if keys:
            # Blobs first: as long as the rows are there, somebody knows of the blobs.
            await self._blobs.delete(keys)
            await self._database.settle(queries.remove_blocks, team_id, upload_id, keys)

    async def _forget(self, upload: Upload, blocks: Sequence[Block]) -> None:
        keys = [block.blob_key for block in blocks]
        await self._blobs.delete(keys)
        await self._database.settle(queries.remove_blocks, upload.team_id, upload.upload_id, keys)

    async def _forget_lost(self, upload: Upload, key: str) -> None:
        row = await self._database.settle(_forget_lost, upload.team_id, upload.upload_id, key)
        if row is not None and row.finished_at is None and row.expires_at > self._clock():
            log.warning("upload %s: the blob store has lost block %s", upload.upload_id, key)

    async def _delete_blobs(self, keys: Sequence[str]) -> None:
        try:
            await self._blobs.delete(keys)
        except BlobsUnavailable as error:
            log.warning("%d blobs are left over: %s", len(keys), error)


class _Writing:
    """One write: its bytes become blobs piece by piece, and rows when they are kept."""

    def __init__(self, uploads: Uploads, upload: Upload, start: int, eager: bool) -> None:
        self.came = 0
        self._uploads = uploads
        self._database = uploads._database
        self._blobs = uploads._blobs
        self._upload = upload
        self._next = start
        self._eager = eager
        self._buffer: list[bytes] = []
        self._buffered = 0
        #: Durable, and not recorded yet.
        self._parts: list[Block] = []

    async def take(self, chunk: bytes) -> None:
        """The next bytes."""
        self.came += len(chunk)
        view = memoryview(chunk)
        while view:
            piece = view[: MAX_BLOCK - self._buffered]
            # A whole chunk is kept as it is; of a longer one, parts are copied.
            self._buffer.append(chunk if len(piece) == len(chunk) else bytes(piece))
            self._buffered += len(piece)
            view = view[len(piece) :]
            if self._buffered == MAX_BLOCK:
                await self._flush()
                if self._eager:
                    await self.record()

    async def _flush(self) -> None:
        if not self._buffered:
            return
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer, self._buffered = [], 0
        await self._place(self._next, data)
        self._next += len(data)

    async def _place(self, start: int, data: bytes) -> None:
        """Store what is missing of ``data`` as blobs; what is there must be the same."""
        stop = start + len(data)
        upload = self._upload
        at = start
        for block in await self._compared(start, data):
            if block.start > at:
                await self._put(at, data[at - start : block.start - start])
            at = max(at, block.stop)
        if at < stop:
            await self._put(at, data[at - start :] if at > start else data)
        if upload.blocks + len(self._parts) > MAX_BLOCKS:
            raise BadRange(f"A session holds at most {MAX_BLOCKS:,} blocks; send larger ones.")

    async def _compared(self, start: int, data: bytes) -> list[Block]:
        """The blocks there are in the range of ``data``, once they are known to hold the same bytes."""
        upload = self._upload
        while True:
            blocks = await self._database.read(
                queries.overlapping, upload.team_id, upload.upload_id, start, start + len(data)
            )
            lost = None
            for block in blocks:
                low, high = max(start, block.start), min(start + len(data), block.stop)
                try:
                    same = await self._same(block, low, data[low - start : high - start])
                except BlobNotFound:
                    lost = block.blob_key
                    break
                if not same:
                    raise Differs(
                        f"Other bytes were received within {low:,} to {high - 1:,}.", "Content-Range"
                    )
            if lost is None:
                return blocks
            await self._uploads._forget_lost(upload, lost)

    async def _same(self, block: Block, low: int, expected: bytes) -> bool:
        at = 0
        chunks = self._blobs.get(block.blob_key, low - block.start, low - block.start + len(expected))
        async with contextlib.aclosing(chunks) as reading:
            async for chunk in reading:
                if expected[at : at + len(chunk)] != chunk:
                    return False
                at += len(chunk)
        return at == len(expected)

    async def _put(self, start: int, data: bytes) -> None:
        part = Block(start, start + len(data), new_key(self._upload.team_id, self._uploads._clock()))
        await self._blobs.put(part.blob_key, data, content_type=_TYPE, size=len(data))
        self._parts.append(part)

    async def record(self) -> None:
        """Record all that came. Where another writer was faster, its bytes must be the same."""
        await self._flush()
        upload, uploads = self._upload, self._uploads
        while self._parts:
            now = uploads._clock()
            clashing = await uploads._database.settle(
                _record, upload.team_id, upload.upload_id, self._parts, now, now + uploads._lifetime
            )
            if clashing is None:
                return  # finished meanwhile; drop() sees to the blobs
            if not clashing:
                self._parts = []
            for part in clashing:
                chunks = [chunk async for chunk in self._blobs.get(part.blob_key)]
                await self._place(part.start, b"".join(chunks))
                self._parts.remove(part)
                await uploads._delete_blobs([part.blob_key])

    async def drop(self) -> None:
        """Remove what was stored and not recorded."""
        parts, self._parts = self._parts, []
        if parts:
            await self._uploads._delete_blobs([part.blob_key for part in parts])


class _Assembling:
    """The blocks' bytes in order, with what is learnt on the way."""

    def __init__(self, blobs: BlobStore, blocks: Sequence[Block], expected: bytes | None) -> None:
        self._blobs = blobs
        self._blocks = blocks
        self._expected = expected
        self.head = bytearray()
        self.digest = b""
        self.differs = False
        #: The key of a blob that is not there, or not whole.
        self.lost: str | None = None

    async def content(self) -> AsyncIterator[bytes]:
        sha256 = hashlib.sha256()
        for block in self._blocks:
            left = block.stop - block.start
            try:
                async for chunk in self._blobs.get(block.blob_key, 0, left):
                    left -= len(chunk)
                    if len(self.head) < HEAD_BYTES:
                        self.head += chunk[: HEAD_BYTES - len(self.head)]
                    sha256.update(chunk)
                    yield chunk
            except BlobNotFound:
                self.lost = block.blob_key
                raise
            if left:
                self.lost = block.blob_key
                raise BlobNotFound(block.blob_key)
        self.digest = sha256.digest()
        if self._expected is not None and self.digest != self._expected:
            # Before the end of the stream, so that the store keeps nothing.
            self.differs = True
            raise HashMismatch("not the declared file")


def _open(connection: Connection, row: UploadRow, now: int, anew: bool) -> tuple[UploadRow, list[Block]]:
    known = queries.open_one(connection, row, now) if row.block_size and not anew else None
    if known is None:
        queries.add(connection, row)
        return row, []
    return known, queries.blocks(connection, known.team_id, known.upload_id)


def _load(connection: Connection, team_id: int, upload_id: str) -> tuple[UploadRow | None, list[Block]]:
    row = queries.one(connection, team_id, upload_id)
    return row, queries.blocks(connection, team_id, upload_id) if row else []


def _record(
    connection: Connection, team_id: int, upload_id: str, parts: Sequence[Block], now: int, expires_at: int
) -> list[Block] | None:
    """Record blocks unless some overlap what is there now: then those are answered and nothing is recorded.

    None: the session is finished; nobody needs them.
    """
    row = usable(queries.one(connection, team_id, upload_id, lock=True), now)
    if row.finished_at is not None:
        return None
    low, high = min(part.start for part in parts), max(part.stop for part in parts)
    there = queries.overlapping(connection, team_id, upload_id, low, high)
    clashing = [
        part for part in parts if any(part.start < block.stop and block.start < part.stop for block in there)
    ]
    if not clashing:
        queries.add_blocks(connection, team_id, upload_id, parts)
        queries.extend(connection, team_id, upload_id, expires_at)
    return clashing


def _forget_lost(connection: Connection, team_id: int, upload_id: str, key: str) -> UploadRow | None:
    row = queries.one(connection, team_id, upload_id, lock=True)
    queries.remove_blocks(connection, team_id, upload_id, [key])
    return row
