"""``triggerOptions``: to whom a mail goes, or where a webhook goes and with what."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from server import bodies
from server.triggers.secrets import checked_secret
from server.workflows.intake import Truth, truth

MAX_RECIPIENTS = 50
MAX_URL = 2_000
MAX_HEADERS = 20
MAX_HEADER_VALUE = 1_000
#: Stands for the value of a header in answers; sent back, it keeps the value.
MASK = "***"

_SEPARATOR = re.compile("[,;]")
#: RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VISIBLE = re.compile(r"[ -~]*")
#: Headers that the connection, the body and the signature decide about.
_OURS = frozenset(
    [
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "user-agent",
    ]
)
_OUR_PREFIX = "webhook-"


class Options(msgspec.Struct, rename="camel"):
    """The options of both types of triggers. What is null was not sent; those of the other type are passed over."""

    recipients: str | None = None
    send_copy_to_user: Truth | None = None
    url: str | None = None
    headers: dict[str, str] | None = None
    secret: str | None = None
    on_update: Truth | None = None


def checked(asked: Options) -> Options:
    """``asked``, each member right for itself. Where ``url`` leads is not looked at here.

    Raises:
        Problem: 422 ``invalid-body``.
    """
    if asked.recipients is not None:
        asked.recipients = _recipients(asked.recipients)
    if asked.url is not None:
        asked.url = asked.url.strip()
        if len(asked.url) > MAX_URL or not asked.url.isprintable():
            raise bodies.invalid(
                "triggerOptions.url", f"url has at most {MAX_URL:,} characters, all of them printable."
            )
    if asked.headers is not None:
        asked.headers = _headers(asked.headers)
    if asked.secret is not None:
        asked.secret = checked_secret(asked.secret, "triggerOptions.secret")
    return asked


def email(kept: Mapping[str, Any], asked: Options) -> dict[str, Any]:
    """What is stored of a mail: ``recipients``, a text, and ``sendCopyToUser``, a boolean, if they were said."""
    result = {
        "recipients": kept.get("recipients") if asked.recipients is None else asked.recipients,
        "sendCopyToUser": _flag(kept.get("sendCopyToUser"), asked.send_copy_to_user),
    }
    return {name: value for name, value in result.items() if value is not None}


def http(kept: Mapping[str, Any], asked: Options) -> dict[str, Any]:
    """What is stored of a webhook: ``url``, ``headers``, and ``onUpdate``, a boolean, if they were said.

    Raises:
        Problem: 422 ``invalid-body`` for a masked value of a header that is not kept, or of another receiver.
    """
    before, after = kept.get("url"), asked.url
    moved = bool(before and after) and _origin(str(before)) != _origin(str(after))
    if moved and kept.get("headers") and (asked.headers is None or MASK in asked.headers.values()):
        # Nobody can read these values. Nobody gets them by sending them to a server of their own either.
        raise bodies.invalid(
            "triggerOptions.headers",
            "Another receiver gets its own headers: send all of them with their values.",
        )
    result = {
        "url": kept.get("url") if asked.url is None else asked.url or None,
        "headers": _unmasked(kept.get("headers"), asked.headers),
        "onUpdate": _flag(kept.get("onUpdate"), asked.on_update),
    }
    return {name: value for name, value in result.items() if value is not None}


def shown(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are answered: ``sendCopyToUser`` is a text, as the document prints it, values of headers
    are not shown.
    """
    result = dict(stored)
    if "sendCopyToUser" in result:
        result["sendCopyToUser"] = "true" if result["sendCopyToUser"] else "false"
    if "headers" in result:
        result["headers"] = dict.fromkeys(result["headers"], MASK)
    return result


def _origin(url: str) -> tuple[str, str]:
    """Scheme and authority: who gets what is sent there."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _flag(kept: bool | None, asked: Truth | None) -> bool | None:
    return kept if asked is None else truth(asked)


def _recipients(text: str) -> str:
    """Addresses that are separated by ``,`` or ``;``, each once, separated by ``; ``."""
    field = "triggerOptions.recipients"
    if not text.isprintable():
        raise bodies.invalid(field, "recipients must not hold line breaks or other control characters.")
    addresses: dict[str, str] = {}
    for part in _SEPARATOR.split(text):
        if part.strip():
            address = bodies.email(part, field)
            # Also what a header of a mail would read otherwise.
            if any(char in '<>()[]:\\"' for char in address) or address.count("@") != 1:
                raise bodies.invalid(field, f"{address} is no e-mail address. Send addresses without names.")
            addresses.setdefault(address.lower(), address)
    if len(addresses) > MAX_RECIPIENTS:
        raise bodies.invalid(field, f"A trigger has at most {MAX_RECIPIENTS} recipients.")
    return "; ".join(addresses.values())


def _headers(asked: Mapping[str, str]) -> dict[str, str]:
    field = "triggerOptions.headers"
    if len(asked) > MAX_HEADERS:
        raise bodies.invalid(field, f"A trigger has at most {MAX_HEADERS} headers.")
    known: set[str] = set()
    result: dict[str, str] = {}
    for name, value in asked.items():
        lower, value = name.lower(), value.strip(" \t")
        if not _TOKEN.fullmatch(name):
            raise bodies.invalid(field, "A header's name has letters, digits and - only, at most 100.")
        if lower in _OURS or lower.startswith(_OUR_PREFIX):
            raise bodies.invalid(field, f"The header {name} is ours to set.")
        if lower in known:
            raise bodies.invalid(field, f"The header {name} is there twice.")
        if len(value) > MAX_HEADER_VALUE or not _VISIBLE.fullmatch(value):
            raise bodies.invalid(
                field,
                f"The value of {name} must have at most {MAX_HEADER_VALUE:,} characters, printable ASCII only.",
            )
        known.add(lower)
        result[name] = value
    return result


def _unmasked(kept: Mapping[str, str] | None, asked: Mapping[str, str] | None) -> dict[str, str] | None:
    """The headers asked for; a masked value stands for the one that is kept."""
    if asked is None:
        return dict(kept) if kept is not None else None
    known = {name.lower(): value for name, value in (kept or {}).items()}
    result = {}
    for name, value in asked.items():
        if value == MASK and name.lower() not in known:
            raise bodies.invalid(
                "triggerOptions.headers", f"{MASK} keeps a value, and there is none of the header {name}."
            )
        result[name] = known[name.lower()] if value == MASK else value
    return result
