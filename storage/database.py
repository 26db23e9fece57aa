"""Engines for SQLite and PostgreSQL behind one interface.

Queries are plain functions of a synchronous Core :class:`Connection` (``storage/queries``). A
:class:`Database` runs them: reading on pooled connections, writing as one transaction that is durable
when the call returns.

* SQLite: reading through aiosqlite on connections that refuse to write; writing on one connection in
  one thread, ``BEGIN IMMEDIATE``, WAL, ``synchronous=FULL``. An async session for writing costs a
  thread hop per statement (2,980 against 4,320 commits/s in the prototype).
* PostgreSQL: asyncpg, the same functions through ``run_sync``.
"""

import asyncio
import fcntl
import hashlib
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.migrate import is_current, upgrade
from storage.queries.tasks import ENQUEUED
from storage.sqlite_writer import SqliteWriter

log = logging.getLogger("fieldsync.database")

__all__ = [
    "Connection",
    "Contended",
    "Database",
    "Lock",
    "Locked",
    "Unavailable",
    "Unstorable",
    "open_database",
]

T = TypeVar("T")

#: PostgreSQL: serialization failure, deadlock.
_RETRY_STATES = {"40001", "40P01"}
_LOCK_TIMEOUT = "55P03"
_NOT_IN_REPERTOIRE = "22021"
#: No such database, role or password; it is starting, stopping, full of connections or out of room; we were idle
#: in a transaction for too long.
_NOT_NOW = ("08", "25P03", "28", "3D", "53", "57P")
_CONNECT_SECONDS = 10.0
#: What PostgreSQL is told of a connection: after some 40 s without a sign of our machine, or a minute without one of
#: us within a transaction, it ends the connection, and with it the locks. Not in the start-up message, in which
#: PgBouncer refuses what it does not know.
_SESSION = (
    "SELECT set_config('tcp_keepalives_idle', '20', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '4', false), set_config('tcp_user_timeout', '40s', false),"
    " set_config('idle_in_transaction_session_timeout', '60s', false)"
)
_SQLITE_BUSY_MS = 15_000
_ATTEMPTS = 5
_TRY_LOCK = text("SELECT pg_try_advisory_lock(:number)")
#: PostgreSQL tells on this channel that there are new tasks. At most so often by one process, in seconds: within
#: the transactions themselves it would make all of them commit one after the other.
_CHANNEL = "fieldsync_tasks"
_NOTIFY = text(f"NOTIFY {_CHANNEL}")
_NOTIFY_SECONDS = 0.05
_LISTEN_AGAIN_SECONDS = 5.0
#: How long closing waits for the last of them.
_CLOSE_SECONDS = 5.0


class Unavailable(Exception):
    """The database did not do the work; nothing of it was kept. Trying later may succeed."""


class Unstorable(ValueError):
    """A text that the database cannot hold: one with a NUL in it, on PostgreSQL."""


class Contended(Exception):
    """Another transaction won a race; nothing was kept. Doing the work again settles it."""


class Locked(Contended):
    """Another transaction has locked what is needed for longer than one wants to wait; nothing was kept."""


class Lock:
    """What :meth:`Database.hold_lock` answers. True if the lock was got."""

    def __init__(self, got: bool, connection: AsyncConnection | None) -> None:
        self._got = got
        self._connection = connection

    def __bool__(self) -> bool:
        return self._got

    async def still_held(self) -> bool:
        """Whether it is ours yet: PostgreSQL ends it with the connection, and a file's cannot be lost."""
        if self._got and self._connection is not None:
            try:
                await self._connection.execute(text("SELECT 1"))
            except (DBAPIError, OSError):
                self._got = False
        return self._got


class Database:
    """One database, open. ``read`` and ``write`` take functions of a synchronous connection."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._reader: AsyncEngine
        self._write_engine: Engine | None = None
        self._writer: SqliteWriter | None = None
        #: Called when a transaction of this process, or on PostgreSQL of any, has enqueued tasks that are due.
        self.when_enqueued: Callable[[], None] = _nobody
        #: NOTIFYs that wait or are under way; and whether one waits, which serves what is enqueued until it is sent.
        self._notices: set[asyncio.Task[None]] = set()
        self._notice_waits = False
        self._notified = 0.0
        if self.is_sqlite:
            self._open_sqlite()
        else:
            # Statements differ by little more than the length of an IN list (padded to powers of two),
            # so asyncpg's cache of prepared statements holds them all.
            self._reader = create_async_engine(
                url,
                pool_size=10,
                max_overflow=10,
                hide_parameters=True,
                connect_args={"timeout": _CONNECT_SECONDS},
            )
            event.listen(self._reader.sync_engine, "connect", _prepare_session)

    def _open_sqlite(self) -> None:
        path = self.url.database or ""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # It holds password hashes and the signing key: nobody's but the server's own account.
        os.close(os.open(path, os.O_CREAT, 0o600))
        self._write_engine = create_engine(
            self.url.set(drivername="sqlite+pysqlite"),
            # One connection, used by one thread at a time; NullPool would reopen the file each time.
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "cached_statements": 512},
            # Secrets are among the values; errors end in logs and in the list of tasks.
            hide_parameters=True,
        )
        event.listen(self._write_engine, "connect", _prepare_writer)
        event.listen(self._write_engine, "begin", _begin_immediate)
        self._writer = SqliteWriter(self._write_engine, ENQUEUED, self._tell)
        self._reader = create_async_engine(
            self.url.set(drivername="sqlite+aiosqlite"), pool_size=4, max_overflow=4, hide_parameters=True
        )
        event.listen(self._reader.sync_engine, "connect", _prepare_reader)

    async def read(self, query: Callable[..., T], *args: Any) -> T:
        """Run ``query(connection, *args)`` on a reading connection."""
        try:
            async with self._reader.connect() as connection:
                return await connection.run_sync(query, *args)
        except (OperationalError, InterfaceError, PoolTimeout, OSError) as error:
            raise Unavailable(str(error)) from error
        except DBAPIError as error:
            raise _from_postgresql(error) from error

    async def write(self, work: Callable[..., T], *args: Any) -> T:
        """Run ``work(connection, *args)`` as one transaction, durable when this returns.

        Raises:
            Contended: a concurrent transaction won; do it again.
            Unavailable: the database is locked, full or gone.
        """
        try:
            if self._writer is not None:
                written: T = await self._writer.write(work, args)
                return written
            async with self._reader.begin() as connection:
                connection.info.pop(ENQUEUED, None)
                result = await connection.run_sync(work, *args)
                enqueued = connection.info.pop(ENQUEUED, False)
            if enqueued:
                self._tell()
            return result
        except IntegrityError as error:
            raise Contended(str(error.orig)) from error
        except DBAPIError as error:
            raise _from_postgresql(error) from error
        except PoolTimeout as error:
            raise Unavailable(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            # Statements of the hot path go to the driver, past SQLAlchemy's own translation.
            raise _translated(error) from error

    def _tell(self) -> None:
        self.when_enqueued()
        if not self.is_sqlite and not self._notice_waits:
            self._notice_waits = True
            notice = asyncio.create_task(self._notify(), name="notify")
            self._notices.add(notice)
            notice.add_done_callback(self._notices.discard)

    async def _notify(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._notified + _NOTIFY_SECONDS - loop.time())
        self._notified = loop.time()
        self._notice_waits = False  # what is enqueued from here on is told of again
        try:
            async with self._reader.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(_NOTIFY)
        except (DBAPIError, PoolTimeout, OSError) as error:
            log.warning("workers were not told of tasks; they will look themselves: %s", error)

    async def listen(self) -> None:
        """Call ``when_enqueued`` for the tasks of other processes too, until cancelled. On SQLite nobody tells.

        A process that is told nothing, because its connection was lost, finds the tasks when it looks.
        """
        while not self.is_sqlite:
            try:
                await self._listen()
            except Exception as error:
                log.warning("nothing is heard of new tasks; they are looked for: %s", error)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def _listen(self) -> None:
        """Until the connection is lost."""
        lost = asyncio.Event()
        connection = await self._reader.connect()
        try:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.add_termination_listener(lambda *_: lost.set())
            await driver.add_listener(_CHANNEL, lambda *_: self.when_enqueued())
            await lost.wait()
        finally:
            # Closed, not given back to the pool: it listens.
            await connection.invalidate()
            await connection.close()

    async def settle(self, work: Callable[..., T], *args: Any) -> T:
        """As :meth:`write`, and again as long as another transaction wins: ``work`` looks anew each time.

        Raises:
            Contended: it lost too often.
            Unavailable: as :meth:`write`.
        """
        for _ in range(_ATTEMPTS - 1):
            with suppress(Contended):
                return await self.write(work, *args)
        return await self.write(work, *args)

    async def migrate(self) -> None:
        """Bring the schema up to this version."""
        if self._write_engine is not None:
            with self._write_engine.begin() as connection:
                upgrade(connection)
        else:
            async with self._reader.begin() as connection:
                await connection.run_sync(upgrade)

    async def prepare(self) -> None:
        """Make the schema current where that is ours to do, on SQLite; elsewhere insist that it is.

        Raises:
            RuntimeError: PostgreSQL's schema is of another version.
        """
        if self.is_sqlite:
            await self.migrate()
        elif not await self.read(is_current):
            raise RuntimeError(
                "The database's schema is not current. Run `fieldsync migrate` once, then start again."
            )

    async def check(self) -> None:
        """Raise :class:`Unavailable` unless the database answers."""
        await self.read(_ping)

    @asynccontextmanager
    async def hold_lock(self, name: str) -> AsyncIterator["Lock"]:
        """The lock ``name`` of this database, if no other process has it; held until the end of the block.

        Raises:
            Unavailable: the database does not answer.
        """
        if self.is_sqlite:
            with _locked_file(f"{self.url.database}.{name}.lock") as got:
                yield Lock(got, None)
            return
        number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
        # PostgreSQL's lock belongs to a connection, so one is set aside for it; a transaction left open on
        # it would keep the database from removing old rows.
        connection = None
        try:
            try:
                connection = await self._reader.connect()
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                got = bool(await connection.scalar(_TRY_LOCK, {"number": number}))
            except (DBAPIError, PoolTimeout, OSError) as error:
                raise Unavailable(str(error)) from error
            yield Lock(got, connection)
        finally:
            if connection is not None:
                # Closing the connection itself, not giving it back to the pool, ends the lock in any case.
                await connection.invalidate()
                await connection.close()

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()
        if self._notices:
            await asyncio.wait(self._notices, timeout=_CLOSE_SECONDS)
        await self._reader.dispose()


@contextmanager
def _locked_file(path: str) -> Iterator[bool]:
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            got = True
        except BlockingIOError:
            got = False
        # The file stays: removed, two processes could each lock one of the same name.
        yield got
    finally:
        os.close(descriptor)


def _from_postgresql(error: DBAPIError) -> Exception:
    state = getattr(error.orig, "sqlstate", None)
    if state in _RETRY_STATES:
        return Contended(str(error.orig))
    if state == _LOCK_TIMEOUT:
        return Locked(str(error.orig))
    if state == _NOT_IN_REPERTOIRE:
        return Unstorable("A text may not hold a NUL.")
    known = str(state or "").startswith(_NOT_NOW)
    if known or isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
        return Unavailable(str(error.orig))
    return error


def _translated(error: Exception) -> Exception:
    if isinstance(error, sqlite3.IntegrityError):
        return Contended(str(error))
    if isinstance(error, sqlite3.OperationalError | OSError):
        return Unavailable(str(error))
    return error


def _nobody() -> None:
    pass


def _ping(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def open_database(url: str) -> Database:
    """Open the database at ``url``: ``sqlite:///path`` or ``postgresql+asyncpg://…``."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+asyncpg")
    elif parsed.get_backend_name() != "sqlite":
        raise ValueError(f"unknown database {parsed.get_backend_name()!r}: use sqlite or postgresql+asyncpg")
    return Database(parsed)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{os.fspath(path)}"


def _prepare_writer(connection: Any, _record: Any) -> None:
    # The driver's own transaction handling would begin lazily and deferred; ours begins IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_MS}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA temp_store=MEMORY")
    cursor.execute("PRAGMA cache_size=-16384")
    cursor.close()


def _prepare_session(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(_SESSION)
    connection.commit()
    cursor.close()


def _begin_immediate(connection: Connection) -> None:
    driver: Any = connection.connection.dbapi_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_reader(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_MS}")
    cursor.execute("PRAGMA query_only=ON")
    cursor.execute("PRAGMA cache_size=-8192")
    cursor.close()
