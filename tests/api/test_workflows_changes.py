"""Changes of workflows: every one is told, in order, and none is skipped."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import delete, insert

from server.clock import now
from storage.database import Connection
from storage.ids import new_id
from storage.queries import workflows as queries
from storage.queries.feed import renew_incarnations
from storage.tables import feeds, group_members, groups
from tests.support.app import Account, Document, Team, problem
from tests.support.statements import counted
from tests.support.workflows import changed, made, workflow


def ids(page: Document) -> list[tuple[str, bool]]:
    return [(item["workflowId"], item.get("deleted", False)) for item in page["changes"]]


def rename(team: Team, item: Document, name: str) -> None:
    response = team.put(f"/workflows/v2/{item['workflowId']}", json={"name": name})
    assert response.status_code == 200, response.text


def test_each_workflow_comes_once_in_the_order_of_its_last_change(team: Team) -> None:
    empty = changed(team)
    assert (empty["changes"], empty["more"], empty["reset"]) == ([], False, False)
    first, second = made(team), made(team)
    rename(team, first, "Other")
    page = changed(team, empty["next"])
    assert ids(page) == [(second["workflowId"], False), (first["workflowId"], False)]
    assert page["changes"][1] == workflow(team, first)
    assert changed(team) == page
    nothing = changed(team, page["next"])
    assert (nothing["changes"], nothing["next"]) == ([], page["next"])
    team.delete(f"/workflows/v2/{second['workflowId']}")
    gone = changed(team, page["next"])
    assert gone["changes"] == [{"workflowId": second["workflowId"], "deleted": True}]


def test_whatever_is_changed_is_told(team: Team) -> None:
    first = made(team)
    second = made(team, workflowId=first["workflowId"])
    address = f"/workflows/v2/{first['workflowId']}"
    since = changed(team)["next"]
    for method, path, body in [
        ("PUT", address, {"tags": ["x"]}),
        ("POST", f"/workflows/v2/{first['versionId']}/activate", None),
        ("POST", f"{address}/{second['versionId']}/approve", None),
        ("PUT", f"{address}/{second['versionId']}", {"isArchived": True}),
        ("DELETE", f"{address}/{second['versionId']}", None),
        ("DELETE", address, None),
    ]:
        by = team.user("APPROVER") if path.endswith("approve") else team.owner
        response = team.request(method, path, by=by, **({"json": body} if body else {}))
        assert response.status_code == 200, response.text
        page = changed(team, since)
        assert [item["workflowId"] for item in page["changes"]] == [first["workflowId"]], path
        since = page["next"]


def test_changes_come_in_pages(team: Team) -> None:
    items = [made(team)["workflowId"] for _ in range(5)]
    since, seen = None, []
    for expected in (True, True, False):
        page = changed(team, since, limit=2)
        assert page["more"] is expected
        seen += [item["workflowId"] for item in page["changes"]]
        since = page["next"]
    assert seen == items
    with counted(team.app) as counter:
        changed(team, since)
    assert counter.count == 2, counter.texts


@pytest.mark.parametrize("since", ["nonsense", "0.all.1", "ffffffff.all.99", "a.b.c.d"])
def test_with_a_cursor_that_is_none_of_ours_everything_comes_again(team: Team, since: str) -> None:
    first = made(team)
    page = changed(team, since)
    assert page["reset"] is True
    assert ids(page) == [(first["workflowId"], False)]
    problem(team.get("/workflows/v2/changes?limit=0"), 400, "invalid-parameter", "limit")


def test_a_cursor_from_before_a_restore_starts_over(team: Team) -> None:
    first = made(team)
    since = changed(team)["next"]
    ahead = since.rpartition(".")[0] + ".1000"
    assert changed(team, ahead)["reset"] is True
    previous: list[Any] = []

    def renew(connection: Connection) -> None:
        previous.extend(connection.execute(feeds.select()).all())
        renew_incarnations(connection, "0badcafe")

    def back(connection: Connection) -> None:
        for row in previous:
            connection.execute(
                feeds.update().where(feeds.c.team_id == row.team_id).values(incarnation=row.incarnation)
            )

    team.app.write(renew)
    try:
        page = changed(team, since)
        assert page["reset"] is True
        assert ids(page) == [(first["workflowId"], False)]
        assert changed(team, page["next"])["reset"] is False
    finally:
        team.app.write(back)


def test_a_workflow_that_is_not_the_callers_any_more_comes_as_deleted(team: Team) -> None:
    worker = team.executor()
    first = made(team)
    page = changed(team, by=worker)
    assert ids(page) == [(first["workflowId"], False)]
    body = {"liveObjectIds": [team.executor().subject_id]}
    team.put(f"/workflows/v2/{first['workflowId']}", json=body)
    page = changed(team, page["next"], by=worker)
    assert page["changes"] == [{"workflowId": first["workflowId"], "deleted": True}]
    team.put(f"/workflows/v2/{first['workflowId']}", json={"liveObjectIds": []})
    assert ids(changed(team, page["next"], by=worker)) == [(first["workflowId"], False)]


def join(team: Team, group_id: str, account: Account) -> None:
    def work(connection: Connection) -> None:
        row = {"team_id": team.team_id, "group_id": group_id, "user_id": account.subject_id}
        connection.execute(insert(group_members), row)
        queries.touch_for_object(connection, team.team_id, group_id)

    team.app.write(work)
    team.app.authority.forget(account.subject_id)


def leave(team: Team, group_id: str, account: Account) -> None:
    def work(connection: Connection) -> None:
        connection.execute(delete(group_members).where(group_members.c.group_id == group_id))

    team.app.write(work)
    team.app.authority.forget(account.subject_id)


def test_joining_and_leaving_a_group_is_told_to_its_members(team: Team) -> None:
    worker, group_id = team.executor(), new_id()

    def create(connection: Connection) -> None:
        row = {"team_id": team.team_id, "group_id": group_id, "name": "g", "name_key": group_id}
        connection.execute(insert(groups), {**row, "created_at": now()})

    team.app.write(create)
    first = made(team)
    team.put(f"/workflows/v2/{first['workflowId']}", json={"liveObjectIds": [group_id]})
    page = changed(team, by=worker)
    assert ids(page) == [(first["workflowId"], True)]
    join(team, group_id, worker)
    page = changed(team, page["next"], by=worker)
    assert (ids(page), page["reset"]) == ([(first["workflowId"], False)], False)
    leave(team, group_id, worker)
    page = changed(team, page["next"], by=worker)
    assert (ids(page), page["reset"]) == ([(first["workflowId"], True)], False)


def test_a_group_that_changes_moves_the_workflows_that_name_it_alone(team: Team) -> None:
    group_id = new_id()
    items = [made(team)["workflowId"] for _ in range(4)]
    documents = {item["workflowId"]: item for item in changed(team)["changes"]}
    since = changed(team)["next"]

    def work(connection: Connection) -> None:
        for workflow_id in (items[1], items[3]):
            row = queries.by_id(connection, team.team_id, workflow_id)
            assert row is not None
            queries.save(connection, row._replace(live_object_ids=f'["{group_id}"]'.encode()))
        queries.touch_for_object(connection, team.team_id, group_id)
        queries.touch_for_object(connection, team.team_id, "another")

    team.app.write(work)
    page = changed(team, since)
    assert sorted(ids(page)) == sorted([(items[1], False), (items[3], False)])
    assert all(item == documents[item["workflowId"]] for item in page["changes"])


def test_no_change_is_skipped_by_one_who_reads_while_many_write(team: Team) -> None:
    items = [made(team) for _ in range(4)]
    since = changed(team)["next"]
    writing = threading.Event()
    writing.set()

    def write(item: Document) -> None:
        for number in range(12):
            rename(team, item, f"name {number}")

    known: dict[str, str] = {}
    pages = 0
    with ThreadPoolExecutor(5) as pool:
        writers = [pool.submit(write, item) for item in items]
        while True:
            over = all(writer.done() for writer in writers)
            page = changed(team, since, limit=2)
            since, pages = page["next"], pages + 1
            known.update((item["workflowId"], item["name"]) for item in page["changes"])
            if over and not page["more"]:
                break
        for writer in writers:
            writer.result()
    assert pages > 1
    assert known == {item["workflowId"]: "name 11" for item in items}


def test_a_place_becomes_visible_only_after_all_earlier_ones(team: Team) -> None:
    """The one who takes a place holds the sequence until its commit."""
    first, second = made(team), made(team)
    since = changed(team)["next"]
    taken, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        place = queries.take_place(connection, team.team_id)
        row = queries.by_id(connection, team.team_id, first["workflowId"])
        assert row is not None
        taken.set()
        assert go_on.wait(20)
        queries.save(connection, row._replace(seq=place))

    with ThreadPoolExecutor(2) as pool:
        # PostgreSQL runs the work on the event loop's own greenlets: a thread must hold the place.
        if team.app.database.is_sqlite:
            one = pool.submit(team.app.write, slow)
            assert taken.wait(20)
            two = pool.submit(rename, team, second, "Late")
            assert changed(team, since)["changes"] == []
            go_on.set()
            one.result()
            two.result()
        else:
            _hold_on_postgresql(team, first, second, since, pool)
    assert ids(changed(team, since)) == [(first["workflowId"], False), (second["workflowId"], False)]


def _hold_on_postgresql(
    team: Team, first: Document, second: Document, since: str, pool: ThreadPoolExecutor
) -> None:
    engine = team.app.database._reader

    async def begin() -> Any:
        connection = await engine.connect()
        place = await connection.run_sync(queries.take_place, team.team_id)
        row = await connection.run_sync(queries.by_id, team.team_id, first["workflowId"])
        assert row is not None
        await connection.run_sync(queries.save, row._replace(seq=place))
        return connection

    async def commit(connection: Any) -> None:
        await connection.commit()
        await connection.close()

    held = team.app.call(begin)
    late = pool.submit(rename, team, second, "Late")
    # The one that came later waits, so that nothing can be read past the place that is not visible yet.
    for _ in range(5):
        assert changed(team, since)["changes"] == []
    assert not late.done()
    team.app.call(commit, held)
    late.result()
