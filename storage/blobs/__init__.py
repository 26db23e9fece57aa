"""Blobs: files by key, in a local folder or in S3, behind one interface."""

from pathlib import Path

from storage.blobs.addresses import Address, AddressExpired, AddressInvalid, content_disposition
from storage.blobs.folder import FolderBlobs
from storage.blobs.location import check_location, parse_location
from storage.blobs.store import (
    CHUNK_BYTES,
    BlobInfo,
    BlobNotFound,
    BlobSizeDiffers,
    BlobStore,
    BlobsUnavailable,
    new_key,
)

__all__ = [
    "CHUNK_BYTES",
    "Address",
    "AddressExpired",
    "AddressInvalid",
    "BlobInfo",
    "BlobNotFound",
    "BlobSizeDiffers",
    "BlobStore",
    "BlobsUnavailable",
    "FolderBlobs",
    "check_location",
    "content_disposition",
    "new_key",
    "open_blobs",
]


def open_blobs(location: str, folder: Path, base_url: str, secret: bytes = b"") -> BlobStore:
    """Open the store of files.

    Args:
        location: empty for ``folder``, or ``s3://bucket/prefix?endpoint=…&region=…``.
        folder: where files are, if they are not in S3.
        base_url: the server's public address, with which the folder's signed addresses begin.
        secret: what those are signed with; where it is read later, :meth:`BlobStore.sign_with` takes it.

    Raises:
        ValueError: the location is none of these.
    """
    if not location:
        return FolderBlobs(folder, base_url, secret)
    parsed = parse_location(location)
    from storage.blobs.s3 import S3Blobs  # boto3 takes 24 MB, which a folder does without

    return S3Blobs(parsed)
