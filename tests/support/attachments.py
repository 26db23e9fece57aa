"""Files for tests of reading them, without the ways in which they are sent."""

import hashlib
from typing import Any

import msgspec
from sqlalchemy import delete

from media.details import Details, Thumbnail
from server.clock import now
from storage.blobs import BlobStore, new_key
from storage.database import Connection
from storage.ids import new_id
from storage.queries import attachments as queries
from storage.queries.attachments import AttachmentRow, NewFile
from storage.tables import tasks
from tests.support.app import Account, Team, snapshot, step

PHOTO = b"\xff\xd8\xff\xe0 not much of a picture"


def store_of(team: Team) -> BlobStore:
    store: BlobStore = team.app.litestar.dependencies["blobs"].dependency()  # type: ignore[union-attr]
    return store


def put_file(
    team: Team,
    content: bytes = PHOTO,
    attachment_id: str | None = None,
    *,
    file_name: str | None = "Pump.jpg",
    content_type: str = "image/jpeg",
    by: Account | None = None,
    details: Details | None = None,
) -> str:
    """A file as if it had been uploaded, without the tasks that would change it under the test's hands."""
    attachment_id = attachment_id or new_id()
    key = new_key(team.team_id, now())
    file = NewFile(
        attachment_id=attachment_id,
        blob_key=key,
        size=len(content),
        sha256=hashlib.sha256(content).digest(),
        file_name=file_name,
        declared_type="image/x-declared",
        content_type=content_type,
        uploaded_by=(by or team.owner).subject_id,
        stored_at=now(),
    )

    async def put() -> None:
        await store_of(team).put(key, content, content_type=content_type)

    def work(connection: Connection) -> None:
        assert queries.store(connection, team.team_id, file) == "stored"
        connection.execute(
            delete(tasks).where(tasks.c.team_id == team.team_id, tasks.c.kind == "attachment.thumbnails")
        )
        if details is not None:
            queries.describe(
                connection,
                team.team_id,
                file.attachment_id,
                blob_key=key,
                state="ready",
                details=msgspec.json.encode(details),
                failure=None,
            )

    team.app.call(put)
    team.app.write(work)
    return attachment_id


def thumbnails(team: Team) -> list[Thumbnail]:
    """Three thumbnails, stored."""
    made = []
    for number, size in enumerate(("small", "medium", "large"), start=1):
        key = f"{new_key(team.team_id, now())}.{size}.jpg"
        content = PHOTO + size.encode()

        async def put(key: str = key, content: bytes = content) -> None:
            await store_of(team).put(key, content, content_type="image/jpeg")

        team.app.call(put)
        made.append(Thumbnail(size=size, key=key, width=4 * number, height=3 * number, bytes=len(content)))
    return made


def described(team: Team, **values: Any) -> Details:
    return Details(thumbnails=thumbnails(team), **values)


def job_with(team: Team, *attachment_ids: str, by: Account | None = None, **header: Any) -> str:
    """A job whose one step refers to these files; answers its clientJobId."""
    document = snapshot(**header)
    document["completedSteps"] = [step("photos", valueResourceIds=list(attachment_ids))]
    team.synced(document, by=by)
    return str(document["metadata"]["clientJobId"])


def row_of(team: Team, attachment_id: str) -> AttachmentRow:
    """What the database has of a file."""
    row = team.app.read(queries.one, team.team_id, attachment_id)
    assert row is not None
    return row
