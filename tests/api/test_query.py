"""Queries over HTTP: both methods, both addresses, JSON and CSV, and what is refused (sections 3.1 to 3.4)."""

import csv
import io
import json
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query

from server.query.documents import MAX_BYTES
from tests.support.app import PROBLEM, Document, Team, finished_snapshot, problem

PATHS = ("/query/v2/graph", "/api/query/v2/graph")
TITLES = "{ jobs { jobTitle } }"

#: The example queries of sections 3.1.2, 3.6.1 and 3.7, member for member.
EXAMPLES = {
    "latest jobs": """{ jobs (limit: 20 order: "desc") { jobId jobTitle workflowTitle created completed totalDuration
        userName geoLongAverage geoLatAverage } }""",
    "renamed": '{ jobs (limit: 20 order: "desc") { jobId # ID of the job\n completed: updated } }',
    "reports": """{ jobs (limit: 5 order: "desc") { jobId jobTitle
        reports { generatedReportId generated templateName mimeType downloadUrl } } }""",
    "attachments": """{ jobs (limit: 5 order: "desc") { jobId jobTitle
        attachments { attachmentId stepId uniqueStepId stepTitle mimeType fileSize downloadUrl } } }""",
    "thumbnails": """{ jobs (limit: 5 order: "desc") { jobId jobTitle attachments { attachmentId
        thumbnails { name created mimeType fileSize width height downloadUrl } } } }""",
    "substep tags": '{ jobs (limit: 5 order: "desc") { jobId jobTitle steps { substeps { stepTag } } } }',
    "job level": """{ jobs (limit: 5 order: "desc") { jobId completedJobCursor teamName workflowId workflowVersionId
        workflowTitle workflowTags jobTitle created updated totalDuration activeDuration status userId userName
        geoLongAverage geoLatAverage metadata { name value } } }""",
    "users": "{ users { emailAddress name userGroups { name } } }",
    "spreadsheet": """{ jobs(workflowTitle: "Component Inspection & Maintenance" limit: 50 order: "desc") { jobId jobTitle
        workflowId workflowTitle userName created updated totalDuration activeDuration geoLongAverage geoLatAverage
        componentCodeStep: step(search: "componentcode") { value }
        conditionBeforeStep: step(search: "bd9a9c4a-0784-4f7c-9ccb-7c1f8739a3d9") { substeps { stepTitle value } }
        maintenanceStep: step(search: "ComponentMaintenance") { activeDuration } } }""",
    "several steps": """{ jobs { jobId InstructionStep:step(search: "Instruction") { stepId stepTitle totalDuration }
        RepairDetailsStep:step(search: [ "a1cee52e-e950-4894-9f49-9e95862bb9a9" , "a1cee52e-e950-4894-9f49-9e95862bb9a1" ])
        { stepId stepTitle totalDuration } HsseStep:step(regexSearch: "HSSE") { stepId stepTitle totalDuration } } }""",
}


@pytest.fixture
def worked(team: Team) -> Team:
    """A team with two completed jobs."""
    for title in ("First", "=Second"):
        step = {
            "singleStep": {
                "stepTitle": "Component",
                "metadata": {"tags": "componentcode"},
                "values": ["MC003"],
            }
        }
        document = finished_snapshot(jobTitle=title, workflowName="Component Inspection & Maintenance")
        team.synced(document | {"completedSteps": [step]})
    return team


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"))))


@pytest.mark.parametrize("path", PATHS)
def test_a_query_is_asked_with_get_or_post(worked: Team, path: str) -> None:
    expected = {"data": {"jobs": [{"jobTitle": "First"}, {"jobTitle": "=Second"}]}}
    for answer in (
        worked.get(path, params={"query": TITLES}),
        worked.post(path, json={"query": TITLES}),
        worked.post(path, json={"query": TITLES, "variables": None, "operationName": None}),
    ):
        assert (answer.status_code, answer.json()) == (200, expected)
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.headers["cache-control"] == "private, no-store"


def test_variables_and_an_operation_are_chosen_by_either_method(worked: Team) -> None:
    text = "query A($n: Int) { jobs(limit: $n) { jobTitle } } query B { users { name } }"
    expected = {"data": {"jobs": [{"jobTitle": "First"}]}}
    got = worked.get(PATHS[0], params={"query": text, "variables": '{"n": 1}', "operationName": "A"})
    posted = worked.post(PATHS[0], json={"query": text, "variables": {"n": 1}, "operationName": "A"})
    assert got.json() == posted.json() == expected


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_the_document_are_answered(worked: Team, name: str) -> None:
    answer = worked.post(PATHS[0], json={"query": EXAMPLES[name]})
    assert "errors" not in answer.json(), answer.text
    (found,) = answer.json()["data"].values()
    assert found or name == "users"
    table = worked.post(f"{PATHS[0]}?csv=true", json={"query": EXAMPLES[name]})
    header, *lines = rows(table.text)
    assert len(lines) == len(found)
    assert all(len(line) == len(header) for line in lines)


def test_the_spreadsheets_columns_are_the_steps_that_it_names(worked: Team) -> None:
    answer = worked.post(PATHS[0], json={"query": EXAMPLES["spreadsheet"]}).json()["data"]["jobs"]
    assert [job["componentCodeStep"] for job in answer] == [{"value": "MC003"}] * 2
    assert answer[0]["conditionBeforeStep"] is None
    header, first, _ = rows(
        worked.get(PATHS[0], params={"query": EXAMPLES["spreadsheet"], "csv": "true"}).text
    )
    assert first[header.index("componentCodeStep.value")] == "MC003"


def test_a_table_is_safe_to_open_and_counts_the_errors_it_suppresses(worked: Team) -> None:
    answer = worked.get(PATHS[0], params={"query": TITLES, "csv": "true"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["x-fieldsync-errors"] == "0"
    assert rows(answer.text) == [["jobTitle"], ["First"], ["'=Second"]]
    wrong = worked.get(PATHS[0], params={"query": "{ jobs { nothing } }", "csv": "true"})
    assert (wrong.status_code, wrong.headers["x-fieldsync-errors"]) == (200, "1")
    half = worked.get(
        PATHS[0], params={"query": "{ a: jobs(limit: 0) { jobId } b: jobs { jobTitle } }", "csv": "true"}
    )
    assert half.headers["x-fieldsync-errors"] == "1"
    assert [line[-1] for line in rows(half.text)[1:]] == ["First", "'=Second"]


def test_what_is_wrong_with_a_query_is_in_its_answer(worked: Team) -> None:
    answer = worked.post(PATHS[0], json={"query": "{ jobs { nothing } }"})
    assert answer.status_code == 200
    (error,) = answer.json()["errors"]
    assert error["extensions"] == {"code": "query-invalid"}
    assert error["locations"] == [{"line": 1, "column": 10}]
    assert "data" not in answer.json()
    new = {"Accept": "application/graphql-response+json"}
    answer = worked.post(PATHS[0], json={"query": "{ jobs { nothing } }"}, headers=new)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("application/graphql-response+json")


def test_one_field_that_cannot_be_answered_leaves_the_others(worked: Team) -> None:
    text = "{ wrong: jobs(limit: 1000) { jobId } jobs { jobTitle } __typename }"
    answer = worked.post(PATHS[0], json={"query": text}).json()
    assert answer["data"] == {
        "wrong": None,
        "jobs": [{"jobTitle": "First"}, {"jobTitle": "=Second"}],
        "__typename": "Query",
    }
    (error,) = answer["errors"]
    assert (error["path"], error["extensions"]["code"]) == (["wrong"], "invalid-argument")


def test_the_schema_describes_itself_and_can_be_asked_beside_data(worked: Team) -> None:
    answer = worked.post(PATHS[0], json={"query": get_introspection_query()})
    schema = build_client_schema(answer.json()["data"])
    assert schema.query_type is not None
    assert "jobs" in schema.query_type.fields
    both = (
        '{ __type(name: "Job") { name } mine: __type(name: "Step") { kind } jobs(limit: 1) { __typename } }'
    )
    assert worked.post(PATHS[0], json={"query": both}).json()["data"] == {
        "__type": {"name": "Job"},
        "mine": {"kind": "OBJECT"},
        "jobs": [{"__typename": "Job"}],
    }


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "query-malformed"),
        (b"{", 400, "query-malformed"),
        (b'{"query": 5}', 400, "query-malformed"),
        (b'{"query": "{ jobs { jobId } }", "variables": []}', 400, "query-malformed"),
        (b"\xff", 400, "query-malformed"),
        (b"[" * 30_000, 400, "query-batch"),
        (b'[{"query": "{ jobs { jobId } }"}]', 400, "query-batch"),
        (b'{"query": "' + b"x" * MAX_BYTES + b'"}', 413, "query-too-large"),
    ],
)
def test_a_body_that_is_no_query_is_refused(sqlite_team: Team, body: bytes, status: int, code: str) -> None:
    problem(sqlite_team.post(PATHS[0], content=body), status, code)


def test_an_address_without_a_query_is_refused(sqlite_team: Team) -> None:
    problem(sqlite_team.get(PATHS[0]), 400, "query-missing")
    problem(sqlite_team.get(PATHS[0], params={"query": TITLES, "variables": "["}), 400, "query-malformed")


def test_lone_surrogates_and_nul_are_no_error_of_ours(team: Team) -> None:
    body = b'{"query": "query ($t: [String!]) { jobs(jobTitle: $t) { jobId } }", "variables": {"t": ["a\\u0000b"]}}'
    assert team.post(PATHS[0], content=body).json() == {"data": {"jobs": []}}
    odd = team.post(PATHS[0], content=rb'{"query": "{ jobs(jobTitle: \"\ud800\") { jobId } }"}')
    assert odd.status_code in (200, 400)


def test_a_query_takes_a_key_or_a_token_with_the_right_scope(worked: Team) -> None:
    keys: list[Document] = worked.get("/query/v2/keys").json()
    anybody = worked.app.http
    for each in keys:
        answer = anybody.get(PATHS[0], params={"query": TITLES, "key": each["key"]})
        assert len(answer.json()["data"]["jobs"]) == 2
    problem(anybody.get(PATHS[0], params={"query": TITLES}), 401, "token-missing")
    problem(anybody.get(PATHS[0], params={"query": TITLES, "key": "QK1WRONG"}), 401, "query-key-invalid")
    reader = worked.user("DATAVIEWER", scopes=["query.read"])
    assert worked.get(PATHS[0], params={"query": TITLES}, by=reader).status_code == 200
    other = worked.user("OWNER", scopes=["job.read"])
    problem(worked.get(PATHS[0], params={"query": TITLES}, by=other), 403, "insufficient-scope")
    worker = worked.executor()
    problem(worked.get(PATHS[0], params={"query": TITLES}, by=worker), 403, "insufficient-permission")


def test_a_refusal_of_access_is_a_problem(sqlite_team: Team) -> None:
    answer: Any = sqlite_team.app.http.post(PATHS[0], content=json.dumps({"query": TITLES}))
    assert answer.headers["content-type"].startswith(PROBLEM)
