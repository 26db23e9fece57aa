"""Pages of reports: HTML onto paper with WeasyPrint, which may read the report's pictures alone. Runs in the pool."""

import binascii
import io
import logging
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, unquote_to_bytes
from xml.etree.ElementTree import Element, SubElement

from PIL import Image, ImageFile
from weasyprint import CSS, HTML
from weasyprint.svg.utils import normalize
from weasyprint.text.fonts import FontConfiguration
from weasyprint.urls import URLFetcher, URLFetcherResponse

from media.formats import MAX_PIXELS
from media.pdf import Template
from media.report_text import Log

# Importing WeasyPrint lets Pillow pass off half a picture as a whole one, in all of the process.
ImageFile.LOAD_TRUNCATED_IMAGES = False

#: A logo in the template itself.
_MAX_DATA = 1_000_000
#: Relative addresses lead nowhere. This makes them come to the fetcher, which refuses and notes them; without any base
#: a style sheet with one fails.
_NOWHERE = "refused:/"
_SVG = "{http://www.w3.org/2000/svg}svg"
_HEADER_ID = "fieldsync-header"
_HEADER_HEIGHT = 48
#: Content type -> how a file of it begins. Others are programs (SVG, EPS), or need one.
_BEGINNINGS = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
#: The beginning of an address that leads somewhere from anywhere.
_ABSOLUTE = re.compile(r"\s*(#|[a-z][a-z0-9+.-]*:)", re.IGNORECASE)

BASE_STYLE = """
html { font-family: "Liberation Sans", Arial, "Noto Sans", "DejaVu Sans", sans-serif; font-size: 10pt; line-height: 1.4 }
body { margin: 0 }
img, svg { max-width: 100% }
"""
_PAGE_STYLE = """
@page { size: A4 %(orientation)s; margin: %(top)s 15mm 18mm }
"""
_HEADER_STYLE = """
#fieldsync-header { position: running(fieldsync-header) }
@page { @top-left { content: element(fieldsync-header); width: 100%%; height: %(height)dpx; margin: 6mm 0 4mm; vertical-align: middle } }
"""
_FOOTER_STYLE = """
@page {
  @bottom-left { content: "%(title)s"; font-size: 8pt; color: #666 }
  @bottom-right { content: "Page " counter(page) " of " counter(pages); font-size: 8pt; color: #666; white-space: nowrap }
}
"""


class Document(NamedTuple):
    """A report's HTML, parsed, and the style that its pages have unless the template says otherwise."""

    html: HTML
    style: str

    @property
    def root(self) -> Element:
        root: Element = self.html.etree_element
        return root


def compose(template: Template, header: str, body: str, log: Log) -> Document:
    """Header and body as one document. What would put other files into a PDF is taken out of it, and what fails it."""
    html = HTML(string=body)
    root = html.etree_element
    head = child(root, "head", 0)
    has_header = bool(header.strip())
    if has_header:
        top = HTML(string=header).etree_element
        head.extend(child(top, "head", 0))
        content = child(top, "body", 1)
        running = Element("div", id=_HEADER_ID)
        running.text = content.text
        running.extend(content)
        child(root, "body", 1).insert(0, running)
    titles = head.findall("title")
    if template.title:
        for each in titles:
            head.remove(each)
        SubElement(head, "title").text = template.title
    _without_attachments(root, log)
    _mend(root, log)
    title = template.title or ("".join(titles[0].itertext()).strip() if titles else "")
    return Document(html, _style(template, title, has_header))


def print_document(document: Document, files: Mapping[str, str], log: Log) -> tuple[bytes, int]:
    """The PDF, and how many pages it has.

    Raises whatever WeasyPrint does not expect of it.
    """
    fetcher = Fetcher(files, log)
    with _noted(log, fetcher):
        style = CSS(string=BASE_STYLE + document.style, url_fetcher=fetcher)
        html = document.html
        html.base_url = _NOWHERE  # whatever the document says
        html.url_fetcher = fetcher
        # The tree is another one than was parsed.
        html.wrapper_element = type(html.wrapper_element).from_html_root(document.root, content_language=None)
        pages = html.render(font_config=_Fonts(log), stylesheets=[style])
        return pages.write_pdf(), len(pages.pages)


def child(root: Element, tag: str, position: int) -> Element:
    found = root.find(tag)
    if found is None:  # a frame set has no body
        found = Element(tag)
        root.insert(position, found)
    return found


def _style(template: Template, title: str, has_header: bool) -> str:
    height = min(max(template.header_height, 0), 1000)
    top = "15mm"
    if has_header:
        height = height or _HEADER_HEIGHT
        top = f"calc({height}px + 10mm)"
    elif height:
        top = f"{height}px"
    parts = [_PAGE_STYLE % {"orientation": "landscape" if template.is_landscape else "portrait", "top": top}]
    if has_header:
        parts.append(_HEADER_STYLE % {"height": height})
    if not template.hide_footer:
        # Every character that is not a letter or a digit, as CSS writes it.
        escaped = "".join(each if each.isalnum() else f"\\{ord(each):x} " for each in title)
        parts.append(_FOOTER_STYLE % {"title": escaped})
    return "".join(parts)


def _without_attachments(root: Element, log: Log) -> None:
    """Links of the kind ``attachment`` put a file into the PDF."""
    for parent in root.iter():
        for element in list(parent):
            kinds = element.get("rel", "").lower().split()
            if "attachment" in kinds:
                log.note(f"refused: {element.get('href', '')}")
                element.set("rel", " ".join(kind for kind in kinds if kind != "attachment"))


def _mend(root: Element, log: Log) -> None:
    """Take away relative links, which would lead into the folder of whoever has the PDF, and what WeasyPrint expects to
    be numbers."""
    for element in root.iter():
        for name in ("href", "{http://www.w3.org/1999/xlink}href"):
            if (
                isinstance(element.tag, str)
                and element.tag.rpartition("}")[2] in ("a", "area")
                and not _ABSOLUTE.match(element.get(name, "#"))
            ):
                del element.attrib[name]
        if element.tag == _SVG and (box := element.get("viewBox")) is not None and not _is_box(box):
            log.note(f"not understood: viewBox={box!r}")
            del element.attrib["viewBox"]


def _is_box(text: str) -> bool:
    try:
        numbers = [float(each) for each in normalize(text).split()]
    except ValueError:
        return False
    return len(numbers) == 4 and all(map(math.isfinite, numbers))


class Fetcher(URLFetcher):  # type: ignore[misc]
    """All that WeasyPrint can open: the report's pictures, and small ones inside the template."""

    def __init__(self, files: Mapping[str, str], log: Log) -> None:
        # Not the base class's: it would bring handlers for files and the network.
        self._fail_on_errors = False
        self._files = files
        self._log = log
        self.refused: set[str] = set()

    def fetch(self, url: str, headers: object = None) -> URLFetcherResponse:
        scheme, _, rest = url.partition(":")
        content = None
        if scheme.lower() == "att":
            content = self.attachment(rest)
        elif scheme.lower() == "data":
            content = _of_data(rest)
        if content is None:
            self.refused.add(url)
            self._log.note(f"refused: {url}")
            # Nothing, rather than an error: of a colour profile WeasyPrint takes an error for its own.
            content = ("application/octet-stream", b"")
        content_type, body = content
        return URLFetcherResponse(url, body, {"Content-Type": content_type})

    def open(self, *_: object, **__: object) -> URLFetcherResponse:
        raise ValueError("refused")

    def attachment(self, address: str) -> tuple[str, bytes] | None:
        """Content type and bytes of a picture of the job by ``<attachmentId>/<size>``."""
        path = self._files.get(address) or self._files.get(unquote(address))
        if path is None:
            return None
        try:
            return _picture(Path(path).read_bytes())
        except FileNotFoundError:
            return None


def _of_data(rest: str) -> tuple[str, bytes] | None:
    """A picture that stands in the address, after ``data:``."""
    kind, comma, text = rest.partition(",")
    content_type, *parameters = (part.strip().lower() for part in kind.split(";"))
    if not comma or content_type not in _BEGINNINGS or len(text) > 3 * _MAX_DATA:
        return None
    body = unquote_to_bytes(text)
    if "base64" in parameters:
        try:
            body = binascii.a2b_base64(body)
        except binascii.Error:
            return None
    return _picture(body) if len(body) < _MAX_DATA else None


def _picture(body: bytes) -> tuple[str, bytes] | None:
    """The bytes with what they are; None if they are no picture, or one too large to be drawn."""
    for content_type, beginning in _BEGINNINGS.items():
        if beginning.match(body):
            try:
                with Image.open(io.BytesIO(body)) as picture:
                    width, height = picture.size
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                return None
            return (content_type, body) if width * height <= MAX_PIXELS else None
    return None


class _Fonts(FontConfiguration):  # type: ignore[misc]
    """The system's fonts. Those that a template brings are programs of strangers too."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def add_font_face(self, rule_descriptors: Mapping[str, object], url_fetcher: object) -> None:
        self._log.note(f"refused: @font-face {rule_descriptors.get('font_family', '')}")


class _Notes(logging.Handler):
    def __init__(self, log: Log, fetcher: Fetcher) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._fetcher = fetcher

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(".notdef"):  # one for each character
            self._log.note("some characters are in none of the server's fonts")
            return
        about = record.args if isinstance(record.args, tuple) else ()
        if not any(
            each in self._fetcher.refused for each in about if isinstance(each, str)
        ):  # they are noted
            self._log.note(record.getMessage())


@contextmanager
def _noted(log: Log, fetcher: Fetcher) -> Iterator[None]:
    """What WeasyPrint says meanwhile is noted."""
    logger, handler = logging.getLogger("weasyprint"), _Notes(log, fetcher)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
