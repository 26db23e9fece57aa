"""Pushing snapshots: basic sync (6.14) and create (6.12)."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from litestar import Response, post
from litestar.types import Receive, Scope, Send

from server.auth.authority import Authority
from server.errors import PROBLEM, Problem, problem_parts, to_problem
from server.http import JSON, json_response, prefers_minimal
from server.jobs.intake import JobRequest, push, push_body
from server.settings import Settings
from sync.answers import job_document, push_answer
from sync.etag import format_etag
from sync.ingest import Ingest
from sync.items import Applied

_TAGS = ["Jobs"]
_POLICY = "Workflow_Execute"

BASIC_SYNC_PATHS = frozenset({"/jobs/v1/basicSync", "/jobs/v1/basicSync/"})


def _sync_answer(applied: Applied, prefer: str | None) -> tuple[bytes, dict[str, str]]:
    headers = {"ETag": format_etag(applied.incarnation, applied.rev)}
    if prefers_minimal(prefer):
        headers["Preference-Applied"] = "return=minimal"
        return push_answer(applied, minimal=True), headers
    return push_answer(applied), headers


@post(
    "/jobs/v1/basicSync",
    status_code=200,
    opt={"policy": _POLICY},
    tags=_TAGS,
    summary="Basic sync",
    description="Creates the job, merges into it, or aborts it (status Aborted). `sync.action` says what happened.",
)
async def basic_sync(request: JobRequest) -> Response[bytes]:
    """Section 6.14. In production :class:`BasicSync` answers before the framework is asked."""
    return json_response(*_sync_answer(await push(request), request.headers.get("prefer")))


class BasicSync:
    """Basic sync without the framework around it: the same guard, the same ingest, the same answers.

    Routing, request and response objects, dependency injection and the copy of the handler made for each
    guard took more time than parsing and merging together (docs/performance.md), on the one route that
    every tablet uses all day.
    """

    def __init__(self, authority: Authority, ingest: Ingest, settings: Settings) -> None:
        self._authority = authority
        self._ingest = ingest
        self._limit = settings.max_snapshot_bytes
        self._hard_limit = settings.max_quarantine_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            principal = await self._authority.admit(scope["headers"], _POLICY)
            body = await read_body(receive, self._hard_limit)
            if body is None:
                return  # the caller has gone
            if_match, prefer = _headers(scope["headers"])
            applied = await push_body(self._ingest, principal, body, if_match, self._limit)
            answer, headers = _sync_answer(applied, prefer)
        except Exception as error:
            await send_problem(send, to_problem(error))
            return
        await _send(send, 200, JSON, answer, headers)


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with a problem, below the framework."""
    await _send(send, problem.status, PROBLEM, *problem_parts(problem))


async def _send(send: Send, status: int, kind: str, body: bytes, headers: dict[str, str]) -> None:
    raw = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    raw += [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """If-Match and Prefer."""
    if_match = prefer = None
    for name, value in headers:
        if name == b"if-match":
            if_match = value.decode("latin-1")
        elif name == b"prefer":
            prefer = value.decode("latin-1")
    return if_match, prefer


async def read_body(receive: Callable[[], Awaitable[Any]], limit: int) -> bytes | None:
    """The body, or None if the caller went away before its end.

    Raises:
        Problem: 413 beyond ``limit``; the rest is not read.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise Problem(413, "too-large", f"No body may have more than {limit:,} bytes; nothing was kept.")
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


@post(
    "/jobs/v1",
    status_code=200,
    opt={"policy": _POLICY},
    tags=_TAGS,
    summary="Create a job",
    description="With a known clientJobId: as basic sync. Answers the stored document.",
)
async def create_job(request: JobRequest) -> Response[bytes]:
    """Section 6.12."""
    applied = await push(request)
    headers = {"ETag": format_etag(applied.incarnation, applied.rev)}
    if applied.job is None:
        return json_response(push_answer(applied), headers)
    return json_response(job_document(applied.job.view, applied.incarnation, applied.rev), headers)


route_handlers = [basic_sync, create_job]
