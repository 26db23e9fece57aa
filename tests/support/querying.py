"""Asking the Query API."""

from typing import Any

import msgspec

from server.query.asking import Asking
from server.query.routes import Question, answered
from tests.support.app import Document, Team


def ask(team: Team, text: str, **variables: Any) -> Document:
    """The whole answer to a query: ``data`` unless it was not executed, and ``errors`` if there are any."""
    parts = (team.app._part(name) for name in ("database", "blobs", "records"))
    asking = Asking(team.team_id, team.name, *parts)
    answer = team.app.call(answered, Question(text, variables, None), asking)
    told = {"errors": answer.errors} if answer.errors else {}
    if answer.data is not None:
        told = {"data": answer.data, **told}
    decoded: Document = msgspec.json.decode(msgspec.json.encode(told))
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
