"""Previews: the HTML of a report for a browser, its pictures inside. Runs in the pool.

A browser understands more than the printer does: what runs, what asks the network and what leads away is taken out by
its name, and the rest is written so that another parser reads the same elements again, whatever stands in the texts.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from xml.etree.ElementTree import Element

from media.formats import Refused
from media.report_pages import BASE_STYLE, Document, Fetcher, child
from media.report_text import Log

#: Bytes of a preview: forty photos of 1280 pixels are 16 million.
MAX_BYTES = 25_000_000
_ATTACHMENT = re.compile(r"att:([^\s\"'()<>,;]+)", re.IGNORECASE)
#: Whatever a template says, the browser runs nothing and asks nobody.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: Links are not looked up before somebody follows one.
_PREFETCH = {"http-equiv": "x-dns-prefetch-control", "content": "off"}

#: What runs, asks or leads away; no policy of the document stops all of it. Paper shows none of them.
_REMOVED = frozenset(
    [
        "applet",
        "base",
        "embed",
        "fencedframe",
        "frame",
        "iframe",
        "link",
        "noembed",
        "noframes",
        "object",
        "param",
        "portal",
        "script",
        "template",
        "animate",
        "animatemotion",
        "animatetransform",
        "discard",
        "handler",
        "listener",
        "set",
    ]
)
_REMOVED_ATTRIBUTES = frozenset(
    ["action", "attributionsrc", "formaction", "http-equiv", "manifest", "ping", "srcdoc"]
)
#: Browsers pass over blanks at the beginning and inside.
_BLANKS = r"[\x00-\x20\x7f-\xa0]*"
_RUNNING = re.compile(
    "|".join(_BLANKS + _BLANKS.join(each) for each in ("javascript:", "vbscript:")), re.IGNORECASE
)
#: Elements that are read as text up to their end, and one without an end: as another that looks the same.
_INSTEAD = {"xmp": "pre", "listing": "pre", "plaintext": "pre", "noscript": "span"}
_EMPTY = frozenset(["area", "br", "col", "hr", "img", "input", "meta", "source", "track", "wbr"])
_NAMESPACES = {
    "{http://www.w3.org/1999/xlink}": "xlink:",
    "{http://www.w3.org/XML/1998/namespace}": "xml:",
}
_TAG = re.compile(r"[a-zA-Z][\w:.-]*", re.ASCII)
_ATTRIBUTE = re.compile(r"[a-zA-Z_][\w:.-]*", re.ASCII)
_MARKUP = re.compile(r"<(?=[a-zA-Z/!?])")
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\xa0": "&nbsp;"})


def standalone(document: Document, files: Mapping[str, str], log: Log) -> bytes:
    """The HTML with its pictures inside, in UTF-8. The document is used up.

    Raises:
        Refused: it has more than 25 MB.
    """
    root = document.root
    style = Element("style")
    style.text = BASE_STYLE
    # The last, so that it is the first: what the document brings of this kind is removed.
    head = child(root, "head", 0)
    pictures = _Pictures(Fetcher(files, log))
    ours = "".join(
        f"<meta {' '.join(f'{name}={_quoted(value)}' for name, value in each.items())}>"
        for each in (
            {"charset": "utf-8"},
            {"http-equiv": "Content-Security-Policy", "content": _POLICY},
            _PREFETCH,
        )
    )
    head.insert(0, style)
    pieces, length = [], 0
    for piece in _written(root, head, ours, pictures):
        pieces.append(piece.encode("utf-8", "replace"))
        length += len(pieces[-1])
        if length > MAX_BYTES:
            raise _too_large()
    return b"".join(pieces)


def _too_large() -> Refused:
    return Refused(f"The HTML of the preview has more than {MAX_BYTES // 1_000_000} MB with its pictures.")


class _Pictures:
    """Texts with the pictures in place of their addresses."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._known: dict[str, str | None] = {}
        self._length = 0

    def within(self, text: str) -> str:
        return _ATTACHMENT.sub(self._of, text)

    def _of(self, found: re.Match[str]) -> str:
        name = found[1]
        if name not in self._known:
            content = self._fetcher.attachment(name)
            self._known[name] = (
                content and f"data:{content[0]};base64,{base64.b64encode(content[1]).decode()}"
            ) or None
        address = self._known[name]
        if address is None:
            return found[0]
        self._length += len(address)
        if self._length > MAX_BYTES:  # before it is written: a text may name one a million times
            raise _too_large()
        return address


def _written(root: Element, head: Element, ours: str, pictures: _Pictures) -> Iterator[str]:
    """The document in pieces, with ``ours`` at the beginning of its head. Elements wait in a list, not in calls: they
    may be nested deeply."""
    yield "<!doctype html>\n"
    waiting: list[Element | str] = [root]
    while waiting:
        element = waiting.pop()
        if isinstance(element, str):
            yield element
            continue
        if element.tail and element is not root:
            waiting.append(element.tail.translate(_ESCAPES))
        tag, is_html = _tag(element)
        if tag is None:
            continue
        yield f"<{tag}{''.join(_attributes(element, pictures))}>"
        if is_html and tag in _EMPTY:
            continue
        waiting.append(f"</{tag}>")
        if tag.lower() == "style":
            yield _style(pictures.within(element.text or ""), is_html)
            continue  # without the elements that a drawing's style may have
        if element is head:
            yield ours
        yield (element.text or "").translate(_ESCAPES)
        waiting.extend(reversed(element))


def _tag(element: Element) -> tuple[str | None, bool]:
    """How an element is written, None if it is not, and whether it is one of HTML."""
    if not isinstance(element.tag, str):
        return None, True  # a comment
    namespace, tag = "", element.tag
    if tag.startswith("{"):
        namespace, _, tag = tag.rpartition("}")
    if tag.lower() in _REMOVED or (tag.lower() == "meta" and element.get("http-equiv") is not None):
        return None, True
    tag = tag if _TAG.fullmatch(tag) else "span"
    return (_INSTEAD.get(tag, tag), True) if not namespace else (tag, False)


def _attributes(element: Element, pictures: _Pictures) -> Iterator[str]:
    for key, value in element.attrib.items():
        name = key
        for namespace, prefix in _NAMESPACES.items():
            if name.startswith(namespace):
                name = prefix + name[len(namespace) :]
        low = name.lower()
        if not _ATTRIBUTE.fullmatch(name) or low.startswith("on") or low in _REMOVED_ATTRIBUTES:
            continue
        if _RUNNING.match(value):
            continue
        yield f" {name}={_quoted(value if low == 'alt' else pictures.within(value))}"


def _quoted(value: str) -> str:
    return f'"{value.translate(_ESCAPES)}"'


def _style(text: str, is_html: bool) -> str:
    """What stands in a ``<style>``. That of a drawing is read like any text, that of HTML up to its end; either way
    nothing in it is a tag. ``\\3c `` is how CSS writes ``<``."""
    return _MARKUP.sub(r"\\3c ", text.replace("<!--", "")) if is_html else text.translate(_ESCAPES)
