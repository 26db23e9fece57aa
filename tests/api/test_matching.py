"""Which triggers fire at a push, and what is frozen for them."""

import json
import re
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from server.triggers.matching import applies
from storage.queries import triggers as trigger_queries
from storage.queries.jobs import by_job_id
from storage.queries.triggers import TriggerRow
from storage.tables import tasks, triggers
from tests.support.app import Document, Team, edited, finished_snapshot, snapshot
from tests.support.idle import idle_app
from tests.support.querying import found
from tests.support.triggers import (
    NOBODY,
    add_trigger,
    facts,
    group_with,
    sent,
    types,
    waiting,
    work,
    write,
)
from tests.support.workflows import made

app = idle_app


# Which triggers fire


def test_empty_lists_match_every_job(team: Team) -> None:
    trigger_id = add_trigger(team)
    document = finished_snapshot()
    job = team.synced(document)
    work(team)
    (row,) = sent(team, trigger_id)
    assert (row.type, row.job_id, row.client_job_id) == (
        "job.completed",
        job["jobId"],
        document["metadata"]["clientJobId"],
    )
    assert (row.state, row.attempts, row.report_id, row.note) == ("due", 0, None, None)
    assert waiting(team, "trigger.deliver")[0][0] == trigger_id


def test_workflow_ids_pick_the_jobs_of_these_workflows(team: Team) -> None:
    right = add_trigger(team, template_ids=["other", "workflow-1"])
    wrong = add_trigger(team, template_ids=["other"])
    team.synced(finished_snapshot(workflowId="workflow-1"))
    work(team)
    assert (types(team, right), types(team, wrong)) == (["job.completed"], [])


def test_tags_are_those_of_the_teams_workflow_however_they_are_spelled(team: Team) -> None:
    workflow_id = made(team)["workflowId"]
    assert team.put(f"/workflows/v2/{workflow_id}", json={"tags": ["Safety", "pumps"]}).status_code < 300
    right = add_trigger(team, template_tags=["SAFETY"])
    wrong = add_trigger(team, template_tags=["valves"])
    team.synced(finished_snapshot(workflowId=workflow_id))
    team.synced(finished_snapshot(workflowId="not a workflow of ours"))
    work(team)
    assert (types(team, right), types(team, wrong)) == (["job.completed"], [])
    (row,) = sent(team, right)
    assert facts(row)["workflowTags"] == ["Safety", "pumps"]


def test_object_ids_are_the_jobs_user_or_one_of_that_users_groups(team: Team) -> None:
    ada, bob = team.executor(), team.executor()
    of_ada = add_trigger(team, object_ids=[ada.subject_id])
    of_her_group = add_trigger(team, object_ids=[NOBODY, group_with(team, ada)])
    of_bob = add_trigger(team, object_ids=[group_with(team, bob), bob.subject_id])
    team.synced(finished_snapshot(userId=ada.subject_id))
    work(team)
    assert [len(sent(team, each)) for each in (of_ada, of_her_group, of_bob)] == [1, 1, 0]


def test_a_job_that_names_no_user_is_of_whoever_pushed_it(team: Team) -> None:
    ada = team.executor()
    trigger_id = add_trigger(team, object_ids=[ada.subject_id])
    team.synced(finished_snapshot(), by=ada)
    team.synced(finished_snapshot())
    work(team)
    assert len(sent(team, trigger_id)) == 1


def test_all_three_conditions_have_to_be_met(team: Team) -> None:
    ada = team.executor()
    both = {"template_ids": ["workflow-1"], "object_ids": [ada.subject_id]}
    right = add_trigger(team, **both)
    wrong = add_trigger(team, **both, template_tags=["pumps"])
    team.synced(finished_snapshot(workflowId="workflow-1", userId=ada.subject_id))
    team.synced(finished_snapshot(workflowId="workflow-2", userId=ada.subject_id))
    work(team)
    assert [len(sent(team, each)) for each in (right, wrong)] == [1, 0]


def test_what_a_tablet_writes_into_ids_never_stops_the_matching(team: Team) -> None:
    trigger_id = add_trigger(team)
    of_a_workflow = add_trigger(team, template_ids=["a"])
    team.synced(finished_snapshot(workflowId="a\0b", userId="c\0d"))
    work(team)
    assert [len(sent(team, each)) for each in (trigger_id, of_a_workflow)] == [1, 0]


def test_a_trigger_that_cannot_be_matched_does_not_keep_the_others_from_firing(
    team: Team, caplog: pytest.LogCaptureFixture
) -> None:
    first, broken, last = (add_trigger(team) for _ in range(3))
    team.synced(finished_snapshot())
    write(team, update(triggers).where(triggers.c.trigger_id == broken).values(template_tags=b'[{"a": 1}]'))
    work(team)
    assert [len(sent(team, each)) for each in (first, broken, last)] == [1, 0, 1]
    assert f"trigger {broken} cannot be matched" in caplog.text


def test_updates_are_told_to_webhooks_that_want_them_and_a_completion_once(team: Team) -> None:
    on_update = add_trigger(team, trigger_type="Http", options={"url": "https://a.example", "onUpdate": True})
    completed = add_trigger(team, trigger_type="Http", options={"url": "https://a.example"})
    mail = add_trigger(team, options={"onUpdate": True})
    document = snapshot()
    team.synced(document)
    team.synced(edited(document, 1, jobTitle="Pump 8"))
    team.synced(edited(document, 2, status="Completed"))
    team.synced(edited(document, 3, status="Completed", jobTitle="Pump 9"))
    work(team)
    assert types(team, on_update) == ["job.updated", "job.completed", "job.updated"]
    assert types(team, completed) == types(team, mail) == ["job.completed"]


def test_an_abandoned_job_is_told_as_completed_with_its_status(team: Team) -> None:
    trigger_id = add_trigger(team)
    team.synced(snapshot(status="Abandoned", abandonReason="No access"))
    work(team)
    (row,) = sent(team, trigger_id)
    assert facts(row)["status"] == "Abandoned"


def test_disabled_and_archived_triggers_never_fire(team: Team) -> None:
    add_trigger(team)  # so that events are looked at
    silent = [add_trigger(team, disabled=True), add_trigger(team, archived=True)]
    team.synced(finished_snapshot())
    work(team)
    assert [sent(team, each) for each in silent] == [[], []]


def test_a_trigger_disabled_before_the_event_is_looked_at_does_not_fire(team: Team) -> None:
    trigger_id = add_trigger(team)
    team.synced(finished_snapshot())
    team.app.write(
        lambda connection: trigger_queries.change(connection, team.team_id, trigger_id, disabled=True)
    )
    assert set(work(team)) == {"trigger.match"}
    assert sent(team) == []


def test_a_push_that_comes_twice_is_told_once(team: Team) -> None:
    trigger_id = add_trigger(team)
    document = finished_snapshot()
    for _ in range(3):
        team.synced(document)
        work(team)
    assert len(sent(team, trigger_id)) == 1


def test_an_event_that_is_matched_twice_is_told_once(team: Team) -> None:
    trigger_id = add_trigger(team)
    team.synced(finished_snapshot())
    work(team)
    again = update(tasks).where(tasks.c.team_id == team.team_id, tasks.c.kind == "trigger.match")
    write(team, again.values(state="ready"))
    assert set(work(team)) == {"trigger.match"}
    assert len(sent(team, trigger_id)) == 1


def test_another_teams_triggers_do_not_fire(team: Team) -> None:
    other = team.app.team()
    add_trigger(other)
    add_trigger(team)
    team.synced(finished_snapshot())
    work(team), work(other)
    assert (len(sent(team)), len(sent(other))) == (1, 0)


def test_a_push_in_a_team_without_triggers_writes_no_task(team: Team) -> None:
    add_trigger(team, disabled=True)
    document = finished_snapshot()
    team.synced(document)
    team.synced(edited(document, 1, jobTitle="Pump 8"))

    def read(connection: Connection) -> list[str]:
        return list(connection.scalars(select(tasks.c.kind).where(tasks.c.team_id == team.team_id)))

    assert team.app.read(read) == []


def test_without_triggers_a_push_costs_no_statement_more_and_with_them_one_for_each_event(team: Team) -> None:
    """Pinned on SQLite, which tells every statement; PostgreSQL is asked the same."""
    if not team.app.database.is_sqlite:
        pytest.skip("PostgreSQL does not tell")
    push = ["FROM feeds", "FROM jobs", "INTO jobs", "INTO snapshots", "INTO events"]
    # That the job is completed takes a look whether it was before, and a row for queries.
    stamp = ["FROM completed_jobs", "UPDATE feeds", "INTO feed_entries", "INTO completed_jobs"]
    assert statements_of(team, finished_snapshot()) == push + stamp
    add_trigger(team)
    # job.completed and, as it has no files, job.mediaComplete.
    assert statements_of(team, finished_snapshot()) == [*push, "INTO tasks", "INTO tasks", *stamp]


def statements_of(team: Team, document: Document) -> list[str]:
    """Which tables a push touches, statement by statement."""
    engine = team.app.database._write_engine
    assert engine is not None
    seen: list[str] = []
    connection: Any = engine.raw_connection().driver_connection
    connection.set_trace_callback(seen.append)
    try:
        team.synced(document)
    finally:
        connection.set_trace_callback(None)
    return [match[0] for text in seen if (match := re.search(r"(FROM|INTO|UPDATE) \w+", text))]


def test_a_team_that_wants_completions_writes_no_task_for_updates(team: Team) -> None:
    add_trigger(team)
    document = snapshot()
    team.synced(document)
    team.synced(edited(document, 1, jobTitle="Pump 8"))
    assert waiting(team, "trigger.match") == []


# The payload


def test_what_is_told_is_the_job_as_it_was_then(team: Team) -> None:
    trigger_id = add_trigger(team)
    document = finished_snapshot(jobTitle="Pump 7")
    job = team.synced(document)
    team.synced(edited(document, 1, jobTitle="Pump 8"))
    work(team)
    (row,) = sent(team, trigger_id)
    told = facts(row)
    assert (told["jobId"], told["jobTitle"], told["status"]) == (job["jobId"], "Pump 7", "Completed")
    assert (told["workflowTags"], told["totalDuration"]) == ([], 95)
    assert row.rev < team.app.read(_rev_of, team, job["jobId"])


def _rev_of(connection: Connection, team: Team, job_id: str) -> int:
    row = by_job_id(connection, team.team_id, job_id)
    assert row is not None
    return row.rev


def test_a_job_has_its_cursor_from_its_first_completion_on_and_none_before(team: Team) -> None:
    trigger_id = add_trigger(
        team, trigger_type="Http", options={"url": "https://a.example", "onUpdate": True}
    )
    team.synced(finished_snapshot())  # the team's first
    document = snapshot(jobTitle="Pump 7")
    team.synced(document)
    for second, status in enumerate(("Paused", "Completed", "InProgress", "Abandoned"), start=1):
        team.synced(edited(document, second, status=status))
        work(team)
    first, open_one, *others = [facts(row)["completedJobCursor"] for row in sent(team, trigger_id)]
    assert open_one is None
    assert len(others) == 3
    assert {*others} == {
        found(team, '{ jobs(jobTitle: "Pump 7") { completedJobCursor } }')[0]["completedJobCursor"]
    }
    assert first not in others


def test_a_job_that_was_deleted_before_its_event_was_looked_at_has_no_cursor(team: Team) -> None:
    trigger_id = add_trigger(team)
    document = finished_snapshot()
    team.synced(document)
    assert team.delete(f"/jobs/v1/{document['metadata']['clientJobId']}").is_success
    work(team)
    (row,) = sent(team, trigger_id)
    assert facts(row)["completedJobCursor"] is None


def test_the_workflow_has_the_teams_name_where_the_tablet_sent_none(team: Team) -> None:
    trigger_id = add_trigger(team)
    workflow_id = made(team, name="Pump round")["workflowId"]
    team.synced(finished_snapshot(workflowId=workflow_id, workflowName=None))
    team.synced(finished_snapshot(workflowId=workflow_id, workflowName="Round"))
    work(team)
    assert [facts(row)["workflowTitle"] for row in sent(team, trigger_id)] == ["Pump round", "Round"]


# The decision


def trigger_row(**values: Any) -> TriggerRow:
    lists = {
        name: json.dumps(values.pop(name, [])).encode()
        for name in ("template_tags", "object_ids", "template_ids")
    }
    options = json.dumps(values.pop("options", {})).encode()
    row = TriggerRow(
        trigger_id="t",
        name="",
        description=None,
        trigger_type="Http",
        options=options,
        secrets=None,
        report_template_id=None,
        pdf_requirement="NotRequired",
        disabled=False,
        disabled_reason=None,
        archived=False,
        failing_since=None,
        created_by="u",
        created_at=0,
        updated_at=0,
        **lists,
    )
    return row._replace(**values)


_names = st.sampled_from(["a", "B", "b", "ß", "SS", "ſ", "c"])
_lists = st.lists(_names, max_size=3)


@given(
    wanted=st.tuples(_lists, _lists, _lists),
    workflow_id=st.none() | _names | st.sampled_from([["a"], {"a": 1}, 7]),
    tags=_lists,
    object_ids=st.sets(_names),
    event_type=st.sampled_from(["job.completed", "job.updated", "job.created", "job.mediaComplete"]),
    is_http=st.booleans(),
    on_update=st.sampled_from([True, False, None]),
    disabled=st.booleans(),
    archived=st.booleans(),
)
def test_a_trigger_applies_if_it_is_live_wants_the_event_and_each_list_is_empty_or_met(
    wanted: tuple[list[str], list[str], list[str]],
    workflow_id: object,
    tags: list[str],
    object_ids: Collection[str],
    event_type: str,
    is_http: bool,
    on_update: bool | None,
    disabled: bool,
    archived: bool,
) -> None:
    ids, wanted_tags, objects = wanted
    trigger = trigger_row(
        template_ids=ids,
        template_tags=wanted_tags,
        object_ids=objects,
        trigger_type="Http" if is_http else "Email",
        options={"onUpdate": on_update},
        disabled=disabled,
        archived=archived,
    )
    wants = event_type == "job.completed" or (event_type == "job.updated" and is_http and bool(on_update))
    expected = (
        wants
        and not (disabled or archived)
        and (ids == [] or workflow_id in ids)
        and (
            wanted_tags == []
            or {tag.casefold() for tag in wanted_tags} & {tag.casefold() for tag in tags} != set()
        )
        and (objects == [] or set(objects) & set(object_ids) != set())
    )
    assert applies(trigger, event_type, workflow_id, tags, object_ids) == expected
