"""Triggers: chapter 12 of the specification."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import Problem
from server.triggers import options
from server.triggers.options import Options
from server.triggers.secrets import Secret, rotated
from storage.database import Connection
from storage.queries import triggers
from storage.tables import teams
from tests.support.app import Document, Team, problem
from tests.support.statements import counted

NOBODY = "f" * 24
#: A public address, which no name has to be asked for.
URL = "https://93.184.215.14/hook"
MEMBERS = [
    *("triggerId", "created", "updated", "name", "description", "templateTags", "objectIds", "templateIds"),
    *("triggerType", "triggerOptions", "reportTemplateId", "pdfRequirement", "disabled", "archived"),
    *("disabledReason", "failingSince"),
]
#: Section 12.4.5.1, word for word.
PRINTED_UPDATE = {
    "name": "API Trigger Ex 1",
    "description": "Updating trigger description via api call",
    "templateTags": [],
    "objectIds": [],
    "templateIds": [],
    "triggerType": "Email",
    "triggerOptions": {"recipients": "", "sendCopyToUser": "true"},
    "pdfRequirement": "NotRequired",
    "reportTemplateId": None,
    "disabled": True,
}


def created(team: Team, **members: Any) -> Document:
    body = {"name": "Tell the office", "triggerType": "Email", "disabled": True, **members}
    response = team.post("/trigger/v2", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def hook(team: Team, **members: Any) -> Document:
    """An enabled Http trigger; ``triggerOptions`` over its url."""
    said = {"url": URL, **members.pop("triggerOptions", {})}
    return created(team, triggerType="Http", disabled=False, triggerOptions=said, **members)


def updated(team: Team, trigger: Document, **members: Any) -> Document:
    response = team.put(f"/trigger/v2/{trigger['triggerId']}", json=members)
    assert response.status_code == 200, response.text
    return dict(response.json())


def shown(team: Team, trigger: Document) -> Document:
    response = team.get(f"/trigger/v2/{trigger['triggerId']}")
    assert response.status_code == 200, response.text
    (one,) = response.json()
    return dict(one)


def listed(team: Team) -> list[Document]:
    return list(team.get("/trigger/v2").json())


def wanted(team: Team) -> int:
    """Which events the team's triggers want."""

    def read(connection: Connection) -> int:
        query = teams.select().with_only_columns(teams.c.wanted_events)
        return int(connection.execute(query.where(teams.c.team_id == team.team_id)).scalar_one())

    return team.app.read(read)


def secrets_of(team: Team, trigger: Document) -> list[Document]:
    row = team.app.read(triggers.one, team.team_id, trigger["triggerId"])
    assert row is not None
    return list(json.loads(row.secrets or b"[]"))


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(range(size))).decode()


# What the document prints


def test_name_type_and_disabled_are_enough_and_answer_every_member_in_the_documents_order(team: Team) -> None:
    trigger = created(team, name="API Trigger Ex 1")
    assert list(trigger) == MEMBERS
    assert re.fullmatch("[0-9a-f]{24}", trigger["triggerId"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", trigger["created"])
    assert trigger["updated"] == trigger["created"]
    assert trigger == {
        **dict.fromkeys(MEMBERS),
        "triggerId": trigger["triggerId"],
        "created": trigger["created"],
        "updated": trigger["created"],
        "name": "API Trigger Ex 1",
        "templateTags": [],
        "objectIds": [],
        "templateIds": [],
        "triggerType": "Email",
        "triggerOptions": {},
        "pdfRequirement": "NotRequired",
        "disabled": True,
        "archived": False,
    }


def test_one_trigger_is_answered_as_a_list_of_one(team: Team) -> None:
    trigger = created(team)
    response = team.get(f"/trigger/v2/{trigger['triggerId']}")
    assert (response.status_code, response.json()) == (200, [trigger])


def test_the_printed_update_is_taken_and_answered_as_printed(team: Team) -> None:
    trigger = created(team, name="old")
    after = updated(team, trigger, **PRINTED_UPDATE)
    assert after == {**trigger, **PRINTED_UPDATE, "updated": after["updated"]}
    assert shown(team, trigger) == after


def test_triggers_are_listed_newest_first_with_archived_ones_and_in_pages(team: Team) -> None:
    made = [created(team, name=f"trigger {number}") for number in range(3)]
    assert team.delete(f"/trigger/v2/{made[1]['triggerId']}").status_code == 200
    found = listed(team)
    assert [one["name"] for one in found] == ["trigger 2", "trigger 1", "trigger 0"]
    assert [one["archived"] for one in found] == [False, True, False]
    assert team.get("/trigger/v2?skip=1&limit=1").json() == [found[1]]
    assert team.get("/trigger/v2?skip=2").json() == found[2:]
    problem(team.get("/trigger/v2?limit=0"), 400, "invalid-parameter", "limit")


def test_a_list_takes_one_statement_however_many_triggers_there_are(team: Team) -> None:
    for _ in range(5):
        created(team)
    listed(team)
    with counted(team.app) as counter:
        assert len(listed(team)) == 5
    assert counter.count == 1, counter.texts


def test_what_an_update_does_not_say_stays(team: Team) -> None:
    person = team.executor()
    trigger = created(
        team,
        description="first",
        templateTags=["Pumps"],
        templateIds=["a454a699"],
        objectIds=[person.subject_id],
        pdfRequirement="Thumbnails",
        triggerOptions={"recipients": "a@example.com", "sendCopyToUser": True},
    )
    after = updated(team, trigger, name="second")
    assert after == {**trigger, "name": "second", "updated": after["updated"]}
    after = updated(team, trigger, triggerOptions={"sendCopyToUser": False})
    assert after["triggerOptions"] == {"recipients": "a@example.com", "sendCopyToUser": "false"}
    after = updated(team, trigger, description=None, templateTags=[], objectIds=[], templateIds=[])
    assert (after["description"], after["templateTags"], after["objectIds"], after["templateIds"]) == (
        None,
        [],
        [],
        [],
    )


def test_a_trigger_can_be_sent_back_as_it_was_read(team: Team) -> None:
    trigger = hook(team, triggerOptions={"headers": {"X-Key": "k7mf"}, "onUpdate": True})
    before = shown(team, trigger)
    after = updated(team, trigger, **before)
    assert after == {**before, "updated": after["updated"]}
    row = team.app.read(triggers.one, team.team_id, trigger["triggerId"])
    assert row is not None
    assert row.settings == {"url": URL, "headers": {"X-Key": "k7mf"}, "onUpdate": True}


def test_unknown_members_and_options_of_the_other_type_are_passed_over(team: Team) -> None:
    trigger = created(team, colour="blue", triggerOptions={"url": URL, "shape": "round"})
    assert (trigger["triggerOptions"], list(trigger)) == ({}, MEMBERS)


def test_types_and_requirements_are_taken_in_any_case(team: Team) -> None:
    trigger = created(team, triggerType="hTTP", pdfRequirement="fullimages")
    assert (trigger["triggerType"], trigger["pdfRequirement"]) == ("Http", "FullImages")


def test_a_trigger_that_is_not_there_is_404(team: Team) -> None:
    for method, path, body in (
        ("GET", f"/trigger/v2/{NOBODY}", None),
        ("PUT", f"/trigger/v2/{NOBODY}", {"name": "x"}),
        ("DELETE", f"/trigger/v2/{NOBODY}", None),
        ("PUT", f"/trigger/v2/unarchive/{NOBODY}", None),
        ("POST", f"/trigger/v2/{NOBODY}/secret", None),
    ):
        problem(team.request(method, path, json=body), 404, "no-such-trigger")


# Archived, disabled, enabled


def test_archiving_and_unarchiving_twice_changes_nothing_more(team: Team) -> None:
    trigger = hook(team)
    path = f"/trigger/v2/{trigger['triggerId']}"
    for _ in range(2):
        response = team.delete(path)
        assert (response.status_code, response.content) == (200, b"")
        assert shown(team, trigger)["archived"] is True
    assert wanted(team) == 0
    answers = [team.put(f"/trigger/v2/unarchive/{trigger['triggerId']}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json() == shown(team, trigger)
    assert answers[0].json()["archived"] is False
    assert wanted(team) == triggers.COMPLETED


def test_the_team_wants_what_its_live_triggers_want(team: Team) -> None:
    assert wanted(team) == 0
    first = created(team)
    assert wanted(team) == 0
    updated(team, first, disabled=False, triggerOptions={"recipients": "a@example.com"})
    assert wanted(team) == triggers.COMPLETED
    second = hook(team, triggerOptions={"onUpdate": "true"})
    assert wanted(team) == triggers.COMPLETED | triggers.UPDATED
    updated(team, second, triggerOptions={"onUpdate": False})
    assert wanted(team) == triggers.COMPLETED
    updated(team, first, disabled=True)
    team.delete(f"/trigger/v2/{second['triggerId']}")
    assert wanted(team) == 0


def test_enabling_forgets_why_it_was_disabled_and_since_when_it_failed(team: Team) -> None:
    trigger = hook(team)
    reason = "410 Gone"
    team.app.write(
        lambda connection: triggers.change(
            connection,
            team.team_id,
            trigger["triggerId"],
            disabled=True,
            disabled_reason=reason,
            failing_since=1_700_000_000_000_000,
        )
    )
    found = shown(team, trigger)
    assert (found["disabled"], found["disabledReason"]) == (True, reason)
    assert found["failingSince"] == "2023-11-14T22:13:20.000Z"
    # Sending back what was read keeps the reason.
    assert updated(team, trigger, **found)["disabledReason"] == reason
    after = updated(team, trigger, disabled=False)
    assert (after["disabled"], after["disabledReason"]) == (False, None)
    assert shown(team, trigger)["failingSince"] is None


def test_an_enabled_trigger_must_be_able_to_do_its_work(team: Team) -> None:
    body: Document = {"name": "x", "triggerType": "Http"}
    said = problem(team.post("/trigger/v2", json=body), 422, "invalid-body", "triggerOptions.url")
    assert "disabled" in said["detail"]
    body = {"name": "x", "triggerType": "Email", "triggerOptions": {"recipients": " ; "}}
    problem(team.post("/trigger/v2", json=body), 422, "invalid-body", "triggerOptions.recipients")
    assert listed(team) == []
    body["triggerOptions"]["sendCopyToUser"] = "true"
    assert team.post("/trigger/v2", json=body).status_code == 200
    trigger = created(team, triggerType="Http")
    response = team.put(f"/trigger/v2/{trigger['triggerId']}", json={"disabled": False})
    problem(response, 422, "invalid-body", "triggerOptions.url")
    assert shown(team, trigger) == {**trigger, "triggerOptions": {}}


# Another type


def test_another_type_takes_its_own_options_and_a_new_secret(team: Team) -> None:
    trigger = created(team, triggerOptions={"recipients": "a@example.com"})
    assert secrets_of(team, trigger) == []
    after = updated(team, trigger, triggerType="Http", triggerOptions={"url": URL})
    assert set(after["triggerOptions"]) == {"url", "secret"}
    assert shown(team, trigger)["triggerOptions"] == {"url": URL}
    assert [each["secret"] for each in secrets_of(team, trigger)] == [after["triggerOptions"]["secret"]]
    after = updated(team, trigger, triggerType="Email")
    assert after["triggerOptions"] == {}
    assert secrets_of(team, trigger) == []


# Secrets and headers


def test_the_secret_is_answered_once_and_values_of_headers_never(team: Team) -> None:
    trigger = hook(team, triggerOptions={"headers": {"Authorization": "Bearer k7mf", "X-Key": "x2qp"}})
    secret = trigger["triggerOptions"]["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert trigger["triggerOptions"]["headers"] == {"Authorization": "***", "X-Key": "***"}
    after = updated(team, trigger, name="renamed", triggerOptions={"url": f"{URL}/2"})
    for text in (json.dumps(after), team.get("/trigger/v2").text, json.dumps(shown(team, trigger))):
        for hidden in (secret, "k7mf", "x2qp", "secret"):
            assert hidden not in text
    assert secrets_of(team, trigger) == [{"secret": secret, "until": None}]


def test_a_masked_header_keeps_its_value_and_one_left_out_is_removed(team: Team) -> None:
    trigger = hook(team, triggerOptions={"headers": {"X-One": "1", "X-Two": "2"}})
    after = updated(team, trigger, triggerOptions={"headers": {"x-one": "***", "X-Three": "3"}})
    assert after["triggerOptions"]["headers"] == {"x-one": "***", "X-Three": "***"}
    row = team.app.read(triggers.one, team.team_id, trigger["triggerId"])
    assert row is not None
    assert row.settings["headers"] == {"x-one": "1", "X-Three": "3"}
    response = team.put(
        f"/trigger/v2/{trigger['triggerId']}", json={"triggerOptions": {"headers": {"X-Four": "***"}}}
    )
    problem(response, 422, "invalid-body", "triggerOptions.headers")
    assert updated(team, trigger, triggerOptions={"headers": {}})["triggerOptions"]["headers"] == {}


def test_another_receiver_gets_no_header_whose_value_nobody_can_read(team: Team) -> None:
    path = f"/trigger/v2/{hook(team, triggerOptions={'headers': {'X-Key': '1'}})['triggerId']}"
    for headers, status in (
        ({}, 422),
        ({"headers": {"X-Key": "***"}}, 422),
        ({"headers": {"X-Key": "2"}}, 200),
    ):
        options = {"url": "https://b.example.com/x", **headers}
        assert team.put(path, json={"triggerOptions": options}).status_code == status


def test_an_own_secret_is_taken_and_another_in_an_update_rotates_it(team: Team) -> None:
    first, second = secret_of(24), secret_of(64)
    trigger = hook(team, triggerOptions={"secret": first})
    assert trigger["triggerOptions"]["secret"] == first
    assert "secret" not in updated(team, trigger, triggerOptions={"secret": first})["triggerOptions"]
    after = updated(team, trigger, triggerOptions={"secret": second})
    assert after["triggerOptions"]["secret"] == second
    stored = secrets_of(team, trigger)
    assert [(each["secret"], each["until"] is None) for each in stored] == [(second, True), (first, False)]


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(team: Team) -> None:
    trigger = hook(team)
    path = f"/trigger/v2/{trigger['triggerId']}/secret"
    response = team.post(path)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert list(answer) == ["triggerId", "secret", "oldSecretsUntil"]
    old, new = trigger["triggerOptions"]["secret"], answer["secret"]
    current, beside = secrets_of(team, trigger)
    assert (current, beside["secret"]) == ({"secret": new, "until": None}, old)
    assert new != old
    row = team.app.read(triggers.one, team.team_id, trigger["triggerId"])
    assert row is not None
    assert beside["until"] == row.updated_at + 24 * 3600 * 1_000_000
    own = secret_of(32)
    answer = team.post(path, json={"secret": own, "keepSeconds": 0}).json()
    assert answer == {"triggerId": trigger["triggerId"], "secret": own, "oldSecretsUntil": None}
    assert secrets_of(team, trigger) == [{"secret": own, "until": None}]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"keepSeconds": -1}, "keepSeconds"),
        ({"keepSeconds": 604_801}, "keepSeconds"),
        ({"keepSeconds": 1.5}, "keepSeconds"),
        ({"secret": "whsec_short"}, "secret"),
        ({"secret": 7}, "secret"),
    ],
)
def test_a_rotation_that_cannot_be_is_refused(sqlite_team: Team, body: Document, field: str) -> None:
    trigger = hook(sqlite_team)
    response = sqlite_team.post(f"/trigger/v2/{trigger['triggerId']}/secret", json=body)
    problem(response, 422, "invalid-body", field)
    assert len(secrets_of(sqlite_team, trigger)) == 1


def test_a_mail_has_no_secret_to_rotate(sqlite_team: Team) -> None:
    trigger = created(sqlite_team)
    problem(sqlite_team.post(f"/trigger/v2/{trigger['triggerId']}/secret"), 409, "trigger-not-http")


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20), st.integers(1, 3)), min_size=1, max_size=12))
def test_of_any_rotations_the_last_secret_is_in_use_and_no_other_outlives_its_time(
    steps: list[tuple[int, int, int]],
) -> None:
    stored: bytes | None = None
    at, ends = 0, dict[str, int]()
    for number, keep, pause in steps:
        at += pause
        secret = f"secret {number}"
        stored = rotated(stored, secret, at, at + keep)
        # An independent count: what was there ends with the rotation's time, or earlier.
        ends = {name: min(end, at + keep) for name, end in ends.items() if name != secret}
        ends[secret] = 10**9
        found = [Secret(**each) for each in json.loads(stored)]
        assert found[0] == Secret(secret, None)
        expected = {name for name, end in ends.items() if end > at}
        assert {each.secret for each in found} <= expected
        assert len(found) == min(len(expected), 5)
        assert all(each.until == ends[each.secret] for each in found[1:])


# Recipients


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        (" ; , ", ""),
        ("a@example.com", "a@example.com"),
        ("a@example.com,b@example.com;c@example.com", "a@example.com; b@example.com; c@example.com"),
        (" a@example.com ;; A@EXAMPLE.com,", "a@example.com"),
    ],
)
def test_recipients_are_one_text_separated_by_commas_or_semicolons(
    sqlite_team: Team, text: str, kept: str
) -> None:
    trigger = created(sqlite_team, triggerOptions={"recipients": text})
    assert trigger["triggerOptions"] == {"recipients": kept}


@given(st.text(alphabet="ab@;, .\n\r<", max_size=40))
def test_recipients_that_are_taken_are_addresses_and_stay_the_same_the_second_time(text: str) -> None:
    try:
        kept = options.checked(Options(recipients=text)).recipients
    except Problem:
        return
    assert kept is not None
    assert options.checked(Options(recipients=kept)).recipients == kept
    for address in filter(None, kept.split("; ")):
        assert re.fullmatch("[ab.]+@[ab.]+", address)
        assert address.lower() in text.lower()


# What is refused

LONG = "x" * 2_000
BAD: dict[str, tuple[Document, str]] = {
    "a name of blanks": ({"name": " "}, "name"),
    "a long name": ({"name": "x" * 201}, "name"),
    "a long description": ({"description": "x" * 1_001}, "description"),
    "control characters in the description": ({"description": "a\0b"}, "description"),
    "another type": ({"triggerType": "Sms"}, "triggerType"),
    "another requirement": ({"pdfRequirement": "Sometimes"}, "pdfRequirement"),
    "a list that is none": ({"templateTags": "Pumps"}, "templateTags"),
    "too many entries": ({"templateIds": [str(number) for number in range(201)]}, "templateIds"),
    "an empty entry": ({"templateTags": [" "]}, "templateTags"),
    "a long entry": ({"templateTags": ["x" * 256]}, "templateTags"),
    "a NUL in an entry": ({"objectIds": ["a\0"]}, "objectIds"),
    "a NUL in an id": ({"reportTemplateId": "a\0"}, "reportTemplateId"),
    "no boolean": ({"disabled": "maybe"}, "disabled"),
    "options that are none": ({"triggerOptions": []}, "triggerOptions"),
    "recipients as a list": ({"triggerOptions": {"recipients": ["a@b.c"]}}, "triggerOptions.recipients"),
    "no address": ({"triggerOptions": {"recipients": "a@b.c; nobody"}}, "triggerOptions.recipients"),
    "an address with a name": ({"triggerOptions": {"recipients": "<a@b.c>"}}, "triggerOptions.recipients"),
    "two addresses in one": ({"triggerOptions": {"recipients": "a@b@c"}}, "triggerOptions.recipients"),
    "a line break": (
        {"triggerOptions": {"recipients": "a@b.c\r\nBcc: d@e.f"}},
        "triggerOptions.recipients",
    ),
    "a line break at the end": ({"triggerOptions": {"recipients": "a@b.c\n"}}, "triggerOptions.recipients"),
    "too many recipients": (
        {"triggerOptions": {"recipients": ",".join(f"{n}@b.c" for n in range(51))}},
        "triggerOptions.recipients",
    ),
    "no boolean copy": ({"triggerOptions": {"sendCopyToUser": "yes"}}, "triggerOptions.sendCopyToUser"),
    "a long url": ({"triggerOptions": {"url": f"https://93.184.215.14/{LONG}"}}, "triggerOptions.url"),
    "a short secret": ({"triggerOptions": {"secret": secret_of(23)}}, "triggerOptions.secret"),
    "a long secret": ({"triggerOptions": {"secret": secret_of(65)}}, "triggerOptions.secret"),
    "a secret without its prefix": (
        {"triggerOptions": {"secret": secret_of(24)[6:]}},
        "triggerOptions.secret",
    ),
    "a secret of other letters": (
        {"triggerOptions": {"secret": "whsec_" + "é" * 40}},
        "triggerOptions.secret",
    ),
    "headers that are none": ({"triggerOptions": {"headers": ["X-Key"]}}, "triggerOptions.headers"),
    "too many headers": (
        {"triggerOptions": {"headers": {f"X-{number}": "1" for number in range(21)}}},
        "triggerOptions.headers",
    ),
    **{
        f"the header {name!r}": ({"triggerOptions": {"headers": {name: "1"}}}, "triggerOptions.headers")
        for name in (
            *("Host", "content-LENGTH", "Content-Type", "Transfer-Encoding", "Connection", "TE", "Upgrade"),
            *("Webhook-Id", "webhook-anything", "", "X Key", "X:Key", "X\r\nEvil", "Ключ", "x" * 101),
        )
    },
    **{
        f"the value {value!r}": ({"triggerOptions": {"headers": {"X-Key": value}}}, "triggerOptions.headers")
        for value in ("a\r\nX-Evil: 1", "a\nb", "ключ", "a\0", "x" * 1_001)
    },
    "a header twice": (
        {"triggerOptions": {"headers": {"X-Key": "1", "x-key": "2"}}},
        "triggerOptions.headers",
    ),
    "a value that is no text": ({"triggerOptions": {"headers": {"X-Key": 1}}}, "triggerOptions.headers"),
}


@pytest.mark.parametrize(("members", "field"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused_and_named(sqlite_team: Team, members: Document, field: str) -> None:
    body = {"name": "x", "triggerType": "Email", "disabled": True, **members}
    said = problem(sqlite_team.post("/trigger/v2", json=body), 422, "invalid-body")
    assert said["field"].startswith(field), said
    assert listed(sqlite_team) == []
    trigger = created(sqlite_team)
    response = sqlite_team.put(f"/trigger/v2/{trigger['triggerId']}", json=members)
    problem(response, 422, "invalid-body")
    assert shown(sqlite_team, trigger) == trigger


@pytest.mark.parametrize("member", ["name", "triggerType"])
def test_a_trigger_needs_a_name_and_a_type(sqlite_team: Team, member: str) -> None:
    body = {"name": "x", "triggerType": "Email", "disabled": True}
    del body[member]
    problem(sqlite_team.post("/trigger/v2", json=body), 422, "invalid-body", member)


def test_a_body_that_is_no_json_is_refused(sqlite_team: Team) -> None:
    problem(sqlite_team.post("/trigger/v2", content=b"{"), 400, "malformed-json")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://localhost/",
            "https://2130706433/",
        ),
        *("ftp://93.184.215.14/", "https://user:pass@93.184.215.14/", "https://93.184.215.14:22/", "no url"),
    ],
)
def test_a_receiver_that_webhooks_must_not_go_to_is_refused(sqlite_team: Team, url: str) -> None:
    body = {"name": "x", "triggerType": "Http", "triggerOptions": {"url": url}}
    problem(sqlite_team.post("/trigger/v2", json=body), 422, "receiver-forbidden", "triggerOptions.url")
    trigger = hook(sqlite_team)
    response = sqlite_team.put(f"/trigger/v2/{trigger['triggerId']}", json={"triggerOptions": {"url": url}})
    problem(response, 422, "receiver-forbidden", "triggerOptions.url")
    assert shown(sqlite_team, trigger)["triggerOptions"]["url"] == URL


def test_a_receiver_whose_name_does_not_resolve_yet_is_taken(sqlite_team: Team) -> None:
    trigger = hook(sqlite_team, triggerOptions={"url": "https://soon.invalid/hook"})
    assert trigger["triggerOptions"]["url"] == "https://soon.invalid/hook"


# People, workflows, report templates


def test_unknown_people_are_refused_all_at_once_and_those_deleted_since_may_stay(team: Team) -> None:
    person = team.executor()
    group = team.post("/group", json={"name": "crew"}).json()["id"]
    body = {"name": "x", "triggerType": "Email", "disabled": True, "objectIds": ["nobody", group, NOBODY]}
    said = problem(team.post("/trigger/v2", json=body), 422, "unknown-objects", "objectIds")
    assert said["unknown"] == sorted(["nobody", NOBODY])
    trigger = created(team, objectIds=[person.subject_id, group, group])
    assert trigger["objectIds"] == [person.subject_id, group]
    assert team.delete(f"/group/{group}").status_code == 200
    assert updated(team, trigger, **shown(team, trigger))["objectIds"] == [person.subject_id, group]
    assert updated(team, trigger, objectIds=[person.subject_id])["objectIds"] == [person.subject_id]
    response = team.put(f"/trigger/v2/{trigger['triggerId']}", json={"objectIds": [group]})
    problem(response, 422, "unknown-objects", "objectIds")


def test_a_workflow_may_be_one_that_was_never_uploaded_here(team: Team) -> None:
    # Jobs of such workflows are synced, too.
    ids = ["a454a699-173f-429e-b3cd-fefd82d0a1e4"]
    assert created(team, templateIds=ids)["templateIds"] == ids


def test_a_report_template_must_be_one_of_the_teams_that_is_not_archived(
    team: Team,
) -> None:
    trigger = created(team)
    path = f"/trigger/v2/{trigger['triggerId']}"
    problem(
        team.put(path, json={"reportTemplateId": NOBODY}), 422, "unknown-report-template", "reportTemplateId"
    )
    body = {"name": "Sheet", "bodyContent": "<p>{{ job.jobTitle }}</p>"}
    template_id = team.post("/reporttemplates/v1/content", json=body).json()["reportTemplateId"]
    assert updated(team, trigger, reportTemplateId=template_id)["reportTemplateId"] == template_id
    response = team.delete(f"/reporttemplates/v1/{template_id}")
    assert response.status_code == 200, response.text
    # Sending back what was read must work.
    assert updated(team, trigger, reportTemplateId=template_id)["reportTemplateId"] == template_id
    assert updated(team, trigger, reportTemplateId=None)["reportTemplateId"] is None
    problem(team.put(path, json={"reportTemplateId": template_id}), 422, "unknown-report-template")
