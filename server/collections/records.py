"""The records of a collection: pages of what fulfils conditions, and what changed since a cursor."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.auth.policies import ANY_TOKEN
from server.collections.details import columns_of, decode_details
from server.collections.routes import CollectionRequest, no_such_collection
from server.collections.where import conditions, sorting
from server.errors import Problem
from server.http import json_response, skip_and_limit, with_etag
from storage.blobs import BlobNotFound, BlobsUnavailable
from storage.database import Database
from storage.queries import collections as queries
from storage.queries.collections import FileRow
from storage.records import Changes, Column, Place, RecordFiles, changes, page
from sync.etag import matches

T = TypeVar("T")

_POLICY = {"policy": ANY_TOKEN}
_TAGS = ["Collections"]
#: How often the current file is looked up again, if it was replaced in this very moment.
_ATTEMPTS = 3
_CURSOR = 1


@get(
    "/collections/v1/collection/{collection_id:str}/records",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get records of a collection",
    description=(
        "`where=Price>=12.5` may be repeated, all must hold: `=`, `!=`, `^=` (begins with), `<`, `<=`, `>`, "
        "`>=`; a column's name may stand in double quotes. `sort=Name` or `sort=-Price`; without it, in the "
        "order of the file. `skip`, and `limit`: 20 by default, at most 1,000. If-None-Match: 304 if the file "
        "is the same."
    ),
)
async def get_records(
    request: CollectionRequest,
    collection_id: FromPath[str],
    database: NamedDependency[Database],
    records: NamedDependency[RecordFiles],
) -> Response[bytes]:
    """One page."""
    skip, limit = skip_and_limit(request)
    where = request.query_params.getall("where", [])
    sort = request.query_params.get("sort")
    asked = hashlib.blake2b(repr((where, sort, skip, limit)).encode("utf-8", "replace"), digest_size=8)

    async def read(file: FileRow | None) -> Response[bytes]:
        etag = f'"{file.file_id if file else "none"}.{asked.hexdigest()}"'
        columns = _columns(file)
        tests, order = (conditions(where, columns), sorting(sort, columns)) if file else ([], None)
        known = request.headers.get("if-none-match")
        if known is not None and matches(known, etag):
            return with_etag(request, b"", etag)
        body: dict[str, Any] = {"records": [], "more": False, "fileId": file.file_id if file else None}
        if file is not None:
            found = await records.read(file.records_key or "", page, columns, tests, order, skip, limit)
            names = [column.name for column in columns]
            body["records"] = [
                {"recordId": record.record_id, "values": dict(zip(names, record.values, strict=True))}
                for record in found.records
            ]
            body["more"] = found.more
        if not where:
            body["total"] = file.record_count if file else 0
        return with_etag(request, msgspec.json.encode(body), etag)

    return await _with_current(database, request.user.team_id, collection_id, read)


@get(
    "/collections/v1/collection/{collection_id:str}/records/changes",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get changes of a collection's records",
    description=(
        "What changed since the cursor `since`, or everything without one. Ask again with `next` while `more`; "
        "later, with the last `next`. `reset: true`: forget all records first."
    ),
)
async def get_changes(
    request: CollectionRequest,
    collection_id: FromPath[str],
    database: NamedDependency[Database],
    records: NamedDependency[RecordFiles],
) -> Response[bytes]:
    """The next changes. A client that applies all of them has exactly the records of the newest file."""
    _, limit = skip_and_limit(request)
    since = request.query_params.get("since")
    place = _place(since, collection_id) if since else None

    async def read(file: FileRow | None) -> Response[bytes]:
        if file is None:
            # Nothing yet; or the database was restored to a time without it.
            found, columns = Changes([], Place(), False, place is not None and place.number > 0), []
        else:
            columns = _columns(file)
            found = await records.read(file.records_key or "", changes, columns, place, limit)
        names = [column.name for column in columns]
        body: dict[str, Any] = {
            "changes": [
                {"recordId": change.record_id, "deleted": True}
                if change.values is None
                else {
                    "recordId": change.record_id,
                    "values": dict(zip(names, change.values, strict=True)),
                }
                for change in found.changes
            ],
            "next": _cursor(found.place, collection_id),
            "more": found.more,
        }
        if found.reset:
            body["reset"] = True
        return json_response(msgspec.json.encode(body))

    return await _with_current(database, request.user.team_id, collection_id, read)


async def _with_current(
    database: Database, team_id: int, collection_id: str, read: Callable[[FileRow | None], Any]
) -> Response[bytes]:
    """What ``read`` answers of the collection's current file; of the next one, if it was replaced meanwhile."""
    for _ in range(_ATTEMPTS):
        there, file = await database.read(queries.current, team_id, collection_id)
        if not there:
            raise no_such_collection()
        try:
            answer: Response[bytes] = await read(file)
            return answer
        except BlobNotFound:
            continue
    raise BlobsUnavailable(f"the records of collection {collection_id} are not in the store")


def _columns(file: FileRow | None) -> list[Column]:
    return columns_of(decode_details(file.details)) if file else []


def _cursor(place: Place, collection_id: str) -> str:
    parts = [_CURSOR, _mark(collection_id), *place]
    return base64.urlsafe_b64encode(msgspec.json.encode(parts)).decode().rstrip("=")


def _place(text: str, collection_id: str) -> Place:
    """Where a cursor stands.

    Raises:
        Problem: 422 ``invalid-cursor``.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        version, mark, number, record_id, begun = msgspec.json.decode(
            content, type=tuple[int, str, int, str, int]
        )
        if record_id != "z":
            bytes.fromhex(record_id)
        if (
            version != _CURSOR
            or mark != _mark(collection_id)
            or not (0 <= number < 2**31 and 0 <= begun < 2**31)
        ):
            raise ValueError
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise Problem(
            422,
            "invalid-cursor",
            "since must be the `next` of an earlier answer for this collection; without it, all records are "
            "answered.",
            field="since",
        ) from None
    return Place(number, record_id, begun)


def _mark(collection_id: str) -> str:
    return hashlib.blake2b(collection_id.encode(), digest_size=4).hexdigest()


route_handlers = [get_records, get_changes]
