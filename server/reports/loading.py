"""The contents of templates: files of the blob store, and what is printed with them."""

import asyncio
from typing import NamedTuple

import msgspec

from media.pdf import Template
from storage.blobs import BlobStore
from storage.queries.report_templates import VersionRow


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
        BlobsUnavailable: the store does not give it now.
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


async def load_template(blobs: BlobStore, version: VersionRow) -> Template:
    """A version, to be printed; raises as :func:`load_contents`."""
    return template_of(await load_contents(blobs, version), stored_options(version))


async def _text(blobs: BlobStore, key: str) -> str:
    return b"".join([piece async for piece in blobs.get(key)]).decode()
