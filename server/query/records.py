"""The root field ``collections``, with the records of each."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from server.collections.details import Details, columns_of, decode_details
from server.query.asking import Asking
from server.query.documents import QueryProblem
from server.query.selecting import Field
from server.query.shaping import Tellers, refused, selected, shaped, skip_and_limit
from storage.blobs import BlobNotFound
from storage.database import Connection
from storage.queries import collections as queries
from storage.queries.collections import CollectionRow, FileRow
from storage.records import page
from sync.values import format_time

MAX_LIMIT = 100
USUAL_RECORDS, MAX_RECORDS = 100, 1_000
#: Records in the whole answer to one field of the root, and values in them: a table may have a thousand columns.
MOST_RECORDS, MOST_VALUES = 10_000, 500_000
#: Ids that may be named.
MAX_IDS = 100
#: How often the current file is looked up again, if it was replaced in this very moment.
_ATTEMPTS = 3


class _Found(NamedTuple):
    """A collection with the file whose records it has; ``details``: what is known of that, if it is asked for."""

    row: CollectionRow
    file: FileRow | None
    details: Details


COLLECTION_FIELDS: Tellers[_Found] = {
    "collectionId": lambda found: found.row.collection_id,
    "name": lambda found: found.row.name,
    "userId": lambda found: found.row.user_id,
    "userName": lambda found: found.row.user_name,
    "created": lambda found: format_time(found.row.created_at),
    "lastUpdated": lambda found: format_time(found.row.updated_at),
    "dataLastChanged": lambda found: format_time(
        found.file.imported_at if found.file and found.file.imported_at else found.row.created_at
    ),
    "headerNames": lambda found: found.details.header,
    "recordCount": lambda found: found.file.record_count if found.file else 0,
}


async def collections(field: Field, asking: Asking) -> list[dict[str, Any]]:
    """Collections as ``field`` asks for them, in the order in which they were made.

    Raises:
        QueryProblem: ``invalid-argument``, ``query-too-complex``.
        storage.blobs.BlobsUnavailable: the store of files does not answer.
    """
    skip, limit = skip_and_limit(field, MAX_LIMIT, MAX_LIMIT)
    ids = _ids(field)
    pages = {
        inner.key: skip_and_limit(inner, USUAL_RECORDS, MAX_RECORDS)
        for inner in field.fields
        if inner.name == "records"
    }
    details = selected(field.fields, "headerNames", "records")
    found = await _load(asking, ids, skip, limit, details)
    _bound(field, found, pages.values())
    return [await _shaped(field.fields, each, pages, asking) for each in found]


def _ids(field: Field) -> list[str] | None:
    given: list[str] | None = field.arguments.get("collectionId")
    if given is None:
        return None
    if len(given) > MAX_IDS:
        raise refused(field, f"collectionId may have {MAX_IDS} values; here are {len(given)}.")
    # What cannot be an id is nobody's; a database may not even take it.
    return [each for each in dict.fromkeys(given) if each.isascii() and each.isprintable()]


async def _load(
    asking: Asking, ids: Sequence[str] | None, skip: int, limit: int, details: bool
) -> list[_Found]:
    def load(connection: Connection) -> list[tuple[CollectionRow, FileRow | None]]:
        return queries.with_current(connection, asking.team_id, ids, skip, limit, details=details)

    # Details may have a megabyte each.
    return await asyncio.to_thread(_decoded, await asking.database.read(load))


def _decoded(rows: Sequence[tuple[CollectionRow, FileRow | None]]) -> list[_Found]:
    return [_Found(row, file, decode_details(file.details) if file else Details()) for row, file in rows]


def _bound(field: Field, found: Sequence[_Found], pages: Collection[tuple[int, int]]) -> None:
    """Refuse what is too much, before it is read.

    Raises:
        QueryProblem: ``query-too-complex``.
    """
    counts = [(sum(_reach(each, *asked) for asked in pages), len(each.details.columns)) for each in found]
    count = sum(count for count, _ in counts)
    values = sum(count * columns for count, columns in counts)
    if count > MOST_RECORDS or values > MOST_VALUES:
        raise QueryProblem.of(
            "query-too-complex",
            f"These are {count:,} records with {values:,} values; {MOST_RECORDS:,} and {MOST_VALUES:,} are the most. "
            "Ask for fewer of each collection, or for fewer collections.",
            (field.key,),
        )


def _reach(found: _Found, skip: int, limit: int) -> int:
    """How many records such a page has."""
    return max(0, min(limit, found.file.record_count - skip)) if found.file else 0


async def _shaped(
    fields: Sequence[Field], found: _Found, pages: Mapping[str, tuple[int, int]], asking: Asking
) -> dict[str, Any]:
    found, records = await _with_records(found, pages, asking)

    def tell(field: Field) -> Any:
        return records[field.key] if field.name == "records" else COLLECTION_FIELDS[field.name](found)

    return shaped(fields, tell)


_Records = list[dict[str, str]] | None


async def _with_records(
    found: _Found, pages: Mapping[str, tuple[int, int]], asking: Asking
) -> tuple[_Found, Mapping[str, _Records]]:
    """A collection and its records. If another file took the place of its own meanwhile, with that one; None in place
    of records that are not there any more.
    """
    for _ in range(_ATTEMPTS):
        try:
            return found, {key: await _read(found, *asked, asking) for key, asked in pages.items()}
        except BlobNotFound:
            again = await _load(asking, [found.row.collection_id], 0, 1, True)
        if not again or again[0].row.current_file_id == found.row.current_file_id:
            break
        found = again[0]
    return found, dict.fromkeys(pages)


async def _read(found: _Found, skip: int, limit: int, asking: Asking) -> _Records:
    if found.file is None:
        return []
    if found.file.records_key is None:
        return None
    columns = columns_of(found.details)
    names = [column.name for column in columns]
    read = await asking.records.read(found.file.records_key, page, columns, (), None, skip, limit)
    return [dict(zip(names, record.values, strict=True)) for record in read.records]
