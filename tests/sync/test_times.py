"""Times of devices, as they are read and shown again."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sync.values import format_time, parse_time
from tests.support.app import Team, snapshot

EDGES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999-12:00", "0001-01-01T00:00:00Z"]


@given(st.integers(-(2**63), 2**63 - 1))
@example(-62_135_596_800_000_000)
@example(253_402_300_799_999_999)
def test_every_number_of_microseconds_is_shown_as_a_time_that_is_read_again(microseconds: int) -> None:
    text = format_time(microseconds)
    read = parse_time(text)
    assert read is not None
    assert format_time(read) == text
    first, last = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    assert first <= datetime.fromisoformat(text) <= last
    assert len(text) == len("2021-10-01T12:48:13.824Z")


@pytest.mark.parametrize("text", EDGES)
def test_a_job_whose_times_are_at_the_edge_of_the_calendar_is_merged_and_shown(team: Team, text: str) -> None:
    job = snapshot(status="Completed", jobTitle="a", created=text, updated=text)
    for number, title in enumerate("ab"):
        job["metadata"]["jobTitle"] = title
        job["sync"] = {"installId": f"5b0b3d2e-0f6c-4d1b-9a57-3b1d4c2f7a1{number}", "pushSeq": 1}
        answer = team.sync(json.dumps(job).encode())
        assert answer.status_code == 200, answer.text
    assert team.job(job["metadata"]["clientJobId"])["metadata"]["updated"] == text
