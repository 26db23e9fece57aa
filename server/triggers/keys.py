"""Temporary query keys (section 3.3.3): a webhook carries one, and its receiver queries with it for an hour.

A key is not stored: it says by itself whose it is and until when, and nobody can make one without the secret.
"""

import hashlib
import hmac
from base64 import b32decode, b32encode
from datetime import UTC, datetime
from typing import NamedTuple

#: How long a key is good, in seconds.
LIFETIME = 3600
#: Tells these keys from every other. Letters and digits only, as all of a key: it stands in an address as it is.
PREFIX = "TMP1"

_SECOND = 1_000_000
_TEAM_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 8, 6, 16
# A multiple of five bytes: then base32 needs no padding, and a key has one spelling only.
_SAID_BYTES = _TEAM_BYTES + _TIME_BYTES
_CHARACTERS = (_SAID_BYTES + _SIGNATURE_BYTES) * 8 // 5


class _Said(NamedTuple):
    """What a genuine key says: ``until`` in seconds since the epoch."""

    team_id: int
    until: int


class QueryKeys:
    """Makes temporary keys and tells whose one is.

    Args:
        secret: of the installation (``shared_secret(connection, "query keys", now)``), so that each process takes
            the keys of all others.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, team_id: int, at: int) -> tuple[str, str]:
        """A key for a team's data and when it ends, as a text. ``at``: the time now, in microseconds."""
        until = at // _SECOND + LIFETIME
        said = team_id.to_bytes(_TEAM_BYTES, "big") + until.to_bytes(_TIME_BYTES, "big")
        value = b32encode(said + self._signature(said)).decode()
        return PREFIX + value, f"{datetime.fromtimestamp(until, UTC):%Y-%m-%dT%H:%M:%SZ}"

    def team_of(self, value: str, at: int) -> int | None:
        """Whose data the key opens at this time; None if it is none of ours, or its hour is over."""
        said = self._said(value)
        return said.team_id if said is not None and at < said.until * _SECOND else None

    def expired(self, value: str, at: int) -> bool:
        """Whether it was a key of ours, and its hour is over."""
        said = self._said(value)
        return said is not None and at >= said.until * _SECOND

    def _said(self, value: str) -> _Said | None:
        """What the key says, if it is genuine."""
        text = value.removeprefix(PREFIX)
        if len(value) != len(PREFIX) + _CHARACTERS or len(text) != _CHARACTERS:
            return None
        try:
            content = b32decode(text)
        except ValueError:  # binascii.Error, and what is not ASCII
            return None
        said, signature = content[:_SAID_BYTES], content[_SAID_BYTES:]
        if not hmac.compare_digest(self._signature(said), signature):
            return None
        return _Said(int.from_bytes(said[:_TEAM_BYTES], "big"), int.from_bytes(said[_TEAM_BYTES:], "big"))

    def _signature(self, said: bytes) -> bytes:
        signed = hmac.digest(self._secret, PREFIX.encode() + b"\0" + said, hashlib.sha256)
        return signed[:_SIGNATURE_BYTES]
