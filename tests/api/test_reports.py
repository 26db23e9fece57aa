"""Reports over HTTP: made once for what they show, of the caller's own team, gone with their job."""

import asyncio
import io
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from PIL import Image
from sqlalchemy import func, select

from media.details import Details, Thumbnail
from server.clock import now
from server.reports import background, routes
from server.reports.links import report_links
from server.reports.requesting import request_report
from storage.blobs import BlobStore, new_key
from storage.database import Connection, sqlite_url
from storage.queries import reports as queries
from storage.queries.reports import ReportRow
from storage.tables import tasks
from tests.support.app import (
    Document,
    RunningApp,
    Team,
    finished_snapshot,
    problem,
    running_app,
    snapshot,
    step,
)
from tests.support.attachments import job_with, put_file, store_of
from tests.support.blobs import nanio_server, s3_client, s3_credentials
from tests.support.reports import (
    age,
    completed_job,
    generated,
    hold,
    is_kept,
    is_stored,
    listed,
    pdf_of,
    photos,
    picture,
    release,
    rows_of,
    text_of,
)

# 7.1, 7.2


def test_a_report_is_generated_and_its_url_gives_the_pdf(team: Team) -> None:
    job = completed_job(team, jobTitle="Pump 7")
    answer = generated(team, job)
    assert list(answer)[:3] == ["jobId", "status", "reportUrl"]
    assert answer["jobId"] == team.job(job)["jobId"]
    assert answer["status"] == "Completed"
    assert answer["failure"] is None
    pdf = team.app.http.get(answer["reportUrl"])
    assert pdf.headers["content-type"] == "application/pdf"
    shown = text_of(pdf.content)
    assert "Pump 7" in shown
    assert "Page 1 of 1" in shown


def test_the_job_may_be_named_by_either_of_its_ids(team: Team) -> None:
    job = completed_job(team)
    by_client_id = generated(team, job)
    assert generated(team, team.job(job)["jobId"]) == {**by_client_id, "reportUrl": ANY}


class _Any:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


ANY = _Any()


def test_what_cannot_be_asked_for_is_refused(team: Team) -> None:
    job = completed_job(team)
    path = "/reportgenerator/v1/generate"
    problem(team.post(path), 422, "invalid-parameter", "jobId")
    problem(team.post(f"{path}?jobId=nothing"), 404, "job-not-found")
    problem(team.post(f"{path}?jobId={job}&images=huge"), 422, "invalid-parameter", "images")
    problem(team.post(f"{path}/5ec4f0fde9efaa03011a07bc?jobId={job}"), 404, "report-template-not-found")
    problem(team.get("/reports/v1/generate/nothing"), 404, "job-not-found")
    problem(team.get(f"/reports/v1/generate/{job}?getUrlOnly=maybe"), 422, "invalid-parameter", "getUrlOnly")
    problem(team.get("/jobs/v1/nothing/reports"), 404, "job-not-found")


# 8.1


def test_the_pdf_of_a_job_has_its_title_as_file_name_in_any_script(team: Team) -> None:
    job = completed_job(team, jobTitle="東京・品川 7/8: Prüfung")
    response = team.get(f"/reports/v1/generate/{job}")
    assert response.headers["content-type"] == "application/pdf"
    assert int(response.headers["content-length"]) == len(response.content)
    disposition = response.headers["content-disposition"]
    assert unquote(disposition.partition("UTF-8''")[2]) == "東京・品川 7-8_ Prüfung.pdf"
    assert "Prüfung" in text_of(response.content)


def test_the_url_alone_comes_as_text(team: Team) -> None:
    job = completed_job(team)
    response = team.get(f"/reports/v1/generate/{job}?getUrlOnly=true")
    assert response.headers["content-type"].startswith("text/plain")
    assert team.app.http.get(response.text).content == pdf_of(team, job)


# What is made once, and what is made anew


def test_the_same_is_not_made_twice(team: Team) -> None:
    job = completed_job(team)
    first = generated(team, job)["generatedReportId"]
    assert generated(team, job)["generatedReportId"] == first
    assert pdf_of(team, job) == pdf_of(team, job)
    (row,) = rows_of(team)
    assert (row.report_id, row.state, row.pages) == (first, "ready", 1)


def test_many_who_ask_at_once_get_one_report(team: Team) -> None:
    job = completed_job(team)

    async def ask() -> list[ReportRow | None]:
        return await asyncio.gather(
            *(request_report(team.app.database, team.team_id, job, None, "large") for _ in range(8))
        )

    asked = team.app.call(ask)
    assert len({row.report_id for row in asked if row is not None}) == 1
    assert generated(team, job)["status"] == "Completed"
    assert len(rows_of(team)) == 1


@pytest.mark.parametrize("change", ["job", "images", "file", "zone"])
def test_what_shows_something_else_is_made_anew(team: Team, change: str) -> None:
    job = job_with(team, "awaited", jobTitle="Lift 3")
    first = generated(team, job)["generatedReportId"]
    parameters = {}
    if change == "job":
        assert team.post(f"/jobs/v1/{job}/metadata", json={"Site": "Quay"}).status_code == 200
    elif change == "images":
        parameters = {"images": "none"}
    elif change == "file":
        put_file(team, attachment_id="awaited")
    else:
        assert team.post("/teamsettings/v1", json={"DefaultTimezone": "Asia/Tokyo"}).status_code == 200
    second = generated(team, job, **parameters)["generatedReportId"]
    assert second != first
    assert [report["generatedReportId"] for report in listed(team, job)] == [second, first]


def test_times_are_those_of_the_teams_zone(team: Team) -> None:
    team.post("/teamsettings/v1", json={"DefaultTimezone": "Asia/Tokyo"})
    shown = text_of(pdf_of(team, completed_job(team, created="2025-03-03T20:14:00Z")))
    assert "2025-03-04 05:14" in shown
    assert "Asia/Tokyo" in shown


def test_a_report_says_what_the_job_says(team: Team) -> None:
    document = snapshot(jobTitle="Zürich Hardbrücke", status="Abandoned", abandonReason="Rain – Λιμάνι.")
    document["metadata"]["metadata"] = {
        "Order": "WO-1",
        "Depth": 2.5,
        "ScheduledJobId": "5ec4f0fde9efaa03011a07bc",
    }
    photo = photos(team, 1)[0]
    data = put_file(team, b"a,b", file_name="Meßwerte.csv", content_type="text/csv")
    document["completedSteps"] = [
        step("a", stepTitle="Pressure", values=["0.50 bar"], note="Watch it.\nCome back."),
        step("b", stepTitle="Overview", valueResourceIds=[photo, data, "late-photo"]),
        {
            "reportStep": {
                "uniqueStepId": "f",
                "stepTitle": "Bearings",
                "steps": [step("c", stepTitle="Drive end")],
            }
        },
    ]
    document["cancelledSteps"] = [step("d", stepTitle="Seal", cancelled="2025-03-03T09:30:00Z")]
    team.synced(document)
    shown = text_of(pdf_of(team, document["metadata"]["clientJobId"]))
    for said in (
        *(
            "Zürich Hardbrücke",
            "Abandoned",
            "Rain – Λιμάνι.",
            "WO-1",
            "2.5",
            "0.50 bar",
            "Watch it. Come back.",
        ),
        *("photo 0.jpg", "Meßwerte.csv text/csv", "late-photo – not received yet", "Bearings", "Drive end"),
        *("Seal Cancelled", team.name, "Page 1 of"),
    ):
        assert said in shown, (said, shown)
    assert "5ec4f0fde9efaa03011a07bc" not in shown


def test_a_number_is_printed_as_it_was_written(team: Team) -> None:
    document = snapshot()
    body = (
        b'{"metadata":{"clientJobId":"%s","metadata":{"Rate":7.10}},"completedSteps":'
        b'[{"singleStep":{"uniqueStepId":"p","value":2.50}}]}'
    )
    team.synced(body % document["metadata"]["clientJobId"].encode())
    shown = text_of(pdf_of(team, document["metadata"]["clientJobId"]))
    assert "2.50" in shown
    assert "7.10" in shown


def test_what_tablets_contradict_each_other_in_stands_beside_the_value(team: Team) -> None:
    job = str(uuid.uuid4())
    for install, value in (
        ("6f1c9a52-0a7e-4d2f-9a51-0f6de2f4b7a1", "first"),
        ("0" * 8 + "-0a7e-4d2f-9a51-0f6de2f4b7a1", "second"),
    ):
        document = snapshot(clientJobId=job)
        document["completedSteps"] = [step("x", stepTitle="Seal", values=[value])]
        team.synced({**document, "sync": {"installId": install, "pushSeq": 1}})
    assert team.job(job)["sync"]["conflicts"]
    shown = text_of(pdf_of(team, job))
    assert "Also stated:" in shown
    assert "first" in shown
    assert "second" in shown


def test_a_job_with_forty_photos_shows_every_one(team: Team) -> None:
    ids = photos(team, 40)
    job = job_with(team, *ids, jobTitle="Roof survey")
    pdf = pdf_of(team, job)
    shown = text_of(pdf)
    assert all(f"photo {number}.jpg" in shown for number in range(40))
    (report,) = listed(team, job)
    assert report["pages"] >= 5
    assert report["size"] == len(pdf)
    assert report["log"] == []
    small = text_of(pdf_of(team, job, images="small"))
    assert "photo 39.jpg" in small
    without = pdf_of(team, job, images="none")
    assert len(without) < len(pdf) / 2
    assert [each["images"] for each in listed(team, job)] == ["none", "small", "large"]
    assert listed(team, job)[1]["pages"] < report["pages"]


# Being deleted


def test_reports_go_with_their_job(team: Team) -> None:
    job = completed_job(team)
    generated(team, job)
    (row,) = rows_of(team)
    assert is_stored(team, row)
    assert team.delete(f"/jobs/v1/{job}").status_code == 200
    assert rows_of(team) == []
    for _ in range(100):
        if not is_stored(team, row):
            break
        team.app.call(asyncio.sleep, 0.1)
    assert not is_stored(team, row)
    problem(team.get(f"/reports/v1/generate/{job}"), 404, "job-not-found")


def test_a_report_whose_job_goes_while_it_is_made_leaves_no_file(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = completed_job(team)
    store = store_of(team)
    put, keys = type(store).put, []

    async def put_late(self: BlobStore, key: str, source: Any, **rest: Any) -> int:
        keys.append(key)
        size = await put(self, key, source, **rest)

        def forget(connection: Connection) -> None:
            queries.forget_jobs(connection, team.team_id, [team_job], now())

        await team.app.database.write(forget)
        return size

    team_job = team.job(job)["jobId"]
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    hold(team, monkeypatch)
    generated(team, job)
    assert [row.blob_key for row in rows_of(team)] == [None]
    monkeypatch.undo()
    monkeypatch.setattr(type(store), "put", put_late)
    release(team)
    for _ in range(100):
        team.app.call(asyncio.sleep, 0.1)
        if keys and not is_kept(team, keys[0]):
            break
    assert rows_of(team) == []
    assert len(keys) == 1
    assert not is_kept(team, keys[0])


def test_what_a_newer_report_replaces_is_kept_for_thirty_days(team: Team) -> None:
    job = completed_job(team)
    first = generated(team, job)["generatedReportId"]
    other_images = generated(team, job, images="none")["generatedReportId"]
    team.post(f"/jobs/v1/{job}/metadata", json={"Site": "Quay"})
    second = generated(team, job)["generatedReportId"]

    team.app.call(background.purge, team.app.database)
    assert len(rows_of(team)) == 3
    age(team, background.KEPT_SECONDS + 60, "requested_at")
    team.app.call(background.purge, team.app.database)
    assert len(rows_of(team)) == 3, "they were made a moment ago"
    age(team, background.KEPT_SECONDS + 60, "generated_at")
    assert team.app.call(background.purge, team.app.database) >= 1
    assert [row.report_id for row in rows_of(team)] == [other_images, second]
    assert first not in {report["generatedReportId"] for report in listed(team, job)}


# Who


def test_field_workers_see_the_reports_of_their_own_jobs_alone(team: Team) -> None:
    worker, colleague = team.executor(), team.executor()
    document = snapshot()
    job = document["metadata"]["clientJobId"]
    team.synced(document, by=worker)
    generated(team, job)
    assert len(listed(team, job, by=worker)) == 1
    problem(team.get(f"/jobs/v1/{job}/reports", by=colleague), 404, "job-not-found")
    # Making them is for those who may read every report (section 2.4).
    problem(team.post(f"/reportgenerator/v1/generate?jobId={job}", by=worker), 403)
    problem(team.get(f"/reports/v1/generate/{job}", by=worker), 403)


def test_links_have_the_members_of_queries(team: Team) -> None:
    job = completed_job(team, jobTitle="Pump 7")
    report_id = generated(team, job)["generatedReportId"]

    async def links() -> list[Document]:
        return await report_links(team.app.database, store_of(team), team.team_id, [report_id, "0" * 24])

    (link,) = team.app.call(links)
    assert list(link) == ["generatedReportId", "generated", "templateName", "mimeType", "downloadUrl"]
    assert (link["templateName"], link["mimeType"]) == ("Standard report", "application/pdf")
    got = team.app.http.get(link["downloadUrl"])
    assert "Pump%207.pdf" in got.headers["content-disposition"]
    assert (
        team.app.call(report_links, team.app.database, store_of(team), team.team_id + 10**6, [report_id])
        == []
    )


# S3


@pytest.fixture(scope="module")
def s3_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder: Path = tmp_path_factory.mktemp("reports-on-s3")
    with s3_credentials(), nanio_server(folder / "objects") as endpoint:
        client = s3_client(endpoint)
        client.create_bucket(Bucket="files")
        client.close()
        blobs = f"s3://files/here?endpoint={endpoint}&region=us-east-1"
        with running_app(folder, sqlite_url(folder / "fieldsync.db"), blobs=blobs) as running:
            yield running


def test_a_report_on_s3_shows_pictures_from_there(s3_app: RunningApp) -> None:
    team = s3_app.team()
    job = job_with(team, *photos(team, 2), jobTitle="Łódź")
    answer = generated(team, job)
    with httpx.Client(trust_env=False) as http:
        pdf = http.get(answer["reportUrl"]).content
    assert "photo 1.jpg" in text_of(pdf)
    assert len(pdf) > len(pdf_of(team, job, images="none")) + len(picture())
    assert listed(team, job)[-1]["log"] == []


def test_reports_are_counted_for_each_team(team: Team) -> None:
    other = team.app.team()
    for asked in (team, other):
        document = finished_snapshot(clientJobId="shared")
        asked.synced(document)
        generated(asked, "shared")
    assert rows_of(team)[0].report_id != rows_of(other)[0].report_id
    problem(
        team.post(f"/reportgenerator/v1/generate?jobId={other.job('shared')['jobId']}"), 404, "job-not-found"
    )


def test_pictures_are_as_large_as_asked(sqlite_team: Team) -> None:
    """What is embedded comes from the thumbnail of the size."""
    team = sqlite_team
    content = {size: _jpeg(width) for size, width in (("small", 24), ("medium", 64), ("large", 128))}

    async def stored() -> tuple[Thumbnail, ...]:
        made = []
        for size, body in content.items():
            key = new_key(team.team_id, now())
            await store_of(team).put(key, body, content_type="image/jpeg")
            made.append(Thumbnail(size, key, 10, 10, len(body)))
        return tuple(made)

    photo = put_file(team, content["large"], details=Details(thumbnails=team.app.call(stored)))
    job = job_with(team, photo)
    assert _widths(pdf_of(team, job)) == [128]
    assert _widths(pdf_of(team, job, images="small")) == [64]
    assert _widths(pdf_of(team, job, images="none")) == []


def _jpeg(width: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, width), "#888").save(out, "JPEG")
    return out.getvalue()


def _widths(pdf: bytes) -> list[int]:
    found = subprocess.run(["pdfimages", "-list", "-"], input=pdf, capture_output=True, check=True)
    return [int(line.split()[3]) for line in found.stdout.decode().splitlines()[2:]]


def test_waiting_tasks_are_one_for_each_report(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    job = completed_job(team)
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.0)
    hold(team, monkeypatch)
    for _ in range(3):
        generated(team, job)

    def count(connection: Connection) -> int:
        query = select(func.count()).where(tasks.c.team_id == team.team_id, tasks.c.kind == queries.GENERATE)
        return int(connection.execute(query).scalar_one())

    assert team.app.read(count) == 1
