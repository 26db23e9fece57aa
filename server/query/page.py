"""The page on which people write queries (section 3.4): what ``designer/`` builds, or a plain form where it was not built."""

import asyncio
import hashlib
import re
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from markupsafe import Markup

from server.auth.policies import PUBLIC
from server.errors import Problem
from server.settings import Settings

_PUBLIC = {"policy": PUBLIC}
_HERE = Path(__file__).parent
#: Where the build goes. Its files have names with a checksum, except ``index.html``.
BUILT = _HERE / "static"
_PAGE = "index.html"
_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".ttf": "font/ttf",
}
#: One name, not a way to another folder.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}")
#: The editor (Monaco) puts its sizes and colours into the page as styles, underlines mistakes with pictures that its style
#: holds (data:), and has workers, which are files of ours. Nothing comes from elsewhere, and no script stands in the page.
_DESIGNER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
#: What an asset may do if somebody opens it as a page, and the workers: nothing.
_ASSET_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"
_STYLE = (_HERE / "pages" / "plain.css").read_text("utf-8")
_PLAIN_POLICY = (
    "default-src 'none'; "
    f"style-src 'sha256-{b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
#: What stands in the plain form.
_FIRST = """{
  jobs(limit: 20, order: "desc") {
    jobId
    jobTitle
    workflowTitle
    created
    completed
    totalDuration
    userName
  }
}
"""

_templates = Environment(
    loader=PackageLoader("server.query", "pages"), autoescape=True, undefined=StrictUndefined
)
_templates.globals |= {"style": Markup(_STYLE)}  # noqa: S704  # our own file

PageRequest = Request[Any, Any, Any]


@get("/query", opt=_PUBLIC, tags=["Query"], summary="The query designer")
async def designer(settings: NamedDependency[Settings]) -> Response[bytes]:
    """The page itself; it is asked for anew every time, and names the assets that fit it."""
    try:
        text = await asyncio.to_thread((BUILT / _PAGE).read_bytes)
    except FileNotFoundError:
        return _plain(settings, instead=True)
    return _html(text, _DESIGNER_POLICY)


@get("/query/plain", opt=_PUBLIC, tags=["Query"], summary="A form for queries, without scripts")
async def plain(settings: NamedDependency[Settings]) -> Response[bytes]:
    """For browsers without scripts, and for those who have a key but no account."""
    return _plain(settings, instead=False)


@get("/query/static/assets/{name:str}", opt=_PUBLIC, tags=["Query"], summary="Parts of the query designer")
async def asset(request: PageRequest, name: FromPath[str]) -> Response[bytes]:
    """A file of the build. Its name changes with what is in it, so browsers need not ask for it again."""
    media_type = _TYPES.get(Path(name).suffix) if _NAME.fullmatch(name) else None
    takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
    found = await asyncio.to_thread(_read, name, takes_gzip) if media_type is not None else None
    if found is None:
        raise Problem(404, "no-such-route", "The query designer has no such file.")
    content, compressed = found
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Content-Security-Policy": _ASSET_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Vary": "Accept-Encoding",
    }
    if compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(content, media_type=media_type, headers=headers)


def _read(name: str, takes_gzip: bool) -> tuple[bytes, bool] | None:
    """The file, and whether it is the compressed copy that the build put beside it; None if there is none."""
    for compressed in (True, False) if takes_gzip else (False,):
        with suppress(FileNotFoundError):
            return (BUILT / "assets" / (f"{name}.gz" if compressed else name)).read_bytes(), compressed
    return None


def _plain(settings: Settings, *, instead: bool) -> Response[bytes]:
    """The form. Its answer is an address with the query and the key in it, which is the export as well.

    Args:
        instead: it is shown because there is no designer.
    """
    text = _templates.get_template("plain.html").render(
        instead=instead, query=_FIRST, address=f"{settings.base_url}/query/v2/graph"
    )
    return _html(text.encode(), _PLAIN_POLICY)


def _html(text: bytes, policy: str) -> Response[bytes]:
    return Response(
        text,
        media_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        },
    )


route_handlers = [designer, plain, asset]
