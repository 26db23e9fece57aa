"""Facts of the steps of a job: what reports and queries say of each visit."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.jobs import inspection_jobs, rfc3339
from sync import facts
from sync.facts import (
    active_seconds,
    file_ids,
    job_facts,
    number,
    pauses,
    spelled_out,
    step_facts,
    whole_seconds,
)
from tests.support.app import Document

_BEGIN = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


def at(seconds: float) -> str:
    return rfc3339(_BEGIN + timedelta(seconds=seconds))


def single(key: str, **members: object) -> Document:
    return {"singleStep": {"uniqueStepId": key, **members}, "reportStep": None}


def job(**lists: object) -> Document:
    return {"metadata": {"currentStep": lists.pop("current", None)}, "sync": {}, **lists}


def keys(facts: list[dict[str, Any]]) -> list[str]:
    return [step["uniqueStepId"] for step in facts]


def test_a_step_has_every_field_of_section_3_5_3_2() -> None:
    step = single(
        "v1",
        stepId="s1",
        stepTitle="Pressure",
        stepDescription="bar",
        stepType="Number",
        metadata={"tags": "pressure"},
        started=at(0),
        completed=at(90),
        timeEvents={at(10): 0, at(40): 1},
        userId="u1",
        userName="maria",
        coordinates={"latitude": 47.5, "longitude": 8.5},
        note="steady",
        values=[2.5, "bar"],
        valueResourceIds=["photo-1", 7, ""],
        noteResourceFilenames=["photo-2", "photo-1"],
    )
    (facts,) = step_facts(job(completedSteps=[step]))
    assert facts == {
        "stepId": "s1",
        "uniqueStepId": "v1",
        "stepTitle": "Pressure",
        "stepDescription": "bar",
        "stepType": "Number",
        "stepTag": "pressure",
        "stepNumber": None,
        "started": at(0),
        "completed": at(90),
        "cancelled": None,
        "isCancelled": False,
        "isFormStep": False,
        "phase": "completed",
        "totalDuration": 90,
        "activeDuration": 60,
        "userId": "u1",
        "userName": "maria",
        "geoLat": 47.5,
        "geoLong": 8.5,
        "formLoopIteration": None,
        "note": "steady",
        "values": [2.5, "bar"],
        "value": "2.5, bar",
        "attachmentIds": ["photo-1", "photo-2"],
        "substeps": [],
    }


def test_what_the_tablet_did_not_send_comes_from_the_workflow() -> None:
    known = {"s1": ("Read the gauge", "gauge", "Numeric")}
    document = job(completedSteps=[single("a", stepId="s1"), single("b", stepId="s1", stepTitle="Mine")])
    facts = step_facts(document, known)
    assert [(step["stepTitle"], step["stepTag"], step["stepType"]) for step in facts] == [
        ("Read the gauge", "gauge", "Numeric"),
        ("Mine", "gauge", "Numeric"),
    ]


def test_steps_are_completed_cancelled_or_open_and_stand_in_the_order_of_time() -> None:
    document = job(
        completedSteps=[single("c", started=at(30)), single("timeless")],
        cancelledSteps=[single("x", started=at(10), cancelled=at(20))],
        current=single("now", started=at(50)),
    )
    document["sync"]["openSteps"] = [single("left", started=at(40))]
    facts = step_facts(document)
    assert [(step["uniqueStepId"], step["phase"], step["isCancelled"]) for step in facts] == [
        ("x", "cancelled", True),
        ("c", "completed", False),
        ("timeless", "completed", False),
        ("left", "open", False),
        ("now", "open", False),
    ]


def test_children_of_a_form_are_its_substeps_inside_it_or_beside_it() -> None:
    child = single("b", parentUniqueStepId="form", started=at(2), values=["inside"])
    inside: Document = {
        "singleStep": None,
        "reportStep": {"uniqueStepId": "form", "started": at(1), "steps": [child]},
    }
    beside = [single("form", started=at(1)), child, single("alone", started=at(9))]
    (nested,) = step_facts(job(completedSteps=[inside]))
    form, alone = step_facts(job(completedSteps=beside))
    for found in (nested, form):
        assert found["isFormStep"] is True
        assert [step["value"] for step in found["substeps"]] == ["inside"]
    assert alone["isFormStep"] is False
    # Sent both ways it is one visit.
    (both,) = step_facts(job(completedSteps=[inside, child]))
    assert keys(both["substeps"]) == ["b"]


def test_forms_in_forms_are_substeps_of_the_outermost() -> None:
    document = job(
        completedSteps=[
            single("a", started=at(0)),
            single("b", parentUniqueStepId="a", started=at(1)),
            single("c", parentUniqueStepId="b", started=at(2)),
        ]
    )
    (top,) = step_facts(document)
    assert keys(top["substeps"]) == ["b", "c"]


def test_parents_that_lead_in_circles_or_nowhere_hide_no_step() -> None:
    circle = [
        single("a", parentUniqueStepId="b"),
        single("b", parentUniqueStepId="a"),
        single("self", parentUniqueStepId="self"),
        single("lost", parentUniqueStepId="gone"),
        single("led", parentUniqueStepId="a"),
    ]
    assert sorted(keys(step_facts(job(completedSteps=circle)))) == ["a", "b", "led", "lost", "self"]


def test_a_long_chain_of_forms_is_walked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [single(str(n), parentUniqueStepId=str(n - 1)) for n in range(2_000)]
    looks, text = [], facts.text
    monkeypatch.setattr(facts, "text", lambda value: looks.append(None) or text(value))
    (top,) = step_facts(job(completedSteps=chain[::-1]))
    assert (top["uniqueStepId"], len(top["substeps"])) == ("0", 1_999)
    assert len(looks) < 50 * len(chain)


class _Compared(dict[str, Any]):
    """A step that counts how often it is compared with another."""

    times = 0

    def __eq__(self, other: object) -> bool:
        _Compared.times += isinstance(other, dict)
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]


def test_children_beside_their_form_are_compared_with_those_alike_only() -> None:
    inside = [single(f"c{n}", values=[n])["singleStep"] for n in range(500)]
    form = {"reportStep": {"uniqueStepId": "form", "steps": inside}}
    beside = [{"singleStep": _Compared(child, parentUniqueStepId="form")} for child in inside]
    sent_twice = [
        {"reportStep": {"uniqueStepId": "form", "steps": [dict(each["singleStep"]) for each in beside]}}
    ]
    _Compared.times = 0
    (told,) = step_facts(job(completedSteps=[form, *beside]))
    assert len(told["substeps"]) == 1_000
    (told,) = step_facts(job(completedSteps=[*sent_twice, *beside]))
    assert len(told["substeps"]) == 500
    assert _Compared.times <= 2 * len(beside)


def test_children_that_differ_are_all_told() -> None:
    """-1 and -2 have the same hash in Python."""
    beside = [single("b", parentUniqueStepId="form", values=[value]) for value in (-1, -2, [], {})]
    (told,) = step_facts(job(completedSteps=[single("form"), *beside, *beside[-1:]]))
    assert [step["values"] for step in told["substeps"]] == [[-1], [-2], [[]], [{}]]


def test_rounds_of_a_form_are_counted() -> None:
    rounds = [
        {
            "reportStep": {
                "uniqueStepId": f"f{n}",
                "stepId": "form",
                "started": at(n),
                "steps": [single(f"c{n}")],
            }
        }
        for n in range(3)
    ]
    facts = step_facts(job(completedSteps=rounds[::-1]))
    assert [step["formLoopIteration"] for step in facts] == [1, 2, 3]
    assert [step["substeps"][0]["formLoopIteration"] for step in facts] == [1, 2, 3]


def test_a_pause_in_a_form_is_also_one_inside_it() -> None:
    child = single("c", started=at(10), completed=at(50), timeEvents={at(20): 0, at(40): 1})
    form: Document = {
        "reportStep": {"uniqueStepId": "f", "started": at(0), "completed": at(60), "steps": [child]}
    }
    (facts,) = step_facts(job(completedSteps=[form]))
    assert (facts["totalDuration"], facts["activeDuration"]) == (60, 40)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("as it is", "as it is"),
        (True, "Yes"),
        (False, "No"),
        ([], ""),
        (None, ""),
        (["a", None, "", 0, "b"], "a, 0, b"),
        ({"latitude": 1, "place": {"name": "Quay"}}, "latitude: 1, place: name: Quay"),
        ([[[["deep"]]]], "…"),
        (10**25, "1" + "0" * 25),
    ],
)
def test_values_are_joined_as_people_read_them(value: object, said: str) -> None:
    assert spelled_out(value) == said


def test_a_number_keeps_its_spelling_in_the_text() -> None:
    decode = msgspec.json.Decoder(float_hook=number).decode
    body = b'{"completedSteps": [{"singleStep": {"value": 2.50, "coordinates": {"latitude": 1.50, "longitude": 2}}}]}'
    (step,) = step_facts(decode(body))
    assert (step["value"], step["values"], step["geoLat"]) == ("2.50", [2.5], 1.5)
    assert [type(step[name]) for name in ("geoLat", "geoLong")] == [float, float]
    assert (number("1e-99999999999999999999"), str(number("1e99999999999999999999"))) == (0, "Infinity")


def test_what_files_a_step_refers_to_are_texts_each_once() -> None:
    assert file_ids({"valueResourceIds": ["a", "b", "a", None, 3], "noteResourceFilenames": "a"}) == [
        "a",
        "b",
    ]


def test_every_step_of_sample_jobs_is_told_once() -> None:
    for document in inspection_jobs(10):
        sent = [
            body["uniqueStepId"]
            for listed in (*(document["completedSteps"] or []), *(document["cancelledSteps"] or []))
            for body in (listed["singleStep"] or listed["reportStep"],)
        ]
        nested = [
            child["singleStep"]["uniqueStepId"]
            for listed in document["completedSteps"]
            for child in (listed["reportStep"] or {}).get("steps", ())
        ]
        current = document["metadata"]["currentStep"]
        opened = [(current["singleStep"] or current["reportStep"])["uniqueStepId"]] if current else []
        told = step_facts(document)
        assert sorted([*sent, *nested, *opened]) == sorted(
            [*keys(told), *(key for step in told for key in keys(step["substeps"]))]
        )


# Properties

seconds = st.integers(0, 10_000)
events = st.dictionaries(seconds.map(at), st.sampled_from([0, 1]), max_size=12)


@given(st.lists(events, max_size=4), seconds)
def test_pauses_never_overlap_and_lie_in_order(marks: list[dict[str, int]], end: int) -> None:
    found = pauses([{"timeEvents": each} for each in marks], _BEGIN + timedelta(seconds=end))
    assert all(start < stop for start, stop in found)
    assert all(one[1] < other[0] for one, other in pairwise(found))


@given(events, seconds, seconds)
def test_the_active_time_lies_between_nothing_and_the_whole(
    marks: dict[str, int], one: int, other: int
) -> None:
    start, end = (_BEGIN + timedelta(seconds=each) for each in sorted((one, other)))
    step = {"timeEvents": marks, "completed": rfc3339(end)}
    active = active_seconds(start, end, pauses([step], end))
    assert active is not None
    assert 0 <= active <= (whole_seconds(start, end) or 0)


@given(st.lists(st.tuples(seconds, st.integers(1, 500)), max_size=6), seconds)
def test_the_active_time_is_what_no_pause_covers(given: list[tuple[int, int]], length: int) -> None:
    steps = [{"timeEvents": {at(start): 0, at(start + lasting): 1}} for start, lasting in given]
    covered = {second for start, lasting in given for second in range(start, min(start + lasting, length))}
    end = _BEGIN + timedelta(seconds=length)
    assert active_seconds(_BEGIN, end, pauses(steps, end)) == length - len(covered)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["2026-03-01T08:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "a", "b"]
    )
)
names = st.sampled_from(
    [
        *(
            "singleStep",
            "reportStep",
            "steps",
            "uniqueStepId",
            "parentUniqueStepId",
            "stepId",
            "values",
            "value",
        ),
        *(
            "started",
            "completed",
            "cancelled",
            "updated",
            "timeEvents",
            "coordinates",
            "latitude",
            "longitude",
        ),
        *("metadata", "tags", "currentStep", "sync", "openSteps", "completedSteps", "cancelledSteps", "note"),
        *(
            "valueResourceIds",
            "noteResourceFilenames",
            "stepNumber",
            "formLoopIteration",
            "2026-03-01T08:00:00Z",
        ),
    ]
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=40,
)
steps = st.lists(
    st.dictionaries(
        st.sampled_from(["singleStep", "reportStep"]), st.dictionaries(names, anything, max_size=8)
    ),
    max_size=5,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        "completedSteps": steps | anything,
        "cancelledSteps": steps,
        "metadata": anything,
        "sync": anything,
    },
)


@given(documents)
def test_no_document_is_too_strange(document: Document) -> None:
    for step in step_facts(document):
        assert step["phase"] in ("completed", "cancelled", "open")
        assert all(
            isinstance(step[name], str | None) for name in ("stepTitle", "value", "started", "userName")
        )
        msgspec.json.encode(step)
    msgspec.json.encode(job_facts(document))


def test_a_whole_number_of_any_length_is_told() -> None:
    huge = 10**6000
    (step,) = step_facts(job(completedSteps=[single("a", values=[huge], stepNumber=huge, note=huge)]))
    assert step["value"].startswith("1.000000e+6000")
    assert step["stepNumber"] is None
    msgspec.json.encode(step)
