"""What thumbnails are made of, what is made, and how it is refused: all that the server needs to know of it.

Pillow and PyAV are loaded by the workers of the pool only; in the server they would take 60 MB for nothing.
"""

from typing import NamedTuple

__all__ = ["MAX_PIXELS", "PICTURES", "SIZES", "VIDEOS", "Made", "Refused"]

#: Name -> pixels of the longest side, the largest first.
SIZES = {"large": 1280, "medium": 640, "small": 240}

#: Content type -> Pillow's formats. A closed list: others would run programs (EPS runs Ghostscript).
PICTURES = {
    "image/jpeg": ("JPEG", "MPO"),
    "image/png": ("PNG",),
    "image/webp": ("WEBP",),
    "image/gif": ("GIF",),
    "image/tiff": ("TIFF",),
    "image/heic": ("HEIF",),
    "image/avif": ("AVIF",),
}
#: Content type -> FFmpeg's demuxer. Named, so that a playlist that poses as a video is refused.
VIDEOS = {"video/mp4": "mov", "video/quicktime": "mov", "video/webm": "matroska"}

#: A phone's best makes 50 million pixels; a picture of 144 million is a bomb or a plan, and takes 400 MB.
MAX_PIXELS = 80_000_000


class Refused(Exception):
    """No thumbnails can be made; the text says why, for people."""


class Made(NamedTuple):
    """The JPEGs by name with their width and height, and what the original says of itself."""

    jpegs: dict[str, tuple[bytes, int, int]]
    width: int
    height: int
    taken_at: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    duration_seconds: float | None = None
