"""Reports for tests: asking for them, reading them, photos that can be printed, tasks that are held back."""

import io
import subprocess
from typing import Any

import pytest
from sqlalchemy import select, update

from fixtures.pictures import drawing
from media.details import Details, Thumbnail
from server.clock import now
from storage.blobs import BlobStore, new_key
from storage.database import Connection
from storage.queries import reports as queries
from storage.queries.reports import ReportRow
from storage.queries.tasks import enqueue
from storage.tables import reports, tasks
from tests.support.app import Document, Team, finished_snapshot
from tests.support.attachments import put_file, store_of


def generated(team: Team, job: str, template: str = "", **parameters: str) -> Document:
    response = team.post(f"/reportgenerator/v1/generate{template}", params={"jobId": job, **parameters})
    assert response.status_code == 200, response.text
    return dict(response.json())


def listed(team: Team, job: str, **rest: Any) -> list[Document]:
    response = team.get(f"/jobs/v1/{job}/reports", **rest)
    assert response.status_code == 200, response.text
    return list(response.json())


def text_of(pdf: bytes) -> str:
    assert pdf.startswith(b"%PDF-")
    shown = subprocess.run(["pdftotext", "-layout", "-", "-"], input=pdf, capture_output=True, check=True)
    return " ".join(shown.stdout.decode().split())


def pdf_of(team: Team, job: str, **parameters: str) -> bytes:
    response = team.get(f"/reports/v1/generate/{job}", params=parameters)
    assert response.status_code == 200, response.text
    return response.content


def completed_job(team: Team, **header: Any) -> str:
    document = finished_snapshot(**header)
    team.synced(document)
    return str(document["metadata"]["clientJobId"])


def picture() -> bytes:
    out = io.BytesIO()
    drawing(320, 240).save(out, "JPEG")
    return out.getvalue()


def photos(team: Team, count: int, store: BlobStore | None = None) -> list[str]:
    """Photos with thumbnails that can be printed."""
    content = picture()

    async def stored() -> list[str]:
        keys = [new_key(team.team_id, now()) for _ in range(3)]
        for key in keys:
            await (store or store_of(team)).put(key, content, content_type="image/jpeg")
        return keys

    keys = team.app.call(stored)
    made = tuple(
        Thumbnail(size, key, 320, 240, len(content))
        for size, key in zip(("small", "medium", "large"), keys, strict=True)
    )
    details = Details(width=320, height=240, takenAt="2026-05-04T10:11:12+02:00", thumbnails=made)
    return [
        put_file(team, content, file_name=f"photo {number}.jpg", details=details) for number in range(count)
    ]


def rows_of(team: Team) -> list[ReportRow]:
    def work(connection: Connection) -> list[ReportRow]:
        ids = connection.execute(
            select(reports.c.report_id).where(reports.c.team_id == team.team_id).order_by(reports.c.report_id)
        ).scalars()
        return [row for each in ids if (row := queries.one(connection, team.team_id, each)) is not None]

    rows: list[ReportRow] = team.app.read(work)
    return rows


def is_stored(team: Team, row: ReportRow) -> bool:
    assert row.blob_key is not None
    return is_kept(team, row.blob_key)


def is_kept(team: Team, key: str) -> bool:
    return team.app.call(store_of(team).info, key) is not None


def age(team: Team, seconds: float, *columns: str) -> None:
    """Let that much time have passed since the team's reports were asked for, and made."""
    names = columns or ("requested_at", "generated_at")
    earlier = {name: reports.c[name] - round(seconds * 1_000_000) for name in names}
    team.app.write(
        lambda connection: connection.execute(
            update(reports).where(reports.c.team_id == team.team_id).values(earlier)
        )
    )


def hold(team: Team, patch: pytest.MonkeyPatch) -> None:
    """Let tasks of this team that make reports wait for a day."""

    def later(connection: Connection, team_id: int, *subject: Any, now: int) -> None:
        enqueue(connection, team_id, *subject, run_at=now + 86_400_000_000, now=now)

    patch.setattr(queries.tasks, "enqueue", later)


def release(team: Team) -> None:
    def work(connection: Connection) -> None:
        connection.execute(update(tasks).where(tasks.c.team_id == team.team_id).values(run_at=now()))

    team.app.write(work)
