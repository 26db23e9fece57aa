"""What every database must do for attachments: files stored once, never replaced, never lost to a race."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy import delete, select

from storage.database import Connection, Database, open_database
from storage.queries import attachment_references as references
from storage.queries import attachments as queries
from storage.queries import jobs, teams
from storage.queries.attachments import AttachmentRow, NewFile
from storage.queries.jobs import JobWrite
from storage.tables import attachments as attachments_table
from storage.tables import tasks, uploads

T = TypeVar("T")

SHA = b"\x01" * 32
OTHER_SHA = b"\x02" * 32
DETAILS = msgspec.json.encode({"width": 4})


class Files:
    """An open, migrated database with two teams."""

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

    def write(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return self.runner.run(
            self.database.write(lambda connection: work(connection, *arguments, **options))
        )

    def store(self, attachment_id: str = "photo", team: int | None = None, **values: Any) -> queries.Stored:
        return self.write(
            queries.store, self.a if team is None else team, file(attachment_id=attachment_id, **values)
        )

    def one(self, attachment_id: str = "photo", team: int | None = None) -> AttachmentRow | None:
        return self.read(queries.one, self.a if team is None else team, attachment_id)

    def there(self, attachment_id: str = "photo") -> AttachmentRow:
        row = self.one(attachment_id)
        assert row is not None
        return row

    def describe(self, **changed: Any) -> bool:
        values = {"blob_key": "1/first", "state": "ready", "details": DETAILS, "failure": None, **changed}
        return self.write(queries.describe, self.a, "photo", **values)

    def refer(self, job_id: str, *attachment_ids: str, at: int = 5) -> None:
        """As the merge does when a job comes to refer to files."""

        def work(connection: Connection) -> None:
            references.expect(connection, self.a, attachment_ids, at)
            references.refer(connection, self.a, [(name, job_id) for name in attachment_ids])

        self.write(work)

    def job(self, job_id: str, owner_id: str | None = None, deleted_at: int | None = None) -> None:
        row = JobWrite(
            team_id=self.a,
            job_id=job_id,
            client_job_id=f"client-{job_id}",
            rev=1,
            owner_id=owner_id,
            workflow_id=None,
            finished=False,
            status=None,
            excluded=False,
            created_at=1,
            modified_at=1,
            deleted_at=deleted_at,
            format=1,
            view=b"",
            edits=b"",
        )
        self.write(jobs.write, [row])

    def waiting(self) -> list[tuple[str, str]]:
        """(kind, subject) of the tasks that wait."""
        query = select(tasks.c.kind, tasks.c.subject).where(
            tasks.c.team_id == self.a, tasks.c.state == "ready"
        )
        return sorted(
            (row.kind, row.subject) for row in self.read(lambda connection: list(connection.execute(query)))
        )

    def forget_tasks(self) -> None:
        self.write(lambda connection: connection.execute(delete(tasks)) and None)


@pytest.fixture
def files(database_url: str) -> Iterator[Files]:
    with asyncio.Runner() as runner:
        opened = Files(database_url, runner)
        yield opened
        runner.run(opened.database.close())


def file(**values: Any) -> NewFile:
    return NewFile(
        **{
            "attachment_id": "photo",
            "blob_key": "1/first",
            "size": 7,
            "sha256": SHA,
            "file_name": "Pump.jpg",
            "declared_type": "image/pjpeg",
            "content_type": "image/jpeg",
            "uploaded_by": "worker",
            "stored_at": 100,
            **values,
        }
    )


THUMBNAILS = ("attachment.thumbnails", "photo")


# Storing


def test_a_stored_file_is_known_by_everything_it_came_with(files: Files) -> None:
    assert files.store() == "stored"
    assert files.one() == AttachmentRow(
        attachment_id="photo",
        state="stored",
        created_at=100,
        stored_at=100,
        blob_key="1/first",
        size=7,
        sha256=SHA,
        file_name="Pump.jpg",
        declared_type="image/pjpeg",
        content_type="image/jpeg",
        uploaded_by="worker",
        failure=None,
        details=None,
        orphaned_at=100,
    )
    assert files.waiting() == [THUMBNAILS]


def test_the_same_content_again_changes_nothing(files: Files) -> None:
    files.store()
    before = files.there()
    again = files.store(blob_key="1/second", stored_at=200, uploaded_by="other", file_name="x")
    assert (again, files.there()) == ("same", before)


def test_other_content_under_the_same_id_replaces_nothing(files: Files) -> None:
    files.store()
    files.forget_tasks()
    before = files.there()
    assert files.store(blob_key="1/second", sha256=OTHER_SHA) == "differs"
    assert files.store(blob_key="1/second", size=8) == "differs"
    assert files.there() == before
    assert files.waiting() == []


def test_a_repeated_push_makes_thumbnails_only_while_there_are_none(files: Files) -> None:
    files.store()
    files.forget_tasks()
    files.store()
    assert files.waiting() == [("attachment.thumbnails", "photo")]
    files.forget_tasks()
    files.describe()
    assert files.store() == "same"
    assert files.waiting() == []


def test_a_file_that_fails_to_be_stored_leaves_no_task(files: Files) -> None:
    def work(connection: Connection) -> None:
        queries.store(connection, files.a, file())
        raise LookupError("on purpose")

    with pytest.raises(LookupError):
        files.write(work)
    assert files.one() is None
    assert files.waiting() == []


def test_two_teams_may_use_the_same_id(files: Files) -> None:
    assert files.store() == "stored"
    assert files.store(team=files.b, sha256=OTHER_SHA, blob_key="2/first") == "stored"
    assert files.there().sha256 == SHA
    theirs = files.one(team=files.b)
    assert theirs is not None
    assert theirs.sha256 == OTHER_SHA


def test_of_concurrent_pushes_of_one_id_exactly_one_is_stored(files: Files) -> None:
    async def push_all() -> list[queries.Stored]:
        return await asyncio.gather(
            *(
                files.database.write(
                    queries.store,
                    files.a,
                    file(blob_key=f"1/{number}", sha256=SHA if number % 2 else OTHER_SHA),
                )
                for number in range(12)
            )
        )

    said = files.runner.run(push_all())
    winner = said.index("stored")
    assert sorted(said) == ["differs"] * 6 + ["same"] * 5 + ["stored"]
    row = files.there()
    assert (row.blob_key, row.sha256) == (f"1/{winner}", SHA if winner % 2 else OTHER_SHA)
    # Those with the winner's content, and no others, were told that it is there.
    assert {number % 2 for number, answer in enumerate(said) if answer == "same"} == {winner % 2}


# References and orphans


def test_a_file_that_a_job_refers_to_is_no_orphan_whichever_came_first(files: Files) -> None:
    files.refer("j1", "photo", at=5)
    assert (files.there().state, files.there().created_at) == ("missing", 5)
    assert files.store() == "stored"
    row = files.there()
    assert (row.state, row.orphaned_at, row.created_at, row.stored_at) == ("stored", None, 5, 100)
    files.store("later")
    assert files.there("later").orphaned_at == 100
    files.refer("j1", "later")
    assert files.there("later").orphaned_at is None


def test_storing_and_referring_at_once_never_leave_an_orphan(files: Files) -> None:
    async def both(name: str) -> None:
        def refer(connection: Connection) -> bool:
            seen = references.expect(connection, files.a, [name], 5)
            references.refer(connection, files.a, [(name, "j1")])
            return name in seen

        seen, _ = await asyncio.gather(
            files.database.write(refer),
            files.database.write(queries.store, files.a, file(attachment_id=name)),
        )
        row = await files.database.read(queries.one, files.a, name)
        assert row is not None
        assert (row.state, row.orphaned_at) == ("stored", None)
        # Either the job saw the file or a task will tell it.
        assert seen or ("job.files", "j1") in await files.database.read(_tasks)

    def _tasks(connection: Connection) -> set[tuple[str, str]]:
        return {(row.kind, row.subject) for row in connection.execute(select(tasks.c.kind, tasks.c.subject))}

    async def many() -> None:
        await asyncio.gather(*(both(f"photo-{number}") for number in range(10)))

    files.runner.run(many())


def test_orphans_are_listed_oldest_first_of_every_team(files: Files) -> None:
    files.store("young", stored_at=300)
    files.store("old", stored_at=100)
    files.store("theirs", stored_at=200, team=files.b)
    files.refer("j1", "kept")
    files.store("kept", stored_at=50)
    found = files.read(queries.orphans, 300, 10)
    assert [(team, row.attachment_id) for team, row in found] == [(files.a, "old"), (files.b, "theirs")]
    assert len(files.read(queries.orphans, 301, 2)) == 2
    assert len(files.read(queries.orphans, 301, 10)) == 3


def test_files_of_a_job_come_in_pages_in_the_order_of_their_ids(files: Files) -> None:
    names = [f"file-{number:02}" for number in range(7)]
    files.refer("j1", *reversed(names))
    files.refer("j2", "file-00", "elsewhere")
    files.store("file-03")

    def ids(**options: Any) -> list[str]:
        arguments = {"after": "", "limit": 10, **options}
        return [row.attachment_id for row in files.read(queries.of_job, files.a, "j1", **arguments)]

    assert ids() == names
    assert ids(limit=3) == names[:3]
    assert ids(after=names[2], limit=3) == names[3:6]
    assert ids(skip=5) == names[5:]
    rows = files.read(queries.of_job, files.a, "j1", "", 10)
    assert [row.state for row in rows] == ["missing"] * 3 + ["stored"] + ["missing"] * 3
    assert files.read(queries.of_job, files.b, "j1", "", 10) == []


def test_jobs_of_a_file_are_those_that_are_not_deleted(files: Files) -> None:
    files.job("j1", owner_id="anna")
    files.job("j2", owner_id="ben")
    files.job("j3", owner_id="anna", deleted_at=9)
    for job_id in ("j2", "j1", "j3"):
        files.refer(job_id, "photo")
    assert files.read(queries.jobs_of, files.a, "photo") == [("j1", "client-j1"), ("j2", "client-j2")]
    assert files.read(queries.jobs_of, files.a, "photo", owner_id="anna") == [("j1", "client-j1")]
    assert files.read(queries.jobs_of, files.a, "photo", owner_id="carl") == []
    assert files.read(queries.jobs_of, files.b, "photo") == []


def test_a_file_is_arriving_while_an_upload_of_it_is_open(files: Files) -> None:
    def opened(connection: Connection, upload_id: str, **values: Any) -> None:
        row = {
            "team_id": files.a,
            "upload_id": upload_id,
            "kind": "attachment",
            "target": upload_id,
            "block_size": 0,
            "file_size": 1,
            "subject_id": "worker",
            "created_at": 1,
            "expires_at": 100,
            "finished_at": None,
            **values,
        }
        connection.execute(uploads.insert().values(**row))

    files.write(opened, "open")
    files.write(opened, "expired", expires_at=50)
    files.write(opened, "finished", finished_at=40)
    files.write(opened, "workflow", kind="workflow")
    names = ["open", "expired", "finished", "workflow", "unheard of"]
    assert files.read(queries.arriving, files.a, names, 50) == {"open"}
    assert files.read(queries.arriving, files.b, names, 50) == set()
    assert files.read(queries.arriving, files.a, [], 50) == set()


# Thumbnails


def test_thumbnails_are_noted_for_the_file_they_were_made_of_alone(files: Files) -> None:
    files.store()
    assert files.describe(blob_key="1/another") is False
    assert files.there().state == "stored"
    assert files.describe() is True
    assert (files.there().state, files.there().details) == ("ready", DETAILS)
    assert files.describe(state="failed", failure="no picture") is True
    assert (files.there().state, files.there().failure) == ("failed", "no picture")


def test_a_file_that_was_given_up_meanwhile_gets_no_thumbnails(files: Files) -> None:
    files.refer("j1", "photo")
    files.store()
    files.write(queries.delete, files.a, "photo", 200)
    assert files.describe() is False
    assert files.there().state == "missing"


# Giving up


def test_deleting_a_file_that_nobody_refers_to_leaves_nothing(files: Files) -> None:
    files.store()
    files.forget_tasks()
    before = files.there()
    assert files.write(queries.delete, files.b, "photo", 200) is None
    assert files.write(queries.delete, files.a, "photo", 200) == before
    assert files.one() is None
    assert files.write(queries.delete, files.a, "photo", 200) is None
    assert files.waiting() == []


def test_deleting_a_file_that_a_job_refers_to_makes_it_missing_and_tells_the_job(files: Files) -> None:
    files.refer("j1", "photo", at=5)
    files.store()
    files.describe()
    files.forget_tasks()
    before = files.there()
    assert files.write(queries.delete, files.a, "photo", 200) == before
    empty = dict.fromkeys(AttachmentRow._fields)
    expected = {**empty, "attachment_id": "photo", "state": "missing", "created_at": 5}
    assert files.there() == AttachmentRow(**expected)
    assert files.waiting() == [("job.files", "j1")]
    # There is no file to give up any more; another content may come.
    assert files.write(queries.delete, files.a, "photo", 300) is None
    assert files.store(sha256=OTHER_SHA, blob_key="1/second") == "stored"


def test_an_orphan_that_a_job_came_to_refer_to_since_it_was_listed_is_kept(files: Files) -> None:
    files.store()
    assert len(files.read(queries.orphans, 500, 10)) == 1
    assert files.write(queries.delete, files.a, "photo", 600, orphaned_before=100) is None
    files.refer("j1", "photo")
    assert files.write(queries.delete, files.a, "photo", 600, orphaned_before=500) is None
    assert files.there().state == "stored"
    files.write(references.release, files.a, [("photo", "j1")], 550)
    assert files.write(queries.delete, files.a, "photo", 600, orphaned_before=551) is not None
    assert files.one() is None


def test_a_row_stands_for_each_file_once(files: Files) -> None:
    files.refer("j1", "photo")
    files.store()
    files.store()
    files.refer("j2", "photo")
    query = select(attachments_table.c.attachment_id)
    assert files.read(lambda connection: list(connection.execute(query).scalars())) == ["photo"]
