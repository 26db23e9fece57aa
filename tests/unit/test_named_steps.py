"""The named steps of a job: what the tablet did not send, the workflow says; what it sent stays."""

import json

from server.jobs.steps import definitions, named_steps
from tests.support.app import Document

STEPS = {
    "steps": [
        {
            "stepId": "a",
            "title": "Read the gauge",
            "tag": "gauge",
            "type": "InputStep",
            "inputType": "Numeric",
        },
        {
            "stepId": "form",
            "title": "Checklist",
            "type": "GroupStep",
            "steps": [{"stepId": "b", "title": "Seal intact?", "tag": "seal", "type": "DecisionStep"}],
        },
    ]
}


def known() -> Document:
    return dict(definitions(json.dumps(STEPS).encode()))


def single(step_id: str | None, **members: object) -> Document:
    return {
        "singleStep": {"uniqueStepId": f"visit of {step_id}", "stepId": step_id, **members},
        "reportStep": None,
    }


def job(**lists: object) -> Document:
    return {"metadata": {"currentStep": lists.pop("current", None)}, "sync": {}, **lists}


def test_nested_steps_are_known_by_their_id_too() -> None:
    assert sorted(known()) == ["a", "b", "form"]
    assert definitions(None) == {}


def test_what_the_tablet_did_not_send_comes_from_the_workflow_and_is_named() -> None:
    (step,) = named_steps(job(completedSteps=[single("a", metadata={"tags": ""})]), known())
    assert (step["title"], step["tag"], step["type"]) == ("Read the gauge", "gauge", "Numeric")
    assert step["fromWorkflow"] == ["title", "tag", "type"]
    assert step["phase"] == "completed"


def test_what_the_tablet_sent_stays() -> None:
    sent = single("a", stepTitle="Manometer", stepType="Text", metadata={"tags": "mine"})
    (step,) = named_steps(job(completedSteps=[sent]), known())
    assert (step["title"], step["tag"], step["type"], step["fromWorkflow"]) == (
        "Manometer",
        "mine",
        "Text",
        [],
    )


def test_a_step_that_the_workflow_does_not_have_keeps_what_it_has() -> None:
    (step,) = named_steps(job(completedSteps=[single("other", stepTitle="Free")]), known())
    assert (step["title"], step["tag"], step["type"], step["fromWorkflow"]) == ("Free", None, None, [])


def test_the_children_of_a_form_follow_it() -> None:
    form = {
        "singleStep": None,
        "reportStep": {"uniqueStepId": "f", "stepId": "form", "steps": [single("b"), {"stepId": "b"}]},
    }
    steps = named_steps(job(completedSteps=[form]), known())
    assert [step["title"] for step in steps] == ["Checklist", "Seal intact?", "Seal intact?"]
    assert steps[1]["type"] == "DecisionStep"


def test_every_visit_is_listed_in_the_order_of_the_phases() -> None:
    document = job(
        completedSteps=[single("a"), single("a")],
        cancelledSteps=[single("b")],
        sync={"openSteps": [single("a")]},
        current=single("b"),
    )
    assert [step["phase"] for step in named_steps(document, known())] == [
        *("completed", "completed", "cancelled", "open", "current")
    ]


def test_whatever_stands_in_place_of_a_step_is_passed_over() -> None:
    document = job(
        completedSteps=[None, 5, {}, {"singleStep": 7}, single(None), {"reportStep": {"steps": [1, "x"]}}],
        cancelledSteps="none",
    )
    assert [step["stepId"] for step in named_steps(document, known())] == [None, None]
