"""The named steps of a job: what the tablet did not send, the workflow says; what it sent stays."""

from server.jobs.names import KeptNames
from server.jobs.steps import named_steps
from sync.facts import Names
from tests.support.app import Document

KNOWN: Names = {
    "a": ("Read the gauge", "gauge", "Numeric"),
    "form": ("Checklist", None, "GroupStep"),
    "b": ("Seal intact?", "seal", "DecisionStep"),
}


def single(step_id: str | None, **members: object) -> Document:
    return {
        "singleStep": {"uniqueStepId": f"visit of {step_id}", "stepId": step_id, **members},
        "reportStep": None,
    }


def job(**lists: object) -> Document:
    return {"metadata": {"currentStep": lists.pop("current", None)}, "sync": {}, **lists}


def test_what_the_tablet_did_not_send_comes_from_the_workflow_and_is_named() -> None:
    (step,) = named_steps(job(completedSteps=[single("a", metadata={"tags": ""})]), KNOWN)
    assert (step["title"], step["tag"], step["type"]) == ("Read the gauge", "gauge", "Numeric")
    assert step["fromWorkflow"] == ["title", "tag", "type"]
    assert step["phase"] == "completed"


def test_what_the_tablet_sent_stays() -> None:
    sent = single("a", stepTitle="Manometer", stepType="Text", metadata={"tags": "mine"})
    (step,) = named_steps(job(completedSteps=[sent]), KNOWN)
    assert (step["title"], step["tag"], step["type"], step["fromWorkflow"]) == (
        "Manometer",
        "mine",
        "Text",
        [],
    )


def test_a_step_that_the_workflow_does_not_have_keeps_what_it_has() -> None:
    (step,) = named_steps(job(completedSteps=[single("other", stepTitle="Free")]), KNOWN)
    assert (step["title"], step["tag"], step["type"], step["fromWorkflow"]) == ("Free", None, None, [])


def test_the_children_of_a_form_follow_it() -> None:
    form = {
        "singleStep": None,
        "reportStep": {"uniqueStepId": "f", "stepId": "form", "steps": [single("b"), {"stepId": "b"}]},
    }
    steps = named_steps(job(completedSteps=[form]), KNOWN)
    assert [step["title"] for step in steps] == ["Checklist", "Seal intact?", "Seal intact?"]
    assert steps[1]["type"] == "DecisionStep"


def test_every_visit_is_listed_in_the_order_of_the_phases() -> None:
    document = job(
        completedSteps=[single("a"), single("a")],
        cancelledSteps=[single("b")],
        sync={"openSteps": [single("a")]},
        current=single("b"),
    )
    assert [step["phase"] for step in named_steps(document, KNOWN)] == [
        *("completed", "completed", "cancelled", "open", "current")
    ]


def test_whatever_stands_in_place_of_a_step_is_passed_over() -> None:
    document = job(
        completedSteps=[None, 5, {}, {"singleStep": 7}, single(None), {"reportStep": {"steps": [1, "x"]}}],
        cancelledSteps="none",
    )
    assert [step["stepId"] for step in named_steps(document, KNOWN)] == [None, None]


def test_the_names_that_were_used_last_are_kept() -> None:
    kept = KeptNames(3_000)
    for number in range(3):
        kept.keep(1, str(number), {"a": ("t", None, None)}, 500)
    assert kept.get(1, "0") is not None
    kept.keep(1, "3", {"a": ("t", None, None)}, 500)
    assert [kept.get(1, str(number)) is not None for number in range(4)] == [True, False, True, True]
    assert kept.get(2, "0") is None
    assert kept.bytes == 3 * 800


def test_names_larger_than_all_that_is_kept_push_out_nothing() -> None:
    kept = KeptNames(3_000)
    kept.keep(1, "small", {}, 100)
    kept.keep(1, "large", {}, 3_001)
    kept.keep(1, "many", {str(number): ("", "", "") for number in range(11)}, 10)
    assert kept.get(1, "small") == {}
    assert (kept.get(1, "large"), kept.get(1, "many")) == (None, None)
    kept.keep(1, "small", {}, 100)
    assert kept.bytes == 100
