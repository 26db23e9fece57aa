"""Blobs: files in a local folder. Written whole and durable, or not at all."""

import asyncio
import os
import secrets
from pathlib import Path


class BlobsUnavailable(Exception):
    """The blob store does not take or give files at present."""


class Blobs:
    """A folder of files by key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def check(self) -> None:
        """Write a file durably and remove it.

        Raises:
            BlobsUnavailable: the folder is gone, full or read-only.
        """
        try:
            await asyncio.to_thread(self._check)
        except OSError as error:
            raise BlobsUnavailable(str(error)) from error

    def _check(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f".check-{secrets.token_hex(8)}"
        with path.open("wb") as file:
            file.write(b"check")
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
