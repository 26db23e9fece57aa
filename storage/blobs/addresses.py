"""Signed addresses of files in a folder: what a token allows, and nobody but us can make.

A token is ``<what it allows>.<HMAC-SHA256 of that>``, both base64url. The signature is over the text, and
compared as text, so that no second spelling of a token is accepted.
"""

import base64
import binascii
import hashlib
import hmac
from typing import Literal
from urllib.parse import quote

import msgspec

# The secret may sign other things one day; what is signed here is of no use there.
_PURPOSE = b"fieldsync files v1\0"
_UNRESERVED = "!#$&+.^_`|~-"  # RFC 8187: attr-char beside letters and digits


class AddressInvalid(Exception):
    """Not a token of ours, or not for this."""


class AddressExpired(Exception):
    """A token of ours whose time is over."""


class Address(msgspec.Struct, frozen=True, array_like=True):
    """What a signed address allows: reading one file, or storing one of exactly this type and size.

    ``expires_at`` is in seconds since the epoch. ``size`` is for PUT alone, ``file_name`` and ``inline``
    are for GET.
    """

    method: Literal["GET", "PUT"]
    key: str
    expires_at: int
    content_type: str
    size: int = 0
    file_name: str = ""
    inline: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Address)


def sign(address: Address, secret: bytes) -> str:
    """The token for ``address``."""
    payload = _text(_encoder.encode(address))
    return f"{payload}.{_signature(payload, secret)}"


def read(token: str, secret: bytes, now: float) -> Address:
    """What ``token`` allows at ``now`` (seconds since the epoch).

    Raises:
        AddressInvalid: we did not make it.
        AddressExpired: its time is over.
    """
    payload, _, signature = token.partition(".")
    expected = _signature(payload, secret)
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        raise AddressInvalid
    try:
        address = _decoder.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, binascii.Error):
        # Signed by us, and of another version.
        raise AddressInvalid from None
    if address.expires_at <= now:
        raise AddressExpired
    return address


def content_disposition(file_name: str, inline: bool) -> str:
    """The Content-Disposition header for a file of this name, whatever is in it (RFC 6266, RFC 8187)."""
    # A lone surrogate, which JSON can bring, has no UTF-8.
    name = quote(file_name.encode("utf-8", "replace"), safe=_UNRESERVED)
    return f"{'inline' if inline else 'attachment'}; filename*=UTF-8''{name}"


def _signature(payload: str, secret: bytes) -> str:
    message = _PURPOSE + payload.encode("utf-8", "replace")
    return _text(hmac.digest(secret, message, hashlib.sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
