"""Tasks of scheduled jobs follow the jobs that do them."""

import asyncio
import itertools
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from server.clock import now
from storage.ids import new_id
from storage.queries.scheduled_jobs import (
    Row,
    ScheduledJob,
    TaskRow,
    Work,
    follow,
    for_update,
    insert_scheduled_job,
    one,
    say,
)
from tests.support.app import Document, RunningApp, Team, snapshot
from tests.support.statements import counted

SCHEDULE = "/scheduledjobs/v1"


def scheduled(team: Team, tasks: int = 1) -> Document:
    body = {"name": "Inspection", "tasks": [{"taskType": "Workflow"}] * tasks}
    return dict(team.post(SCHEDULE, json=body).json())


def read(team: Team, job: Document) -> Document:
    return dict(team.get(f"{SCHEDULE}/{job['jobId']}").json())


def naming(job: Document, task: int = 0, **header: Any) -> Document:
    """A snapshot of a new job that does a task."""
    names = {"ScheduledJobId": job["jobId"], "ScheduledTaskId": job["tasks"][task]["taskId"]}
    return snapshot(metadata=names, **header)


def changed(document: Document, second: int, **header: Any) -> Document:
    """``document`` as a tablet sends it later."""
    updated = f"2025-03-04T10:00:{second:02}.000Z"
    return {**document, "metadata": {**document["metadata"], "updated": updated, **header}}


def said(team: Team, job: Document, client_job_id: str, state: str, at: str) -> Document:
    body = {"clientJobId": client_job_id, "state": state, "updated": at}
    path = f"{SCHEDULE}/{job['jobId']}/tasks/{job['tasks'][0]['taskId']}/status"
    response = team.put(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Created", 0),
        ("InProgress", 1),
        ("Odd", 1),
        ("Paused", 2),
        ("Completed", 3),
        ("Abandoned", 4),
        ("Aborted", 4),
    ],
)
def test_a_task_shows_the_state_of_the_job_that_names_it(team: Team, status: str, state: int) -> None:
    job = scheduled(team)
    document = changed(naming(job), 1, status=status)
    synced = team.synced(document)
    after = read(team, job)
    (task,) = after["tasks"]
    assert (task["state"], task["clientJobId"]) == (state, document["metadata"]["clientJobId"])
    assert task["jobId"] == synced["jobId"]
    assert task["updated"] == "2025-03-04T10:00:01.000Z"
    assert task["modified"] == after["updated"]
    assert after["state"] == ("Completed" if state == 3 else "Scheduled")


def test_a_task_goes_on_with_its_job(team: Team) -> None:
    job = scheduled(team, tasks=2)
    first, second = naming(job, 0, status="InProgress"), naming(job, 1, status="Completed")
    team.synced(first)
    team.synced(second)
    assert [task["state"] for task in read(team, job)["tasks"]] == [1, 3]
    team.synced(changed(first, 5, status="Completed"))
    done = read(team, job)
    assert ([task["state"] for task in done["tasks"]], done["state"]) == ([3, 3], "Completed")


def test_a_deleted_job_does_no_task_any_more(team: Team) -> None:
    job = scheduled(team)
    document = naming(job, status="Completed")
    team.synced(document)
    assert read(team, job)["state"] == "Completed"
    team.delete(f"/jobs/v1/{document['metadata']['clientJobId']}")
    after = read(team, job)
    (task,) = after["tasks"]
    assert (after["state"], task["state"], task["clientJobId"], task["jobId"], task["updated"]) == (
        *("Scheduled", 0, None, None),
        None,
    )
    assert task["modified"] == after["updated"]


def test_a_job_that_names_another_task_does_the_first_no_more(team: Team) -> None:
    job, other = scheduled(team, tasks=2), scheduled(team)
    document = naming(job, status="Completed")
    team.synced(document)
    client_job_id = document["metadata"]["clientJobId"]
    for target, task in ((job, 1), (other, 0)):
        names = {"ScheduledJobId": target["jobId"], "ScheduledTaskId": target["tasks"][task]["taskId"]}
        assert team.post(f"/jobs/v1/{client_job_id}/metadata", json=names).status_code == 200
        assert read(team, target)["tasks"][task]["clientJobId"] == client_job_id
    assert [task["state"] for task in read(team, job)["tasks"]] == [0, 0]
    nothing = {"ScheduledJobId": None, "ScheduledTaskId": None}
    assert team.post(f"/jobs/v1/{client_job_id}/metadata", json=nothing).status_code == 200
    after = read(team, other)
    assert (after["state"], after["tasks"][0]["state"]) == ("Scheduled", 0)


def test_another_job_for_the_task_counts_when_the_one_that_counted_is_gone(team: Team) -> None:
    job = scheduled(team)
    farther, other = naming(job, status="Completed"), naming(job, status="InProgress")
    team.synced(farther)
    team.synced(other)
    assert read(team, job)["tasks"][0]["clientJobId"] == farther["metadata"]["clientJobId"]
    team.delete(f"/jobs/v1/{farther['metadata']['clientJobId']}")
    (task,) = read(team, job)["tasks"]
    assert (task["state"], task["clientJobId"]) == (1, other["metadata"]["clientJobId"])


def test_of_one_job_what_was_said_or_synced_later_counts(team: Team) -> None:
    job = scheduled(team)
    document = changed(naming(job), 10, status="Paused")
    client_job_id = document["metadata"]["clientJobId"]
    assert said(team, job, client_job_id, "Active", "2025-03-04T10:00:05")["tasks"][0]["jobId"] is None
    team.synced(document)
    assert read(team, job)["tasks"][0]["state"] == 2
    (task,) = said(team, job, client_job_id, "Active", "2025-03-04T10:00:15")["tasks"]
    assert (task["state"], task["updated"]) == (1, "2025-03-04T10:00:15.000Z")
    assert task["jobId"] == team.job(client_job_id)["jobId"]
    # Of the deleted job only what was said is left.
    team.delete(f"/jobs/v1/{client_job_id}")
    (task,) = read(team, job)["tasks"]
    assert (task["state"], task["clientJobId"], task["jobId"]) == (1, client_job_id, None)


def test_jobs_may_name_what_is_not_there(team: Team) -> None:
    others = team.app.team()
    job, deleted, foreign = scheduled(team), scheduled(team), scheduled(others)
    team.delete(f"{SCHEDULE}/{deleted['jobId']}")
    for target in (
        deleted,
        foreign,
        {"jobId": new_id(), "tasks": job["tasks"]},
        {"jobId": job["jobId"], "tasks": foreign["tasks"]},
        {"jobId": "a\x00b", "tasks": job["tasks"]},
        {"jobId": job["jobId"], "tasks": [{"taskId": "a\x00b"}]},
    ):
        assert team.sync(naming(target, status="Completed")).status_code == 200
    assert read(team, job) == job
    assert read(others, foreign) == foreign


def test_ids_in_capitals_name_the_same_task(team: Team) -> None:
    job = scheduled(team)
    capitals = {"jobId": job["jobId"].upper(), "tasks": [{"taskId": job["tasks"][0]["taskId"].upper()}]}
    team.synced(naming(capitals, status="Completed"))
    assert read(team, job)["state"] == "Completed"


# One transaction


def insert(connection: Connection, team_id: int, tasks: int = 1) -> tuple[str, list[str]]:
    """A scheduled job, and the ids of its tasks."""
    row = Row(new_id(), "Inspection", "", "Scheduled", False, None, "x", now(), now(), 0)
    task_ids = [str(uuid.uuid4()) for _ in range(tasks)]
    rows = [
        TaskRow(row.scheduled_job_id, task_id, position, "Workflow", None, None, None, 0, None, None)
        for position, task_id in enumerate(task_ids)
    ]
    insert_scheduled_job(connection, team_id, ScheduledJob(row, (), tuple(rows)))
    return row.scheduled_job_id, task_ids


def test_many_jobs_in_one_transaction_take_as_many_statements_as_one(team: Team) -> None:
    made: list[tuple[str, list[str]]] = [team.app.write(insert, team.team_id) for _ in range(32)]
    counts = []
    for count in (1, 32):
        works = [
            Work(scheduled_job_id, task_ids[0], f"{count}-{number}", new_id(), count % 3 + 1, 5)
            for number, (scheduled_job_id, task_ids) in enumerate(made[:count])
        ]
        with counted(team.app) as counter:
            team.app.write(follow, team.team_id, works, [], now())
        counts.append(counter.count)
    assert counts[0] == counts[1] <= 8


def test_transactions_that_name_the_same_tasks_neither_lock_each_other_out_nor_overlook_each_other(
    team: Team,
) -> None:
    made: list[tuple[str, list[str]]] = [team.app.write(insert, team.team_id) for _ in range(6)]

    async def all_at_once() -> None:
        def works(order: Sequence[tuple[str, list[str]]], name: str) -> list[Work]:
            return [
                Work(scheduled_job_id, task_ids[0], f"{name}-{scheduled_job_id}", new_id(), 3, 5)
                for scheduled_job_id, task_ids in order
            ]

        orders = itertools.islice(itertools.permutations(made), 0, 720, 24)
        await asyncio.gather(
            *(
                team.app.database.write(follow, team.team_id, works(order, f"j{index:02}"), [], now())
                for index, order in enumerate(orders)
            )
        )

    team.app.call(all_at_once)
    for scheduled_job_id, _ in made:
        after: ScheduledJob = team.app.read(one, team.team_id, scheduled_job_id)
        assert after.row.state == "Completed"
        # Each has seen what those before it wrote: the greatest id counts, whoever came last.
        assert after.tasks[0].client_job_id == f"j29-{scheduled_job_id}"


_states = st.integers(0, 4)
_events = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 1), st.sampled_from("abc"), _states, st.integers(0, 3)),
        st.tuples(st.just("sync"), st.integers(0, 1), st.sampled_from("abc"), _states, st.integers(0, 3)),
    ),
    max_size=7,
    # A job is synced as merged: of one job there is one state at the end.
    unique_by=lambda event: (
        event[0],
        event[2],
        event[1] if event[0] == "say" else 0,
        event[4] * (event[0] == "say"),
    ),
)


@given(st.data(), _events)
@settings(deadline=None, max_examples=60)
def test_any_order_of_arrival_gives_the_same_result(
    sqlite_app: RunningApp, data: st.DataObject, events: list[tuple[str, int, str, int, int]]
) -> None:
    team_id = sqlite_app.alpha.team_id
    orders = [data.draw(st.permutations(events)) for _ in range(2)]

    def apply(order: Sequence[tuple[str, int, str, int, int]]) -> Callable[[Connection], Any]:
        def work(connection: Connection) -> Any:
            scheduled_job_id, task_ids = insert(connection, team_id, 2)
            for source, task, name, state, at in order:
                client_job_id = f"{name} of {scheduled_job_id}"
                if source == "say":
                    key = (scheduled_job_id, task_ids[task])
                    assert for_update(connection, team_id, scheduled_job_id)
                    say(connection, team_id, key, client_job_id, state, at, now())
                else:
                    job = Work(scheduled_job_id, task_ids[task], client_job_id, f"id of {name}", state, at)
                    follow(connection, team_id, [job], [], now())
            after = one(connection, team_id, scheduled_job_id)
            assert after is not None
            standings = [
                task.standing._replace(client_job_id=(task.client_job_id or "-")[:1]) for task in after.tasks
            ]
            return standings, after.row.state

        return work

    assert sqlite_app.write(apply(orders[0])) == sqlite_app.write(apply(orders[1]))
