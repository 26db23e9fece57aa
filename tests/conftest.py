"""What tests of more than one folder start: databases, the application, real servers.

Nothing starts before a test asks for it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from storage.database import sqlite_url
from tests.support.app import RunningApp, Team, running_app
from tests.support.postgres import Postgres, running_postgres
from tests.support.process import ServerProcess, serve

BACKENDS = ["sqlite", "postgresql"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this run (with xdist: of this worker)."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def fresh_postgres(postgres: Postgres) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgres.new_database()


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "fieldsync.db")
    url: str = request.getfixturevalue("fresh_postgres")
    return url


@pytest.fixture(scope="session", params=BACKENDS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The application, once on each kind of database."""
    folder = tmp_path_factory.mktemp("app")
    url = sqlite_url(folder / "fieldsync.db")
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
    with running_app(folder, url) as running:
        yield running


@pytest.fixture(scope="session")
def sqlite_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """The application on SQLite, for what has nothing to do with the database."""
    folder = tmp_path_factory.mktemp("sqlite-app")
    with running_app(folder, sqlite_url(folder / "fieldsync.db")) as running:
        yield running


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
            server = partial(serve, tmp_path)(data, **options)
            started.callback(server.kill)
            return server

        yield start
