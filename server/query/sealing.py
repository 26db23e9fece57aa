"""Query keys of teams: how they look, and how they are kept.

A request's key is found by its SHA-256, for which no secret is needed. The key itself is kept encrypted, because
administrators may see it again.
"""

import hashlib
import re
import secrets
from base64 import b32encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.clock import now
from server.settings import Settings
from server.triggers.keys import QueryKeys
from storage.database import Database
from storage.queries.secrets import shared_secret

#: Tells these keys from temporary ones. Letters and digits only, as all of a key: it stands in an address as it is.
PREFIX = "QK1"

_KEY_BYTES = 32
_KEY = re.compile(PREFIX + "[A-Z2-7]{52}")
_PURPOSE = "query key sealing"
_SECRET_BYTES = 32
_NONCE_BYTES = 12


def new_key() -> str:
    """A key of 256 random bits."""
    return PREFIX + b32encode(secrets.token_bytes(_KEY_BYTES)).decode().rstrip("=")


def is_key(text: str) -> bool:
    """Whether a text looks like a team's key; one that does not is none."""
    return _KEY.fullmatch(text) is not None


def hash_of(key: str) -> bytes:
    """What a key is found by. Without salt or work: nobody guesses 256 random bits."""
    return hashlib.sha256(key.encode()).digest()


class KeySeal:
    """Encrypts keys for the database (AES-256-GCM). Each is bound to its team and slot: copied to another row, it
    cannot be read.

    Args:
        secret: 32 bytes, the same in every process.
    """

    def __init__(self, secret: bytes) -> None:
        self._cipher = AESGCM(secret)

    def close(self, key: str, team_id: int, slot: str) -> bytes:
        """``key`` as it is kept."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, key.encode(), _place(team_id, slot))

    def open(self, sealed: bytes, team_id: int, slot: str) -> str | None:
        """The key; None if it was encrypted with another secret, or for another team or slot."""
        nonce, content = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, content, _place(team_id, slot)).decode()
        except (InvalidTag, ValueError):  # ValueError: too short to be anything
            return None


class QuerySecrets:
    """The secrets of queries in one process, each read when it is first needed."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._temporary: QueryKeys | None = None
        self._seal: KeySeal | None = None

    async def temporary(self) -> QueryKeys:
        """Tells whose a temporary key is."""
        if self._temporary is None:
            self._temporary = QueryKeys(await self._database.settle(shared_secret, "query keys", now()))
        return self._temporary

    async def seal(self) -> KeySeal:
        """Encrypts keys: with the secret of the settings, if there is one."""
        if self._seal is None:
            chosen = self._settings.secret_key
            self._seal = KeySeal(
                _derived(chosen) if chosen else await self._database.settle(shared_secret, _PURPOSE, now())
            )
        return self._seal


def _derived(secret_key: str) -> bytes:
    """The secret of this purpose: others may be derived from the same setting."""
    derivation = HKDF(SHA256(), _SECRET_BYTES, salt=None, info=_PURPOSE.encode())
    # Variables of the environment may hold bytes that are no UTF-8.
    return derivation.derive(secret_key.encode("utf-8", "surrogateescape"))


def _place(team_id: int, slot: str) -> bytes:
    return f"{team_id} {slot}".encode()
