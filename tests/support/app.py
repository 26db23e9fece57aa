"""The whole application, running in this process, with teams, people and tokens at hand.

Every test gets a team of its own, so that lists start empty and one running application serves them all.
"""

import asyncio
import itertools
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import httpx
from argon2 import PasswordHasher
from litestar import Litestar
from litestar.testing import TestClient

from fixtures.jobs import paused_snapshot, specification_snapshot
from server.app import create_app
from server.auth import passwords
from server.auth.authority import Authority
from server.auth.policies import SCOPES
from server.auth.principal import Kind
from server.clock import now
from server.settings import Settings
from server.setup import create_team
from storage.database import Database, open_database
from storage.ids import new_id
from storage.queries.clients import NewClient, insert_client
from storage.queries.teams import insert_team, team_by_name
from storage.queries.users import NewUser, insert_user
from sync.ingest import MAX_BATCH, Ingest
from sync.items import Applied, Caller, PushItem, Result
from sync.snapshot import parse

T = TypeVar("T")
Document = dict[str, Any]
Headers = dict[str, str]

PUBLIC_URL = "https://sync.example.com"
PROBLEM = "application/problem+json"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Account:
    """Somebody who calls: a user or a client, and the headers that say so."""

    subject_id: str
    username: str
    headers: Headers


@dataclass
class Team:
    """One team of the running application."""

    app: "RunningApp"
    team_id: int
    name: str
    owner: Account = field(init=False)

    def __post_init__(self) -> None:
        self.owner = self.client("OWNER")

    def client(self, *permissions: str, scopes: Sequence[str] | None = None) -> Account:
        """A machine client; without ``scopes`` its token has all there are."""
        client_id = new_id()
        granted = sorted(SCOPES) if scopes is None else list(scopes)
        row = NewClient(self.team_id, client_id, f"client {client_id}", tuple(granted), permissions, now())
        self.app.write(insert_client, row)
        return self._account("client", client_id, row.display_name, granted)

    def user(self, *permissions: str, scopes: Sequence[str] | None = None) -> Account:
        """A person with these permissions; without ``scopes`` the token has all there are."""
        user_id = new_id()
        username = f"user-{next(_numbers)}@example.com"
        row = NewUser(
            team_id=self.team_id,
            user_id=user_id,
            username=username,
            email_address=username,
            name=username,
            password_hash="no password fits",
            permissions=frozenset(permissions),
            created_at=now(),
        )
        self.app.write(insert_user, row)
        return self._account("user", user_id, username, sorted(SCOPES) if scopes is None else list(scopes))

    def executor(self) -> Account:
        """A field worker."""
        return self.user("EXECUTOR")

    def _account(self, kind: Kind, subject_id: str, username: str, scopes: Sequence[str]) -> Account:
        token = self.app.authority.issue_access_token(self.team_id, subject_id, kind, scopes)
        return Account(subject_id, username, {"Authorization": f"Bearer {token}"})

    # What tests keep asking for, as the owner unless told otherwise.

    def request(
        self,
        method: str,
        path: str,
        *,
        by: Account | None = None,
        headers: Headers | None = None,
        **rest: Any,
    ) -> httpx.Response:
        """One request, with the caller's token."""
        everything = {**(by or self.owner).headers, **(headers or {})}
        return self.app.http.request(method, path, headers=everything, **rest)

    def get(self, path: str, **rest: Any) -> httpx.Response:
        return self.request("GET", path, **rest)

    def post(self, path: str, **rest: Any) -> httpx.Response:
        return self.request("POST", path, **rest)

    def put(self, path: str, **rest: Any) -> httpx.Response:
        return self.request("PUT", path, **rest)

    def delete(self, path: str, **rest: Any) -> httpx.Response:
        return self.request("DELETE", path, **rest)

    def sync(self, document: Document | bytes, **rest: Any) -> httpx.Response:
        """A basic sync of a document, or of bytes as they are."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.post("/jobs/v1/basicSync", content=body, **rest)

    def synced(self, document: Document | bytes, **rest: Any) -> Document:
        """The answer to a basic sync that succeeds."""
        response = self.sync(document, **rest)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def push_many(self, documents: Sequence[Document]) -> None:
        """Push documents as the owner, in this order, without a request for each."""
        caller = Caller(self.team_id, self.name, self.owner.subject_id, False)
        items = [PushItem(caller, parse(json.dumps(document).encode()), now()) for document in documents]

        async def push(batch: list[PushItem]) -> list[Result]:
            return await asyncio.gather(*(self.app.ingest.submit(item) for item in batch))

        for start in range(0, len(items), MAX_BATCH):
            # One transaction after the other: two at once would give their jobs ids in any order.
            for result in self.app.call(push, items[start : start + MAX_BATCH]):
                assert isinstance(result, Applied), result

    def job(self, client_job_id: str, **rest: Any) -> Document:
        """A job as it is read."""
        response = self.get(f"/jobs/v1/{client_job_id}", **rest)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def quarantine(self) -> list[Document]:
        """Every payload in the team's quarantine, newest first."""
        response = self.get("/sync/v1/quarantine?limit=1000")
        assert response.status_code == 200, response.text
        return list(response.json())

    def quarantined_body(self, quarantine_id: str) -> bytes:
        """A payload in quarantine, as its bytes came."""
        response = self.get(f"/sync/v1/quarantine/{quarantine_id}?raw=true")
        assert response.status_code == 200, response.text
        return response.content


class RunningApp:
    """The application under test. ``alpha`` and ``beta`` were set up as an operator does it."""

    def __init__(self, client: TestClient[Any], settings: Settings) -> None:
        self.http = client
        self.settings = settings
        self.litestar: Litestar = client.app
        self.database: Database = self._part("database")
        self.authority: Authority = self._part("authority")
        self.ingest: Ingest = self._part("ingest")
        self.alpha: Team
        self.beta: Team

    def _part(self, name: str) -> Any:
        provide: Any = self.litestar.dependencies[name]
        return provide.dependency()

    def call(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Await something on the application's event loop."""
        with self.http.portal() as portal:
            result: T = portal.call(function, *arguments)
            return result

    def write(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run a query as one transaction of the application's own database."""
        result: T = self.call(self.database.write, work, *arguments)
        return result

    def read(self, query: Callable[..., T], *arguments: Any) -> T:
        """Run a query on a reading connection."""
        result: T = self.call(self.database.read, query, *arguments)
        return result

    def team(self) -> Team:
        """A new team without jobs."""
        name = f"team {next(_numbers)}"
        return Team(self, self.write(insert_team, name, now()), name)

    def set_up(self, name: str, owner: str) -> Team:
        """A team made the way ``fieldsync init`` makes one."""
        self.call(create_team, self.database, name, owner)
        row = self.read(team_by_name, name)
        assert row is not None
        return Team(self, row.team_id, name)


def migrate(database_url: str) -> None:
    """Bring a database up to this version, as an operator does on PostgreSQL."""

    async def run() -> None:
        database = open_database(database_url)
        try:
            await database.migrate()
        finally:
            await database.close()

    asyncio.run(run())


@contextmanager
def _quick_passwords() -> Iterator[None]:
    """Hash passwords with little work: with the real parameters it took a tenth of the tests' time. Servers of their
    own process have the real ones, which tests/unit/test_passwords.py looks at.
    """
    quick = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    with patch.multiple(passwords, _hasher=quick, _NOBODY=quick.hash(secrets.token_hex())):
        yield


@contextmanager
def running_app(folder: Path, database_url: str, **settings: Any) -> Iterator[RunningApp]:
    """The application on a new database, until the end of the block."""
    configured = Settings(
        data=folder, database_url=database_url, public_url=PUBLIC_URL, log_level="error", **settings
    )
    migrate(configured.effective_database_url)
    litestar = create_app(configured)
    with _quick_passwords(), TestClient(litestar) as client:
        app = RunningApp(client, configured)
        app.alpha = app.set_up("alpha", "owner@alpha.example")
        app.beta = app.set_up("beta", "owner@beta.example")
        yield app


def snapshot(**header: Any) -> Document:
    """A paused job of its own, as the specification prints one, with ``header`` set in its metadata."""
    return _own(paused_snapshot(), header)


def finished_snapshot(**header: Any) -> Document:
    """A completed job of its own, as the specification prints one, with ``header`` set in its metadata."""
    return _own(specification_snapshot(), header)


def _own(document: Document, header: Document) -> Document:
    # Whose the job is follows from who pushes, unless a test says otherwise.
    document["metadata"] |= {"clientJobId": str(uuid.uuid4()), "userId": None, "username": None, **header}
    return document


def edited(document: Document, seconds: int, **header: Any) -> Document:
    """``document`` as a tablet without an envelope sends it after an edit: its newest time counts."""
    updated = f"2025-03-04T10:00:{seconds:02}.000Z"
    return {**document, "metadata": {**document["metadata"], "updated": updated, **header}}


def step(key: str, **members: Any) -> Document:
    """A completed step with as little in it as merging needs."""
    body = {"uniqueStepId": key, "updated": "2025-03-03T09:20:00.000Z", **members}
    return {"singleStep": body, "reportStep": None}


def keys_of(steps: Sequence[Document] | None) -> set[str]:
    """The uniqueStepIds of some steps."""
    return {item["singleStep"]["uniqueStepId"] for item in steps or ()}


def problem(
    response: httpx.Response, status: int, code: str | None = None, field: str | None = None
) -> Document:
    """The members of a refusal, once it is known to be one a client can act on."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body = dict(response.json())
    assert body["status"] == status
    assert body["retry"] in ("later", "never")
    assert (body["retry"] == "later") == ("retry-after" in response.headers)
    assert body["code"]
    assert body["detail"]
    if code is not None:
        assert body["code"] == code
    if field is not None:
        assert body["field"] == field
    return body
