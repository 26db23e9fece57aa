"""`fieldsync doctor`: what is broken is found, says what to do, and hides nothing else; no secret is printed."""

import asyncio
import json
import os
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from server import clock
from server.doctor import machine, storing, visit
from server.doctor.findings import Check, Finding, Installation, State, ok, warning
from server.doctor.machine import sqlite_file
from server.settings import Settings
from storage import database as database_module
from storage.database import Connection, open_database
from storage.queries import diagnosis, tasks
from tests.support.doctor import at_work, doctor, findings, wants, write
from tests.support.postgres import Postgres
from tests.support.process import command, environment, free_port, init

DATABASE_PASSWORD = "correct horse/battery@staple"


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings().environment():
        monkeypatch.delenv(name, raising=False)


# A good installation


def test_where_nothing_is_wrong_nothing_is_found(database_url: str, tmp_path: Path) -> None:
    found = findings(at_work(tmp_path, database_url, public_url="https://nobody.invalid"))
    # No mail server, no server that runs; and this machine may be slow or full.
    unjudged = {"mail", "server", "data-folder", "database"}
    assert {name: finding for name, finding in found.items() if finding.state is State.FAILED} == {}
    troubles = [name for name, finding in found.items() if finding.state is State.WARNING]
    assert set(troubles) <= unjudged
    assert found["schema"].state is found["writing"].state is found["files"].state is State.OK


def test_looking_leaves_nothing_behind(database_url: str, tmp_path: Path) -> None:
    settings = at_work(tmp_path, database_url)
    before = secrets_of(settings)
    assert findings(settings)["writing"].state is State.OK
    assert secrets_of(settings) == before
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
    assert list(tmp_path.glob(".*")) == []


def test_a_folder_of_files_that_no_server_has_made_is_not_made(tmp_path: Path) -> None:
    settings = at_work(tmp_path)
    (tmp_path / "blobs").rmdir()
    wants(findings(settings)["files"], State.SKIPPED, "there is no", "Start the server")
    assert not (tmp_path / "blobs").exists()


def secrets_of(settings: Settings) -> int:
    def count(connection: Connection) -> int:
        return len(list(connection.exec_driver_sql("SELECT name FROM server_secrets")))

    answer: int = write(settings, count)
    return answer


def test_nothing_is_made_where_there_is_no_installation(tmp_path: Path) -> None:
    found = findings(Settings(data=tmp_path / "typo", port=free_port()))
    wants(found["data-folder"], State.FAILED, "there is no", "FIELDSYNC_DATA")
    wants(found["database"], State.FAILED, "there is no", "fieldsync init")
    assert found["files"].state is State.SKIPPED
    assert not (tmp_path / "typo").exists()


# The command


def test_the_exit_status_says_whether_something_failed(tmp_path: Path) -> None:
    init(tmp_path / "data")
    good = doctor("--data", str(tmp_path / "data"), port=free_port())
    if "failed   fonts" not in good.stdout:  # this machine may have none
        assert good.returncode == 0, good.stdout
    assert good.stderr == ""
    (tmp_path / "file").write_text("")
    bad = doctor("--data", str(tmp_path / "file" / "data"), port=free_port())
    assert bad.returncode == 1
    assert "failed   data-folder" in bad.stdout
    unreadable = doctor(port="eighty")
    assert unreadable.returncode == 2
    assert "FIELDSYNC_PORT takes a whole number" in unreadable.stdout


def test_the_json_has_every_check_with_its_state_and_advice(tmp_path: Path) -> None:
    done = doctor("--json", "--data", str(tmp_path / "nowhere"), port=free_port())
    document = json.loads(done.stdout)
    assert done.returncode == 1
    assert document["state"] == "failed"
    assert [check["name"] for check in document["checks"]] == [check.name for check in visit.CHECKS]
    for check in document["checks"]:
        assert set(check) == {"name", "state", "finding", "advice"}
        assert check["finding"]
        if check["state"] != "skipped":
            assert bool(check["advice"]) == (check["state"] in ("warning", "failed")), check
    refused = doctor("--json", port="eighty")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["checks"][0]["state"] == "failed"


def test_a_terminal_that_knows_ascii_only_gets_an_answer_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [command(), "doctor", "--data", str(tmp_path / "Störung\n")],
        capture_output=True,
        env=environment(port=free_port()) | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert b"there is no " in done.stdout
    assert b"St?rung " in done.stdout  # and its line break is none


def test_a_check_that_fails_or_hangs_hides_no_other() -> None:
    async def raises(_: Installation) -> Finding:
        raise RuntimeError("surprise")

    async def hangs(_: Installation) -> Finding:
        await asyncio.sleep(60)
        return ok("late")

    async def works(_: Installation) -> Finding:
        return ok("fine")

    async def collect() -> list[visit.Result]:
        checks = [Check("raises", raises), Check("hangs", hangs, 0.05), Check("works", works)]
        return [result async for result in visit.examine(Installation(Settings()), checks)]

    first, second, third = asyncio.run(collect())
    wants(first.finding, State.FAILED, "RuntimeError: surprise", "report")
    wants(second.finding, State.FAILED, "no answer within", "hangs")
    assert third.finding == ok("fine")


def test_a_thread_that_hangs_does_not_keep_the_command_from_ending() -> None:
    # A pipe that nobody writes to, read in a thread.
    script = (
        "import asyncio, os; from server.doctor import findings, visit; from server.settings import Settings\n"
        "async def hangs(_): return await asyncio.to_thread(os.read, os.pipe()[0], 1)\n"
        "visit.examine.__defaults__ = ((findings.Check('hangs', hangs, 0.1),),)\n"
        "visit.visit(Settings())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert "0 ok, 0 warning, 1 failed" in done.stdout


@pytest.mark.parametrize(
    ("settings", "secrets"),
    [
        (Settings(public_url="https://ada:hidden-word@sync.example.com"), ("hidden-word",)),
        (Settings(public_url="https://ada:pw@sync.example.com"), (":pw@",)),
        (Settings(oidc_issuer="https://ada:hidden-word@login.example.com"), ("hidden-word",)),
        (Settings(database_url="postgresql+asyncpg://u:hidden@word@db/x"), ("hidden", "word")),
        (Settings(database_url="postgresql+asyncpg://u:hidden/12@db/x"), ("hidden", "12@")),
        (Settings(smtp_url="smtp://u:hidden%40word@mail"), ("hidden%40word", "hidden@word")),
        (Settings(blobs="s3://b?endpoint=https://u:hidden-word@s3"), ("hidden-word",)),
    ],
)
def test_no_finding_shows_a_password_of_an_address(settings: Settings, secrets: tuple[str, ...]) -> None:
    addresses = " ".join(
        [settings.public_url, settings.oidc_issuer, settings.database_url, settings.smtp_url, settings.blobs]
    )

    async def tells(_: Installation) -> Finding:
        return warning(f"{addresses} {secrets}", f"look at {addresses}")

    async def raises(_: Installation) -> Finding:
        raise OSError(addresses)

    async def collect() -> str:
        checks = [Check("tells", tells), Check("raises", raises)]
        return "\n".join([visit.as_text(one) async for one in visit.examine(Installation(settings), checks)])

    told = asyncio.run(collect())
    assert "***" in told
    for secret in secrets:
        assert secret not in told


def test_a_misspelt_setting_is_named_with_the_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDSYNC_SMPT_URL", "smtp://mail.example.com")
    finding = asyncio.run(machine.check_settings(Installation(Settings())))
    wants(finding, State.WARNING, "FIELDSYNC_SMPT_URL", "FIELDSYNC_SMTP_URL")
    monkeypatch.delenv("FIELDSYNC_SMPT_URL")
    monkeypatch.setenv("FIELDSYNC_OIDC_CLIENT_SECRET", "very-secret")
    assert asyncio.run(machine.check_settings(Installation(Settings()))) == ok(
        "set: FIELDSYNC_OIDC_CLIENT_SECRET"
    )


# The machine


def test_a_data_folder_that_is_a_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("")
    found = findings(Settings(data=file, port=free_port()))
    wants(found["data-folder"], State.FAILED, "is a file", "FIELDSYNC_DATA")


def test_a_full_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for free, state in ((50_000_000, State.FAILED), (1_000_000_000, State.WARNING), (10**12, State.OK)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        finding = asyncio.run(machine.check_data_folder(Installation(Settings(data=tmp_path))))
        assert finding.state is state
        assert ("larger disk" in finding.advice) == (state is not State.OK)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_folder_of_another_account_is_found(tmp_path: Path) -> None:
    settings = at_work(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    found = findings(settings, "ada@example.com")
    wants(found["data-folder"], State.WARNING, "another account", "sudo -u ")
    wants(found["database-file"], State.WARNING, "belongs to", "chown")
    # What is written by the wrong account stays in the way of the right one.
    for name in ("writing", "files", "test-mail"):
        wants(found[name], State.SKIPPED, "not ours", "as the account of the service")
    assert not (tmp_path / "mail").exists()


def test_a_database_that_others_can_read_is_found(tmp_path: Path) -> None:
    settings = at_work(tmp_path)
    file = tmp_path / "fieldsync.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert findings(settings)["database-file"].state is State.OK
    file.chmod(0o644)
    wants(findings(settings)["database-file"], State.WARNING, "other accounts can read", "chmod 600")


@pytest.mark.parametrize(
    ("setting", "value", "state", "text"),
    [
        ("webhook_networks", ("127.0.0.0/8",), State.WARNING, "services of this machine"),
        ("webhook_networks", ("0.0.0.0/0",), State.WARNING, "every network around it"),
        ("webhook_networks", ("10.1.0.0/16",), State.OK, "10.1.0.0/16"),
    ],
)
def test_ports_and_networks_of_webhooks_are_read(
    setting: str, value: tuple[str, ...], state: State, text: str
) -> None:
    settings = Settings(**{setting: value})  # type: ignore[arg-type]
    finding = asyncio.run(machine.check_webhooks(Installation(settings)))
    assert finding.state is state
    assert text in finding.text
    assert bool(finding.advice) == (state is not State.OK)


@pytest.mark.parametrize(
    ("settings", "state", "text"),
    [
        (Settings(), State.OK, "for this machine alone"),
        (Settings(smtp_url="smtp://mail.example.com"), State.WARNING, "mails hold links"),
        (Settings(host="0.0.0.0"), State.WARNING, "other machines"),
        (Settings(database_url="postgresql+asyncpg://x/y"), State.WARNING, "one issuer"),
        (Settings(public_url="http://sync.example.com"), State.WARNING, "in the clear"),
        (Settings(public_url="http://127.0.0.1:8000"), State.OK, "127.0.0.1"),
        (Settings(public_url="sync.example.com"), State.FAILED, "not a web address"),
        (Settings(public_url="https://sync.example.com/"), State.OK, "https://sync.example.com"),
    ],
)
def test_a_public_address_is_missed_where_something_needs_it(
    settings: Settings, state: State, text: str
) -> None:
    finding = asyncio.run(machine.check_public_address(Installation(settings)))
    assert finding.state is state
    assert text in finding.text


# The database


def test_a_wrong_password_of_the_database_is_found_and_not_printed(
    postgres: Postgres, fresh_postgres: str, tmp_path: Path
) -> None:
    postgres.execute("DROP ROLE IF EXISTS careful")
    postgres.execute("CREATE ROLE careful LOGIN PASSWORD 'another one'")
    hba = Path(asyncio.run(_hba_file(fresh_postgres)))
    lines = hba.read_text()
    hba.write_text(f"local all careful scram-sha-256\n{lines}")
    postgres.execute("SELECT pg_reload_conf()")
    url = fresh_postgres.replace("postgres@", "careful:correct%20horse%2Fbattery%40staple@")
    (tmp_path / "blobs").mkdir()
    try:
        found = findings(Settings(data=tmp_path, database_url=url, port=free_port()))
        told = doctor("--json", data=tmp_path, database_url=url, port=free_port())
    finally:
        hba.write_text(lines)
        postgres.execute("SELECT pg_reload_conf()")
    wants(found["database"], State.FAILED, "password authentication failed", "FIELDSYNC_DATABASE_URL")
    for name in ("schema", "teams", "writing", "clock", "background-work", "failed-tasks"):
        assert found[name].state is State.SKIPPED, name
    assert found["files"].state is State.OK
    assert told.returncode == 1
    for secret in (DATABASE_PASSWORD, "battery", "horse"):
        assert secret not in told.stdout + told.stderr


async def _hba_file(url: str) -> str:
    database = open_database(url)
    try:
        return await database.read(
            lambda connection: connection.exec_driver_sql("SHOW hba_file").scalar_one()
        )
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("postgresql+asyncpg://u:hidden-word@127.0.0.1:1/x", "Start PostgreSQL"),
        ("postgresql+asyncpg://u:hidden-word@db.invalid/x", "name resolution"),
        ("mysql://u:hidden-word@127.0.0.1/x", "postgresql+asyncpg://"),
        ("postgresql+asyncpg://u:hidden-word@127.0.0.1:port/x", "postgresql+asyncpg://"),
        ("u:hidden-word", "postgresql+asyncpg://"),
    ],
)
def test_a_database_that_is_not_there_is_found(url: str, advice: str, tmp_path: Path) -> None:
    found = findings(Settings(data=tmp_path, database_url=url, port=free_port()))
    assert found["database"].state is State.FAILED
    assert advice in found["database"].advice
    assert not any("hidden-word" in finding.text + finding.advice for finding in found.values())


def test_a_database_that_was_never_made_is_found(fresh_postgres: str, tmp_path: Path) -> None:
    missing = Settings(data=tmp_path, database_url=fresh_postgres.replace("/fieldsync_", "/fieldsync_no_"))
    wants(findings(missing)["database"], State.FAILED, "does not exist", "createdb")
    empty = Settings(data=tmp_path, database_url=fresh_postgres, port=free_port())
    wants(findings(empty)["schema"], State.FAILED, "it is empty", "fieldsync migrate")


def test_an_old_and_a_newer_schema_are_found(database_url: str, tmp_path: Path) -> None:
    settings = at_work(tmp_path, database_url)
    write(settings, _at_revision, "0002")
    finding = findings(settings)["schema"]
    assert "it is at 0002, this version needs 00" in finding.text
    assert "fieldsync migrate" in finding.advice
    assert finding.state is (State.WARNING if not database_url.startswith("postgresql") else State.FAILED)
    assert findings(settings)["writing"].state is State.SKIPPED
    write(settings, _at_revision, "9999")
    wants(findings(settings)["schema"], State.FAILED, "(9999)", "never goes back")


def _at_revision(connection: Connection, revision: str) -> None:
    connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_a_database_that_another_program_holds_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_MS", 50)
    settings = at_work(tmp_path)
    with closing(sqlite3.connect(tmp_path / "fieldsync.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        wants(findings(settings)["writing"], State.FAILED, "locked", "end a backup")


def hurried(settings: Settings, *names: str) -> dict[str, Finding]:
    """What these checks find if the last of them has but a moment."""
    checks = [check for check in visit.CHECKS if check.name in names]
    checks[-1] = checks[-1]._replace(seconds=0.3)

    async def collect() -> dict[str, Finding]:
        return {one.name: one.finding async for one in visit.examine(Installation(settings), checks)}

    # In a thread: a test may be within a loop, with the database held.
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(asyncio.run, collect()).result()


def test_a_database_that_is_held_for_longer_than_the_doctor_waits_is_found(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_SQLITE_BUSY_MS", 1500)
    settings = at_work(tmp_path, database_url)
    names = ("database", "schema", "writing")
    if database_url.startswith("postgresql"):

        def hold(connection: Connection) -> dict[str, Finding]:
            connection.exec_driver_sql("LOCK TABLE server_secrets IN EXCLUSIVE MODE")
            return hurried(settings, *names)

        found, advice = write(settings, hold), "pg_stat_activity"
    else:
        with closing(sqlite3.connect(sqlite_file(settings), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            found, advice = hurried(settings, *names), "end a backup"
    wants(found["writing"], State.FAILED, "no answer within", advice)


def test_a_database_that_takes_a_connection_and_says_nothing_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+asyncpg://u@127.0.0.1:{silent.getsockname()[1]}/x"
        found = hurried(Settings(data=tmp_path, database_url=url), "database")
    wants(found["database"], State.FAILED, "no answer within", "Start PostgreSQL; then look at host and port")


def test_a_pooler_that_changes_connections_is_found(
    fresh_postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = at_work(tmp_path, fresh_postgres)
    assert "pooler" not in findings(settings)["database"].text
    backends = iter(range(100))
    monkeypatch.setattr(diagnosis, "_backend", lambda _: next(backends))
    wants(findings(settings)["database"], State.WARNING, "pooler", "session mode")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("database or disk is full", "Make room"),
        ("attempt to write a readonly database", "chown"),
        ("database disk image is malformed", "Restore a backup"),
        ("sorry, too many clients already", "max_connections"),
        ("no pg_hba.conf entry for host", "pg_hba.conf"),
    ],
)
def test_what_a_database_says_is_explained(
    error: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = at_work(tmp_path)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError(error)

    monkeypatch.setattr(storing, "_write", refuse)
    wants(findings(settings)["writing"], State.FAILED, error, advice)


@pytest.mark.parametrize(("seconds", "word"), [(3600, "ahead of"), (-3600, "behind")])
def test_a_clock_that_differs_from_the_databases_is_found(
    fresh_postgres: str, tmp_path: Path, seconds: int, word: str
) -> None:
    settings = at_work(tmp_path, fresh_postgres)
    found = findings(settings, clock=lambda: time.time() + seconds)
    wants(found["clock"], State.WARNING, word, "time server")
    assert "3,600" in found["clock"].text
    assert findings(settings)["clock"].state is State.OK


# Background work


def test_tasks_that_nobody_takes_are_found(database_url: str, tmp_path: Path) -> None:
    settings = at_work(tmp_path, database_url)
    assert findings(settings)["background-work"].state is State.OK
    hour_ago = clock.now() - 3_600_000_000
    write(settings, lambda connection: tasks.enqueue(connection, 1, "work", "a", now=hour_ago))
    found = findings(settings)
    wants(found["background-work"], State.WARNING, "1 due, the oldest for 1 h; 0 running", "fieldsync worker")
    assert found["failed-tasks"].state is State.OK


def test_tasks_that_were_given_up_are_found(database_url: str, tmp_path: Path) -> None:
    settings = at_work(tmp_path, database_url)

    def give_up(connection: Connection) -> None:
        tasks.enqueue(connection, 1, "thumbnails", "a", now=clock.now())
        connection.exec_driver_sql("UPDATE tasks SET state = 'dead', error = 'it is no picture'")

    write(settings, give_up)
    wants(findings(settings)["failed-tasks"], State.WARNING, "thumbnails 1", "GET /tasks/v1?state=dead")
