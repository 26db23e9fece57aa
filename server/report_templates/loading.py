"""The contents of report templates: files of the blob store, checked before they are kept."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from media.pdf import Template, TemplateProblem, check_template
from media.sandbox import Interrupted, Refused, Sandbox
from server.errors import Problem
from storage.blobs import BlobNotFound, BlobStore
from storage.queries.report_templates import VersionRow

T = TypeVar("T")

CONTENT_TYPE = "text/html"


class Contents(NamedTuple):
    """The two texts of a version."""

    header: str
    body: str


class Options(msgspec.Struct, rename="camel"):
    """``options`` as they are kept and printed (section 9.1); the height of the header in CSS pixels."""

    is_landscape: bool
    title: str
    header_height: int
    hide_footer: bool


def stored_options(version: VersionRow) -> Options:
    """The options of a version."""
    return msgspec.json.decode(version.options, type=Options)


async def load_contents(blobs: BlobStore, version: VersionRow) -> Contents:
    """What the files of a version hold.

    Raises:
        BlobNotFound: a file is missing, which is damage: versions are kept for ever.
    """
    header, body = await asyncio.gather(_text(blobs, version.header_key), _text(blobs, version.body_key))
    return Contents(header, body)


def template_of(contents: Contents, options: Options) -> Template:
    """Contents and options in the printer's form."""
    return Template(
        contents.body,
        contents.header,
        options.title,
        options.is_landscape,
        options.header_height,
        options.hide_footer,
    )


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


async def _text(blobs: BlobStore, key: str) -> str:
    return b"".join([piece async for piece in blobs.get(key)]).decode()
