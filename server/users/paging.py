"""Paging of lists that the document prints whole: all of it unless the caller asks for a part."""

from typing import Any

from litestar import Request

from server.http import whole_number


def optional_page(request: Request[Any, Any, Any]) -> tuple[int, int | None]:
    """``skip`` (default 0) and ``limit`` (default None: all).

    Raises:
        Problem: 400 ``invalid-parameter``.
    """
    limit = whole_number(request, "limit", 0, 1)
    return whole_number(request, "skip", 0, 0), limit or None
