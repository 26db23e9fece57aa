"""What is known of a file beyond its bytes: size and time of the picture, its place, its thumbnails."""

import msgspec

__all__ = ["Details", "Thumbnail", "decode_details"]


class Thumbnail(msgspec.Struct, frozen=True):
    """One JPEG. ``size`` is its name: small, medium or large; ``bytes`` how long its file is."""

    size: str
    key: str
    width: int
    height: int
    bytes: int


class Details(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts about a picture or video.

    Attributes:
        width, height: pixels, upright.
        takenAt: EXIF's DateTimeOriginal as ISO 8601; without a zone where the camera wrote none.
        latitude, longitude: degrees, north and east positive (WGS 84).
        durationSeconds: of a video.
    """

    width: int | None = None
    height: int | None = None
    takenAt: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    durationSeconds: float | None = None
    thumbnails: tuple[Thumbnail, ...] = ()

    def encoded(self) -> bytes:
        """JSON, as it is stored."""
        return msgspec.json.encode(self)


def decode_details(stored: bytes | None) -> Details:
    """Stored details; nothing known where nothing is stored."""
    return msgspec.json.decode(stored, type=Details) if stored else Details()
