"""Signatures of webhooks: Standard Webhooks 1.0.0, symmetric.

A receiver checks them with any of that standard's libraries, or by itself: HMAC-SHA256 with the secret, over the
id, the time and the body as they came.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

import msgspec

from server.triggers.secrets import PREFIX, Secret


def live_secrets(stored: bytes | None, at: int) -> list[str]:
    """Those of a trigger's secrets (column ``secrets``) that sign at ``at``, the current one first."""
    known = msgspec.json.decode(stored, type=list[Secret]) if stored else []
    return [each.secret for each in known if each.until is None or each.until > at]


def signed(secrets: Sequence[str], message_id: str, seconds: int, body: bytes) -> dict[str, str]:
    """The headers that say who sent ``body`` when: a signature for each of the secrets, divided by blanks."""
    content = f"{message_id}.{seconds}.".encode() + body
    signatures = [f"v1,{_signature(secret, content)}" for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
