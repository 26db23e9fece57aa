"""The template that a report is made with."""

import asyncio

import msgspec

from media.pdf import Template
from storage.blobs import BlobStore
from storage.queries.report_templates import VersionRow


class _Options(msgspec.Struct, rename="camel"):
    """``options`` as a version keeps them (section 9.1)."""

    is_landscape: bool = False
    title: str = ""
    header_height: int = 0
    hide_footer: bool = False


async def load_template(blobs: BlobStore, version: VersionRow) -> Template:
    """A version, to be printed.

    Raises:
        BlobNotFound: a file of it is missing, which is damage: versions are kept for ever.
        BlobsUnavailable: the store does not give it now.
    """
    header, body = await asyncio.gather(_text(blobs, version.header_key), _text(blobs, version.body_key))
    options = msgspec.json.decode(version.options, type=_Options)
    return Template(body, header, *msgspec.structs.astuple(options))


async def _text(blobs: BlobStore, key: str) -> str:
    return b"".join([piece async for piece in blobs.get(key)]).decode()
