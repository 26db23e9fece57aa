"""What every store of files does: the interface, its errors, and keys."""

import re
import secrets
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

#: The largest piece in which a file is read.
CHUNK_BYTES = 256 * 1024
#: How long a signed address works: 65 minutes, as in section 3.5.4.
ADDRESS_SECONDS = 65 * 60

_MAX_KEY = 512
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


class BlobsUnavailable(Exception):
    """The store does not take or give files at present; nothing was kept. Trying later may succeed."""


class BlobNotFound(Exception):
    """There is no file under this key."""


class BlobSizeDiffers(ValueError):
    """The source has another length than was said; nothing was kept."""


class BlobInfo(NamedTuple):
    """What is known of a file without reading it. ``version`` changes whenever its content does."""

    size: int
    version: str = ""


class BlobStore(ABC):
    """Files by key. A key is server-made: segments of letters, digits, ``.``, ``_`` and ``-``, none hidden.

    Every method raises :class:`BlobsUnavailable` if the store does not answer or is full, and ValueError
    for a key that is none.
    """

    @abstractmethod
    async def put(
        self,
        key: str,
        source: bytes | AsyncIterator[bytes],
        *,
        content_type: str,
        size: int | None = None,
    ) -> int:
        """Store a file, replacing one of the same key at once; durable when this returns.

        Args:
            key: where.
            source: the content. If it raises, or this is cancelled, nothing is stored.
            content_type: what S3 is told; a folder keeps none.
            size: the length in bytes, if known.

        Returns:
            The length in bytes.

        Raises:
            BlobSizeDiffers: the source is not ``size`` bytes long.
        """

    @abstractmethod
    def get(self, key: str, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from ``start`` up to, not including, ``stop`` (None: the end), in pieces of at most
        256 KB. What lies beyond the end is left out.

        Raises:
            BlobNotFound: with the first piece.
        """

    @abstractmethod
    async def info(self, key: str) -> BlobInfo | None:
        """Size and version of a file; None if there is none."""

    @abstractmethod
    async def delete(self, keys: Sequence[str]) -> None:
        """Remove files. One that is not there is no error."""

    @abstractmethod
    def get_url(
        self,
        key: str,
        *,
        content_type: str,
        file_name: str,
        seconds: int = ADDRESS_SECONDS,
        inline: bool = False,
    ) -> str:
        """An address at which anybody can read the file for a while.

        Args:
            key: the file; whether it is there is not looked at.
            content_type: what the answer says it is.
            file_name: under which a browser saves it; any text.
            seconds: how long the address works.
            inline: for a browser to show instead of saving.
        """

    @abstractmethod
    def put_url(self, key: str, *, content_type: str, size: int, seconds: int = ADDRESS_SECONDS) -> str:
        """An address to which anybody can PUT exactly ``size`` bytes with exactly this Content-Type."""

    @abstractmethod
    def local_path(self, key: str) -> AbstractAsyncContextManager[Path]:
        """The file on this machine, to be read within the ``async with`` block: itself, or a copy.

        Raises:
            BlobNotFound: there is none.
        """

    def sign_with(self, secret: bytes) -> None:
        """Take the secret for signed addresses. S3 signs with its own."""
        del secret

    async def check(self) -> None:
        """Raise :class:`BlobsUnavailable` unless a small file can be stored, read and removed."""
        key, content = f"check-{secrets.token_hex(8)}", secrets.token_bytes(16)
        await self.put(key, content, content_type="application/octet-stream", size=len(content))
        try:
            read = b"".join([chunk async for chunk in self.get(key)])
        except BlobNotFound:
            read = b""
        await self.delete([key])
        if read != content:
            raise BlobsUnavailable("the store gave back something else than it had taken")

    @abstractmethod
    async def close(self) -> None:
        """Let go of threads and connections."""


def checked_key(key: str) -> str:
    """``key``, if it is one.

    Raises:
        ValueError: it is not. No key of ours comes from a client, so this is a defect.
    """
    if len(key) > _MAX_KEY or _KEY.fullmatch(key) is None:
        raise ValueError(f"not a key of a file: {key[:100]!r}")
    return key


def checked_range(start: int, stop: int | None) -> None:
    """Raise ValueError unless it is a range of positions, empty or not."""
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"not a range of bytes: {start} to {stop}")


def new_key(team_id: int, now: int) -> str:
    """A key that nothing has yet: ``team/yyyy/mm/uuid``, with the month of ``now``."""
    month = datetime.fromtimestamp(now / 1_000_000, UTC)
    return f"{team_id}/{month:%Y/%m}/{uuid.uuid4().hex}"
