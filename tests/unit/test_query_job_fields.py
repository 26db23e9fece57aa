"""What queries tell of a job, beside what the whole document says."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.jobs import inspection_jobs
from server.query.documents import read
from server.query.job_fields import TOLD, Around, JobShape
from server.query.selecting import select
from sync.facts import JOB_FIELDS, job_facts, number, step_facts
from tests.support.app import Document
from tests.unit.test_facts import documents

NAMES = {"a": ("Pressure", "gauge", "Number")}
_whole = msgspec.json.Decoder(dict[str, Any], float_hook=number)
STEP = sorted(TOLD["Step"] - {"substeps", "attachments", "attachmentIds", "stepNumber"})
JOB = sorted(JOB_FIELDS.keys() - {"metadata"})


def told(view: bytes, selection: str) -> dict[str, Any]:
    (field,) = select(read(f"{{ jobs {{ {selection} }} }}"), None, {})
    shape = JobShape(field.fields)
    around = Around(cursor=None, tags=(), names=NAMES, files=(), reports=(), blobs=None)  # type: ignore[arg-type]
    return shape.job(shape.open(view), around)


def whole(view: bytes) -> Document:
    """With numbers as they are spelled."""
    document: Document = _whole.decode(view)
    return document


def expected(document: Document) -> list[dict[str, Any]]:
    return [
        {name: step[name] for name in STEP}
        | {"substeps": [{name: inner[name] for name in STEP} for inner in step["substeps"]]}
        for step in step_facts(document, NAMES)
    ]


def same(view: bytes) -> None:
    fields = " ".join(STEP)
    job = told(view, f"{' '.join(JOB)} steps {{ {fields} substeps {{ {fields} }} }}")
    steps = job.pop("steps")
    assert steps == expected(whole(view))
    facts = job_facts(whole(view))
    assert job == {name: facts[name] for name in JOB}


views = documents.map(lambda document: json.dumps(document, allow_nan=False).encode())


@given(views)
def test_queries_tell_of_any_document_what_reports_tell(view: bytes) -> None:
    same(view)


def test_queries_tell_of_sample_jobs_what_reports_tell() -> None:
    for document in inspection_jobs(20):
        same(msgspec.json.encode(document))


@pytest.mark.parametrize(
    "children",
    [
        [{"uniqueStepId": "b", "steps": []}, {"uniqueStepId": "c", "steps": None}, {"uniqueStepId": "d"}],
        [{"uniqueStepId": "b", "steps": [{"uniqueStepId": "c", "note": "n"}]}, None, 5],
        [{"singleStep": {"uniqueStepId": "b"}, "reportStep": {"uniqueStepId": "c", "steps": None}}],
        [{"singleStep": {"uniqueStepId": "b", "steps": [{"uniqueStepId": "c"}]}}, {"singleStep": None}],
        [{"singleStep": {"uniqueStepId": "b", "singleStep": {"uniqueStepId": "c"}}}, {"steps": [{}]}],
        [{"singleStep": {"uniqueStepId": "b", "reportStep": {"uniqueStepId": "c"}, "steps": [7]}}],
        {"uniqueStepId": "b"},
    ],
)
def test_queries_tell_of_forms_what_reports_tell(children: object) -> None:
    form = {"uniqueStepId": "a", "steps": children}
    beside = {"uniqueStepId": "b", "parentUniqueStepId": "a"}
    for kind in ("singleStep", "reportStep"):
        same(msgspec.json.encode({"completedSteps": [{kind: form}, {"singleStep": beside}]}))
        same(msgspec.json.encode({"metadata": {"currentStep": {kind: form}}, "sync": {"openSteps": [5]}}))


CHILD = {"uniqueStepId": "c", "stepId": "s", "parentUniqueStepId": "a", "values": ["1"]}


@pytest.mark.parametrize("selected", ["stepId", "phase", "note value", " ".join(STEP)])
@pytest.mark.parametrize(
    ("inside", "beside"),
    [
        ([CHILD], [CHILD]),
        ([{"singleStep": CHILD}], [CHILD, CHILD]),
        ([], [CHILD, CHILD | {"values": ["2"]}]),
        ([CHILD], [CHILD | {"deviceId": "another, of which no field tells"}]),
        ([{}], [{"parentUniqueStepId": "a"}, {"parentUniqueStepId": "a", "note": "n"}]),
        ([CHILD | {"steps": [{"steps": []}]}], [CHILD, {"stepId": 5}]),
        ([], [CHILD | {"steps": [CHILD]}, CHILD | {"steps": [CHILD]}, CHILD]),
    ],
)
def test_visits_are_the_same_visit_if_all_of_them_is_the_same(
    inside: list[Any], beside: list[Any], selected: str
) -> None:
    form = {"reportStep": {"uniqueStepId": "a", "steps": inside}}
    view = msgspec.json.encode({"completedSteps": [form, *({"singleStep": step} for step in beside)]})
    job = told(view, f"steps {{ {selected} substeps {{ {selected} }} }}")
    names = selected.split()
    assert job["steps"] == [
        {name: step[name] for name in names}
        | {"substeps": [{name: inner[name] for name in names} for inner in step["substeps"]]}
        for step in step_facts(whole(view), NAMES)
    ]


@given(views, st.sets(st.sampled_from(STEP), min_size=1, max_size=3))
def test_a_field_is_told_whatever_else_is_selected(view: bytes, names: set[str]) -> None:
    job = told(view, f"steps {{ {' '.join(sorted(names))} }}")
    steps = step_facts(whole(view), NAMES)
    assert job["steps"] == [{name: step[name] for name in sorted(names)} for step in steps]


@given(views, st.sets(st.sampled_from(JOB), min_size=1, max_size=3))
def test_a_fact_of_the_job_is_told_whatever_else_is_selected(view: bytes, names: set[str]) -> None:
    facts = job_facts(whole(view))
    assert told(view, " ".join(sorted(names))) == {name: facts[name] for name in sorted(names)}
