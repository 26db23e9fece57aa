"""The contents of report templates, as answers and before they are kept: read, and checked in the printer's pool."""

from collections.abc import Callable
from typing import Any, TypeVar

from media.pdf import Template, TemplateProblem, check_template
from media.sandbox import Interrupted, Refused, Sandbox
from server.errors import Problem
from server.reports.loading import Contents, load_contents
from storage.blobs import BlobNotFound, BlobStore
from storage.queries.report_templates import VersionRow

T = TypeVar("T")

CONTENT_TYPE = "text/html"


async def readable(blobs: BlobStore, version: VersionRow) -> Contents:
    """As :func:`load_contents`, for an answer.

    Raises:
        Problem: 404 ``file-not-found``.
    """
    try:
        return await load_contents(blobs, version)
    except BlobNotFound:
        raise Problem(
            404, "file-not-found", "A file of this version is missing in the store of files."
        ) from None


async def check(printing: Sandbox, contents: Contents) -> None:
    """Look whether contents are templates.

    Raises:
        Problem: 422 ``template-syntax`` with ``line`` and ``column``, or ``template-refused``.
    """
    await in_sandbox(printing, check_template, Template(contents.body, contents.header))


async def in_sandbox(printing: Sandbox, function: Callable[..., T], *args: Any) -> T:
    """What ``function`` of the printer answers, or the refusal of the template.

    Raises:
        Problem: 422 ``template-syntax``, ``template-failed`` or ``template-refused``; 503
            ``printing-interrupted``.
    """
    try:
        return await printing.run(function, *args)
    except TemplateProblem as problem:
        raise Problem(
            422,
            "template-failed" if problem.runtime else "template-syntax",
            problem.detail,
            field=problem.part,
            # Plain numbers, whatever kind of them the parser counts with.
            extra={"line": int(problem.line), "column": int(problem.column)},
        ) from None
    except Refused as refused:
        raise Problem(422, "template-refused", f"The template was given up. {refused}") from None
    except Interrupted:
        raise Problem(
            503,
            "printing-interrupted",
            "The printer was interrupted, which is not the template's fault. Try again.",
        ) from None
