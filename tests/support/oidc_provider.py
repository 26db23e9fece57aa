"""An OpenID Connect provider for tests: a real HTTP server with its own keys, honest unless told otherwise."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID = "fieldsync"
CLIENT_SECRET = "s3cret/of+the=provider"


@dataclass
class Provider:
    """What the provider says, and what it was asked.

    Attributes:
        person: the claims about whoever signs in next.
        claims: what the next id tokens say beside or instead of the truth; None leaves a claim out.
        algorithm: what id tokens are signed with.
        status: answered by the token endpoint instead of a token.
        issuer_says: the issuer of the discovery document, if not the right one.
        userinfo: what the userinfo endpoint says; with it the claims about the person are only there.
    """

    url: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    status: int = 200
    issuer_says: str = ""
    userinfo: dict[str, Any] | None = None
    keys: dict[str, rsa.RSAPrivateKey] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def new_key(self) -> str:
        """Sign with a new key from now on; the old ones are gone."""
        kid = secrets.token_hex(4)
        self.keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        return kid

    def discovery(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer_says or self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return document | ({"userinfo_endpoint": f"{self.url}/userinfo"} if self.userinfo is not None else {})

    def jwks(self) -> dict[str, Any]:
        return {
            "keys": [
                {
                    **jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True),
                    "kid": kid,
                    "use": "sig",
                    "alg": "RS256",
                }
                for kid, key in self.keys.items()
            ]
        }

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes after the person signed in."""
        self.asked.append(query)
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        pair = base64.b64encode(b"fieldsync:s3cret%2Fof%2Bthe%3Dprovider").decode()
        asked = self.codes.pop(form.get("code", ""), None)
        if authorization != f"Basic {pair}":
            return 401, {"error": "invalid_client"}
        if asked is None or form["redirect_uri"] != asked["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        if self.status != 200:
            return self.status, {"error": "server_error"}
        return 200, {"access_token": "theirs", "token_type": "Bearer", "id_token": self.id_token(asked)}

    def id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        about = {"sub": self.person["sub"]} if self.userinfo is not None else self.person
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **about,
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        kid, key = next(iter(self.keys.items()))
        if self.algorithm == "none":
            return jwt.encode(claims, "", algorithm="none", headers={"kid": kid})
        if self.algorithm == "HS256":
            return jwt.encode(claims, CLIENT_SECRET.ljust(32), algorithm="HS256", headers={"kid": kid})
        if self.algorithm == "foreign":
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})


@contextmanager
def oidc_provider() -> Iterator[Provider]:
    """A provider on a port of this machine."""
    provider = Provider()
    provider.new_key()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/.well-known/openid-configuration":
                self.answer(200, provider.discovery())
            elif parts.path == "/jwks":
                self.answer(200, provider.jwks())
            elif parts.path == "/userinfo" and self.headers["Authorization"] == "Bearer theirs":
                self.answer(200, provider.userinfo or {})
            elif parts.path == "/authorize":
                self.send_response(302)
                self.send_header("Location", provider.authorize(query))
                self.end_headers()
            else:
                self.answer(404, {})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.answer(*provider.token(form, self.headers.get("Authorization", "")))

        def answer(self, status: int, document: dict[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
