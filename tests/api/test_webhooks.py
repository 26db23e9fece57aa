"""Webhooks: what is sent, to receivers that behave and that do not, and what becomes of each attempt."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.metadata import version
from typing import Any

import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from server.clock import now
from server.triggers import delivering, noting
from server.triggers.keys import QueryKeys
from server.triggers.noting import GAPS
from storage.queries import deliveries as queries
from storage.queries.secrets import shared_secret
from storage.queries.triggers import note_wants
from storage.tables import deliveries, tasks
from tests.support import receiver as faulty
from tests.support.app import Document, Team, finished_snapshot
from tests.support.idle import idle_app
from tests.support.receiver import SECRET, Behaviour, Receiver, answering
from tests.support.triggers import work
from tests.support.webhooks import Sending, put_deliveries

SECOND = 1_000_000
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
DAY = 24 * HOUR
#: Of attempts that are meant to time out.
SHORT = 0.5

app = idle_app


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


# What is sent


def test_a_webhook_is_a_signed_post_with_the_job_and_a_key(team: Team, receiver: Receiver) -> None:
    sending = Sending(
        team, receiver, headers={"X-Site": "7", "User-Agent": "theirs", "content-type": "text/plain"}
    )
    sending.run()
    (request,) = receiver.requests
    assert (request.method, request.path, request.genuine) == ("POST", "/hook", True)
    assert request.webhook_id == f"msg_{sending.ids[0]}"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"Fieldsync/{version('fieldsync')}"
    assert request.headers["x-site"] == "7"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    body = json.loads(request.body)
    assert (body["id"], body["type"]) == (f"msg_{sending.ids[0]}", "job.completed")
    (job,) = body["data"]["jobs"]
    assert job["jobTitle"] == "Pump"
    keys = QueryKeys(team.app.write(shared_secret, "query keys", now()))
    assert keys.team_of(job["key"]["value"], now()) == team.team_id
    row, (attempt,) = sending.delivery()
    assert (row.state, row.attempts, row.next_at) == ("delivered", 1, None)
    assert row.finished_at is not None
    assert (attempt.number, attempt.status, attempt.error, attempt.answer) == (1, 200, None, b"ok")
    assert attempt.duration_us > 0


def test_with_the_cursor_and_the_key_of_a_webhook_its_receiver_asks_for_what_was_completed_later(
    team: Team, receiver: Receiver
) -> None:
    team.synced(finished_snapshot(jobTitle="before"))
    sending = completing(team, receiver, finished_snapshot(jobTitle="told"))
    team.synced(finished_snapshot(jobTitle="later"))
    sending.run()
    (job,) = json.loads(receiver.requests[0].body)["data"]["jobs"]
    key, cursor = job["key"]["value"], job["completedJobCursor"]
    (found,) = queried(team, key, '{ jobs(jobTitle: "told") { jobId completedJobCursor } }')
    assert found == {"jobId": job["jobId"], "completedJobCursor": cursor}
    following = "query ($cursor: String) { jobs(cursor: $cursor) { jobTitle } }"
    assert queried(team, key, following, cursor=cursor) == [{"jobTitle": "later"}]


def test_the_cursor_is_the_same_at_every_attempt_whatever_becomes_of_the_job(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [answering(500), faulty.ok]
    document = finished_snapshot()
    sending = completing(team, receiver, document)
    sending.run()
    assert team.delete(f"/jobs/v1/{document['metadata']['clientJobId']}").is_success
    sending.again()
    bodies = [json.loads(request.body) for request in receiver.requests]
    first, second = [body["data"]["jobs"][0]["completedJobCursor"] for body in bodies]
    assert bodies[0]["id"] == bodies[1]["id"]
    assert first == second is not None


def completing(team: Team, receiver: Receiver, document: Document) -> Sending:
    """A trigger that is to tell that this job was completed."""
    sending = Sending(team, receiver, 0)
    sending.write(note_wants)
    team.synced(document)
    work(team)
    return sending


def queried(team: Team, key: str, query: str, **variables: Any) -> list[Document]:
    """The jobs that somebody finds who has nothing but this key."""
    body = {"query": query, "variables": variables}
    response = team.app.http.post("/query/v2/graph", params={"key": key}, json=body)
    assert response.status_code == 200, response.text
    found: list[Document] = response.json()["data"]["jobs"]
    return found


def test_both_secrets_sign_while_one_is_changed_and_an_ended_one_does_not(
    team: Team, receiver: Receiver
) -> None:
    others = ["whsec_" + base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]
    stored = [
        {"secret": others[0], "until": None},
        {"secret": SECRET, "until": now() + HOUR},
        {"secret": others[1], "until": now() - 1},
    ]
    sending = Sending(team, receiver, secrets=json.dumps(stored).encode())
    sending.run()
    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert request.genuine
    Webhook(others[0]).verify(request.body, request.headers)
    receiver.secret = others[1]
    assert not receiver._is_genuine(request.headers, request.body)


def test_nothing_is_sent_without_a_secret_to_sign_it(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, secrets=b"[]")
    sending.run()
    assert receiver.requests == []
    assert sending.last().error == "The trigger has no secret to sign with."


def test_every_attempt_has_the_same_id_and_a_signature_and_key_of_its_own(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [answering(500), faulty.ok]
    sending = Sending(team, receiver)
    sending.run()
    assert sending.states == {"due": 1}
    time.sleep(1.1)  # the signature is of a second
    sending.again()
    first, second = receiver.requests
    assert first.webhook_id == second.webhook_id
    assert first.headers["webhook-timestamp"] != second.headers["webhook-timestamp"]
    assert first.genuine
    assert second.genuine
    assert [attempt.status for attempt in sending.delivery()[1]] == [500, 200]
    assert sending.states == {"delivered": 1}


def test_many_are_sent_over_few_connections_each_once(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, 150)
    sending.run()
    assert sending.states == {"delivered": 150}
    assert receiver.counts == {f"msg_{delivery_id}": 1 for delivery_id in sending.ids}
    assert receiver.connections <= delivering.AT_ONCE
    assert receiver.most_at_once <= delivering.AT_ONCE
    assert receiver.connections > delivering.AT_FIRST


# What counts as taken


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (answering(204, b""), 204, None),
        (answering(299), 299, None),
        (faulty.flood, 200, None),
        (faulty.ok_and_die, 200, None),
        (answering(300), 300, "It answered 300."),
        (answering(404), 404, "It answered 404."),
        (answering(500), 500, "It answered 500."),
        (faulty.reset, None, "The connection was lost."),
        (faulty.garbage, None, "It does not speak HTTP as it should."),
        (faulty.hang, None, "No complete answer within 0.5 s."),
        (faulty.dribble, 200, "No complete answer within 0.5 s."),
        (faulty.dribble_headers, None, "No complete answer within 0.5 s."),
        (faulty.flood_of_headers, None, "It does not speak HTTP as it should."),
        (faulty.ok_cut_short, 200, "It does not speak HTTP as it should."),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_only_a_complete_answer_of_2xx_is_success(
    team: Team, receiver: Receiver, behaviour: Behaviour, status: int | None, error: str | None
) -> None:
    receiver.behaviours = [behaviour]
    sending = Sending(team, receiver)
    times_out = "within" in (error or "")
    sending.run(sending.engine(attempt_seconds=SHORT) if times_out else None)
    attempt = sending.last()
    assert attempt.status == status
    if error is None:
        assert attempt.error is None
        assert sending.states == {"delivered": 1}
    else:
        assert attempt.error == error  # none of the receiver's own words
        assert sending.states == {"due": 1}
        assert sending.trigger.failing_since is not None


def test_a_redirect_is_not_followed(team: Team, receiver: Receiver) -> None:
    with Receiver() as inside:
        receiver.behaviours = [answering(302, Location=inside.url)]
        sending = Sending(team, receiver)
        sending.settings["webhook_ports"] = (str(receiver.port), str(inside.port))
        sending.run()
        assert inside.connections == 0
    assert (sending.last().status, sending.states) == (302, {"due": 1})


def test_nobody_listening_is_a_failed_attempt(team: Team) -> None:
    with Receiver() as receiver:
        sending = Sending(team, receiver)
    sending.run()
    assert (sending.last().error or "").startswith("The connection failed: ")
    assert sending.states == {"due": 1}


def test_of_an_answer_the_first_4_kb_are_kept(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(500, b"a" * 4000 + b"b" * 4000)]
    sending = Sending(team, receiver)
    sending.run()
    assert sending.last().answer == b"a" * 4000 + b"b" * 96


def test_the_environments_proxies_are_not_used(
    team: Team, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        sending = Sending(team, receiver)
        sending.run()
        assert proxy.connections == 0
    assert sending.states == {"delivered": 1}


# When the next attempt is


def test_the_gaps_between_attempts_are_those_promised_and_then_it_has_failed(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver)
    sending.take_tasks()
    sending.run()
    for gap in GAPS:
        row, attempts = sending.delivery()
        assert row.state == "due"
        assert row.next_at is not None
        waits = row.next_at - attempts[-1].at - attempts[-1].duration_us
        assert 0.8 * gap * SECOND <= waits <= 1.2 * gap * SECOND
        assert (sending.trigger_id, row.next_at) in sending.waiting()
        sending.take_tasks()
        sending.again()
    row, attempts = sending.delivery()
    assert (row.state, row.next_at, len(attempts)) == ("failed", None, 10)
    assert GAPS == (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)


def test_a_replayed_delivery_has_all_its_attempts_again(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(500)]
    sending = Sending(team, receiver)
    sending.run()
    for _ in GAPS:
        sending.again()
    sending.take_tasks()
    assert sending.write(queries.replay_failed, sending.trigger_id, now() + HOUR, now()) == 0
    assert sending.write(queries.replay_failed, sending.trigger_id, now() - HOUR, now()) == 1
    assert len(sending.waiting()) == 1
    sending.run()
    row, attempts = sending.delivery()
    assert (row.state, row.attempts) == ("due", 1)
    assert [attempt.number for attempt in attempts] == list(range(1, 12))
    receiver.behaviours = [faulty.ok]
    assert sending.write(queries.replay, sending.trigger_id, sending.ids[0], now())
    sending.run()
    assert sending.states == {"delivered": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_honoured_and_bounded(team: Team, receiver: Receiver, status: int) -> None:
    receiver.behaviours = [
        answering(status, Retry_After="100"),
        answering(status, Retry_After="999999999999"),
    ]
    sending = Sending(team, receiver)
    sending.run()
    row, attempts = sending.delivery()
    assert row.next_at is not None
    assert row.next_at - attempts[-1].at - attempts[-1].duration_us == 100 * SECOND
    sending.again()
    row, attempts = sending.delivery()
    assert row.next_at is not None
    assert row.next_at - attempts[-1].at - attempts[-1].duration_us == DAY


def test_retry_after_as_a_date_is_honoured(team: Team, receiver: Receiver) -> None:
    when = datetime.now(UTC) + timedelta(hours=2)
    receiver.behaviours = [answering(503, Retry_After=format_datetime(when, usegmt=True))]
    sending = Sending(team, receiver)
    sending.run()
    row, _ = sending.delivery()
    assert row.next_at is not None
    assert abs(row.next_at - when.timestamp() * SECOND) < 10 * SECOND


@pytest.mark.parametrize(
    "value", ["soon", "-5", "0", "Mon, 99 Foo 2026 99:99:99 GMT", "Mon, 01 Jan 2001 00:00:00 GMT"]
)
def test_a_retry_after_that_says_nothing_leaves_the_usual_gap(value: str) -> None:
    assert delivering.retry_after(value, now()) == 0


# Nothing is forgotten


def test_what_is_due_later_has_a_task_when_a_run_ends(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(503, Retry_After="500"), answering(503, Retry_After="300")]
    sending = Sending(team, receiver, 2)
    sending.take_tasks()
    sending.run()
    earliest = min(sending.delivery(number)[0].next_at or 0 for number in (0, 1))
    assert sending.waiting() == [(sending.trigger_id, earliest)]
    # A delivery that is added meanwhile brings that task forward, and the run it causes leaves another one.
    receiver.behaviours = [faulty.ok]
    sending.write(put_deliveries, sending.trigger_id, 1)
    assert sending.waiting()[0][1] < earliest
    sending.take_tasks()
    sending.run()
    assert sending.states == {"delivered": 1, "due": 2}
    assert sending.waiting() == [(sending.trigger_id, earliest)]


def test_a_delivery_added_while_its_trigger_sends_is_not_forgotten(team: Team, receiver: Receiver) -> None:
    added = threading.Event()

    async def add_one(wire: faulty.Wire) -> None:
        if not added.is_set():
            added.set()
            sending.write(put_deliveries, sending.trigger_id, 1)
        await wire.answer(200)

    receiver.behaviours = [add_one]
    sending = Sending(team, receiver)
    sending.take_tasks()
    sending.run()
    assert sending.states == {"delivered": 1, "due": 1}
    assert [subject for subject, _ in sending.waiting()] == [sending.trigger_id]


def test_a_receiver_that_hangs_gives_its_place_up_and_what_was_not_begun_stays_due(
    team: Team, receiver: Receiver
) -> None:
    receiver.behaviours = [faulty.hang]
    sending = Sending(team, receiver, 40)
    sending.take_tasks()
    sending.run(sending.engine(attempt_seconds=SHORT))
    assert len(receiver.requests) == delivering.AT_FIRST
    assert sending.states == {"due": 40}
    ((_, due),) = sending.waiting()
    assert due <= now()


def test_a_run_ends_after_its_time_and_the_next_one_goes_on(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, 40)
    sending.take_tasks()
    sending.run(sending.engine(run_seconds=0))
    assert len(receiver.requests) < 40
    assert len(sending.waiting()) == 1
    while sending.waiting():
        sending.take_tasks()
        sending.run()
    assert sending.states == {"delivered": 40}
    assert set(receiver.counts.values()) == {1}


def test_a_delivery_that_cannot_be_made_does_not_hold_up_the_others(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, 3)
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries).where(deliveries.c.delivery_id == sending.ids[1]).values(payload=b"{")
        )
    )
    sending.run()
    assert sending.states == {"delivered": 2, "due": 1}
    assert sending.delivery(1)[1][0].error == "An error of this server, which its log tells of."
    assert sending.trigger.failing_since is None


def test_what_another_worker_has_delivered_meanwhile_stays_delivered(team: Team, receiver: Receiver) -> None:
    async def deliver_elsewhere(wire: faulty.Wire) -> None:
        other = queries.Attempted(sending.ids[0], now(), 1, 200, None, b"", "delivered", None)
        sending.write(queries.record, [other])
        await wire.answer(500)

    receiver.behaviours = [deliver_elsewhere]
    sending = Sending(team, receiver)
    sending.run()
    row, attempts = sending.delivery()
    assert (row.state, row.next_at) == ("delivered", None)
    assert [attempt.status for attempt in attempts] == [200, 500]


def test_a_delivery_whose_task_was_lost_is_sent_all_the_same(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver)

    def resume() -> int:
        return team.app.call(delivering.resume_neglected, team.app.database, now())

    resume()
    sending.take_tasks()
    assert sending.waiting() == []
    assert resume() >= 1
    assert [subject for subject, _ in sending.waiting()] == [sending.trigger_id]
    assert resume() == 0


@pytest.mark.parametrize(
    ("made", "wait_until", "begun"),
    [(-9 * MINUTE, -1, 0), (-11 * MINUTE, HOUR, 0), (-11 * MINUTE, -1, 1), (-121 * MINUTE, HOUR, 1)],
    ids=["young", "waits for files", "waits no more", "old"],
)
def test_a_delivery_whose_preparing_died_is_prepared_all_the_same(
    team: Team, receiver: Receiver, made: int, wait_until: int, begun: int
) -> None:
    sending = Sending(team, receiver)

    def resume() -> None:
        team.app.call(delivering.resume_neglected, team.app.database, now())

    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == sending.ids[0])
            .values(state="preparing", next_at=None, created_at=now() + made, wait_until=now() + wait_until)
        )
    )
    sending.take_tasks()
    resume()
    assert [subject for subject, _ in sending.waiting(queries.PREPARE)] == sending.ids * begun
    # While a task runs there is no other.
    sending.write(
        lambda connection, team_id: connection.execute(
            update(tasks).where(tasks.c.team_id == team_id).values(state="running")
        )
    )
    resume()
    assert sending.waiting(queries.PREPARE) == []


def test_what_was_sent_when_the_worker_stops_is_not_sent_again(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [faulty.ok, faulty.ok, faulty.ok, faulty.hang]
    sending = Sending(team, receiver, 20)
    engine = sending.engine()

    async def stop() -> bool:
        job = asyncio.create_task(engine.deliver(sending.task()))
        # Each of the three successes brings one more that is sent at once: five hang now.
        while not receiver.has(8):  # noqa: ASYNC110  # another thread counts
            await asyncio.sleep(0.01)
        job.cancel()
        await asyncio.wait([job])
        return job.cancelled()

    assert team.app.call(stop)
    assert sending.states == {"delivered": 3, "due": 17}
    receiver.behaviours = [faulty.ok]
    sending.run()
    assert sending.states == {"delivered": 20}
    assert {receiver.counts[f"msg_{delivery_id}"] for delivery_id in sending.ids[:3]} == {1}


def test_a_worker_that_stops_while_it_notes_what_was_sent_notes_it_to_the_end(
    team: Team, receiver: Receiver
) -> None:
    sending = Sending(team, receiver, 3)
    engine = sending.engine()

    async def stop() -> bool:
        begun = asyncio.Event()

        class Slow:
            """A database that takes its time to write."""

            def __getattr__(self, name: str) -> Any:
                return getattr(team.app.database, name)

            async def settle(self, *work: Any) -> Any:
                if work[0] is noting.note:
                    begun.set()
                    await asyncio.sleep(0.2)
                return await team.app.database.settle(*work)

        engine._database = Slow()  # type: ignore[assignment]
        job = asyncio.create_task(engine.deliver(sending.task()))
        await begun.wait()
        job.cancel()
        await asyncio.wait([job])
        return job.cancelled()

    assert team.app.call(stop)
    assert sending.states == {"delivered": 3}
    assert [len(sending.delivery(number)[1]) for number in range(3)] == [1, 1, 1]


def test_deliveries_and_their_attempts_are_forgotten_after_their_time(team: Team, receiver: Receiver) -> None:
    sending = Sending(team, receiver, 2)
    sending.run()
    sending.write(
        lambda connection, team_id: connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id == sending.ids[0])
            .values(created_at=now() - 31 * DAY)
        )
    )
    assert team.app.call(delivering.purge, team.app.database, now() - 30 * DAY) == 1
    assert sending.states == {"delivered": 1}
    assert sending.write(queries.attempts_of, sending.ids).keys() == {sending.ids[1]}
    # An attempt that is noted after that leaves no trace.
    late = queries.Attempted(sending.ids[0], now(), 1, 200, None, b"", "delivered", None)
    sending.write(queries.record, [late])
    assert sending.write(queries.attempts_of, sending.ids).keys() == {sending.ids[1]}


def test_a_page_of_deliveries_is_newest_first_and_of_one_state(team: Team, receiver: Receiver) -> None:
    receiver.behaviours = [answering(400), faulty.ok]
    sending = Sending(team, receiver, 1)
    sending.run()
    sending.ids += sending.write(put_deliveries, sending.trigger_id, 2)
    sending.run()
    page = sending.write(queries.page, sending.trigger_id, None, 0, 10)
    assert [row.delivery_id for row in page] == sending.ids[::-1]
    page = sending.write(queries.page, sending.trigger_id, "due", 0, 10)
    assert [row.delivery_id for row in page] == sending.ids[:1]
    assert sending.write(queries.page, sending.trigger_id, None, 1, 1)[0].delivery_id == sending.ids[1]
