"""The built-in template: what it shows, how it looks, and that no job is too strange for it."""

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from fixtures.pictures import drawing
from media.details import Details, Thumbnail
from media.pdf import Printed, print_report
from server.reports.builtin import BUILT_IN
from server.reports.context import Around, ReportMaterial, decode_job, material_of
from storage.queries.attachments import AttachmentRow
from storage.queries.workflows import WorkflowRow
from tests.support.app import Document, step
from tests.unit.test_facts import anything, names

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
#: Of 255, on average: glyphs are drawn a little differently by other versions of the libraries.
TOLERANCE = 6.0
_MOMENT = 1_772_528_400_000_000  # 2026-03-03T09:00:00Z


def stored(attachment_id: str, content_type: str = "image/jpeg", **values: Any) -> AttachmentRow:
    made = tuple(
        Thumbnail(size, f"{attachment_id}-{size}", 640, 480, 1)
        for size in ("small", "medium", "large")
        if content_type == "image/jpeg"
    )
    row = {
        **dict.fromkeys(AttachmentRow._fields),
        "attachment_id": attachment_id,
        "state": "ready",
        "created_at": 0,
        "blob_key": f"key-of-{attachment_id}",
        "size": 240_000,
        "file_name": f"{attachment_id}.jpg",
        "content_type": content_type,
        "details": Details(takenAt="2026-03-03T09:20:00+01:00", thumbnails=made).encoded(),
        **values,
    }
    return AttachmentRow(**row)


def around(*files: AttachmentRow, workflow: WorkflowRow | None = None) -> Around:
    return Around("Europe/Zurich", None, workflow, None, None, list(files))


def inspection() -> tuple[Document, Around]:
    """A job of nine steps with forty photos."""
    photos = [f"IMG_{number:04}" for number in range(1, 41)]
    at = "2026-03-03T08:{:02}:00.000Z".format
    who = {"userName": "zofia.wójcik@example.com", "coordinates": {"latitude": 47.3853, "longitude": 8.5173}}

    def visit(key: str, minute: int, **members: Any) -> Document:
        return step(key, started=at(minute), completed=at(minute + 3), **who, **members)

    form = visit("form", 20, stepTitle="Bearings", stepDescription="Both ends of the motor.")["singleStep"]
    inside = [
        visit("f1", 21, stepTitle="Drive end temperature", stepDescription="°C", values=[58.6]),
        visit("f2", 22, stepTitle="Drive end photos", valueResourceIds=photos[2:7]),
    ]
    job: Document = {
        "jobId": "0" * 24,
        "team": "Harbour inspections",
        "metadata": {
            "clientJobId": "pump-7",
            "jobTitle": "Pump 7 – Zürich Hardbrücke",
            "workflowName": "Pump inspection",
            "status": "Completed",
            "created": at(5),
            "updated": at(55),
            "userId": "u",
            "username": "zofia.wójcik@example.com",
            "metadata": {"Site": "Zürich Hardbrücke", "Order": "WO-93425", "Ort": "Θεσσαλονίκη – Łódź"},
            "currentStep": None,
        },
        "completedSteps": [
            visit("a", 5, stepTitle="Area is safe", values=[True], note="Locked out, tagged."),
            visit("b", 9, stepTitle="Suction pressure", stepDescription="bar, at duty point", values=[1.9]),
            visit("c", 12, stepTitle="Overview", valueResourceIds=photos[:2]),
            {"reportStep": {**form, "steps": inside}},
            visit("g", 40, stepTitle="Damage", valueResourceIds=[*photos[7:], "data", "late"]),
        ],
        "cancelledSteps": [step("x", stepTitle="Seal", cancelled=at(18), started=at(17), note="No access.")],
        "sync": {"conflicts": [], "openSteps": []},
    }
    data = stored("data", "text/csv", file_name="Messwerte.csv", details=None)
    return job, around(*(stored(each) for each in photos), data)


def printed(material: ReportMaterial, folder: Path) -> Printed:
    paths = {}
    for number, name in enumerate(material.keys):
        size = (240, 320) if number // 3 % 4 == 3 else (320, 240)
        path = folder / f"{size[0]}.jpg"
        if not path.exists():
            drawing(*size).save(path, quality=90)
        paths[name] = str(path)
    return print_report(BUILT_IN, material.context, paths)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Printed:
    job, files = inspection()
    return printed(material_of(job, 4, files, None, "large", _MOMENT), tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("page", [1, 2])
def test_pages_look_as_they_did_when_somebody_looked(report: Printed, page: int, tmp_path: Path) -> None:
    """After a change of the template: look at the new page (it is named when the test fails), then keep it."""
    if shutil.which("pdftoppm") is None:
        pytest.skip("pdftoppm is not installed")
    fonts = subprocess.run(["fc-list", "DejaVu Sans:style=Condensed"], capture_output=True, check=False)
    if not fonts.stdout:
        pytest.skip("the font DejaVu Sans Condensed is not installed")
    command = ["pdftoppm", "-png", "-gray", "-r", "60", "-f", str(page), "-l", str(page), "-singlefile", "-"]
    made = subprocess.run(command, input=report.pdf, capture_output=True, check=True).stdout
    kept = GOLDEN / f"report-page-{page}.png"
    now, golden = (Image.open(source).convert("L") for source in (io.BytesIO(made), kept))
    assert now.size == golden.size
    half = (now.width // 2, now.height // 2)
    difference = ImageChops.difference(now.resize(half), golden.resize(half))
    mean = ImageStat.Stat(difference).mean[0]
    if mean > TOLERANCE:
        (tmp_path / kept.name).write_bytes(made)
    assert mean <= TOLERANCE, f"page {page} looks different: see {tmp_path / kept.name}"


def test_forty_photos_take_few_pages_and_leave_nothing_to_note(report: Printed) -> None:
    assert report.log == ()
    assert 6 <= report.pages <= 9


def test_the_picture_asked_for_is_the_one_that_is_read() -> None:
    job, files = inspection()
    for images, size in (("large", "large"), ("small", "medium")):
        material = material_of(job, 4, files, None, images, _MOMENT)
        sources = {file["src"] for file in material.context["attachments"] if file["src"]}
        assert sources == {f"att:IMG_{number:04}/{size}" for number in range(1, 41)}
        assert material.keys["IMG_0001/large"] == "IMG_0001-large"
    material = material_of(job, 4, files, None, "none", _MOMENT)
    assert material.keys == {}
    assert all(file["src"] is None for file in material.context["attachments"])


def test_files_are_told_with_what_is_known_of_them() -> None:
    job, files = inspection()
    told = {
        file["id"]: file for file in material_of(job, 4, files, None, "large", _MOMENT).context["attachments"]
    }
    assert told["IMG_0001"]["fileName"] == "IMG_0001.jpg"
    assert (told["IMG_0001"]["isImage"], told["data"]["isImage"]) == (True, False)
    assert (told["late"]["state"], told["late"]["fileName"]) == ("missing", "late")
    assert (told["IMG_0003"]["stepTitle"], told["IMG_0003"]["stepNumber"]) == ("Drive end photos", "5.2")


def test_an_id_with_any_character_is_a_picture_all_the_same(tmp_path: Path) -> None:
    odd = 'Bild "ä" (1)\'; %41.jpg'
    job, _ = inspection()
    job["completedSteps"] = [step("a", valueResourceIds=[odd])]
    material = material_of(job, 1, around(stored(odd)), None, "large", _MOMENT)
    assert printed(material, tmp_path).log == ()


def test_what_templates_are_given_is_plain() -> None:
    job, files = inspection()
    context = material_of(decode_job(msgspec.json.encode(job)), 4, files, None, "large", _MOMENT).context

    def look(value: object) -> None:
        assert value is None or type(value) in (dict, list, str, int, float, bool), type(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            look(inner)

    look(context)
    assert context["generated"] == "2026-03-03T10:00:00+01:00"
    assert context["job"]["meta"]["Order"] == "WO-93425"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, anything, max_size=6), st.lists(st.dictionaries(names, anything), max_size=3))
def test_no_job_is_too_strange_to_be_shown(head: Document, visits: list[Document]) -> None:
    job: Document = {
        "jobId": "0" * 24,
        "team": "t",
        "metadata": {"clientJobId": "c", "currentStep": None, **head},
        "completedSteps": [{"singleStep": each} for each in visits],
        "sync": {"conflicts": [], "openSteps": []},
    }
    job["metadata"] |= {"created": "0001-01-01T00:00:00+14:00", "updated": "9999-12-31T23:59:59-14:00"}
    for images in ("large", "none"):
        material = material_of(job, 1, around(stored("a")), None, images, _MOMENT)
        made = print_report(BUILT_IN, material.context, {}, as_pdf=False)
        assert b"pump" not in made.html
