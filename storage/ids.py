"""Identifiers: 24 hex digits ordered by time where the specification shows them, UUIDs elsewhere."""

import itertools
import secrets
import time

_process = secrets.token_bytes(3)
_counter = itertools.count(secrets.randbelow(1 << 20))


def new_id() -> str:
    """24 hex digits: 48 bits of milliseconds, 24 of a counter, 24 drawn at random for this process.

    Ids made by one process sort in the order of making (to the millisecond across the counter's wrap),
    so that a list "newest first" is a backward scan of the primary key.
    """
    milliseconds = time.time_ns() // 1_000_000
    count = next(_counter) & 0xFFFFFF
    return f"{milliseconds:012x}{count:06x}{_process.hex()}"


MAX_ATTACHMENT_ID = 255


def is_attachment_id(text: str) -> bool:
    """Whether a file can have this id: 1 to 255 printable characters that stand in an address as they are."""
    return 0 < len(text) <= MAX_ATTACHMENT_ID and text.isprintable() and "/" not in text and "\\" not in text


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)
