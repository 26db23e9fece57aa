"""Report templates (chapter 9): kept in versions, checked before they are kept, archived rather than deleted."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.app import Document, Team, problem
from tests.support.statements import counted

ALL = "/reporttemplates/v1"
CONTENT = f"{ALL}/content"
DEFAULT = f"{ALL}/default"
HEADER = "<header>\n</header>"
BODY = "<!doctype html>\n<html><body><h1>{{ job.jobTitle }}</h1></body></html>"


def made(team: Team, **members: Any) -> Document:
    """A new template, as the answer prints it."""
    body = {"name": "Inspection", "headerContent": HEADER, "bodyContent": BODY, **members}
    response = team.post(CONTENT, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def id_of(template: Document) -> str:
    return str(template["reportTemplateId"])


def seen(team: Team, template: Document) -> Document:
    """A template as it is read now."""
    response = team.get(f"{CONTENT}/{id_of(template)}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def changed(team: Team, template: Document, **members: Any) -> Document:
    response = team.put(f"{CONTENT}/{id_of(template)}", json=members)
    assert response.status_code == 200, response.text
    return dict(response.json())


def versions(team: Team, template: Document) -> list[Document]:
    response = team.get(f"{ALL}/{id_of(template)}/versions")
    assert response.status_code == 200, response.text
    return list(response.json())


def version(team: Team, template: Document, number: int) -> Document:
    """One version with its contents."""
    (found,) = [entry for entry in versions(team, template) if entry["number"] == number]
    response = team.get(f"{ALL}/{id_of(template)}/versions/{found['versionId']}")
    assert response.status_code == 200, response.text
    return dict(response.json())


def entry_of(team: Team, template: Document) -> Document:
    """The template's entry in the list."""
    (found,) = [
        entry for entry in team.get(ALL).json() if entry["reportTemplateId"] == template["reportTemplateId"]
    ]
    return dict(found)


def default_of(team: Team) -> Any:
    """What the team settings say the default is."""
    return team.get("/teamsettings/v1/Reports.DefaultReport").json()


# Creating and reading


def test_a_template_is_created_and_read_as_the_document_prints_it(team: Team) -> None:
    created = made(team, options={"headerHeight": 50, "title": "For the customer"}, description="For pumps")
    assert list(created) == [
        *("reportTemplateId", "name", "description", "headerContent", "bodyContent", "lastUpdated", "userId"),
        *("options", "isDefault", "isArchived", "metadata"),
    ]
    assert created["options"] == {
        "isLandscape": False,
        "title": "For the customer",
        "headerHeight": 50,
        "hideFooter": False,
    }
    assert list(created["options"]) == ["isLandscape", "title", "headerHeight", "hideFooter"]
    assert (created["headerContent"], created["bodyContent"]) == (HEADER, BODY)
    assert (created["name"], created["description"]) == ("Inspection", "For pumps")
    assert created["userId"] == team.owner.subject_id
    assert (created["isDefault"], created["isArchived"], created["metadata"]) == (False, False, {})
    assert seen(team, created) == created


def test_a_name_and_a_body_are_enough(team: Team) -> None:
    response = team.post(CONTENT, json={"name": " Short ", "bodyContent": "<p>x</p>"})
    created = response.json()
    assert (created["name"], created["description"], created["headerContent"]) == ("Short", None, "")
    assert created["options"] == {
        "isLandscape": False,
        "title": "Short",
        "headerHeight": 48,
        "hideFooter": False,
    }


def test_the_list_prints_the_latest_version_with_its_two_files(team: Team) -> None:
    created = made(team, metadata={"workflowId": "w"})
    entry = entry_of(team, created)
    assert list(entry) == [
        *("reportTemplateId", "name", "description", "template", "lastUpdated", "options", "isDefault"),
        *("isArchived", "metadata"),
    ]
    template = entry["template"]
    assert list(template) == [
        *("templateId", "templateBodyFile", "templateHeaderFile", "uploadedDate", "userId"),
    ]
    assert template["templateId"] == versions(team, created)[0]["versionId"]
    body, header = template["templateBodyFile"], template["templateHeaderFile"]
    assert list(body) == list(header) == ["name", "uri", "contentType", "downloadUrl"]
    assert (body["name"], header["name"]) == ("Body template", "Header template")
    assert body["contentType"] == header["contentType"] == "text/html"
    assert body["uri"] != header["uri"]
    for key in ("name", "description", "lastUpdated", "options", "isDefault", "isArchived", "metadata"):
        assert entry[key] == created[key]
    again = entry_of(team, created)["template"]
    assert (again["templateBodyFile"]["uri"], again["templateHeaderFile"]["uri"]) == (
        body["uri"],
        header["uri"],
    )


def test_the_files_are_read_without_a_token_and_saved_rather_than_shown(team: Team) -> None:
    template = entry_of(team, made(team, name='A "x"/\r\n <b>'.replace("\r\n", "")))["template"]
    for part, content in (("templateBodyFile", BODY), ("templateHeaderFile", HEADER)):
        response = httpx_get(team, template[part]["downloadUrl"])
        assert response.text == content
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["content-disposition"].startswith("attachment;")
        assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert team.get(ALL).headers["cache-control"] == "private, no-store"


def httpx_get(team: Team, url: str) -> httpx.Response:
    base = str(team.app.settings.public_url)
    assert url.startswith(base)
    response: httpx.Response = team.app.http.get(url.removeprefix(base))
    assert response.status_code == 200, response.text
    return response


def test_the_names_are_printed_with_the_documents_nulls(team: Team) -> None:
    created = made(team, metadata={"a": 1})
    (entry,) = team.get(f"{ALL}/names").json()
    assert entry == {
        "reportTemplateId": id_of(created),
        "name": "Inspection",
        "description": None,
        "templateVersions": None,
        "teamName": None,
        "lastUpdated": created["lastUpdated"],
        "template": None,
        "options": None,
        "isArchived": False,
        "metadata": {"a": 1},
    }


def test_lists_are_newest_first_whole_and_filtered_or_paged_if_asked(team: Team) -> None:
    ids = [id_of(made(team, name=f"T{number}")) for number in range(4)]
    team.delete(f"{ALL}/{ids[1]}")
    for path in (ALL, f"{ALL}/names"):

        def listed(query: str, path: str = path) -> list[str]:
            return [entry["reportTemplateId"] for entry in team.get(f"{path}{query}").json()]

        assert listed("") == ids[::-1]
        assert listed("?archived=true") == [ids[1]]
        assert listed("?archived=FALSE") == [ids[3], ids[2], ids[0]]
        assert listed("?skip=1&limit=2") == [ids[2], ids[1]]
        problem(team.get(f"{path}?archived=perhaps"), 400, "invalid-parameter", "archived")
        problem(team.get(f"{path}?limit=0"), 400, "invalid-parameter", "limit")


def test_a_list_takes_three_statements_however_long_it_is(team: Team) -> None:
    templates = [made(team) for _ in range(3)]
    team.put(f"{DEFAULT}/{id_of(templates[0])}")
    with counted(team.app) as counter:
        assert len(team.get(ALL).json()) == 3
    # The templates with their versions, the team's settings, whether the default is one.
    assert counter.count == 3, counter.texts


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{CONTENT}/nothing"),
        ("PUT", f"{CONTENT}/nothing"),
        ("PUT", f"{ALL}/metadata/nothing"),
        ("PUT", f"{DEFAULT}/nothing"),
        ("DELETE", f"{ALL}/nothing"),
        ("GET", f"{ALL}/nothing/versions"),
        ("GET", f"{ALL}/nothing/versions/nothing"),
    ],
)
def test_what_is_not_there_is_404(sqlite_team: Team, method: str, path: str) -> None:
    problem(sqlite_team.request(method, path, json={}), 404, "report-template-not-found")


# Versions


def test_every_change_of_the_content_is_a_version_and_the_earlier_ones_are_kept(team: Team) -> None:
    created = made(team)
    editor = team.user("EDITOR")
    response = team.put(f"{CONTENT}/{id_of(created)}", by=editor, json={"bodyContent": "<p>2</p>"})
    second = response.json()
    assert (second["headerContent"], second["bodyContent"]) == (HEADER, "<p>2</p>")
    assert second["userId"] == editor.subject_id
    third = changed(team, created, options={"isLandscape": "true"})
    assert third["options"] == {**created["options"], "isLandscape": True}
    assert third["bodyContent"] == "<p>2</p>"
    kept = versions(team, created)
    assert [(entry["number"], entry["isCurrent"]) for entry in kept] == [(3, True), (2, False), (1, False)]
    assert [entry["userId"] for entry in kept] == [
        team.owner.subject_id,
        editor.subject_id,
        team.owner.subject_id,
    ]
    first = version(team, created, 1)
    assert list(first) == [
        *("reportTemplateId", "versionId", "number", "uploaded", "userId", "isCurrent", "options"),
        *("headerContent", "bodyContent"),
    ]
    assert (first["headerContent"], first["bodyContent"]) == (HEADER, BODY)
    assert first["options"] == created["options"]
    assert entry_of(team, created)["template"]["templateId"] == kept[0]["versionId"]


def test_an_old_version_sent_again_is_the_newest(team: Team) -> None:
    created = made(team)
    changed(team, created, bodyContent="<p>2</p>", headerContent="")
    old = version(team, created, 1)
    restored = changed(team, created, **old)
    assert {**restored, "lastUpdated": None} == {**created, "lastUpdated": None}
    assert [entry["number"] for entry in versions(team, created)] == [3, 2, 1]


def test_what_was_read_can_be_sent_back_and_the_documents_other_members_are_not_looked_at(team: Team) -> None:
    created = made(team, description="D", metadata={"a": 1})
    body = {**created, "isDefault": True, "reportTemplateId": "another", "userId": 7, "lastUpdated": "now"}
    answer = changed(team, created, **body)
    assert {**answer, "lastUpdated": None} == {**created, "lastUpdated": None}
    assert default_of(team) is None


def test_a_name_or_a_description_alone_makes_no_version(team: Team) -> None:
    created = made(team, description="D")
    answer = changed(team, created, name="Other", description="", headerContent=None, options=None)
    assert (answer["name"], answer["description"]) == ("Other", None)
    assert answer["lastUpdated"] >= created["lastUpdated"]
    assert len(versions(team, created)) == 1


def test_two_who_change_a_template_at_once_both_make_a_version(team: Team) -> None:
    created = made(team)
    count = 6
    together = threading.Barrier(count)

    def change(number: int) -> httpx.Response:
        together.wait()
        field = "bodyContent" if number % 2 else "headerContent"
        return team.put(f"{CONTENT}/{id_of(created)}", json={field: f"<p>{number}</p>"})

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(change, range(count)))
    assert [answer.status_code for answer in answers] == [200] * count
    kept = versions(team, created)
    assert [entry["number"] for entry in kept] == list(range(count + 1, 0, -1))
    contents = [version(team, created, number) for number in range(1, count + 2)]
    pairs = [(entry["headerContent"], entry["bodyContent"]) for entry in contents]
    # Each has its own part, and the other as the one before left it.
    for before, after in itertools.pairwise(pairs):
        assert (before[0] == after[0]) != (before[1] == after[1])
    assert len({text for pair in pairs for text in pair}) == count + 2
    assert seen(team, created)["bodyContent"] == pairs[-1][1]


def test_a_version_of_another_template_is_404(team: Team) -> None:
    one, other = made(team), made(team)
    foreign = versions(team, other)[0]["versionId"]
    problem(team.get(f"{ALL}/{id_of(one)}/versions/{foreign}"), 404, "report-template-version-not-found")


# Metadata


def test_metadata_are_set_key_by_key_and_a_null_takes_one_away(team: Team) -> None:
    created = made(team, metadata={"a": 1, "b": {"c": [1, 2]}, "none": None})
    assert created["metadata"] == {"a": 1, "b": {"c": [1, 2]}}
    response = team.put(f"{ALL}/metadata/{id_of(created)}", json={"key": "value", "a": None, "gone": None})
    assert response.json() == {
        **created,
        "metadata": {"b": {"c": [1, 2]}, "key": "value"},
        "lastUpdated": response.json()["lastUpdated"],
    }
    assert seen(team, created) == response.json()
    assert len(versions(team, created)) == 1
    assert changed(team, created, metadata={"b": None})["metadata"] == {"key": "value"}


def test_keys_that_are_set_at_once_are_all_kept(team: Team) -> None:
    created = made(team)
    path = f"{ALL}/metadata/{id_of(created)}"
    names = [f"key {number}" for number in range(6)]
    together = threading.Barrier(len(names))

    def put(name: str) -> int:
        together.wait()
        return team.put(path, json={name: 1}).status_code

    with ThreadPoolExecutor(len(names)) as pool:
        assert set(pool.map(put, names)) == {200}
    assert seen(team, created)["metadata"] == dict.fromkeys(names, 1)


def test_metadata_are_an_object_of_at_most_20_kb_together(team: Team) -> None:
    created = made(team, metadata={"a": "x" * 15_000})
    path = f"{ALL}/metadata/{id_of(created)}"
    problem(team.put(path, json={"b": "x" * 6_000}), 422, "invalid-body", "metadata")
    problem(team.put(path, json=["a"]), 422, "invalid-body")
    problem(team.put(path, content=b"{"), 400, "malformed-json")
    problem(
        team.post(CONTENT, json={"name": "x", "bodyContent": "x", "metadata": {"a": "x" * 21_000}}),
        422,
        "invalid-body",
        "metadata",
    )
    assert seen(team, created) == created


# The archive


def test_deleting_archives_and_doing_it_again_is_no_error(team: Team) -> None:
    created = made(team)
    for _ in range(2):
        response = team.delete(f"{ALL}/{id_of(created)}")
        assert (response.status_code, response.content) == (200, b"")
    assert seen(team, created)["isArchived"] is True
    assert entry_of(team, created)["isArchived"] is True
    assert version(team, created, 1)["bodyContent"] == BODY


def test_an_archived_template_is_no_longer_the_default_and_does_not_become_it(team: Team) -> None:
    created = made(team)
    team.put(f"{DEFAULT}/{id_of(created)}")
    team.delete(f"{ALL}/{id_of(created)}")
    assert default_of(team) is None
    assert seen(team, created)["isDefault"] is False
    problem(team.get(DEFAULT), 404, "no-default-template")
    problem(team.put(f"{DEFAULT}/{id_of(created)}"), 409, "report-template-archived")


def test_an_archived_template_comes_back_with_is_archived_false_and_not_as_the_default(team: Team) -> None:
    created = made(team)
    team.put(f"{DEFAULT}/{id_of(created)}")
    team.delete(f"{ALL}/{id_of(created)}")
    assert changed(team, created, bodyContent="<p>2</p>")["isArchived"] is True
    back = changed(team, created, isArchived=False)
    assert (back["isArchived"], back["isDefault"], back["bodyContent"]) == (False, False, "<p>2</p>")
    assert team.put(f"{DEFAULT}/{id_of(created)}").status_code == 200


# The default


def test_there_is_no_default_before_somebody_sets_one(team: Team) -> None:
    made(team)
    problem(team.get(DEFAULT), 404, "no-default-template")
    response = team.put(f"{DEFAULT}/unset")
    assert (response.status_code, response.content) == (200, b"null")


def test_the_default_is_set_moved_and_unset(team: Team) -> None:
    one, other = made(team), made(team)
    for template in (one, other, other):
        response = team.put(f"{DEFAULT}/{id_of(template)}")
        assert response.json() == {**template, "isDefault": True}
        assert team.get(DEFAULT).json() == response.json() == seen(team, template)
    assert seen(team, one)["isDefault"] is False
    assert [entry["isDefault"] for entry in team.get(ALL).json()] == [True, False]
    assert changed(team, other, name="Other")["isDefault"] is True
    assert team.put(f"{DEFAULT}/unset").json()["isDefault"] is False
    problem(team.get(DEFAULT), 404, "no-default-template")


def test_the_default_and_the_team_setting_are_one_value(team: Team) -> None:
    one, other = made(team), made(team)
    team.put(f"{DEFAULT}/{id_of(one)}")
    assert default_of(team) == id_of(one)
    settings = team.post("/teamsettings/v1", json={"Reports": {"DefaultReport": id_of(other)}})
    assert settings.json()["Reports"] == {"DefaultReport": id_of(other)}
    assert id_of(team.get(DEFAULT).json()) == id_of(other)
    team.put(f"{DEFAULT}/unset")
    assert default_of(team) is None
    team.put(f"{DEFAULT}/{id_of(one)}")
    team.post("/teamsettings/v1/defaults")
    problem(team.get(DEFAULT), 404, "no-default-template")


# What is refused


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": 7}, "name"),
        ({"description": "x" * 10_001}, "description"),
        ({"description": "a\0b"}, "description"),
        ({"bodyContent": None}, "bodyContent"),
        ({"bodyContent": " \n"}, "bodyContent"),
        ({"bodyContent": "a\0b"}, "bodyContent"),
        ({"bodyContent": "x" * (1024 * 1024 + 1)}, "bodyContent"),
        ({"headerContent": "ä" * (512 * 1024 + 1)}, "headerContent"),
        ({"headerContent": ["x"]}, "headerContent"),
        ({"options": []}, "options"),
        ({"options": {"title": "x" * 201}}, "options.title"),
        ({"options": {"title": "a\nb"}}, "options.title"),
        ({"options": {"headerHeight": -1}}, "options.headerHeight"),
        ({"options": {"headerHeight": 401}}, "options.headerHeight"),
        ({"options": {"headerHeight": "48"}}, "options.headerHeight"),
        ({"options": {"headerHeight": 48.5}}, "options.headerHeight"),
        ({"options": {"isLandscape": 1}}, "options.isLandscape"),
        ({"options": {"hideFooter": "perhaps"}}, "options.hideFooter"),
        ({"metadata": []}, "metadata"),
    ],
)
def test_what_cannot_be_is_refused_and_named(sqlite_team: Team, members: Document, field: str) -> None:
    body = {"name": "x", "bodyContent": "x", **members}
    problem(sqlite_team.post(CONTENT, json=body), 422, "invalid-body", field)
    assert sqlite_team.get(ALL).json() == []
    if None not in members.values():
        created = made(sqlite_team)
        problem(sqlite_team.put(f"{CONTENT}/{id_of(created)}", json=members), 422, "invalid-body", field)
        assert seen(sqlite_team, created) == created


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"name":"\\ud800","bodyContent":"x"}'])
def test_a_body_that_is_no_json_is_refused(sqlite_team: Team, content: bytes) -> None:
    problem(sqlite_team.post(CONTENT, content=content), 400, "malformed-json")


def test_the_largest_contents_are_taken(sqlite_team: Team) -> None:
    text = "<p>" + "ä" * (512 * 1024 - 2) + "."
    assert len(text.encode()) == 1024 * 1024
    created = made(sqlite_team, headerContent=text, bodyContent=text, options={"headerHeight": 400})
    assert seen(sqlite_team, created) == created


def test_members_that_nobody_knows_are_passed_over(sqlite_team: Team) -> None:
    created = made(sqlite_team, more=1, options={"more": 1, "hideFooter": True})
    assert created["options"]["hideFooter"] is True
    assert "more" not in created
    assert "more" not in created["options"]


@pytest.mark.parametrize("field", ["headerContent", "bodyContent"])
def test_an_error_of_syntax_is_refused_with_its_place_and_nothing_is_kept(team: Team, field: str) -> None:
    wrong = "<p>\n  {% if job %}\n  {{ job. }}\n</p>"
    body = {"name": "x", "bodyContent": BODY, field: wrong}
    refused = problem(team.post(CONTENT, json=body), 422, "template-syntax", field)
    assert refused["line"] == 3
    assert type(refused["column"]) is int
    assert refused["column"] >= 1
    assert team.get(ALL).json() == []
    created = made(team)
    assert (
        problem(team.put(f"{CONTENT}/{id_of(created)}", json={field: wrong}), 422, "template-syntax", field)[
            "line"
        ]
        == 3
    )
    assert (seen(team, created), len(versions(team, created))) == (created, 1)


def test_a_template_that_exhausts_its_reader_is_refused(sqlite_team: Team) -> None:
    hostile = "{{ " + "(" * 200_000 + "1" + ")" * 200_000 + " }}"
    response = sqlite_team.post(CONTENT, json={"name": "x", "bodyContent": hostile})
    refused = problem(response, 422)
    assert refused["code"] in ("template-refused", "template-syntax")
    # The reader that was lost is replaced.
    made(sqlite_team)


# Who may


def test_editors_administrators_and_owners_make_templates_and_nobody_else(sqlite_team: Team) -> None:
    for permission, status in (
        ("OWNER", 200),
        ("ADMIN", 200),
        ("EDITOR", 200),
        ("EXECUTOR", 403),
        ("DATAVIEWER", 403),
    ):
        account = sqlite_team.user(permission)
        assert sqlite_team.get(ALL, by=account).status_code == status
        body = {"name": "x", "bodyContent": "x"}
        assert sqlite_team.post(CONTENT, json=body, by=account).status_code == status


def test_templates_of_one_team_are_not_those_of_another(team: Team) -> None:
    created, other = made(team), team.app.team()
    assert other.get(ALL).json() == other.get(f"{ALL}/names").json() == []
    problem(other.get(f"{CONTENT}/{id_of(created)}"), 404, "report-template-not-found")
    problem(other.put(f"{DEFAULT}/{id_of(created)}"), 404, "report-template-not-found")
    refused = other.post("/teamsettings/v1", json={"Reports": {"DefaultReport": id_of(created)}})
    problem(refused, 422, "unknown-report-template", "Reports.DefaultReport")
