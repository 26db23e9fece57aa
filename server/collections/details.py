"""What is known of a file of a collection once it was read, as it is stored; and collections as they are printed."""

from collections.abc import Sequence
from typing import Any

import msgspec

from storage.blobs import BlobStore
from storage.queries.collections import FAILED, IMPORTING, READY, CollectionRow, FileRow
from storage.records import Column
from sync.values import format_time


class StoredColumn(msgspec.Struct):
    """A column; see :class:`storage.records.Column`."""

    name: str
    type: str
    scale: int = 0
    indexed: bool = False


class Details(msgspec.Struct):
    """What was read, or why it was not.

    Attributes:
        header: the first line as it stands.
        columns: of the record file.
        problems: how many rows were left out.
        lines: the first of these: line and reason.
        failure: code and text.
    """

    header: list[str] = []
    columns: list[StoredColumn] = []
    encoding: str = ""
    separator: str = ""
    problems: int = 0
    lines: list[tuple[int, str]] = []
    failure: tuple[str, str] | None = None


def decode_details(stored: bytes) -> Details:
    """Details from the database; empty before the file was read."""
    return msgspec.json.decode(stored, type=Details) if stored else Details()


def columns_of(details: Details) -> list[Column]:
    """The columns as the record file knows them."""
    return [Column(item.name, item.type, item.scale, item.indexed) for item in details.columns]


def printed(row: CollectionRow, files: Sequence[FileRow], team_name: str, blobs: BlobStore) -> dict[str, Any]:
    """A collection as section 4.1.5 prints it, and what we add.

    Args:
        files: all of the collection's, in their order.
    """
    current = next((file for file in files if file.file_id == row.current_file_id), None)
    newest = files[-1] if files else None
    read = decode_details(current.details) if current else Details()
    latest = decode_details(newest.details) if newest else Details()
    history = {file.file_id: format_time(file.uploaded_at) for file in files if file.state == READY}
    return {
        "collectionId": row.collection_id,
        "userId": row.user_id,
        "userName": row.user_name,
        "created": format_time(row.created_at),
        "lastUpdated": format_time(row.updated_at),
        "teamName": team_name,
        "name": row.name,
        "dataLastChanged": format_time(
            current.imported_at if current and current.imported_at else row.created_at
        ),
        "headerNames": read.header,
        "recordCount": current.record_count if current else 0,
        "csvFileName": current.file_id if current else None,
        "csvFileSize": current.file_size if current else 0,
        "csvFileNameHistory": history,
        "csvDownloadUrl": _address(current, blobs) if current else None,
        "state": _state(newest),
        "newestFile": newest.file_id if newest else None,
        "failure": _failure(latest),
        "problems": {
            "count": latest.problems,
            "rows": [{"line": line, "reason": reason} for line, reason in latest.lines],
        },
        "columns": [{"name": item.name, "type": item.type} for item in read.columns],
        "encoding": read.encoding or None,
        "separator": read.separator or None,
    }


def _state(newest: FileRow | None) -> str:
    if newest is None:
        return "empty"
    return newest.state if newest.state in (IMPORTING, FAILED) else READY


def _failure(details: Details) -> dict[str, str] | None:
    if details.failure is None:
        return None
    code, detail = details.failure
    return {"code": code, "detail": detail}


def _address(file: FileRow, blobs: BlobStore) -> str:
    return blobs.get_url(
        file.blob_key, content_type="text/csv", file_name=file.file_name or f"{file.file_id}.csv"
    )
