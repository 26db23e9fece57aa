"""Secrets that webhooks are signed with, as they come and go (column ``triggers.secrets``)."""

import base64
import binascii
import os

import msgspec

from server import bodies

#: How long old secrets sign beside a new one, in seconds: unless told otherwise, and at most.
KEEP_SECONDS = 24 * 3600
MAX_KEEP_SECONDS = 7 * KEEP_SECONDS

PREFIX = "whsec_"
#: Standard Webhooks 1.0.0 asks for 24 to 64 bytes.
_MIN_BYTES, _MAX_BYTES, _BYTES = 24, 64, 32
#: The one in use and those beside it: each adds a signature to every webhook.
_MAX_SECRETS = 5


class Secret(msgspec.Struct, frozen=True):
    """A secret of a trigger; ``until``: when it stops signing, in microseconds; None: it is in use."""

    secret: str
    until: int | None = None


_stored = msgspec.json.Decoder(list[Secret])


def new_secret() -> str:
    """A secret of 256 random bits."""
    return PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def checked_secret(value: str, field: str) -> str:
    """A secret that somebody chose.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    value = value.strip()
    try:
        key = base64.b64decode(value.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not value.startswith(PREFIX) or not _MIN_BYTES <= len(key) <= _MAX_BYTES:
        raise bodies.invalid(
            field, f"{field} must be {PREFIX} and the base64 of {_MIN_BYTES} to {_MAX_BYTES} bytes."
        )
    return value


def secret_in_use(stored: bytes | None) -> str | None:
    """The one that was made or sent last; None for a trigger that has none."""
    return _stored.decode(stored)[0].secret if stored else None


def rotated(stored: bytes | None, secret: str, at: int, until: int) -> bytes:
    """``secret`` in use; those before it sign beside it until they end, at ``until`` (microseconds) the latest."""
    old = _stored.decode(stored) if stored else []
    ends = [(each.secret, until if each.until is None else min(each.until, until)) for each in old]
    beside = [Secret(each, end) for each, end in ends if each != secret and end > at]
    return msgspec.json.encode([Secret(secret), *beside][:_MAX_SECRETS])
