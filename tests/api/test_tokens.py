"""Tokens: how they are got, what they allow, and what is not taken for one (sections 2.1 to 2.3.4)."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from server.auth.policies import SCOPES, scopes_for
from server.auth.signin_limits import ACCOUNT_FAILURES
from tests.api.auth_app import OWNER, AuthApp, basic, bearer, payload, running, whoami


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthApp]:
    with running(tmp_path_factory.mktemp("tokens")) as app:
        yield app


def signed(app: AuthApp, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A token like the authority's own for the owner, with these claims changed or (None) left out."""
    kid, key = app.authority.keys.signing
    claims = payload(app.owner()["Authorization"].removeprefix("Bearer ")) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid} | (headers or {}))


# Getting one


def test_a_client_gets_a_token_with_all_its_scopes(app: AuthApp) -> None:
    response = app.grant(
        grant_type="client_credentials",
        client_id=app.team["clientId"],
        client_secret=app.team["clientSecret"],
    )
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"access_token", "expires_in", "token_type"}
    assert (answer["expires_in"], answer["token_type"]) == (3600, "Bearer")
    assert response.headers["cache-control"] == "no-store"
    claims = payload(answer["access_token"])
    assert claims["client_id"] == claims["sub"] == app.team["clientId"]
    assert claims["iss"] == "https://sync.example.com"
    assert claims["exp"] - claims["iat"] == 3600
    assert sorted(claims["scope"]) == sorted(SCOPES)
    assert whoami(app, answer["access_token"]).json()["username"] == "alpha default client"


def test_a_client_may_send_its_secret_by_http_basic(app: AuthApp) -> None:
    headers = basic(app.team["clientId"], app.team["clientSecret"])
    response = app.http.post("/connect/token", data={"grant_type": "client_credentials"}, headers=headers)
    assert response.status_code == 200
    refused = app.http.post(
        "/connect/token",
        data={"grant_type": "client_credentials"},
        headers=basic(app.team["clientId"], "wrong"),
    )
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")


def test_a_person_gets_a_token_and_a_refresh_token(app: AuthApp) -> None:
    answer = app.sign_in(OWNER.upper(), app.team["password"])
    assert set(answer) == {"access_token", "expires_in", "token_type", "refresh_token"}
    claims = payload(answer["access_token"])
    assert "client_id" not in claims
    assert set(claims["scope"]) == scopes_for({"OWNER"})
    assert whoami(app, answer["access_token"]).json() == {
        "teamName": "alpha",
        "subjectId": claims["sub"],
        "kind": "user",
        "username": OWNER,
        "permissions": ["OWNER"],
        "scopes": sorted(scopes_for({"OWNER"})),
    }


def test_only_the_scopes_asked_for_are_in_the_token_as_they_were_spelled(app: AuthApp) -> None:
    wanted = "https://www.flow.librestream.com/auth//team.admin job.read"
    token = app.sign_in(OWNER, app.team["password"], scope=wanted)["access_token"]
    assert payload(token)["scope"] == wanted.split()
    token = app.client_token(app.team["clientId"], app.team["clientSecret"], scope=wanted)
    assert payload(token)["scope"] == ["job.read", "team.admin"]


@pytest.mark.parametrize("wanted", [{"scope": "job.read spoke.master"}, {"permissions": "ADMIN"}])
def test_asking_for_more_than_one_has_is_an_invalid_scope(app: AuthApp, wanted: dict[str, str]) -> None:
    for form in (
        {"grant_type": "password", "username": OWNER, "password": app.team["password"]},
        {
            "grant_type": "client_credentials",
            "client_id": app.team["clientId"],
            "client_secret": app.team["clientSecret"],
        },
    ):
        response = app.grant(**form, **wanted)
        assert response.status_code == 400
        assert response.json()["error"] == "invalid_scope"
        assert response.json()["code"] == "invalid-scope"
        assert response.json()["retry"] == "never"


def test_an_executor_cannot_ask_for_the_administration_of_users(app: AuthApp) -> None:
    user = app.create_user("elena", executor=True)
    form = {"grant_type": "password", "username": "elena", "password": user["password"]}
    assert app.grant(**form, scope="team.admin").json()["error"] == "invalid_scope"
    assert "team.admin" not in payload(app.grant(**form).json()["access_token"])["scope"]


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({}, 400, "invalid_request"),
        ({"grant_type": "authorization_code"}, 400, "invalid_request"),
        # A member without a value was not sent (RFC 6749, section 3.2).
        ({"grant_type": ""}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "x\0", "password": "y"}, 400, "invalid_request"),
        ({"grant_type": "implicit"}, 400, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "x"}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_id": "x"}, 400, "invalid_request"),
        ({"grant_type": "client_credentials", "client_id": "x", "client_secret": "y"}, 401, "invalid_client"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, 400, "invalid_grant"),
    ],
)
def test_a_refusal_has_the_form_of_the_rfc(
    app: AuthApp, form: dict[str, str], status: int, error: str
) -> None:
    response = app.grant(**form)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["retry"] == "never"


def test_a_form_is_refused_as_json_or_with_a_member_twice(app: AuthApp) -> None:
    assert (
        app.http.post("/connect/token", json={"grant_type": "password"}).json()["error"] == "invalid_request"
    )
    twice = app.http.post(
        "/connect/token",
        content=b"grant_type=password&username=a&username=b&password=c",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert twice.json()["error"] == "invalid_request"


def test_an_unknown_account_and_a_wrong_password_get_the_same_answer(app: AuthApp) -> None:
    answers = [
        app.grant(grant_type="password", username=username, password="wrong")
        for username in ("nobody@alpha.example", OWNER)
    ]
    assert {answer.status_code for answer in answers} == {400}
    assert answers[0].json() == answers[1].json()
    assert answers[0].json()["error"] == "invalid_grant"


def test_signing_in_is_refused_after_too_many_failures(app: AuthApp) -> None:
    for _ in range(ACCOUNT_FAILURES):
        assert app.grant(grant_type="password", username="guessed", password="wrong").status_code == 400
    refused = app.grant(grant_type="password", username="GUESSED", password="wrong")
    assert refused.status_code == 429
    assert refused.json()["code"] == "too-many-attempts"
    assert refused.json()["retry"] == "later"
    assert 0 < int(refused.headers["retry-after"]) <= 300


# Refreshing


def test_a_refresh_token_is_replaced_with_each_use(app: AuthApp) -> None:
    first = app.sign_in(OWNER, app.team["password"], scope="job.read")
    response = app.grant(grant_type="refresh_token", refresh_token=first["refresh_token"])
    second = response.json()
    assert response.status_code == 200
    assert set(second) == {"access_token", "expires_in", "token_type", "refresh_token"}
    assert second["refresh_token"] != first["refresh_token"]
    assert payload(second["access_token"])["scope"] == ["job.read"]
    assert whoami(app, second["access_token"]).status_code == 200


def test_a_refresh_token_used_twice_ends_the_whole_family(app: AuthApp) -> None:
    first = app.sign_in(OWNER, app.team["password"])
    other = app.sign_in(OWNER, app.team["password"])
    second = app.grant(grant_type="refresh_token", refresh_token=first["refresh_token"]).json()
    again = app.grant(grant_type="refresh_token", refresh_token=first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    successor = app.grant(grant_type="refresh_token", refresh_token=second["refresh_token"])
    assert (successor.status_code, successor.json()["error"]) == (400, "invalid_grant")
    assert app.grant(grant_type="refresh_token", refresh_token=other["refresh_token"]).status_code == 200


def test_a_refresh_may_narrow_the_scopes_and_not_widen_them(app: AuthApp) -> None:
    token = app.sign_in(OWNER, app.team["password"], scope="job.read query.read")["refresh_token"]
    wider = app.grant(grant_type="refresh_token", refresh_token=token, scope="job.admin")
    assert wider.json()["error"] == "invalid_scope"
    narrower = app.grant(grant_type="refresh_token", refresh_token=token, scope="job.read").json()
    assert payload(narrower["access_token"])["scope"] == ["job.read"]
    whole = app.grant(grant_type="refresh_token", refresh_token=narrower["refresh_token"]).json()
    assert payload(whole["access_token"])["scope"] == ["job.read", "query.read"]


def test_new_permissions_reach_a_signed_in_person_with_the_next_refresh(app: AuthApp) -> None:
    user = app.create_user("ravi", executor=True)
    token = app.sign_in("ravi", user["password"])["refresh_token"]
    app.http.put(f"/api/team/user/{user['userId']}/permissions", json={"editor": True}, headers=app.owner())
    refreshed = app.grant(grant_type="refresh_token", refresh_token=token).json()
    assert "reports.create" in payload(refreshed["access_token"])["scope"]


# Using one


def test_no_token_is_told_apart_from_a_bad_one(app: AuthApp) -> None:
    missing = app.http.get("/whoami")
    assert (missing.status_code, missing.json()["code"]) == (401, "token-missing")
    assert missing.headers["www-authenticate"] == 'Bearer realm="fieldsync"'
    for header in (
        "Bearer x",
        "Bearer ",
        "bearer a.b.c",
        "Bearer " + "e30." * 5000,
        "Bearer \u00e9.\u00e9.\u00e9",
    ):
        bad = app.http.get("/whoami", headers=[(b"Authorization", header.encode("latin-1"))])
        assert (bad.status_code, bad.json()["code"]) == (401, "token-invalid"), header
        assert 'error="invalid_token"' in bad.headers["www-authenticate"]


def test_the_scheme_compares_without_case(app: AuthApp) -> None:
    token = app.sign_in(OWNER, app.team["password"])["access_token"]
    assert app.http.get("/whoami", headers={"Authorization": f"bearer {token}"}).status_code == 200


def test_a_control_token_signed_like_our_own_is_accepted(app: AuthApp) -> None:
    assert whoami(app, signed(app)).status_code == 200


@pytest.mark.parametrize("claim", ["exp", "iat", "iss", "aud", "sub", "team_id", "scope"])
def test_a_token_without_a_claim_is_refused(app: AuthApp, claim: str) -> None:
    assert whoami(app, signed(app, **{claim: None})).json()["code"] == "token-invalid"


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://elsewhere.example.com"),
        ("aud", "https://elsewhere.example.com"),
        ("sub", "no-such-user"),
        ("sub", 7),
        ("team_id", 999),
        ("team_id", "1"),
        ("scope", "job.read"),
        ("nbf", 4102444800),
    ],
)
def test_a_token_with_another_value_of_a_claim_is_refused(app: AuthApp, claim: str, value: Any) -> None:
    # Signed by hand: a library would not put a number into `sub`.
    token = raw_token(app, signed(app), **{claim: value})
    assert whoami(app, token).json()["code"] == "token-invalid"


def test_an_expired_token_says_so(app: AuthApp) -> None:
    now = int(time.time())
    response = whoami(app, signed(app, iat=now - 3700, exp=now - 100))
    assert (response.status_code, response.json()["code"]) == (401, "token-expired")


def test_a_known_token_is_refused_once_it_expires(app: AuthApp) -> None:
    token = signed(app, exp=int(time.time()) + 2)
    assert whoami(app, token).status_code == 200
    time.sleep(2.1)
    assert whoami(app, token).json()["code"] == "token-expired"


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def raw_token(app: AuthApp, token: str, **changes: Any) -> str:
    """``token`` with changed claims and a signature of our key: what no library would agree to make."""
    kid, key = app.authority.keys.signing
    signing_input = f"{segment({'alg': 'RS256', 'kid': kid})}.{segment(payload(token) | changes)}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signing_input.encode(), key)
    return f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_an_unsigned_token_is_refused(app: AuthApp) -> None:
    kid, _ = app.authority.keys.signing
    for algorithm in ("none", "None", "NONE"):
        head = segment({"alg": algorithm, "kid": kid, "typ": "JWT"})
        body = segment(payload(signed(app)))
        assert whoami(app, f"{head}.{body}.").json()["code"] == "token-invalid"


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(app: AuthApp) -> None:
    kid, key = app.authority.keys.signing
    for form in (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1):
        secret = key.public_key().public_bytes(serialization.Encoding.PEM, form)
        signing_input = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(payload(signed(app)))}"
        digest = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
        token = f"{signing_input}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
        assert whoami(app, token).json()["code"] == "token-invalid"


@pytest.mark.parametrize("kid", ["unknown", None, 7, "", "../../etc/passwd"])
def test_a_key_that_is_not_ours_is_refused_whatever_its_id(app: AuthApp, kid: Any) -> None:
    own_kid, own_key = app.authority.keys.signing
    assert own_kid != kid
    head = {"alg": "RS256"} if kid is None else {"alg": "RS256", "kid": kid}
    signing_input = f"{segment(head)}.{segment(payload(signed(app)))}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signing_input.encode(), own_key)
    token = f"{signing_input}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert whoami(app, token).json()["code"] == "token-invalid"


def test_a_key_that_the_token_brings_or_points_to_is_not_used(app: AuthApp) -> None:
    kid, _ = app.authority.keys.signing
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = {**jwt.algorithms.RSAAlgorithm.to_jwk(foreign.public_key(), as_dict=True), "kid": kid}
    claims = payload(signed(app))
    for own in ({"kid": kid}, {"kid": "theirs"}):
        for pointer in (
            {"jku": "https://evil.example.com/jwks.json"},
            {"x5u": "https://evil.example.com/chain.pem"},
            {"jwk": jwk},
        ):
            token = jwt.encode(claims, foreign, algorithm="RS256", headers={**own, **pointer})
            assert whoami(app, token).json()["code"] == "token-invalid"


def test_a_changed_token_is_refused(app: AuthApp) -> None:
    head, _, signature = signed(app).split(".")
    body = segment(payload(signed(app)) | {"scope": ["job.admin"]})
    assert whoami(app, f"{head}.{body}.{signature}").json()["code"] == "token-invalid"


def test_deep_nesting_in_a_token_is_a_refusal(app: AuthApp) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 9000).rstrip(b"=").decode()
    assert whoami(app, f"{deep}.e30.e30").json()["code"] == "token-invalid"


def test_a_scope_that_is_missing_is_named(app: AuthApp) -> None:
    token = app.sign_in(OWNER, app.team["password"], scope="job.read")["access_token"]
    response = app.http.get("/jobs", headers=bearer(token))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient-scope")
    assert response.json()["policy"] == "Job_Modify"
    assert response.json()["scopes"] == ["job.admin", "job.modify"]
    assert "job.admin job.modify" in response.json()["detail"]


def test_a_permission_that_is_missing_is_named(app: AuthApp) -> None:
    user = app.create_user("ines", admin=True)
    token = app.sign_in("ines", user["password"], scope="job.admin")["access_token"]
    response = app.http.get("/jobs", headers=bearer(token))
    assert (response.status_code, response.json()["code"]) == (403, "insufficient-permission")


def test_options_are_answered_without_a_token(app: AuthApp) -> None:
    assert app.http.options("/whoami").status_code == 204
