"""Errors become answers here: one table from domain error to status and retry class, one handler.

Every refusal is ``application/problem+json`` (RFC 9457) with two members of ours: ``code``, stable and
documented in docs/protocol.md, and ``retry``, ``later`` (with Retry-After) or ``never``.
"""

import dataclasses
import logging
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import (
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)

from media import uploads as upload_errors
from storage.blobs import BlobsUnavailable
from storage.database import Contended, Unavailable, Unstorable
from sync import errors as sync_errors

log = logging.getLogger("fieldsync.errors")

PROBLEM = "application/problem+json"
RETRY_AFTER_SECONDS = 2


@dataclasses.dataclass
class Problem(Exception):
    """A refusal raised by the server's own code.

    Args:
        status: the HTTP status.
        code: stable; clients branch on it.
        detail: what is wrong and what to do about it.
        field: the member or parameter at fault.
        headers: further headers of the answer.
        extra: further members of the answer.
    """

    status: int
    code: str
    detail: str
    field: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


#: Domain error -> status. Nearest class first.
STATUS: dict[type[Exception], int] = {
    sync_errors.MalformedSnapshot: 400,
    sync_errors.InvalidSnapshot: 422,
    sync_errors.TooLarge: 413,
    sync_errors.NotFound: 404,
    sync_errors.Gone: 410,
    sync_errors.Forbidden: 403,
    sync_errors.Conflict: 409,
    sync_errors.PreconditionFailed: 412,
    sync_errors.Busy: 503,
    upload_errors.BadRange: 400,
    upload_errors.NoSuchUpload: 404,
    upload_errors.Differs: 409,
    upload_errors.Expired: 410,
    upload_errors.TooLarge: 413,
    upload_errors.HashMismatch: 422,
}

#: Statuses after which the same request may succeed; everything else is for a person or a changed request.
RETRY_LATER = {408, 423, 425, 429, 460, 500, 502, 503, 504}


def problem_parts(problem: Problem) -> tuple[bytes, dict[str, str]]:
    """Body and headers of the answer for ``problem``, with ``code`` and ``retry``."""
    retry = "later" if problem.status in RETRY_LATER else "never"
    headers = dict(problem.headers)
    if retry == "later":
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": problem.code.replace("-", " "),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "retry": retry,
    }
    if problem.field is not None:
        body["field"] = problem.field
    body.update(problem.extra)
    return msgspec.json.encode(body), headers


def problem_response(problem: Problem) -> Response[bytes]:
    """The answer for ``problem``."""
    body, headers = problem_parts(problem)
    return Response(body, status_code=problem.status, media_type=PROBLEM, headers=headers)


def to_problem(error: Exception) -> Problem:
    """Translate any error into the problem the caller sees. Unknown ones are logged and become 500."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, sync_errors.SyncError):
        return Problem(STATUS[type(error)], error.code, error.detail, field=error.field, extra=error.extra)
    if isinstance(error, upload_errors.UploadProblem):
        return Problem(STATUS[type(error)], error.code, error.detail, field=error.field)
    if isinstance(error, Unavailable | Contended):
        log.warning("storage unavailable: %s", error)
        return Problem(
            503, "storage-unavailable", "The storage did not take it; nothing was kept. Try later."
        )
    if isinstance(error, BlobsUnavailable):
        log.warning("blobs unavailable: %s", error)
        return Problem(
            503, "blobs-unavailable", "The store of files does not take or give any now. Try later."
        )
    if isinstance(error, Unstorable):
        return Problem(422, "invalid-text", str(error))
    if isinstance(error, NotFoundException):
        return Problem(404, "no-such-route", "There is nothing at this address. See /schema/openapi.json.")
    if isinstance(error, MethodNotAllowedException):
        return Problem(
            405,
            "method-not-allowed",
            "This address does not take this method.",
            headers=dict(error.headers or {}),
        )
    if isinstance(error, ValidationException):
        return Problem(422, "invalid-request", error.detail, field=_first_key(error.extra))
    if isinstance(error, HTTPException):
        code = {400: "bad-request", 413: "too-large", 415: "unsupported-media-type"}.get(
            error.status_code, f"http-{error.status_code}"
        )
        return Problem(error.status_code, code, error.detail)
    log.error("unexpected error", exc_info=error)
    return Problem(500, "internal", "An error on our side; it was logged. Nothing of the request was kept.")


def _first_key(extra: Any) -> str | None:
    if isinstance(extra, list) and extra and isinstance(extra[0], dict):
        key = extra[0].get("key")
        return key if isinstance(key, str) else None
    return None


def handle(_request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The application's one exception handler."""
    return problem_response(to_problem(error))
