"""The files of a job as one ZIP archive, made while it is sent.

Nothing is compressed: nearly all of it is pictures and videos, which do not get smaller. The manifest comes
last, and after it the archive's directory, without which no program takes the archive for a whole one.
"""

import stat
import unicodedata
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime

import msgspec

from storage.blobs import BlobSizeDiffers, BlobStore
from storage.queries.attachments import AttachmentRow

MANIFEST = "manifest.json"
#: Bytes that are gathered before they are sent: small files do not become a packet each.
_GATHERED = 65_536
#: File systems take names of 255 bytes; the rest is for " (2)" and for who renames.
_LONGEST_NAME = 200
_FORBIDDEN = str.maketrans(dict.fromkeys('<>:"|?*', "_"))
#: Names that Windows keeps for devices, whatever follows the first dot.
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)}
#: The types that `media/sniff.py` knows, and how the names of such files end.
_ENDINGS = {
    "application/json": "json",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "image/avif": "avif",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/tiff": "tif",
    "image/webp": "webp",
    "text/csv": "csv",
    "text/plain": "txt",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
}


class _Sent:
    """Where the archive is written to: what is written waits here until it is taken to be sent."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        """Nothing to do; a file has this."""

    def close(self) -> None:
        """The same."""

    def take(self) -> bytes:
        taken = bytes(self.waiting)
        self.waiting.clear()
        return taken


class _Entry(zipfile.ZipInfo):
    """A file in the archive, with a zip64 header as the format wants it.

    Python before 3.11.4 leaves the sizes 0 and the version old, over which some programs stumble
    (python/cpython#103861).
    """

    def FileHeader(self, zip64: bool | None = None) -> bytes:
        header = super().FileHeader(zip64)
        if not zip64:
            return header
        self.extract_version = self.create_version = zipfile.ZIP64_VERSION
        version = self.extract_version.to_bytes(2, "little")
        return header[:4] + version + header[6:18] + b"\xff" * 8 + header[26:]


class Names:
    """Names within one archive: safe on every system, and none twice, whatever the case."""

    def __init__(self) -> None:
        self._taken = {MANIFEST}
        self._last: dict[str, int] = {}

    def choose(self, wanted: str) -> str:
        """A name like ``wanted``, with a number if that is taken."""
        name = wanted
        stem, dot, ending = wanted.rpartition(".")
        if not stem:
            stem, dot, ending = wanted, "", ""
        while _folded(name) in self._taken:
            # Phones call every picture image.jpg: the next number is remembered and not looked for.
            self._last[_folded(wanted)] = number = self._last.get(_folded(wanted), 1) + 1
            name = f"{stem} ({number}){dot}{ending}"
        self._taken.add(_folded(name))
        return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def safe_name(text: str) -> str:
    """``text`` as the name of a file: never a path, nothing a shell, a screen or Windows takes amiss.

    Answers "" if nothing is left of it.
    """
    base = unicodedata.normalize("NFC", text).replace("\\", "/").rpartition("/")[2]
    # What is not printable includes what turns the direction of writing and so hides a name's true ending.
    shown = "".join(c for c in base if c.isprintable() or c.isspace())
    name = " ".join(shown.translate(_FORBIDDEN).split()).strip(" .")
    if name.partition(".")[0].rstrip().lower() in _DEVICES:
        name = f"_{name}"
    return _shortened(name)


def _shortened(name: str) -> str:
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    stem, dot, ending = name.rpartition(".")
    if not stem or len(ending.encode()) > 16:
        stem, dot, ending = name, "", ""
    kept = stem.encode()[: _LONGEST_NAME - len((dot + ending).encode())]
    return kept.decode("utf-8", "ignore").rstrip(" .") + dot + ending


def file_name_of(row: AttachmentRow) -> str:
    """The name a file is saved under: its own, else its id with the ending of its type."""
    name = safe_name(row.file_name or "")
    if name:
        return name
    name = safe_name(row.attachment_id) or "file"
    ending = _ENDINGS.get(row.content_type or "", "bin")
    return name if name.lower().endswith(f".{ending}") else f"{name}.{ending}"


async def archive(pages: AsyncIterator[list[AttachmentRow]], blobs: BlobStore) -> AsyncGenerator[bytes, None]:
    """The archive, in parts as they are ready; memory does not grow with the files.

    Raises:
        BlobNotFound, BlobSizeDiffers: a file was deleted or damaged meanwhile. What was sent is no archive,
            as it has no directory.
        BlobsUnavailable: the store stopped giving files; the same holds.
    """
    sent = _Sent()
    names = Names()
    manifest: list[dict[str, object]] = []
    # It cannot seek, so lengths and checksums follow each file; entries beyond 4 GB become zip64.
    archived = zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED)
    try:
        async for page in pages:
            for row in page:
                if row.blob_key is None:
                    manifest.append(_entry(row, None))
                    continue
                name = names.choose(file_name_of(row))
                manifest.append(_entry(row, name))
                async with aclosing(_file(archived, sent, blobs, row, name)) as parts:
                    async for part in parts:
                        yield part
        document = msgspec.json.format(msgspec.json.encode({"attachments": manifest}), indent=2)
        archived.writestr(_info(MANIFEST, len(document), None), document)
    except BaseException:
        # It writes its directory when it is closed, and closes itself when it is forgotten. This one goes
        # nowhere: nothing is taken from `sent` any more.
        with suppress(Exception):
            archived.close()
        raise
    archived.close()
    yield sent.take()


async def _file(
    archived: zipfile.ZipFile, sent: _Sent, blobs: BlobStore, row: AttachmentRow, name: str
) -> AsyncGenerator[bytes, None]:
    assert row.blob_key is not None
    size = 0
    with archived.open(_info(name, row.size or 0, row.stored_at), "w") as entry:
        async with aclosing(blobs.get(row.blob_key)) as chunks:
            async for chunk in chunks:
                entry.write(chunk)
                size += len(chunk)
                if len(sent.waiting) >= _GATHERED:
                    yield sent.take()
    if size != row.size:
        raise BlobSizeDiffers(f"{row.blob_key} has {size:,} bytes instead of {row.size:,}")


def _info(name: str, size: int, at: int | None) -> _Entry:
    info = _Entry(name)
    if at is not None:
        moment = datetime.fromtimestamp(at / 1_000_000, UTC)
        # The format begins with 1980.
        info.date_time = max((1980, 1, 1, 0, 0, 0), moment.timetuple()[:6])
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    # Known beforehand, so that zip64 is used where it is needed and nowhere else.
    info.file_size = size
    return info


def _entry(row: AttachmentRow, name: str | None) -> dict[str, object]:
    return {
        "attachmentId": row.attachment_id,
        "state": row.state,
        "name": name,
        "size": row.size,
        "sha256": None if row.sha256 is None else row.sha256.hex(),
        "contentType": row.content_type,
    }
