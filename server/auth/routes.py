"""The token endpoint and what OAuth 2.1 clients need to find it (sections 2.1, 2.3.4)."""

import base64
import binascii
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from litestar import MediaType, Request, Response, get, post
from litestar.di import NamedDependency

from server.auth import clients
from server.auth.addresses import address_group, client_address
from server.auth.authority import Authority
from server.auth.forms import form_of
from server.auth.grants import Granted, GrantRefused, Grants, Wanted
from server.auth.policies import PUBLIC, SCOPES
from server.auth.signin_limits import TooManyAttempts
from server.errors import RETRY_LATER, Problem
from server.settings import Settings
from storage.database import Database

#: RFC 6749, section 5.1: neither tokens nor refusals of them may be kept by a cache.
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


@post(
    "/connect/token",
    status_code=200,
    opt={"policy": PUBLIC},
    tags=["Authentication"],
    summary="Request a token",
    description="Form-encoded. Grants: client_credentials, password, authorization_code with PKCE, refresh_token "
    "(section 2.3.4, RFC 6749, RFC 7636).",
)
async def request_token(
    request: Request[Any, Any, Any],
    database: NamedDependency[Database],
    authority: NamedDependency[Authority],
    settings: NamedDependency[Settings],
) -> Response[bytes]:
    """Section 2.3.4. Refusals have the form of RFC 6749, section 5.2, and our ``code`` and ``retry``."""
    grants = Grants(database, authority, authority.signin_limits, settings.refresh_days)
    address = address_group(client_address(request.scope, settings.trusted_proxies))
    try:
        form = await form_of(request, keep_blank=False)
        granted = await _grant(grants, form, request.headers.get("authorization"), address)
    except Problem as problem:
        return _refusal(GrantRefused("invalid_request", problem.detail))
    except GrantRefused as refusal:
        return _refusal(refusal)
    except TooManyAttempts as limit:
        return _refusal(
            GrantRefused(
                "temporarily_unavailable",
                f"Too many attempts failed. The next one may come in {limit.retry_after} s.",
                code="too-many-attempts",
                status=429,
                headers={"Retry-After": str(limit.retry_after)},
            )
        )
    answer: dict[str, Any] = {
        "access_token": granted.access_token,
        "expires_in": settings.token_seconds,
        "token_type": "Bearer",
    }
    if granted.refresh_token is not None:
        answer["refresh_token"] = granted.refresh_token
    return Response(msgspec.json.encode(answer), media_type=MediaType.JSON, headers=_NO_STORE)


@get(
    "/.well-known/openid-configuration",
    opt={"policy": PUBLIC},
    tags=["Authentication"],
    summary="Where tokens are issued and with which keys",
)
async def discovery(settings: NamedDependency[Settings]) -> dict[str, Any]:
    """RFC 8414, at the address of OpenID Connect Discovery 1.0; there are no id tokens."""
    issuer = settings.base_url
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/connect/authorize",
        "token_endpoint": f"{issuer}/connect/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["authorization_code", "client_credentials", "password", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic", "none"],
        "scopes_supported": sorted(SCOPES),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }


@get(
    "/.well-known/jwks.json",
    opt={"policy": PUBLIC},
    tags=["Authentication"],
    summary="The public keys of the token issuer",
)
async def jwks(authority: NamedDependency[Authority]) -> dict[str, Any]:
    """A JWK Set (RFC 7517, section 5)."""
    return {"keys": authority.keys.jwks()}


async def _grant(grants: Grants, form: dict[str, str], authorization: str | None, address: str) -> Granted:
    wanted = Wanted(
        scopes=tuple(form.get("scope", "").split()),
        permissions=tuple(form.get("permissions", "").upper().replace(",", " ").split()),
    )
    match form.get("grant_type"):
        case "client_credentials":
            client_id, client_secret = _client_credentials(form, authorization)
            try:
                return await grants.client_credentials(client_id, client_secret, wanted, address)
            except GrantRefused as refusal:
                if refusal.status == 401 and authorization is not None:
                    # RFC 6749, section 5.2: answer in the scheme that was tried.
                    refusal.headers["WWW-Authenticate"] = 'Basic realm="fieldsync"'
                raise
        case "password":
            return await grants.password(
                _required(form, "username"), _required(form, "password"), wanted, address
            )
        case "refresh_token":
            return await grants.refresh(_required(form, "refresh_token"), wanted)
        case "authorization_code":
            return await grants.authorization_code(
                _required(form, "code"),
                _required(form, "client_id"),
                _required(form, "redirect_uri"),
                _required(form, "code_verifier"),
            )
        case None:
            raise GrantRefused("invalid_request", "The form member grant_type is missing.")
        case _:
            raise GrantRefused(
                "unsupported_grant_type",
                "grant_type is client_credentials, password, authorization_code or refresh_token.",
            )


def _required(form: dict[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise GrantRefused("invalid_request", f"The form member {name} is missing.")
    return value


def _client_credentials(form: dict[str, str], authorization: str | None) -> tuple[str, str]:
    """The client's id and secret, from the form or by HTTP Basic (RFC 6749, section 2.3.1)."""
    if authorization is None:
        return _required(form, "client_id"), _required(form, "client_secret")
    if "client_secret" in form:
        raise GrantRefused("invalid_request", "The secret came twice: as a header and in the form.")
    scheme, _, encoded = authorization.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        decoded = ""
    client_id, colon, secret = decoded.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise GrantRefused(
            "invalid_client",
            "The Authorization header is not Basic with a client id and secret.",
            status=401,
            headers={"WWW-Authenticate": 'Basic realm="fieldsync"'},
        )
    return unquote_plus(client_id), unquote_plus(secret)


def _refusal(refusal: GrantRefused) -> Response[bytes]:
    body = {
        "error": refusal.error,
        "error_description": refusal.description,
        "code": refusal.code or refusal.error.replace("_", "-"),
        "retry": "later" if refusal.status in RETRY_LATER else "never",
    }
    return Response(
        msgspec.json.encode(body),
        status_code=refusal.status,
        media_type=MediaType.JSON,
        headers={**_NO_STORE, **refusal.headers},
    )


route_handlers = [request_token, discovery, jwks, *clients.route_handlers]
