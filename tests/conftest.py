"""What tests of more than one folder start: databases, the application, real servers.

Nothing starts before a test asks for it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from storage.database import sqlite_url
from tests.support.app import RunningApp, Team, running_app
from tests.support.postgres import Postgres
from tests.support.process import ServerProcess, serve

BACKENDS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL server of this run (with xdist: of this worker)."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def fresh_postgres(postgres: Postgres) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres.new_database()


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    return postgres.new_database() if request.param == "postgresql" else sqlite_url(tmp_path / "fieldsync.db")


@pytest.fixture(scope="session")
def apps(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], RunningApp]]:
    """The application on a kind of database; the same one whoever asks."""
    with ExitStack() as running:

        @cache
        def app_on(backend: str) -> RunningApp:
            folder = tmp_path_factory.mktemp(f"app-{backend}")
            url = postgres.new_database() if backend == "postgresql" else sqlite_url(folder / "fieldsync.db")
            return running.enter_context(running_app(folder, url))

        yield app_on


@pytest.fixture(scope="session", params=BACKENDS)
def app(request: pytest.FixtureRequest, apps: Callable[[str], RunningApp]) -> RunningApp:
    """The application, once on each kind of database."""
    return apps(request.param)


@pytest.fixture(scope="session")
def sqlite_app(apps: Callable[[str], RunningApp]) -> RunningApp:
    """The application on SQLite, for what has nothing to do with the database."""
    return apps("sqlite")


@pytest.fixture
def team(app: RunningApp) -> Team:
    """A team without jobs, on each kind of database."""
    return app.team()


@pytest.fixture
def sqlite_team(sqlite_app: RunningApp) -> Team:
    """A team without jobs, on SQLite."""
    return sqlite_app.team()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts real servers (the arguments of :func:`tests.support.process.serve` after the folder)."""
    with ExitStack() as started:

        def start(data: Path, **options: object) -> ServerProcess:
            server = serve(tmp_path, data, **options)
            started.callback(server.kill)
            return server

        yield start
