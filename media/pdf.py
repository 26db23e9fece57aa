"""Reports: a template and plain values in, HTML and a PDF out.

The functions here run in the limited pool (:mod:`media.sandbox`): templates are programs of strangers. Jinja2 and
WeasyPrint are loaded there, not in the server, where they would take 60 MB for nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from media.formats import Refused

__all__ = ["Printed", "Template", "TemplateProblem", "check_template", "clean", "print_report", "warm_up"]


def clean(text: str) -> str:
    """A text of a template as a database and a file can hold it: without halves of letters and NULs."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class Template(NamedTuple):
    """What a report is made of.

    ``body`` and ``header`` are HTML in Jinja2's syntax, documents or fragments; the header is repeated on every
    page. ``title``: of the PDF, shown in the footer too; without it the document's own. ``header_height``: CSS
    pixels; 0: as much as most headers take. ``hide_footer``: neither title nor page numbers.
    """

    body: str
    header: str = ""
    title: str = ""
    is_landscape: bool = False
    header_height: int = 0
    hide_footer: bool = False


class TemplateProblem(Exception):
    """The template is wrong.

    Args:
        part: ``headerContent`` or ``bodyContent``.
        detail: what is wrong, for people.
        line, column: where, from 1, inside that part. Of an error at runtime the column is not known (1), and
            the line only if the template's own text raised it (else 1).
        runtime: it was only seen with these values.
    """

    def __init__(self, part: str, detail: str, line: int, column: int, runtime: bool = False) -> None:
        detail = clean(detail)
        # As they are: it comes back from another process.
        super().__init__(part, detail, line, column, runtime)
        self.part = part
        self.detail = detail
        self.line = line
        self.column = column
        self.runtime = runtime

    def __str__(self) -> str:
        return f"{self.part}, line {self.line}, column {self.column}: {self.detail}"


class Printed(NamedTuple):
    """A report.

    ``html``: the whole document as a browser shows it alone, its pictures inside, in UTF-8; empty unless it was asked
    for. ``pdf``, ``pages``: empty and 0 if none was asked for. ``log``: what the template's author should know:
    names without a value, addresses that were refused, styles that were not understood; each once, at most 50.
    """

    html: bytes
    pdf: bytes
    pages: int
    log: tuple[str, ...]


def check_template(template: Template) -> None:
    """Read a template without running it. Unknown filters and tests are found, names without a value are not.

    Raises:
        TemplateProblem: it cannot be read.
    """
    from media.report_text import check

    check(template.header, "headerContent")
    check(template.body, "bodyContent")


def print_report(
    template: Template,
    context: Mapping[str, object],
    files: Mapping[str, str],
    as_pdf: bool = True,
    with_html: bool = False,
    most_bytes: int | None = None,
) -> Printed:
    """Fill in a template and print it, or with ``as_pdf=False`` make the HTML that would be printed.

    Args:
        context: plain values (dictionaries, lists, texts, numbers) by the names that templates know them by.
        files: paths of the pictures by ``<attachmentId>/<size>``; a template says ``att:<attachmentId>/<size>``.
            Nothing else is read but fonts of the system, and nothing is asked of the network.
        with_html: the HTML beside the PDF.
        most_bytes: of the PDF.

    Raises:
        TemplateProblem: the template is wrong, or fails with these values.
        Refused: the report is too large or too deeply nested.
        OSError, ImportError: a library that WeasyPrint needs is not installed.
    """
    from media import report_html, report_pages
    from media.report_text import Log, fill

    log = Log()
    header = fill(template.header, "headerContent", context, log)
    body = fill(template.body, "bodyContent", context, log)
    try:
        document = report_pages.compose(template, header, body, log)
        pdf, pages = report_pages.print_document(document, files, log) if as_pdf else (b"", 0)
        if most_bytes is not None and len(pdf) > most_bytes:
            raise Refused(f"The PDF has more than {most_bytes // 1_000_000} MB.")
        # Last: it changes the document.
        html = report_html.standalone(document, files, log) if with_html or not as_pdf else b""
    except (Refused, MemoryError):
        raise
    except RecursionError:
        raise Refused("The report's elements are nested too deeply.") from None
    except Exception as error:  # HTML and CSS of a stranger find what nobody expects
        raise Refused(
            "The report cannot be laid out. Something in its HTML, its CSS or a drawing (<svg>) is not understood: "
            + clean(f"{type(error).__name__}: {str(error)[:200]}")
        ) from error
    return Printed(html, pdf, pages, log.notes)


def warm_up() -> None:
    """Load what printing needs, so that the first report does not wait for it."""
    print_report(Template("<p>{{ 1 }}</p>"), {}, {})
