"""Asking the Query API."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from server.query.asking import Asking
from server.query.deliveries import triggers
from server.query.documents import QueryProblem, read
from server.query.people import groups, users
from server.query.plans import scheduled_jobs, workflows
from server.query.records import collections
from server.query.selecting import Field, select
from tests.support.app import Document, Team

_ROOTS: Mapping[str, Callable[[Field, Asking], Awaitable[list[Document]]]] = {
    "users": users,
    "groups": groups,
    "workflows": workflows,
    "scheduledJobs": scheduled_jobs,
    "collections": collections,
    "triggers": triggers,
}


def ask(team: Team, text: str, **variables: Any) -> Document:
    """The whole answer to a query: ``data`` unless it was not executed, and ``errors`` if there are any."""
    parts = (team.app._part(name) for name in ("database", "blobs", "records"))
    asking = Asking(team.team_id, team.name, *parts)

    async def answer() -> Document:
        try:
            fields = select(read(text), None, variables)
        except QueryProblem as problem:
            return {"errors": problem.errors}
        data: Document = {}
        errors: list[Document] = []
        for field in fields:
            try:
                data[field.key] = await _ROOTS[field.name](field, asking)
            except QueryProblem as problem:
                data[field.key] = None
                errors += problem.errors
        return {"data": data} | ({"errors": errors} if errors else {})

    decoded: Document = msgspec.json.decode(msgspec.json.encode(team.app.call(answer)))
    return decoded


def found(team: Team, text: str, **variables: Any) -> list[Document]:
    """What the only root field of a query answers, of which nothing may be wrong."""
    answer = ask(team, text, **variables)
    assert "errors" not in answer, answer
    (objects,) = answer["data"].values()
    return list(objects)


def refusal(team: Team, text: str, **variables: Any) -> tuple[str, str]:
    """Code and message of the only error of a query that answers nothing."""
    answer = ask(team, text, **variables)
    assert not [value for value in answer.get("data", {}).values() if value is not None], answer
    (error,) = answer["errors"]
    return error["extensions"]["code"], error["message"]
