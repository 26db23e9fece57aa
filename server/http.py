"""What routes share of HTTP: ETags, paging, bodies, preferences."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, Response
from litestar.exceptions import InternalServerException

from server.errors import Problem
from sync.etag import matches

JSON = "application/json"
DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


def whole_number(request: Request[Any, Any, Any], name: str, default: int, least: int) -> int:
    """A query parameter as a whole number.

    Raises:
        Problem: 400 ``invalid-parameter`` if it is none, or below ``least``.
    """
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    # Python's int() would take 1_0, +5 and the digits of other scripts.
    value = int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else least - 1
    if value < least:
        raise Problem(
            400, "invalid-parameter", f"{name} must be a whole number of at least {least}.", field=name
        )
    return value


def skip_and_limit(request: Request[Any, Any, Any]) -> tuple[int, int]:
    """``skip`` (default 0) and ``limit`` (default 20, clamped to 1,000), as in section 6.1.4."""
    return whole_number(request, "skip", 0, 0), min(
        whole_number(request, "limit", DEFAULT_LIMIT, 1), MAX_LIMIT
    )


def optional_page(request: Request[Any, Any, Any]) -> tuple[int, int | None]:
    """``skip`` (default 0) and ``limit`` (default None: all), of lists that the document prints whole.

    Raises:
        Problem: 400 ``invalid-parameter``.
    """
    limit = whole_number(request, "limit", 0, 1)
    return whole_number(request, "skip", 0, 0), limit or None


def json_response(body: bytes, headers: dict[str, str] | None = None) -> Response[bytes]:
    """``body``, which is JSON already."""
    return Response(body, media_type=JSON, headers=headers)


def with_etag(request: Request[Any, Any, Any], body: bytes, etag: str) -> Response[bytes]:
    """``body`` with its ETag, or 304 if the caller has it already (RFC 9110, 13.1.2)."""
    known = request.headers.get("if-none-match")
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    if known is not None and matches(known, etag):
        return Response(b"", status_code=304, headers=headers)
    return json_response(body, headers)


def prefers_minimal(prefer: str | None) -> bool:
    """Whether a Prefer header asks for an answer without the job (RFC 7240, ``return=minimal``)."""
    return prefer is not None and "return=minimal" in prefer.replace(" ", "").lower()


def content_length(request: Request[Any, Any, Any]) -> int | None:
    """Content-Length, if it says one."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


async def body_of(request: Request[Any, Any, Any]) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises:
        Problem: 408 ``body-incomplete`` if the caller goes away, or it ends before its Content-Length.
    """
    announced, came = content_length(request), 0
    try:
        async for chunk in request.stream():
            if chunk:
                came += len(chunk)
                yield chunk
    except InternalServerException:
        # How the framework says that the caller has gone.
        raise _incomplete() from None
    if announced is not None and came < announced:
        raise _incomplete()


def _incomplete() -> Problem:
    return Problem(408, "body-incomplete", "The body ended before its end. Send it again.")
