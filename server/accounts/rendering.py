"""Pages: templates of this package, with headers that let nothing into them and nothing out."""

import hashlib
import logging
from base64 import b64encode
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Request, Response
from markupsafe import Markup

from server.errors import RETRY_AFTER_SECONDS, RETRY_LATER, to_problem

log = logging.getLogger("fieldsync.accounts")

_FOLDER = resources.files("server.accounts") / "pages"
_STYLE = (_FOLDER / "style.css").read_text()
#: Takes the secret of a link out of the address; the page works without it.
_SCRIPT = (_FOLDER / "link.js").read_text()

_templates = Environment(
    loader=PackageLoader("server.accounts", "pages"), autoescape=True, undefined=StrictUndefined
)
_templates.globals |= {"style": Markup(_STYLE), "script": Markup(_SCRIPT)}  # noqa: S704  # our own files


def page(
    template: str,
    status: int = 200,
    *,
    leads_to: str | None = None,
    headers: dict[str, str] | None = None,
    **values: Any,
) -> Response[str]:
    """The page ``template``.

    Args:
        leads_to: an address outside to which the answer to the page's form may redirect.
        headers: further headers.
        values: what the template says.
    """
    text = _templates.get_template(f"{template}.html").render(**values)
    return Response(
        text,
        status_code=status,
        media_type="text/html",
        headers={
            "Content-Security-Policy": content_security_policy(leads_to),
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            **(headers or {}),
        },
    )


def message(status: int, title: str, text: str, link: tuple[str, str] | None = None) -> Response[str]:
    """A page that says one thing.

    Args:
        link: where to go from here: address and words.
    """
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status in RETRY_LATER else {}
    return page("message", status, headers=headers, title=title, text=text, link=link, bad=status >= 400)


def on_error(_request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    """An error as a page, for people."""
    problem = to_problem(error)
    shown = message(problem.status, "That did not work", problem.detail)
    shown.headers.update(problem.headers)
    return shown


def content_security_policy(leads_to: str | None) -> str:
    """Nothing but our own style and script. Browsers apply ``form-action`` to redirects after a form too, so
    the app that gets the answer must be in it.
    """
    targets = " ".join(["'self'", *([_source(leads_to)] if leads_to else [])])
    return (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        f"form-action {targets}; frame-ancestors 'none'; base-uri 'none'"
    )


def _source(address: str) -> str:
    parts = urlsplit(address)
    # Sources have no form for IPv6 (CSP 3, 2.3.1), and none for what apps call their own but the scheme.
    if parts.scheme not in ("http", "https") or parts.netloc.startswith("["):
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
