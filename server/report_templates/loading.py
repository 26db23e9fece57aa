"""The contents of report templates, as answers and before they are kept: read, and checked in the printer's pool."""

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from media.pdf import Template, TemplateProblem, check_template
from media.sandbox import Interrupted, Refused, Sandbox
from server.errors import Problem
from server.report_templates.slots import Lines
from server.reports.loading import Contents, load_contents
from storage.blobs import BlobNotFound, BlobStore
from storage.queries.report_templates import VersionRow

T = TypeVar("T")
log = logging.getLogger("fieldsync.reports")

CONTENT_TYPE = "text/html"
_lines = Lines()


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


async def check(printing: Sandbox, team_id: int, contents: Contents) -> None:
    """Look whether contents are templates. A team's third check waits for one of the two before it.

    Raises:
        Problem: 422 ``template-syntax`` with ``line`` and ``column``, or ``template-refused``.
    """
    async with _lines.place(team_id):
        await in_sandbox(printing, check_template, Template(contents.body, contents.header))


async def in_sandbox(printing: Sandbox, function: Callable[..., T], *args: Any) -> T:
    """What ``function`` of the printer answers, or the refusal of the template.

    Raises:
        Problem: 422 ``template-syntax``, ``template-failed`` or ``template-refused``; 503
            ``printing-interrupted`` or ``printing-unavailable``.
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
    except (OSError, ImportError) as error:
        log.error("nothing can be printed: %s", error)
        raise Problem(
            503,
            "printing-unavailable",
            "The printer's libraries are missing on this server; `fieldsync doctor` says which.",
        ) from None
