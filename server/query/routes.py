"""Queries over HTTP (section 3.1.2.3): GET and POST, JSON and CSV."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from graphql import DocumentNode, execute_sync
from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.response import Stream

from server.auth.authority import OR_KEY
from server.clock import now
from server.errors import Problem
from server.query.access import caller
from server.query.asking import Asking
from server.query.deliveries import triggers
from server.query.documents import MAX_BYTES, SCHEMA, Document, QueryProblem, read
from server.query.flat import csv_lines
from server.query.jobs import jobs
from server.query.people import groups, users
from server.query.plans import scheduled_jobs, workflows
from server.query.records import collections
from server.query.selecting import Field, select
from server.triggers.keys import QueryKeys
from storage.blobs import BlobStore
from storage.database import Database
from storage.records import RecordFiles

_TAGS = ["Query"]
_JSON = "application/json"
_GRAPHQL_JSON = "application/graphql-response+json"
_CSV = "text/csv"
#: Addresses of files in answers expire, and whoever has one needs no token.
_NO_STORE = {"Cache-Control": "private, no-store", "Vary": "Authorization, Accept"}
_PATHS = ["/query/v2/graph", "/api/query/v2/graph"]
_DESCRIPTION = (
    "GraphQL. Query parameters (GET), or members of a JSON body (POST): `query`, `variables`, `operationName`; "
    "`key`, a query key, in place of an access token; `csv=true` for a table."
)

Root = Callable[[Field, Asking], Awaitable[Any]]
ROOTS: Mapping[str, Root] = {
    "jobs": jobs,
    "users": users,
    "groups": groups,
    "workflows": workflows,
    "scheduledJobs": scheduled_jobs,
    "collections": collections,
    "triggers": triggers,
}


class Question(NamedTuple):
    """What was asked."""

    query: str
    variables: Mapping[str, Any]
    operation_name: str | None


class Answer(NamedTuple):
    """``data`` is None if nothing was executed; of ``errors`` each is what GraphQL prints."""

    fields: tuple[Field, ...]
    data: dict[str, Any] | None
    errors: list[dict[str, Any]]


class _Body(msgspec.Struct, rename="camel"):
    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None


_body = msgspec.json.Decoder(_Body)
_variables = msgspec.json.Decoder(dict[str, Any] | None)


@get(
    _PATHS,
    opt={"policy": "Query_Read", OR_KEY: True},
    tags=_TAGS,
    summary="Query with an address",
    description=_DESCRIPTION,
)
async def get_graph(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
    records: NamedDependency[RecordFiles],
    query_keys: NamedDependency[QueryKeys],
) -> Response[bytes] | Stream:
    """Section 3.1.2.3."""
    who = await caller(request, database, query_keys, now)
    asking = Asking(who.team_id, who.team_name, database, blobs, records)
    given = request.query_params
    query = given.get("query")
    if not query:
        raise Problem(400, "query-missing", "Say what to query: the parameter query.", field="query")
    question = Question(query, _variables_of(given.get("variables")), given.get("operationName") or None)
    return await _respond(request, question, asking)


@post(
    _PATHS,
    opt={"policy": "Query_Read", OR_KEY: True},
    tags=_TAGS,
    summary="Query",
    description=_DESCRIPTION,
    status_code=200,
)
async def post_graph(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    blobs: NamedDependency[BlobStore],
    records: NamedDependency[RecordFiles],
    query_keys: NamedDependency[QueryKeys],
) -> Response[bytes] | Stream:
    """Section 3.1.2.3."""
    who = await caller(request, database, query_keys, now)
    asking = Asking(who.team_id, who.team_name, database, blobs, records)
    return await _respond(request, _question(await _limited_body(request)), asking)


async def _limited_body(request: Request[Any, Any, Any]) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise Problem(
                413, "query-too-large", f"A query may have {MAX_BYTES:,} bytes, with its variables."
            )
    return bytes(body)


def _question(body: bytes) -> Question:
    if body.lstrip()[:1] == b"[":
        raise Problem(400, "query-batch", "One query at a time: several in a list are not answered.")
    try:
        asked = _body.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Problem(
            400, "query-malformed", 'The body must be JSON: {"query": "{ jobs { jobId } }", "variables": {}}.'
        ) from None
    return Question(asked.query, asked.variables or {}, asked.operation_name)


def _variables_of(text: str | None) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        return _variables.decode(text) or {}
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise Problem(400, "query-malformed", "variables must be a JSON object.", field="variables") from None


async def _respond(
    request: Request[Any, Any, Any], question: Question, asking: Asking
) -> Response[bytes] | Stream:
    answer = await answered(question, asking)
    is_table = request.query_params.get("csv", "").casefold() == "true"
    if is_table:
        headers = {**_NO_STORE, "X-Fieldsync-Errors": str(len(answer.errors))}
        return Stream(_table(answer), media_type=_CSV, headers=headers)
    told: dict[str, Any] = {} if answer.data is None and answer.errors else {"data": answer.data}
    if answer.errors:
        told["errors"] = answer.errors
    # GraphQL over HTTP: 200 with application/json, whatever is wrong; with its own type what cannot be executed is 400.
    is_new = _GRAPHQL_JSON in request.headers.get("accept", "")
    status = 400 if is_new and answer.data is None else 200
    return Response(
        msgspec.json.encode(told),
        status_code=status,
        media_type=_GRAPHQL_JSON if is_new else _JSON,
        headers=_NO_STORE,
    )


async def _table(answer: Answer) -> AsyncIterator[bytes]:
    lines = csv_lines(answer.fields, answer.data or {})
    while (chunk := await asyncio.to_thread(next, lines, None)) is not None:
        yield chunk


async def answered(question: Question, asking: Asking) -> Answer:
    """Execute a query. What is wrong with it is in the answer; what is wrong with the server is raised."""
    try:
        document = read(question.query)
        fields = select(document, question.operation_name, question.variables)
    except QueryProblem as problem:
        return Answer((), None, problem.errors)
    data: dict[str, Any] = {}
    errors: list[dict[str, Any]] = []
    described: dict[str, Any] | None = None
    for field in fields:
        if field.name == "__typename":
            data[field.key] = "Query"
        elif field.name.startswith("__"):
            described = described if described is not None else _described(document, question)
            data[field.key] = described.get(field.key)
        else:
            try:
                data[field.key] = await ROOTS[field.name](field, asking)
            except QueryProblem as problem:
                data[field.key] = None
                errors += problem.errors
    return Answer(fields, data, errors)


def _described(document: Document, question: Question) -> dict[str, Any]:
    """What the schema says of itself. Other fields are answered elsewhere, and are null here."""
    whole = DocumentNode(definitions=(*document.operations.values(), *document.fragments.values()))
    result = execute_sync(
        SCHEMA, whole, variable_values=dict(question.variables), operation_name=question.operation_name
    )
    return result.data or {}


route_handlers = [get_graph, post_graph]
