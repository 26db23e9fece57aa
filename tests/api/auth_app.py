"""An application of the authentication and user routes alone, over an empty database with two teams."""

import base64
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jwt
from litestar import Litestar, Request, get
from litestar.di import Provide
from litestar.testing import TestClient

from server import users
from server.auth import routes
from server.auth.authority import Authority
from server.auth.policies import ANY_TOKEN
from server.auth.principal import Principal
from server.errors import handle
from server.settings import Settings
from server.setup import create_team
from storage.database import Database, open_database, sqlite_url

T = TypeVar("T")

ISSUER = "https://sync.example.com"
OWNER = "owner@alpha.example"
OTHER_OWNER = "owner@beta.example"


@get("/whoami", policy=ANY_TOKEN)
async def caller(request: Request[Principal, Any, Any]) -> dict[str, Any]:
    """What the guard knows about the caller."""
    principal = request.user
    return {
        "teamName": principal.team_name,
        "subjectId": principal.subject_id,
        "kind": principal.kind,
        "username": principal.username,
        "permissions": sorted(principal.permissions),
        "scopes": sorted(principal.scopes),
    }


@get("/jobs", policy="Job_Modify")
async def modify_jobs() -> None:
    """A route of a policy that few meet."""


class AuthApp:
    """The running application, and what tests keep doing with it."""

    def __init__(self, client: TestClient[Litestar], database: Database, authority: Authority) -> None:
        self.http = client
        self.database = database
        self.authority = authority
        self.team: dict[str, str] = {}
        self.other_team: dict[str, str] = {}
        self._headers: dict[str, dict[str, str]] = {}

    def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Await something on the application's event loop."""
        with self.http.portal() as portal:
            return portal.call(function, *args)

    def grant(self, **form: str) -> Any:
        """The answer of the token endpoint."""
        return self.http.post("/connect/token", data=form)

    def sign_in(self, username: str, password: str, **form: str) -> dict[str, Any]:
        response = self.grant(grant_type="password", username=username, password=password, **form)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def owner(self) -> dict[str, str]:
        """Headers of the first team's owner."""
        return self._headers_of(OWNER, self.team["password"])

    def other_owner(self) -> dict[str, str]:
        """Headers of the second team's owner."""
        return self._headers_of(OTHER_OWNER, self.other_team["password"])

    def _headers_of(self, username: str, password: str) -> dict[str, str]:
        # Hashing a password takes long on purpose; one sign-in lasts for the tests of a module.
        if username not in self._headers:
            self._headers[username] = bearer(self.sign_in(username, password)["access_token"])
        return self._headers[username]

    def client_token(self, client_id: str, secret: str, **form: str) -> str:
        response = self.grant(
            grant_type="client_credentials", client_id=client_id, client_secret=secret, **form
        )
        assert response.status_code == 200, response.text
        return str(response.json()["access_token"])

    def create_user(self, username: str, **flags: bool) -> dict[str, Any]:
        """A user of the first team with these permission flags; the answer of 13.3."""
        headers = self.owner()
        body = {"username": username, "emailAddress": f"{username}@alpha.example", "name": username}
        created = self.http.post("/api/team/user", json=body, headers=headers)
        assert created.status_code == 200, created.text
        user = dict(created.json())
        if flags:
            changed = self.http.put(
                f"/api/team/user/{user['userId']}/permissions", json=flags, headers=headers
            )
            assert changed.status_code == 200, changed.text
        return user


def payload(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def whoami(app: AuthApp, token: str) -> Any:
    return app.http.get("/whoami", headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def basic(username: str, password: str) -> dict[str, str]:
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def _provider(value: Any) -> Callable[[], Any]:
    def provide() -> Any:
        return value

    return provide


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[AuthApp]:
    """The application, running."""
    database = open_database(sqlite_url(folder / "auth.db"))
    configured = Settings(data=folder, public_url=ISSUER, **settings)
    authority = Authority(database, configured)
    dependencies = {"database": database, "authority": authority, "settings": configured}

    async def start() -> None:
        await database.migrate()
        await authority.start()
        app.team = await create_team(database, "alpha", OWNER)
        app.other_team = await create_team(database, "beta", OTHER_OWNER)

    litestar = Litestar(
        [*routes.route_handlers, *users.route_handlers, caller, modify_jobs],
        guards=[authority.authorize],
        exception_handlers={Exception: handle},
        dependencies={
            name: Provide(_provider(value), sync_to_thread=False) for name, value in dependencies.items()
        },
        on_startup=[start],
        on_shutdown=[database.close],
        openapi_config=None,
        logging_config=None,
    )
    client = TestClient(litestar)
    app = AuthApp(client, database, authority)
    with client:
        yield app
