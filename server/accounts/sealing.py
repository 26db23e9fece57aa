"""Values that travel through a browser and come back unchanged: signed, short-lived, each for one purpose.

What they say can be read by whoever holds them; nothing secret from that person goes in.
"""

import hashlib
import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

#: Longer than any of ours; not worth a look.
_MAX_CHARACTERS = 8_000


class _Sealed(msgspec.Struct, array_like=True):
    until: int
    value: msgspec.Raw


class Seal:
    """Signs with one key of the installation, so that every process of it takes what another one signed."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._key = key
        self._clock = clock

    def close(self, purpose: str, value: msgspec.Struct, seconds: int) -> str:
        """``value`` as text of letters, digits, ``-``, ``_`` and a dot, good for some seconds."""
        body = msgspec.json.encode(
            _Sealed(int(self._clock()) + seconds, msgspec.Raw(msgspec.json.encode(value)))
        )
        return f"{_text(body)}.{_text(self._signature(purpose, body))}"

    def open(self, purpose: str, text: str, shape: type[T]) -> T | None:
        """The value, if it is one of ours, for this purpose, and its time is not over."""
        body, _, signature = text.partition(".")
        if len(text) > _MAX_CHARACTERS:
            return None
        try:
            content = _bytes(body)
            if not hmac.compare_digest(self._signature(purpose, content), _bytes(signature)):
                return None
            sealed = msgspec.json.decode(content, type=_Sealed)
            return msgspec.json.decode(sealed.value, type=shape) if sealed.until > self._clock() else None
        except (NotBase64, ValueError, msgspec.MsgspecError):
            return None

    def _signature(self, purpose: str, body: bytes) -> bytes:
        return hmac.digest(self._key, purpose.encode() + b"\0" + body, hashlib.sha256)


def _text(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
