"""What every database must do for us: the queries of ``storage``, the same suite on each kind."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select

from storage.database import Connection, Contended, Database, open_database
from storage.migrate import _config
from storage.queries import clients, feed, jobs, pushes, quarantine, snapshots, teams, tokens, users
from storage.queries.clients import NewClient
from storage.queries.users import NewUser, UserRow, user_by_username
from storage.tables import feed_entries, feeds, metadata
from storage.tables import users as users_table
from sync.batch import apply_batch
from sync.items import Applied, Caller, ChangeItem, PushItem
from sync.snapshot import parse

T = TypeVar("T")


class Storage:
    """An open, migrated database and the loop it lives on. ``a`` and ``b`` are two teams."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self.runner = runner
        self.database: Database = open_database(url)
        runner.run(self.database.migrate())
        self.a = self.write(teams.insert_team, "a", 1)
        self.b = self.write(teams.insert_team, "b", 1)

    def read(self, query: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return self.runner.run(
            self.database.read(lambda connection: query(connection, *arguments, **options))
        )

    def write(self, work: Callable[..., T], *arguments: Any) -> T:
        return self.runner.run(self.database.write(work, *arguments))

    def push(self, *bodies: bytes, team: int | None = None, subject: str = "worker") -> list[Applied]:
        """Apply bodies in one transaction; they must be good."""
        team_id = self.a if team is None else team
        caller = Caller(team_id, "team", subject, False)
        results = self.write(apply_batch, [PushItem(caller, parse(body), 1_000) for body in bodies])
        applied = [result for result in results if isinstance(result, Applied)]
        assert len(applied) == len(bodies), results
        return applied

    def change(self, kind: Any, client_job_id: str, team: int | None = None) -> Applied:
        """An operator's change, as one transaction."""
        caller = Caller(self.a if team is None else team, "team", "owner", False)
        (result,) = self.write(apply_batch, [ChangeItem(caller, client_job_id, 2_000, kind)])
        assert isinstance(result, Applied)
        return result


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    with asyncio.Runner() as runner:
        opened = Storage(database_url, runner)
        yield opened
        runner.run(opened.database.close())


def body(
    client_job_id: str, *, workflow: str = "w", install: int | None = None, seq: int = 1, **more: str
) -> bytes:
    members = "".join(f',"{name}":"{value}"' for name, value in more.items())
    sync = "" if install is None else f',"sync":{{"installId":"{uuid(install)}","pushSeq":{seq}}}'
    return f'{{"metadata":{{"clientJobId":"{client_job_id}","workflowId":"{workflow}"{members}}}{sync}}}'.encode()


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def ids(rows: list[jobs.JobView]) -> list[str]:
    return [row.client_job_id for row in rows]


# Migrations


def test_the_migrations_make_exactly_the_tables_of_the_code(storage: Storage) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "target_metadata": metadata}
        )
        return list(compare_metadata(context, metadata))

    assert storage.read(differences) == []


def test_migrating_again_keeps_everything(storage: Storage) -> None:
    storage.push(body("kept"))
    storage.runner.run(storage.database.migrate())
    assert storage.read(jobs.by_client_job_id, storage.a, "kept") is not None


def test_users_of_the_schema_before_groups_and_accounts_stay_as_they_are(database_url: str) -> None:
    def fill(connection: Connection) -> None:
        command.upgrade(_config(connection), "0002")
        connection.exec_driver_sql("INSERT INTO teams (team_id, name, created_at) VALUES (7, 'old', 1)")
        connection.exec_driver_sql(
            "INSERT INTO users (team_id, user_id, username, username_key, email_address, name, password_hash, "
            "permissions, locked, created_at) VALUES (7, 'u', 'Ana', 'ana', 'Ana@Example.com', 'Ana', 'h', "
            "'EXECUTOR', false, 1)"
        )

    async def main() -> UserRow | None:
        database = open_database(database_url)
        try:
            if database._write_engine is not None:
                with database._write_engine.begin() as connection:
                    fill(connection)
            else:
                async with database._reader.begin() as connection:
                    await connection.run_sync(fill)
            await database.migrate()
            return await database.read(user_by_username, "ana")
        finally:
            await database.close()

    user = asyncio.run(main())
    assert user is not None
    assert user.email_address == "Ana@Example.com"
    assert (user.held, user.locked, user.password_expired) == (frozenset({"EXECUTOR"}), False, False)


# Transactions


def test_work_that_loses_to_another_transaction_is_done_again_and_then_sees_it(storage: Storage) -> None:
    looks: list[bool] = []

    def work(connection: Connection) -> str:
        looks.append(teams.team_by_name(connection, "taken") is not None)
        if len(looks) < 3:
            raise Contended("another one was faster")
        return "done"

    assert storage.runner.run(storage.database.settle(work)) == "done"
    assert len(looks) == 3

    def never(connection: Connection) -> None:
        looks.append(False)
        raise Contended("always")

    looks.clear()
    with pytest.raises(Contended):
        storage.runner.run(storage.database.settle(never))
    assert len(looks) == 5


def test_a_transaction_that_fails_leaves_nothing(storage: Storage) -> None:
    def work(connection: Connection) -> None:
        teams.insert_team(connection, "half", 1)
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        storage.write(work)
    assert storage.read(teams.team_by_name, "half") is None


def test_what_is_read_cannot_be_written(storage: Storage) -> None:
    if not storage.database.is_sqlite:
        pytest.skip("a reading connection of PostgreSQL ends with a rollback instead")
    with pytest.raises(Exception, match="readonly"):
        storage.read(teams.insert_team, "sneaked in", 1)


def test_a_reader_does_not_keep_what_it_wrote(storage: Storage) -> None:
    if storage.database.is_sqlite:
        pytest.skip("a reading connection of SQLite refuses to write")
    storage.read(teams.insert_team, "sneaked in", 1)
    assert storage.read(teams.team_by_name, "sneaked in") is None


def test_losing_a_race_to_create_is_told_apart_from_failure(storage: Storage) -> None:
    storage.push(body("raced"))
    known: jobs.JobView | None = storage.read(jobs.by_client_job_id, storage.a, "raced")
    assert known is not None

    def create_blindly(connection: Connection) -> None:
        # As a transaction does that looked before the other one committed.
        feed.incarnation(connection, storage.a)
        jobs.write(connection, [_job_row(storage.a, "0" * 24, "raced")])

    with pytest.raises(Contended):
        storage.write(create_blindly)
    assert storage.read(jobs.by_client_job_id, storage.a, "raced") == known


def _job_row(team_id: int, job_id: str, client_job_id: str) -> jobs.JobWrite:
    return jobs.JobWrite(
        team_id=team_id,
        job_id=job_id,
        client_job_id=client_job_id,
        rev=1,
        owner_id="o",
        workflow_id="w",
        finished=False,
        status=None,
        excluded=False,
        created_at=1,
        modified_at=1,
        deleted_at=None,
        format=1,
        view=b"\x00\xff{}",
        edits=b"\x00",
    )


# Jobs


def test_jobs_are_locked_in_the_order_of_their_ids_tombstones_included(storage: Storage) -> None:
    storage.push(body("b"), body("a"), body("c"))
    storage.change("delete", "c")
    rows = storage.write(jobs.lock, storage.a, ["c", "a", "missing", "b"])
    assert [(row.client_job_id, row.deleted_at) for row in rows] == [("a", None), ("b", None), ("c", 2_000)]
    assert (bytes(rows[2].view), bytes(rows[2].edits)) == (b"", b"")


def test_bodies_come_back_byte_for_byte(storage: Storage) -> None:
    row = _job_row(storage.a, "1" * 24, "bytes")
    storage.write(jobs.write, [row])
    (found,) = storage.write(jobs.lock, storage.a, ["bytes"])
    assert (bytes(found.view), bytes(found.edits)) == (row.view, row.edits)


def test_rewriting_a_job_leaves_what_never_changes(storage: Storage) -> None:
    storage.write(jobs.write, [_job_row(storage.a, "1" * 24, "job"), _job_row(storage.a, "2" * 24, "other")])
    rewritten = _job_row(storage.a, "1" * 24, "job")._replace(rev=7, created_at=99, view=b"new", owner_id="p")
    storage.write(jobs.write, [rewritten])
    found, other = storage.write(jobs.lock, storage.a, ["job", "other"])
    assert (found.rev, found.created_at, bytes(found.view), found.owner_id) == (7, 1, b"new", "p")
    assert other.rev == 1


def test_pages_are_newest_first_and_deleted_jobs_are_not_in_them(storage: Storage) -> None:
    names = [f"{number:02}" for number in range(10)]
    for name in names:
        storage.push(
            body(name, workflow="even" if int(name) % 2 == 0 else "odd"), subject=f"s{int(name) % 3}"
        )
    storage.change("delete", "04")
    newest = [name for name in reversed(names) if name != "04"]
    page = storage.read(jobs.page, storage.a, limit=100)
    assert ids(page) == newest
    assert ids(storage.read(jobs.page, storage.a, limit=3)) == newest[:3]
    assert ids(storage.read(jobs.page, storage.a, limit=3, skip=2)) == newest[2:5]
    assert ids(storage.read(jobs.page, storage.a, limit=3, skip=9)) == []
    assert ids(storage.read(jobs.page, storage.a, limit=2, before=page[4].job_id)) == newest[5:7]
    assert ids(storage.read(jobs.page, storage.a, limit=9, workflow_id="even")) == ["08", "06", "02", "00"]
    assert ids(storage.read(jobs.page, storage.a, limit=9, owner_id="s0")) == ["09", "06", "03", "00"]
    assert ids(storage.read(jobs.page, storage.a, limit=9, skip=1, owner_id="s0", workflow_id="odd")) == [
        "03"
    ]


def test_open_jobs_are_found_oldest_first_beyond_a_place(storage: Storage) -> None:
    storage.push(body("a"), body("b", status="Completed"), body("c"), body("d"))
    storage.push(body("e"), subject="other")
    storage.change("abort", "d")
    found = storage.read(jobs.open_ids, storage.a, None, "", 10)
    assert [client_job_id for _, client_job_id in found] == ["a", "c", "e"]
    assert storage.read(jobs.open_ids, storage.a, None, found[0][0], 1) == found[1:2]
    assert storage.read(jobs.open_ids, storage.a, "other", "", 10) == found[2:]


# History, pushes, quarantine


def test_a_body_enters_the_history_once(storage: Storage) -> None:
    for _ in range(2):
        storage.push(body("job", install=1), body("job", install=2))
    assert len(storage.read(snapshots.of_job, storage.a, "job", 0, 10) or []) == 1
    storage.push(body("job", install=1, seq=2, jobTitle="other"))
    history = storage.read(snapshots.of_job, storage.a, "job", 0, 10)
    assert history is not None
    assert [row.push_seq for row in history] == [2, 1]
    assert storage.read(snapshots.of_job, storage.a, "job", 1, 10) == history[1:]
    assert storage.read(snapshots.of_job, storage.a, "nothing", 0, 10) is None


def test_of_a_deleted_jobs_history_only_what_tells_replays_is_kept(storage: Storage) -> None:
    storage.push(body("job"), body("other"))
    found = storage.read(jobs.by_client_job_id, storage.a, "job")
    assert found is not None
    body_hash = parse(body("job")).body_hash
    assert storage.read(snapshots.body, storage.a, found.job_id, body_hash)
    storage.change("delete", "job")
    assert storage.read(snapshots.known, storage.a, [found.job_id], [body_hash]) == {
        (found.job_id, body_hash)
    }
    assert not storage.read(snapshots.body, storage.a, found.job_id, body_hash)
    assert storage.read(snapshots.of_job, storage.a, "job", 0, 10) is None
    assert len(storage.read(snapshots.of_job, storage.a, "other", 0, 10) or []) == 1


def test_a_push_is_known_by_its_install_and_number(storage: Storage) -> None:
    storage.push(body("job", install=1), body("job", install=1, seq=2, jobTitle="2"), body("job", install=2))
    storage.push(body("other", install=1, seq=3))
    assert _known(storage, (uuid(1), "job", 1)) >= {(uuid(1), 1)}
    assert (uuid(1), 3) in _known(storage, (uuid(1), "other", 3))
    assert _known(storage, (uuid(1), "job", 9)) == set()
    assert _known(storage, (uuid(3), "job", 1)) == set()
    many = [(uuid(number), "job", 1) for number in range(64)]
    assert {(uuid(1), 1), (uuid(2), 1)} <= _known(storage, *many)


def _known(storage: Storage, *numbers: tuple[str, str, int]) -> set[tuple[str, int]]:
    rows = storage.read(pushes.known, storage.a, [(install, seq) for install, _, seq in numbers])
    return {(row.install_id, row.push_seq) for row in rows}


def test_a_payload_is_quarantined_once_per_body_and_counted(storage: Storage) -> None:
    for number, code in enumerate(("first", "second"), 1):
        storage.write(quarantine.put, [_refused(storage.a, "1" * 24, b"same", code, number)])
    storage.write(quarantine.put, [_refused(storage.a, "2" * 24, b"other", "first", 3)])
    newest, oldest = storage.read(quarantine.page, storage.a, 0, 10)
    assert (oldest.quarantine_id, oldest.times, oldest.code) == ("1" * 24, 2, "second")
    assert (oldest.received_at, oldest.last_received_at) == (1, 2)
    assert (newest.quarantine_id, newest.times) == ("2" * 24, 1)
    assert storage.read(quarantine.page, storage.a, 1, 10) == [oldest]
    found = storage.read(quarantine.one, storage.a, "1" * 24)
    assert found is not None
    assert bytes(found[1]) == b"\x00same"
    assert storage.write(quarantine.discard, storage.a, "1" * 24) is True
    assert storage.write(quarantine.discard, storage.a, "1" * 24) is False


def _refused(team_id: int, quarantine_id: str, name: bytes, code: str, at: int) -> dict[str, Any]:
    return {
        "team_id": team_id,
        "quarantine_id": quarantine_id,
        "body_hash": name,
        "code": code,
        "detail": "d",
        "field": None,
        "client_job_id": None,
        "subject_id": "s",
        "install_id": None,
        "received_at": at,
        "last_received_at": at,
        "times": 1,
        "size": 5,
        "body": b"\x00" + name,
    }


# The feed


def _sequence(connection: Connection, team_id: int) -> list[tuple[int, str]]:
    query = select(feed_entries.c.seq, feed_entries.c.job_id).where(feed_entries.c.team_id == team_id)
    return [(row.seq, row.job_id) for row in connection.execute(query.order_by(feed_entries.c.seq))]


def _head(connection: Connection, team_id: int) -> int:
    head: int = connection.execute(select(feeds.c.head).where(feeds.c.team_id == team_id)).scalar_one()
    return head


def test_each_job_stands_in_the_feed_once_at_its_latest_change(storage: Storage) -> None:
    assert storage.write(feed.stamp, storage.a, ["x", "y", "z"]) == (3, 0)
    assert storage.write(feed.stamp, storage.a, ["x"]) == (4, 0)
    assert storage.read(_sequence, storage.a) == [(2, "y"), (3, "z"), (4, "x")]


def test_first_completions_are_counted_beside_the_changes(storage: Storage) -> None:
    assert storage.write(feed.stamp, storage.a, ["x", "y", "z"], 2) == (3, 2)
    assert storage.write(feed.stamp, storage.a, ["x"]) == (4, 2)
    assert storage.write(feed.stamp, storage.a, ["y"], 1) == (5, 3)
    assert storage.write(feed.stamp, storage.b, ["x"], 1) == (1, 1)


def test_a_rollback_burns_no_number(storage: Storage) -> None:
    def work(connection: Connection) -> None:
        feed.stamp(connection, storage.a, ["lost"], 1)
        raise LookupError("on purpose")

    storage.write(feed.stamp, storage.a, ["x"])
    with pytest.raises(LookupError):
        storage.write(work)
    assert storage.write(feed.stamp, storage.a, ["y"], 1) == (2, 1)
    assert storage.read(_sequence, storage.a) == [(1, "x"), (2, "y")]


def test_sequence_order_is_commit_order(storage: Storage) -> None:
    async def stamp_all() -> None:
        # Each transaction does other work first, so that they would overtake each other.
        await asyncio.gather(*(storage.database.write(_work_then_stamp, storage.a, n) for n in range(30)))

    storage.runner.run(stamp_all())
    assert [seq for seq, _ in storage.read(_sequence, storage.a)] == list(range(1, 31))
    assert storage.read(_head, storage.a) == 30


def _work_then_stamp(connection: Connection, team_id: int, number: int) -> None:
    feed.incarnation(connection, team_id)
    feed.stamp(connection, team_id, [f"job-{number}"])


def test_a_push_that_changes_nothing_takes_no_number(storage: Storage) -> None:
    storage.push(body("job", install=1))
    storage.push(body("job", install=1))
    storage.push(body("job", install=1, seq=2))
    assert storage.read(_head, storage.a) == 1


def test_a_new_incarnation_is_for_every_team(storage: Storage) -> None:
    before = storage.read(feed.incarnation, storage.a)
    storage.write(feed.renew_incarnations, "feedf00d")
    assert before != "feedf00d"
    assert {storage.read(feed.incarnation, team) for team in (storage.a, storage.b)} == {"feedf00d"}


# People, clients, tokens


def _user(team_id: int, user_id: str, username: str) -> NewUser:
    return NewUser(team_id, user_id, username, "e@example.com", "n", "hash", frozenset({"OWNER"}), 1)


def test_usernames_are_unique_over_all_teams_whatever_their_case(storage: Storage) -> None:
    storage.write(users.insert_user, _user(storage.a, "1", "Ann"))
    for clash in (_user(storage.a, "2", "aNN"), _user(storage.b, "3", "ann"), _user(storage.b, "1", "bob")):
        with pytest.raises(Contended):
            storage.write(users.insert_user, clash)
    found = storage.read(users.user_by_username, users.username_key(" ANN "))
    assert found is not None
    assert (found.user_id, found.team_name, found.permissions) == ("1", "a", frozenset({"OWNER"}))
    assert (
        storage.read(
            lambda connection: connection.execute(select(func.count()).select_from(users_table)).scalar()
        )
        == 1
    )


def test_client_ids_are_unique_over_all_teams(storage: Storage) -> None:
    storage.write(clients.insert_client, NewClient(storage.a, "c", "n", ("job.read",), ("OWNER",), 1))
    with pytest.raises(Contended):
        storage.write(clients.insert_client, NewClient(storage.b, "c", "n", (), (), 1))


def test_a_teams_name_is_unique(storage: Storage) -> None:
    with pytest.raises(Contended):
        storage.write(teams.insert_team, "a", 1)


def test_a_refresh_token_is_used_once(storage: Storage) -> None:
    storage.write(tokens.insert_refresh_token, storage.a, b"h", "family", "user", ("job.read",), 100)
    with pytest.raises(Contended):
        storage.write(tokens.insert_refresh_token, storage.b, b"h", "family", "user", (), 100)
    assert storage.write(tokens.use_refresh_token, storage.a, b"h", 100) is False
    assert storage.write(tokens.use_refresh_token, storage.a, b"h", 50) is True
    assert storage.write(tokens.use_refresh_token, storage.a, b"h", 51) is False


# Teams


def test_no_query_sees_another_teams_rows(storage: Storage) -> None:
    storage.push(body("job", install=1))
    storage.write(quarantine.put, [_refused(storage.a, "1" * 24, b"x", "c", 1)])
    storage.write(users.insert_user, _user(storage.a, "1", "ann"))
    storage.write(clients.insert_client, NewClient(storage.a, "c", "n", (), (), 1))
    storage.write(clients.insert_secret, storage.a, "c", "s", b"h", 1)
    job = storage.read(jobs.by_client_job_id, storage.a, "job")
    assert job is not None
    other = storage.b
    nothing: list[object] = [
        storage.write(jobs.lock, other, ["job"]),
        storage.read(jobs.by_client_job_id, other, "job"),
        storage.read(jobs.by_job_id, other, job.job_id),
        storage.read(jobs.page, other, limit=10),
        storage.read(jobs.open_ids, other, None, "", 10),
        storage.read(snapshots.of_job, other, "job", 0, 10),
        storage.read(snapshots.known, other, [job.job_id], [parse(body("job")).body_hash]),
        storage.read(snapshots.body, other, job.job_id, parse(body("job")).body_hash),
        storage.read(pushes.known, other, [(uuid(1), 1)]),
        storage.read(quarantine.page, other, 0, 10),
        storage.read(quarantine.one, other, "1" * 24),
        storage.write(quarantine.discard, other, "1" * 24),
        storage.read(users.user_by_id, other, "1"),
        storage.read(clients.clients_of_team, other),
        storage.read(clients.secret_ids_of_team, other),
        storage.read(clients.secret_hashes, other, "c"),
        storage.write(clients.delete_secret, other, "c", "s"),
        storage.write(clients.revoke_client, other, "c", 1),
        storage.read(_sequence, other),
        storage.read(_head, other),
    ]
    assert [value for value in nothing if value] == []
    storage.write(snapshots.drop_bodies, other, [job.job_id])
    assert len(storage.read(snapshots.of_job, storage.a, "job", 0, 10) or []) == 1
