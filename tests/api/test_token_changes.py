"""What changes while tokens live: locks, permissions, an unreachable database, keys of other processes."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from server.auth.authority import AUDIENCE, Authority
from server.errors import Problem
from server.settings import Settings
from storage.database import Unavailable
from tests.api.auth_app import ISSUER, OWNER, AuthApp, bearer, payload, running, whoami


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthApp]:
    with running(tmp_path_factory.mktemp("changes")) as app:
        yield app


def test_a_locked_user_is_refused_at_once_by_the_process_that_locked(app: AuthApp) -> None:
    user = app.create_user("omar", executor=True)
    signed_in = app.sign_in("omar", user["password"])
    assert whoami(app, signed_in["access_token"]).status_code == 200
    app.http.post(f"/api/team/{user['userId']}/lock", headers=app.owner())
    refused = whoami(app, signed_in["access_token"])
    assert (refused.status_code, refused.json()["code"]) == (401, "account-locked")
    assert "www-authenticate" in refused.headers
    refresh = app.grant(grant_type="refresh_token", refresh_token=signed_in["refresh_token"])
    assert (refresh.json()["error"], refresh.json()["code"]) == ("invalid_grant", "account-locked")
    password = app.grant(grant_type="password", username="omar", password=user["password"])
    assert password.json()["code"] == "account-locked"
    app.http.post(f"/api/team/{user['userId']}/unlock", headers=app.owner())
    refused = whoami(app, signed_in["access_token"])
    assert (refused.status_code, refused.json()["code"]) == (401, "token-invalid")
    assert "signed out" in refused.json()["detail"]
    still = app.grant(grant_type="refresh_token", refresh_token=signed_in["refresh_token"])
    assert still.json()["code"] == "invalid-grant"


def test_a_locked_user_is_refused_within_five_seconds_by_another_process(app: AuthApp) -> None:
    user = app.create_user("nadia", executor=True)
    token = app.sign_in("nadia", user["password"])["access_token"]

    async def scenario() -> list[str]:
        other = Authority(app.database, Settings(public_url=ISSUER))
        await other.start()
        seen = [(await other.verify(token)).username]
        await asyncio.to_thread(app.http.post, f"/api/team/{user['userId']}/lock", headers=headers)
        begin = time.monotonic()
        while time.monotonic() - begin < 5:
            try:
                await other.verify(token)
            except Problem as error:
                seen.append(error.code)
                break
            await asyncio.sleep(0.1)
        return seen

    headers = app.owner()
    assert app.run(scenario) == ["nadia", "account-locked"]


def test_after_unlocking_a_new_sign_in_is_good_at_once_in_every_process(app: AuthApp) -> None:
    user = app.create_user("rosa", executor=True)
    before = app.sign_in("rosa", user["password"])["access_token"]
    headers = app.owner()

    async def scenario() -> tuple[str, str]:
        other = Authority(app.database, Settings(public_url=ISSUER))
        await other.start()
        await other.verify(before)
        for change in ("lock", "unlock"):
            await asyncio.to_thread(app.http.post, f"/api/team/{user['userId']}/{change}", headers=headers)
        signed_in = await asyncio.to_thread(app.sign_in, "rosa", user["password"])
        # What this process knows of the user is older than the token.
        principal = await other.verify(signed_in["access_token"])
        with pytest.raises(Problem) as ended:
            await other.verify(before)
        return principal.username, ended.value.code

    assert app.run(scenario) == ("rosa", "token-invalid")


def test_a_token_of_an_older_version_is_good_until_the_first_time_that_sign_ins_end(app: AuthApp) -> None:
    user = app.create_user("sami", executor=True)
    claims = payload(app.sign_in("sami", user["password"])["access_token"])
    assert claims.pop("sgn") == 0
    kid, key = app.authority.keys.signing
    token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})
    assert whoami(app, token).status_code == 200
    for change in ("lock", "unlock"):
        app.http.post(f"/api/team/{user['userId']}/{change}", headers=app.owner())
    assert whoami(app, token).json()["code"] == "token-invalid"


def test_a_clients_token_has_no_number_of_sign_ins(app: AuthApp) -> None:
    assert "sgn" not in payload(app.authority.issue_access_token(1, "c", "client", []))


def test_permissions_are_the_database_s_and_not_the_token_s(app: AuthApp) -> None:
    user = app.create_user("pia", modifier=True)
    token = app.sign_in("pia", user["password"])["access_token"]
    assert app.http.get("/jobs", headers=bearer(token)).status_code == 200
    app.http.put(
        f"/api/team/user/{user['userId']}/permissions", json={"modifier": False}, headers=app.owner()
    )
    assert app.http.get("/jobs", headers=bearer(token)).json()["code"] == "insufficient-permission"


def test_many_requests_with_known_tokens_read_the_database_once_per_interval(
    app: AuthApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = app.sign_in(OWNER, app.team["password"])["access_token"]
    reads = 0
    read = app.database.read

    async def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return await read(*args)

    async def scenario() -> None:
        authority = Authority(app.database, Settings(public_url=ISSUER))
        await authority.start()
        monkeypatch.setattr(app.database, "read", counted)
        await asyncio.gather(*(authority.verify(token) for _ in range(200)))

    app.run(scenario)
    assert reads == 1


def test_without_the_database_a_state_that_is_too_old_is_not_used(
    app: AuthApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = app.sign_in(OWNER, app.team["password"])["access_token"]
    subject_id = whoami(app, token).json()["subjectId"]

    async def unavailable(*_: Any) -> Any:
        raise Unavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(app.database, "read", unavailable)
        assert whoami(app, token).status_code == 200
        app.authority.forget(subject_id)
        refused = whoami(app, token)
        assert (refused.status_code, refused.json()["retry"]) == (503, "later")
    assert whoami(app, token).status_code == 200


def test_processes_that_start_together_verify_one_another_s_tokens(app: AuthApp) -> None:
    user_id = payload(app.sign_in(OWNER, app.team["password"])["access_token"])["sub"]

    async def scenario() -> list[str]:
        settings = Settings(public_url=ISSUER)
        authorities = [Authority(app.database, settings) for _ in range(3)]
        await asyncio.gather(*(authority.start() for authority in authorities))
        made = [authority.issue_access_token(1, user_id, "user", ["job.read"]) for authority in authorities]
        return [(await authority.verify(token)).username for authority in authorities for token in made]

    assert app.run(scenario) == [OWNER] * 9


def test_the_discovery_document_leads_to_the_keys_that_verify_a_token(app: AuthApp) -> None:
    document = app.http.get("/.well-known/openid-configuration").json()
    assert document["issuer"] == ISSUER
    assert document["token_endpoint"] == f"{ISSUER}/connect/token"
    assert document["jwks_uri"] == f"{ISSUER}/.well-known/jwks.json"
    keys = app.http.get("/.well-known/jwks.json").json()["keys"]
    token = app.sign_in(OWNER, app.team["password"])["access_token"]
    kid = jwt.get_unverified_header(token)["kid"]
    (key,) = [key for key in keys if key["kid"] == kid]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"}
    canonical = json.dumps({name: key[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    assert kid == base64.urlsafe_b64encode(hashlib.sha256(canonical.encode()).digest()).rstrip(b"=").decode()
    claims = jwt.decode(token, jwt.PyJWK(key), algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER)
    assert claims["sub"]
