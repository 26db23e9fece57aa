"""Claiming and releasing scheduled jobs: beyond the specification."""

import asyncio

from tests.api.test_scheduled_jobs import SCHEDULE, scheduled
from tests.support.app import Team, problem
from tests.support.routes import Answer, ask


def test_a_claimed_scheduled_job_is_its_claimers(team: Team) -> None:
    ann, bob, admin = team.executor(), team.executor(), team.user("ADMIN")
    job = scheduled(team)
    path = f"{SCHEDULE}/{job['jobId']}"
    claimed = team.post(f"{path}/claim", by=ann)
    assert claimed.status_code == 200
    assert claimed.json()["assignedUserIds"] == [ann.subject_id]
    assert team.post(f"{path}/claim", by=ann).json() == claimed.json() == team.get(path).json()
    refused = problem(team.post(f"{path}/claim", by=bob), 409, "already-claimed")
    assert ann.subject_id not in str(refused)
    told = problem(team.post(f"{path}/claim", by=admin), 409, "already-claimed")
    assert told["userIds"] == [ann.subject_id]


def test_of_eight_who_claim_at_once_exactly_one_gets_it(team: Team) -> None:
    people = [team.executor() for _ in range(8)]
    for _ in range(5):
        job = scheduled(team)
        path = f"{SCHEDULE}/{job['jobId']}"

        async def claim(path: str = path) -> list[Answer]:
            calls = (ask(team.app.litestar, "POST", f"{path}/claim", one.headers) for one in people)
            return await asyncio.gather(*calls)

        answers: list[Answer] = team.app.call(claim)
        assert sorted(answer.status for answer in answers) == [200] + [409] * 7
        winner = people[[answer.status for answer in answers].index(200)]
        assert team.get(path).json()["assignedUserIds"] == [winner.subject_id]


def test_a_released_scheduled_job_may_be_claimed_again(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job = scheduled(team)
    path = f"{SCHEDULE}/{job['jobId']}"
    team.post(f"{path}/claim", by=ann)
    assert team.post(f"{path}/release", by=ann).json()["assignedUserIds"] == []
    problem(team.post(f"{path}/release", by=ann), 409, "not-assigned")
    assert team.post(f"{path}/claim", by=bob).json()["assignedUserIds"] == [bob.subject_id]


def test_releasing_takes_off_only_the_caller(team: Team) -> None:
    ann, bob = team.executor(), team.executor()
    job = scheduled(team, ann.subject_id, bob.subject_id)
    path = f"{SCHEDULE}/{job['jobId']}"
    assert team.post(f"{path}/release", by=ann).json()["assignedUserIds"] == [bob.subject_id]
    problem(team.post(f"{path}/release", by=team.executor()), 409, "not-assigned")


def test_only_people_claim(team: Team) -> None:
    job = scheduled(team)
    problem(team.post(f"{SCHEDULE}/{job['jobId']}/claim"), 409, "users-only")
    assert team.get(f"{SCHEDULE}/{job['jobId']}").json() == job
