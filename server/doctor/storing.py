"""The database: whether it answers, is current, takes writes, and shares our time; and what waits in it."""

import re
import time

from server.clock import now
from server.doctor.findings import RUN_AS_OWNER, Finding, Installation, failed, ok, skipped, warning
from server.doctor.machine import sqlite_file
from storage.database import Connection, Database, open_database
from storage.migrate import revisions
from storage.queries import diagnosis

_SLOW_MS = 20
_SKEW_SECONDS = 2.0
_CONNECTIONS_EACH = 20
_LATE_SECONDS = 300
_NO_DATABASE = "the database does not answer"
_NOT_REACHED = (
    "Start PostgreSQL; then look at host and port in FIELDSYNC_DATABASE_URL and at the firewall between."
)
_HELD = (
    "Another program holds the database: find it (fuser fieldsync.db), and end a backup or shell that hangs."
)

#: What an error says -> what to do. The first that is found in it counts.
_ADVICE = [
    (
        r"password|28P01",
        "Correct user and password in FIELDSYNC_DATABASE_URL (special characters percent-encoded: @ is %40), or set "
        "the password in PostgreSQL: ALTER ROLE fieldsync PASSWORD '…'.",
    ),
    (r"database \S+ does not exist", "Create it: createdb -E UTF8 -O fieldsync fieldsync"),
    (r"role \S+ does not exist", "Create it: createuser -P fieldsync"),
    (r"pg_hba", "Let this machine in: a line in PostgreSQL's pg_hba.conf, then SELECT pg_reload_conf()."),
    (
        r"too many (clients|connections)|connection slots",
        f"Raise max_connections of PostgreSQL: every process takes up to {_CONNECTIONS_EACH}.",
    ),
    (
        r"certificate|SSL",
        "Correct the TLS of the connection: PostgreSQL's certificate, or ssl= in the address.",
    ),
    (
        r"(not known|name resolution|nodename|No address)",
        "Correct the host in FIELDSYNC_DATABASE_URL, or this machine's name resolution.",
    ),
    (
        r"Connect call failed|refused|No such file|[Tt]ime(d out|out)|unreachable|closed|shutting down|starting up",
        _NOT_REACHED,
    ),
    (
        r"full|No space|could not extend",
        "Make room on the disk of the database. Clients keep what they have and retry.",
    ),
    (r"locked", _HELD),
    (
        r"read-?only|unable to open|[Pp]ermission denied",
        "Give the database's file and folder to the account of the service: sudo chown -R fieldsync: FOLDER",
    ),
    (r"malformed|not a database|corrupt", "Restore a backup: docs/operations.md, “Backup and restore”."),
]


async def check_database(installation: Installation) -> Finding:
    """It answers, and how fast."""
    settings = installation.settings
    if installation.is_sqlite and not sqlite_file(settings).exists():
        return failed(
            f"there is no {sqlite_file(settings)} yet",
            "Create the first team: fieldsync init --team NAME --owner EMAIL. Or set FIELDSYNC_DATA, --data or "
            "FIELDSYNC_DATABASE_URL to the installation you mean.",
        )
    try:
        database = open_database(settings.effective_database_url)
    except Exception as error:
        return failed(
            f"FIELDSYNC_DATABASE_URL cannot be used: {installation.quote(error)}",
            "It takes postgresql+asyncpg://user:password@host/name.",
        )
    try:
        about = await database.read(diagnosis.server)
    except BaseException as error:
        await database.close()
        if not isinstance(error, Exception):
            raise
        return failed(f"it does not answer: {installation.quote(error)}", _advice(error))
    installation.database = database
    milliseconds = 1000 * await _latency(database)
    if database.is_sqlite:
        return ok(f"SQLite {about.version}, answers in {milliseconds:.1f} ms")
    text = (
        f"PostgreSQL {about.version} at {_place(database)}, answers in {milliseconds:.1f} ms, "
        f"{about.connections} connections"
    )
    if about.encoding != "UTF8":
        return failed(
            f"{text}; its encoding is {about.encoding}",
            "Make a database that can hold every text: createdb -E UTF8",
        )
    if await database.read(diagnosis.changes_backend):
        return warning(
            f"{text}; through a pooler that changes the server's connection between transactions",
            "Let the pooler (PgBouncer) work in session mode, or connect to PostgreSQL directly: the lock of the clock "
            "and waking of workers belong to one connection.",
        )
    if milliseconds > _SLOW_MS:
        return warning(
            f"{text}: far away",
            "Put database and servers into one network: each push makes several round trips.",
        )
    if about.connections < 2 * _CONNECTIONS_EACH:
        return warning(
            f"{text}: enough for one process",
            f"Raise max_connections of PostgreSQL: every process takes up to {_CONNECTIONS_EACH}.",
        )
    return ok(text)


def when_unreachable(installation: Installation) -> str:
    """What to do if the database does not answer in time."""
    return "Look at the disk of the data folder: it hangs." if installation.is_sqlite else _NOT_REACHED


def when_locked(installation: Installation) -> str:
    """What to do if it answers, and a transaction does not end in time."""
    if installation.is_sqlite:
        return _HELD
    return (
        "Another transaction holds a lock: SELECT pid, state, query FROM pg_stat_activity WHERE "
        "cardinality(pg_blocking_pids(pid)) > 0 OR state = 'idle in transaction' shows who waits and for whom. A "
        "full disk looks alike."
    )


async def _latency(database: Database) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        await database.check()
        best = min(best, time.perf_counter() - began)
    return best


def _place(database: Database) -> str:
    url = database.url
    host = url.host or url.query.get("host") or "localhost"
    port = f":{url.port}" if url.port else ""
    return f"{host}{port}/{url.database}"


def _advice(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    for pattern, advice in _ADVICE:
        if re.search(pattern, text):
            return advice
    return "See the log of the database for the reason."


async def check_schema(installation: Installation) -> Finding:
    """The tables are those of this version."""
    database = installation.database
    if database is None:
        return skipped(_NO_DATABASE)
    current, newest, known = await database.read(revisions)
    if current == newest:
        installation.schema_is_current = True
        return ok(f"current ({newest})")
    if not known:
        return failed(
            f"of another version ({current}) than this program, which knows {newest} as the newest",
            "Install the version of Fieldsync that the other processes run: a schema never goes back.",
        )
    found = f"it is at {current}" if current else "it is empty"
    if database.is_sqlite:
        return warning(
            f"{found}, this version needs {newest}",
            "Make a backup and start `fieldsync serve`, which brings it up to date; or run `fieldsync migrate`.",
        )
    return failed(
        f"{found}, this version needs {newest}", "Run `fieldsync migrate` once, then start the processes."
    )


async def check_teams(installation: Installation) -> Finding:
    """Somebody can sign in."""
    database = installation.database
    if database is None or not installation.schema_is_current:
        return skipped(_why_not(installation))
    installation.has_triggers = await database.read(diagnosis.any_trigger)
    count = await database.read(diagnosis.count_teams)
    if not count:
        return warning("there is none", "Create the first one: fieldsync init --team NAME --owner EMAIL")
    return ok("one" if count == 1 else f"{count:,}")


async def check_writing(installation: Installation) -> Finding:
    """A transaction is committed; with SQLite, safely."""
    database = installation.database
    if database is None or not installation.schema_is_current:
        return skipped(_why_not(installation))
    if installation.is_sqlite and installation.folder_owner is not None:
        return skipped("the database's folder is not ours", RUN_AS_OWNER)
    try:
        began = time.perf_counter()
        mode = await database.write(_write, now())
        milliseconds = 1000 * (time.perf_counter() - began)
    except TimeoutError:
        raise
    except Exception as error:
        return failed(f"a row cannot be written: {installation.quote(error)}", _advice(error))
    if mode is None:
        return ok(f"committed in {milliseconds:.1f} ms")
    journal, synchronous = mode
    if journal != "wal" or synchronous < 2:
        return warning(
            f"committed, but with journal_mode {journal} and synchronous {synchronous}, not wal and 2",
            "Use a local disk: on this file system SQLite cannot keep what was acknowledged through a power cut.",
        )
    return ok(f"committed in {milliseconds:.1f} ms; journal_mode wal, synchronous full")


def _write(connection: Connection, at: int) -> tuple[str, int] | None:
    diagnosis.write_and_remove(connection, at)
    return diagnosis.journal(connection) if connection.dialect.name == "sqlite" else None


async def check_clock(installation: Installation) -> Finding:
    """Ours and the database's: leases, links and tokens live by both."""
    database = installation.database
    if installation.is_sqlite:
        return skipped("with SQLite there is one clock")
    if database is None:
        return skipped(_NO_DATABASE)
    before = installation.clock()
    theirs = await database.read(diagnosis.time_of_database)
    after = installation.clock()
    # Beyond what the trip there and back explains.
    skew = (before + after) / 2 - theirs
    if abs(skew) - (after - before) / 2 > _SKEW_SECONDS:
        return warning(
            f"this machine is {abs(skew):,.1f} s {'ahead of' if skew > 0 else 'behind'} the database",
            "Let every machine follow a time server (timedatectl set-ntp true, or chrony): leases of tasks, links and "
            "tokens are judged by the clock of whichever machine looks.",
        )
    return ok(f"{abs(skew) * 1000:,.0f} ms from the database's")


async def check_background_work(installation: Installation) -> Finding:
    """Somebody does what waits."""
    database = installation.database
    if database is None or not installation.schema_is_current:
        return skipped(_why_not(installation))
    at = now()
    backlog = await database.read(diagnosis.backlog, at)
    if backlog.oldest is None:
        return ok(f"nothing waits; {backlog.running} running")
    seconds = (at - backlog.oldest) / 1_000_000
    text = f"{backlog.due:,} due, the oldest for {_length(seconds)}; {backlog.running} running"
    if seconds <= _LATE_SECONDS:
        return ok(text)
    if not backlog.running:
        return warning(
            f"{text}: nobody does background work",
            "Start a worker: `fieldsync worker`, or `fieldsync serve` without --no-worker and with FIELDSYNC_WORKER "
            "not none. If one runs, its log says what it lacks.",
        )
    return warning(
        f"{text}: the workers fall behind", "Start more `fieldsync worker` processes, or look at their log."
    )


async def check_failed_tasks(installation: Installation) -> Finding:
    """Nothing was given up."""
    database = installation.database
    if database is None or not installation.schema_is_current:
        return skipped(_why_not(installation))
    dead = (await database.read(diagnosis.backlog, now())).dead
    if not dead:
        return ok("none")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(dead.items()))
    return warning(
        f"given up after their last attempt: {kinds}",
        "GET /tasks/v1?state=dead shows each with its last error, by team; once the cause is gone, "
        "POST /tasks/v1/{taskId}/replay runs it again. They are forgotten after 30 days.",
    )


def _why_not(installation: Installation) -> str:
    return _NO_DATABASE if installation.database is None else "the schema is not current"


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
