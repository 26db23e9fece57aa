"""The encoding of a text file of unknown origin: UTF-8, UTF-16 or Windows-1252."""

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from media.csv_problems import Unreadable

__all__ = ["decoded"]

_CHUNK = 1024 * 1024
_HEAD = 4096
#: What people send by mistake: workbooks old and new, documents, pictures, archives.
_OTHERS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"%PDF-", b"\x89PNG", b"\xff\xd8\xff", b"\x1f\x8b", b"GIF8")

#: Five bytes have no meaning in Windows-1252; like browsers, we take them for the control characters.
codecs.register_error(
    "fieldsync-controls",
    lambda error: (
        (chr(error.object[error.start]), error.start + 1)
        if isinstance(error, UnicodeDecodeError)
        else ("", 0)
    ),
)


@contextmanager
def decoded(path: Path) -> Iterator[tuple[io.TextIOWrapper, str, bool]]:
    """The file as text, with its line ends as they are, the name of its encoding, and whether a NUL is in it.

    Raises:
        Unreadable: it is not text, or ends within a character.
    """
    with path.open("rb") as file:
        encoding, errors, name, nul = _found(file)
        file.seek(0)
        with io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="") as text:
            yield text, name, nul


def _found(file: io.BufferedReader) -> tuple[str, str, str, bool]:
    head = file.read(_HEAD)
    if head.startswith(_OTHERS):
        raise Unreadable("not-a-table", "It is not text. Of a workbook, export the sheet as CSV.")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        kind = "utf-16-le" if head.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
        return "utf-16", "strict", kind, _check(file, kind)
    kind = _without_mark(head)
    if kind:
        return kind, "strict", kind, _check(file, kind)
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig", "strict", "utf-8", _check(file, "utf-8")
    nul = _holds_nul(file)
    if _is_utf8(file):
        return "utf-8", "strict", "utf-8", nul
    return "cp1252", "fieldsync-controls", "windows-1252", nul


def _without_mark(head: bytes) -> str:
    """UTF-16 without a mark, by the zeros that Western text has in every second byte."""
    pairs = len(head) // 2
    even, odd = head[::2].count(0), head[1::2].count(0)
    if pairs >= 2 and odd > 0.4 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    if pairs >= 2 and even > 0.4 * pairs and odd < 0.05 * pairs:
        return "utf-16-be"
    return ""


def _holds_nul(file: io.BufferedReader) -> bool:
    file.seek(0)
    return any(b"\0" in chunk for chunk in iter(lambda: file.read(_CHUNK), b""))


def _check(file: io.BufferedReader, encoding: str) -> bool:
    """Whether there is a NUL in it.

    Raises:
        Unreadable: not all of it can be decoded.
    """
    file.seek(0)
    decoder = codecs.getincrementaldecoder(encoding)()
    at, nul = 0, False
    try:
        while chunk := file.read(_CHUNK):
            nul = "\0" in decoder.decode(chunk) or nul
            at += len(chunk)
    except UnicodeDecodeError as error:
        raise Unreadable(
            "encoding", f"It begins as {encoding} and is none near byte {at + error.start:,}."
        ) from None
    _end(decoder)
    return nul


def _is_utf8(file: io.BufferedReader) -> bool:
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8")()
    beyond_ascii = False
    try:
        while chunk := file.read(_CHUNK):
            beyond_ascii = not decoder.decode(chunk).isascii() or beyond_ascii
    except UnicodeDecodeError:
        return False
    if beyond_ascii:
        _end(decoder)
        return True
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False  # its last byte is its only one beyond ASCII
    return True


def _end(decoder: codecs.IncrementalDecoder) -> None:
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise Unreadable("ends-short", "It ends within a character.") from None
