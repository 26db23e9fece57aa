"""The issuer's signing keys: RS256, kept in the database so that every process signs and verifies alike."""

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from server.clock import now
from storage.database import Connection, Contended, Database
from storage.queries import tokens

_KEY_BITS = 2048
#: A flood of tokens with invented key ids must not become a flood of queries.
_RELOAD_SECONDS = 3.0


class SigningKeys:
    """Every key of the installation, the newest for signing and all of them for verifying."""

    def __init__(self, database: Database, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._monotonic = monotonic
        self._public: dict[str, RSAPublicKey] = {}
        self._signing: tuple[str, RSAPrivateKey] | None = None
        self._reloading = asyncio.Lock()
        self._reloaded_at = float("-inf")

    async def start(self) -> None:
        """Load the keys; make the first one if there is none.

        Processes that start together may each make one. All of them stay valid, and each process reads
        again after writing.
        """
        await self._load()
        if self._signing is None:
            private = await asyncio.to_thread(generate_private_key, public_exponent=65537, key_size=_KEY_BITS)
            pem = private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            # Contended: another process was first; its key is read now.
            with suppress(Contended):
                await self._database.write(_insert_first_key, thumbprint(private.public_key()), pem, now())
            await self._load()

    @property
    def signing(self) -> tuple[str, RSAPrivateKey]:
        """The id and the key to sign with."""
        if self._signing is None:
            raise RuntimeError("the signing keys were not loaded: start() comes first")
        return self._signing

    async def public_key(self, kid: str) -> RSAPublicKey | None:
        """The key called ``kid``, also when another process has made it a moment ago."""
        key = self._public.get(kid)
        if key is not None:
            return key
        async with self._reloading:
            if kid not in self._public and self._monotonic() - self._reloaded_at >= _RELOAD_SECONDS:
                await self._load()
                self._reloaded_at = self._monotonic()
        return self._public.get(kid)

    def jwks(self) -> list[dict[str, Any]]:
        """The public keys as JSON Web Keys (RFC 7517)."""
        return [{**_jwk(key), "kid": kid, "use": "sig", "alg": "RS256"} for kid, key in self._public.items()]

    async def _load(self) -> None:
        rows = await self._database.read(tokens.all_signing_keys)
        public: dict[str, RSAPublicKey] = {}
        signing: tuple[str, RSAPrivateKey] | None = None
        for row in rows:
            private = serialization.load_pem_private_key(row.private_pem, password=None)
            if not isinstance(private, RSAPrivateKey):
                raise TypeError(f"signing key {row.kid} is not an RSA key")
            public[row.kid] = private.public_key()
            signing = signing or (row.kid, private)
        self._public, self._signing = public, signing


def thumbprint(key: RSAPublicKey) -> str:
    """The key's JWK thumbprint (RFC 7638, section 3), used as its id."""
    jwk = _jwk(key)
    # Members in lexicographic order, no blanks: section 3.3.
    canonical = msgspec.json.encode({"e": jwk["e"], "kty": jwk["kty"], "n": jwk["n"]})
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def _jwk(key: RSAPublicKey) -> dict[str, Any]:
    jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in ("kty", "n", "e")}


def _insert_first_key(connection: Connection, kid: str, pem: bytes, created_at: int) -> None:
    if not tokens.all_signing_keys(connection):
        tokens.insert_signing_key(connection, kid, pem, created_at)
