"""What webhooks say, whatever the job holds; and the keys in them."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.triggers.keys import LIFETIME, PREFIX, QueryKeys
from server.triggers.payload import MAX_BODY, webhook_body
from storage.queries.deliveries import DeliveryRow
from sync.facts import job_facts
from sync.fitting import MAX_FACTS, fitted, shortened

SECOND = 1_000_000
AT = 1_741_000_000 * SECOND
KEY = ("TMP1" + "A" * 48, "2025-03-03T09:20:00Z")
REPORT = {"reportId": "67c56a0d0000000000000002", "url": "https://sync.example.com/files/" + "r" * 400}
#: Milliseconds of 2025-03-03T07:20:00.250Z, then what makes it unique.
EVENT = f"{1_740_986_400_250:012x}000001abcdef"

FACTS: dict[str, Any] = {
    **job_facts(
        {
            "jobId": "67c56a0d0000000000000001",
            "team": "Harbour inspections",
            "metadata": {
                "clientJobId": "pump-7",
                "workflowId": "a454a699-173f-429e-b3cd-fefd82d0a1e4",
                "jobTitle": "Pump 7",
                "created": "2025-03-03T07:00:00Z",
                "updated": "2025-03-03T07:20:00Z",
                "status": "Completed",
                "metadata": {"Site": "Harbour", "Pressure": 2.5},
            },
        }
    ),
    "workflowTags": ["pumps"],
    "completedJobCursor": "5eed016600000000000000a7",
}


def delivery(payload: object, note: str | None = None, event_id: str = EVENT) -> DeliveryRow:
    return DeliveryRow(
        delivery_id="67c56a0d0000000000000003",
        trigger_id="67c56a0d0000000000000004",
        event_id=event_id,
        type="job.completed",
        job_id="67c56a0d0000000000000001",
        client_job_id="pump-7",
        rev=3,
        state="due",
        payload=msgspec.json.encode(payload),
        report_id=None,
        wait_until=None,
        note=note,
        attempts=0,
        next_at=AT,
        created_at=AT,
        finished_at=None,
    )


def body_of(payload: object, **rest: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(webhook_body(delivery(payload, **rest), KEY, [REPORT]))
    return decoded


# The body


def test_a_body_is_the_job_in_the_documents_shape_with_what_standard_webhooks_asks_for() -> None:
    body = body_of(FACTS)
    assert list(body) == ["data", "id", "type", "version", "timestamp"]
    assert body["id"] == "msg_67c56a0d0000000000000003"
    assert (body["type"], body["version"]) == ("job.completed", "1")
    assert body["timestamp"] == "2025-03-03T07:20:00.250Z"
    (job,) = body["data"]["jobs"]
    assert list(job) == [
        *("jobId", "clientJobId", "completedJobCursor", "teamName", "workflowId", "workflowVersionId"),
        *("workflowTitle", "workflowTags", "jobTitle", "created", "updated", "totalDuration"),
        *("activeDuration", "status", "userId", "userName", "geoLongAverage", "geoLatAverage", "metadata"),
        *("reports", "key"),
    ]
    assert job["completedJobCursor"] == "5eed016600000000000000a7"
    assert job["metadata"] == [{"name": "Site", "value": "Harbour"}, {"name": "Pressure", "value": 2.5}]
    assert job["workflowTags"] == ["pumps"]
    assert job["reports"] == [REPORT]
    assert job["key"] == {"value": KEY[0], "expiry": KEY[1]}


def test_a_note_stands_beside_the_data() -> None:
    assert body_of(FACTS, note="3 of 40 photos had not arrived.")["note"] == "3 of 40 photos had not arrived."


def test_an_event_made_by_hand_has_the_time_of_its_delivery() -> None:
    assert body_of(FACTS, event_id="by hand")["timestamp"] == "2025-03-03T11:06:40.000Z"


def test_the_largest_values_are_cut_and_it_says_so() -> None:
    metadata = [{"name": "Site", "value": "Harbour"}, {"name": "Report", "value": "x" * 100_000}]
    (job,) = body_of({**FACTS, "metadata": metadata})["data"]["jobs"]
    assert job["truncated"] is True
    assert job["metadata"][0] == {"name": "Site", "value": "Harbour"}
    assert re.fullmatch("x{3000,}…", job["metadata"][1]["value"])
    assert job["jobTitle"] == "Pump 7"


def test_an_object_too_large_is_told_as_the_beginning_of_its_text() -> None:
    metadata = [{"name": "Readings", "value": {str(number): number for number in range(10_000)}}]
    (job,) = body_of({**FACTS, "metadata": metadata})["data"]["jobs"]
    assert job["metadata"][0]["value"].startswith('{"0":0,"1":1,')


def test_of_too_many_small_values_the_last_are_left_out() -> None:
    metadata = [{"name": f"Reading {number}", "value": number} for number in range(2_000)]
    (job,) = body_of({**FACTS, "metadata": metadata})["data"]["jobs"]
    assert job["truncated"] is True
    assert 200 < len(job["metadata"]) < 2_000
    assert job["metadata"] == metadata[: len(job["metadata"])]


def test_what_was_cut_when_it_was_frozen_is_still_said_to_be_when_it_is_sent() -> None:
    frozen = fitted({**FACTS, "jobTitle": "x" * 100_000}, MAX_FACTS)
    (job,) = body_of(frozen)["data"]["jobs"]
    assert job["truncated"] is True
    assert "truncated" not in body_of(FACTS)["data"]["jobs"][0]


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
_long = st.builds(lambda text, times: text * times, st.text(min_size=1, max_size=8), st.integers(1, 9_000))
_entries = st.builds(
    lambda entry, times: [entry] * times,
    st.fixed_dictionaries({"name": _long | st.text(), "value": _json | _long}),
    st.integers(0, 400),
)
_facts = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(FACTS, _json | _long),
        "metadata": st.lists(_entries, max_size=3).map(
            lambda lists: [entry for one in lists for entry in one]
        ),
        "workflowTags": st.lists(_long, max_size=20) | st.lists(st.text(), max_size=400),
        "truncated": st.booleans(),
    },
)


@settings(max_examples=150, deadline=None)
@given(facts=_facts, note=st.none() | _long)
def test_a_body_is_json_of_less_than_20_kb_whatever_the_job_holds(
    facts: dict[str, Any], note: str | None
) -> None:
    frozen = fitted(facts, MAX_FACTS)
    assert len(msgspec.json.encode(frozen)) <= MAX_FACTS
    for payload in (frozen, facts):
        body = webhook_body(delivery(payload, note), KEY, [REPORT] * 4)
        assert len(body) < MAX_BODY
        decoded = json.loads(body)
        (job,) = decoded["data"]["jobs"]
        assert job["key"] == {"value": KEY[0], "expiry": KEY[1]}
        if not job.get("truncated"):
            assert {
                name: value for name, value in job.items() if name not in ("reports", "key", "truncated")
            } == {name: value for name, value in facts.items() if name != "truncated"}


@settings(deadline=None)
@given(text=st.text() | _long, most=st.integers(10, 200))
def test_a_text_is_cut_to_what_fits_and_no_shorter_than_it_must_be(text: str, most: int) -> None:
    cut = shortened(text, most)
    size = len(msgspec.json.encode(text))
    assert len(msgspec.json.encode(cut)) <= most
    assert cut == text if size <= most else text.startswith(cut.removesuffix("…")) and cut.endswith("…")


# Keys


def test_a_key_opens_its_teams_data_for_an_hour() -> None:
    keys = QueryKeys(b"s" * 32)
    value, expiry = keys.make(7, AT)
    assert expiry == "2025-03-03T12:06:40Z"
    assert keys.team_of(value, AT) == 7
    assert keys.team_of(value, AT + LIFETIME * SECOND - 1) == 7
    assert keys.team_of(value, AT + LIFETIME * SECOND) is None


def test_a_key_is_letters_and_digits_and_is_told_from_others_by_its_beginning() -> None:
    value, _ = QueryKeys(b"s" * 32).make(2**62, AT)
    assert re.fullmatch(PREFIX + "[A-Z2-7]{48}", value)


def test_a_key_whose_hour_is_over_is_told_from_one_that_was_never_ours() -> None:
    keys = QueryKeys(b"s" * 32)
    value, _ = keys.make(7, AT)
    later = AT + LIFETIME * SECOND
    forged, _ = QueryKeys(b"t" * 32).make(7, AT)
    assert (keys.expired(value, AT), keys.expired(value, later)) == (False, True)
    assert (keys.team_of(forged, AT), keys.expired(forged, later)) == (None, False)


def test_every_process_of_an_installation_takes_the_keys_of_the_others() -> None:
    value, _ = QueryKeys(b"s" * 32).make(7, AT)
    assert QueryKeys(b"s" * 32).team_of(value, AT) == 7


@given(place=st.integers(0, 51), character=st.characters())
def test_a_key_that_was_changed_anywhere_is_forged(place: int, character: str) -> None:
    keys = QueryKeys(b"s" * 32)
    value, _ = keys.make(7, AT)
    changed = value[:place] + character + value[place + 1 :]
    assert keys.team_of(changed, AT) == (7 if changed == value else None)
    assert not keys.expired(changed, AT + LIFETIME * SECOND) or changed == value


@pytest.mark.parametrize(
    "change", [str.lower, lambda value: value + "A", lambda value: value[:-1], lambda _: ""]
)
def test_a_key_has_one_spelling(change: Any) -> None:
    keys = QueryKeys(b"s" * 32)
    value, _ = keys.make(7, AT)
    assert keys.team_of(change(value), AT) is None


@given(text=st.text())
def test_no_text_that_we_did_not_make_is_a_key(text: str) -> None:
    assert QueryKeys(b"s" * 32).team_of(text, AT) is None
    assert QueryKeys(b"s" * 32).team_of(PREFIX + text, AT) is None
