"""Collections: made, renamed, listed, deleted (sections 4.1 to 4.5).

The document leaves the answers to renaming and deleting blank: the collection as it is then, and nothing.
"""

from collections import defaultdict
from typing import Any

import msgspec
from litestar import Request, Response, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath

from server import bodies
from server.attachments.forgetting import DELETE_BLOBS, delete_now
from server.auth.policies import ANY_TOKEN
from server.auth.principal import Principal
from server.clock import now
from server.collections.details import printed
from server.errors import Problem
from server.http import json_response
from storage.blobs import BlobStore
from storage.database import Connection, Database
from storage.ids import new_id
from storage.queries import collections as queries
from storage.queries import tasks
from storage.queries.collections import CollectionRow, FileRow

CollectionRequest = Request[Principal, Any, Any]

_POLICY = {"policy": ANY_TOKEN}
_TAGS = ["Collections"]


class Named(msgspec.Struct):
    """The body of sections 4.3 and 4.4."""

    name: str


class CreatedCollection(msgspec.Struct, rename="camel"):
    """The answer of section 4.4."""

    collection_id: str


@get("/collections/v1/collection", opt=_POLICY, tags=_TAGS, summary="Get collections")
async def get_collections(
    request: CollectionRequest, database: NamedDependency[Database], blobs: NamedDependency[BlobStore]
) -> Response[bytes]:
    """Section 4.2: all of the team's, in the order in which they were made."""
    rows, files = await database.read(_load_all, request.user.team_id)
    of: dict[str, list[FileRow]] = defaultdict(list)
    for file in files:
        of[file.collection_id].append(file)
    return _answer(request, [(row, of[row.collection_id]) for row in rows], blobs)


@get(
    "/collections/v1/collection/{collection_id:str}",
    opt=_POLICY,
    tags=_TAGS,
    summary="Get collection",
    description="`state`: empty, importing, ready or failed, which is about the newest file.",
)
async def get_collection(
    request: CollectionRequest,
    collection_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 4.1: a list of one."""
    row, files = await database.read(_load, request.user.team_id, collection_id)
    return _answer(request, [(row, files)], blobs)


@post("/collections/v1/collection", status_code=200, opt=_POLICY, tags=_TAGS, summary="Create collection")
async def create_collection(
    request: CollectionRequest, database: NamedDependency[Database]
) -> CreatedCollection:
    """Section 4.4. Names need not be unique."""
    name = bodies.name(bodies.decode(await request.body(), Named).name, "name")
    user, moment = request.user, now()
    row = CollectionRow(new_id(), name, user.subject_id, user.username, moment, moment, None)
    await database.settle(queries.add, user.team_id, row)
    return CreatedCollection(row.collection_id)


@put(
    "/collections/v1/collection/{collection_id:str}",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Update collection name",
)
async def rename_collection(
    request: CollectionRequest,
    collection_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 4.3; answers as 4.1."""
    name = bodies.name(bodies.decode(await request.body(), Named).name, "name")
    row, files = await database.settle(_rename, request.user.team_id, collection_id, name, now())
    return _answer(request, [(row, files)], blobs)


@delete(
    "/collections/v1/collection/{collection_id:str}",
    status_code=200,
    opt=_POLICY,
    tags=_TAGS,
    summary="Delete collection",
)
async def delete_collection(
    request: CollectionRequest,
    collection_id: FromPath[str],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
) -> Response[bytes]:
    """Section 4.5. Its files go with it; an upload that is under way ends with 404."""
    keys = await database.settle(_delete, request.user.team_id, collection_id, now())
    if keys:
        await delete_now(blobs, keys)
    return Response(b"", status_code=200)


def no_such_collection(field: str | None = None) -> Problem:
    """The refusal of an id that is none of the team's."""
    return Problem(404, "no-such-collection", "The team has no such collection.", field=field)


def _load(connection: Connection, team_id: int, collection_id: str) -> tuple[CollectionRow, list[FileRow]]:
    row = queries.one(connection, team_id, collection_id)
    if row is None:
        raise no_such_collection()
    return row, queries.files(connection, team_id, collection_id)


def _load_all(connection: Connection, team_id: int) -> tuple[list[CollectionRow], list[FileRow]]:
    return queries.page(connection, team_id), queries.files(connection, team_id)


def _rename(
    connection: Connection, team_id: int, collection_id: str, name: str, moment: int
) -> tuple[CollectionRow, list[FileRow]]:
    queries.rename(connection, team_id, collection_id, name, moment)
    return _load(connection, team_id, collection_id)


def _delete(connection: Connection, team_id: int, collection_id: str, moment: int) -> list[str]:
    keys = queries.remove(connection, team_id, collection_id)
    if keys is None:
        raise no_such_collection()
    if keys:
        tasks.enqueue(connection, team_id, DELETE_BLOBS, collection_id, {"keys": keys}, now=moment)
    return keys


def _answer(
    request: CollectionRequest, found: list[tuple[CollectionRow, list[FileRow]]], blobs: BlobStore
) -> Response[bytes]:
    shown = [printed(row, files, request.user.team_name, blobs) for row, files in found]
    return json_response(msgspec.json.encode({"collections": shown}))


route_handlers = [
    get_collections,
    get_collection,
    create_collection,
    rename_collection,
    delete_collection,
]
