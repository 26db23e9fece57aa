"""A web address asked as a client asks it."""

import asyncio
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import httpx

_SECONDS = 8.0


class Unreachable(Exception):
    """Nobody answered; the text says why. ``refused``: nothing listens there. ``untrusted``: its certificate."""

    def __init__(self, detail: str, *, refused: bool = False, untrusted: bool = False) -> None:
        super().__init__(detail)
        self.refused = refused
        self.untrusted = untrusted


class Answer(NamedTuple):
    """What came back; ``date``: the server's clock, seconds since the epoch."""

    status: int
    content: bytes
    date: float | None


async def ask(url: str) -> Answer:
    """GET ``url``, with the authorities this machine trusts and its proxies.

    Raises:
        Unreachable: no answer.
    """
    trusted = await asyncio.to_thread(ssl.create_default_context)
    try:
        async with httpx.AsyncClient(verify=trusted, timeout=_SECONDS) as client:
            answer = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The text may quote the address, and an address may be a secret.
        text = str(error)
        untrusted = "certificate" in text.lower()
        if untrusted:
            reason = "its certificate is not trusted here"
        elif "refused" in text or "attempts failed" in text:
            reason = "nothing listens there"
        elif "known" in text or "resolution" in text:
            reason = "its name does not resolve"
        else:
            reason = f"no answer ({type(error).__name__})"
        raise Unreachable(reason, refused="listens" in reason, untrusted=untrusted) from None
    return Answer(answer.status_code, answer.content, _seconds(answer.headers.get("date")))


def _seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp() if date else None
    except ValueError:
        return None
