"""The OpenID Connect provider of the settings: where to send people, and what it says of them.

OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3, and Discovery 1.0, section 4.
"""

import asyncio
import hmac
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

import jwt
import msgspec

from server.auth.grants import pkce_challenge
from server.settings import Settings
from storage.ids import new_secret

TIMEOUT_SECONDS = 10.0
_KEPT_SECONDS = 3600.0
#: Clocks of two servers differ a little.
_LEEWAY_SECONDS = 60
#: Signed with a key that only the provider has. Neither none nor a signature with the shared secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_REQUIRED = ["iss", "sub", "aud", "exp", "iat", "nonce"]


class ProviderDown(Exception):
    """The provider does not answer."""


class ProviderWrong(Exception):
    """The provider's answer cannot be used. The message is for the log and holds nothing secret."""


class Metadata(msgspec.Struct):
    """What we need of the provider's description of itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Identity(NamedTuple):
    """Who somebody is at the provider. ``email`` only if the provider has verified it."""

    subject: str
    email: str | None


class Journey(NamedTuple):
    """What a visit to the provider begins with: where to, and what must come back."""

    address: str
    state: str
    nonce: str
    verifier: str


class Provider:
    """One provider, its description and keys remembered for an hour."""

    def __init__(self, settings: Settings, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._client_secret = settings.oidc_client_secret
        self._monotonic = monotonic
        self._metadata: tuple[float, Metadata] | None = None
        self._keys: tuple[float, dict[str | None, jwt.PyJWK]] | None = None
        self._tls: ssl.SSLContext | None = None

    async def begin(self, redirect_uri: str) -> Journey:
        """Where to send somebody who wants to sign in there.

        Raises:
            ProviderDown, ProviderWrong: nowhere.
        """
        metadata = await self._described()
        state, nonce, verifier = new_secret(), new_secret(), new_secret()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._client_id,
                "redirect_uri": redirect_uri,
                "scope": "openid email",
                "state": state,
                "nonce": nonce,
                "code_challenge": pkce_challenge(verifier),
                "code_challenge_method": "S256",
            }
        )
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return Journey(f"{metadata.authorization_endpoint}{joint}{query}", state, nonce, verifier)

    async def identify(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> Identity:
        """Who came back with ``code``.

        Raises:
            ProviderDown: it does not answer.
            ProviderWrong: what it answers is not good enough to let anybody in.
        """
        metadata = await self._described()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        headers = {}
        if not self._client_secret:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        answer = await self._ask("POST", metadata.token_endpoint, data=form, headers=headers)
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise ProviderWrong("the token answer has no id_token")
        claims = await self._verified(metadata, id_token, nonce)
        if "email" not in claims and metadata.userinfo_endpoint is not None:
            access_token = {"Authorization": f"Bearer {answer.get('access_token')}"}
            info = await self._ask("GET", metadata.userinfo_endpoint, headers=access_token)
            # Core 5.3.2: only what it says of the same person.
            if info.get("sub") == claims["sub"]:
                claims = {**info, **claims}
        email = claims.get("email") if claims.get("email_verified") is True else None
        return Identity(f"{self.issuer} {claims['sub']}", email if isinstance(email, str) else None)

    async def _verified(self, metadata: Metadata, id_token: str, nonce: str) -> dict[str, Any]:
        """The claims of an id token, after Core 3.1.3.7."""
        try:
            key = await self._key(metadata, jwt.get_unverified_header(id_token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                id_token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._client_id,
                issuer=self.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": _REQUIRED},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise ProviderWrong(f"the id token is refused: {type(error).__name__}") from None
        if not isinstance(claims["nonce"], str) or not hmac.compare_digest(
            claims["nonce"].encode(), nonce.encode()
        ):
            raise ProviderWrong("the id token is not for this sign-in: another nonce")
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self._client_id:
            raise ProviderWrong("the id token was issued to another client")
        subject = claims["sub"]
        if not 0 < len(subject) <= 255 or not subject.isprintable():
            raise ProviderWrong("the subject of the id token is none")
        return claims

    async def _key(self, metadata: Metadata, kid: object) -> jwt.PyJWK:
        """The key called ``kid``; one we do not know may have been made since we last asked."""
        wanted = kid if isinstance(kid, str) else None
        for fresh in (False, True):
            if fresh or self._keys is None or self._keys[0] < self._monotonic():
                self._keys = self._monotonic() + _KEPT_SECONDS, await self._fetched_keys(metadata)
            known = self._keys[1]
            if wanted in known:
                return known[wanted]
            if wanted is None and len(known) == 1:
                return next(iter(known.values()))
        raise ProviderWrong("the id token is signed with a key the provider does not publish")

    async def _fetched_keys(self, metadata: Metadata) -> dict[str | None, jwt.PyJWK]:
        found = (await self._ask("GET", metadata.jwks_uri)).get("keys")
        keys: dict[str | None, jwt.PyJWK] = {}
        for item in found if isinstance(found, list) else []:
            # Sets may hold keys for encryption, and of kinds unknown here.
            if not isinstance(item, dict) or item.get("kty") == "oct" or item.get("use", "sig") != "sig":
                continue
            try:
                key = jwt.PyJWK.from_dict(item)
            except (jwt.PyJWTError, ValueError):
                continue
            keys[key.key_id] = key
        return keys

    async def _described(self) -> Metadata:
        if self._metadata is None or self._metadata[0] < self._monotonic():
            address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
            try:
                metadata = msgspec.convert(await self._ask("GET", address), Metadata)
            except msgspec.ValidationError as error:
                raise ProviderWrong(f"the discovery document cannot be used: {error}") from None
            # Discovery 4.3: or somebody else's provider could speak for this one.
            if metadata.issuer != self.issuer:
                raise ProviderWrong("the discovery document is of another issuer")
            self._metadata = self._monotonic() + _KEPT_SECONDS, metadata
        return self._metadata[1]

    async def _ask(self, method: str, address: str, **rest: Any) -> dict[str, Any]:
        # Here and not above: 6 MB of memory that a server without a provider need not have.
        import httpx

        if self._tls is None:
            # The system's authorities: many a provider has a certificate of its company's own.
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        try:
            async with httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_SECONDS) as client:
                answer = await client.request(method, address, **rest)
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise ProviderDown(type(error).__name__) from None
        if answer.status_code >= 500:
            raise ProviderDown(f"status {answer.status_code}")
        if answer.status_code != 200:
            raise ProviderWrong(f"status {answer.status_code} for {address}")
        try:
            return msgspec.json.decode(answer.content, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise ProviderWrong(f"no JSON object at {address}") from None
