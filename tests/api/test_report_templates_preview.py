"""Previews of report templates: what a template makes of a job, without keeping anything."""

import asyncio
import base64
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import httpx
import pytest

from fixtures.pictures import drawing, jpeg
from media.details import Details, Thumbnail
from media.pdf import Printed
from server.clock import now
from server.report_templates import loading, preview
from server.report_templates.slots import Lines, Slots
from server.reports.context import local_files
from storage.blobs import BlobStore, new_key
from tests.support.app import Account, Document, Team, finished_snapshot, problem, step
from tests.support.attachments import put_file, store_of

PREVIEW = "/reporttemplates/v1/preview"
BODY = "<h1>{{ job.jobTitle }}</h1>"
CSP = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def job_of(team: Team, by: Account | None = None, **header: Any) -> str:
    """A completed job with a title; its clientJobId."""
    document = finished_snapshot(**{"jobTitle": "Pump <7>", "status": "Completed", **header})
    answer = team.synced(document, by=by or team.owner)
    client_job_id: str = answer["metadata"]["clientJobId"]
    return client_job_id


def previewed(team: Team, format: str = "json", **body: Any) -> httpx.Response:
    response = team.post(f"{PREVIEW}?format={format}", json=body)
    assert response.status_code == 200, response.text
    return response


def template(team: Team, **members: Any) -> str:
    """The id of a stored template."""
    body = {"name": "Stored", "headerContent": "<p>stored header</p>", "bodyContent": BODY, **members}
    response = team.post("/reporttemplates/v1/content", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["reportTemplateId"])


def photographed(team: Team, *sizes: str) -> str:
    """The clientJobId of a job with a photo whose thumbnails are there, the small one if none is named."""
    content, thumbnails = jpeg(drawing()), []
    for size in sizes or ("small",):
        key = f"{new_key(team.team_id, now())}.{size}.jpg"
        team.app.call(partial(store_of(team).put, key, content, content_type="image/jpeg"))
        thumbnails.append(Thumbnail(size, key, 240, 160, len(content)))
    details = Details(thumbnails=tuple(thumbnails))
    photo = put_file(team, content, details=details)
    document = finished_snapshot(jobTitle="With a photo", status="Completed")
    document["completedSteps"] = [step("photo", valueResourceIds=[photo])]
    answer = team.synced(document)
    return str(answer["metadata"]["clientJobId"])


def test_a_preview_answers_the_html_the_pdf_and_what_the_template_lacks(team: Team) -> None:
    body = f"{BODY}<p>{{{{ job.nothing }}}}</p>"
    answer = previewed(team, clientJobId=job_of(team), bodyContent=body)
    document = answer.json()
    assert list(document) == ["html", "pages", "log", "pdf"]
    assert "<h1>Pump &lt;7&gt;</h1>" in document["html"]
    assert base64.b64decode(document["pdf"]).startswith(b"%PDF-")
    assert document["pages"] == 1
    assert any("nothing" in note for note in document["log"])
    assert len(set(document["log"])) == len(document["log"])
    assert answer.headers["cache-control"] == "private, no-store"


def test_html_and_pdf_are_the_same_alone_and_together(sqlite_team: Team) -> None:
    asked = {
        "clientJobId": photographed(sqlite_team),
        "bodyContent": f"{BODY}{EACH}".replace("BODY", "{{ file.src }}"),
    }
    document = previewed(sqlite_team, **asked).json()
    assert document["html"] == previewed(sqlite_team, "html", **asked).text
    assert base64.b64decode(document["pdf"]) == previewed(sqlite_team, "pdf", **asked).content


def test_the_pages_are_counted(sqlite_team: Team) -> None:
    body = BODY + '<p style="break-before: page">2</p><p style="break-before: page">3</p>'
    document = previewed(sqlite_team, clientJobId=job_of(sqlite_team), bodyContent=body).json()
    assert document["pages"] == 3


def test_a_preview_as_html_can_do_nothing_in_a_browser(sqlite_team: Team) -> None:
    body = f"{BODY}<script>alert(1)</script>"
    answer = previewed(sqlite_team, "html", clientJobId=job_of(sqlite_team), bodyContent=body)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CSP
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-store"
    assert "<h1>Pump &lt;7&gt;</h1>" in answer.text


def test_a_preview_as_pdf_is_shown_by_a_browser(sqlite_team: Team) -> None:
    answer = previewed(sqlite_team, "pdf", clientJobId=job_of(sqlite_team), bodyContent=BODY)
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("inline;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(b"%PDF-")


def test_the_job_may_be_named_by_its_job_id(sqlite_team: Team) -> None:
    job_id = sqlite_team.job(job_of(sqlite_team))["jobId"]
    assert "Pump" in previewed(sqlite_team, "html", jobId=job_id, bodyContent=BODY).text


def test_pictures_are_inside_the_html_unless_none_are_wanted(team: Team) -> None:
    body = "{% for file in attachments %}<p>{{ file.id }}</p>{% if file.src %}<img src='{{ file.src }}'>{% endif %}{% endfor %}"
    job = photographed(team)
    for images, shown in ((None, True), ("large", True), ("small", True), ("none", False)):
        asked = {} if images is None else {"images": images}
        html = previewed(team, "html", clientJobId=job, bodyContent=body, **asked).text
        assert ("data:image/jpeg;base64," in html) is shown
        assert "att:" not in html
    assert previewed(team, clientJobId=job, bodyContent=body).json()["log"] == []


def test_a_stored_template_gives_what_the_body_does_not(team: Team) -> None:
    job, stored = job_of(team), template(team, options={"title": "Stored title"})
    as_stored = previewed(team, "html", clientJobId=job, reportTemplateId=stored).text
    assert "stored header" in as_stored
    assert "<h1>Pump" in as_stored
    other = previewed(
        team, "html", clientJobId=job, reportTemplateId=stored, bodyContent="<p>new</p>", headerContent=""
    ).text
    assert "stored header" not in other
    assert "<p>new</p>" in other


def test_an_archived_template_can_be_previewed(sqlite_team: Team) -> None:
    stored = template(sqlite_team)
    sqlite_team.delete(f"/reporttemplates/v1/{stored}")
    job = job_of(sqlite_team)
    assert "<h1>Pump" in previewed(sqlite_team, "html", clientJobId=job, reportTemplateId=stored).text


def test_a_preview_keeps_nothing(team: Team) -> None:
    job = job_of(team)
    previewed(team, clientJobId=job, bodyContent=BODY)
    assert team.get("/reporttemplates/v1").json() == []
    assert team.get("/tasks/v1?limit=1000").json() == []


# What is refused


@pytest.mark.parametrize("field", ["headerContent", "bodyContent"])
@pytest.mark.parametrize("format", ["json", "html", "pdf"])
def test_an_error_of_syntax_is_refused_with_its_place(sqlite_team: Team, field: str, format: str) -> None:
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": BODY, field: "<p>\n{% if %}"}
    refused = problem(
        sqlite_team.post(f"{PREVIEW}?format={format}", json=body), 422, "template-syntax", field
    )
    assert refused["line"] == 2


def test_a_template_that_fails_with_this_job_is_refused_with_its_line(sqlite_team: Team) -> None:
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": "<p>\n\n{{ 1 / 0 }}"}
    refused = problem(sqlite_team.post(PREVIEW, json=body), 422, "template-failed", "bodyContent")
    assert refused["line"] == 3


def test_a_template_that_makes_too_much_is_refused(sqlite_team: Team) -> None:
    hostile = "{% for a in range(9999) %}{% for b in range(9999) %}{{ 'x' * 1000 }}{% endfor %}{% endfor %}"
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": hostile}
    problem(sqlite_team.post(f"{PREVIEW}?format=html", json=body), 422, "template-refused")
    assert previewed(sqlite_team, "html", **{**body, "bodyContent": BODY}).status_code == 200


@pytest.mark.parametrize(
    "probe",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ job.__init__.__globals__ }}",
        "{{ self.__class__.__bases__ }}",
        "{% include '/etc/passwd' %}",
        "<img src='file:///etc/passwd'>",
        "<link rel='stylesheet' href='file:///etc/passwd'>",
    ],
)
def test_a_template_reads_nothing_but_its_values(sqlite_team: Team, probe: str) -> None:
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": probe}
    answer = sqlite_team.post(PREVIEW, json=body)
    assert answer.status_code in (200, 422), answer.text
    said = answer.text if answer.status_code == 422 else answer.json()["html"]
    for secret in ("root:", "class '", "builtins", "<function"):
        assert secret not in said


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"clientJobId": None}, "clientJobId"),
        ({"jobId": "both"}, "clientJobId"),
        ({"clientJobId": 7}, "clientJobId"),
        ({"clientJobId": "a\0b"}, "clientJobId"),
        ({"bodyContent": None}, "bodyContent"),
        ({"bodyContent": ""}, "bodyContent"),
        ({"bodyContent": "x" * (1024 * 1024 + 1)}, "bodyContent"),
        ({"headerContent": "a\0b"}, "headerContent"),
        ({"reportTemplateId": "a\0b"}, "reportTemplateId"),
        ({"images": "huge"}, "images"),
        ({"options": {"headerHeight": 401}}, "options.headerHeight"),
    ],
)
def test_what_cannot_be_is_refused_and_named(sqlite_team: Team, change: Document, field: str) -> None:
    body = {"clientJobId": "x", "bodyContent": BODY, **change}
    problem(sqlite_team.post(PREVIEW, json=body), 422, "invalid-body", field)


def test_a_format_that_there_is_not_is_refused(sqlite_team: Team) -> None:
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": BODY}
    problem(sqlite_team.post(f"{PREVIEW}?format=docx", json=body), 400, "invalid-parameter", "format")


def test_what_is_not_there_is_404(sqlite_team: Team) -> None:
    for named in ({"clientJobId": "nothing"}, {"jobId": "nothing"}):
        problem(sqlite_team.post(PREVIEW, json={**named, "bodyContent": BODY}), 404, "job-not-found")
    body = {"clientJobId": job_of(sqlite_team), "reportTemplateId": "nothing"}
    problem(sqlite_team.post(PREVIEW, json=body), 404, "report-template-not-found")


def test_jobs_and_templates_of_another_team_are_not_there(team: Team) -> None:
    other = team.app.team()
    job, stored = job_of(team), template(team)
    job_id = team.job(job)["jobId"]
    for named in ({"clientJobId": job}, {"jobId": job_id}):
        problem(other.post(PREVIEW, json={**named, "bodyContent": BODY}), 404, "job-not-found")
    body = {"clientJobId": job_of(other), "reportTemplateId": stored}
    problem(other.post(PREVIEW, json=body), 404, "report-template-not-found")


def test_whoever_sees_its_own_work_only_previews_nobody_elses_jobs(team: Team) -> None:
    editor = team.user("EDITOR", "EXECUTOR")
    foreign, own = job_of(team), job_of(team, by=editor)
    asked = {"clientJobId": foreign, "bodyContent": BODY}
    problem(team.post(PREVIEW, json=asked, by=editor), 404, "job-not-found")
    answer = team.post(f"{PREVIEW}?format=html", json={**asked, "clientJobId": own}, by=editor)
    assert answer.status_code == 200, answer.text
    assert team.post(PREVIEW, json=asked, by=team.user("ADMIN")).status_code == 200


def test_no_more_than_a_few_are_made_at_once(sqlite_team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": BODY}
    monkeypatch.setattr(preview, "_slots", Slots(at_once=0))
    assert problem(sqlite_team.post(PREVIEW, json=body), 503, "busy")["retry"] == "later"
    monkeypatch.setattr(preview, "_slots", Slots(at_once=1))
    # One that fails leaves its place as well.
    for content, status in (("{% if %}", 422), ("{{ 1 / 0 }}", 422), (BODY, 200), (BODY, 200)):
        assert sqlite_team.post(PREVIEW, json={**body, "bodyContent": content}).status_code == status


def test_a_team_leaves_half_of_the_places_to_others(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, slots = sqlite_team.app.team(), Slots()
    monkeypatch.setattr(preview, "_slots", slots)
    with slots.place(sqlite_team.team_id), slots.place(sqlite_team.team_id):
        body = {"clientJobId": job_of(sqlite_team), "bodyContent": BODY}
        assert "your team" in problem(sqlite_team.post(PREVIEW, json=body), 503, "busy")["detail"]
        previewed(other, "html", clientJobId=job_of(other), bodyContent=BODY)
        with slots.place(other.team_id), slots.place(other.team_id):
            problem(sqlite_team.app.team().post(PREVIEW, json=body), 503, "busy")
    previewed(sqlite_team, "html", **body)
    assert not slots._taken


def test_a_third_check_of_a_team_waits_and_other_teams_do_not() -> None:
    lines, inside = Lines(), list[int]()

    async def check(team_id: int, gone: asyncio.Event) -> None:
        async with lines.place(team_id):
            inside.append(team_id)
            await gone.wait()

    async def run() -> None:
        gone = asyncio.Event()
        checks = [asyncio.create_task(check(team_id, gone)) for team_id in (1, 1, 1, 2)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert sorted(inside) == [1, 1, 2]
        gone.set()
        await asyncio.gather(*checks)

    asyncio.run(run())
    assert sorted(inside) == [1, 1, 1, 2]
    assert not lines._lines


def no_library(*_: object) -> Printed:
    """In a worker, by its name."""
    raise OSError("cannot load library 'libpango-1.0-0'")


def no_module(*_: object) -> Printed:
    raise ModuleNotFoundError("No module named 'weasyprint'")


@pytest.mark.parametrize("missing", [no_library, no_module])
def test_a_server_without_the_printers_libraries_says_so(
    sqlite_team: Team, missing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "print_report", missing)
    monkeypatch.setattr(loading, "check_template", missing)
    body = {"clientJobId": job_of(sqlite_team), "bodyContent": BODY}
    refused = problem(sqlite_team.post(PREVIEW, json=body), 503, "printing-unavailable")
    assert "fieldsync doctor" in refused["detail"]
    kept = sqlite_team.post("/reporttemplates/v1/content", json={"name": "x", "bodyContent": BODY})
    problem(kept, 503, "printing-unavailable")


# Which pictures are fetched


def fetched(team: Team, job: str, monkeypatch: pytest.MonkeyPatch, body: str) -> tuple[set[str], Document]:
    """Sizes of the pictures that a preview takes from the store, and its answer."""
    seen: list[str] = []

    def watched(blobs: BlobStore, keys: Mapping[str, str]) -> AbstractAsyncContextManager[dict[str, str]]:
        seen.extend(keys)
        return local_files(blobs, keys)

    with monkeypatch.context() as patched:
        patched.setattr(preview, "local_files", watched)
        answer = previewed(team, clientJobId=job, bodyContent=body).json()
    return {name.rpartition("/")[2] for name in seen}, answer


EACH = "{% for file in attachments %}BODY{% endfor %}"


@pytest.mark.parametrize(
    ("body", "sizes"),
    [
        ("{{ file.fileName }}<img alt='src'>", {"large"}),
        ("{{ file.fileName }}<img srcset=''>", set()),
        ("<img src='{{ file.src }}'>", {"large"}),
        ("<img src='{{ file['src'] }}'>", {"large"}),
        ("<img src='{{ file.thumbnails.small }}'>", {"small"}),
        ("<img src='{{ file.thumbnails['small'] or file.thumbnails.medium }}'>", {"small", "medium"}),
        ("<img src='att:{{ file.id }}/small'>", {"small"}),
        (
            "<img src='{{ file.thumbnails[images] }}'><p style='font-size: small'>",
            {"small", "medium", "large"},
        ),
        ("<img src='{{ 'att:' ~ file.id ~ '/' ~ images }}'>", {"small", "medium", "large"}),
        ("{{ file.src }}<img src='{{ file.thumbnails.small }}'>", {"small", "large"}),
    ],
)
def test_pictures_are_fetched_in_the_sizes_that_the_template_names(
    sqlite_team: Team, body: str, sizes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = photographed(sqlite_team, "small", "medium", "large")
    seen, answer = fetched(sqlite_team, job, monkeypatch, EACH.replace("BODY", body))
    assert seen == sizes
    assert answer["log"] == []


@pytest.mark.parametrize("limit", ["MOST_PICTURES", "MOST_PICTURE_BYTES"])
def test_a_preview_takes_some_of_many_pictures_and_says_so(
    sqlite_team: Team, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = photographed(sqlite_team, "small", "medium")
    one = {"MOST_PICTURES": 1, "MOST_PICTURE_BYTES": len(jpeg(drawing()))}
    monkeypatch.setattr(preview, limit, one[limit])
    both = "<img src='{{ file.thumbnails.small }}'><img src='{{ file.thumbnails.medium }}'>"
    seen, answer = fetched(sqlite_team, job, monkeypatch, EACH.replace("BODY", both))
    assert seen == {"small"}
    assert answer["html"].count("data:image/jpeg") == 1
    assert answer["log"][0] == "the preview has 1 of 2 pictures; a report has all of them"
