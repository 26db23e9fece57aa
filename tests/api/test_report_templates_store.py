"""Files of report templates that are not kept: none of them stays in the store."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from storage.blobs import BlobNotFound, BlobsUnavailable
from storage.database import Contended, Unavailable
from storage.queries import report_templates as queries
from tests.api.test_report_templates import ALL, BODY, CONTENT, HEADER, id_of, made, versions
from tests.support.app import Team
from tests.support.attachments import store_of


class Store:
    """The keys that are put into a team's store."""

    def __init__(self, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
        self.team, self.keys, self.fails_after = team, list[str](), 100
        store = store_of(team)
        put = store.put

        async def watched(key: str, *arguments: Any, **options: Any) -> None:
            if len(self.keys) >= self.fails_after:
                raise BlobsUnavailable("away")
            self.keys.append(key)
            await put(key, *arguments, **options)

        monkeypatch.setattr(store, "put", watched)

    def left(self) -> list[str]:
        """Those that are there still."""

        async def find() -> list[str]:
            found = []
            for key in self.keys:
                with suppress(BlobNotFound):
                    found.append(key if [piece async for piece in store_of(self.team).get(key)] else "")
            return found

        return self.team.app.call(find)


def test_a_template_that_is_not_created_leaves_no_files(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"name": "Inspection", "headerContent": HEADER, "bodyContent": BODY}
    for fails_after, raised, status, left in (
        (1, None, 503, 0),
        (100, Contended("lost"), 503, 0),
        (100, ZeroDivisionError(), 500, 0),
        (100, Unavailable("away"), 503, 2),  # recorded or not, nobody knows
        (100, None, 200, 2),
    ):
        with monkeypatch.context() as patched:
            store = Store(sqlite_team, patched)
            store.fails_after = fails_after
            if raised is not None:
                patched.setattr(queries, "add_version", failing(raised))
            answer = sqlite_team.post(CONTENT, json=body)
            assert answer.status_code == status, answer.text
            assert len(store.left()) == left
    assert len(sqlite_team.get(ALL).json()) == 1


def test_a_version_that_is_not_made_leaves_no_files(
    sqlite_team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = made(sqlite_team)
    store = Store(sqlite_team, monkeypatch)
    store.fails_after = 1
    body = {"headerContent": HEADER, "bodyContent": BODY}
    assert sqlite_team.put(f"{CONTENT}/{id_of(created)}", json=body).status_code == 503
    assert len(store.keys) == 1
    assert store.left() == []
    assert len(versions(sqlite_team, created)) == 1


def failing(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail
