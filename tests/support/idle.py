"""The application without its own worker and clock, for tests that do their work themselves.

``app = idle_app`` in a module of tests puts it in the place of the usual one.
"""

from collections.abc import Iterator

import pytest

from storage.database import sqlite_url
from tests.support.app import RunningApp, running_app
from tests.support.postgres import Postgres


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def idle_app(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningApp]:
    """A new application for each module of tests, once on each kind of database."""
    folder = tmp_path_factory.mktemp("idle")
    url = postgres.new_database() if request.param == "postgresql" else sqlite_url(folder / "fieldsync.db")
    with running_app(folder, url, worker="none") as app:
        yield app
