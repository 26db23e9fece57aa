"""Values of scopes: when two are equal, how one is named by a digest, and what a time means.

Two values are equal if their parsed JSON is: key order ignored, null members dropped, numbers compared
as doubles, known time keys as instants. Stored bytes always stay as they were sent.
"""

import hashlib
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
import simdjson

#: Members whose strings are times: the specification's, at any level.
TIME_KEYS = frozenset({"created", "updated", "modified", "started", "completed", "cancelled"})
#: A member whose own keys are times.
TIMED_EVENTS = "timeEvents"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_plain = msgspec.json.Decoder()
_canonical_encoder = msgspec.json.Encoder(order="sorted")
#: Microseconds of the first and the last moment that has a name.
_FIRST = -62_135_596_800_000_000
_LAST = 253_402_300_799_999_999


@lru_cache(maxsize=4096)
def parse_time(text: str) -> int | None:
    """Microseconds since the epoch, or None if ``text`` is no time. Without a zone it is UTC.

    Accepts ISO 8601 and, as some clients of the primary specification write, slashes in the date.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if "/" not in text[:10]:
            return None
        try:
            moment = datetime.fromisoformat(text[:10].replace("/", "-") + text[10:])
        except ValueError:
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def format_time(microseconds: int) -> str:
    """RFC 3339 in UTC with milliseconds, as in ``2021-10-01T12:48:13.824Z``.

    What lies beyond the years 1 to 9999, as a time of a device may when its zone or its error is taken off, is shown
    as the end of them.
    """
    microseconds = min(max(microseconds, _FIRST), _LAST)
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_whole_second(seconds)}.{fraction // 1000:03d}Z"


@lru_cache(maxsize=64)
def _whole_second(seconds: int) -> str:
    # Not strftime: its %Y has no leading zeros.
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def equal(phase: int, value: bytes, other_phase: int, other: bytes) -> bool:
    """Whether two (phase, value) pairs say the same."""
    return phase == other_phase and (value == other or digest(phase, value) == digest(phase, other))


@lru_cache(maxsize=2048)
def digest(phase: int, value: bytes) -> bytes:
    """12 bytes that are the same exactly for equal (phase, value) pairs."""
    hasher = hashlib.blake2b(digest_size=12)
    hasher.update(b"%d" % phase)
    hasher.update(_canonical_encoder.encode(_normal_of(value)))
    return hasher.digest()


def body_hash(body: bytes, envelope: bytes | None) -> bytes:
    """16 bytes naming a body as it is spelled, less its ``sync``.

    The envelope is renewed at every attempt; the rest of a retry is the same bytes. Where the same content
    comes spelled otherwise, :func:`same_document` tells.
    """
    if envelope is not None:
        body = body.replace(envelope, b"", 1)
    # Over 2 KB at a time hashlib would give the interpreter's lock away, and wait to get it back.
    hasher = hashlib.sha256(body[:_UNLOCKED])
    for start in range(_UNLOCKED, len(body), _UNLOCKED):
        hasher.update(body[start : start + _UNLOCKED])
    return hasher.digest()[:16]


_UNLOCKED = 2047


def same_document(body: bytes, other: bytes) -> bool:
    """Whether two bodies are one document: canonical JSON (sorted keys, 1.0 and 1 one number) less ``sync``."""
    return body == other or _canonical(body) == _canonical(other)


def _canonical(body: bytes) -> bytes:
    document = _canonical_decoder.decode(body)
    document.pop("sync", None)
    return _canonical_encoder.encode(document)


def _canonical_number(text: str) -> float | int:
    number = float(text)
    # 1.0 and 1 are one number to every JSON library that re-serialises a body.
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


_canonical_decoder = msgspec.json.Decoder(float_hook=_canonical_number)


MAX_DEPTH = 100
_JSON_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NOT_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))


_quick = simdjson.Parser()
_INNERMOST = re.compile(rb"\[\]|\{\}")
TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


class TooDeep(ValueError):
    """JSON nested more than MAX_DEPTH levels deep."""


def check_values(body: bytes) -> None:
    """Check what a raw slice would hide until it is read: UTF-8, escapes, the range of numbers.

    Raises:
        TooDeep: nested so deeply that reading it would fail.
        msgspec.DecodeError, UnicodeDecodeError: it is no JSON that can be kept.
    """
    try:
        # Five times as fast as making objects of it. It refuses some that may pass (integers beyond 64
        # bits) and takes none that may not, but for a byte order mark, over which slicing stumbles.
        _quick.parse(body)
    except (ValueError, RuntimeError):  # refused, or in use by another thread
        try:
            _plain.decode(body)
        except RecursionError:  # unbalanced and deep
            raise TooDeep(TOO_DEEP) from None


def check_depth(value: bytes, levels: int) -> None:
    """Check that nothing recursive will stumble over ``value``, which stands ``levels`` deep in a body.

    Raises:
        TooDeep: the body is nested more than MAX_DEPTH levels deep.
    """
    left = MAX_DEPTH - levels
    if len(value.translate(None, _NOT_BRACKETS)) <= 2 * left:  # so few cannot be deep
        return
    brackets = _JSON_STRING.sub(b"", value).translate(None, _NOT_BRACKETS)
    for _ in range(left):
        brackets = _INNERMOST.sub(b"", brackets)
        if not brackets:
            return
    raise TooDeep(TOO_DEEP)


def decode(value: bytes) -> Any:
    """Decode a stored value."""
    return _plain.decode(value)


def _normal_of(value: bytes) -> Any:
    return _normal(_plain.decode(value), "")


def _normal(value: Any, key: str) -> Any:
    if isinstance(value, str):
        if key in TIME_KEYS:
            instant = parse_time(value)
            if instant is not None:
                return f"\0{instant}"
        return value
    if isinstance(value, dict):
        if key == TIMED_EVENTS:
            return {_normal_time(name): _normal(item, "") for name, item in value.items() if item is not None}
        return {name: _normal(item, name) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_normal(item, "") for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return str(value)
    # Python holds that True == 1.0; JSON does not.
    if isinstance(value, bool):
        return "\0true" if value else "\0false"
    return value


def _normal_time(name: str) -> str:
    instant = parse_time(name)
    return name if instant is None else f"\0{instant}"
