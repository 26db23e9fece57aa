"""Profiles of the property tests, and an open database of each kind for the tests that need one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from storage.database import sqlite_url
from tests.sync.servers import Site

#: For trying mutants: that a test fails is enough, the smallest example is not wanted.
settings.register_profile("unshrunk", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False)


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A database of each kind with an ingest; tests take teams of their own in it."""
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    else:
        folder: Path = tmp_path_factory.mktemp("site")
        url = sqlite_url(folder / "fieldsync.db")
    opened = Site(url)
    yield opened
    opened.close()
