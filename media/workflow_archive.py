"""The archive of a workflow package: a ZIP that nobody believes what it says of itself.

Its directory declares names and sizes. Whoever unpacks it on a device may trust them, or trust the header of each
file instead, so here all of it is unpacked once, counted and thrown away.
"""

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from typing import IO

WORKFLOW_FILE = "workflow.xml"
MAX_ENTRIES = 10_000
#: The directory of 10,000 entries with long names. ``zipfile`` reads it in one go.
_MAX_DIRECTORY = 4 * 1024 * 1024
MAX_UNPACKED_BYTES = 2 * 1024 * 1024 * 1024
#: Text shrinks to a tenth, drawings to a hundredth; a file of zeros to a thousandth.
MAX_RATIO = 200
_RATIO_FROM = 50 * 1024 * 1024

_DRIVE = re.compile(r"[A-Za-z]:")
_FILE_TYPES = {0, stat.S_IFREG, stat.S_IFDIR}
#: Of the header of each file (4.3.7 of the format's description): signature, flags, method, lengths of name and
#: extra field.
_HEADER = struct.Struct("<4s2xHH16xHH")
_ENCRYPTED, _UTF8 = 0x1, 0x800
#: What is unpacked at a time.
_PIECE = 256 * 1024


class _Outside(OSError):
    """The archive names a place that is not in the file. An OSError, as files raise: ``zipfile`` looks for
    things that a short archive has no room for, and takes that for an answer."""


#: What reading a damaged ZIP raises.
DAMAGED = (
    _Outside,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    struct.error,
    zlib.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class PackageRefused(Exception):
    """The file is no package that is kept.

    Args:
        code: ``not-a-package`` or ``unsafe-package``.
        detail: what is wrong, for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code, detail)  # as they are: it comes back from another process
        self.code = code
        self.detail = detail


class Bounded(io.BufferedIOBase):
    """A file that gives a directory's worth of bytes at a time, and takes positions inside itself alone.

    ``zipfile`` reads whatever the archive says it should.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size}[whence]
        if not 0 <= base + offset <= self.size:
            raise _Outside("a position outside the file")
        return self._file.seek(base + offset)

    def read(self, size: int | None = -1) -> bytes:
        left = self.size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _MAX_DIRECTORY:
            raise zipfile.BadZipFile("a directory of more bytes than a package needs")
        return self._file.read(wanted)


def checked(archive: zipfile.ZipFile, file: Bounded) -> list[zipfile.ZipInfo]:
    """The entries of a package that harms nobody who unpacks it.

    Raises:
        PackageRefused: it would.
    """
    entries = archive.infolist()
    _check_directory(entries, file.size)
    _check_contents(entries, file)
    return entries


def name_of(info: zipfile.ZipInfo) -> str:
    """An entry's name, with slashes."""
    # `filename` ends at a NUL. Programs for Windows write backslashes.
    return info.orig_filename.replace("\\", "/")


def is_encrypted(info: zipfile.ZipInfo) -> bool:
    """Whether an entry takes a password."""
    return bool(info.flag_bits & _ENCRYPTED)


def _check_directory(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise _unsafe(f"The package has {len(entries):,} files; at most {MAX_ENTRIES:,} are taken.")
    seen: set[str] = set()
    for info in entries:
        name = name_of(info)
        _check_name(name)
        # The file of that name is found in any case, so it must be one in any case.
        key = name.casefold() if name.casefold() == WORKFLOW_FILE else name
        if key in seen:
            raise _unsafe(f"The package holds {_shown(name)} twice.")
        seen.add(key)
        if stat.S_IFMT(info.external_attr >> 16) not in _FILE_TYPES:
            raise _unsafe(f"{_shown(name)} is neither a file nor a folder.")
    unpacked = sum(info.file_size for info in entries)
    if unpacked > MAX_UNPACKED_BYTES:
        raise _unsafe(f"The package unpacks to {unpacked:,} bytes; at most {MAX_UNPACKED_BYTES:,} are taken.")
    if unpacked > _RATIO_FROM and unpacked > MAX_RATIO * size:
        raise _unsafe(f"The package unpacks to {unpacked // max(size, 1):,} times its size.")


def _check_contents(entries: list[zipfile.ZipInfo], file: Bounded) -> None:
    """What the files of the package are, whatever the directory says of them.

    Each unpacks to its declared size at most, and so all of them to no more than the directory may declare.
    """
    end = 0
    for info in sorted(entries, key=lambda entry: entry.header_offset):
        # Files that share their bytes unpack to many times of what was sent.
        if info.header_offset < end:
            raise _unsafe(f"{_shown(name_of(info))} overlaps another file of the package.")
        try:
            start = _content_offset(info, file)
        except DAMAGED:
            start = None
        if start is None:
            raise _unsafe(f"{_shown(name_of(info))} is not where the directory of the package says.")
        end = start + info.compress_size
        if not is_encrypted(info) and not _has_declared_size(info, file, start):
            raise _unsafe(f"{_shown(name_of(info))} unpacks to more than the directory of the package says.")


def _content_offset(info: zipfile.ZipInfo, file: Bounded) -> int | None:
    """Where the entry's bytes begin; None if its own header says something else than the directory.

    Programs that read a package from its beginning know the headers alone.
    """
    file.seek(info.header_offset)
    signature, flags, method, name_length, extra_length = _HEADER.unpack(file.read(_HEADER.size))
    name = file.read(name_length).decode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    said = (signature, flags & _ENCRYPTED, method, name)
    if said != (b"PK\3\4", info.flag_bits & _ENCRYPTED, info.compress_type, info.orig_filename):
        return None
    return file.tell() + int(extra_length)


def _has_declared_size(info: zipfile.ZipInfo, file: Bounded, start: int) -> bool:
    """Whether the entry unpacks to its declared size, or less."""
    if info.compress_type == zipfile.ZIP_STORED:
        return info.compress_size == info.file_size
    if info.compress_type != zipfile.ZIP_DEFLATED:
        return True  # nobody is obliged to know other methods
    came, left = 0, info.compress_size
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        file.seek(start)
        while left > 0 and not unpacking.eof:
            packed = file.read(min(left, _PIECE))
            if not packed:
                break
            left -= len(packed)
            full = True
            # A full piece: there is more to come, even if all of what is packed was taken.
            while full and not unpacking.eof:
                piece = unpacking.decompress(packed, _PIECE)
                came += len(piece)
                if came > info.file_size:
                    return False
                packed, full = unpacking.unconsumed_tail, len(piece) == _PIECE
    except DAMAGED:
        pass  # those who unpack it come no further
    return True


def _check_name(name: str) -> None:
    if not name or any(ord(char) < 32 for char in name):
        raise _unsafe(f"{_shown(name)} is no name of a file.")
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        raise _unsafe(f"{_shown(name)} leads out of the package.")


def _shown(name: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in name[:100]) or "An entry without a name"


def _unsafe(detail: str) -> PackageRefused:
    return PackageRefused("unsafe-package", detail)
