"""Bodies at rest: compressed verbatim."""

import threading

import zstandard

_local = threading.local()


def compress(body: bytes) -> bytes:
    """``body`` as it is kept in the history and in quarantine (zstd, fast level)."""
    # A compressor is not to be shared between threads, and making one costs more than a small body.
    compressor = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(level=1)
    result: bytes = compressor.compress(body)
    return result


def decompress(body: bytes) -> bytes:
    """What :func:`compress` was given."""
    return zstandard.ZstdDecompressor().decompress(body)
