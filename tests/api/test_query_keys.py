"""Keys of queries, and who may query: sections 3.3.1 to 3.3.4 of the specification."""

import asyncio
import hashlib
import json
import logging
import re
from base64 import b32decode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from litestar import Litestar, Request, get

from server.auth.authority import OR_KEY
from server.clock import now
from server.errors import Problem, handle
from server.query.access import caller
from server.query.sealing import KeySeal, QuerySecrets, hash_of, new_key
from server.settings import InvalidSetting, Settings
from server.triggers.keys import LIFETIME, QueryKeys
from storage.database import Contended, Database, Unavailable
from storage.queries import query_keys
from storage.queries.clients import revoke_client
from storage.queries.query_keys import QueryKeyRow
from storage.queries.secrets import shared_secret
from tests.support.app import Document, Headers, RunningApp, Team, problem
from tests.support.routes import Answer, ask
from tests.support.statements import counted

KEYS = "/query/v2/keys"
SLOTS = ["primary", "secondary"]
SECOND = 1_000_000


def listed(team: Team) -> list[Document]:
    response = team.get(KEYS)
    assert response.status_code == 200, response.text
    return list(response.json())


def keys_of(team: Team) -> list[str]:
    """The primary and the secondary key."""
    return [entry["key"] for entry in listed(team)]


def regenerated(team: Team, slot: str) -> Document:
    response = team.post(f"{KEYS}/{slot}/regenerate")
    assert response.status_code == 200, response.text
    return dict(response.json())


def revoked(team: Team, slot: str) -> None:
    response = team.delete(f"{KEYS}/{slot}")
    assert (response.status_code, response.content) == (204, b"")


def rows_of(team: Team) -> dict[str, QueryKeyRow]:
    return team.app.read(query_keys.of_team, team.team_id)


def put(team: Team, row: QueryKeyRow, team_id: int | None = None) -> None:
    """Write a row past the application, as another process or somebody with the database would."""
    team.app.write(query_keys.put, team_id or team.team_id, row)


class Door(NamedTuple):
    """A route that answers whose data a request may query.

    Attributes:
        times: the times that the next requests come at, in microseconds; now, if there are none.
    """

    app: RunningApp
    keys: QueryKeys
    times: list[int]
    litestar: Litestar

    def ask(self, query: str = "", headers: Headers | None = None) -> Answer:
        return self.app.call(ask, self.litestar, "GET", f"/who?{query}", headers)

    def team_of(self, query: str = "", headers: Headers | None = None) -> tuple[int, str]:
        """Whose data it may be."""
        answer = self.ask(query, headers)
        assert answer.status == 200, answer
        team_id, name = json.loads(answer.body)
        return team_id, name

    def refusal(self, query: str = "", headers: Headers | None = None) -> tuple[int, str]:
        """Status and code of a refusal."""
        answer = self.ask(query, headers)
        return answer.status, json.loads(answer.body).get("code", "")


def door_of(app: RunningApp, database: Database | None = None) -> Door:
    keys = QueryKeys(app.write(shared_secret, "query keys", now()))
    times: list[int] = []

    @get("/who", opt={"policy": "Query_Read", OR_KEY: True})
    async def who(request: Request[Any, Any, Any]) -> list[Any]:
        clock: Callable[[], int] = times.pop if times else now
        return list(await caller(request, database or app.database, keys, clock))

    litestar = Litestar(
        [who],
        guards=[app.authority.authorize],
        exception_handlers={Exception: handle},
        logging_config=None,
        openapi_config=None,
    )
    return Door(app, keys, times, litestar)


@pytest.fixture
def door(app: RunningApp) -> Door:
    return door_of(app)


@pytest.fixture
def sqlite_door(sqlite_app: RunningApp) -> Door:
    return door_of(sqlite_app)


# Keys


def test_a_team_has_two_keys_from_its_first_look_at_them(team: Team) -> None:
    first = listed(team)
    assert [entry["slot"] for entry in first] == SLOTS
    for entry in first:
        assert re.fullmatch("QK1[A-Z2-7]{52}", entry["key"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["created"])
        assert entry == {
            "slot": entry["slot"],
            "key": entry["key"],
            "created": entry["created"],
            "createdBy": team.owner.subject_id,
            "revoked": None,
            "problem": None,
        }
    assert first[0]["key"] != first[1]["key"]
    assert listed(team) == first


def test_looks_at_once_see_the_same_keys(app: RunningApp, team: Team) -> None:
    async def look() -> list[Answer]:
        asked = (ask(app.litestar, "GET", KEYS, team.owner.headers) for _ in range(20))
        return await asyncio.gather(*asked)

    answers = app.call(look)
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1


def test_keys_that_are_there_take_one_statement(team: Team) -> None:
    listed(team)
    with counted(team.app) as counter:
        listed(team)
    assert counter.count == 1, counter.texts


def test_no_answer_with_a_key_is_stored_on_its_way(team: Team) -> None:
    for response in (
        team.get(KEYS),
        team.post(f"{KEYS}/primary/regenerate"),
        team.delete(f"{KEYS}/primary"),
    ):
        assert response.headers["cache-control"] == "no-store"


def test_regenerating_one_slot_leaves_the_other(team: Team, door: Door) -> None:
    primary, secondary = listed(team)
    administrator = team.user("ADMIN")
    response = team.post(f"{KEYS}/primary/regenerate", by=administrator)
    after = dict(response.json())
    assert (after["slot"], after["createdBy"]) == ("primary", administrator.subject_id)
    assert after["key"] != primary["key"]
    assert listed(team) == [after, secondary]
    assert door.refusal(f"key={primary['key']}") == (401, "query-key-invalid")
    for key in (after["key"], secondary["key"]):
        assert door.team_of(f"key={key}") == (team.team_id, team.name)


def test_keys_are_rotated_as_the_document_says_without_a_moment_without_one(team: Team, door: Door) -> None:
    primary, secondary = keys_of(team)
    new_primary = regenerated(team, "primary")["key"]
    assert door.team_of(f"key={secondary}") == (team.team_id, team.name)
    new_secondary = regenerated(team, "secondary")["key"]
    assert door.team_of(f"key={new_primary}") == (team.team_id, team.name)
    assert keys_of(team) == [new_primary, new_secondary]
    for old in (primary, secondary):
        assert door.refusal(f"key={old}") == (401, "query-key-invalid")


def test_a_slot_can_be_regenerated_before_anybody_looked(team: Team) -> None:
    made = regenerated(team, "secondary")
    primary, secondary = listed(team)
    assert secondary == made
    assert primary["key"]


def test_a_revoked_key_stays_away_until_it_is_regenerated(team: Team, door: Door) -> None:
    primary, secondary = listed(team)
    revoked(team, "primary")
    assert door.refusal(f"key={primary['key']}") == (401, "query-key-invalid")
    empty, other = listed(team)
    assert empty == {**primary, "key": None, "revoked": empty["revoked"]}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", empty["revoked"])
    assert other == secondary
    revoked(team, "primary")
    assert listed(team) == [empty, secondary]
    again = regenerated(team, "primary")
    assert (again["revoked"], again["problem"]) == (None, None)
    assert listed(team) == [again, secondary]
    assert door.team_of(f"key={again['key']}") == (team.team_id, team.name)


def test_both_keys_can_be_revoked_and_before_anybody_looked(team: Team) -> None:
    for slot in SLOTS:
        revoked(team, slot)
    assert keys_of(team) == [None, None]
    assert all(entry["revoked"] for entry in listed(team))
    assert [(row.key_hash, row.sealed) for row in rows_of(team).values()] == [(None, None)] * 2


@pytest.mark.parametrize("slot", ["tertiary", "Primary", "primary ", "0"])
def test_a_slot_that_is_neither_is_404(sqlite_team: Team, slot: str) -> None:
    problem(sqlite_team.post(f"{KEYS}/{slot}/regenerate"), 404, "no-such-query-key")
    problem(sqlite_team.delete(f"{KEYS}/{slot}"), 404, "no-such-query-key")
    assert rows_of(sqlite_team) == {}


def test_keys_are_for_those_who_administrate_queries(team: Team) -> None:
    before = listed(team)
    administrator, reader = team.user("ADMIN"), team.user("DATAVIEWER")
    narrow = team.client("OWNER", scopes=["query.read"])
    assert team.get(KEYS, by=administrator).json() == before
    for method, path in (
        ("GET", KEYS),
        ("POST", f"{KEYS}/primary/regenerate"),
        ("DELETE", f"{KEYS}/primary"),
    ):
        problem(team.request(method, path, by=reader), 403, "insufficient-permission")
        problem(team.request(method, path, by=narrow), 403, "insufficient-scope")
        # A key opens queries, not itself.
        answer = team.app.http.request(method, path, params={"key": before[0]["key"]})
        problem(answer, 401, "token-missing")
    assert listed(team) == before


def test_another_teams_keys_are_untouched(app: RunningApp, team: Team, door: Door) -> None:
    other = app.team()
    before = listed(team)
    for slot in SLOTS:
        regenerated(other, slot)
        revoked(other, slot)
    assert not set(keys_of(other)) & set(keys_of(team))
    assert listed(team) == before
    for entry in before:
        assert door.team_of(f"key={entry['key']}") == (team.team_id, team.name)


# How they are kept


def test_what_is_stored_does_not_hold_the_key(team: Team) -> None:
    for entry in listed(team):
        row = rows_of(team)[entry["slot"]]
        key = entry["key"]
        assert row.key_hash == hashlib.sha256(key.encode()).digest()
        assert row.sealed is not None
        for form in (key.encode(), key.removeprefix("QK1").encode(), b32decode(key[3:] + "====")):
            assert form not in row.sealed


def test_rows_cannot_be_swapped_between_teams_or_slots(app: RunningApp, team: Team) -> None:
    other = app.team()
    listed(team), listed(other)
    ours, theirs = rows_of(team), rows_of(other)
    sealed = [theirs["primary"].sealed, ours["primary"].sealed]
    for slot, content in zip(SLOTS, sealed, strict=True):
        put(team, ours[slot]._replace(sealed=content))
    for entry in listed(team):
        assert entry["key"] is None
        assert entry["problem"]["code"] == "query-key-unreadable"


def test_a_key_sealed_with_another_secret_is_not_shown_and_works_until_it_is_regenerated(
    team: Team, door: Door
) -> None:
    primary, secondary = listed(team)
    foreign = KeySeal(b"o" * 32).close(primary["key"], team.team_id, "primary")
    put(team, rows_of(team)["primary"]._replace(sealed=foreign))
    hidden, other = listed(team)
    assert hidden == {**primary, "key": None, "problem": hidden["problem"]}
    assert hidden["problem"]["code"] == "query-key-unreadable"
    assert "regenerate" in hidden["problem"]["detail"]
    assert other == secondary
    assert door.team_of(f"key={primary['key']}") == (team.team_id, team.name)
    after = regenerated(team, "primary")
    assert listed(team) == [after, secondary]
    assert door.refusal(f"key={primary['key']}") == (401, "query-key-invalid")


def seal_of(app: RunningApp, secret_key: str) -> KeySeal:
    return app.call(QuerySecrets(Settings(secret_key=secret_key), app.database).seal)


def test_the_secret_of_the_settings_seals_and_nothing_else_opens(app: RunningApp) -> None:
    key = new_key()
    sealed = seal_of(app, "k" * 32).close(key, 7, "primary")
    assert seal_of(app, "k" * 32).open(sealed, 7, "primary") == key
    assert seal_of(app, "l" * 32).open(sealed, 7, "primary") is None
    assert seal_of(app, "").open(sealed, 7, "primary") is None


def test_without_a_secret_in_the_settings_every_process_has_the_same(app: RunningApp) -> None:
    key = new_key()
    sealed = seal_of(app, "").close(key, 7, "primary")
    assert seal_of(app, "").open(sealed, 7, "primary") == key
    assert seal_of(app, "").close(key, 7, "primary") != sealed


def test_what_is_no_sealed_key_is_not_opened() -> None:
    seal = KeySeal(b"s" * 32)
    sealed = seal.close("key", 7, "primary")
    assert seal.open(sealed, 7, "primary") == "key"
    assert seal.open(sealed, 7, "secondary") is seal.open(sealed, 77, "primary") is None
    for content in (b"", b"short", sealed[:-1], sealed + b"x", bytes([sealed[0] ^ 1]) + sealed[1:]):
        assert seal.open(content, 7, "primary") is None


def test_a_secret_that_is_too_short_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSYNC_SECRET_KEY", "hunter2" + "x" * 24)
    with pytest.raises(InvalidSetting, match="FIELDSYNC_SECRET_KEY") as refused:
        Settings.from_environment()
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("FIELDSYNC_SECRET_KEY", "x" * 32)
    assert Settings.from_environment().secret_key == "x" * 32


# Who may query


def test_each_key_opens_its_own_teams_data(app: RunningApp, team: Team, door: Door) -> None:
    other = app.team()
    for asked in (team, other):
        for key in keys_of(asked):
            assert door.team_of(f"key={key}") == (asked.team_id, asked.name)


def test_a_token_opens_the_data_of_its_team(team: Team, door: Door) -> None:
    for account in (team.owner, team.user("ADMIN"), team.user("DATAVIEWER", scopes=["query.read"])):
        assert door.team_of("", account.headers) == (team.team_id, team.name)


def test_a_token_without_scope_or_permission_is_403(team: Team, door: Door) -> None:
    assert door.refusal("", team.client("OWNER", scopes=["job.read"]).headers) == (403, "insufficient-scope")
    assert door.refusal("", team.executor().headers) == (403, "insufficient-permission")


def test_a_token_that_is_not_good_is_401(team: Team, door: Door) -> None:
    assert door.refusal("", {"Authorization": "Bearer x"}) == (401, "token-invalid")
    client = team.client("OWNER")
    team.app.write(revoke_client, team.team_id, client.subject_id, now())
    assert door.refusal("", client.headers) == (401, "account-locked")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic b3duZXI6cGFzc3dvcmQ="}])
@pytest.mark.parametrize("query", ["", "key=", "Key=QK1"])
def test_without_key_and_token_both_ways_are_named(sqlite_door: Door, query: str, headers: Headers) -> None:
    answer = sqlite_door.ask(query, headers)
    said = json.loads(answer.body)
    assert (answer.status, said["code"]) == (401, "token-missing")
    assert "?key=" in said["detail"]
    assert "Authorization: Bearer" in said["detail"]


def test_a_key_counts_before_a_token(app: RunningApp, team: Team, door: Door) -> None:
    other = app.team()
    key = keys_of(team)[0]
    assert door.team_of(f"key={key}", other.owner.headers) == (team.team_id, team.name)
    assert door.team_of(f"key={key}", {"Authorization": "Bearer x"}) == (team.team_id, team.name)
    assert door.refusal("key=QK1", team.owner.headers) == (401, "query-key-invalid")
    assert door.team_of("key=", other.owner.headers) == (other.team_id, other.name)


def test_what_is_no_key_is_401(sqlite_team: Team, sqlite_door: Door) -> None:
    key = keys_of(sqlite_team)[0]
    last = "A" if key[-1] != "A" else "B"
    for wrong in (
        new_key(),
        key.lower(),
        key[:-1],
        key[:-1] + last,
        key + "A",
        key + "====",
        key.removeprefix("QK1"),
        "TMP1" + key.removeprefix("QK1"),
        "%20" + key,
        key + "%0A",
        "QK1",
        "TMP1",
        "*",
        "%F0%9F%94%91",
        "%FF",
        "x" * 10_000,
    ):
        assert sqlite_door.refusal(f"key={wrong}") == (401, "query-key-invalid"), wrong


def test_a_change_by_another_process_counts_with_the_next_request(team: Team, door: Door) -> None:
    key = keys_of(team)[0]
    assert door.team_of(f"key={key}") == (team.team_id, team.name)
    replaced = new_key()
    put(team, rows_of(team)["primary"]._replace(key_hash=hash_of(replaced)))
    assert door.refusal(f"key={key}") == (401, "query-key-invalid")
    assert door.team_of(f"key={replaced}") == (team.team_id, team.name)
    team.app.write(query_keys.revoke, team.team_id, "primary", now())
    assert door.refusal(f"key={replaced}") == (401, "query-key-invalid")


def test_a_key_of_a_team_that_is_gone_is_401(team: Team, door: Door) -> None:
    gone = 10**12 + team.team_id
    key = new_key()
    put(team, QueryKeyRow("primary", hash_of(key), b"", now(), "nobody"), team_id=gone)
    temporary, _ = door.keys.make(gone, now())
    assert door.refusal(f"key={key}") == (401, "query-key-invalid")
    assert door.refusal(f"key={temporary}") == (401, "query-key-invalid")


def test_a_temporary_key_works_for_an_hour(team: Team, door: Door) -> None:
    begin = now()
    key, _ = door.keys.make(team.team_id, begin)
    assert door.team_of(f"key={key}") == (team.team_id, team.name)
    end = (begin // SECOND + LIFETIME) * SECOND
    door.times.append(end - 1)
    assert door.team_of(f"key={key}") == (team.team_id, team.name)
    door.times.append(end)
    assert door.refusal(f"key={key}") == (401, "query-key-expired")


def test_a_temporary_key_that_is_forged_is_401_at_any_time(team: Team, door: Door) -> None:
    forged, _ = QueryKeys(b"f" * 32).make(team.team_id, now())
    genuine, _ = door.keys.make(team.team_id, now())
    changed = genuine[:10] + ("A" if genuine[10] != "A" else "B") + genuine[11:]
    for key in (forged, changed):
        assert door.refusal(f"key={key}") == (401, "query-key-invalid")
        door.times.append(now() + 2 * LIFETIME * SECOND)
        assert door.refusal(f"key={key}") == (401, "query-key-invalid")


def test_the_application_takes_the_temporary_keys_that_webhooks_carry(team: Team) -> None:
    # What the routes are given; a webhook's key is made with this secret (tests/api/test_webhooks.py).
    provided: Any = team.app.litestar.dependencies["query_keys"]
    keys: QueryKeys = team.app.call(provided.dependency)
    sent, _ = QueryKeys(team.app.write(shared_secret, "query keys", now())).make(team.team_id, now())
    assert keys.team_of(sent, now()) == team.team_id


# Keys stay secret


class _Broken:
    """A database that does not answer."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def read(self, *_: Any) -> Any:
        raise self._error


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_keys_are_in_no_log_and_in_no_refusal(
    team: Team, door: Door, everything_logged: pytest.LogCaptureFixture
) -> None:
    before = keys_of(team)
    after = regenerated(team, "primary")["key"]
    temporary, _ = door.keys.make(team.team_id, now())
    said: list[bytes] = []
    for key in (*before, after, temporary):
        said.append(door.ask(f"key={key}").body)
        door.times.append(now() + 2 * LIFETIME * SECOND)
        said.append(door.ask(f"key={key}").body)
        for error in (Unavailable("gone"), RuntimeError("broken")):
            broken: Any = _Broken(error)
            answer = door_of(team.app, broken).ask(f"key={key}")
            assert answer.status in (500, 503)
            said.append(answer.body)
    revoked(team, "primary")
    logged = everything_logged.text
    assert "unexpected error" in logged
    for key in (*before, after, temporary):
        assert key not in logged
        assert not any(key.encode() in body for body in said)


def test_a_refusal_says_how_to_authenticate(team: Team, door: Door) -> None:
    async def refused() -> Problem:
        scope: Any = {"type": "http", "headers": [], "query_string": b"key=QK1", "state": {}}
        with pytest.raises(Problem) as problem:
            await caller(Request(scope), door.app.database, door.keys, now)
        return problem.value

    assert door.app.call(refused).headers == {"WWW-Authenticate": 'Bearer realm="fieldsync"'}


def test_two_teams_never_have_the_same_key(team: Team) -> None:
    other = team.app.team()
    listed(team)
    with pytest.raises(Contended):
        put(other, rows_of(team)["primary"])
