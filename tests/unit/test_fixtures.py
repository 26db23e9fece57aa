"""The sample jobs are what the tests, benchmarks and the demo take them for."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from fixtures.jobs import (
    Document,
    bench_snapshot,
    inspection_jobs,
    paused_snapshot,
    specification_snapshot,
)
from fixtures.local_job import body_of, key_of

# Section 6.14 of the primary specification: every key of its example, with the type of its value.
NONE = type(None)
TOP: dict[str, type] = {
    "metadata": dict,
    "completedSteps": list,
    "cancelledSteps": NONE,
    "team": str,
    "hierarchyStack": NONE,
    "packetIds": NONE,
    "jobExclusion": list,
    "excluded": bool,
}
HEADER: dict[str, type] = {
    "clientJobId": str,
    "workflowId": str,
    "workflowVersionId": str,
    "jobTitle": str,
    "metadata": dict,
    "created": str,
    "updated": str,
    "modified": str,
    "status": str,
    "userId": str,
    "currentStep": NONE,
    "abandonReason": NONE,
    "username": str,
    "workflowName": str,
}
STEP: dict[str, type] = {
    "values": list,
    "valueResourceIds": list,
    "uniqueStepId": str,
    "previousUniqueStepId": str,
    "userId": str,
    "userName": str,
    "deviceId": NONE,
    "stepId": str,
    "stepNumber": int,
    "stepTitle": str,
    "stepDescription": str,
    "stepType": str,
    "connectionType": NONE,
    "started": str,
    "completed": str,
    "updated": str,
    "cancelled": NONE,
    "timeEvents": NONE,
    "note": NONE,
    "noteResourceFilenames": NONE,
    "coordinates": NONE,
    "parentStepId": NONE,
    "parentUniqueStepId": NONE,
    "parentStepTitle": NONE,
    "parentStepDescription": NONE,
    "metadata": dict,
}


def types_of(members: Document) -> dict[str, type]:
    return {key: type(value) for key, value in members.items()}


def all_steps(document: Document) -> list[Document]:
    current = document["metadata"]["currentStep"]
    return [
        *(document["completedSteps"] or []),
        *(document["cancelledSteps"] or []),
        *([current] if current else []),
    ]


def bodies(document: Document) -> Iterator[Document]:
    """The bodies of all steps, those nested in reports included."""
    for step in all_steps(document):
        yield body_of(step)
        for child in body_of(step).get("steps", []):
            yield body_of(child)


def test_the_specification_snapshot_has_the_keys_order_and_types_of_section_6_14() -> None:
    document = specification_snapshot()
    assert list(document) == list(TOP)
    assert types_of(document) == TOP
    assert list(document["metadata"]) == list(HEADER)
    assert types_of(document["metadata"]) == HEADER
    [step] = document["completedSteps"]
    assert list(step) == ["singleStep", "reportStep"]
    assert step["reportStep"] is None
    assert list(step["singleStep"]) == list(STEP)
    assert types_of(step["singleStep"]) == STEP
    assert types_of(step["singleStep"]["metadata"]) == {"tags": str}


def test_the_paused_snapshot_has_an_open_step_and_nothing_completed() -> None:
    document = paused_snapshot()
    assert types_of(document) == TOP | {"completedSteps": NONE}
    assert document["metadata"]["status"] == "Paused"
    step = document["metadata"]["currentStep"]["singleStep"]
    assert types_of(step) == STEP | {"completed": NONE, "timeEvents": dict}


def test_generated_jobs_are_the_same_for_the_same_seed_and_differ_for_another() -> None:
    assert inspection_jobs(6) == inspection_jobs(6)
    assert inspection_jobs(6) == inspection_jobs(12)[:6]
    assert inspection_jobs(6, seed=1) != inspection_jobs(6, seed=2)


def test_generated_jobs_have_5_to_40_steps_and_use_the_range() -> None:
    counts = [len(all_steps(document)) for document in inspection_jobs(60)]
    assert 5 <= min(counts) < 8
    assert 35 < max(counts) <= 40


def test_generated_jobs_have_every_key_of_the_specification_and_unique_ids() -> None:
    documents = inspection_jobs(30)
    assert len({document["metadata"]["clientJobId"] for document in documents}) == 30
    for document in documents:
        assert document.keys() == TOP.keys()
        assert document["metadata"].keys() == HEADER.keys()
        found = list(bodies(document))
        assert len({body["uniqueStepId"] for body in found}) == len(found)
        for body in found:
            assert body.keys() - {"steps"} == STEP.keys()


def test_generated_jobs_hold_forms_photos_notes_places_and_several_statuses() -> None:
    documents = inspection_jobs(30)
    found = [body for document in documents for body in bodies(document)]
    assert {"Text", "Number", "Photo", "ConfirmStep", "Choice", "Form"} <= {
        body["stepType"] for body in found
    }
    assert {"Completed", "InProgress", "Paused"} <= {document["metadata"]["status"] for document in documents}
    assert len({document["metadata"]["workflowId"] for document in documents}) > 3
    assert any(body.get("steps") for body in found), "children nested in a report"
    assert any(body["parentUniqueStepId"] for body in found), "children beside their form"
    assert any(len(body["valueResourceIds"]) > 1 for body in found)
    assert any(body["noteResourceFilenames"] for body in found)
    assert any(body["coordinates"] for body in found)
    assert any(body["timeEvents"] for body in found)
    assert any(not document["metadata"]["jobTitle"].isascii() for document in documents)


def test_children_beside_their_form_name_it_in_every_parent_member() -> None:
    for document in inspection_jobs(30):
        by_id = {key_of(step): body_of(step) for step in all_steps(document)}
        for body in bodies(document):
            if (parent := body["parentUniqueStepId"]) in by_id:
                form = by_id[parent]
                assert form["stepType"] == "Form"
                assert (body["parentStepId"], body["parentStepTitle"]) == (form["stepId"], form["stepTitle"])


def test_times_are_rfc_3339_with_milliseconds_and_z() -> None:
    def check(value: Any) -> None:
        if value is not None:
            assert len(value) == len("2021-10-01T12:48:12.215Z")
            assert value.endswith("Z")
            datetime.fromisoformat(value)

    for document in inspection_jobs(10):
        for key in ("created", "updated", "modified"):
            check(document["metadata"][key])
        for body in bodies(document):
            for key in ("started", "completed", "updated", "cancelled"):
                check(body[key])
            for moment in body["timeEvents"] or {}:
                check(moment)


@pytest.mark.parametrize("number", range(25))
def test_the_benchmark_job_has_five_steps_in_about_4_300_bytes(number: int) -> None:
    client_job_id = f"00000000-0000-4000-8000-{number:012d}"
    document = bench_snapshot(client_job_id)
    assert 4_000 <= len(msgspec.json.encode(document)) <= 4_600
    assert len(document["completedSteps"]) == 5
    assert document["metadata"]["currentStep"] is None
    assert document["metadata"]["clientJobId"] == client_job_id
    assert document == bench_snapshot(client_job_id)
