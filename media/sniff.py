"""The type of a file by its first bytes: what a device declares is a claim, and browsers act on types.

Only types of the list below are ever answered. Whatever a browser would run as a page or a script, HTML, SVG
and XML among it, is plain text or bytes.
"""

import json

__all__ = ["HEAD_BYTES", "OCTET_STREAM", "sniff"]

#: How many bytes from the start are enough to tell.
HEAD_BYTES = 4096

OCTET_STREAM = "application/octet-stream"
_TEXT = "text/plain"

#: The brands of ISO media files (ISO/IEC 14496-12, ftyp), the major one first, then the compatible ones.
_BRANDS: dict[bytes, str] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic",
    b"hevx": "image/heic",
    b"qt  ": "video/quicktime",
}
#: Brands that stand for images of any coding; which one a compatible brand tells.
_GENERIC_IMAGES = {b"mif1", b"msf1", b"miaf"}
_VIDEO_BRANDS = (b"isom", b"iso", b"mp4", b"avc1", b"M4V", b"3gp", b"3g2", b"dash", b"MSNV", b"XAVC", b"f4v")
_AUDIO_BRANDS = (b"M4A", b"M4B")

_STARTS: list[tuple[bytes, str]] = [
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),  # an empty archive
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
]


def sniff(first_bytes: bytes, declared: str | None) -> str:
    """The type that a file is served and handled with.

    Args:
        first_bytes: its first :data:`HEAD_BYTES`, or all of it if it is shorter.
        declared: what the device says, which decides between kinds of plain text only.
    """
    head = first_bytes[:HEAD_BYTES]
    return _binary(head) or _text(head, len(first_bytes) >= HEAD_BYTES, declared)


def _binary(head: bytes) -> str | None:
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12], OCTET_STREAM)
    if head[4:8] == b"ftyp":
        return _iso(head)
    if head[4:8] in (b"moov", b"mdat", b"wide") and head[:1] == b"\x00":
        return "video/quicktime"  # from before the brands
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else OCTET_STREAM
    if len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA):
        return "audio/mpeg"
    return None


def _iso(head: bytes) -> str:
    length = min(int.from_bytes(head[:4], "big"), len(head))
    major = head[8:12]
    compatible = [head[at : at + 4] for at in range(16, length - 3, 4)]
    if major in _BRANDS:
        return _BRANDS[major]
    if major in _GENERIC_IMAGES:
        kinds = [_BRANDS[brand] for brand in compatible if brand in _BRANDS]
        return kinds[0] if kinds else OCTET_STREAM
    if major.startswith(_AUDIO_BRANDS):
        return "audio/mp4"
    if major.startswith(_VIDEO_BRANDS):
        return "video/mp4"
    return OCTET_STREAM


def _text(head: bytes, cut: bool, declared: str | None) -> str:
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The last character may be cut in two.
        if not cut or error.start < len(head) - 3:
            return OCTET_STREAM
        text = head[: error.start].decode("utf-8-sig")
    if not text.strip() or any(ord(char) < 32 and char not in "\t\n\r\f" for char in text):
        return OCTET_STREAM
    if text.lstrip()[0] == "<":
        return _TEXT  # HTML, SVG, XML
    kind = (declared or "").partition(";")[0].strip().lower()
    if kind == "application/json" and _is_json(text, cut):
        return kind
    return kind if kind == "text/csv" else _TEXT


def _is_json(text: str, cut: bool) -> bool:
    if cut:
        return text.lstrip()[0] in "{["
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
