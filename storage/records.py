"""Records of collections: files that are databases of their own."""

from pathlib import Path

from storage.blobs import BlobStore


class RecordFiles:
    """Opens the record files of this process's collections.

    Args:
        cache: where copies go when the store of files is not on this machine.
    """

    def __init__(self, blobs: BlobStore, cache: Path) -> None:
        self._blobs = blobs
        self._cache = cache

    async def close(self) -> None:
        """Let go of open files."""
