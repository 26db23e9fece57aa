"""Types by first bytes: an allow-list, in which nothing is that a browser would run."""

import pytest

from media.sniff import HEAD_BYTES, OCTET_STREAM, sniff


def iso(major: bytes, *compatible: bytes) -> bytes:
    """The beginning of an ISO media file."""
    brands = major + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08mdat"


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\xff\xd8\xff\xe1\x12\x34Exif", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        (b"GIF89a\1\0\1\0", "image/gif"),
        (b"II*\0\x08\0\0\0", "image/tiff"),
        (b"MM\0*\0\0\0\x08", "image/tiff"),
        (iso(b"heic", b"mif1"), "image/heic"),
        (iso(b"mif1", b"heic"), "image/heic"),
        (iso(b"mif1", b"miaf", b"avif"), "image/avif"),
        (iso(b"avif"), "image/avif"),
        (iso(b"mif1"), OCTET_STREAM),
        (iso(b"isom", b"avc1"), "video/mp4"),
        (iso(b"mp42", b"isom"), "video/mp4"),
        (iso(b"3gp5"), "video/mp4"),
        (iso(b"qt  "), "video/quicktime"),
        (iso(b"M4A "), "audio/mp4"),
        (iso(b"what"), OCTET_STREAM),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm", "video/webm"),
        (b"\x1aE\xdf\xa3\x9fB\x82\x88matroska", OCTET_STREAM),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"PK\3\4\x14\0", "application/zip"),
        (b"ID3\4\0", "audio/mpeg"),
        (b"\xff\xfb\x90\x44", "audio/mpeg"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\x10\0\0\0AVI LIST", OCTET_STREAM),
        (b"OggS\0\2", "audio/ogg"),
        (b"", OCTET_STREAM),
        (b"\0\1\2\3", OCTET_STREAM),
    ],
)
def test_the_bytes_say_the_type_whatever_is_declared(head: bytes, kind: str) -> None:
    for declared in (None, "image/svg+xml", "text/html", "image/jpeg"):
        assert sniff(head, declared) == kind


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html>",
        b"  \n<script>alert(1)</script>",
        b"\xef\xbb\xbf<svg xmlns='http://www.w3.org/2000/svg'>",
        b"<?xml version='1.0'?><svg/>",
        b"<h1>",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"#EXTM3U\nfile:///etc/passwd",
    ],
)
@pytest.mark.parametrize("declared", ["image/jpeg", "image/svg+xml", "text/html", "video/mp4", "text/xml"])
def test_what_a_browser_or_a_decoder_would_run_is_plain_text(page: bytes, declared: str) -> None:
    assert sniff(page, declared) == "text/plain"


@pytest.mark.parametrize(
    ("head", "declared", "kind"),
    [
        (b"a;b\n1;2\n", "text/csv; charset=utf-8", "text/csv"),
        (b"a;b\n1;2\n", None, "text/plain"),
        (b"<b>;c", "text/csv", "text/plain"),
        (b'{"a": 1}', "application/json", "application/json"),
        (b"not json", "application/json", "text/plain"),
        (b"[" * 2000, "application/json", "text/plain"),
        ("Prüfung".encode(), None, "text/plain"),
        (b"Pr\xfcfung", None, OCTET_STREAM),
        (b"a\0b", "text/plain", OCTET_STREAM),
    ],
)
def test_only_plain_text_is_told_apart_by_what_is_declared(
    head: bytes, declared: str | None, kind: str
) -> None:
    assert sniff(head, declared) == kind


@pytest.mark.parametrize("before", range(4))
def test_a_character_cut_in_two_at_the_end_of_the_head_does_not_matter(before: int) -> None:
    text = (b"x" * before + "😀".encode() * HEAD_BYTES)[:HEAD_BYTES]
    assert sniff(text, None) == "text/plain"
