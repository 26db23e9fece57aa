"""Queries for jobs: what they find, in which order, and every field of them (sections 3.5 and 3.7)."""

import json
import uuid
from typing import Any

import pytest
from graphql import GraphQLObjectType

from fixtures.jobs import inspection_jobs
from server.query.documents import SCHEMA
from server.query.job_fields import TOLD
from storage.ids import new_id
from tests.support.app import Document, Team, finished_snapshot, snapshot
from tests.support.attachments import put_file
from tests.support.workflows import made

FIRST = "2025-03-03T08:00:00.000Z"
BEFORE_THAT = "2025-03-02T08:00:00.000Z"
AFTER_THAT = "2025-03-04T08:00:00.000Z"


def asked(team: Team, query: str, **variables: Any) -> Document:
    """The whole answer to a query."""
    response = team.post("/query/v2/graph", json={"query": query, "variables": variables})
    assert response.status_code == 200, response.text
    return dict(response.json())


def jobs(team: Team, query: str, **variables: Any) -> list[Document]:
    """The jobs that a query finds, of which nothing may be wrong."""
    answer = asked(team, query, **variables)
    assert "errors" not in answer, answer
    (found,) = answer["data"].values()
    return list(found)


def titles(team: Team, arguments: str = "") -> list[str]:
    return [job["jobTitle"] for job in jobs(team, f"{{ jobs{arguments} {{ jobTitle }} }}")]


def refusal(team: Team, query: str) -> tuple[str, str]:
    """Code and message of the only error."""
    answer = asked(team, query)
    assert not answer.get("data") or None in answer["data"].values()
    (error,) = answer["errors"]
    return error["extensions"]["code"], error["message"]


def completed(title: str, **header: Any) -> Document:
    return finished_snapshot(jobTitle=title, **header)


def step(title: str | None = None, **members: Any) -> Document:
    return {"singleStep": {"stepTitle": title, "uniqueStepId": str(uuid.uuid4()), **members}}


# Which jobs


def test_completed_and_abandoned_jobs_are_found_in_the_order_of_their_completion(team: Team) -> None:
    team.synced(snapshot(jobTitle="open"))
    late = snapshot(jobTitle="late")
    team.synced(late)
    team.synced(completed("first"))
    team.synced(completed("given up", status="Abandoned"))
    team.synced(late | {"metadata": late["metadata"] | {"status": "Completed", "updated": AFTER_THAT}})
    team.synced(completed("stopped", status="Aborted"))
    assert titles(team) == ["first", "given up", "late"]
    assert titles(team, '(order: "desc")') == ["late", "given up", "first"]
    assert titles(team, '(order: "DESC" limit: 1)') == ["late"]


def test_a_page_goes_on_after_the_cursor_and_a_job_keeps_its_first_one(team: Team) -> None:
    documents = [completed(f"job {number}") for number in range(5)]
    for document in documents:
        team.synced(document)
    query = "query ($cursor: String, $order: String) { jobs(limit: 2 cursor: $cursor order: $order) { jobTitle completedJobCursor } }"
    for order, expected in (("asc", "01234"), ("desc", "43210")):
        seen: list[Document] = []
        while page := jobs(team, query, cursor=seen[-1]["completedJobCursor"] if seen else None, order=order):
            seen += page
        assert [job["jobTitle"] for job in seen] == [f"job {number}" for number in expected]
        assert len({job["completedJobCursor"] for job in seen}) == 5
    last = seen[0]["completedJobCursor"]
    assert jobs(team, query, cursor=last, order="asc") == []
    header = documents[0]["metadata"] | {"updated": AFTER_THAT, "jobTitle": "job 0 again"}
    team.synced(documents[0] | {"metadata": header})
    team.synced(completed("job 5"))
    assert [job["jobTitle"] for job in jobs(team, query, cursor=last, order="asc")] == ["job 5"]
    assert titles(team, "(limit: 1)") == ["job 0 again"]


def test_what_is_no_cursor_is_refused(team: Team, sqlite_team: Team) -> None:
    assert refusal(team, '{ jobs(cursor: "67c56a0d000000000000") { jobId } }')[0] == "invalid-cursor"
    sqlite_team.synced(completed("of another incarnation"))
    ((cursor,),) = [list(job.values()) for job in jobs(sqlite_team, "{ jobs { completedJobCursor } }")]
    code, message = refusal(team, f'{{ jobs(cursor: "ffffffff{cursor[8:]}") {{ jobId }} }}')
    assert (code, "restored" in message) == ("invalid-cursor", True)


def test_a_limit_is_from_1_to_100_and_50_without_one(team: Team) -> None:
    team.push_many([completed(f"job {number}") for number in range(103)])
    assert len(titles(team)) == 50
    assert len(titles(team, "(limit: 100)")) == 100
    for limit in (0, -1, 101):
        assert refusal(team, f"{{ jobs(limit: {limit}) {{ jobId }} }}") == (
            "invalid-argument",
            "limit must be from 1 to 100.",
        )


def test_excluded_jobs_are_left_out_unless_they_are_asked_for(team: Team) -> None:
    document = completed("excluded")
    team.synced(document)
    team.synced(completed("other"))
    client_job_id = document["metadata"]["clientJobId"]
    body = {"userId": team.owner.subject_id, "reason": "a test", "isExcluded": "true"}
    assert team.put(f"/jobs/v1/{client_job_id}", json=body).is_success
    assert titles(team) == ["other"]
    assert titles(team, "(includeExcluded: true)") == ["excluded", "other"]
    team.put(f"/jobs/v1/{client_job_id}", json=body | {"isExcluded": "false"})
    assert titles(team) == ["excluded", "other"]


def test_a_job_that_is_aborted_or_deleted_is_not_completed_any_more(team: Team) -> None:
    documents = [completed("to be deleted"), completed("stays")]
    for document in documents:
        team.synced(document)
    assert team.delete(f"/jobs/v1/{documents[0]['metadata']['clientJobId']}").is_success
    assert titles(team) == ["stays"]


@pytest.fixture
def filed(team: Team) -> Team:
    """Three completed jobs of two workflows, two people and three days."""
    for title, flow, name, person, at in (
        ("A", "w-1", "Inspection", "ann", BEFORE_THAT),
        ("B", "w-2", "Repair", "bob", FIRST),
        ("C", "w-1", "Inspection", "bob", AFTER_THAT),
    ):
        header = {
            "workflowId": flow,
            "workflowName": name,
            "userId": person,
            "username": f"{person}@example.com",
        }
        team.synced(completed(title, **header, created=at, updated=at))
    return team


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('workflowId: "w-1"', "AC"),
        ('workflowId: ["w-1", "w-2"]', "ABC"),
        ('workflowId: ["w-2", "w-3"]', "B"),
        ('workflowTitle: "Repair"', "B"),
        ('workflowTitle: ["Repair", "Inspection"]', "ABC"),
        ('userId: "bob"', "BC"),
        ('userId: ["ann", "bob"]', "ABC"),
        ('userName: "ann@example.com"', "A"),
        ('userName: ["ann@example.com", "bob@example.com"]', "ABC"),
        ('jobTitle: "C"', "C"),
        ('jobTitle: ["C", "A"]', "AC"),
        ("jobTitle: []", ""),
        ("limit: null order: null cursor: null jobTitle: null includeExcluded: null", "ABC"),
        ('jobTitle: "c"', ""),
        ('createdSince: "2025-03-03T08:00:00.000Z"', "BC"),
        ('createdSince: "2025/03/03T08:00:00.000Z"', "BC"),
        ('createdSince: "2025-03-03T09:00:00.000+01:00"', "BC"),
        ('createdBefore: "2025/03/03T08:00:00.000Z"', "A"),
        ('updatedSince: "2025-03-03T08:00:00.001Z"', "C"),
        ('updatedBefore: "2025-03-04"', "AB"),
        ('createdSince: "2025-03-03" createdBefore: "2025-03-04"', "B"),
        ('modifiedBefore: "2025-03-04"', ""),
        ('modifiedSince: "2025-03-04"', "ABC"),
        ('workflowId: "w-1" userId: "bob" createdSince: "2025-03-03"', "C"),
        ('workflowId: "w-1" order: "desc"', "CA"),
        ('workflowId: ["w-1", "w-2"] order: "desc" limit: 2', "CB"),
        ('createdSince: "2025-03-03" order: "desc" limit: 1', "C"),
    ],
)
def test_jobs_are_found_by_each_argument(filed: Team, arguments: str, expected: str) -> None:
    assert "".join(titles(filed, f"({arguments})")) == expected


def test_jobs_are_found_by_their_ids(filed: Team) -> None:
    known = {job["jobTitle"]: job["jobId"] for job in jobs(filed, "{ jobs { jobTitle jobId } }")}
    assert titles(filed, f'(jobId: "{known["B"]}")') == ["B"]
    assert titles(filed, f'(jobId: ["{known["C"]}", "{known["A"]}", "nobody"])') == ["A", "C"]
    assert titles(filed, f'(jobId: ["{known["C"]}", "{known["A"]}"] userId: "ann")') == ["A"]


def test_jobs_are_found_by_the_tags_that_their_workflow_has_now(team: Team) -> None:
    for name, tags in (("One", ["Inspection", "Site A"]), ("Two", ["Repair", "Site A"]), ("Three", [])):
        team.synced(completed(name, workflowId=made(team, name=name, tags=tags)["workflowId"]))
    assert titles(team, '(workflowTag: "Site A")') == ["One", "Two"]
    assert titles(team, '(workflowTagsOr: ["Inspection", "Repair"])') == ["One", "Two"]
    assert titles(team, '(workflowTagsAnd: ["Site A", "Repair"])') == ["Two"]
    assert titles(team, '(workflowTag: "nobody has it")') == []
    (job,) = jobs(team, '{ jobs(jobTitle: "One") { workflowTags } }')
    assert job == {"workflowTags": ["Inspection", "Site A"]}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ('workflowId: "a" workflowTitle: "b"', "workflowId, workflowTitle"),
        (
            'workflowTag: "a" workflowTagsAnd: ["b"] workflowId: "c"',
            "workflowId, workflowTag, workflowTagsAnd",
        ),
        ('userId: "a" userName: "b"', "userName, userId"),
        ('jobId: "a" jobTitle: "b"', "jobTitle, jobId"),
    ],
)
def test_of_each_group_of_arguments_only_one_may_be_used(team: Team, arguments: str, named: str) -> None:
    code, message = refusal(team, f"{{ jobs({arguments}) {{ jobId }} }}")
    assert (code, message) == ("invalid-argument", f"Only one of these may be given: {named}.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('order: "up"', "order must be asc or desc."),
        ('createdSince: "yesterday"', "createdSince must be a time"),
        ('updatedBefore: "2019-13-01"', "updatedBefore must be a time"),
        ('status: "Paused" jobTitle: "x"', "not by jobTitle"),
        (f"jobTitle: {json.dumps([str(n) for n in range(101)])}", "jobTitle may have 100 values"),
    ],
)
def test_a_wrong_argument_is_an_error_that_names_it(team: Team, arguments: str, said: str) -> None:
    code, message = refusal(team, f"{{ jobs({arguments}) {{ jobId }} }}")
    assert code == "invalid-argument"
    assert said in message


def test_long_titles_are_compared_to_their_end(team: Team) -> None:
    long = "ü" * 3_000
    for end in ("1", "2"):
        team.synced(completed(long + end))
    found = jobs(team, "query ($title: [String!]) { jobs(jobTitle: $title) { jobTitle } }", title=f"{long}2")
    assert found == [{"jobTitle": f"{long}2"}]


def test_jobs_of_any_status_are_found_by_an_argument(team: Team) -> None:
    team.synced(completed("done"))
    team.synced(snapshot(jobTitle="waiting", workflowId="w-1"))
    team.synced(completed("stopped", status="Aborted"))
    assert titles(team, '(status: "Any")') == ["done", "waiting", "stopped"]
    assert titles(team, '(status: "paused")') == ["waiting"]
    assert titles(team, '(status: ["Paused", "Aborted"] order: "desc")') == ["stopped", "waiting"]
    assert titles(team, '(status: ["Completed", "Abandoned"])') == ["done"]
    assert titles(team, '(status: "Any" workflowId: "w-1")') == ["waiting"]
    query = 'query ($cursor: String) { jobs(status: "Any" limit: 1 cursor: $cursor) { jobTitle completedJobCursor } }'
    seen: list[Document] = []
    while page := jobs(team, query, cursor=seen[-1]["completedJobCursor"] if seen else None):
        seen += page
    assert [job["jobTitle"] for job in seen] == ["done", "waiting", "stopped"]


def test_another_teams_jobs_are_not_found_by_any_way(team: Team) -> None:
    other = team.app.team()
    other.synced(completed("theirs", workflowId="w-1", userId="ann"))
    (theirs,) = jobs(other, "{ jobs { jobId completedJobCursor } }")
    team.synced(completed("ours"))
    for arguments in (
        "",
        f'(jobId: "{theirs["jobId"]}")',
        '(workflowId: "w-1")',
        '(status: "Any" userId: "ann")',
    ):
        assert "theirs" not in titles(team, arguments)


# What of them


def test_the_fields_of_the_job_level_are_those_of_the_document(team: Team) -> None:
    begun, paused, resumed, done = (f"2025-03-03T09:00:{second:02}.000Z" for second in (0, 10, 30, 50))
    places = [(10.0, 50.0), (11.0, 51.0), (40.0, 60.0)]
    steps = [
        step(
            f"Step {number}",
            started=begun,
            completed=done,
            coordinates={"longitude": longitude, "latitude": latitude},
            timeEvents={paused: 0, resumed: 1} if number == 0 else None,
        )
        for number, (longitude, latitude) in enumerate(places)
    ]
    document = completed("Pump 7 – Łódź", created=begun, updated=done, metadata={"Order": "WO-1", "Count": 2})
    answer = team.synced(document | {"completedSteps": steps})
    header = document["metadata"]
    (job,) = jobs(
        team,
        """{ jobs { jobId completedJobCursor teamName workflowId workflowVersionId workflowTitle workflowTags jobTitle
        created updated completed totalDuration activeDuration status userId userName geoLongAverage geoLatAverage
        excluded clientJobId metadata { name value } } }""",
    )
    assert job == {
        "jobId": answer["jobId"],
        "completedJobCursor": job["completedJobCursor"],
        "teamName": team.name,
        "workflowId": header["workflowId"],
        "workflowVersionId": header["workflowVersionId"],
        "workflowTitle": header["workflowName"],
        "workflowTags": [],
        "jobTitle": "Pump 7 – Łódź",
        "created": begun,
        "updated": done,
        "completed": done,
        "totalDuration": 50,
        "activeDuration": 30,
        "status": "Completed",
        "userId": job["userId"],
        "userName": job["userName"],
        "geoLongAverage": 11.0,
        "geoLatAverage": 51.0,
        "excluded": False,
        "clientJobId": header["clientJobId"],
        "metadata": [{"name": "Order", "value": "WO-1"}, {"name": "Count", "value": 2}],
    }


def test_steps_come_in_the_order_of_time_and_the_steps_of_a_form_are_its_substeps(team: Team) -> None:
    form = step("Form", stepId="f", started=rfc_at(1), stepType="FormStep")
    key = form["singleStep"]["uniqueStepId"]
    inner = [
        step("Second", started=rfc_at(3), parentUniqueStepId=key, values=[2.5]),
        step(
            "First", started=rfc_at(2), parentUniqueStepId=key, values=["a", "b"], metadata={"tags": "code"}
        ),
    ]
    last = step("Last", started=rfc_at(9), note="A note", values=[True])
    team.synced(completed("job") | {"completedSteps": [last, *inner, form]})
    (job,) = jobs(
        team,
        """{ jobs { steps { stepTitle isFormStep note value values formLoopIteration __typename
        substeps { stepTitle stepTag value values } } } }""",
    )
    first, second = job["steps"]
    assert (first["stepTitle"], first["isFormStep"], first["formLoopIteration"]) == ("Form", True, 1)
    assert first["substeps"] == [
        {"stepTitle": "First", "stepTag": "code", "value": "a, b", "values": ["a", "b"]},
        {"stepTitle": "Second", "stepTag": None, "value": "2.5", "values": [2.5]},
    ]
    assert (second["note"], second["value"], second["values"]) == ("A note", "Yes", [True])
    assert (second["substeps"], second["__typename"]) == ([], "Step")


def rfc_at(minute: int) -> str:
    return f"2025-03-03T09:{minute:02}:00.000Z"


def test_a_step_is_found_by_its_id_then_by_its_tag_then_by_its_title(team: Team) -> None:
    steps = [
        step("needle", stepId="1", started=rfc_at(1)),
        step("b", stepId="2", started=rfc_at(2), metadata={"tags": "needle"}),
        step("c", stepId="needle", started=rfc_at(3)),
        step("Report of HSSE officer", stepId="4", started=rfc_at(4)),
        step("e", stepId="5", started=rfc_at(5), metadata={"tags": "my-hsse"}),
    ]
    team.synced(completed("job") | {"completedSteps": steps})
    (job,) = jobs(
        team,
        """{ jobs { byId: step(search: "needle") { stepTitle } byTag: step(search: ["my-hsse", "needle"]) { stepTitle }
        byTitle: step(search: ["b", "c"]) { stepTitle } none: step(search: "nothing") { stepTitle }
        pattern: step(regexSearch: "HSSE") { stepTitle } tag: step(regexSearch: "(?i)^my-HSSE$") { stepTitle } } }""",
    )
    assert job == {
        "byId": {"stepTitle": "c"},
        "byTag": {"stepTitle": "c"},
        "byTitle": {"stepTitle": "b"},
        "none": None,
        "pattern": {"stepTitle": "Report of HSSE officer"},
        "tag": {"stepTitle": "e"},
    }


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        '(search: "a" regexSearch: "b")',
        '(regexSearch: "(")',
        '(regexSearch: "(a+)+\\\\1")',
        f'(regexSearch: "{"a" * 257}")',
        '(regexSearch: "[a-z-[aeiou]]")',
        '(regexSearch: "[a-z&&[^x]]")',
    ],
)
def test_a_search_for_a_step_that_is_none_is_refused(team: Team, arguments: str) -> None:
    code, _ = refusal(team, f"{{ jobs {{ step{arguments} {{ stepId }} }} }}")
    assert code == "invalid-argument"


def test_a_pattern_that_takes_others_for_ever_takes_no_time(team: Team) -> None:
    team.synced(completed("job") | {"completedSteps": [step("a" * 5_000 + "!")]})
    (job,) = jobs(team, '{ jobs { step(regexSearch: "^(a|a)*(a|aa)+$") { stepId } } }')
    assert job == {"step": None}


def test_attachments_are_told_on_the_job_on_steps_and_on_substeps(team: Team) -> None:
    first, second, missing = new_id(), new_id(), new_id()
    form = step("Form", started=rfc_at(1))
    inner = step("Photo", parentUniqueStepId=form["singleStep"]["uniqueStepId"], valueResourceIds=[second])
    outer = step("Proof", stepId="s-1", started=rfc_at(5), valueResourceIds=[first, missing])
    team.synced(completed("job") | {"completedSteps": [form, inner, outer]})
    for attachment_id in (first, second):
        put_file(team, attachment_id=attachment_id)
    (job,) = jobs(
        team,
        """{ jobs { attachments { attachmentId stepId stepTitle mimeType fileSize downloadUrl }
        steps { attachments { attachmentId thumbnails { name downloadUrl } } substeps { attachments { attachmentId } } } } }""",
    )
    told = {each["attachmentId"]: each for each in job["attachments"]}
    assert told.keys() == {first, second}
    assert (told[first]["stepId"], told[first]["stepTitle"], told[first]["mimeType"]) == (
        "s-1",
        "Proof",
        "image/jpeg",
    )
    assert told[second]["stepTitle"] == "Photo"
    content = team.app.http.get(told[first]["downloadUrl"])
    assert (content.status_code, len(content.content)) == (200, told[first]["fileSize"])
    on_form, on_step = job["steps"]
    assert on_form == {"attachments": [], "substeps": [{"attachments": [{"attachmentId": second}]}]}
    assert [each["attachmentId"] for each in on_step["attachments"]] == [first]
    for name in sorted(TOLD["Attachment"] - {"thumbnails", "downloadUrl"}):
        asked = f"attachments {{ {name} }}"
        (job,) = jobs(team, f"{{ jobs {{ {asked} steps {{ {asked} substeps {{ {asked} }} }} }} }}")
        (alone,) = jobs(team, f"{{ jobs {{ steps {{ {asked} substeps {{ {asked} }} }} }} }}")
        assert alone == {"steps": job["steps"]}
        on_form, on_step = job["steps"]
        assert on_step["attachments"] + on_form["substeps"][0]["attachments"] == job["attachments"]


def test_whatever_is_selected_a_field_is_told_as_it_is_told_with_all_others(team: Team) -> None:
    team.push_many(
        [
            document | {"metadata": document["metadata"] | {"status": "Completed"}}
            for document in inspection_jobs(12)
        ]
    )
    fields = sorted(TOLD["Step"] - {"substeps", "attachments", "attachmentIds"})
    whole = jobs(team, f"{{ jobs {{ steps {{ {' '.join(fields)} substeps {{ {' '.join(fields)} }} }} }} }}")
    for name in fields:
        alone = jobs(team, f"{{ jobs {{ steps {{ {name} substeps {{ {name} }} }} }} }}")
        assert alone == [
            {
                "steps": [
                    {name: each[name], "substeps": [{name: inner[name]} for inner in each["substeps"]]}
                    for each in job["steps"]
                ]
            }
            for job in whole
        ]


def test_what_the_schema_promises_of_jobs_is_told() -> None:
    for name, told in TOLD.items():
        promised = SCHEMA.get_type(name)
        assert isinstance(promised, GraphQLObjectType)
        assert set(promised.fields) <= told


def test_members_of_the_wrong_kind_do_no_harm(team: Team) -> None:
    odd = completed("odd") | {
        "completedSteps": [{"singleStep": {"stepTitle": 5, "values": "x", "note": [1]}}]
    }
    odd["metadata"]["metadata"] = {"a": None, "b": {"c": [1]}}
    response = team.sync(odd)
    if response.status_code != 200:
        pytest.fail(response.text)
    (job,) = jobs(team, "{ jobs { metadata { name value } steps { stepTitle values value note } } }")
    assert job["metadata"] == [{"name": "b", "value": {"c": [1]}}]
    assert job["steps"] == [{"stepTitle": "5", "values": [], "value": None, "note": None}]
