"""The delivery log: what triggers have sent and are to send, running one by hand, sending again."""

import email
import json
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest

from storage.queries import deliveries, triggers
from storage.queries.deliveries import DELIVERED, DUE, FAILED
from tests.support.app import Document, Team, finished_snapshot, problem, snapshot
from tests.support.deliveries import PAYLOAD, attempt, delivery_of
from tests.support.statements import counted

NOBODY = "f" * 24
MEMBERS = [
    *("deliveryId", "webhookId", "triggerId", "type", "jobId", "clientJobId", "rev", "state", "attempts"),
    *("nextAttempt", "created", "finished", "note", "reportId", "log"),
]


def trigger_of(team: Team, **members: Any) -> str:
    """An Email trigger that is disabled, so that nothing is sent of its own accord."""
    body = {
        "name": "Tell the office",
        "triggerType": "Email",
        "triggerOptions": {"recipients": f"office-{team.team_id}@example.com"},
        "disabled": True,
        **members,
    }
    response = team.post("/trigger/v2", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["triggerId"])


def path_of(trigger_id: str, *rest: str) -> str:
    return "/".join([f"/trigger/v2/{trigger_id}", *rest])


def listed(team: Team, trigger_id: str, query: str = "", **rest: Any) -> list[Document]:
    response = team.get(path_of(trigger_id, f"deliveries{query}"), **rest)
    assert response.status_code == 200, response.text
    return list(response.json())


def shown(team: Team, trigger_id: str, delivery_id: str, **rest: Any) -> Document:
    response = team.get(path_of(trigger_id, "deliveries", delivery_id), **rest)
    assert response.status_code == 200, response.text
    return dict(response.json())


def eventually(look: Callable[[], bool]) -> bool:
    """Whether it comes true: some work is done after an answer."""
    deadline = time.monotonic() + 30
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def mails_to(team: Team) -> list[EmailMessage]:
    """What was mailed to the office of this team."""
    found = []
    for file in sorted((team.app.settings.data / "mail").glob("*.eml")):
        message = email.message_from_bytes(file.read_bytes(), policy=default)
        if f"office-{team.team_id}@" in str(message["to"]):
            found.append(message)
    return found


@pytest.fixture
def job(team: Team) -> str:
    """A job in the team that is not completed, by its clientJobId."""
    document = snapshot(jobTitle="Pump 7")
    team.synced(document)
    return str(document["metadata"]["clientJobId"])


# By hand


def test_a_trigger_is_executed_by_hand_for_a_job_in_any_status_although_it_is_disabled(
    team: Team, job: str
) -> None:
    trigger_id = trigger_of(team)
    response = team.post(path_of(trigger_id, f"execute?clientJobId={job}"))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == MEMBERS
    assert answer["webhookId"] == f"msg_{answer['deliveryId']}"
    stored = team.job(job)
    assert (answer["clientJobId"], answer["jobId"], answer["rev"]) == (
        job,
        stored["jobId"],
        stored["sync"]["rev"],
    )
    assert (answer["type"], answer["triggerId"]) == ("job.completed", trigger_id)
    assert eventually(lambda: shown(team, trigger_id, answer["deliveryId"])["state"] == DELIVERED)
    (mail,) = mails_to(team)
    assert "Pump 7" in str(mail["subject"])
    found = shown(team, trigger_id, answer["deliveryId"])
    assert (found["attempts"], found["nextAttempt"], len(found["log"])) == (1, None, 1)
    assert found["finished"] is not None
    assert found["payload"]["clientJobId"] == job
    assert team.get(path_of(trigger_id)).json()[0]["disabled"] is True


def test_executing_twice_delivers_twice_and_a_job_can_be_named_by_its_id(team: Team, job: str) -> None:
    trigger_id = trigger_of(team)
    job_id = team.job(job)["jobId"]
    answers = [team.post(path_of(trigger_id, f"execute?jobId={job_id}")).json() for _ in range(2)]
    assert [answer["clientJobId"] for answer in answers] == [job, job]
    assert answers[0]["deliveryId"] != answers[1]["deliveryId"]
    assert [one["deliveryId"] for one in listed(team, trigger_id)] == [
        answers[1]["deliveryId"],
        answers[0]["deliveryId"],
    ]


def test_what_is_executed_tells_of_the_job_as_it_is_at_that_moment(team: Team, job: str) -> None:
    trigger_id = trigger_of(team)
    delivery = team.post(path_of(trigger_id, f"execute?clientJobId={job}")).json()
    team.post(f"/jobs/v1/{job}", json={"metadata": {"jobTitle": "Pump 8"}})
    payload = shown(team, trigger_id, delivery["deliveryId"])["payload"]
    assert payload["jobTitle"] == "Pump 7"


def test_an_archived_trigger_and_one_that_lacks_something_are_not_executed(team: Team, job: str) -> None:
    archived, bare, hook = (
        trigger_of(team),
        trigger_of(team, triggerOptions={}),
        trigger_of(team, triggerType="Http"),
    )
    team.delete(path_of(archived))
    execute = f"execute?clientJobId={job}"
    problem(team.post(path_of(archived, execute)), 409, "trigger-archived")
    problem(team.post(path_of(bare, execute)), 409, "trigger-incomplete", "triggerOptions.recipients")
    problem(team.post(path_of(hook, execute)), 409, "trigger-incomplete", "triggerOptions.url")
    assert [listed(team, each) for each in (archived, bare, hook)] == [[], [], []]


def test_a_job_is_named_once_and_is_the_teams(team: Team, job: str) -> None:
    trigger_id = trigger_of(team)
    for query in ("", "?clientJobId=", f"?clientJobId={job}&jobId=x"):
        response = team.post(path_of(trigger_id, f"execute{query}"))
        problem(response, 400, "invalid-parameter", "clientJobId")
    other = team.app.team()
    document = finished_snapshot()
    other_id = other.synced(document)["jobId"]
    for query in ("?clientJobId=nothing", f"?jobId={NOBODY}", f"?jobId={other_id}"):
        problem(team.post(path_of(trigger_id, f"execute{query}")), 404, "job-not-found")
    problem(team.post(path_of(NOBODY, f"execute?clientJobId={job}")), 404, "no-such-trigger")


# The log


def test_deliveries_are_listed_newest_first_by_state_and_job_and_in_pages(team: Team) -> None:
    trigger_id = trigger_of(team)
    made = [
        delivery_of(team, trigger_id, attempt(FAILED)),
        delivery_of(team, trigger_id, attempt(DELIVERED), client_job_id="pump-8"),
        delivery_of(team, trigger_id, attempt(DUE)),
    ]
    delivery_of(team, trigger_of(team), attempt(FAILED))
    found = listed(team, trigger_id)
    assert [one["deliveryId"] for one in found] == made[::-1]
    assert [one["state"] for one in found] == [DUE, DELIVERED, FAILED]
    assert listed(team, trigger_id, "?state=delivered") == [found[1]]
    assert listed(team, trigger_id, "?clientJobId=pump-7") == [found[0], found[2]]
    assert listed(team, trigger_id, "?clientJobId=pump-7&state=failed") == [found[2]]
    assert listed(team, trigger_id, "?skip=1&limit=1") == [found[1]]
    problem(team.get(path_of(trigger_id, "deliveries?state=lost")), 400, "invalid-parameter", "state")
    problem(team.get(path_of(NOBODY, "deliveries")), 404, "no-such-trigger")


def test_each_attempt_is_told_with_its_status_its_duration_and_its_answer(team: Team) -> None:
    trigger_id = trigger_of(team)
    refused = attempt(DUE, status=None, error="connection refused", answer=None)
    delivery_id = delivery_of(team, trigger_id, refused, attempt(FAILED, answer=b"Sorry \xff"))
    found = shown(team, trigger_id, delivery_id)
    assert list(found) == [*MEMBERS, "payload"]
    assert found["payload"] == json.loads(PAYLOAD)
    at = "2023-11-14T22:13:20.000Z"
    assert found["log"] == [
        {
            "number": 1,
            "at": at,
            "durationMs": 12346,
            "status": None,
            "error": "connection refused",
            "answer": None,
        },
        {"number": 2, "at": at, "durationMs": 12346, "status": 500, "error": "500", "answer": "Sorry \ufffd"},
    ]
    assert (found["attempts"], found["state"], found["nextAttempt"]) == (2, FAILED, None)
    (entry,) = listed(team, trigger_id)
    for each in found["log"]:
        del each["answer"]
    del found["payload"]
    assert entry == found


def test_a_list_has_the_latest_20_attempts_at_a_delivery_and_the_delivery_alone_all(team: Team) -> None:
    trigger_id = trigger_of(team)
    delivery_id = delivery_of(team, trigger_id, *[attempt(DUE)] * 30)
    other_id = delivery_of(team, trigger_id, attempt(FAILED))
    other, entry = listed(team, trigger_id)
    assert [each["number"] for each in entry["log"]] == list(range(11, 31))
    assert (other["deliveryId"], len(other["log"]), entry["attempts"]) == (other_id, 1, 30)
    assert [each["number"] for each in shown(team, trigger_id, delivery_id)["log"]] == list(range(1, 31))


def test_a_list_reads_neither_payloads_nor_answers(team: Team) -> None:
    trigger_id = trigger_of(team)
    delivery_of(team, trigger_id, attempt(FAILED))
    with counted(team.app) as counter:
        listed(team, trigger_id)
    assert not [text for text in counter.texts if "deliveries.payload" in text or "attempts.answer" in text]
    assert [text for text in counter.texts if "attempts.error" in text]


def test_who_may_only_read_triggers_sees_neither_answers_nor_jobs(team: Team) -> None:
    trigger_id = trigger_of(team)
    delivery_id = delivery_of(team, trigger_id, attempt(FAILED))
    reader = team.client("OWNER", scopes=["trigger.read"])
    found = shown(team, trigger_id, delivery_id, by=reader)
    assert "payload" not in found
    assert list(found["log"][0]) == ["number", "at", "durationMs", "status", "error"]
    assert listed(team, trigger_id, by=reader) == [found]
    problem(
        team.post(path_of(trigger_id, "deliveries", delivery_id, "replay"), by=reader),
        403,
        "insufficient-scope",
    )


def test_a_list_takes_three_statements_however_many_deliveries_there_are(team: Team) -> None:
    trigger_id = trigger_of(team)
    for _ in range(8):
        delivery_of(team, trigger_id, attempt(DUE), attempt(FAILED))
    listed(team, trigger_id)
    with counted(team.app) as counter:
        assert [len(one["log"]) for one in listed(team, trigger_id)] == [2] * 8
    assert counter.count == 3, counter.texts


def test_a_delivery_of_another_trigger_is_404(team: Team) -> None:
    first, second = trigger_of(team), trigger_of(team)
    delivery_id = delivery_of(team, first, attempt(FAILED))
    for path in (("deliveries", delivery_id), ("deliveries", NOBODY)):
        problem(team.get(path_of(second, *path)), 404, "no-such-delivery")
        problem(team.post(path_of(second, *path, "replay")), 404, "no-such-delivery")
    assert shown(team, first, delivery_id)["state"] == FAILED


# Again


@pytest.mark.parametrize("state", [DELIVERED, FAILED, DUE])
def test_a_delivery_is_replayed_with_the_same_id_and_all_its_attempts(team: Team, state: str) -> None:
    trigger_id = trigger_of(team)
    delivery_id = delivery_of(team, trigger_id, attempt(state))
    response = team.post(path_of(trigger_id, "deliveries", delivery_id, "replay"))
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == MEMBERS
    assert (answer["deliveryId"], answer["state"], answer["attempts"]) == (delivery_id, DUE, 0)
    assert (answer["finished"], len(answer["log"])) == (None, 1)
    # Its trigger is disabled: it waits, and is sent once that is enabled.
    assert shown(team, trigger_id, delivery_id)["state"] == DUE
    assert team.put(path_of(trigger_id), json={"disabled": False}).status_code == 200
    assert eventually(lambda: shown(team, trigger_id, delivery_id)["state"] == DELIVERED)
    assert len(mails_to(team)) == 1
    assert [each["number"] for each in shown(team, trigger_id, delivery_id)["log"]] == [1, 2]


def test_what_is_being_prepared_or_belongs_to_an_archived_trigger_is_not_replayed(team: Team) -> None:
    trigger_id = trigger_of(team)
    delivery_id = delivery_of(team, trigger_id, state=deliveries.PREPARING)
    path = path_of(trigger_id, "deliveries", delivery_id, "replay")
    problem(team.post(path), 409, "delivery-preparing")
    team.delete(path_of(trigger_id))
    problem(team.post(path), 409, "trigger-archived")
    again = path_of(trigger_id, "deliveries", "replay?since=2020-01-01")
    problem(team.post(again), 409, "trigger-archived")


def test_all_that_failed_since_a_time_is_replayed_and_nothing_else(team: Team) -> None:
    trigger_id = trigger_of(team)
    since = 1_700_000_000_000_000
    early = delivery_of(team, trigger_id, attempt(FAILED), created_at=since - 1)
    failed = delivery_of(team, trigger_id, attempt(FAILED), created_at=since)
    done = delivery_of(team, trigger_id, attempt(DELIVERED))
    other = trigger_of(team)
    others = delivery_of(team, other, attempt(FAILED))
    path = path_of(trigger_id, "deliveries", "replay?since=")
    response = team.post(f"{path}2023-11-14T22:13:20Z")
    assert (response.status_code, response.json()) == (200, {"replayed": 1})
    states = [shown(team, trigger_id, each)["state"] for each in (early, failed, done)]
    assert (states, shown(team, other, others)["state"]) == ([FAILED, DUE, DELIVERED], FAILED)
    assert team.post(f"{path}2023-11-14T23:13:20%2B01:00").json() == {"replayed": 0}
    for wrong in ("", "yesterday", "2023-11-14T23:13:20+01:00"):
        problem(team.post(path + wrong), 400, "invalid-parameter", "since")
    problem(team.post(path_of(NOBODY, "deliveries", "replay?since=2020-01-01")), 404, "no-such-trigger", None)


# What waits


@pytest.mark.parametrize("way", ["enabled", "unarchived"])
def test_what_waited_is_sent_when_its_trigger_is_live_again(team: Team, way: str) -> None:
    trigger_id = trigger_of(team, disabled=way == "enabled")
    if way == "unarchived":
        team.delete(path_of(trigger_id))
    # Its next attempt would be in an hour.
    delivery_id = delivery_of(team, trigger_id, attempt(DUE))
    if way == "enabled":
        response = team.put(path_of(trigger_id), json={"disabled": False})
    else:
        response = team.put(f"/trigger/v2/unarchive/{trigger_id}")
    assert response.status_code == 200, response.text
    assert eventually(lambda: shown(team, trigger_id, delivery_id)["state"] == DELIVERED)


def test_an_update_that_changes_neither_address_nor_state_leaves_the_next_attempt_where_it_is(
    team: Team,
) -> None:
    url = "https://93.184.215.14/hook"
    trigger_id = trigger_of(team, triggerType="Http", triggerOptions={"url": url})
    # Enabled behind the server's back: nothing must be sent here.
    delivery_id = delivery_of(team, trigger_id, attempt(DUE))
    team.app.write(
        lambda connection: triggers.change(
            connection, team.team_id, trigger_id, disabled=False, failing_since=1
        )
    )
    before = shown(team, trigger_id, delivery_id)["nextAttempt"]
    body = {"name": "renamed", "disabled": False, "triggerOptions": {"url": url}}
    response = team.put(path_of(trigger_id), json=body)
    assert response.json()["failingSince"] is not None
    assert shown(team, trigger_id, delivery_id)["nextAttempt"] == before


def test_another_address_is_tried_at_once(team: Team) -> None:
    trigger_id = trigger_of(team, triggerType="Http")
    delivery_id = delivery_of(team, trigger_id, attempt(DUE))
    team.app.write(lambda connection: triggers.change(connection, team.team_id, trigger_id, disabled=False))
    response = team.put(path_of(trigger_id), json={"triggerOptions": {"url": "https://moved.invalid/hook"}})
    assert response.status_code == 200, response.text
    # The attempt that was an hour away is made: nobody answers there.
    assert eventually(lambda: len(shown(team, trigger_id, delivery_id)["log"]) == 2)
