"""Bodies at rest: compressed verbatim."""

import threading
from collections.abc import Sequence

import zstandard

_local = threading.local()


def compress(body: bytes) -> bytes:
    """``body`` as it is kept in the history and in quarantine (zstd, fast level)."""
    result: bytes = _compressor().compress(body)
    return result


def compress_all(bodies: Sequence[bytes]) -> list[bytes]:
    """Each of ``bodies`` as :func:`compress` keeps it.

    All at once, because the interpreter's lock is given away for the time of a call: for each small body
    that would cost two changes of thread, and cold caches after each. An empty one, of a job that was deleted in the same
    batch, stays empty.
    """
    if not all(bodies):
        # Rare, and more than the compressor takes: it refuses a list of nothing but empty ones.
        return [compress(body) if body else b"" for body in bodies]
    compressed = _compressor().multi_compress_to_buffer(list(bodies))
    return [compressed[index].tobytes() for index in range(len(bodies))]


def _compressor() -> zstandard.ZstdCompressor:
    # A compressor is not to be shared between threads, and making one costs more than a small body.
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=1)
    return compressor


def decompress(body: bytes) -> bytes:
    """What :func:`compress` was given."""
    return zstandard.ZstdDecompressor().decompress(body)
