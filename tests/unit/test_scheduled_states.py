"""The rules of scheduled tasks: the same result in whatever order things became known."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.schedule import (
    ABANDONED,
    ACTIVE,
    COMPLETED,
    NOT_STARTED,
    PAUSED,
    UNTOUCHED,
    Heard,
    Standing,
    counting,
    effective,
    job_state,
    said,
)

STATES = [NOT_STARTED, ABANDONED, PAUSED, ACTIVE, COMPLETED]


def synced(client_job_id: str, state: int, at: int | None) -> Heard:
    return Heard(client_job_id, f"id of {client_job_id}", state, at)


def test_what_was_said_counts_before_the_job_is_synced() -> None:
    assert effective(said(Heard("a"), ACTIVE, 5)) == Standing(ACTIVE, "a", None, 5)


def test_what_was_said_counts_if_it_is_later_than_the_job() -> None:
    work = synced("a", ACTIVE, 5)
    assert effective(said(work, PAUSED, 6)) == Standing(PAUSED, "a", "id of a", 6)
    for at in (4, 5):
        assert effective(said(work, PAUSED, at)) == Standing(ACTIVE, "a", "id of a", 5)


def test_what_was_said_counts_beside_a_job_without_a_time() -> None:
    assert effective(said(synced("a", COMPLETED, None), PAUSED, 6)) == Standing(PAUSED, "a", "id of a", 6)


def test_nothing_is_known_of_a_job_that_names_the_task_no_more() -> None:
    assert effective(Heard("a")) is None
    assert counting([Heard("a"), Heard("b")]) == UNTOUCHED


def test_of_two_said_states_the_later_counts_and_at_the_same_time_the_farther() -> None:
    later = said(said(Heard("a"), COMPLETED, 5), PAUSED, 6)
    assert (later.said_state, later.said_updated_at) == (PAUSED, 6)
    assert said(later, ACTIVE, 5) == later
    assert said(later, ACTIVE, 6).said_state == ACTIVE
    assert said(said(later, ACTIVE, 6), PAUSED, 6).said_state == ACTIVE


@pytest.mark.parametrize(("lower", "higher"), list(itertools.pairwise(STATES)))
def test_of_several_jobs_the_farthest_counts_however_old(lower: int, higher: int) -> None:
    works = [synced("a", higher, 1), synced("b", lower, 900)]
    assert counting(works).state == counting(works[::-1]).state == higher


def test_of_jobs_as_far_the_later_counts_then_the_greater_id() -> None:
    assert counting([synced("b", ACTIVE, 5), synced("a", ACTIVE, 6)]).client_job_id == "a"
    assert counting([synced("b", ACTIVE, 5), synced("a", ACTIVE, 5)]).client_job_id == "b"
    assert counting([synced("b", ACTIVE, None), synced("a", ACTIVE, -5)]).client_job_id == "a"


def test_a_scheduled_job_is_completed_when_all_its_tasks_are_and_there_is_one() -> None:
    assert job_state([COMPLETED, COMPLETED]) == "Completed"
    assert job_state([COMPLETED, ABANDONED]) == "Scheduled"
    assert job_state([]) == "Scheduled"


_said = st.tuples(st.sampled_from("abc"), st.sampled_from(STATES), st.integers(0, 3))
_job = st.tuples(st.sampled_from("abc"), st.sampled_from(STATES), st.none() | st.integers(0, 3))


@given(st.data(), st.lists(_said, max_size=8), st.lists(_job, max_size=3, unique_by=lambda job: job[0]))
@settings(deadline=None)
def test_where_a_task_stands_does_not_depend_on_the_order_of_arrival(
    data: st.DataObject,
    statements: list[tuple[str, int, int]],
    jobs: list[tuple[str, int, int | None]],
) -> None:
    arrivals = [("said", *statement) for statement in statements] + [("job", *job) for job in jobs]
    results = set()
    for _ in range(2):
        works: dict[str, Heard] = {}
        for source, name, state, at in data.draw(st.permutations(arrivals)):
            before = works.get(name, Heard(name))
            if source == "said":
                assert at is not None
                works[name] = said(before, state, at)
            else:
                works[name] = before._replace(job_id=f"id of {name}", job_state=state, job_updated_at=at)
        results.add(counting(works.values()))
    assert len(results) == 1
