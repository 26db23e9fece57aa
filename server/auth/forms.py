"""Forms: what the token endpoint takes, and what our pages send."""

from typing import Any
from urllib.parse import parse_qsl

from litestar import Request

from server.errors import Problem

_FORM = "application/x-www-form-urlencoded"
#: The largest form that makes sense, every scope in URL form included, and then some.
_MAX_FORM_BYTES = 32_768
_MAX_MEMBERS = 32


async def form_of(request: Request[Any, Any, Any], *, keep_blank: bool = True) -> dict[str, str]:
    """The members of a form.

    Args:
        request: whose body it is.
        keep_blank: whether a member without a value was sent; for OAuth it was not (RFC 6749, section 3.2).

    Raises:
        Problem: 415, 413 or 400: it is none. The detail is in ASCII without quotes, as OAuth wants it.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise Problem(415, "unsupported-media-type", f"The body must be {_FORM}.")
    body = await request.body()
    if len(body) > _MAX_FORM_BYTES:
        raise Problem(413, "too-large", f"The form must not be longer than {_MAX_FORM_BYTES} bytes.")
    try:
        members = parse_qsl(
            body.decode(), keep_blank_values=keep_blank, max_num_fields=_MAX_MEMBERS, errors="strict"
        )
    except ValueError:
        raise Problem(400, "bad-request", "The body is not a form in UTF-8.") from None
    form = dict(members)
    if len(form) != len(members):
        raise Problem(400, "bad-request", "A member of the form was sent twice.")
    if any("\0" in text for member in members for text in member):
        raise Problem(400, "bad-request", "A text may not hold a NUL.")
    return form
